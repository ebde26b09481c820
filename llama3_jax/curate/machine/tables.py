"""Arrow files: tables that are written whole and read by memory map."""

import os
import pathlib

import pyarrow as pa

from llama3_jax.base import files


def write(path: pathlib.Path, table: pa.Table) -> None:
  """Writes an Arrow file and makes its folder."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with files.renamed(path) as partial:
    with pa.OSFile(str(partial), 'wb') as f, pa.ipc.new_file(f, table.schema) as out:
      out.write_table(table)


def read(path: str | os.PathLike) -> pa.Table:
  """The table of an Arrow file, memory-mapped."""
  with pa.memory_map(str(path)) as f:
    return pa.ipc.open_file(f).read_all()
