"""Notebooks are run from top to bottom in a fresh kernel, and kept with small outputs.

  python tests/helpers/run_notebooks.py notebooks/*.ipynb

runs those and writes their outputs.
"""

import base64
import io
import os
import pathlib
import resource
import sys

import jupyter_client
import nbclient
import nbformat
from jupyter_client import kernelspec
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
COLORS = 48  # of a picture: lines and text need no more, and it is a third of the size
METADATA = {
  'kernelspec': {'display_name': 'Python 3', 'language': 'python', 'name': 'python3'},
  'language_info': {'name': 'python'},
}


def execute(notebook, folder, timeout_s=600, **environment):
  """Runs all cells in a kernel of this Python, whatever kernels are installed.

  The working directory is `folder`; the package is that of this repository. Raises
  nbclient's CellExecutionError with the cell and the traceback of the first failure.
  """
  specs = kernelspec.KernelSpecManager(kernel_dirs=[])  # none but the native one
  kernel = jupyter_client.AsyncKernelManager(
    kernel_name='python3', kernel_spec_manager=specs
  )
  client = nbclient.NotebookClient(
    notebook,
    km=kernel,
    timeout=timeout_s,
    record_timing=False,
    resources={'metadata': {'path': str(folder)}},
  )
  env = {**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu', **environment}
  client.execute(env=env, cleanup_kc=True)


def tidy(notebook):
  """Makes outputs small and the same on every machine.

  Pictures get few colours; pages with scripts, which a code host does not show, leave
  their plain text; what goes to stderr is left out.
  """
  notebook.metadata = nbformat.from_dict(METADATA)
  for cell in notebook.cells:
    cell.metadata = {}
    if cell.cell_type == 'code':
      cell.outputs = _merged([_small(o) for o in cell.outputs if not _stderr(o)])


def kinds(cell):
  """What a code cell shows: {'stdout', 'text/plain', 'image/png', 'error', ...}."""
  found = set()
  for output in cell.outputs:
    if output.output_type == 'stream':
      found |= {output.name} - {'stderr'}
    elif output.output_type == 'error':
      found.add('error')
    else:
      found |= set(output.data) - {'text/html'}
  return found


def text(cell):
  """All text that the outputs of a code cell show."""
  shown = []
  for output in cell.outputs:
    data = output.get('data', {})
    shown += [output.get('text', ''), data.get('text/plain', '')]
    shown += output.get('traceback', [])
  return '\n'.join(shown)


def _stderr(output):
  return output.output_type == 'stream' and output.name == 'stderr'


def _small(output):
  if 'data' in output:
    output.metadata = {}
    if '<script' in output.data.get('text/html', ''):
      del output.data['text/html']
    if 'image/png' in output.data:
      output.data['image/png'] = _few_colors(output.data['image/png'])
  return output


def _few_colors(png):
  picture = Image.open(io.BytesIO(base64.b64decode(png))).convert('RGB')
  file = io.BytesIO()
  picture.quantize(COLORS, dither=Image.Dither.NONE).save(file, 'png', optimize=True)
  return base64.b64encode(file.getvalue()).decode('ascii')


def _merged(outputs):
  """Outputs in which what was printed in parts is one."""
  merged = []
  for output in outputs:
    if merged and output.output_type == merged[-1].output_type == 'stream':
      merged[-1].text += output.text
    else:
      merged.append(output)
  return merged


def main(paths):
  """Runs notebooks and writes them back with their outputs."""
  for path in map(pathlib.Path, paths):
    notebook = nbformat.read(path, 4)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    execute(notebook, path.parent)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    tidy(notebook)
    nbformat.write(notebook, path)
    size = path.stat().st_size / 1024
    sys.stdout.write(f'{path}: {used:.0f} CPU-seconds, {size:.0f} KB\n')


if __name__ == '__main__':
  main(sys.argv[1:])
