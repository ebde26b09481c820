"""Training of the model of blocks: trees on a logistic loss, in two passes.

Used by bench/extraction.py --train and --folds. The same pages give the same bytes.
"""

import io
import pathlib
import re
import zipfile

import numba
import numpy as np

from llama3_jax.curate.extraction import trees

DEPTH, BINS, RATE, RIDGE = 5, 64, 0.09, 6.0
ROUNDS = (140, 110)  # of the first and the second pass
COLUMNS, ROWS = 0.3, 0.7  # share of the measures and of the pages a tree sees
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


@numba.njit(cache=True)
def _histograms(bins, columns, chosen, leaf, gradient, curve, leaves):
  result = np.zeros((len(columns), leaves, BINS, 2))
  for k in range(len(columns)):
    row = bins[columns[k]]
    for i in chosen:
      result[k, leaf[i], row[i], 0] += gradient[i]
      result[k, leaf[i], row[i], 1] += curve[i]
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
  column = np.zeros((rounds, 2**DEPTH - 1), np.int16)
  limit = np.zeros((rounds, 2**DEPTH - 1), np.float32)
  value = np.zeros((rounds, 2**DEPTH), np.float32)
  for t in range(rounds):
    sample = random.random(page.max() + 1)[page] < ROWS
    chosen = np.flatnonzero(sample & (w > 0))
    columns = np.sort(random.permutation(x.shape[1])[: int(COLUMNS * x.shape[1])])
    p = 1 / (1 + np.exp(-score))
    gradient, curve = w * (y - p), w * p * (1 - p)
    leaf = np.zeros(len(y), np.int32)
    for level in range(DEPTH):
      first, count = 2**level - 1, 2**level
      sums = _histograms(bins, columns, chosen, leaf, gradient, curve, count)
      left = sums.cumsum(2)[:, :, :-1]
      whole = sums.sum(2)[:, :, None]
      gain = sum(
        part[..., 0] ** 2 / (part[..., 1] + RIDGE) for part in (left, whole - left)
      )
      for node in range(count):
        k, b = divmod(int(gain[:, node].argmax()), BINS - 1)
        column[t, first + node] = columns[k]
        limit[t, first + node] = limits[columns[k], b]
      c, low = column[t, first : first + count], limit[t, first : first + count]
      leaf = 2 * leaf + (x[np.arange(len(y)), c[leaf]] > low[leaf])
    g = np.bincount(leaf[chosen], gradient[chosen], 2**DEPTH)
    h = np.bincount(leaf[chosen], curve[chosen], 2**DEPTH)
    value[t] = RATE * g / (h + RIDGE)
    score += value[t][leaf]
  return trees.Trees(bias, column, limit, value)


def fit(pages, seed=0, folds=FOLDS):
  """Trees of both passes.

  Args:
    pages: list of (cut, measures, mass, targets, weights, host).
  """
  x, y, w, page = stack(pages)
  hosts = sorted({p[5] for p in pages})
  order = np.random.default_rng(seed).permutation(len(hosts)) % folds
  fold_of = dict(zip(hosts, order))
  folds_of = np.array([fold_of[p[5]] for p in pages])
  inner, binned = [None] * len(pages), bins_of(x)
  for fold in range(folds):
    rows = folds_of[page] != fold
    first = boost(x, binned, y, w * rows, page, ROUNDS[0], seed + fold)
    for i in np.flatnonzero(folds_of == fold):
      inner[i] = trees.score(pages[i][1], first)
  wide = np.concatenate(
    [trees.context(p[1], s, p[2], p[0]) for p, s in zip(pages, inner)]
  )
  second = boost(wide, bins_of(wide), y, w, page, ROUNDS[1], seed + 100)
  return boost(x, binned, y, w, page, ROUNDS[0], seed + 50), second


def stack(pages):
  x, y, w = (np.concatenate([p[k] for p in pages]) for k in (1, 3, 4))
  page = np.repeat(np.arange(len(pages)), [len(p[3]) for p in pages])
  return x, y, w * (len(w) / w.sum()), page


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
