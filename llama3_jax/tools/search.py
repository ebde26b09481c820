"""The tool `search`: passages of your own files, ranked by BM25 (4.3.5).

`search=FOLDER` reads text, Markdown, HTML, JSONL and what else `own` reads.
"""

import dataclasses
import functools
import re
from collections.abc import Sequence

from absl import logging

from llama3_jax.base import log
from llama3_jax.base.errors import UserError
from llama3_jax.data import gather
from llama3_jax.data import readers
from llama3_jax.tools import registry
from llama3_jax.tools.registry import Tool

SIZE, BEST = 1000, 3  # characters of a passage; passages of an answer
# A word, or a character of a script that is written without spaces.
WORD = re.compile(r'[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_]+')


@dataclasses.dataclass(frozen=True)
class Passage:
  """A part of a document: where it is from, and its text."""

  where: str
  text: str


def create(source: str = '') -> list[Tool]:
  """The tool over the files of a folder, which are read now.

  Raises:
    UserError: no folder is named, nothing can be read there, or bm25s is missing.
  """
  if not source:
    raise UserError('tools: search needs a folder: write search=FOLDER')
  with log.work(f'reading {source} for search'):
    find = functools.partial(ranked, Index(passages(source)))

  def search(query: str) -> str:
    """Searches documents and gives the passages that fit best.

    Args:
      query: the words to search for.
    """
    found = find(query)
    rows = [f'[{i}] {p.where}\n{p.text}' for i, p in enumerate(found, 1)]
    return '\n\n'.join(rows) or 'nothing was found: try other words'

  return [registry.of(search, builtin='brave_search')]


def passages(source: str) -> list[Passage]:
  """The passages of a folder or a file; UserError where there is none."""
  paths, _, _ = gather.find([source], 'tools')
  found = []
  for path in paths:
    try:
      for i, parts in enumerate(readers.texts(path, '', 'tools'), 1):
        many = readers.kind(path) in readers.TABLES  # a document a row
        where = f'{path.name}, document {i}' if many else path.name
        found += [Passage(where, piece) for piece in gather.cut(parts, SIZE)]
    except readers.NotText as reason:
      logging.warning('%s is left out: %s', path, reason)
  if not found:
    raise UserError(f'tools: search={source}: no file there has any text')
  return found


def words(text: str) -> list[str]:
  """The words of a text that are compared."""
  return WORD.findall(text.casefold())


class Index:
  """Passages with their words, ready to be searched."""

  def __init__(self, found: Sequence[Passage]) -> None:
    try:
      import bm25s
    except ModuleNotFoundError:
      raise UserError(
        "tools: search needs bm25s: pip install -e '.[tools]', or leave search out"
      ) from None
    self.passages = list(found)
    corpus = [words(p.text) for p in self.passages]
    self.known = {word for row in corpus for word in row}
    self.engine = bm25s.BM25() if self.known else None
    if self.engine:
      self.engine.index(corpus, show_progress=False)


def ranked(index: Index, query: str, best: int = BEST) -> list[Passage]:
  """The passages that have words of a query, the best first."""
  asked = [word for word in words(query) if word in index.known]
  if not asked or index.engine is None:
    return []
  scores = index.engine.get_scores(asked)
  order = (-scores).argsort(kind='stable')[:best]
  return [index.passages[i] for i in order if scores[i] > 0]
