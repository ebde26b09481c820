"""The process that lowers and compiles one program, so that it can be ended early.

`python -m llama3_jax.plan.child FOLDER` reads request.pkl and writes its results into
FOLDER: program.json (before the compiler starts), hlo.txt and compiled.json (only when
it finishes), error.json.
"""

import importlib
import os
import pathlib
import pickle
import sys
import traceback

import jax
import numpy as np

from llama3_jax.base import processes
from llama3_jax.base.errors import UserError


def main(folder: str | os.PathLike) -> int:
  """Compiles the request; exit status: 0 done, 2 an error of the user, 3 any other."""
  folder = pathlib.Path(folder)
  request = pickle.loads((folder / 'request.pkl').read_bytes())
  try:
    module, _, name = request['build'].partition(':')
    lowered, mesh = getattr(importlib.import_module(module), name)(request['config'])
    processes.write_json(folder / 'program.json', describe(mesh))
    compiled = lowered.compile(compiler_options=request['options'])
  except Exception as e:
    user = isinstance(e, UserError)
    kind = 'user' if user else 'memory' if 'RESOURCE_EXHAUSTED' in str(e) else 'other'
    error = {'kind': kind, 'text': str(e), 'trace': traceback.format_exc()}
    processes.write_json(folder / 'error.json', error)
    return 2 if user else 3
  (folder / 'hlo.txt').write_text(compiled.as_text())
  memory = compiled.memory_analysis()
  fields = [n for n in dir(memory) if n.endswith('_in_bytes')]
  processes.write_json(
    folder / 'compiled.json', {n: int(getattr(memory, n)) for n in fields}
  )
  return 0


def describe(mesh: jax.sharding.Mesh) -> dict:
  """Axis sizes and the location of each device: slice (or host), torus coordinates."""
  places = []
  for d in mesh.devices.flat:
    outer = getattr(d, 'slice_index', None) or 0
    inner = [int(x) for x in getattr(d, 'coords', None) or (d.id // 8,)]
    places.append([outer, *inner])
  return {
    'axes': {name: int(n) for name, n in mesh.shape.items()},
    'places': np.asarray(places).tolist(),
  }


if __name__ == '__main__':
  status = main(sys.argv[1])
  sys.stdout.flush()
  # Compiler threads of an absent device may hang at exit.
  os._exit(status)
