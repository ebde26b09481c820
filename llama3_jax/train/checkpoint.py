"""Checkpoints: asynchronous, atomic, restored onto any mesh (section 3.3.3).

A thin layer over Orbax's CheckpointManager: unfinished saves stay under a temporary
name and are ignored, no save is dropped. `final/` holds the parameters a stage hands
to the next one.
"""

import contextlib
import logging as python_logging
import pathlib
import shutil

import jax
import orbax.checkpoint as ocp
from absl import logging
from etils import epath

from llama3_jax import config as configs
from llama3_jax.base.errors import UserError
from llama3_jax.model import llama


class Checkpoints:
  """Saves and restores (training state, data state) under <workdir>/checkpoints.

  Args:
    keep: newest saves that are kept; every: steps whose multiples are kept for good
      (0: none); elsewhere: another folder than <workdir>/checkpoints, which may be
      remote (gs://bucket/run).
  """

  def __init__(self, workdir, keep=2, every=0, elsewhere=''):
    self.folder = _folder(workdir, elsewhere)
    if keep < 1:
      raise UserError(f'train.keep={keep}: 1 or more saves are kept')
    options = ocp.CheckpointManagerOptions(
      max_to_keep=keep, keep_period=every or None, create=True
    )
    with _quiet():
      try:
        self.manager = ocp.CheckpointManager(self.folder, options=options)
      except (OSError, ValueError, RuntimeError, ImportError) as e:
        text = ' '.join(str(e).split())[:300]
        field = 'train.checkpoints' if elsewhere else '--workdir'
        raise UserError(f'{field}: {self.folder} cannot be used ({text})')

  def save(self, step, state, data):
    """Start saving `state` and the JSON-able `data` as `step`; returns at once."""
    if step in self.manager.all_steps():
      logging.info('step %d is saved already', step)
      return
    args = ocp.args.Composite(
      state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(data)
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

  def latest(self):
    return self.manager.latest_step()

  def steps(self):
    """Steps that are kept, rising."""
    return sorted(self.manager.all_steps())

  def restore(self, abstract, step=None):
    """(state, data) of `step` or the latest, laid out as `abstract`; None if none.

    Raises UserError when the checkpoint holds another tree than the config makes.
    """
    step = self.latest() if step is None else step
    if step is None:
      return None
    args = ocp.args.Composite(
      state=ocp.args.StandardRestore(abstract), data=ocp.args.JsonRestore()
    )
    with _quiet():
      try:
        _compare(self.folder / str(step) / 'state', abstract)
        found = self.manager.restore(step, args=args)
      except UserError:
        raise
      except Exception as e:  # Orbax raises many kinds, for a wrong tree and a bad file
        raise _explain(e, self.folder / str(step))
    return found['state'], found['data']

  def data(self, step):
    """The JSON part of a save."""
    try:
      args = ocp.args.Composite(data=ocp.args.JsonRestore())
      with _quiet():
        return self.manager.restore(step, args=args)['data']
    except Exception as e:
      raise _explain(e, self.folder / str(step))

  def forget(self, after):
    """Removes the saves of later steps than `after`: a rewind makes them anew."""
    self.wait()
    for step in self.steps():
      if step > after:
        self.manager.delete(step)
    self.manager.wait_until_finished()

  def wait(self):
    """Block until the last save is on disk."""
    try:
      self.manager.wait_until_finished()
    except Exception as e:
      raise _explain(e, self.folder)

  def close(self):
    self.wait()
    self.manager.close()


def _folder(workdir, elsewhere):
  """The folder of the checkpoints; UserError for a kind of address none can read."""
  if '://' not in elsewhere:
    local = (
      pathlib.Path(elsewhere) if elsewhere else pathlib.Path(workdir, 'checkpoints')
    )
    return epath.Path(local.resolve())
  try:
    return epath.Path(elsewhere)
  except KeyError:
    raise UserError(
      f'train.checkpoints={elsewhere}: use a folder, gs://, s3:// or az://'
    )


def open_run(workdir, train):
  """Checkpoints as the `train` part of a config wants them."""
  return Checkpoints(workdir, train.keep, train.keep_every, train.checkpoints)


def save_params(folder, params, model):
  """Write parameters and their ModelConfig to `folder`, replacing it atomically."""
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
  configs.write_json(fresh / 'model.json', configs.model_fields(model).to_dict())
  if jax.process_index() == 0:
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
  configs.meet('final')  # none reads it before it is there


def final(workdir):
  """The folder of a stage's final parameters: `workdir`/final, or `workdir` itself."""
  folder = pathlib.Path(workdir)
  return folder if (folder / 'model.json').exists() else folder / 'final'


def load_model(workdir):
  """ModelConfig stored beside the parameters of a stage."""
  path = final(workdir) / 'model.json'
  if not path.exists():
    raise UserError(
      f'init_from={workdir}: no parameters there ({path} is missing); '
      'name the workdir of a finished stage or of a conversion'
    )
  return configs.model_config(configs.read_json(path))


def load_params(workdir, abstract):
  """Parameters of a finished stage, laid out as `abstract` (ShapeDtypeStructs)."""
  load_model(workdir)
  folder = final(workdir).resolve() / 'params'
  with _quiet(), ocp.StandardCheckpointer() as loader:
    try:
      _compare(folder, abstract)
      return loader.restore(folder, abstract)
    except UserError:
      raise
    except Exception as e:
      raise _explain(e, folder)


def load(workdir, model=None, mesh=None):
  """(params, ModelConfig) of a finished stage; `model` overrides e.g. RoPE scaling."""
  model = model or load_model(workdir)
  mesh = mesh or jax.sharding.get_mesh()
  if not mesh.empty:
    return load_params(workdir, llama.abstract(model, mesh=mesh)), model
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
    llama.abstract(model),
  )
  return load_params(workdir, abstract), model


def _compare(folder, abstract):
  """UserError naming the first array that is not in both or has another shape.

  Orbax would leave out what is not asked for, and fail in the middle of reading.
  """

  def shapes(tree):
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator='.')
    return {name(path): tuple(x.shape) for path, x in leaves}

  with ocp.StandardCheckpointer() as reader:
    kept = shapes(reader.metadata(folder).item_metadata.tree)
  wanted = shapes(abstract)
  for name in sorted(kept | wanted):
    a, b = (x.get(name, 'not there') for x in (kept, wanted))
    if a != b:
      raise UserError(
        f'{folder} holds another model than the config makes ({name} is {a} in the '
        f'file, {b} in the config): check model.* and init_from'
      )


def _explain(error, path):
  """The one-line UserError a checkpoint failure deserves."""
  text = ' '.join(str(error).split()).partition(' See full TensorStore')[0]
  if 'No space left' in text or getattr(error, 'errno', None) == 28:
    return UserError(
      f'{path}: the disk is full, this save is lost and earlier ones are kept: '
      'free space and run the same command again'
    )
  return UserError(
    f'{path} cannot be read or written ({text[:300]}): it may be cut off; '
    'remove that folder and run the same command again'
  )


@contextlib.contextmanager
def _quiet():
  """Orbax logs every file at INFO; our log keeps one line a save."""
  level = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  python_logging.getLogger('orbax').setLevel(python_logging.ERROR)
  try:
    yield
  finally:
    logging.set_verbosity(level)
