"""A report as one self-contained page: light and dark, phone to desktop."""

import dataclasses
import functools
import json
import math
import os
import re
from collections.abc import Mapping

import jinja2
import markupsafe
from plotly import offline

from llama3_jax.base import files
from llama3_jax.report import blocks


def write(path: str | os.PathLike, page: blocks.Page) -> None:
  """Writes the page to `path` atomically."""
  files.write_text(path, render(page))


def render(page: blocks.Page) -> str:
  """The HTML of a page; every text in it is escaped."""
  sections = [_named(section) for section in page.sections if section.blocks]
  page = dataclasses.replace(page, sections=sections)
  figures = {p.name: _plain(p.figure) for s in sections for p in _plots(s)}
  # `<` inside JSON would let a text close the script element.
  data = json.dumps(figures, allow_nan=False).replace('<', '\\u003c')
  templates = _templates()
  return templates.get_template('page.html').render(
    page=page,
    css=_text(templates, 'page.css'),
    script=_text(templates, 'page.js'),
    plotly=markupsafe.Markup(offline.get_plotlyjs()),
    figures=markupsafe.Markup(data),
  )


@functools.lru_cache(maxsize=1)
def _templates():
  return jinja2.Environment(
    loader=jinja2.PackageLoader('llama3_jax.report'),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    keep_trailing_newline=True,
  )


def _text(templates, name):
  """A file beside the template, unescaped."""
  return markupsafe.Markup(templates.loader.get_source(templates, name)[0])


def _named(section):
  name = section.name or re.sub(r'\W+', '-', section.title.lower()).strip('-')
  return dataclasses.replace(section, name=name)


def _plots(block):
  """Every Plot in a block, at any depth."""
  if isinstance(block, blocks.Plot):
    return [block]
  inside = getattr(block, 'blocks', ())
  return [plot for part in inside for plot in _plots(part)]


def _plain(value):
  """`value` as JSON: lists for arrays, null for numbers that are not finite."""
  if isinstance(value, Mapping):
    return {name: _plain(item) for name, item in value.items()}
  if hasattr(value, 'tolist'):
    value = value.tolist()
  if isinstance(value, (list, tuple)):
    return [_plain(item) for item in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value
