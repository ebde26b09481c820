"""Errors name fields of configs that exist."""

import ast
import importlib
import pathlib
import re

from llama3_jax import config as configs

ROOT = pathlib.Path(__file__).resolve().parents[1]
PATH = re.compile(r'(?<![\w./-])(?:--config\.)?([a-z_]+)((?:\.[a-z_0-9]+)+)(?![\w/])')
FILES = ('.py', '.jsonl', '.json', '.gz', '.model')


def fields():
  """Paths of every config and of its sections, the herd's also without its stages."""
  found = set()
  arguments = {'scaling': ('cpu', 'mixes', 'valuation', 'isoflop', 'ladder')}
  for file in sorted((ROOT / 'configs').glob('[a-z]*.py')):
    module = importlib.import_module(f'configs.{file.stem}')
    made = [module.get_config()]
    made += [module.get_config(a) for a in arguments.get(file.stem, ())]
    for path in {p for config in made for p in configs.flatten(config)}:
      parts = path.split('.')
      found |= {'.'.join(parts[:i]) for i in range(1, len(parts) + 1)}
      found.add('.'.join(parts[1:]) if file.stem == 'herd' else path)
  return found


def named():
  """(file, path) of whatever looks like a field in the text of a UserError."""
  files = [*(ROOT / 'llama3_jax').rglob('*.py'), *(ROOT / 'experiments').glob('*.py')]
  for file in [*files, ROOT / 'experiment.py']:
    for node in ast.walk(ast.parse(file.read_text('utf-8'))):
      if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'UserError':
        for part in ast.walk(node):
          if isinstance(part, ast.Constant) and isinstance(part.value, str):
            for match in PATH.finditer(part.value):
              yield file.name, match[1] + match[2]


def test_errors_name_fields_that_exist():
  known, seen = fields(), list(named())
  sections = {path.split('.')[0] for path in known if '.' in path}
  wrong = {
    (file, path)
    for file, path in seen
    if path.split('.')[0] in sections and path not in known
    if not path.endswith(FILES)
  }
  assert not wrong
  assert len(seen) > 50  # the pattern finds them
