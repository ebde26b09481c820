"""Histograms, samples and sweeps of the thresholds, from the measured columns.

They are read from the columns that the stages left, so a threshold is studied, and
tried at other values, without extracting or measuring anything again.
"""

import dataclasses
import heapq
from collections.abc import Sequence

import numpy as np

from llama3_jax.curate.machine import documents
from llama3_jax.curate.machine import store as stores
from llama3_jax.curate.machine.engine import Each

BINS = 48
NEAR = 3  # samples on each side of a threshold
EXCERPT = 400  # characters of a sample


@dataclasses.dataclass(frozen=True)
class Line:
  """A threshold: documents of `categories` above or below `limit` are dropped."""

  group: str  # prose | code | math | all
  reason: str
  column: str
  high: bool
  limit: float
  lang: str = ''  # '': every language but `others`, which have a limit of their own
  others: tuple[str, ...] = ()

  @property
  def name(self) -> str:
    """Group and language of the documents that it judges."""
    return f'{self.group}, {self.lang}' if self.lang else self.group

  @property
  def key(self) -> str:
    """Identifies the threshold among all of a run."""
    return '/'.join(filter(None, (self.group, self.reason, self.lang)))

  @property
  def categories(self) -> tuple[str, ...]:
    """Categories of the documents that it judges."""
    if self.group == 'all':
      return documents.CATEGORIES
    return documents.WEB if self.group == 'prose' else (self.group,)

  @property
  def span(self) -> tuple[float, float]:
    """(lowest, highest) value of the histogram; others count in the last bins."""
    limit = abs(self.limit)
    if self.group == 'all' or 0.5 < limit <= 1:  # a probability, a large share
      return 0.0, 1.0
    return 0.0, 2.5 * limit or 1.0


def study(
  each: Each,
  store: stores.Store,
  lines: Sequence[Line],
  wanted: Sequence[tuple[Line, Sequence[float]]],
) -> tuple[dict[str, dict[str, object]], list[dict[str, object]]]:
  """Histograms of all lines, and counts of a sweep, from all shards.

  Args:
    each: from engine.start().
    store: Store of a finished run.
    lines: thresholds to study.
    wanted: (Line, limits) of the sweep.

  Returns:
    (result of merge(), [{'rule': line key, 'limits', 'counts'}]).
  """
  shards, count = range(len(store.shards)), len(store.stages)
  jobs = [(store, count, tuple(lines), i) for i in shards]
  parts = {job[-1]: part for job, part in each(shard, jobs)}
  merged = merge([parts[i] for i in shards], lines)
  if not wanted:
    return merged, []
  tried = tuple((line, tuple(limits)) for line, limits in wanted)
  counts = [
    result for _, result in each(sweep, [(store, count, tried, i) for i in shards])
  ]
  sweeps = []
  for line, limits in wanted:
    summed = [
      [sum(c[line.key][i][k] for c in counts) for k in (0, 1)]
      for i in range(len(limits))
    ]
    sweeps.append({'rule': line.key, 'limits': limits, 'counts': summed})
  return merged, sweeps


def shard(
  job: tuple[stores.Store, int, Sequence[Line], int],
) -> dict[str, dict[str, object]]:
  """One shard's part; job: (Store, stages done, lines, shard).

  Returns:
    {line key: {'bins': [BINS], 'below', 'above': documents, 'near': [(distance, side,
    value, url, lang, id, excerpt)]}}.
  """
  store, stages, lines, number = job
  columns = {line.column for line in lines} | {'id', 'category', 'url', 'lang', 'text'}
  entries = {line.key: _empty() for line in lines}
  for batch in stores.batches(store, stages, number, columns | {'drop_reason'}):
    categories = np.array(batch['category'].to_pylist(), object)
    for line in lines:
      if line.column in batch.schema.names:
        _add(entries[line.key], line, batch, categories)
  return entries


def merge(
  parts: Sequence[dict[str, dict[str, object]]], lines: Sequence[Line]
) -> dict[str, dict[str, object]]:
  """Sums over all shards, with the nearest samples (of equals, the smallest ids)."""
  total = {line.key: _empty() for line in lines}
  for part in parts:
    for key, entry in part.items():
      sums = total[key]
      sums['bins'] = [a + b for a, b in zip(sums['bins'], entry['bins'])]
      sums['below'] += entry['below']
      sums['above'] += entry['above']
      sums['near'] += entry['near']
  for entry in total.values():
    entry['near'] = _nearest(entry['near'])
  return total


def sweep(
  job: tuple[stores.Store, int, Sequence[tuple[Line, Sequence[float]]], int],
) -> dict[str, list[list[int]]]:
  """Documents of a shard that a rule would drop at other limits.

  Args:
    job: (Store, stages done, [(Line, [limits])], shard). The stages before that of the
      rule have dropped their documents; the rule and those after it count together.

  Returns:
    {line key: [[documents over the limit, of which no other reason drops]]}.
  """
  store, stages, wanted, number = job
  columns = {line.column for line, _ in wanted} | {'category', 'lang', 'drop_reason'}
  counts = {line.key: [[0, 0] for _ in limits] for line, limits in wanted}
  for batch in stores.batches(store, stages, number, columns):
    categories = np.array(batch['category'].to_pylist(), object)
    reasons = np.array(batch['drop_reason'].to_pylist(), object)
    for line, limits in wanted:
      values = _values(batch, line, categories)
      alone = (reasons == None) | (reasons == line.reason)  # noqa: E711
      for entry, limit in zip(counts[line.key], np.float32(limits)):
        over = values > limit if line.high else values < limit
        entry[0] += int(over.sum())
        entry[1] += int((over & alone).sum())
  return counts


def _empty():
  return {'bins': [0] * BINS, 'below': 0, 'above': 0, 'near': []}


def _values(batch, line, categories):
  """float64 [documents]; nan where the rule does not apply."""
  values = batch[line.column].to_numpy(zero_copy_only=False).astype(np.float64)
  judged = np.isin(categories, line.categories)
  if line.lang or line.others:
    langs = batch['lang'].to_pylist()
    if line.lang:
      judged &= np.array([lang == line.lang for lang in langs], bool)
    else:
      judged &= np.array([lang not in line.others for lang in langs], bool)
  return np.where(judged, values, np.nan)


def _add(entry, line, batch, categories):
  values = _values(batch, line, categories)
  known = np.flatnonzero(~np.isnan(values))
  if not len(known):
    return
  low, high = line.span
  scaled = (values[known] - low) / (high - low) * BINS
  counts = np.bincount(np.clip(scaled, 0, BINS - 1).astype(int), minlength=BINS)
  entry['bins'] = [a + int(b) for a, b in zip(entry['bins'], counts)]
  limit = np.float32(line.limit)  # a document at the limit stays
  above = values[known] > limit if line.high else values[known] >= limit
  entry['above'] += int(above.sum())
  entry['below'] += int((~above).sum())
  distance = np.abs(values[known] - line.limit)
  near = []
  for side in (False, True):
    rows = np.flatnonzero(above == side)
    rows = rows[np.argsort(distance[rows], kind='stable')[:NEAR]]
    near += [
      _sample(batch, int(known[i]), values[known[i]], distance[i], side) for i in rows
    ]
  entry['near'] = _nearest(entry['near'] + near)


def _sample(batch, row, value, distance, side):
  fields = (batch[name][row].as_py() for name in ('url', 'lang'))
  text = (batch['text'][row].as_py() or '')[:EXCERPT]
  identity = batch['id'][row].as_py()
  return [float(distance), bool(side), float(value), *fields, identity, text]


def _nearest(samples):
  """The NEAR nearest samples of each side; equal distances by id."""
  result = []
  for side in (False, True):
    same_side = [s for s in samples if s[1] == side]
    result += heapq.nsmallest(NEAR, same_side, key=lambda s: (s[0], s[5]))
  return result
