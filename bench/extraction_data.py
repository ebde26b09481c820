"""Pages with targets for the model of blocks: two scored sets, manuals, made pages.

- FOLDER: pages with hand-made article bodies (html/, ground-truth.json).
- SENTENCES: pages with sentences to keep and to leave (html/, sentences.json); other
  blocks of them are judged by a peer's text, with less weight.
- MANUALS: Debian's documentation packages, unpacked; their bodies are known by the
  templates that made them: `apt-get download` of the packages in MANUAL_PACKAGES, then
  `dpkg -x` of each into the folder. Licences: PostgreSQL, PSF, GPL-2+ (git,
  debian-reference), MPL-2.0 (LibreOffice help). Nothing of them is committed.
- Pages that are made here (extraction_pages.py) around FLORES-200's sentences.
"""

import collections
import gzip
import json
import pathlib
import random
import re
import urllib.parse

import extraction_pages
import numpy as np
from resiliparse.parse.html import HTMLTree

from llama3_jax.curate.extraction import extract
from llama3_jax.curate.extraction import measures
from llama3_jax.curate.reading import encoding

WORD = re.compile(r'\w+')
MANUAL_PACKAGES = (
  'postgresql-doc-15 python3.11-doc git-doc debian-reference-{de,en,fr,it,ja,pt,zh-cn} '
  'libreoffice-help-{de,en-us,hi,ja,ko,ru}'
)
# Where pages are, the element that holds the body, what in it is not of it.
MANUALS = {
  'postgresql': (
    'doc/postgresql-doc-15/html/*.html',
    '',
    '.navheader, .navfooter, .toc',
  ),
  'python': ('doc/python3.11/html/*/*.html', 'div.body', '.headerlink'),
  'git': ('doc/git-doc/*.html', '#content', ''),
  'debian': ('debian-reference/*.html', '', '.navheader, .navfooter, .toc'),
  'office': ('libreoffice/help/*/text/s*/*/*.html', '#DisplayArea', '.relatedtopics'),
}
EACH, MADE = 40, 500  # pages of a manual, of made ones
MADE_WEIGHT = MANUAL_WEIGHT = 0.5


def shingles(text, n=4):
  words = WORD.findall(text)
  count = max(1, len(words) - n + 1)
  grams = (tuple(words[i : i + n]) for i in range(count))
  return collections.Counter(gram for gram in grams if gram)


def host(url):
  """The last two parts of a URL's host."""
  name = urllib.parse.urlparse(url).netloc.lower().split(':')[0]
  return '.'.join(name.split('.')[-2:])


def load(folder):
  """(names, pages, article bodies)."""
  truth = json.loads((folder / 'ground-truth.json').read_text('utf-8'))
  names = sorted(truth)
  pages = [gzip.open(folder / f'html/{n}.html.gz').read().decode() for n in names]
  return names, pages, [truth[name]['articleBody'] for name in names]


def load_hosts(folder):
  """The hosts of the pages of `load`, in order."""
  truth = json.loads((folder / 'ground-truth.json').read_text('utf-8'))
  return [host(truth[name].get('url', '')) or name for name in sorted(truth)]


def load_sentences(folder):
  """(names, pages, (sentences with, sentences without), hosts).

  Pages are the bytes that servers sent, in many encodings, and are decoded as curation
  decodes them; those of `load` are UTF-8, whatever they declare.
  """
  rows = json.loads((folder / 'sentences.json').read_text('utf-8'))
  names = [row['file'].removesuffix('.gz') for row in rows]
  pages = [
    encoding.decode(gzip.open(folder / f'html/{name}.gz').read()) for name in names
  ]
  truths = [(row['with'], row['without']) for row in rows]
  return names, pages, truths, [host(row['url']) for row in rows]


def fold(text):
  return ' '.join(text.split())


def sentence_f1(truths, texts):
  """(F1, precision, recall) over all sentences, white space folded."""
  tp = fp = fn = 0
  for (keep, leave), text in zip(truths, map(fold, texts)):
    found = sum(fold(sentence) in text for sentence in keep)
    tp, fn = tp + found, fn + len(keep) - found
    fp += sum(fold(sentence) in text for sentence in leave)
  return 2 * tp / (2 * tp + fp + fn), tp / max(1, tp + fp), tp / max(1, tp + fn)


def item(page, judge, name):
  """(cut, measures, mass, targets, weights, guessed, host, page); None without a block.

  guessed: 1 where a target is a peer's opinion, 0 where it is known, of each block.
  """
  found = extract.prepare(page.encode('utf-8', 'replace'))
  if found is None:
    return None
  x, mass = measures.measures(found.cut, found.title)
  data = found.cut.text.tobytes()
  texts = [data[a:b].decode('utf-8', 'replace') for a, b in found.cut.blocks[:, :2]]
  return found.cut, x, mass, *judge(texts), name, found


def by_body(body):
  """Judge of blocks by the article's text: the share of their words that are in it."""
  return lambda texts: (*_targets(texts, body), np.zeros(len(texts)))


def _targets(texts, body):
  grams, words, flat = shingles(body), len(WORD.findall(body)), fold(body)
  targets, weights = [], []
  for text in texts:
    own, size = shingles(text), len(WORD.findall(text))
    hit = sum((own & grams).values()) / max(1, own.total())
    short = size < 4  # also a sentence of Chinese
    targets.append(float(size > 0 and fold(text) in flat) if short else hit)
    weights.append(max(size, 1, len(text) / 6))
  weights = np.array(weights)
  return np.array(targets), np.sqrt(weights / max(words, weights.sum()))


def by_sentences(truth, peer):
  """Judge of blocks by sentences; by a peer's text and its precise text elsewhere."""

  def judge(texts):
    targets, weights = _targets(texts, peer[0])
    other, _ = _targets(texts, peer[1])
    weights = weights * np.where(abs(targets - other) < 0.3, 0.6, 0.25)
    strong, guessed = 5 * weights.mean(), np.ones(len(texts))
    for value, sentences in zip((1.0, 0.0), truth):
      for i, text in enumerate(map(fold, texts)):
        for sentence in map(fold, sentences):
          inside = sentence in text
          if not inside and not (len(text) >= 15 and text in sentence):
            continue
          guessed[i] = 0
          if value or targets[i] < 1 or len(text) < 3 * len(sentence):
            targets[i], weights[i] = value, max(weights[i], strong)
    return targets, weights, guessed

  return judge


def manuals(folder, seed=1):
  """(page, body, name) of pages of unpacked documentation packages."""
  draw, rows = random.Random(seed), []
  for name, (pattern, body, drop) in MANUALS.items():
    paths = sorted((folder / 'usr/share').glob(pattern))
    draw.shuffle(paths)
    found = []
    for path in paths:
      page = path.read_text('utf-8', 'replace')
      text = _manual(page, body, drop) if 2000 < len(page) < 150_000 else ''
      if len(text) >= 300:
        found.append((page, text, f'{name}{len(found) % 6}'))
      if len(found) == EACH:
        break
    rows += found
  return rows


def _manual(page, body, drop):
  tree = HTMLTree.parse(page)
  node = tree.body.query_selector(body) if body else tree.body
  if node is None:
    return ''
  names = ', '.join(filter(None, (drop, 'script, style, pre, xmp')))
  for part in node.query_selector_all(names)[:]:
    if part.parent is not None:
      part.parent.remove_child(part)
  return node.text


def others(assets, folder):
  """Items of manuals (where a folder is given) and of made pages."""
  rows = [(row, MANUAL_WEIGHT) for row in (manuals(folder) if folder else [])]
  sentences = pathlib.Path(assets) / 'flores200_dev'
  rows += [(row, MADE_WEIGHT) for row in extraction_pages.pages(sentences, MADE)]
  found = []
  for (page, body, name), weight in rows:
    one = item(page, by_body(body), name)
    if one:
      found.append((*one[:4], one[4] * weight, *one[5:]))
  return found
