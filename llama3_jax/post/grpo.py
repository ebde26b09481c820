"""GRPO: an answer's advantage is its reward against the others of its prompt.

Shao et al. 2024 (DeepSeekMath); options of Yu et al. 2025 (DAPO: clip-higher, loss by
token) and Liu et al. 2025 (Dr. GRPO: no spread, a constant length). Not in the paper.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.model import llama
from llama3_jax.post import ppo
from llama3_jax.post import rollout
from llama3_jax.train import likelihood

LENGTHS = ('token', 'answer', 'constant')


@dataclasses.dataclass(frozen=True)
class GRPOConfig:
  """The `grpo` part of a config."""

  clip: float = 0.2  # of the ratio of probabilities, downwards
  clip_high: float = 0.28  # upwards; more lets rare tokens rise (DAPO)
  spread: bool = True  # advantages over the spread of the prompt's rewards
  lengths: str = 'token'  # what counts alike: token, answer; constant: by max_new
  kl: float = 0.01  # weight of the distance from the model before training; 0: none


def check(c: GRPOConfig, samples: int) -> None:
  """UserError for a config that cannot be."""
  if c.lengths not in LENGTHS:
    raise UserError(
      f'grpo.lengths={c.lengths!r} is unknown: use one of {", ".join(LENGTHS)}'
    )
  if samples < 2:
    raise UserError(
      f'rollout.samples={samples}: GRPO compares answers of a prompt: 2 or more'
    )


def advantages(
  rewards: np.ndarray, valid: np.ndarray, samples: int, spread: bool
) -> np.ndarray:
  """Advantages float64 [B] of answers, `samples` a prompt in a row: reward - mean of
  the valid ones of the prompt, over their spread (unbiased) + 1e-4; 0 for the rest."""
  r = np.where(valid, rewards, 0.0).reshape(-1, samples)
  w = valid.reshape(-1, samples).astype(np.float64)
  count = np.maximum(w.sum(-1, keepdims=True), 1)
  centred = w * (r - (w * r).sum(-1, keepdims=True) / count)
  if spread:
    variance = (centred**2).sum(-1, keepdims=True) / np.maximum(count - 1, 1)
    centred = centred / (np.sqrt(variance) + 1e-4)
  return centred.reshape(-1)


def filled(
  rows: rollout.Answers,
  rewards: np.ndarray,
  valid: np.ndarray,
  samples: int,
  c: GRPOConfig,
) -> tuple[rollout.Answers, dict[str, float]]:
  """(Rows with advantages, metrics); rows that are not `valid` have no weight."""
  made = advantages(rewards, valid, samples, c.spread)
  even = np.all(made.reshape(-1, samples) == 0, -1)  # nothing to learn from them
  weight = rows.weight * valid[:, None]
  spread_out = (made[:, None] * weight).astype(np.float32)
  return rows.replace(weight=weight, advantage=spread_out), {'even': float(even.mean())}


def loss(
  params: llama.Params,
  batch: rollout.Answers,
  config: ModelConfig,
  c: GRPOConfig,
  longest: int,
  chunk: int = 1024,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """-min(r A, clip(r, 1 - clip, 1 + clip_high) A) + kl * k3(p, p_start), summed.

  c.lengths: 'token': over all tokens, count is their number; 'answer': the mean of each
  answer, count is the number of answers; 'constant': the sum of each answer over
  `longest`, count likewise. Metric sums: loss, policy, clipped, moved, kl, count.
  """
  logp = likelihood.of_targets(params, batch, config, chunk)
  return of_tokens(logp, batch, c, longest)


def of_tokens(
  logp: jax.Array, batch: rollout.Answers, c: GRPOConfig, longest: int
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """`loss` of the log-probabilities of tokens, float32 [B,T]."""
  tokens = jnp.sum(batch.weight, -1, keepdims=True)
  each = batch.weight / jnp.maximum(tokens, 1)  # sums to 1 an answer
  mean = batch.weight if c.lengths == 'token' else each
  w = batch.weight / longest if c.lengths == 'constant' else mean
  first, clipped = ppo.objective(logp, batch.old, batch.advantage, c.clip, c.clip_high)
  distance = ppo.k3(logp, batch.start)
  total = jnp.sum(w * (first + c.kl * distance if c.kl else first))
  metrics = {
    'loss': total,
    'policy': jnp.sum(w * first),
    'clipped': jnp.sum(mean * clipped),
    'moved': jnp.sum(mean * ppo.k3(batch.old, logp)),
    'count': jnp.sum(mean),
  }
  if c.kl:
    metrics['kl'] = jnp.sum(mean * distance)
  return total, metrics
