"""Checkpoints: asynchronous, atomic, restored onto any mesh (section 3.3.3).

A thin layer over Orbax's CheckpointManager: unfinished saves stay under a temporary
name and are ignored, no save is dropped. `final/` holds the parameters a stage hands
to the next one. Both carry digests, so that damaged data is refused, with its name.
"""

import contextlib
import logging as python_logging
import os
import pathlib
import shutil
from collections.abc import Mapping

import jax
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from ml_collections import ConfigDict

from llama3_jax import config as configs
from llama3_jax import workdir as workdirs
from llama3_jax.base import files
from llama3_jax.base import processes
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.model import llama
from llama3_jax.tokenizer import Tokenizer
from llama3_jax.train import beside
from llama3_jax.train import digest
from llama3_jax.train.config import TrainConfig

AGAIN = 'remove that folder and run the same command again'
# Identity of parameters of unknown origin.
NOBODY = dict(vocabulary=None, vocab_size=0, variant='', digest='', call_format='')


class Checkpoints:
  """Saves and restores (training state, data state) under <workdir>/checkpoints.

  Args:
    keep: number of newest saves that are kept.
    every: saves at multiples of this step are never deleted; 0: none.
    elsewhere: folder in place of <workdir>/checkpoints; may be remote (gs://bucket/run).
  """

  def __init__(
    self, workdir: str | os.PathLike, keep: int = 2, every: int = 0, elsewhere: str = ''
  ) -> None:
    self.folder = _folder(workdir, elsewhere)
    field = 'train.checkpoints' if elsewhere else '--workdir'
    if keep < 1:
      raise UserError(f'train.keep={keep}: 1 or more saves are kept')
    if '://' not in elsewhere and self.folder.exists() and not self.folder.is_dir():
      raise UserError(f'{field}: {self.folder} is a file: name a folder for the saves')
    options = ocp.CheckpointManagerOptions(
      max_to_keep=keep, keep_period=every or None, create=True
    )
    with _quiet():
      try:
        self.manager = ocp.CheckpointManager(self.folder, options=options)
      except (OSError, ValueError, RuntimeError, ImportError) as e:
        text = ' '.join(str(e).split())[:300]
        raise UserError(f'{field}: {self.folder} cannot be used ({text})')
    if elsewhere and processes.first():
      workdirs.own(self.folder, workdir, field)
    processes.meet('checkpoints')

  def save(self, step: int, state: object, data: Mapping) -> None:
    """Start saving `state` and the JSON-able `data` as `step`; returns at once."""
    if step in self.manager.all_steps():
      logging.info('step %d is saved already', step)
      return
    digests = {'data': digest.value(data), 'arrays': digest.arrays(state), 'step': step}
    args = ocp.args.Composite(
      state=ocp.args.StandardSave(state),
      data=ocp.args.JsonSave(data),
      digest=ocp.args.JsonSave(digests),
    )
    try:
      saved = self.manager.save(step, args=args, force=True)
    except (OSError, ValueError) as e:
      raise _explain(e, self.folder)
    if not saved:
      latest = self.manager.latest_step()
      raise UserError(
        f'{self.folder}: step {step} was not saved, the latest is {latest}: '
        'another run wrote here; choose another --workdir'
      )

  def latest(self) -> int | None:
    return self.manager.latest_step()

  def steps(self) -> list[int]:
    """Steps that are kept, rising."""
    return sorted(self.manager.all_steps())

  def restore(self, abstract: object, step: int | None = None) -> tuple | None:
    """(state, data) of `step` or the latest save, with the layout of `abstract`; None
    without a save. Raises UserError for another tree or damaged values."""
    step = self.latest() if step is None else step
    if step is None:
      return None
    folder = self.folder / str(step)
    data, digests = self._data(step)

    def read(abstract):
      args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
      return self.manager.restore(step, args=args)['state']

    arrays = digests and digests['arrays']
    return _read(read, folder / 'state', abstract, arrays, folder, AGAIN), data

  def data(self, step: int) -> dict:
    """The JSON part of a save."""
    return self._data(step)[0]

  def _data(self, step):
    """(data, digests) of a save; the digests are None for a save without them."""
    folder = self.folder / str(step)
    items = {'data': ocp.args.JsonRestore()}
    if (folder / 'digest').exists():
      items['digest'] = ocp.args.JsonRestore()
    try:
      with _quiet():
        parts = self.manager.restore(step, args=ocp.args.Composite(**items))
    except Exception as e:
      raise _explain(e, folder)
    data, digests = parts['data'], parts.get('digest')
    if 'digest' not in items:
      logging.info('%s has no digests: it is used unchecked', folder)
    elif not (isinstance(digests, dict) and isinstance(digests.get('arrays'), dict)):
      raise beside.damaged(folder, 'digest', AGAIN)
    elif digests.get('step', step) != step:
      raise UserError(
        f'{folder} is the save of step {digests["step"]} under another name: give the '
        'folder its own name back, or remove it'
      )
    elif digests.get('data') != digest.value(data):
      raise beside.damaged(folder, 'data', AGAIN)
    if not isinstance(data, dict):
      raise beside.damaged(folder, 'data', AGAIN)
    return data, digests

  def forget(self, after: int) -> None:
    """Removes the saves of steps later than `after`; a rewind writes them again."""
    self.wait()
    for step in self.steps():
      if step > after:
        self.manager.delete(step)
    self.manager.wait_until_finished()

  def wait(self) -> None:
    """Block until the last save is on disk."""
    try:
      self.manager.wait_until_finished()
    except Exception as e:
      raise _explain(e, self.folder)

  def close(self) -> None:
    self.wait()
    self.manager.close()


def _folder(workdir, elsewhere):
  """The folder of the checkpoints; UserError for an address of an unknown kind."""
  if '://' not in elsewhere:
    local = pathlib.Path(elsewhere or pathlib.Path(workdir, 'checkpoints'))
    return epath.Path(local.resolve())
  try:
    return epath.Path(elsewhere)
  except KeyError:
    raise UserError(
      f'train.checkpoints={elsewhere}: use a folder, gs://, s3:// or az://'
    )


def open_run(
  workdir: str | os.PathLike, train: TrainConfig | ConfigDict
) -> Checkpoints:
  """Checkpoints with the settings of the `train` part of a config."""
  return Checkpoints(workdir, train.keep, train.keep_every, train.checkpoints)


def save_params(
  folder: str | os.PathLike,
  params: object,
  model: ModelConfig,
  tokenizer: Tokenizer | None = None,
  origin: Mapping | None = None,
) -> None:
  """Write parameters and their ModelConfig to `folder`, replacing it atomically.

  Args:
    tokenizer: the Tokenizer whose ids the model reads; its vocabulary is stored too.
    origin: what the parameters were made from, JSON-able, for `identity`.
  """
  folder = pathlib.Path(folder).resolve()
  fresh = folder.with_name(folder.name + '.new')
  if jax.process_index() == 0:
    shutil.rmtree(fresh, ignore_errors=True)
  with _quiet(), ocp.StandardCheckpointer() as saver:
    try:
      saver.save(fresh / 'params', params)
      saver.wait_until_finished()
    except Exception as e:
      raise _explain(e, folder)
  arrays = digest.arrays(params)
  named = NOBODY | {'digest': digest.value(arrays)}
  if tokenizer is not None:
    named['vocabulary'] = tokenizer.fingerprint
    named['vocab_size'], named['variant'] = tokenizer.vocab_size, tokenizer.variant
    named['call_format'] = tokenizer.call_format
  if origin is not None:
    named['origin'] = origin
  if jax.process_index() == 0:
    _write_beside(fresh, model, named, tokenizer, arrays)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
  processes.meet('final')  # no process reads the folder before it exists


def _write_beside(folder, model, named, tokenizer, arrays):
  """Write the files beside the arrays of `folder`, and the digests of everything."""
  try:
    files.write_json(folder / 'model.json', configs.model_fields(model).to_dict())
    files.write_json(folder / 'identity.json', named)
    if tokenizer is not None:
      (folder / 'tokenizer.model').write_bytes(tokenizer.content)
    beside = {p.name: digest.content(p.read_bytes()) for p in folder.glob('*.*')}
    files.write_json(folder / 'digests.json', {'files': beside, 'arrays': arrays})
  except OSError as e:
    raise _explain(e, folder)


def final(workdir: str | os.PathLike) -> pathlib.Path:
  """The folder of a stage's final parameters: `workdir`/final, or `workdir` itself."""
  folder = pathlib.Path(workdir)
  return folder if (folder / 'model.json').exists() else folder / 'final'


def load_model(workdir: str | os.PathLike, field: str = 'init_from') -> ModelConfig:
  """ModelConfig stored beside the parameters of the stage that `field` names."""
  path = final(workdir) / 'model.json'
  if not path.exists():
    raise UserError(
      f'{field}={workdir}: no parameters there ({path} is missing); '
      'name the workdir of a finished stage or of a conversion'
    )
  values = beside.read(path)
  try:
    return configs.model_config(values)
  except UserError as e:
    raise UserError(f'{path}: {e}: {beside.MADE_AGAIN}')
  except (TypeError, ValueError, KeyError, AttributeError, ZeroDivisionError) as e:
    raise UserError(f'{path} is not a model config ({e}): {beside.MADE_AGAIN}')


def identity(workdir: str | os.PathLike) -> dict:
  """Identity of parameters: {vocabulary, vocab_size, variant, call_format, digest}.

  vocabulary: the tokenizer's fingerprint, None if unknown (vocab_size is then 0 and
  variant empty); digest: hex, of all arrays, empty for folders without one.
  """
  path = final(workdir) / 'identity.json'
  if not path.exists() and (path.parent / 'digests.json').exists():
    raise beside.damaged(path.parent, path.name, beside.MADE_AGAIN)
  values = dict(beside.read(path)) if path.exists() else {}
  for field, empty in NOBODY.items():
    value = values.setdefault(field, empty)
    if not isinstance(value, (str, type(None)) if empty is None else type(empty)):
      raise UserError(f'{path}: {field}={value!r} cannot be: {beside.MADE_AGAIN}')
  return values


def tokenizer(workdir: str | os.PathLike) -> pathlib.Path | None:
  """Path of the vocabulary file beside the parameters, or None."""
  path = final(workdir) / 'tokenizer.model'
  if not path.exists():
    if identity(workdir)['vocabulary']:
      raise beside.damaged(path.parent, path.name, beside.MADE_AGAIN)
    return None
  beside.check(path)
  return path


def load_params(
  workdir: str | os.PathLike, abstract: object, field: str = 'init_from'
) -> object:
  """Parameters of a finished stage, laid out as `abstract` (ShapeDtypeStructs)."""
  load_model(workdir, field)
  folder = final(workdir).resolve()
  recorded, path = beside.digests(folder), folder / 'params'
  arrays = recorded and recorded['arrays']
  with ocp.StandardCheckpointer() as loader:
    read = lambda like: loader.restore(path, like)
    return _read(read, path, abstract, arrays, folder, beside.MADE_AGAIN, field)


def load(
  workdir: str | os.PathLike,
  model: ModelConfig | None = None,
  mesh: jax.sharding.Mesh | None = None,
  field: str = 'init_from',
) -> tuple[llama.Params, ModelConfig]:
  """(params, ModelConfig) of a finished stage; `model` overrides e.g. RoPE scaling."""
  model = model or load_model(workdir, field)
  mesh = mesh or jax.sharding.get_mesh()
  if not mesh.empty:
    return load_params(workdir, llama.abstract(model, mesh=mesh), field), model
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  one = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here)
  return load_params(workdir, jax.tree.map(one, llama.abstract(model)), field), model


def _read(read, path, abstract, digests, folder, remedy, field='init_from'):
  """read(abstract) of the arrays in `path`, compared with `digests` (None: unchecked).

  Digests are of the values as saved: a cast to another dtype comes afterwards.
  """
  like = abstract
  if digests is not None:
    saved = lambda p, x: _as_saved(x, digests.get(digest.name(p)))
    like = jax.tree_util.tree_map_with_path(saved, abstract)
  with _quiet():
    try:
      _compare(path, abstract, field)
      tree = read(like)
    except UserError:
      raise
    except Exception as e:  # Orbax raises many kinds, for a wrong tree and a bad file
      raise _explain(e, path, remedy)
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


def _explain(error, path, remedy=AGAIN):
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
def _quiet():
  """Silences Orbax, which logs every file at INFO; our log has one line a save."""
  level = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  python_logging.getLogger('orbax').setLevel(python_logging.ERROR)
  try:
    yield
  finally:
    logging.set_verbosity(level)
