"""Training of the model of blocks: trees on a logistic loss, in two passes.

Used by bench/extraction.py --train and --folds. The same pages give the same bytes.
"""

import dataclasses
import io
import pathlib
import re
import zipfile

import numba
import numpy as np

from llama3_jax.curate.extraction import trees

DEPTH, BINS, RATE, RIDGE = 4, 64, 0.09, 6.0
ROUNDS = (220, 180)  # of the first and the second pass
COLUMNS, ROWS = 0.3, 0.7  # share of the measures and of the pages a tree sees
SECONDS = 2  # passes of that kind, of other seeds, whose mean counts
MARGIN = 0.25  # log odds that a block of text has above those of chance
DOUBT = 0.5  # of guessed targets, in favour of the first pass
LOW = 2**32 - 1  # the half of a slope that holds its curve
FOLDS = 3  # by host, for the scores of the first pass that the second is trained on


def edges(x):
  """float32 [measures, BINS - 1]: limits between the bins of each measure."""
  rows = x[:: max(1, len(x) // 20_000)]
  quantiles = np.arange(1, BINS) / BINS
  return np.quantile(rows, quantiles, axis=0).T.astype(np.float32).copy()


def bins_of(x):
  limits = edges(x)
  return limits, _bin(x, limits)


@numba.njit(cache=True)
def _bin(x, limits):
  n, m = x.shape
  result = np.zeros((m, n), np.uint8)
  for c in range(m):
    for i in range(n):
      result[c, i] = np.searchsorted(limits[c], x[i, c])
  return result


def _slope(gradient, curve, unit):
  """int64, gradient * unit << 32 | curve * unit: one sum is of both."""
  whole = np.rint(np.stack([gradient, curve]) * unit).astype(np.int64)
  return (whole[0] << 32) + whole[1]


@numba.njit(cache=True)
def _sums(bins, columns, rows, slope, result):
  """Sums of slopes of rows, int64 [columns, BINS], by the bins of columns."""
  result[:] = 0
  near = slope[rows]
  for k in range(len(columns)):
    bin_, out = bins[columns[k]], result[k]
    for i in range(len(rows)):
      out[bin_[rows[i]]] += near[i]


@numba.njit(cache=True)
def _split(sums, ridge):
  """(column, bin) after which the rows of these sums are split with the most gain."""
  most, column, at = -1.0, 0, 0
  whole = sums[0].sum()
  h = float(whole & LOW)
  g = float(whole >> 32)
  for k in range(len(sums)):
    part = np.int64(0)
    for b in range(BINS - 1):
      part += sums[k, b]
      left, low = float(part >> 32), float(part & LOW)
      gain = left**2 / (low + ridge) + (g - left) ** 2 / (h - low + ridge)
      if gain > most:
        most, column, at = gain, k, b
  return column, at


@numba.njit(cache=True)
def _tree(bins, slope, rows, columns, ridge):
  """One tree on slopes of rows: column and bin of its splits; sums of its leaves.

  The sums of the larger half of a split are those of the whole less the smaller's.
  """
  size = 2**DEPTH - 1
  column, at = np.zeros(size, np.int64), np.zeros(size, np.int64)
  leaves = np.zeros((size + 1, 2))
  ends, order, spare = np.zeros((2 * size + 1, 2), np.int64), rows.copy(), rows.copy()
  sums = np.zeros((size, len(columns), BINS), np.int64)
  ends[0, 1] = len(rows)
  _sums(bins, columns, order, slope, sums[0])
  for node in range(size):
    k, at[node] = _split(sums[node], ridge)
    column[node] = columns[k]
    start, end = ends[node]
    near, low, high = bins[column[node]], start, np.int64(0)
    for i in range(start, end):
      if near[order[i]] <= at[node]:
        order[low] = order[i]
        low += 1
      else:
        spare[high] = order[i]
        high += 1
    order[low:end] = spare[:high]
    left, right = 2 * node + 1, 2 * node + 2
    ends[left], ends[right] = (start, low), (low, end)
    if left >= size:
      for child in (left, right):
        total = slope[order[ends[child, 0] : ends[child, 1]]].sum()
        leaves[child - size] = total >> 32, total & LOW
      continue
    small, large = (left, right) if 2 * low < start + end else (right, left)
    _sums(bins, columns, order[ends[small, 0] : ends[small, 1]], slope, sums[small])
    sums[large] = sums[node] - sums[small]
  return column, at, leaves


@numba.njit(cache=True)
def _leaf(bins, column, at):
  """The leaf of every block."""
  result = np.zeros(bins.shape[1], np.int64)
  for i in range(len(result)):
    k = 0
    for _ in range(DEPTH):
      k = 2 * k + 1 + (bins[column[k], i] > at[k])
    result[i] = k - 2**DEPTH + 1
  return result


def boost(x, binned, y, w, page, rounds, seed):
  """trees.Trees of `rounds` trees.

  Args:
    x: float32 [blocks, measures].
    binned: (limits, bins) of x.
    y: float [blocks], targets.
    w: float [blocks]; blocks of weight 0 are not looked at.
    page: int [blocks], pages are sampled whole.
  """
  random = np.random.default_rng(seed)
  limits, bins = binned
  mean = np.average(y, weights=w)
  bias = float(np.log(mean / (1 - mean)))
  score = np.full(len(y), bias)
  unit = 2.0 ** np.floor(30 - np.log2(w.sum()))  # no sum is beyond 31 bits
  column = np.zeros((rounds, 2**DEPTH - 1), np.int16)
  limit = np.zeros((rounds, 2**DEPTH - 1), np.float32)
  value = np.zeros((rounds, 2**DEPTH), np.float32)
  for t in range(rounds):
    sample = random.random(page.max() + 1)[page] < ROWS
    rows = np.flatnonzero(sample & (w > 0))
    columns = np.sort(random.permutation(x.shape[1])[: int(COLUMNS * x.shape[1])])
    p = 1 / (1 + np.exp(-score))
    slope = _slope(w * (y - p), w * p * (1 - p), unit)
    column[t], at, sums = _tree(bins, slope, rows, columns, RIDGE * unit)
    limit[t] = limits[column[t], at]
    value[t] = RATE * sums[:, 0] / (sums[:, 1] + RIDGE * unit)
    score += value[t][_leaf(bins, column[t].astype(np.int64), at)]
  return trees.Trees(bias, column, limit, value)


def fit(pages, seed=0, folds=FOLDS):
  """Trees of both passes.

  The first pass is trained as often as there are folds to score the pages of other
  hosts. Where it disagrees with a guessed target the second pass learns the mean of
  both, with less weight.

  Args:
    pages: list of (cut, measures, mass, targets, weights, guessed, host).
  """
  x, y, w, guessed, page = stack(pages)
  hosts = sorted({p[6] for p in pages})
  order = np.random.default_rng(seed).permutation(len(hosts)) % folds
  fold_of = dict(zip(hosts, order))
  folds_of = np.array([fold_of[p[6]] for p in pages])
  inner, binned = [None] * len(pages), bins_of(x)
  for fold in range(folds):
    rows = folds_of[page] != fold
    first = boost(x, binned, y, w * rows, page, ROUNDS[0], seed + fold)
    for i in np.flatnonzero(folds_of == fold):
      inner[i] = trees.score(pages[i][1], first)
  wide = np.concatenate(
    [trees.context(p[1], s, p[2], p[0]) for p, s in zip(pages, inner)]
  )
  first, both = boost(x, binned, y, w, page, ROUNDS[0], seed + 50), bins_of(wide)
  y, w = doubt(y, w, guessed, np.concatenate(inner))
  second = mean(
    [boost(wide, both, y, w, page, ROUNDS[1], seed + 100 + k) for k in range(SECONDS)]
  )
  return first, dataclasses.replace(second, bias=second.bias - MARGIN)


def doubt(y, w, guessed, score):
  """Targets and weights of blocks where guesses meet the scores of a model."""
  p = 1 / (1 + np.exp(-score.astype(np.float64)))
  own = DOUBT * guessed
  return (1 - own) * y + own * p, w * (1 - own * abs(y - p))


def mean(found):
  """The trees whose sum is the mean of the sums of others."""
  parts = [
    [getattr(one, name) for one in found] for name in ('column', 'limit', 'value')
  ]
  column, limit, value = map(np.concatenate, parts)
  return trees.Trees(
    sum(one.bias for one in found) / len(found), column, limit, value / len(found)
  )


def stack(pages):
  x, y, w, guessed = (np.concatenate([p[k] for p in pages]) for k in (1, 3, 4, 5))
  page = np.repeat(np.arange(len(pages)), [len(p[3]) for p in pages])
  return x, y, w * (len(w) / w.sum()), guessed, page


def predict(page, both):
  """Scores of a page's blocks."""
  one, two = both
  return trees.score(
    trees.context(page[1], trees.score(page[1], one), page[2], page[0]), two
  )


def write(both):
  """Writes the trees; the same trees give the same bytes."""
  data = {}
  for k, found in enumerate(both, 1):
    data[f'bias{k}'] = np.float64(found.bias)
    data[f'column{k}'] = found.column
    data[f'limit{k}'], data[f'value{k}'] = found.limit, found.value
  with zipfile.ZipFile(trees.FILE, 'w', zipfile.ZIP_DEFLATED) as file:
    for name, array in data.items():
      buffer = io.BytesIO()
      np.save(buffer, array)
      info = zipfile.ZipInfo(f'{name}.npy')
      info.compress_type = zipfile.ZIP_DEFLATED
      file.writestr(info, buffer.getvalue())
  digest = trees.digest(trees.FILE.read_bytes())
  source = pathlib.Path(trees.__file__)
  text = re.sub(r"DIGEST = '.*'", f"DIGEST = '{digest}'", source.read_text('utf-8'))
  source.write_text(text, 'utf-8')
  trees.DIGEST = digest
  trees.load.cache_clear()
