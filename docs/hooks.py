"""What the site has beside the pages of docs/: the API, and files of the repository.

mkdocs calls the functions `on_...`. On a code host a link such as ../bench/README.md is
a file; here it is a page `repository/bench/README.md`, with the same text. A path in
`code` becomes a link to the source of that file.
"""

import ast
import pathlib
import posixpath
import re

from mkdocs.config import defaults
from mkdocs.structure import files as structure
from mkdocs.structure import pages

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = 'repository'  # of the site, for files that are not in docs/
LANGUAGES = {'.py': 'python', '.sh': 'bash', '.yaml': 'yaml', '.toml': 'toml'}
HIDDEN = '---\nsearch:\n  exclude: true\n---\n\n'  # sources are not searched
LATER = '---\nsearch:\n  boost: 0.3\n---\n\n'  # the API comes after what explains it
LINK = re.compile(r'(?<=\]\()([^)\s#]+)(#[^)\s]*)?(?=\))')
CODE = re.compile(r'(?<![\[`])`([\w./{},-]+)`(?![\]`])')
WHOLE = ('llama3_jax', 'experiments', 'configs', 'tests', 'bench', 'launch', 'docs')


def on_config(config: defaults.MkDocsConfig) -> defaults.MkDocsConfig:
  """Adds the pages of the API to the navigation, a page a package."""
  [entries] = [item['API'] for item in config.nav if 'API' in item]
  entries += [{title: page} for title, page, _ in _api()]
  return config


def on_files(files: structure.Files, config: defaults.MkDocsConfig) -> structure.Files:
  """Adds the pages of the API and of every file that a page links to or names."""
  made = {page: text for _, page, text in _api()}
  waiting = [ROOT / 'docs' / f.src_uri for f in files.documentation_pages()]
  waiting += [ROOT / 'CONTRIBUTING.md', ROOT / 'CHANGELOG.md']
  seen = set()
  while waiting:
    path = waiting.pop()
    if path in seen:
      continue
    seen.add(path)
    name = path.relative_to(ROOT).as_posix()
    if not name.startswith('docs/') or path.suffix != '.md':
      made[_page_of(name)] = _source(path)
    if path.suffix == '.md':
      waiting += _named(path)
  for page, text in made.items():
    files.append(structure.File.generated(config, page, content=text))
  return files


def on_page_markdown(
  markdown: str,
  page: pages.Page,
  config: defaults.MkDocsConfig,
  files: structure.Files,
) -> str:
  """The page with links that lead to pages of the site."""
  del config
  here = page.file.src_uri
  if here.startswith('api/'):
    return markdown
  if '\n## ' not in markdown:
    page.meta.setdefault('hide', ['toc'])  # room for a wide table
  base, folder = posixpath.dirname(_file_of(here)), posixpath.dirname(here) or '.'
  link = lambda name: posixpath.relpath(_page_of(name), folder)

  def target(match):
    name = posixpath.normpath(posixpath.join(base, match[1]))
    if '://' in match[1] or not (ROOT / name).is_file():
      return match[0]
    return link(name) + (match[2] or '')

  def code(match):
    package = match[1].removeprefix('llama3_jax/').strip('/').replace('/', '.')
    if match[1].endswith('/') and f'api/{package}.md' in files.src_uris:
      return f'[{match[0]}]({posixpath.relpath(f"api/{package}.md", folder)})'
    paths = _paths(match[1])
    texts = [match[1]] if len(paths) == 1 else paths[:1]
    texts += [posixpath.basename(path) for path in paths[1:]]
    linked = [f'[`{text}`]({link(path)})' for text, path in zip(texts, paths)]
    return ', '.join(linked) or match[0]

  return ''.join(
    part if fenced else CODE.sub(code, LINK.sub(target, part))
    for part, fenced in _parts(markdown)
  )


def _api():
  """(title, page, text) of every package, and of the modules beside them."""
  tops = ('llama3_jax', 'experiments', 'configs')
  packages = [
    f.parent for top in tops for f in sorted((ROOT / top).rglob('__init__.py'))
  ]
  found = []
  for package in packages:
    name = '.'.join(package.relative_to(ROOT).parts)
    modules = [f.stem for f in sorted(package.glob('*.py')) if f.stem != '__init__']
    if not modules:
      continue
    title = name.removeprefix('llama3_jax.')
    table = ['| module | what |', '|---|---|']
    for module in modules:
      said = ast.get_docstring(ast.parse((package / f'{module}.py').read_text())) or ''
      first = ' '.join(said.split('\n\n')[0].split()).replace('|', '\\|')
      table.append(f'| [`{module}`][{name}.{module}] | {first} |')
    parts = [
      f'{LATER}# {title}',
      '\n'.join(table),
      *(f'::: {name}.{m}' for m in modules),
    ]
    found.append((title, f'api/{title}.md', '\n\n'.join(parts) + '\n'))
  return found


def _parts(markdown):
  """(text, whether it is a block of code) of the parts of a page."""
  pieces = re.split(r'(^ *```.*?^ *```[ ]*$)', markdown, flags=re.M | re.S)
  return [(piece, i % 2 == 1) for i, piece in enumerate(pieces)]


def _named(path):
  """The files of the repository that a page links to, or names in its text."""
  found = []
  for part, fenced in _parts(path.read_text(encoding='utf-8')):
    if fenced:
      continue
    for match in LINK.finditer(part):
      target = path.parent / match[1]
      if '://' not in match[1] and target.is_file():
        found.append(pathlib.Path(posixpath.normpath(target.as_posix())))
    for match in CODE.finditer(part):
      found += [ROOT / name for name in _paths(match[1])]
  return [f for f in found if f.suffix not in ('.png', '.svg')]


def _paths(text):
  """The files that a text in code names: a/{b,c}.py is two; [] where one is absent."""
  if text.split('/')[0] not in WHOLE:
    return []
  paths = [text]
  while match := re.search(r'\{([^{}]*)\}', paths[0]):
    before, after = paths[0][: match.start()], paths[0][match.end() :]
    paths = [before + part + after for part in match[1].split(',')]
  return paths if all((ROOT / path).is_file() for path in paths) else []


def _page_of(name):
  """The page of a file of the repository."""
  if name.startswith('docs/') and not name.endswith('.py'):
    return name.removeprefix('docs/')
  return f'{FOLDER}/{name}' if name.endswith('.md') else f'{FOLDER}/{name}.md'


def _file_of(page):
  """The file of the repository that a page shows; the inverse of `_page_of`."""
  if not page.startswith(f'{FOLDER}/'):
    return f'docs/{page}'
  name = page.removeprefix(f'{FOLDER}/')
  return name if (ROOT / name).is_file() else name.removesuffix('.md')


def _source(path):
  """The text of a page that shows a file."""
  text = path.read_text(encoding='utf-8')
  if path.suffix == '.md':
    return text
  name = path.relative_to(ROOT).as_posix()
  language = LANGUAGES.get(path.suffix, '')
  return f'{HIDDEN}# `{name}`\n\n`````{language}\n{text.rstrip()}\n`````\n'
