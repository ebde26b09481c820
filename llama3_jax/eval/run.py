"""Evaluation on tasks with checkable answers, with 95% intervals (5.1)."""

import dataclasses
import functools
import math
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from llama3_jax import feed
from llama3_jax.base import confidence
from llama3_jax.base import log
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.data import pipeline
from llama3_jax.data import shards
from llama3_jax.generate import engine
from llama3_jax.generate import likelihood
from llama3_jax.generate.settings import Settings
from llama3_jax.model import llama
from llama3_jax.tasks import suite
from llama3_jax.tasks import task as task_lib
from llama3_jax.tasks.task import Example
from llama3_jax.tasks.task import Task
from llama3_jax.text import chat
from llama3_jax.text.tokenizer import Tokenizer
from llama3_jax.train import loss as losses
from llama3_jax.train import step

GREEDY = Settings(temperature=0.0, max_new=32)
CHAT, PAPER = -1, -2  # in place of a number of solved examples
# What the log-probability of a choice is divided by, of Task.normalise.
SIZES = {
  '': lambda text: 1,
  'characters': len,
  'bytes': lambda text: len(text.encode()),
}


def base_prompt(
  tokenizer: Tokenizer, task: Task, example: Example, shots: Sequence[Example]
) -> list[int]:
  """Ids of a question after solved ones, in the form of the task or of exercises."""
  if task.context:
    return tokenizer.encode(task.context(example, shots), bos=True)
  solved = suite.document(shots) + '\n' if shots else ''
  return tokenizer.encode(solved + task.page(example), bos=True)


def chat_prompt(tokenizer: Tokenizer, task: Task, example: Example) -> list[int]:
  """Ids of a question as the user's message, with the assistant's header open."""
  messages = [chat.Message('user', task.prompt(example))]
  return chat.encode(tokenizer, messages, prompt=True).ids.tolist()


@dataclasses.dataclass(frozen=True)
class Asked:
  """The questions of a task as a model is asked them: in a chat, or as a base model."""

  task: Task
  examples: Sequence[Example]
  prompts: Sequence[list[int]]
  settings: Settings
  chat: bool

  @classmethod
  def of(
    cls,
    tokenizer: Tokenizer,
    task: Task,
    examples: Sequence[Example],
    shots: Sequence[Example] | Callable[[Example], Sequence[Example]] | None = None,
    settings: Settings = GREEDY,
    longest: int = 0,
  ) -> 'Asked':
    """shots, settings, longest: as of `answers`."""
    if any(e.media for e in examples):
      raise UserError('this model reads text: the task has images or sound')
    if shots is None:
      prompts = [chat_prompt(tokenizer, task, e) for e in examples]
    else:
      shown = shots if callable(shots) else lambda e: shots
      prompts = [base_prompt(tokenizer, task, e, shown(e)) for e in examples]
    _opened_once(tokenizer, prompts)
    most = max(settings.max_new, task.max_new)
    most = min(most, longest) if longest else most
    own = dict(max_new=most, vocab_size=tokenizer.vocab_size)
    how = dataclasses.replace(settings, **own)
    return cls(task, examples, prompts, how, shots is None)

  @property
  def room(self) -> int:
    """Tokens of a row that holds any prompt with its answer."""
    return engine.room(max(map(len, self.prompts)) + self.settings.max_new)

  @property
  def chooses(self) -> bool:
    """Whether every question has choices, of which the likeliest is the answer."""
    return all(e.choices for e in self.examples)

  @property
  def forced(self) -> bool:
    """Whether every question has one choice, which is weighed alone."""
    return all(len(e.choices) == 1 for e in self.examples)

  @property
  def lead(self) -> str:
    """What stands before an answer: that of a chat begins a message."""
    return '' if self.chat else ' '


def answers(
  params: llama.Params,
  config: ModelConfig,
  tokenizer: Tokenizer,
  task: Task,
  examples: Sequence[Example],
  shots: Sequence[Example] | Callable[[Example], Sequence[Example]] | None = None,
  settings: Settings = GREEDY,
  batch_size: int = 16,
  longest: int = 0,
) -> list[str]:
  """The model's answer to each example of a task.

  shots None: in a chat. Otherwise as a base model after these solved examples, or those
  of shots(example): the text before `task.stop`. Where every example has choices, the
  answer is the likeliest. longest: tokens of an answer, whatever the task needs.
  """
  asked = Asked.of(tokenizer, task, examples, shots, settings, longest)
  return responses(params, config, tokenizer, [asked], batch_size)[0]


def _opened_once(tokenizer, prompts):
  """Raises UserError for a second begin_of_text: it lowers scores without a word."""
  names = {number: name for name, number in tokenizer.specials.items()}
  for ids in prompts:
    if ids[0] in names and ids[:2] == ids[:1] * 2:
      raise UserError(
        f'a prompt begins with {names[ids[0]]} twice: a chat template writes it once '
        'too often: repair it'
      )


def responses(
  params: llama.Params,
  config: ModelConfig,
  tokenizer: Tokenizer,
  every: Sequence[Asked],
  batch_size: int = 16,
) -> list[list[str]]:
  """The answers to all questions; those with rows of one size run together, so that a
  row whose answer ends is free for a question of another task.

  Where every question has choices, the answer is the likeliest; where they have one
  each, it is that one or '', by whether greedy decoding would write it.
  """
  found, _ = weighed(params, config, tokenizer, every, batch_size)
  return found


def weighed(
  params: llama.Params,
  config: ModelConfig,
  tokenizer: Tokenizer,
  every: Sequence[Asked],
  batch_size: int = 16,
) -> tuple[list[list[str]], list[list[float]]]:
  """As `responses`, and the log-probability of the one choice of each question, of
  tasks whose questions have one each."""
  found, rooms, logps = [[] for _ in every], {}, [[] for _ in every]
  for i, asked in enumerate(every):
    if not asked.examples:
      continue
    if asked.forced:
      found[i], logps[i] = _forced(params, config, tokenizer, asked)
    elif asked.chooses:
      found[i] = _chosen(params, config, tokenizer, asked)
    else:
      rooms.setdefault(asked.room, []).append(i)
  for _, members in sorted(rooms.items()):
    prompts = [(i, ids) for i in members for ids in every[i].prompts]
    groups = engine.generate(
      params,
      [ids for _, ids in prompts],
      config,
      tokenizer.stop_ids,
      [every[i].settings for i, _ in prompts],
      batch_size=batch_size,
    )
    for (i, _), [completion] in zip(prompts, groups):
      found[i].append(_cut(tokenizer.decode(completion.ids), every[i]))
  return found, logps


def _cut(text, asked):
  """The answer in a text: all of it in a chat, else up to the task's stop."""
  if asked.chat:
    return text
  text = text.strip()
  return text.split(asked.task.stop)[0] if asked.task.stop else text


def _chosen(params, config, tokenizer, asked):
  """For each example, the choice that is likeliest after its prompt."""
  task, examples = asked.task, asked.examples
  pairs = []
  for e, ids in zip(examples, asked.prompts):
    for choice in e.choices:
      said = tokenizer.encode(f'{asked.lead}{choice}')
      if task.suffix and not asked.chat:
        pairs.append((ids + said, tokenizer.encode(f' {task.suffix(e)}')))
      else:
        pairs.append((ids, said))
  contexts, continuations = zip(*pairs)
  logp = iter(likelihood.of_answers(params, contexts, continuations, config))
  size = SIZES[task.normalise]
  scores = [[next(logp) / size(c) for c in e.choices] for e in examples]
  return [e.choices[int(np.argmax(row))] for e, row in zip(examples, scores)]


def _forced(params, config, tokenizer, asked):
  """([each one choice, or '' where greedy decoding writes another], their logp)."""
  words = [e.choices[0] for e in asked.examples]
  said = [tokenizer.encode(f'{asked.lead}{word}') for word in words]
  logp, greedy = likelihood.weighed(params, asked.prompts, said, config)
  return [w if right else '' for w, right in zip(words, greedy)], logp.tolist()


def tasks(
  params: llama.Params,
  config: ModelConfig,
  tokenizer: Tokenizer,
  names: Sequence[str] = suite.TASKS,
  n: int | Mapping[str, int] = 100,
  seed: int = 0,
  shots: int | None = None,
  settings: Settings = GREEDY,
  batch_size: int = 16,
  longest: int = 0,
  record: Callable[[dict], None] | None = None,
) -> dict[str, dict]:
  """Mean score on up to `n` held-out examples a task: {task: {'score', 'n', 'ci' (the
  paper's half width), 'interval': [low, high]}}.

  n: one number, or that of each task. shots None or CHAT: in a chat; a number: as a
  base model after so many solved examples of the train split; PAPER: after Task.shots.
  longest: tokens of any answer, whatever its task needs; 0: no limit. 'macro' is the
  mean over tasks, independent of their n; 'summary' is that of a task which has one;
  'perplexity' is that of the choice, where each question has one. record: called with
  {'task', 'question', 'prompt' (as asked, without solved examples), 'answer',
  'response', 'score'} of every example.
  """
  every, shots = {}, None if shots == CHAT else shots
  for name in dict.fromkeys(names):
    task, most = task_lib.load(name), n if isinstance(n, int) else n[name]
    examples = task.examples('heldout', most, seed)
    count = task.shots if shots == PAPER else shots
    solved = None if count is None else []
    if count and task.solved:
      solved = functools.partial(task.solved, n=count)
    elif count:
      solved = task.examples('train', count, seed)
    every[name] = Asked.of(tokenizer, task, examples, solved, settings, longest)
  count = sum(len(asked.examples) for asked in every.values())
  with log.work(f'asking {count:,} questions of {len(every)} tasks'):
    asked = list(every.values())
    found, logps = weighed(params, config, tokenizer, asked, batch_size)
  results = {}
  for name, own, texts, logp in zip(every, asked, found, logps):
    results[name] = _measured(name, own, texts, record) | _perplexity(logp)
  return {**results, 'macro': macro(results)}


def _measured(name, asked, texts, record):
  """The result of a task, each of whose answers is recorded."""
  task, examples = asked.task, asked.examples
  scores = task_lib.scored(task, list(zip(examples, texts)))
  for e, text, score in zip(examples, texts, scores) if record else ():
    shown = task.prompt(e) if asked.chat else task.page(e)
    one = dict(task=name, question=e.prompt, prompt=shown, answer=e.answer)
    record(one | {'response': text, 'score': score})
  count = len(examples)  # a task with few prompts gives fewer than n
  score = sum(scores) / max(count, 1)
  found = {'score': score, 'n': count, 'ci': confidence.paper(score, count)}
  found['interval'] = confidence.of_scores(scores)
  return found | ({'summary': task.summary(examples, texts)} if task.summary else {})


def _perplexity(logps):
  """{'perplexity', 'perplexity_interval'} of answers' log-probabilities; {} of none."""
  if not logps:
    return {}
  of = lambda drawn: np.exp(-drawn.mean(-1))
  interval = confidence.bootstrap(logps, of)
  return {'perplexity': float(of(np.array(logps))), 'perplexity_interval': interval}


def macro(results: Mapping[str, Mapping]) -> dict:
  """Macro average of task results, in which each task counts alike, and under 'micro'
  the one in which each question does; intervals take the tasks as independent."""
  every, count = list(results.values()), max(len(results), 1)
  total = sum(r['n'] for r in every)
  average = lambda weights: {
    'score': sum(r['score'] * w for r, w in zip(every, weights)),
    'n': total,
    'ci': math.sqrt(sum((r['ci'] * w) ** 2 for r, w in zip(every, weights))),
    'interval': confidence.of_mean(every, weights),
  }
  alike, by_size = [1 / count] * len(every), [r['n'] / max(total, 1) for r in every]
  return average(alike) | {'micro': average(by_size)}


@functools.cache  # one loss a model, so that it compiles once
def _loss(config):
  return functools.partial(losses.next_token, config=config)


def held_out(
  params: llama.Params,
  config: ModelConfig,
  sources: Mapping[str, shards.Source],
  batch: int,
  length: int,
  batches: int,
  positions: str = 'row',
) -> dict[str, float]:
  """Loss of each source's held-out documents, nats a token.

  sources: name -> source of `shards.open_source(folder, split='heldout')`.
  """
  measured = {}
  for name, source in sources.items():
    rows = pipeline.heldout({name: source}, batch, length, batches, positions)
    placed = [feed.place(row) for row in rows]
    if placed:
      with log.work(f'{name}: held-out loss of {len(placed)} batches'):
        measured[name] = step.evaluate(params, placed, _loss(config))['loss']
  return measured
