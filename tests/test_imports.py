"""The order of layers, and the limits of size that keep the code readable."""

import ast
import pathlib

import pytest

from llama3_jax import axes

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'llama3_jax'
# A module imports its own layer and the layers before it.
LAYERS = (
  ('base',),
  (
    'axes',
    'parameters',
    'feed',
    'mesh',
    'config',
    'workdir',
    'override',
    'commandline',
    'sweep',
    'show',
    'report',
    'quant',
  ),
  ('text', 'model', 'kernels'),
  ('curate', 'data', 'reliable'),
  ('train', 'pipeline', 'scaling', 'plan'),
  ('generate',),
  ('tools',),
  ('tasks',),
  ('post',),
  ('synth', 'talk'),
  ('serve',),
  ('eval',),
  ('vision', 'speech'),
  ('api',),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def name_of(file):
  parts = file.relative_to(ROOT).with_suffix('').parts
  return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


FILES = {name_of(f): f for f in sorted(PACKAGE.rglob('*.py'))}
TREES = {n: ast.parse(f.read_text(encoding='utf-8')) for n, f in FILES.items()}


def imports(name):
  """Full names of the modules that the module `name` imports, anywhere in it."""
  found = set()
  for node in ast.walk(TREES[name]):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{name}: imports are absolute'
      for alias in node.names:
        module = f'{node.module}.{alias.name}'
        found.add(module if module in FILES else node.module)
  return found


INSIDE = {n: {m for m in imports(n) if m in FILES and m != n} for n in FILES}


def layer(name):
  return LEVEL[name.split('.')[1]]


def test_every_module_has_a_layer():
  unknown = {n.split('.')[1] for n in FILES if '.' in n} - set(LEVEL)
  assert not unknown, f'put {unknown} into LAYERS'


def test_imports_go_down_only():
  up = []
  for name in FILES:
    for other in INSIDE[name]:
      if '.' in name and '.' in other and layer(other) > layer(name):
        up.append(f'{name} imports {other}')
  assert not up, up


def test_no_cycle_of_imports():
  left = dict(INSIDE)
  while free := [n for n, needs in left.items() if not needs & set(left)]:
    for n in free:
      del left[n]
  assert not left, f'these import each other: {sorted(left)}'


def test_library_does_not_import_recipes():
  for name in FILES:
    tops = {m.split('.')[0] for m in imports(name)}
    assert not tops & {'experiments', 'configs', 'experiment', 'tests'}, name


def test_recipes_do_not_import_each_other():
  """Herd, rounds and own are made of them; a study names its members' by config."""
  for file in (ROOT / 'experiments').glob('*.py'):
    text = file.read_text(encoding='utf-8')
    assert file.stem in ('herd', 'own', 'rounds') or 'from experiments' not in text, (
      file.name
    )


def test_configs_and_tests_are_not_imported_by_experiments():
  for file in (ROOT / 'experiments').glob('*.py'):
    text = file.read_text(encoding='utf-8')
    assert 'from tests' not in text and 'import tests' not in text, file.name


@pytest.mark.parametrize('folder', ['llama3_jax', 'experiments', 'configs'])
def test_every_folder_is_a_package(folder):
  folders = {f.parent for f in (ROOT / folder).rglob('*.py')}
  bare = [str(f) for f in folders if not (f / '__init__.py').exists()]
  assert not bare, f'setuptools would leave out {bare}: add __init__.py'


@pytest.mark.parametrize('folder', ['llama3_jax', 'experiments', 'configs'])
def test_no_file_over_400_lines_and_no_function_over_60(folder):
  long = []
  for file in sorted((ROOT / folder).rglob('*.py')):
    text = file.read_text(encoding='utf-8')
    if text.count('\n') > 400:
      long.append(file.name)
    for node in ast.walk(ast.parse(text)):
      if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        if node.end_lineno - node.lineno + 1 > 60:
          long.append(f'{file.name}: {node.name}')
  assert not long, long


def test_model_file_is_under_250_lines():
  assert (PACKAGE / 'model/llama.py').read_text(encoding='utf-8').count('\n') < 250


def test_no_print_in_the_library():
  calls = []
  for name, tree in TREES.items():
    for node in ast.walk(tree):
      if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'print':
        calls.append(f'{name}:{node.lineno}')
  assert not calls, calls


def test_every_module_says_what_it_is():
  bare = [
    n
    for n, tree in TREES.items()
    if not ast.get_docstring(tree) and FILES[n].name != '__init__.py'
  ]
  assert not bare, bare


def test_only_axes_knows_partition_specs():
  for name, file in FILES.items():
    text = file.read_text(encoding='utf-8')
    if name != 'llama3_jax.axes':
      assert 'jax.P(' not in text and 'PartitionSpec(' not in text, name


@pytest.mark.parametrize('folder', ['llama3_jax', 'experiments'])
def test_only_two_files_know_the_names_of_mesh_axes(folder):
  """A name that was repeated once halved a loss without a word: others say letters."""
  found = []
  for file in (ROOT / folder).rglob('*.py'):
    if file in (PACKAGE / 'axes.py', PACKAGE / 'mesh.py'):
      continue
    for node in ast.walk(ast.parse(file.read_text('utf-8'))):
      if isinstance(node, ast.Constant) and node.value in axes.AXES:
        found.append(f'{file.name}:{node.lineno} {node.value}')
  # A message's and a row's context are texts.
  known = {'messages.py', 'people.py', 'reading.py'}
  assert {f.partition(':')[0] for f in found} <= known, found
