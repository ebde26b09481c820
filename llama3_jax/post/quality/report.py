"""The page of a run of quality control, with samples on both sides of each limit."""

from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from llama3_jax.post.quality.prune import Limits
from llama3_jax.post.quality.prune import Pruned
from llama3_jax.post.quality.prune import Signals
from llama3_jax.report import figures
from llama3_jax.report.blocks import Card
from llama3_jax.report.blocks import Details
from llama3_jax.report.blocks import Page
from llama3_jax.report.blocks import Plot
from llama3_jax.report.blocks import Section
from llama3_jax.report.blocks import Table

SIDE = 4  # samples on each side
LONG = 300  # characters of a sample


def near(values: np.ndarray, limit: float) -> list[int]:
  """Numbers of the values just below a limit and just above, rising."""
  order = np.argsort(values, kind='stable')
  order = order[np.isfinite(values[order])]
  at = int(np.searchsorted(values[order], limit))
  return order[max(at - SIDE, 0) : at + SIDE].tolist()


def page(
  rows: Sequence[Mapping],
  signals: Signals,
  found: Pruned,
  limits: Limits,
  counts: Mapping,
) -> Page:
  """The report of SFT rows, what was known of them, and what came of it."""
  left = [len(rows), sum(r != 'quality' for r in found.reasons)]
  left.append(sum(not r for r in found.reasons))
  names = ('dialogs', 'good', 'not twice')
  drawn = figures.funnel(names, left, 'dialogs')
  changed = Table(('rule', 'answers changed'), list(counts['cleaned'].items()))
  sections = [
    Section('What is left', [Card([Plot('left', drawn)])]),
    Section('Cleaning', [Card([changed, _changed(counts['before'], rows)])]),
  ]
  if signals.rewards is not None:
    header = ('reward', 'kept', 'question', 'answer')
    sides = [
      (float(signals.rewards[i]), _kept(found, i), *_said(rows[i]))
      for i in near(signals.rewards, found.bar)
    ]
    text = f'The top share {limits.top:.0%} of the rewards begins at {found.bar:.4g}.'
    sections.append(Section('Reward', [Card([_table(header, sides)])], text))
  for name in ('judged', 'difficulty', 'topics'):
    values = getattr(signals, name)
    if values is not None:
      sections.append(_labels(name, np.asarray(values), rows, found))
  if signals.vectors is not None:
    header = ('cosine', 'kept', 'question', 'answer', 'the better one asks')
    sides = [
      (
        found.cosine[i],
        not found.reasons[i],
        *_said(rows[i]),
        _said(rows[found.near[i]])[0],
      )
      for i in near(np.where(found.near < 0, np.nan, found.cosine), limits.cosine)
    ]
    text = f'Dropped from a cosine of {limits.cosine} on.'
    sections.append(Section('Near another', [Card([_table(header, sides)])], text))
  tiles = [(f'{n:,}', name) for n, name in zip(left, names)]
  return Page('Quality of dialogs', sections, tiles=tiles)


def _table(header, rows):
  return Table(header, rows, sentences=header[2:])


def _labels(name, values, rows, found):
  """Each label: how many dialogs, how many are kept, and some."""
  table, blocks = [], []
  for label in np.unique(values):
    members = np.flatnonzero(values == label)
    kept = sum(not found.reasons[i] for i in members)
    table.append((str(label), len(members), kept))
    some = [(_kept(found, i), *_said(rows[i])) for i in members[:SIDE]]
    header = ('kept', 'question', 'answer')
    blocks.append(Details(str(label), [Table(header, some, sentences=header[1:])]))
  return Section(
    {'judged': 'Quality by the judge'}.get(name, name.capitalize()),
    [Card([Table(('label', 'dialogs', 'kept'), table), *blocks])],
  )


def _kept(found, i):
  return f'no: {found.reasons[i]}' if found.reasons[i] else 'yes'


def _said(row):
  """(question, answer) of a row, shortened."""
  asked = next((m for m in row['messages'] if m['role'] == 'user'), row['messages'][0])
  return asked['content'][:LONG], row['messages'][-1]['content'][:LONG]


def _changed(before, rows):
  """Some answers before and after the rules."""
  after = [row['messages'][-1]['content'] for row in rows]
  pairs = [(a[:LONG], b[:LONG]) for a, b in zip(before, after) if a != b][: 2 * SIDE]
  header = ('before', 'after')
  return Details('Samples', [Table(header, pairs, sentences=header)])
