"""Two-stage shuffle of token documents on disk, for corpora larger than memory (3.1).

Every document is appended to a cell chosen at random; then one cell at a time is read,
and its documents are given in random order. A shard read from front to back is then a
random sample of the corpus, whatever the order of the crawl, and memory holds one cell.
"""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator

import numpy as np

Pairs = Iterable[tuple[str, np.ndarray]]  # split, uint32 ids [n]


@contextlib.contextmanager
def cells(
  folder: str | os.PathLike, count: int, seed: int
) -> Iterator[Callable[[Pairs], Pairs]]:
  """Yields shuffled(pairs) -> iterator of the same (split, ids) pairs, in random order.

  Args:
    folder: for the cells; removed at the end.
    count: number of cells; memory holds one `count`-th of the tokens.
    seed: of the order.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True)
  try:
    yield lambda pairs: _shuffled(pairs, folder, count, seed)
  finally:
    shutil.rmtree(folder, ignore_errors=True)


def _shuffled(pairs, folder, count, seed):
  rng = np.random.default_rng(seed)
  files = [open(folder / f'{i:05d}', 'wb') for i in range(count)]
  sizes = [[] for _ in range(count)]  # of each cell (split, tokens)
  try:
    for split, ids in pairs:
      cell = int(rng.integers(count))
      files[cell].write(ids.tobytes())
      sizes[cell].append((split, len(ids)))
  finally:
    for file in files:
      file.close()
  for i in rng.permutation(count).tolist():
    ids = np.fromfile(folder / f'{i:05d}', np.uint32)
    ends = np.cumsum([n for _, n in sizes[i]])
    for j in rng.permutation(len(sizes[i])).tolist():
      split, n = sizes[i][j]
      yield split, ids[ends[j] - n : ends[j]]
    (folder / f'{i:05d}').unlink()
