"""Models to start from: parameters, sizes and vocabulary, whoever made them (3.3.3)."""

import difflib
import os
import pathlib

import jax
import orbax.checkpoint as ocp

from llama3_jax import config as configs
from llama3_jax.base import log
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.model import llama
from llama3_jax.text import store
from llama3_jax.train import arrays
from llama3_jax.train import beside
from llama3_jax.train import final
from llama3_jax.train import foreign


def folder(name: str | os.PathLike, field: str = 'init_from') -> pathlib.Path:
  """The folder of somebody's parameters in our form.

  name: a stage's workdir or its final/; or what foreign.ours knows: the folder of
  another project, a GGUF file, a name, which are converted once.
  """
  return own(name) or foreign.ours(name, field) or pathlib.Path(name) / 'final'


def own(name: str | os.PathLike) -> pathlib.Path | None:
  """The folder of parameters in our form, None for those of others."""
  path = pathlib.Path(name)
  folders = (path, path / 'final')
  return next((f for f in folders if (f / 'model.json').exists()), None)


def config(workdir: str | os.PathLike, field: str = 'init_from') -> ModelConfig:
  """ModelConfig stored beside the parameters of the stage that `field` names."""
  path = folder(workdir, field) / 'model.json'
  if not path.exists():
    raise UserError(
      f'{field}={workdir}: no parameters there ({path} is missing); {_known(workdir)}'
    )
  values = beside.read(path)
  try:
    return configs.model_config(values)
  except UserError as e:
    raise UserError(f'{path}: {e}: {beside.MADE_AGAIN}')
  except (TypeError, ValueError, KeyError, AttributeError, ZeroDivisionError) as e:
    raise UserError(f'{path} is not a model config ({e}): {beside.MADE_AGAIN}')


def _known(name):
  """What the name of a model may be, or the nearest one."""
  near = difflib.get_close_matches(str(name), foreign.NAMED, 1)
  if near:
    return f'did you mean {near[0]}?'
  return (
    'name the workdir of a finished stage, a folder of Hugging Face or Meta, a .gguf '
    f'file, hf://org/name, or {", ".join(foreign.NAMED)}'
  )


def identity(workdir: str | os.PathLike) -> dict:
  """Identity of parameters: {vocabulary, vocab_size, variant, call_format, digest}.

  vocabulary: the tokenizer's fingerprint, None if unknown (vocab_size is then 0 and
  variant empty); digest: hex, of all arrays, empty for folders without one.
  """
  path = folder(workdir) / 'identity.json'
  if not path.exists() and (path.parent / 'digests.json').exists():
    raise beside.damaged(path.parent, path.name, beside.MADE_AGAIN)
  values = dict(beside.read(path)) if path.exists() else {}
  for field, empty in final.NOBODY.items():
    value = values.setdefault(field, empty)
    if not isinstance(value, (str, type(None)) if empty is None else type(empty)):
      raise UserError(f'{path}: {field}={value!r} cannot be: {beside.MADE_AGAIN}')
  return values


def tokenizer(workdir: str | os.PathLike) -> pathlib.Path | None:
  """Path of the vocabulary file beside the parameters, or None."""
  kept = folder(workdir)
  paths = [kept / name for name in store.FILES if (kept / name).exists()]
  if not paths:
    if identity(workdir)['vocabulary']:
      raise beside.damaged(kept, store.FILES[0], beside.MADE_AGAIN)
    return None
  for path in paths:
    beside.check(path)
  return paths[0]


def load_params(
  workdir: str | os.PathLike, abstract: object, field: str = 'init_from'
) -> object:
  """Parameters of a finished stage, laid out as `abstract` (ShapeDtypeStructs)."""
  config(workdir, field)
  kept = folder(workdir, field).resolve()
  recorded, path = beside.digests(kept), kept / 'params'
  marks = recorded and recorded['arrays']
  with ocp.StandardCheckpointer() as loader:
    read = lambda like: loader.restore(path, like)
    with log.work(f'reading the weights of {workdir}'):
      return arrays.read(read, path, abstract, marks, kept, beside.MADE_AGAIN, field)


def load(
  workdir: str | os.PathLike,
  model: ModelConfig | None = None,
  mesh: jax.sharding.Mesh | None = None,
  field: str = 'init_from',
) -> tuple[llama.Params, ModelConfig]:
  """(params, ModelConfig) of a finished stage; `model` overrides e.g. RoPE scaling."""
  model = model or config(workdir, field)
  mesh = mesh or jax.sharding.get_mesh()
  if not mesh.empty:
    return load_params(workdir, llama.abstract(model, mesh=mesh), field), model
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  one = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here)
  return load_params(workdir, jax.tree.map(one, llama.abstract(model)), field), model
