"""Rejection sampling (4.2.2): of K answers a prompt, the one with the best reward."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from llama3_jax.config import ModelConfig
from llama3_jax.generate import engine
from llama3_jax.generate.settings import Settings
from llama3_jax.model import llama
from llama3_jax.post import reward
from llama3_jax.text import chat
from llama3_jax.text.tokenizer import Tokenizer

CUT = -math.inf  # reward of an answer that was cut off


@dataclasses.dataclass(frozen=True)
class Candidates:
  """K answers to one prompt, with the sampled ids, and their rewards (-inf: cut off at
  the longest length)."""

  prompt: tuple[chat.Message, ...]
  responses: tuple[chat.Message, ...]
  rewards: tuple[float, ...]

  @property
  def best(self) -> int | None:
    """Index of the highest reward; None when every answer was cut off."""
    best = int(np.argmax(self.rewards))
    return None if self.rewards[best] == CUT else best


def sample(
  params: llama.Params,
  scorer: reward.Reward,
  prompts: Sequence[Sequence[chat.Message]],
  tokenizer: Tokenizer,
  config: ModelConfig,
  settings: Settings,
  samples: int,
  seed: int = 0,
  batch_size: int = 8,
  system: str = '',
) -> list[Candidates]:
  """`samples` answers (10 to 30 in the paper) of the model to each prompt, scored.

  system: a system prompt for tone, style or format while sampling; the dialogs that are
  scored and the examples made from the answers do not contain it.
  """
  steer = [chat.Message('system', system)] if system else []
  encode = lambda messages: chat.encode(tokenizer, messages, prompt=True).ids.tolist()
  settings = dataclasses.replace(settings, vocab_size=tokenizer.vocab_size)
  groups = engine.generate(
    params,
    [encode([*steer, *prompt]) for prompt in prompts],
    config,
    tokenizer.stop_ids,
    settings,
    seed,
    samples,
    batch_size,
  )
  # The reward model scores exactly the sampled ids.
  dialogs = []
  for prompt, completions in zip(prompts, groups):
    ids = encode(prompt)
    dialogs += [ids + list(completion.sampled) for completion in completions]
  rewards = reward.score(scorer, dialogs, config, batch_size * samples).tolist()
  candidates = []
  for i, (prompt, completions) in enumerate(zip(prompts, groups)):
    part = rewards[i * samples : (i + 1) * samples]
    candidates.append(
      Candidates(
        tuple(prompt),
        tuple(chat.sampled(tokenizer, c.sampled) for c in completions),
        tuple(r if c.stopped else CUT for r, c in zip(part, completions)),
      )
    )
  return candidates


def sft_rows(candidates: Sequence[Candidates], source: str = 'reject') -> list[dict]:
  """SFT rows (`messages`, `source`, `reward`) of each prompt's best answer, whole
  messages with the sampled ids."""
  rows = []
  for candidate in candidates:
    best = candidate.best
    if best is None:
      continue
    dialog = [*candidate.prompt, candidate.responses[best]]
    messages = [chat.fields(m) for m in dialog]
    rows.append(
      {'messages': messages, 'source': source, 'reward': candidate.rewards[best]}
    )
  return rows


def candidate_rows(candidates: Sequence[Candidates]) -> list[dict]:
  """JSON rows of all answers: `prompt`, `responses`, `rewards` (null: cut off)."""
  return [
    {
      'prompt': [chat.fields(m) for m in c.prompt],
      'responses': [chat.fields(m) for m in c.responses],
      'rewards': [None if r == CUT else r for r in c.rewards],
    }
    for c in candidates
  ]


def weights(count: int, k: int) -> np.ndarray:
  """Probability that the i-th lowest of `count` values is the best of k drawn without
  replacement: C(i, k-1) / C(count, k), i from 0; np.float64 [count]."""
  ways = [math.comb(i, k - 1) for i in range(count)]
  return np.asarray(ways, np.float64) / math.comb(count, k)


def curve(
  rewards: np.ndarray, exact: np.ndarray | None = None, ks: Sequence[int] | None = None
) -> list[dict]:
  """Best-of-k curve: expected reward (and exact match) of the best of k samples.

  rewards, exact [prompts, K]. The expectation is over all k-subsets of the K samples,
  so every point uses every sample. Default ks: powers of two up to K, and K. An answer
  that was cut off (-inf) counts as the lowest finite reward of all. Each point:
  {'k', 'reward', 'ci' (95%, over prompts), 'exact'?}.
  """
  rewards = np.asarray(rewards, np.float64)
  finite = np.isfinite(rewards)
  lowest = rewards[finite].min() if finite.any() else 0.0
  rewards = np.where(finite, rewards, lowest)
  order = np.argsort(rewards, axis=1, kind='stable')
  ordered = np.take_along_axis(rewards, order, 1)
  prompts, count = rewards.shape
  if ks is None:
    ks = sorted({*(2**i for i in range(count.bit_length()) if 2**i <= count), count})
  points = []
  for k in ks:
    expected = ordered @ weights(count, k)
    spread = expected.std(ddof=1) if prompts > 1 else 0.0
    point = {
      'k': int(k),
      'reward': float(expected.mean()),
      'ci': float(1.96 * spread / math.sqrt(prompts)),
    }
    if exact is not None:
      by_reward = np.take_along_axis(np.asarray(exact, np.float64), order, 1)
      point['exact'] = float((by_reward @ weights(count, k)).mean())
    points.append(point)
  return points
