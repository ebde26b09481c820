"""Files that appear whole or not at all."""

import contextlib
import errno
import os
import shutil

import pyarrow as pa

FULL = 1 << 24  # a disk with fewer bytes left


@contextlib.contextmanager
def renamed(path):
  """The name to write under; the file has its own name once the block has ended."""
  partial = path.with_name(f'{path.name}.{os.getpid()}.partial')
  try:
    yield partial
    with open(partial, 'rb') as f:
      os.fsync(f.fileno())
    os.replace(partial, path)
  except OSError as error:
    # numpy does not say why it wrote less than it should.
    if error.errno is None and shutil.disk_usage(path.parent).free < FULL:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
    raise
  finally:
    partial.unlink(missing_ok=True)


def write_table(path, table):
  """Writes an Arrow file that is read by memory map."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with renamed(path) as partial:
    with pa.OSFile(str(partial), 'wb') as f, pa.ipc.new_file(f, table.schema) as out:
      out.write_table(table)


def read_table(path):
  """The table of an Arrow file, memory-mapped."""
  with pa.memory_map(str(path)) as f:
    return pa.ipc.open_file(f).read_all()
