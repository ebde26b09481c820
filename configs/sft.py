"""Supervised finetuning: any (rows of yours) or a size (tiny, 8b, 70b, 405b)."""

from configs import reward
from llama3_jax import config as configs
from llama3_jax.train.config import AskConfig


def get_config(size='any'):
  c = reward.base(size)
  c.experiment = 'sft'
  c.ask = configs.section(AskConfig())  # questions at every evaluation
  c.init_from = 'runs/herd/anneal'  # every round starts from the pre-trained model
  c.data.positions = 'restart'  # RoPE positions of packed dialogs; or 'run'
  c.data.turns = 'last'  # what is trained on: the last answer; or 'all' answers
  c.data.shares = ()  # (('code', 0.15), ...): share of the examples by source
  c.data.passes = ()  # (('code', 3.0), ('web', 0.3)): how often an epoch has a source
  if size == 'tiny':
    c.optim.update(dict(peak=2e-3, warmup=10, decay=300, floor=0.1))
    c.train.update(dict(steps=300, batch=16, length=128))
  elif size != 'any':
    # 1e-5 over 8.5K to 9K steps (4.1.3); batch and schedule are not given.
    c.optim.update(dict(peak=1e-5, warmup=100, decay=8500, floor=0.1))
    c.train.update(dict(steps=8500, batch=64, length=8192, save_every=500))
    c.data.update(dict(tasks=0, heldout_tasks=0))
  return c
