"""README and docs: files that they name, links, and commands are there and right."""

import pathlib
import posixpath
import re
import shlex

import pytest

import experiment
import llama3_jax
from llama3_jax import commandline
from llama3_jax import override

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [
  'README.md',
  'CONTRIBUTING.md',
  'CHANGELOG.md',
  'bench/README.md',
  *(f'docs/{p.name}' for p in sorted((ROOT / 'docs').glob('*.md'))),
]
TOPS = 'llama3_jax|experiments|configs|tests|bench|launch|docs'
FENCE = re.compile(r'^ *```.*?^ *```[ ]*$', re.M | re.S)
LINK = re.compile(r'\]\(([^)\s]+)\)')


def read(page):
  return (ROOT / page).read_text(encoding='utf-8')


def expanded(text):
  """The paths that braces stand for: a/{b,c}.py."""
  match = re.search(r'\{([^{}]*)\}', text)
  if not match:
    return [text]
  before, after = text[: match.start()], text[match.end() :]
  return [p for part in match[1].split(',') for p in expanded(before + part + after)]


@pytest.mark.parametrize('page', PAGES)
def test_named_files_exist(page):
  named = re.findall(rf'`((?:{TOPS})/[\w./{{}},*-]+)', read(page))
  missing = [
    path
    for name in named
    for path in expanded(name.rstrip('.,'))
    if not list(ROOT.glob(path.rstrip('/')))
  ]
  assert not missing, missing


def headings(page):
  """Titles of a page, without the marks of code and links."""
  titles = re.findall(r'^#+ (.+)$', FENCE.sub('', read(page)), re.M)
  return [re.sub(r'[`*]|\]\([^)]*\)|\[', '', title).strip() for title in titles]


def anchor(title):
  """The anchor that code hosts give a title; the site is told to do the same."""
  return re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-')


@pytest.mark.parametrize('page', PAGES)
def test_links_lead_to_files_and_anchors(page):
  wrong = []
  for target in LINK.findall(FENCE.sub('', read(page))):
    if re.match(r'[a-z]+://', target):
      continue
    path, _, name = target.partition('#')
    file = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
    file = file if path else page
    if path.startswith('/') or not (ROOT / file).is_file():
      wrong.append(target)
    elif name and name not in [anchor(title) for title in headings(file)]:
      wrong.append(target)
  assert not wrong, wrong


@pytest.mark.parametrize('page', PAGES)
def test_anchors_of_a_page_are_different(page):
  """Of equal ones, code hosts and the site number the second in different ways."""
  anchors = [anchor(title) for title in headings(page)]
  assert len(anchors) == len(set(anchors))


def test_every_page_is_in_the_navigation_and_in_the_index():
  pages = {p.name for p in (ROOT / 'docs').glob('*.md')}
  listed = re.findall(r'(?:: |- )([\w/]+\.md)$', read('mkdocs.yml'), re.M)
  assert {p for p in listed if '/' not in p} == pages
  assert len(listed) == len(set(listed))
  index = set(re.findall(r'\(([\w]+\.md)', read('docs/README.md')))
  assert index == pages - {'README.md'}


def commands(page):
  """Lines of python -m experiment in a page's blocks and code, as lists of words."""
  text = read(page).replace('\\\n', ' ')
  found = []
  for line in re.findall(r'python -m experiment +([^\n`]*--config=[^\n`]+)', text):
    line = line.replace('$TASK_ID', '0').replace('$I', '0')
    words = shlex.split(line, comments=True)
    found.append([word for word in words if word != '...'])
  return found


@pytest.mark.parametrize('page', [page for page in PAGES if commands(page)])
def test_commands_are_understood(page):
  """Flags, config, fields and their types; nothing is run."""
  for words in commands(page):
    flags, overrides = commandline.parse(words)
    _, config = experiment.load_config(flags['config'])
    override.apply(config, overrides)


def test_targets_of_make_that_docs_name_are_there():
  targets = set(re.findall(r'^([a-z]+):', read('Makefile'), re.M))
  for page in PAGES:
    named = set(re.findall(r'(?:`|^)make ([a-z]+)', read(page), re.M))
    assert named <= targets, (page, named - targets)


def test_names_of_the_notebook_are_public():
  for page in PAGES:
    named = set(re.findall(r'\bl3\.(\w+)', read(page)))
    assert named <= set(llama3_jax.API), page


def test_docstrings_hold_no_brackets_that_the_site_takes_for_a_link():
  for file in sorted((ROOT / 'llama3_jax').rglob('*.py')):
    for block in re.findall(r'"""(.*?)"""', file.read_text(encoding='utf-8'), re.S):
      outside = re.sub(r'`[^`]*`', '', block)
      assert not re.search(r'\w\]\[\w', outside), (file, block)


def test_the_newcomers_path_is_short():
  """Config, recipe, model, alphabet, loop: what one reads to know the whole."""
  text = read('docs/paper.md')
  [line] = [x for x in text.splitlines() if x.startswith("A newcomer's path:")]
  paths = re.findall(r'`([^`]+)`', line)
  lines = [len(read(path).splitlines()) for path in paths]
  assert len(paths) == 5 and sum(lines) <= 900
