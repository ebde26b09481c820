"""Every field of every config: range and description, checked before training."""

import dataclasses
import fnmatch
import math
from collections.abc import Mapping

from llama3_jax.base.errors import UserError

SIZE, COUNT, STEPS = '[1, 1e6]', '[0, 1e9]', '[0, 1e9]'
SHARE, RATE = '[0, 1]', '[0, 1e3]'
KINDS = {'i': 'a whole number', 'f': 'a number', 's': 'a text', 'p': 'a name'}


@dataclasses.dataclass(frozen=True)
class Field:
  """The values a field may have.

  Attributes:
    range: an interval such as '[0, 1)' for a number, or for each number of a list.
    text: description of the field.
    rows: for a list of lists, the kinds of each entry: i a whole number, f any number,
      s a text, p a text that is not empty (a path, a name). One letter: for a plain
      list, the kind of all entries.
    free: whether the field may change between two starts of one run.
  """

  range: str
  text: str = ''
  rows: str = ''
  free: bool = False

  def fault(self, value: object) -> str:
    """Description of the fault of `value`; '' when there is none."""
    if isinstance(value, (tuple, list)):
      for entry in value:
        if self.rows and not self._entry(entry):
          due = KINDS.get(self.rows, f'{len(self.rows)} values of kinds {self.rows}')
          return f'{entry!r} is not {due}'
        if fault := dataclasses.replace(self, rows='').fault(entry):
          return fault
      return ''
    if isinstance(value, bool) or not isinstance(value, (int, float)):
      return ''
    return (
      ''
      if not self.range or _inside(value, self.range)
      else f'it must be in {self.range}'
    )

  def _entry(self, entry):
    if len(self.rows) == 1:
      entry = (entry,)
    kinds = {'i': (int,), 'f': (int, float), 's': (str,), 'p': (str,)}
    return (
      isinstance(entry, (tuple, list))
      and len(entry) == len(self.rows)
      and all(type(v) in kinds[kind] for v, kind in zip(entry, self.rows))
      and all(v.strip() for v, kind in zip(entry, self.rows) if kind == 'p')
    )


def _inside(value, interval):
  low, high = (float(part) for part in interval[1:-1].split(','))
  if math.isnan(value):
    return False
  above = value >= low if interval[0] == '[' else value > low
  below = value <= high if interval[-1] == ']' else value < high
  return above and below


# {pattern of paths: field}; the first match counts.
FIELDS = {
  'experiment': Field('', 'module of experiments/ that runs'),
  'init_from': Field('', "a run, a model's folder or file, or a name; '': random"),
  'reward_from': Field('', 'workdir of the reward model'),
  '*tokenizer': Field('', "vocabulary file; '': the one that travels with the input"),
  'documents': Field('', 'folder of <category>.jsonl.gz, or <category>/*.parquet'),
  '*.root': Field('', 'folder of token shards, one folder a source'),
  '*.positions': Field('', 'RoPE positions: row | document, of SFT restart | run'),
  'data.call_format': Field('', 'of tool calls: json | function_tag | python_list'),
  'data.turns': Field('', 'which assistant turns SFT supervises: last | all'),
  'data.shares': Field(SHARE, 'of the examples, by source (table 7)', 'pf'),
  'data.passes': Field('[0, 1e4]', 'times that an epoch has a source', 'pf'),
  'data.mode': Field('', 'reward rows: paper | exact | separate (one an answer)'),
  'data.margins': Field('', "of the reward by strength: '' | small | large (Llama 2)"),
  'data.pairs': Field('', 'of three answers: extreme | all | adjacent'),
  'data.*files': Field('', "JSONL files: ('one.jsonl', 'two.jsonl')", 'p'),
  'optim.groups': Field(
    '[0, 1e6]', 'pattern of parameters, factor on their rate', 'pf'
  ),
  'part.trainable': Field('', 'patterns of parameters that are trained; (): all', 'p'),
  'part.lora': Field('', 'patterns of products that get adapters', 'p'),
  'part.rank': Field('[0, 1e4]', 'of the adapters; 0: there are none'),
  'part.alpha': Field('(0, 1e6]', 'adapters count alpha / rank'),
  'rollout.samples': Field('[1, 1e4]', 'answers a prompt; train.batch is a multiple'),
  'rollout.max_new': Field('[1, 1e7]', 'tokens of an answer, then it is cut off'),
  'rollout.rows': Field(SIZE, 'answers that decode together'),
  'rollout.pages': Field(COUNT, "of the engine's memory; 0: as many as rows need"),
  'rollout.minibatch': Field(COUNT, 'answers of an update; 0: all of the step'),
  'rollout.epochs': Field('[1, 1e3]', 'updates with each answer of a step'),
  'rollout.stop_kl': Field(RATE, 'nats a token that end a step early; 0: never'),
  'rollout.task': Field(RATE, "weight of the task's score in the reward"),
  'rollout.model': Field(RATE, "weight of the reward model's score"),
  'rollout.cut': Field(RATE, 'an answer that was cut off is so far below the lowest'),
  'ppo.clip': Field('(0, 1)', 'of the ratio of probabilities, both ways'),
  'ppo.kl': Field(RATE, 'price of a nat from the model before training'),
  'ppo.gamma': Field(SHARE, 'what a later reward counts, a token'),
  'ppo.lam': Field(SHARE, 'of generalised advantage estimation'),
  'ppo.value_clip': Field(RATE, 'of values against those of the rollout; 0: none'),
  'ppo.value': Field(RATE, 'weight of the loss of the values'),
  'ppo.whiten': Field('', 'rewards of a step have mean 0 and spread 1'),
  'grpo.clip_high': Field('(0, 1e3]', 'of the ratio of probabilities, upwards'),
  'grpo.clip': Field('(0, 1)', 'of the ratio of probabilities, downwards'),
  'grpo.kl': Field(RATE, 'weight of the distance from the start; 0: none'),
  'grpo.spread': Field('', "advantages over the spread of a prompt's rewards"),
  'grpo.lengths': Field('', 'what counts alike: token | answer | constant'),
  'model.window': Field('[0, 1e9]', 'last positions that a query sees; 0: all'),
  'model.dtype': Field('', 'of the computation: bfloat16 | float32'),
  'model.reduce_dtype': Field('', 'in which gradients are summed'),
  'model.attention': Field('', 'auto | dense | blockwise | splash | flash'),
  'model.remat': Field('', 'none | full | preset | names of what is kept'),
  'model.quant': Field('', "matrix products: '' | int8 | fp8"),
  'model.embedding': Field('', 'gather | onehot'),
  'model.reshard': Field('', 'False: weights stay gathered until the backward pass'),
  'model.tie_embeddings': Field('', 'the head is the embedding'),
  'optim.?u_dtype': Field('', 'of a stored moment: float32 | bfloat16 | int8'),
  'pipeline.form': Field('', 'aligned | 1f1b | gpipe', free=True),
  'train.on_bad_step': Field('', 'off | skip | clip | rewind | stop', free=True),
  'train.checkpoints': Field(
    '', 'another folder for saves; may be gs://...', free=True
  ),
  'train.watchdog_exit': Field('', 'the process ends when no step comes', free=True),
  'gate.sources': Field('', 'whose held-out loss counts', 'p'),
  'weights': Field(
    '', "of the engine: '' | fp8 | fp8_weights | int8 | int8_weights (6.2)"
  ),
  'cap': Field('[0, 1e9]', 'on the value that scales an activation; 0: none'),
  'require': Field('', 'scores beyond those of two seeds are an error', free=True),
  'seed': Field('[0, 4294967295]', 'of everything that is drawn'),
  'mesh.fsdp': Field(
    '[-1, 1e6]', 'chips that share each weight; -1: the rest', free=True
  ),
  'mesh.*': Field('[-1, 1e6]', 'size of a mesh axis; -1: the rest', free=True),
  'model.block': Field('[0, 1e6]', 'tokens a block of attention; 0: by path'),
  'model.norm_eps': Field('(0, 1]', 'added to the mean square of RMSNorm'),
  'model.rope_theta': Field('[1, 1e12]', 'base of the RoPE frequencies'),
  'model.rope_scaling.original': Field('[1, 1e9]', 'context before extension, tokens'),
  'model.rope_scaling.*': Field('(0, 1e6]', 'RoPE scaling; factor 1: none'),
  'model.vocab_size': Field('[0, 1e7]', 'rows of the embedding; 0: as the shards say'),
  'model.*': Field(SIZE, 'a size of the model'),
  'pipeline.*': Field('[0, 1e4]', 'how the stages share the model (3.3.2)', free=True),
  'optim.peak': Field('[0, 10]', 'highest learning rate'),
  'optim.floor': Field(SHARE, 'lowest learning rate, as a share of the peak'),
  'optim.b[12]': Field('[0, 1)', 'decay of a moment'),
  'optim.eps': Field('(0, 1]', 'added to the root of the second moment'),
  'optim.weight_decay': Field('[0, 10]', 'decoupled weight decay'),
  'optim.clip': Field('(0, 1e9]', 'largest norm of the gradient'),
  'optim.*': Field(STEPS, 'steps of the schedule'),
  'train.steps': Field(STEPS, 'optimizer steps; raise it to train longer'),
  'train.batch': Field('[0, 1e8]', 'rows a step (0: only where a plan chooses)'),
  'train.length': Field(
    '[0, 1e8]', 'tokens a row; 0 (after pre-training): those of the longest example'
  ),
  'train.prefetch': Field('[0, 1024]', 'batches read before they are due', free=True),
  'train.ramp': Field(
    '[0, 1e18]', '((tokens, batch, length), ...), then in force', 'iii'
  ),
  'train.microbatches': Field(SIZE, 'parts of a batch, gradients summed', free=True),
  'train.z_loss': Field(RATE, 'weight of the squared log-normalizer'),
  'train.loss_chunk': Field('[0, 1e9]', 'tokens of logits at a time; 0: all'),
  'train.spike_sigma': Field(
    '[0, 1e6]', 'spreads above the mean of a spike; 0: off', free=True
  ),
  'train.watchdog_s': Field('[0, 1e9]', 'seconds without a step; 0: never', free=True),
  'train.save_every': Field('[1, 1e9]', 'steps between two saves'),
  'train.log_every': Field('[1, 1e9]', 'steps between two rows of metrics', free=True),
  'train.keep': Field('[1, 1e6]', 'newest saves that are kept', free=True),
  'train.average': Field('[0, 1e6]', 'last saves that make the final model'),
  'train.keep_every': Field(STEPS, 'multiples of it are kept; 0: none', free=True),
  'train.max_bad_steps': Field(STEPS, 'in a row, then the run stops', free=True),
  'train.rewind_steps': Field(STEPS, 'to go back after a bad one, at least', free=True),
  'train.max_rewinds': Field(STEPS, 'of one run', free=True),
  'train.replay_every': Field(STEPS, 'steps between two run twice; 0: none', free=True),
  'train.stats_every': Field(STEPS, 'steps between statistics of processes', free=True),
  'train.wandb': Field('', "project of Weights & Biases; '': none", free=True),
  'train.*': Field(STEPS, 'steps, or a count of them'),
  'data.mix.*': Field('[0, 1e9]', 'weight of a source'),
  'data.changes': Field(
    '[0, 1e18]', '((tokens, source, weight), ...), from then on', 'isf'
  ),
  'data.lanes': Field('[1, 1e7]', 'documents open at a time; not below the batch'),
  'shards.batches': Field(COUNT, 'of the held-out loss'),
  'shards.batch': Field(SIZE, 'rows of a batch of the held-out loss'),
  'shards.length': Field('[1, 1e8]', 'tokens of its rows'),
  'ask.tasks': Field('', 'that are asked at every evaluation; (): none', 'p'),
  'ask.data': Field('', 'folder of those whose name ends with ='),
  'ask.examples': Field('[1, 1e9]', 'of each task'),
  'ask.shots': Field('[-2, 1e4]', "solved examples; -1: in a chat; -2: the paper's"),
  'ask.turns': Field('[-2, 1e4]', 'solved examples in a chat, before the question'),
  'ask.longest_answer': Field('[0, 1e8]', 'tokens, whatever a task needs; 0: no limit'),
  'ask.batch': Field(SIZE, 'prompts at a time'),
  'suite': Field('', "base, chat, long, tools or multilingual; '': the tasks"),
  'longest_question': Field('[100, 1e7]', 'tokens, of the suite long'),
  'data.min_strength': Field('[0, 4]', 'of a preference; 0: all (4.1.2)'),
  'data.similar': Field(SHARE, 'from which responses are too alike; 0: none is'),
  'data.newest': Field(COUNT, 'rounds of preferences that are taken; 0: all'),
  'data.epochs': Field('(0, 1e6]', 'passes over the rows, where train.steps is 0'),
  'data.heldout': Field('[0, 0.5]', 'share of the rows of data.files that is held out'),
  'data.*': Field(COUNT, 'examples or batches of data'),
  'needle.depths': Field('[0, 1]', 'places in the text, as shares'),
  'needle.lengths': Field('[0, 1e8]', 'tokens of the haystacks', 'i'),
  'needle.*': Field('[0, 1e8]', 'of the haystacks'),
  'gate.tolerance': Field(SHARE, 'of the short-context loss, relative'),
  'gate.perfect': Field(SHARE, 'lowest recall of a length and depth'),
  'gate.*': Field(COUNT, 'of the long-context gate'),
  '*temperature': Field('[0, 100]', 'of sampling; 0: greedy'),
  '*.top_p': Field('(0, 1]', 'share of the probability that is sampled from'),
  '*.top_k': Field('[0, 1e9]', 'tokens that are sampled from; 0: all'),
  '*.max_new': Field('[1, 1e8]', 'tokens of an answer, at most'),
  'beta': Field('(0, 1e3]', 'of DPO: how near the policy stays to the reference'),
  'nll': Field(RATE, 'weight of the chosen answer in the DPO loss'),
  'loss': Field('', 'on pairs: dpo | ipo | simpo | kto | orpo | robust'),
  'target': Field(RATE, 'of simpo: by how much the chosen answer should win'),
  'flipped': Field('[0, 0.5)', 'of robust: share of pairs the wrong way round'),
  'moving': Field('[0, 1)', 'share of itself the reference keeps a step; 0: stays'),
  'tools': Field('', 'that a model may call: python, math, search=FOLDER ...', 'p'),
  'calls': Field('[0, 1e3]', 'messages with calls of tools, before an answer'),
  'shots': Field('[-2, 1e4]', "solved examples shown; -1: in a chat; -2: the paper's"),
  'turns': Field('[-2, 1e4]', "solved examples in a chat; -2: the paper's"),
  'batch': Field(SIZE, 'prompts or rows at a time'),
  'length': Field('[1, 1e8]', 'tokens'),
  'steps': Field('[1, 1e9]', 'optimizer steps; of a server: tokens of a call'),
  'step': Field('[1, 1e9]', 'that is shown, from 1'),
  'samples': Field('[1, 1e4]', 'answers a prompt'),
  'members': Field('[1, 1e3]', 'runs that are averaged', 'p'),
  'scales': Field('[-1e3, 1e3]', 'how much each member counts; (): all alike', 'f'),
  'base': Field('', "that members started from: their changes are added; '': a mean"),
  'by': Field('', 'value in results.json that chooses the members, of top'),
  'best': Field('', 'which values are best: least | most'),
  'evaluations': Field('', 'workdirs with those results, of each member', 'p'),
  'characters': Field('[1, 1e9]', 'of a document that the model sees'),
  'hold_out': Field('[1, 1e9]', 'every n-th document is for the report only'),
  'vocab_size': Field('[256, 1e7]', 'base ranks; 256 special tokens come on top'),
  'shards': Field('[1, 1e4]', 'tensor-parallel files'),
  'shard_bytes': Field('[1, 1e15]', 'largest file'),
  'hosts': Field('[1, 1e6]', 'machines that share one folder'),
  'host': Field('[0, 1e6]', 'which of them this is; the address of a server'),
  'port': Field('[0, 65535]', 'of a server; 0: any that is free'),
  'rows': Field('[1, 1e6]', 'answers that decode together, each a program', 'i'),
  'pages': Field('[0, 1e9]', 'of memory; 0: for all rows at their longest'),
  'queue': Field('[1, 1e6]', 'requests that may wait'),
  'timeout_s': Field('(0, 1e6]', 'seconds an answer may take'),
  'arrival_s': Field('(0, 1e6]', 'seconds a request may take to arrive'),
  'body_bytes': Field('[1, 1e12]', 'largest body of a request'),
  'key_file': Field('', "keys of which a request needs one, one a line; '': none"),
  'log': Field('', 'a line of JSON for each request, on stdout'),
  'workers': Field('[0, 1e4]', 'processes; 0: as many as cores'),
  'stages': Field('[1, 1e4]', 'of a pipeline'),
  'chunks': Field('[1, 1e6]', 'of the model a stage has; tokens of prompts'),
  'microbatches': Field('[1, 1e5]', 'of a step, of rows or chunks over stages'),
  'answer': Field('[2, 1e9]', 'tokens of an answer'),
  'prefill_s': Field('[0, 1e9]', 'seconds of a stage for its prompts', 'f'),
  'decode_s': Field('[0, 1e9]', 'seconds of a stage for a token', 'f'),
  'message_s': Field('[0, 1e9]', 'seconds of a message between stages'),
  'group': Field(
    '[0, 1e5]', 'consecutive microbatches of a chunk; 0: as many as stages'
  ),
  'examples': Field('[1, 1e9]', 'of each task'),
  'page': Field('[0, 1e6]', 'problems a document; 0: no documents'),
  'sets': Field('', 'of preferences by people: qa_feedback, pandalm ...', 'p'),
  'prompt_sets': Field('', 'sets of preferences whose prompts are answered', 'p'),
  'most': Field('[0, 1e9]', 'examples of a set; 0: all'),
  'longest': Field('[0, 1e9]', 'characters of an example; 0: any number'),
  'longest_answer': Field('[0, 1e7]', 'tokens of any answer; 0: what its task needs'),
  'gram': Field('[1, 1e5]', 'words or tokens of an n-gram'),
  'before': Field('[1, 1e6]', 'tokens before it, which the model is given'),
  'spare': Field('[0, 1e6]', 'tokens more that it writes'),
  'drawn': Field('[1, 1e6]', 'prompts of each language and frequency'),
  'most_languages': Field('[0, 1e3]', 'that are told apart; 0: all are one'),
  'room': Field('[1, 1e9]', 'different n-grams that are counted'),
  'against': Field('', 'workdirs of other evaluations, to compare with', 'p'),
  'fewer': Field('[1, 1e9]', 'of some tasks: ((name, examples), ...)', 'pi'),
  'round': Field('[0, 1e3]', 'of post-training, of the preferences; 0: none'),
  'verify': Field('', 'True: a kept answer of a task must be right (4.3.3)'),
  'rounds': Field('[0, 1e3]', 'of post-training'),
  'z_loss': Field(RATE, 'weight of the squared log-normalizer'),
  '*tolerance': Field('[0, 1e6]', 'largest relative difference that passes'),
  'a.*': Field('[-1, 1e6]', 'of the first layout'),
  'b.*': Field('[-1, 1e6]', 'of the second layout'),
  'plan.timeout_s': Field('(0, 1e7]', 'seconds a compilation may take'),
  'plan.memory_gib': Field(
    '[0, 1e6]', "a tighter limit than the chip's; 0: the chip's"
  ),
  'plan.*': Field(COUNT, 'of the search'),
  'search.*': Field('[1, 1e6]', 'tried by the search'),
  'scaling.hold_out': Field(COUNT, 'budgets kept for the test of the prediction'),
  'scaling.floor': Field(SHARE, 'lowest learning rate, as a share of the peak'),
  'scaling.*_share': Field(SHARE, 'of the steps'),
  'scaling.*': Field('[0, 1e30]', 'of the ladder of runs (3.2.1)'),
  'part_bytes': Field('[1, 1e15]', 'of files of documents that one task reads'),
  'text': Field('', 'folders, files or patterns of your own text', 'p'),
  'column': Field('', "of the text in rows; '': text, content, document ..."),
  'curate': Field('', 'True: the rules of web curation first (3.1.1)'),
  'system': Field('', 'message of the system'),
  'prompt': Field('', 'a text to be completed'),
  'prompts': Field('', 'texts that are completed at each evaluation', 's'),
  'files': Field('', 'of prompts or rows: JSONL, Parquet or CSV', 'p'),
  'candidates': Field('', 'further models that answer each prompt', 'p'),
  'second_from': Field('', 'workdir of another reward model'),
  'choose': Field('', 'the best by: reward | minimum | length | votes'),
  'wave': Field('[0, 1e4]', 'answers of a prompt at a time; 0: all'),
  'bar': Field('[-inf, inf]', 'a reward from which on no further wave comes'),
  'policies': Field('', 'file {capability: {settings, system, language, script}}'),
  'part': Field('[1, 1e9]', 'prompts of a file, where a run goes on'),
  'judge': Field('', 'asked of a model: quality | code | difficulty | topic', 'p'),
  'topics': Field('', 'of which a dialog has one', 'p'),
  'limits.cosine': Field('[-1, 2]', 'dialogs as near to a better one are dropped'),
  'limits.*': Field(SHARE, 'of the dialogs'),
  'pool': Field('', 'models of which two answer each prompt', 'p'),
  'models': Field('', 'whose ratings are taken, by name; (): all', 'p'),
  'judges': Field('', 'people, or labels=, judge=, likelihood=, reward=', 'p'),
  'ensemble': Field('', 'of judges: majority | minimum'),
  'scale': Field('[7, 8]', 'points of a rating: 8, four strengths a side, or 7'),
  'rater': Field('', 'who rates on seven points, where people do'),
  'template': Field('', "of a judge, with {prompt}, {a}, {b}; '': the usual one"),
  'heldout': Field('[0, 1e9]', 'kept for evaluation: a share, or a count of examples'),
  'data_rows.*': Field(SIZE, "of the reward model's rows with real data"),
  'inputs': Field('', "files of documents: ('crawl/*.warc.gz', 'code=x.jsonl')", 'p'),
  'languages': Field('', 'that are kept', 'p'),
  'task': Field('', 'answered by letters: mmlu, arc_letters, or NAME=FILES'),
  'data': Field('', 'folder of files of others, whose names the recipe knows'),
  'biases': Field('', 'places of the right answers of the solved examples: AABB', 'p'),
  'labels': Field('', "of four choices, as they are listed: '1. 2. 3. 4.'", 'p'),
  'orders': Field('', 'of four choices: DCBA lists them backwards', 'p'),
  'formats': Field('', 'of a prompt: bare | named | topic | rules | examination', 'p'),
  'pairs': Field('', 'of tasks, ordinary and adversarial: ((name, name), ...)', 'pp'),
  'tasks': Field('', 'that are evaluated: of tasks/, your own modules, rows=FILE', 'p'),
  '*task_names': Field('', 'tasks that training data is made of', 'p'),
  'keep': Field('', 'languages or categories whose text is learnt from', 'p'),
  'curate.skip': Field('', 'steps of curation that are left out', 'p'),
  'curate.exclude.files': Field('', 'JSONL files of items to look for', 'p'),
  'curate.*.categories': Field('', 'of documents that the step looks at', 'p'),
  'curate.*.scope': Field('', 'within which documents are compared', 'p'),
  'curate.urls.*': Field('', 'words, hosts, or files of them', 'p'),
  'curate.*share': Field(SHARE, 'share of what is looked at'),
  'curate.language.*_score': Field(SHARE, 'of the language model'),
  'curate.outliers.percentile': Field('[0, 100]', 'of divergence that is kept'),
  'curate.*.model.*': Field('[0, 1e9]', 'of a classifier'),
  'curate.heuristics.*': Field('[-inf, inf]', 'a limit; infinite: no limit'),
  'curate.*': Field('[0, 1e15]', 'of curation (docs/curation.md)'),
  '*': Field(COUNT, ''),
}


def find(path: str) -> Field | None:
  """The field of a path such as 'optim.peak'."""
  for pattern, field in FIELDS.items():
    if path == pattern or fnmatch.fnmatchcase(path, pattern):
      return field
  return None


def _of_stage(path, flat):
  """The field of a path, which may begin with the name of a stage."""
  stage, _, rest = path.partition('.')
  return find(rest if f'{stage}.experiment' in flat else path)


def free(path: str) -> bool:
  """Whether a field may change between two starts of one run."""
  field = find(path)
  return field is not None and field.free


def check(flat: Mapping[str, object]) -> None:
  """Raises UserError for the first value of a flat config outside its range.

  Args:
    flat: {path: value}; a path may begin with the name of a stage (the herd's).
  """
  for path, value in flat.items():
    field = _of_stage(path, flat)
    fault = field.fault(value) if field else ''
    if fault:
      raise UserError(f'--config.{path}={value}: {fault} ({field.text})')


def describe(flat: Mapping[str, object], flags: Mapping[str, str]) -> list[str]:
  """A line for every field of `flags`, {path: flag}: value, description, range."""
  lines = []
  for path, flag in flags.items():
    value, field = flat[path], _of_stage(path, flat)
    setting = f'  {flag}={value}'
    about = f'{field.text} {field.range}'.strip() if field else ''
    number = isinstance(value, (int, float, tuple)) and not isinstance(value, bool)
    about = about if number or not field else field.text
    about += ', may change on resume' if field and field.free else ''
    lines.append(f'{setting:<44} {about}'.rstrip())
  return lines
