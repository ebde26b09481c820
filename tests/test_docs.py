"""Every file that README and docs name is there."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [
  'README.md',
  'CONTRIBUTING.md',
  'CHANGELOG.md',
  *(f'docs/{p.name}' for p in (ROOT / 'docs').glob('*.md')),
]
TOPS = 'llama3_jax|experiments|configs|tests|bench|launch|docs'


def expanded(text):
  """The paths that braces stand for: a/{b,c}.py."""
  match = re.search(r'\{([^{}]*)\}', text)
  if not match:
    return [text]
  before, after = text[: match.start()], text[match.end() :]
  return [p for part in match[1].split(',') for p in expanded(before + part + after)]


@pytest.mark.parametrize('page', PAGES)
def test_named_files_exist(page):
  text = (ROOT / page).read_text(encoding='utf-8')
  named = re.findall(rf'`((?:{TOPS})/[\w./{{}},*-]+)', text)
  missing = [
    path
    for name in named
    for path in expanded(name.rstrip('.,'))
    if not list(ROOT.glob(path.rstrip('/')))
  ]
  assert not missing, missing


def test_the_newcomers_path_is_short():
  """Config, recipe, model, alphabet, loop: what one reads to know the whole."""
  text = (ROOT / 'README.md').read_text(encoding='utf-8')
  [line] = [x for x in text.splitlines() if x.startswith("A newcomer's path:")]
  paths = re.findall(r'`([^`]+)`', line)
  lines = [len((ROOT / path).read_text().splitlines()) for path in paths]
  assert len(paths) == 5 and sum(lines) <= 900
