"""GRPO: any (questions of yours) or a size (tiny, 8b, 70b, 405b)."""

from configs import reward
from llama3_jax import config as configs
from llama3_jax.post.grpo import GRPOConfig
from llama3_jax.post.rollout import RolloutConfig


def base(size):
  """Fields of a stage with rollouts; what is 0 is chosen by the prompts and the
  model."""
  c = reward.base(size)
  del c.data.epochs
  c.init_from = 'runs/herd/sft_2'  # also the model that the distance is measured from
  c.reward_from = ''  # workdir of a reward model; '': the tasks' scores alone
  c.rollout = configs.section(RolloutConfig())
  # Llama 2: constant rate, 200 to 400 steps; a tenth of the rate of finetuning.
  c.optim.update(dict(warmup=5, decay=0, floor=1.0))
  c.train.update(dict(steps=200, batch=64, save_every=20, eval_every=20, log_every=1))
  c.data.update(dict(tasks=3000, heldout_tasks=200))
  if size == 'tiny':
    c.optim.peak = 3e-4
    c.train.update(dict(steps=60, batch=256, length=0))
    c.rollout.update(dict(max_new=24, minibatch=64))
    c.data.update(dict(tasks=6000, heldout_tasks=400))
  elif size != 'any':
    c.optim.peak = 1e-6  # Llama 2
    c.train.update(dict(batch=512, length=4096))
    c.rollout.update(dict(max_new=2048, minibatch=64))
    c.data.update(dict(tasks=0, heldout_tasks=0))
  else:
    c.optim.peak, c.train.length = 0.0, 0
  return c


def get_config(size='any'):
  c = base(size)
  c.experiment = 'grpo'
  c.grpo = configs.section(GRPOConfig())
  return c
