"""PPO: any (prompts of yours) or a size (tiny, 8b, 70b, 405b)."""

from configs import grpo
from llama3_jax import config as configs
from llama3_jax.post.ppo import PPOConfig


def get_config(size='any'):
  c = grpo.base(size)
  c.experiment = 'ppo'
  c.reward_from = 'runs/herd/reward_2'  # also what the critic begins as
  c.rollout.samples = 1  # answers a prompt
  c.ppo = configs.section(PPOConfig())
  if size in ('70b', '405b'):
    c.ppo.kl = 0.005  # Llama 2: 0.01 for 7B and 13B, 0.005 above
  return c
