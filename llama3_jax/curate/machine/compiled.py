"""Functions that numba compiles: each once, by whichever process needs it first.

Compiling costs about a thousand times what reading the result does. A kernel has one
signature, so that it is never compiled for a second layout of the same arrays; it is
compiled (or read from numba's cache on disk) when it is called first, and processes
that want the same one at the same time wait for the first instead of all compiling it.
"""

import contextlib
import fcntl
import functools
import hashlib
import os
import pathlib
from collections.abc import Callable
from collections.abc import Iterator

import numba

from llama3_jax.base import files

# Types of arguments. BYTES and FIXED_... may be read only.
BYTES = numba.types.Array(numba.uint8, 1, 'C', readonly=True)
FIXED_ROWS = numba.types.Array(numba.int64, 2, 'C', readonly=True)
FIXED_FLAGS = numba.types.Array(numba.bool_, 2, 'C', readonly=True)
TEXT, KEYS, NUMBERS = numba.uint8[::1], numba.uint64[::1], numba.int64[::1]
FLAGS, SIZES, CODES = numba.bool_[::1], numba.int32[::1], numba.uint32[::1]
FLOATS, FLOATS_F = numba.float64[::1], numba.float32[::1]
ROWS, TABLE_F, CODE_ROWS = (
  numba.int64[:, ::1],
  numba.float32[:, ::1],
  numba.uint32[:, ::1],
)
TABLE, BLOCK, COLUMNS = (
  numba.uint8[:, ::1],
  numba.uint8[:, :, ::1],
  numba.uint16[:, ::1],
)
WORDS = numba.types.Tuple((KEYS, NUMBERS, TEXT))  # of extraction/names.table
INT, FLOAT, BOOL = numba.int64, numba.float64, numba.bool_

LOCK = 'compile.lock'  # in the folder of the cache
SOURCES = pathlib.Path(__file__).parents[1]  # of all compiled functions

# For functions that only compiled ones call: without the wrappers that Python calls.
inner = numba.njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)
once = numba.njit(nogil=True, inline='always')  # for those that are called in one place


def folder(sources: pathlib.Path = SOURCES) -> pathlib.Path:
  """Where numba keeps what it compiled, one folder for each state of the sources.

  numba itself looks at the file of a function alone, so it would go on with the old
  form of what that function calls in another file. NUMBA_CACHE_DIR or the folder of
  LLAMA3_CACHE holds them.
  """
  digest = hashlib.blake2b(digest_size=8)
  for path in sorted(sources.rglob('*.py')):
    digest.update(f'{path.relative_to(sources)}\0'.encode() + path.read_bytes())
  own = os.environ.get('NUMBA_CACHE_DIR') or files.cache_folder() / 'numba'
  return pathlib.Path(own, digest.hexdigest())


numba.config.CACHE_DIR = str(folder())


def kernel(*types: numba.types.Type) -> Callable[[Callable], Callable]:
  """Decorator of a function that Python calls, with the types of its arguments.

  Other types are compiled for as well. The attribute `compiled` of the function is
  numba's dispatcher: its `signatures` are the types that it was compiled for.
  """

  def wrap(function):
    made = numba.njit(cache=True, nogil=True, no_cfunc_wrapper=True)(function)
    ready = False

    @functools.wraps(function)
    def call(*args):
      nonlocal ready
      if not ready:
        with _alone(made.stats.cache_path):
          made.compile(types)
        ready = True
      return made(*args)

    call.compiled = made
    return call

  return wrap


@contextlib.contextmanager
def _alone(folder: str) -> Iterator[None]:
  """Waits for other processes that compile for the cache in a folder."""
  with contextlib.ExitStack() as held:
    with contextlib.suppress(OSError):  # without locks all of them compile
      os.makedirs(folder, exist_ok=True)
      file = held.enter_context(open(os.path.join(folder, LOCK), 'a'))
      fcntl.flock(file, fcntl.LOCK_EX)
    yield
