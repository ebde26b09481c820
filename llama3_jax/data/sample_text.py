"""Text of the samples that is not a web page: catalogues, wiki, code, generated."""

import ast
import os
import pathlib
import random
import re
import struct
import sysconfig
import zipfile
from collections.abc import Iterable
from collections.abc import Sequence

DATE = '2024-06-01'
CATALOGUE = re.compile(r'/([a-z]{2})(?:_[A-Z]{2})?/LC_MESSAGES/[\w-]+\.mo$')
# Sentences with placeholders are dropped; tags and accelerators are removed.
HOLE = re.compile(r'%\(\w+\)|%[-+ #0-9.]*[a-z]|\{[^}]*\}|\$\w|\$\{|\[\d+:')
MARKUP = re.compile(r'</?\w+[^>]*>|&(?=\w)')
CHUNK = 4000  # characters of one document of catalogue strings
LEAST = 40  # shorter strings are labels of buttons, not sentences


def catalogues(
  wheels: Iterable[str | os.PathLike], languages: Sequence[str]
) -> list[dict[str, str]]:
  """Translations: sentences of a package in one language, joined into documents.

  Args:
    wheels: paths of wheels with <language>/LC_MESSAGES/*.mo.
    languages: two-letter codes; regional variants count as the language.

  Returns:
    list of dicts text, url, date, source, category 'multilingual'.
  """
  rows, seen = [], set()
  for wheel in wheels:
    source = pathlib.Path(wheel).name.split('-')[0].lower()
    strings = {language: [] for language in languages}
    with zipfile.ZipFile(wheel) as archive:
      for name in sorted(archive.namelist()):
        match = CATALOGUE.search(name)
        if match and match[1] in strings:
          strings[match[1]] += _translations(archive.read(name))
    for language, sentences in strings.items():
      sentences = [MARKUP.sub('', s).strip() for s in sentences if not HOLE.search(s)]
      sentences = [
        s for s in dict.fromkeys(sentences) if len(s) >= LEAST and s not in seen
      ]
      seen.update(sentences)
      rows += [
        {
          'text': text,
          'url': f'catalogue:{source}/{language}/{i}',
          'date': DATE,
          'source': f'{source}_catalogue',
          'category': 'multilingual',
        }
        for i, text in enumerate(_chunks(sentences))
      ]
  return rows


def wiki_pages(wheels: Iterable[str | os.PathLike]) -> list[dict[str, str]]:
  """The pages of Trac's own wiki with their markup, as rows of documents."""
  rows = []
  for wheel in wheels:
    with zipfile.ZipFile(wheel) as archive:
      for name in sorted(archive.namelist()):
        if '/wiki/default-pages/' in name and not name.endswith('/'):
          rows.append(
            {
              'text': archive.read(name).decode('utf-8', 'replace'),
              'url': f'wiki:{name}',
              'date': DATE,
              'source': 'trac_wiki',
              'category': 'general',
            }
          )
  return rows


def topics() -> list[dict[str, str]]:
  """The language reference of pydoc, one document a topic."""
  path = pathlib.Path(sysconfig.get_path('stdlib')) / 'pydoc_data' / 'topics.py'
  if not path.is_file():
    return []
  tree = ast.parse(path.read_text('utf-8'))
  # One literal dict in every version of Python.
  tables = [node.value for node in tree.body if isinstance(node, ast.Assign)]
  return [
    {
      'text': text,
      'url': f'pydoc:{name}',
      'date': DATE,
      'source': 'pydoc',
      'category': 'general',
    }
    for table in tables
    for name, text in sorted(ast.literal_eval(table).items())
  ]


def standard_library(characters: int) -> list[dict[str, str]]:
  """Source files of the standard library, in a fixed order, up to `characters`."""
  root = pathlib.Path(sysconfig.get_path('stdlib'))
  skip = {
    'site-packages',
    'test',
    'tests',
    'idle_test',
    '__pycache__',
    'pydoc_data',
    'dist-packages',
  }
  paths = [
    path
    for path in sorted(root.rglob('*.py'))
    if not skip & set(path.relative_to(root).parts)
  ]
  random.Random(0).shuffle(paths)
  rows, total = [], 0
  for path in paths:
    text = path.read_bytes().decode('utf-8', 'replace')
    if text.strip() and total + len(text) <= characters:
      total += len(text)
      name = path.relative_to(root).as_posix()
      rows.append(
        {
          'text': text,
          'url': f'python:{name}',
          'date': DATE,
          'source': 'standard_library',
          'category': 'code',
        }
      )
  return rows


WORDS = {  # subjects, verbs, objects, adverbials; they combine freely
  'en': (
    'The old farmer|My sister|A young teacher|The captain|Our neighbour|The nurse',
    'finds|carries|paints|sells|repairs|forgets',
    'a red boat|the small house|three letters|an apple|the broken clock|his bread',
    'in the morning|near the river|before winter|every day|without a word|at home',
  ),
  'de': (
    'Der alte Bauer|Meine Schwester|Ein Lehrer|Die Nachbarin|Unser Arzt|Das Kind',
    'findet|trägt|malt|verkauft|repariert|vergisst',
    'ein rotes Boot|das kleine Haus|drei Briefe|einen Apfel|die Uhr|das Brot',
    'am Morgen|am Fluss|vor dem Winter|jeden Tag|ohne ein Wort|zu Hause',
  ),
  'fr': (
    'Le vieux paysan|Ma sœur|Un jeune professeur|La voisine|Le médecin|Mon frère',
    'trouve|porte|peint|vend|répare|oublie',
    'un bateau rouge|la petite maison|trois lettres|une pomme|la montre|le pain',
    "le matin|près de la rivière|avant l'hiver|chaque jour|sans un mot|chez nous",
  ),
  'it': (
    'Il vecchio contadino|Mia sorella|Un giovane maestro|La vicina|Il medico|Luca',
    'trova|porta|dipinge|vende|ripara|dimentica',
    "una barca rossa|la piccola casa|tre lettere|una mela|l'orologio|il pane",
    "la mattina|vicino al fiume|prima dell'inverno|ogni giorno|a casa|in silenzio",
  ),
  'es': (
    'El viejo campesino|Mi hermana|Un joven maestro|La vecina|El médico|El niño',
    'encuentra|lleva|pinta|vende|arregla|olvida',
    'un barco rojo|la casa pequeña|tres cartas|una manzana|el reloj|el pan',
    'por la mañana|cerca del río|antes del invierno|cada día|sin hablar|en casa',
  ),
  'pt': (
    'O velho camponês|Minha irmã|Um jovem professor|A vizinha|O médico|O menino',
    'encontra|leva|pinta|vende|conserta|esquece',
    'um barco vermelho|a casa pequena|três cartas|uma maçã|o relógio|o pão',
    'de manhã|perto do rio|antes do inverno|todos os dias|sem falar|em casa',
  ),
}


def generated(languages: Sequence[str], documents: int) -> list[dict[str, str]]:
  """Stories from word lists, `documents` a language, for use without a registry."""
  rows = []
  for language in languages:
    if language not in WORDS:
      continue
    parts = [part.split('|') for part in WORDS[language]]
    rng = random.Random(language)
    for i in range(documents):
      sentences = [
        f'{" ".join(map(rng.choice, parts))}, {rng.randint(2, 999)}.'
        for _ in range(rng.randint(10, 20))
      ]
      text = '\n'.join(
        ' '.join(sentences[k : k + 4]) for k in range(0, len(sentences), 4)
      )
      rows.append(
        {
          'text': text,
          'url': f'generated:{language}/{i}',
          'date': DATE,
          'source': 'generated',
          'category': 'general' if language == 'en' else 'multilingual',
        }
      )
  return rows


def _translations(data):
  """Strings of a compiled gettext catalogue; the last one of plural forms."""
  order = '<' if data[:4] == b'\xde\x12\x04\x95' else '>'
  count, _, table = struct.unpack(f'{order}3I', data[8:20])
  strings = []
  for i in range(1, count):  # the first is the header
    length, start = struct.unpack_from(f'{order}2I', data, table + 8 * i)
    forms = data[start : start + length].decode('utf-8', 'replace').split('\0')
    strings.append(forms[-1])
  return strings


def _chunks(strings):
  """Joins strings into texts of about CHUNK characters."""
  text = ''
  for string in strings:
    text += string + '\n'
    if len(text) >= CHUNK:
      yield text
      text = ''
  if text:
    yield text
