"""The mix of finetuning: shares and passes of sources (4.1.3, 4.2.2, table 7)."""

import pathlib
import re
from collections.abc import Sequence

import numpy as np

from llama3_jax.base.errors import UserError
from llama3_jax.post.sft import Dialog

Pairs = Sequence[tuple[str, float]]


def source(dialog: Dialog) -> str:
  """What a dialog belongs to: the source of its row, else the name of its file."""
  file = re.sub(r', (line|row) \d+$', '', dialog.where)
  return dialog.source or pathlib.Path(file).stem


def mixed(
  dialogs: Sequence[Dialog], shares: Pairs, passes: Pairs, seed: int
) -> tuple[list[Dialog], dict[str, dict[str, int]]]:
  """The dialogs that an epoch has, and {source: {'rows', 'used'}}.

  passes: (source, times it is seen), 0.3 draws that part of it without replacement.
  shares: (source, share of all examples); their number stays what passes make it, so a
  source is repeated or down-sampled as its share says. Sources that shares does not
  name have the rest, in proportion to their sizes. Raises UserError for a source that
  is not there, or shares that cannot be.
  """
  groups = {}
  for i, dialog in enumerate(dialogs):
    groups.setdefault(source(dialog), []).append(i)
  counts = _counts(groups, dict(shares), dict(passes))
  rng, chosen = np.random.default_rng((seed, 13)), []
  for name in sorted(groups):
    whole, part = divmod(counts[name], len(groups[name]))
    more = sorted(rng.permutation(groups[name])[:part].tolist())
    chosen += groups[name] * whole + more
  used = {n: {'rows': len(g), 'used': counts[n]} for n, g in sorted(groups.items())}
  return [dialogs[i] for i in sorted(chosen)], used


def _counts(groups, shares, passes):
  """{source: examples of an epoch}."""
  for field, given in (('data.shares', shares), ('data.passes', passes)):
    for name in given:
      if name not in groups:
        there = ', '.join(sorted(groups)) or 'none'
        raise UserError(f'{field}: no row is of source {name!r}; there are {there}')
  if both := sorted(set(shares) & set(passes)):
    raise UserError(
      f'data.shares and data.passes both name {both[0]!r}: its share or its passes, '
      'not both'
    )
  counts = {n: round(passes.get(n, 1) * len(g)) for n, g in groups.items()}
  if not shares:
    return counts
  total, named = sum(counts.values()), sum(shares.values())
  left = sum(n for name, n in counts.items() if name not in shares)
  if named > 1 + 1e-6 or (not left and named < 1 - 1e-6):
    rest = 'at most 1' if left else '1, since they name every source'
    raise UserError(f'data.shares add up to {named:g}: make that {rest}')
  scale = max(1 - named, 0) * total / max(left, 1)
  return {
    n: round(shares[n] * total if n in shares else scale * counts[n]) for n in counts
  }
