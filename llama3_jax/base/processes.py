"""Several processes of one run: the first one writes, and all wait for it."""

import os
import pathlib
import sys

from llama3_jax.base import files


def first() -> bool:
  """Whether this process is the one that writes files."""
  jax = sys.modules.get('jax')  # not imported here: that would touch a device
  return jax is None or not jax.distributed.is_initialized() or not jax.process_index()


def meet(name: str) -> None:
  """Waits for all processes; each calls it with the same name at the same point."""
  jax = sys.modules.get('jax')
  if jax and jax.distributed.is_initialized() and jax.process_count() > 1:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(name)


def write_json(path: str | os.PathLike, value: object) -> None:
  """Runs files.write_json in the first process; all wait until it is done."""
  if first():
    files.write_json(path, value)
  meet(pathlib.Path(path).name)
