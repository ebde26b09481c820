"""Rows of the reward model: the responses of a prompt in one row (4.1.2, 4.2.1)."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from llama3_jax import feed
from llama3_jax.base import log
from llama3_jax.base.errors import UserError
from llama3_jax.kernels import rule
from llama3_jax.post import preference
from llama3_jax.post import rows as rows_lib
from llama3_jax.text.library import Library
from llama3_jax.text.tokenizer import Tokenizer

MODES = ('paper', 'exact', 'separate')
# Llama 2's margins by strength: of 'marginally' (1) to 'significantly' better (4).
MARGINS = {'': (0, 0, 0, 0), 'small': (0, 1 / 3, 2 / 3, 1), 'large': (0, 1, 2, 3)}


class Kept(NamedTuple):
  """An example that is a row, and the tokens of its responses, best first."""

  example: preference.Preference
  lengths: tuple[int, ...]


def rows(
  examples: Sequence[preference.Preference],
  tokenizer: Tokenizer | Library,
  seq_len: int,
  mode: str = 'paper',
  seed: int = 0,
  margins: str = '',
) -> tuple[feed.Ranked, list[Kept]]:
  """Rows of the reward model, and what each row holds; longer examples are dropped.

  mode 'paper' (section 4.2.1): the prompt and all its responses, in random order, in
  one row, A is 1; a later response attends to the earlier ones. 'exact': the same in
  the order of rank, but each response is a branch after the prompt (kernels/rule.py),
  at positions that begin anew, so that its reward is that of a row of its own.
  'separate': a row a response, A is 3. margins: a name of MARGINS.
  """
  builders = dict(paper=paper_row, exact=_branched_row, separate=_separate_rows)
  if mode not in MODES:
    raise UserError(f'data.mode={mode!r} is unknown: use one of {", ".join(MODES)}')
  if margins not in MARGINS:
    raise UserError(f"data.margins={margins!r} is unknown: use '', small or large")
  build = builders[mode]
  rng = np.random.default_rng(seed)
  with log.work(f'encoding {len(examples):,} preferences'):
    encoded = [preference.encoded(tokenizer, example) for example in examples]
  seq_len = seq_len or preference.longest(encoded, mode != 'separate')
  found, kept = [], []
  for example, parts in zip(examples, encoded):
    # Sampled for dropped examples too: the order does not depend on seq_len.
    order = rng.permutation(len(parts))
    row = build(parts[0].prompt, [part.response for part in parts], order, seq_len)
    if row is not None:
      found.append(feed.Ranked(**row, margin=_margins(example, MARGINS[margins])))
      kept.append(Kept(example, tuple(len(part.response) for part in parts)))
  rows_lib.tell_dropped(len(examples) - len(found), len(examples), seq_len)
  if not found:
    most = preference.MOST
    sizes = dict(B=0, A=most if mode == 'separate' else 1, T=seq_len, _=most)
    return feed.empty(feed.Ranked, sizes), kept
  return rows_lib.stack(found), kept


def pack(rows: feed.Ranked) -> feed.Ranked:
  """The same prompts in fewer rows: several share one of the same length where they
  fit, and none sees another. Rows of one response (A is 3) stay as they are."""
  count, group, length = rows.tokens.shape
  if group > 1 or not count:
    return rows
  sizes = np.sum(rows.segment[:, 0] > 0, -1)
  packed = rows_lib.first_fit(sizes, length)
  most = max(map(len, packed))
  return rows_lib.stack([_joined(rows, sizes, numbers, most) for numbers in packed])


def _joined(rows, sizes, numbers, most):
  """The row that holds the prompts `numbers`, with ends and margins of `most`."""
  row = jax.tree.map(np.zeros_like, jax.tree.map(lambda x: x[0], rows))
  ends = np.full((most, preference.MOST), -1, np.int32)
  margin = np.zeros((most, preference.MOST), np.float32)
  along = [name for name, dims in vars(feed.letters(rows)).items() if dims[-1] == 'T']
  start = 0
  for slot, number in enumerate(numbers):
    size = sizes[number]
    for name in along:
      getattr(row, name)[:, start : start + size] = getattr(rows, name)[
        number, :, :size
      ]
    row.segment[:, start : start + size] += slot
    own = rows.ends[number]
    ends[slot], margin[slot] = np.where(own >= 0, own + start, -1), rows.margin[number]
    start += size
  return row.replace(ends=ends.reshape(-1), margin=margin.reshape(-1))


def _margins(example, table):
  """Of the pairs (0, 1), (0, 2), (1, 2). The strength is that of chosen > rejected, so
  an edited answer, the first of three, has none over the chosen one."""
  by_strength = table[example.strength - 1] if example.strength else 0
  found = np.full(preference.MOST, example.margin or by_strength, np.float32)
  if not example.margin and len(example.responses) == preference.MOST:
    found[0] = 0
  return found


def paper_row(
  prompt: list[int],
  responses: Sequence[list[int]],
  order: Sequence[int],
  seq_len: int,
) -> dict[str, np.ndarray] | None:
  """Fields of a row of a prompt and its responses, which follow in `order`, as ids;
  None where they are more than `seq_len`."""
  ids, ends = list(prompt), np.full(preference.MOST, -1, np.int32)
  for which in order:
    ids += responses[which]
    ends[which] = len(ids) - 1
  if len(ids) > seq_len:
    return None
  return {**_group([ids], seq_len, ends[ends >= 0]), 'ends': ends}


def _branched_row(prompt, responses, order, seq_len):
  row = paper_row(prompt, responses, np.sort(order), seq_len)
  if row is None:
    return None
  start = len(prompt)
  for branch, response in enumerate(responses, 1):
    part = slice(start, start + len(response))
    row['position'][0, part] = len(prompt) + np.arange(len(response))
    row['segment'][0, part] += branch * rule.BRANCH
    start = part.stop
  return row


def _separate_rows(prompt, responses, order, seq_len):
  del order  # no response attends to another
  if len(prompt) + max(map(len, responses)) > seq_len:
    return None
  ids = [prompt + response for response in responses]
  ids += [[]] * (preference.MOST - len(ids))
  ends = np.array([len(row) - 1 for row in ids], np.int32)
  return {**_group(ids, seq_len, ends), 'ends': ends}


def _group(ids, seq_len, ends):
  """Fields [A,T] of rows of ids; the weight is 1 at the `ends` of each row."""
  group = rows_lib.stack([rows_lib.place(row, seq_len) for row in ids])
  for weight, last in zip(
    group.weight, np.broadcast_to(ends, (len(ids), ends.shape[-1]))
  ):
    weight[last[last >= 0]] = 1
  return {f.name: getattr(group, f.name) for f in dataclasses.fields(group)}
