"""MaxText's train step for absent chips, lowered by its own train_compile.

`lower` is what llama3_jax.plan's child process calls in place of our own step, so that
the same compiler options, dumps and analysis serve both programs.
"""

import importlib.util
import os
import pathlib

import jax

# llama3_jax's names of the mesh axes that both have.
AXES = {'data': 'replica', 'tensor': 'tensor', 'fsdp': 'fsdp', 'context': 'context'}


class _Lowered(BaseException):
  """Carries the lowered program out of MaxText's main."""

  def __init__(self, program):
    super().__init__()
    self.program = program


class _Mesh:
  """The devices of MaxText's mesh, its axes under llama3_jax's names."""

  def __init__(self, mesh):
    self.devices = mesh.devices
    shape = {AXES.get(n, n): size for n, size in mesh.shape.items()}
    self.shape = shape | {n: 1 for n in ('stage',) if n not in shape}


def lower(arguments):
  """(lowered program, mesh) of `key=value` arguments; runs MaxText's main up to the
  moment when it would compile."""
  os.environ['DECOUPLE_GCLOUD'] = 'TRUE'
  from jax.experimental import xla_metadata

  # An import of a kernel that is not used here; jax 0.10 does not have it.
  vars(xla_metadata).setdefault('must_fuse_call', None)
  from maxtext.trainers.pre_train import train_compile

  meshes = []
  make = train_compile.get_topology_mesh

  def get_topology_mesh(config):
    meshes.append(make(config))
    return meshes[-1]

  def stop(lowered, compiler_options=None):
    raise _Lowered(lowered)

  train_compile.get_topology_mesh = get_topology_mesh
  jax.stages.Lowered.compile, compiler = stop, jax.stages.Lowered.compile
  try:
    train_compile.main(['train_compile', base(), *arguments])
  except _Lowered as found:
    return found.program, _Mesh(meshes[0])
  finally:
    jax.stages.Lowered.compile = compiler
  raise RuntimeError('MaxText compiled nothing')


def base():
  """Its base.yml."""
  found = importlib.util.find_spec('maxtext').submodule_search_locations[0]
  return str(pathlib.Path(found) / 'configs/base.yml')
