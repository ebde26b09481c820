"""Which of several answers is the best: by the reward, or what is left of it (4.2.2).

A reward model that chooses among many answers is exploited: what it likes too well goes
on rising while the answers get no better. Two reward models are seldom wrong in the
same way, length is what a single one likes most, and right answers agree, where wrong
ones differ: the more answers there are, the likelier a wrong one has the best reward.
"""

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from llama3_jax.post import best_of_k
from llama3_jax.post.reject import Candidates

CHOICES = ('reward', 'minimum', 'length', 'votes')
VOTES = 2.0  # deviations of the reward that answers gain by each factor e of votes


def chosen(candidates: Sequence[Candidates], how: str) -> list[Candidates]:
  """Candidates whose rewards are those that choose, see CHOICES.

  'minimum': the lowest of all reward models, each in units of its own deviation over
  all answers; 'length': the reward less what a line through reward and log of the
  length explains within prompts; 'votes': the reward and what equal answers add.
  """
  if how == 'minimum':
    names = list(candidates[0].others)
    every = [[c.rewards, *(c.others[n] for n in names)] for c in candidates]
    scales = [_scale(np.concatenate(rewards)) for rewards in zip(*every)]
    scaled = lambda e: [(np.asarray(r) - m) / s for r, (m, s) in zip(e, scales)]
    values = [np.min(scaled(e), 0) for e in every]
  elif how == 'length':
    values = _without_length(candidates)
  elif how == 'votes':
    size = spread(candidates)
    values = [with_votes(np.asarray(c.rewards), texts(c), size) for c in candidates]
  else:
    return list(candidates)
  return [
    dataclasses.replace(c, rewards=tuple(v.tolist()))
    for c, v in zip(candidates, values)
  ]


def _scale(values):
  """(mean, deviation) of what is finite."""
  finite = values[np.isfinite(values)]
  return (finite.mean(), finite.std() or 1.0) if len(finite) else (0.0, 1.0)


def _without_length(candidates):
  """Rewards less the slope over log length, which is that within prompts."""
  lengths = [
    np.log1p([len(m.ids or m.content) for m in c.responses]) for c in candidates
  ]
  rewards = [np.asarray(c.rewards) for c in candidates]
  kept = [np.isfinite(r) for r in rewards]
  within = lambda x, k: x[k] - x[k].mean() if k.any() else x[k]
  x = np.concatenate([within(a, k) for a, k in zip(lengths, kept)])
  y = np.concatenate([within(a, k) for a, k in zip(rewards, kept)])
  slope = x @ y / max(x @ x, 1e-12)
  return [r - slope * (a - a.mean()) for r, a in zip(rewards, lengths)]


def spread(candidates: Sequence[Candidates]) -> float:
  """Deviation of the rewards within prompts."""
  kept = [np.asarray(c.rewards)[np.isfinite(c.rewards)] for c in candidates]
  within = np.concatenate([r - r.mean() for r in kept if len(r)] or [np.zeros(1)])
  return float(within.std()) or 1.0


def texts(candidate: Candidates) -> np.ndarray:
  """Numbers of the answers, equal for equal ones, int [K]."""
  plain = [(' '.join(m.content.split()), m.calls) for m in candidate.responses]
  return np.array([plain.index(text) for text in plain])


def with_votes(rewards: np.ndarray, same: np.ndarray, size: float) -> np.ndarray:
  """Rewards [...,K] and VOTES x size x log of how many of `same` [...,K] are equal."""
  votes = (same[..., :, None] == same[..., None, :]).sum(-1)
  return rewards + VOTES * size * np.log(votes)


def curve(
  candidates: Sequence[Candidates], how: str, others: Mapping[str, np.ndarray]
) -> list[dict]:
  """Best-of-k curve of candidates with K answers each, chosen by `how`; others: as in
  best_of_k.curve."""
  if how != 'votes':
    by = chosen(candidates, how)
    return best_of_k.curve(np.array([c.rewards for c in by]), others)
  rewards = np.array([c.rewards for c in candidates])
  same, size = np.array([texts(c) for c in candidates]), spread(candidates)
  take = lambda x, rows, picked: x[rows[:, None], picked]
  values = lambda *at: with_votes(take(rewards, *at), take(same, *at), size)
  return best_of_k.drawn(rewards, values, others)
