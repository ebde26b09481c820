"""Work on a list in parts, each a file, on one or several hosts (4.2.2).

A part depends on the list and its number alone; it is written whole or not at all, so
any host may stop and start again, and the files are the same however many there are.
"""

import pathlib
from collections.abc import Callable
from collections.abc import Sequence

from absl import logging

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.curate.machine import engine


def check(hosts: int, host: int) -> None:
  """UserError for a host that is none of them."""
  if not 0 <= host < hosts:
    raise UserError(f'host={host}: it must be one of 0 to {hosts - 1} (hosts={hosts})')


def path(folder: pathlib.Path, number: int) -> pathlib.Path:
  """The file of a part."""
  return folder / 'parts' / f'{number:05d}.jsonl'


def run(
  folder: pathlib.Path,
  work: Callable[[int], int],
  count: int,
  kind: str = 'local',
  hosts: int = 1,
  host: int = 0,
) -> None:
  """Runs work(number), which writes the file of a part, for those that are this host's
  and are not there yet; then waits until the other hosts have written theirs.

  kind: of curate/machine/engine.py; 'local' works in this process, 'ray' on a cluster,
  where `work` is pickled.
  """
  check(hosts, host)
  (folder / 'parts').mkdir(exist_ok=True)
  due = [n for n in range(count) if n % hosts == host and not path(folder, n).exists()]
  with engine.start(kind, 1) as each:
    for done, (number, rows) in enumerate(each(work, due) if due else (), 1):
      logging.info('part %d: %d rows (%d of %d here)', number, rows, done, len(due))
  missing = lambda: [str(n) for n in range(count) if not path(folder, n).exists()]
  engine.wait('parts', missing)


def rows(folder: pathlib.Path, count: int) -> Sequence[dict]:
  """The rows of all parts, in order."""
  return [
    row for n in range(count) for _, row in jsonl.read(path(folder, n), '--workdir')
  ]
