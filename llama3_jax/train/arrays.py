"""Arrays in a folder, as Orbax keeps them: read, compared with their digests."""

import contextlib
import logging as python_logging
import os
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping

import jax
import orbax.checkpoint as ocp
from absl import logging

from llama3_jax.base.errors import UserError
from llama3_jax.train import beside
from llama3_jax.train import digest

AGAIN = 'remove that folder and run the same command again'


def read(
  restore: Callable[[object], object],
  path: os.PathLike,
  abstract: object,
  digests: Mapping | None,
  folder: os.PathLike,
  remedy: str,
  field: str = 'init_from',
) -> object:
  """restore(abstract) of the arrays in `path`, compared with `digests` (None: not).

  Digests are of the values as saved: a cast to another dtype comes afterwards.
  """
  like = abstract
  if digests is not None:
    saved = lambda p, x: _as_saved(x, digests.get(digest.name(p)))
    like = jax.tree_util.tree_map_with_path(saved, abstract)
  with quiet():
    try:
      _compare(path, abstract, field)
      tree = restore(like)
    except UserError:
      raise
    except Exception as e:  # Orbax raises many kinds, for a wrong tree and a bad file
      raise explain(e, path, remedy)
  if digests is None:
    return tree
  values = digest.arrays(tree)
  for name in sorted(values | digests):
    if values.get(name) != digests.get(name):
      raise beside.damaged(folder, name, remedy)
  cast = lambda x, y: x if x.dtype == y.dtype else x.astype(y.dtype)
  return jax.tree.map(cast, tree, abstract)


def _as_saved(x, kept):
  """The ShapeDtypeStruct `x` with the dtype that was saved, where that is known."""
  try:
    dtype = jax.numpy.dtype(kept[0])
  except (TypeError, KeyError, IndexError):
    return x  # a PRNG key, or damage that the comparison names
  return jax.ShapeDtypeStruct(x.shape, dtype, sharding=x.sharding)


def _compare(folder, abstract, field):
  """UserError that names the first array that is not in both or differs in shape.

  Orbax would skip an array that is not requested, and fail in the middle of reading.
  """

  def shapes(tree):
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {digest.name(path): tuple(x.shape) for path, x in leaves}

  with ocp.StandardCheckpointer() as reader:
    kept = shapes(reader.metadata(folder).item_metadata.tree)
  needed = shapes(abstract)
  rewards = [any(n.startswith('model.') for n in names) for names in (kept, needed)]
  if rewards[0] != rewards[1]:
    a, b = ('a reward model' if r else 'a language model' for r in rewards)
    raise UserError(f'{field}: {folder} holds {a}, {b} is needed: name another stage')
  for name in sorted(kept | needed):
    a, b = (x.get(name, 'not there') for x in (kept, needed))
    if a != b:
      raise UserError(
        f'{folder} holds another model than the config makes ({name} is {a} in the '
        f'file, {b} in the config): check model.* and {field}'
      )


def explain(error: Exception, path: os.PathLike, remedy: str = AGAIN) -> UserError:
  """A one-line UserError for a failure of a checkpoint."""
  text = ' '.join(str(error).split()).partition(' See full TensorStore')[0]
  if 'No space left' in text or getattr(error, 'errno', None) == 28:
    return UserError(
      f'{path}: the disk is full, this save is lost and earlier ones are kept: '
      'free space and run the same command again'
    )
  return UserError(
    f'{path} cannot be read or written ({text[:300]}): it may be cut off; {remedy}'
  )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Silences Orbax, which logs every file at INFO; our log has one line a save."""
  level = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  python_logging.getLogger('orbax').setLevel(python_logging.ERROR)
  try:
    yield
  finally:
    logging.set_verbosity(level)
