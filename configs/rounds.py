"""Rounds of post-training of a model you bring: any, or smollm2 (for two cores)."""

import ml_collections

from configs import annotate
from configs import assets
from configs import average
from configs import dpo
from configs import evaluate
from configs import pretrain
from configs import reject
from configs import reward
from configs import sft
from llama3_jax import config as configs

# A program of several stages joins them: these fields are its own, so no override can
# be lost.
WIRED = (
  *('seed', 'mesh', 'init_from', 'reward_from', 'tokenizer', 'documents', 'inputs'),
  *('members', 'folder', 'round', 'data.root', 'data.tokenizer', 'data.files'),
  *('data.heldout_files', 'needle.tokenizer', 'needle.documents'),
  *('task_names', 'data.task_names'),
)


def get_config(size='any'):
  configs.choose('rounds', size, ('any', 'smollm2'))
  c = ml_collections.ConfigDict()
  c.experiment = 'rounds'
  c.seed = 0
  c.mesh = pretrain.base().mesh
  c.init_from = 'smollm2'  # the model of round 0, and what every round starts from
  c.data = ''  # folder of data sets, see data/assets.py and data/people.py
  c.rounds = 2  # six in the paper (4)
  c.members = 2  # DPO runs of a round that are averaged (4.1.5)
  # Prompts with answers that can be checked; a name that ends with = is read from data.
  c.task_names = ('copy', 'sort', 'arithmetic', 'format', 'gsm8k=')
  c.prompt_sets = ('pandalm',)  # of people, beside those of the tasks
  # Who says which of the first and the last model answers better: the last reward
  # model, the choice of init_from, or 'judge=MODEL', 'likelihood=MODEL', 'labels=FILE'.
  c.judges = ('reward', 'likelihood')
  c.assets = assets.get_config('chat')
  c.reward = reward.get_config('any')
  c.reject = reject.get_config('tiny' if size == 'smollm2' else 'paper')
  c.reject.verify = True  # a wrong answer to a task is never finetuned on (4.3.3)
  c.sft = sft.get_config('any')
  c.dpo = dpo.get_config('any')
  c.dpo.data.newest = 0  # the newest files are given to it
  c.average = average.get_config()
  c.evaluate = evaluate.get_config('chat')
  c.evaluate.tasks = ('gsm8k=', 'ifeval=', 'mbpp=', *c.task_names[:-1])
  c.annotate = annotate.get_config()
  for name in ('reward', 'sft', 'dpo'):
    c[name].data.heldout = 0.0
  if size == 'smollm2':
    _smollm2(c)
  unwire(c)
  return c


def _smollm2(c):
  """For two cores: adapters, short rows, few questions."""
  c.assets.update(dict(most=60, heldout=40, longest=1000, dialogs=0))
  for name in ('reward', 'sft', 'dpo'):
    c[name].part.rank = 16
    c[name].train.update(dict(batch=8, length=288, save_every=10, eval_every=1000))
    c[name].data.epochs = 1.0
  # Demonstrations: without any, no sampled answer to a task is right in round 1, and
  # nothing is learnt from it.
  c.sft.data.update(dict(tasks=200, epochs=1.5))
  c.sft.train.length = 384
  c.dpo.train.update(dict(batch=4, length=208, steps=15))
  c.reject.update(dict(samples=8, batch=8, part=60))
  c.reject.sample.update(dict(temperature=0.8, top_p=0.95, max_new=112))
  c.reject.data.tasks = 60
  c.evaluate.update(dict(examples=60, fewer=(('ifeval', 48), ('mbpp', 48)), batch=64))
  c.evaluate.update(dict(max_new=24, longest_answer=224))
  c.annotate.update(dict(batch=64))
  c.annotate.sample.update(dict(temperature=0.0, max_new=128))


def unwire(c):
  """Takes the fields of WIRED out of the stages' sections."""
  for name in c:
    if isinstance(c[name], ml_collections.ConfigDict) and 'experiment' in c[name]:
      _unwired(c[name])


def _unwired(config):
  for path in WIRED:
    *parents, name = path.split('.')
    node = config
    for parent in parents:
      node = node.get(parent)
      if node is None:
        break
    else:
      if name in node:
        del node[name]
