"""PPO as Llama 2 had it, used for the Llama 3 models of April 2024 (blog).

The reward of an answer is whitened over the step; every token pays for its distance
from the model before training; a critic that begins as the reward model gives the
values of generalised advantage estimation; policy and values are clipped.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from llama3_jax import axes
from llama3_jax import feed
from llama3_jax.config import ModelConfig
from llama3_jax.model import llama
from llama3_jax.post import reward
from llama3_jax.post import rollout
from llama3_jax.train import likelihood


@dataclasses.dataclass(frozen=True)
class PPOConfig:
  """The `ppo` part of a config; Llama 2's values, those it leaves open are usual."""

  clip: float = 0.2  # of the ratio of probabilities, both ways
  kl: float = 0.01  # price of a nat from the model before training
  gamma: float = 1.0  # what a later reward counts, a token
  lam: float = 0.95  # of generalised advantage estimation
  value: float = 0.5  # weight of the loss of the values
  value_clip: float = 0.2  # of a value against that of the rollout; 0: none
  whiten: bool = True  # rewards of a step: mean 0, spread 1


@struct.dataclass
class Learned:
  """What PPO trains: the policy, and the critic that gives values."""

  policy: llama.Params
  value: reward.Reward


@struct.dataclass
class Valued(rollout.Answers):
  """Answers with what the critic said of them, and what it should have said."""

  value: jax.Array = feed.field('BT', np.float32)
  returns: jax.Array = feed.field('BT', np.float32)


def critic(key: jax.Array, params: llama.Params, config: ModelConfig) -> reward.Reward:
  """The critic where there is no reward model: the policy, and a head of zeros."""
  made = reward.init(key, params, config)
  return made.replace(head=jnp.zeros_like(made.head))


def whiten(x: np.ndarray, weight: np.ndarray, center: bool = True) -> np.ndarray:
  """(x - mean) / sqrt(variance + 1e-8) over entries with weight 1, 0 elsewhere; float64
  of the shape of x; center=False: the mean stays. The variance is unbiased."""
  x, count = np.asarray(x, np.float64), weight.sum()
  if count < 2:
    return np.zeros_like(x)
  mean = (x * weight).sum() / count
  variance = (weight * (x - mean) ** 2).sum() / (count - 1)
  done = (x - mean) / np.sqrt(variance + 1e-8)
  return (done if center else done + mean) * weight


def shaped(
  scores: np.ndarray, old: np.ndarray, start: np.ndarray, weight: np.ndarray, kl: float
) -> np.ndarray:
  """Rewards of tokens, float64 [B,T]: -kl * (log p(old) - log p(start)) each, and the
  answer's score [B] at its last token."""
  rewards = -kl * (old - start).astype(np.float64) * weight
  last = np.where(weight.any(-1), weight.shape[1] - 1 - weight[:, ::-1].argmax(-1), -1)
  real = last >= 0
  rewards[real, last[real]] += scores[real]
  return rewards


def advantages(
  rewards: np.ndarray, values: np.ndarray, weight: np.ndarray, gamma: float, lam: float
) -> tuple[np.ndarray, np.ndarray]:
  """Generalised advantage estimation: (advantages, returns) float64 [B,T], 0 where the
  weight is.

  A_t = d_t + gamma lam A_{t+1}, d_t = r_t + gamma V_{t+1} - V_t; values behind the last
  token of an answer are 0, returns are A_t + V_t.
  """
  values = values * weight
  made, later, after = np.zeros(rewards.shape), 0.0, 0.0
  for t in reversed(range(rewards.shape[1])):
    delta = rewards[:, t] + gamma * after - values[:, t]
    later = weight[:, t] * (delta + gamma * lam * later)
    made[:, t], after = later, values[:, t]
  return made, made + values


@functools.partial(jax.jit, static_argnums=2)
def _values(params, batch, config):
  inputs = batch.tokens, batch.position, batch.segment
  values = reward.token_rewards(params, *inputs, config) * batch.weight
  return axes.shard(values, '__')  # replicated: it is read on the host


def values(
  params: reward.Reward, rows: rollout.Answers, config: ModelConfig, size: int
) -> np.ndarray:
  """The critic's values before every token of the answers, float32 [B,T]."""
  batches = feed.batches(rows, size)
  return rollout.in_order(
    [_values(params, feed.place(b), config) for b in batches], rows
  )


def filled(
  rows: Valued, scores: np.ndarray, valid: np.ndarray, c: PPOConfig
) -> tuple[Valued, dict[str, float]]:
  """(Rows with advantages and returns, metrics); rows that are not `valid` have no
  weight. `old`, `start` and `value` are there; scores float64 [B]."""
  weight = rows.weight * valid[:, None]
  if c.whiten:
    scores = whiten(scores, valid)
  rewards = shaped(scores, rows.old, rows.start, weight, c.kl)
  made, returns = advantages(rewards, rows.value, weight, c.gamma, c.lam)
  count = max(weight.sum(), 1)
  found = {'value': float((rows.value * weight).sum() / count)}
  found['returns'] = float((returns * weight).sum() / count)
  real = lambda x: x.astype(np.float32)
  whole = rows.replace(weight=weight, returns=real(returns))
  return whole.replace(advantage=real(whiten(made, weight))), found


def loss(
  params: Learned,
  batch: Valued,
  config: ModelConfig,
  critic: ModelConfig,
  c: PPOConfig,
  chunk: int = 1024,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Clipped objective and clipped value loss, summed over tokens of answers.

  -min(r A, clip(r, 1 +- clip) A) + value * max((V - R)^2, (clip(V, V_old +- value_clip)
  - R)^2) / 2, r = p / p_old. critic: ModelConfig of params.value. Metric sums over
  tokens: loss, policy, value_loss, clipped, moved (k3 of p_old and p), kl (k3 of p and
  the model before training), count.
  """
  logp = likelihood.of_targets(params.policy, batch, config, chunk)
  inputs = batch.tokens, batch.position, batch.segment
  now = reward.token_rewards(params.value, *inputs, critic)
  return of_tokens(logp, now, batch, c)


def of_tokens(
  logp: jax.Array, value: jax.Array, batch: Valued, c: PPOConfig
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """`loss` of the log-probabilities and values of tokens, float32 [B,T]."""
  w = batch.weight
  first, clipped = objective(logp, batch.old, batch.advantage, c.clip, c.clip)
  second = (value - batch.returns) ** 2
  if c.value_clip:
    near = jnp.clip(value, batch.value - c.value_clip, batch.value + c.value_clip)
    second = jnp.maximum(second, (near - batch.returns) ** 2)
  total = jnp.sum(w * (first + c.value * 0.5 * second))
  metrics = {
    'loss': total,
    'policy': jnp.sum(w * first),
    'value_loss': jnp.sum(w * 0.5 * second),
    'clipped': jnp.sum(w * clipped),
    'moved': jnp.sum(w * k3(batch.old, logp)),
    'kl': jnp.sum(w * k3(logp, batch.start)),
    'count': jnp.sum(w),
  }
  return total, metrics


def objective(
  logp: jax.Array, old: jax.Array, advantage: jax.Array, low: float, high: float
) -> tuple[jax.Array, jax.Array]:
  """(-min(r A, clip(r, 1 - low, 1 + high) A), whether the clip counts), float32 [B,T];
  r = exp(logp - old)."""
  ratio = jnp.exp(logp - old)
  free, held = ratio * advantage, jnp.clip(ratio, 1 - low, 1 + high) * advantage
  return -jnp.minimum(free, held), (held < free).astype(jnp.float32)


def k3(logp: jax.Array, other: jax.Array) -> jax.Array:
  """Schulman's estimate of KL(p || q) from tokens that p drew: q / p - 1 - log(q / p),
  never below 0."""
  difference = other - logp
  return jnp.exp(difference) - 1 - difference
