"""What a reward model's ranking is worth: accuracy, calibration, length (4.1.2).

Wilson intervals count examples as trials, not pairs: the pairs of one prompt share
their responses. An example whose rewards are not finite is named and left out.
"""

import math
from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np
from absl import logging

from llama3_jax.base import confidence
from llama3_jax.post.preference import STRENGTHS
from llama3_jax.post.ranked import Kept

BINS = 10  # of sigma(difference), from 1/2 to 1
MATCHED = 0.1  # lengths are alike up to this share of the longer one
NAMED = 5  # examples that a line of the log names
PAIRS = {2: {(0, 1): 'chosen > rejected'}}
PAIRS[3] = {
  (0, 1): 'edited > chosen',
  (0, 2): 'edited > rejected',
  (1, 2): 'chosen > rejected',
}


def judged(rewards: np.ndarray, kept: Sequence[Kept]) -> dict:
  """All measures of held-out rewards, float [N,3], of the examples `kept`, as JSON.

  {'accuracy', 'n' (pairs), 'margins', 'interval', 'not_finite', 'ranking': {'by':
  {category, strength, pair, length: {name: {'accuracy', 'n', 'interval'}}},
  'calibration', 'length'}}
  """
  counts = np.array([len(k.lengths) for k in kept], int)
  bad = [
    i for i, n in enumerate(counts) if not np.isfinite(np.asarray(rewards[i][:n])).all()
  ]
  if bad:
    named = ', '.join(kept[i].example.where for i in bad[:NAMED])
    logging.warning('%d examples have rewards that are not finite: %s', len(bad), named)
  pairs = list(_pairs(rewards, kept, set(bad)))
  differences = [p['difference'] for p in pairs]
  parts = {name: {} for name in ('category', 'strength', 'pair', 'length')}
  for pair in pairs:
    for name, groups in parts.items():
      groups.setdefault(pair[name], []).append(pair)
  return {
    **_accuracy(pairs),
    'margins': [round(float(d), 4) for d in differences],
    'not_finite': len(bad),
    'ranking': {
      'by': {
        name: {part: _accuracy(groups[part]) for part in sorted(groups, key=_natural)}
        for name, groups in parts.items()
      },
      'calibration': calibration(differences),
      'length': _of_length(rewards, kept, pairs, set(bad)),
    },
  }


def rows(rewards: np.ndarray, kept: Sequence[Kept]) -> Iterator[dict]:
  """Rows of the scores: {'id', 'source', 'strength', 'rewards', 'tokens'} an example,
  best response first; a reward that is not finite is null."""
  for found, one in zip(rewards, kept):
    example, n = one.example, len(one.lengths)
    yield {
      'id': example.id or example.where,
      'source': example.source,
      'strength': example.strength,
      'rewards': [float(r) if math.isfinite(r) else None for r in found[:n]],
      'tokens': list(one.lengths),
    }


def calibration(differences: Sequence[float]) -> dict:
  """{'bins': [{'predicted', 'right', 'n'}], 'error'}: how sure the model is of the
  response that it prefers, sigma(|difference|), against the share that is right.

  error: mean distance of the two over all pairs, as far as bins show it.
  """
  d = np.asarray(differences, np.float64)
  sure = 1 / (1 + np.exp(-np.abs(d)))
  right = (d > 0) + 0.5 * (d == 0)
  which = np.minimum((2 * (sure - 0.5) * BINS).astype(int), BINS - 1)
  bins = [
    {
      'predicted': float(sure[which == i].mean()),
      'right': float(right[which == i].mean()),
      'n': int(np.sum(which == i)),
    }
    for i in range(BINS)
    if np.any(which == i)
  ]
  error = sum(b['n'] * abs(b['predicted'] - b['right']) for b in bins)
  return {'bins': bins, 'error': error / len(d) if len(d) else None}


def _pairs(rewards, kept, bad):
  """A dict of every ordered pair of the examples but `bad`."""
  for i, (found, one) in enumerate(zip(rewards, kept)):
    if i in bad:
      continue
    strength = one.example.strength
    for (better, worse), name in PAIRS[len(one.lengths)].items():
      a, b = one.lengths[better], one.lengths[worse]
      yield {
        'row': i,
        'difference': float(found[better] - found[worse]),
        'longer': a - b,
        'alike': abs(a - b) <= MATCHED * max(a, b),
        'category': one.example.source or 'without a source',
        'strength': STRENGTHS[strength - 1] if strength else 'not said',
        'pair': name,
        'length': _bucket((a + b) / 2),
      }


def _bucket(length):
  low = 1 << max(int(length), 1).bit_length() - 1
  return f'{low} to {2 * low - 1} tokens'


def _natural(name):
  """Order of the groups: strengths by level, lengths by number, others by name."""
  if name in STRENGTHS:
    return STRENGTHS.index(name), name
  first = name.split(' ')[0]
  return (int(first) if first.isdigit() else -1), name


def _accuracy(pairs):
  d = np.array([p['difference'] for p in pairs])
  if not len(d):
    return {'accuracy': None, 'n': 0, 'interval': None}
  share = float(np.mean((d > 0) + 0.5 * (d == 0)))
  trials = len({p['row'] for p in pairs})
  interval = confidence.wilson(share * trials, trials)
  return {'accuracy': share, 'n': len(d), 'interval': interval}


def _of_length(rewards, kept, pairs, bad):
  """Whether long responses are liked for their length.

  correlation: of reward and tokens over all responses; within: the same after the mean
  of each prompt is taken off both; better_longer, liked_longer: share of pairs of
  unequal length in which the better, or the preferred, response is the longer one;
  matched: accuracy where the lengths are alike.
  """
  good = [(r, k.lengths) for i, (r, k) in enumerate(zip(rewards, kept)) if i not in bad]
  real = [(np.asarray(r[: len(n)], float), np.asarray(n, float)) for r, n in good]
  centred = [(r - r.mean(), n - n.mean()) for r, n in real]
  unequal = [p for p in pairs if p['longer']]
  share = lambda hits: float(np.mean(hits)) if unequal else None
  return {
    'correlation': _correlation(real),
    'within': _correlation(centred),
    'better_longer': share([p['longer'] > 0 for p in unequal]),
    'liked_longer': share([p['longer'] * p['difference'] > 0 for p in unequal]),
    'matched': _accuracy([p for p in pairs if p['alike']]),
  }


def _correlation(parts):
  """Pearson's, None where one side does not vary."""
  if not parts:
    return None
  a, b = (np.concatenate(side) for side in zip(*parts))
  if a.std() < 1e-12 or b.std() < 1e-12:
    return None
  return float(np.corrcoef(a, b)[0, 1])
