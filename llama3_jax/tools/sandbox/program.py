"""Runs a text of Python as the main module of this process, as `python FILE` does."""

import atexit
import linecache
import os
import site
import sys
import threading
import traceback
import types

NAME = 'program.py'
OWN = 'llama3_jax'  # modules of this package are not the program's


def run(text: str, folder: str) -> None:
  """Runs the program and ends the process with its exit status; folder: its own."""
  status = 1
  try:
    status = _run(text, folder)
    status = _finish(status)
  except MemoryError:
    os.write(2, b'MemoryError\n')
  finally:
    os._exit(status)


def _run(text, folder):
  module = types.ModuleType('__main__')
  module.__dict__.update(__file__=NAME, __builtins__=__builtins__)
  for name in [n for n in sys.modules if n.split('.')[0] == OWN]:
    del sys.modules[name]
  sys.modules['__main__'] = module
  sys.path.insert(0, folder)
  sys.argv[:] = [NAME]
  os.environ.clear()
  os.environ.update(HOME=folder, TMPDIR=folder, LANG='C.UTF-8', PATH='')
  sys.stdin = open(0, encoding='utf-8', errors='surrogateescape', closefd=False)
  sys.stdout = open(1, 'w', encoding='utf-8', errors='replace', closefd=False)
  sys.stderr = open(
    2, 'w', encoding='utf-8', errors='backslashreplace', buffering=1, closefd=False
  )
  sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
  site.setquit()  # exit and quit
  # So that a traceback shows lines of the program, of which there is no file.
  lines = text.splitlines(keepends=True)
  linecache.cache[NAME] = (len(text), None, lines, NAME)
  try:
    exec(compile(text, NAME, 'exec', dont_inherit=True), module.__dict__)
  except SystemExit as error:
    return _status(error.code)
  except MemoryError:
    raise
  except BaseException as error:
    below = error.__traceback__.tb_next
    traceback.print_exception(type(error), error, below)
    return 1
  return 0


def _status(code):
  """The exit status of SystemExit(code)."""
  if code is None or isinstance(code, int):
    return (code or 0) & 0xFF
  sys.stderr.write(f'{code}\n')
  return 1


def _finish(status):
  """Waits for threads, calls what was to be called at the end, writes what is left."""
  threading._shutdown()
  atexit._run_exitfuncs()
  try:
    sys.stdout.flush()
  except (OSError, ValueError):
    return status or 120  # as Python does
  return status
