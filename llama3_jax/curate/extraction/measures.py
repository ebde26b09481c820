"""Measures of the blocks of a page, for the model that says which are its text.

Nothing here knows one language or one site: lengths, links, signs, the place in the
page and in its tree, how often a shape occurs, and the share of the page's text under
the smallest ancestor whose name has a word of a group (names.py). A name on an element
that holds most of the page so says little, whatever the word.
"""

import math

import numpy as np

from llama3_jax.curate.extraction import cut
from llama3_jax.curate.extraction import names
from llama3_jax.curate.extraction import shapes
from llama3_jax.curate.extraction import signs
from llama3_jax.curate.machine import compiled

OWN = (
  'mass link bold digits commas upper words ends end colon question breaks gap row pre '
  'sign pipe at year first copies title slant image input'
).split()
TAG = 'p heading h1 h2 li dt bare quote figcaption div cell code'.split()
UNDER = (
  'nav aside footer header form table ul ol li figure figcaption article main section '
  'blockquote noscript dl details address button tr hidden'
).split()
LEVELS = [f'{m}_{k}' for k in range(1, 6) for m in ('share', 'linked', 'many', 'solid')]
TREE = (
  'up30 up50 up80 share50 best inbest bestlca side sig sigcount sigmean siglink form3 '
  'form3count form3mean depth'
).split()
PLACE = (
  'before index first_solid last_solid total count linkpage h1at h1is solids '
  'imagenext inputnext headgap headmass headlink'
).split()
NEAR = [
  f'{m}{k:+d}'
  for k in (-1, 1, -2, 2)
  for m in ('mass', 'link', 'end', 'solid', 'heading', 'notice', 'same')
]
NAMES = (
  OWN
  + TAG
  + [f'text.{n}' for n in names.TEXTS]
  + [f'class.{n}' for n in names.CLASSES]
  + [f'under.{n}' for n in UNDER]
  + LEVELS
  + TREE
  + PLACE
  + NEAR
  + [f'head.{n}' for n in names.TEXTS]
  + [f'begin.{n}' for n in names.TEXTS]
)
NOWHERE = 2.0  # the share where no ancestor has the word
UNDER_TAG = np.array([cut.TAG.get(name, -1) for name in UNDER])
(
  T_P, T_LI, T_DT, T_DD, T_H1, T_H2, T_H6, T_QUOTE, T_CAPTION, T_DIV, T_PRE, T_TR, T_TD,
) = (
  cut.TAG[name]
  for name in 'p li dt dd h1 h2 h6 blockquote figcaption div pre tr td'.split()
)  # fmt: skip
N_OWN, N_TAG, N_TEXT, N_CLASS = len(OWN), len(TAG), len(names.TEXTS), len(names.CLASSES)
N_NEAR = len(NEAR)
N_UNDER, N_LEVEL, N_TREE, N_PLACE = len(UNDER), len(LEVELS), len(TREE), len(PLACE)
WIDTH, HEADGAP = len(NAMES), NAMES.index('headgap')


def measures(found: cut.Cut, title: bytes) -> tuple[np.ndarray, np.ndarray]:
  """Measures of every block.

  Args:
    found: cut.Cut with one block or more.
    title: of the page.

  Returns:
    (float32 [blocks, NAMES], float64 [blocks]: characters, one of Chinese as 2.5).
  """
  words, title = names.table('texts'), np.frombuffer(title, np.uint8)
  x = np.zeros((len(found.blocks), WIDTH), np.float32)
  text, rows, nodes = found.text, found.blocks, found.nodes
  mass, solid, hashes = _own(text, rows, nodes, words, title, x)
  shapes.copies(hashes.view(np.int64), x, OWN.index('copies'))
  _tree(rows, nodes, mass, solid, UNDER_TAG, x)
  near, far = shapes.signatures(rows, nodes)
  shapes.sizes(near, mass, x, NAMES.index('sig'), True)
  shapes.sizes(far, mass, x, NAMES.index('form3'), False)
  _places(mass, solid, near, x)
  return x, mass


@compiled.kernel(
  compiled.TEXT,
  compiled.ROWS,
  compiled.ROWS,
  compiled.WORDS,
  compiled.BYTES,
  compiled.TABLE_F,
)
def _own(text, blocks, nodes, words, title, x):
  n = len(blocks)
  mass, solid, hashes = np.zeros(n), np.zeros(n), np.zeros(n, np.uint64)
  counts, title = np.zeros(12), signs.title(title)
  for i in range(n):
    start, end = blocks[i, cut.START], blocks[i, cut.END]
    bits, begin, hashes[i] = signs.read(text, start, end, words, title, counts)
    size = end - start
    m = mass[i] = counts[0]
    x[i, 0] = math.log(m)
    x[i, 1] = blocks[i, cut.LINK] / size
    x[i, 2] = blocks[i, cut.BOLD] / size
    x[i, 3] = counts[1] / m
    x[i, 4] = counts[2] / m * 100
    x[i, 5] = counts[3] / max(1.0, counts[4])
    x[i, 6] = counts[4]
    x[i, 7] = counts[5]
    x[i, 8] = signs.ended(text, start, end)
    x[i, 9] = text[end - 1] == 58
    x[i, 10] = text[end - 1] == 63
    x[i, 11] = blocks[i, cut.BREAKS]
    x[i, 12] = blocks[i, cut.GAP]
    x[i, 13] = blocks[i, cut.ROW] > 0
    x[i, 15], x[i, 16], x[i, 17], x[i, 18] = counts[6], counts[7], counts[8], counts[9]
    x[i, 19] = signs.first(text[start])
    x[i, 21] = counts[10] / max(1.0, counts[4])
    x[i, 22] = blocks[i, cut.SLANT] / size
    x[i, 23], x[i, 24] = blocks[i, cut.IMAGES], blocks[i, cut.INPUTS]
    tag = _tags(blocks[i, cut.NODE], nodes, x[i])
    x[i, 14] = tag == T_PRE
    for k in range(N_TEXT):
      x[i, N_OWN + N_TAG + k] = (bits >> k) & 1
      x[i, WIDTH - N_TEXT + k] = (begin >> k) & 1
    solid[i] = m if m > 80 and x[i, 1] < 0.33 and x[i, 8] > 0 else 0.0
  return mass, solid, hashes


@compiled.once
def _tags(node, nodes, row):
  """Sets the measures of a block's own element; returns its kind."""
  while nodes[node, cut.KIND] == 0 and node > 0:
    node = nodes[node, cut.PARENT]
  tag = nodes[node, cut.KIND]
  k = N_OWN
  row[k] = tag == T_P
  row[k + 1] = T_H1 <= tag <= T_H6
  row[k + 2] = tag == T_H1
  row[k + 3] = tag == T_H2
  row[k + 4] = tag == T_LI
  row[k + 5] = tag == T_DT
  row[k + 6] = not (row[k] or row[k + 1] or row[k + 4] or tag == T_TR or tag == T_DD)
  row[k + 7] = tag == T_QUOTE
  row[k + 8] = tag == T_CAPTION
  row[k + 9] = tag == T_DIV
  row[k + 10] = tag == T_TD
  row[k + 11] = tag == T_PRE
  return tag


@compiled.kernel(
  compiled.ROWS,
  compiled.ROWS,
  compiled.FLOATS,
  compiled.FLOATS,
  compiled.NUMBERS,
  compiled.TABLE_F,
)
def _tree(blocks, nodes, mass, solid, under, x):
  n = len(blocks)
  sums = np.zeros((n + 1, 3))
  for i in range(n):
    sums[i + 1, 0] = sums[i, 0] + mass[i]
    sums[i + 1, 1] = sums[i, 1] + mass[i] * x[i, 1]
    sums[i + 1, 2] = sums[i, 2] + solid[i]
  best = _best(blocks, nodes, mass, solid, sums)
  c0 = N_OWN + N_TAG + N_TEXT
  u0 = c0 + N_CLASS
  l0 = u0 + N_UNDER
  t0 = l0 + N_LEVEL
  total, solids = max(1.0, sums[n, 0]), max(1.0, sums[n, 2])
  for i in range(n):
    row = x[i]
    _fill(row, c0, l0, NOWHERE)
    _fill(row, t0, t0 + 3, 30.0)
    node = blocks[i, cut.NODE]
    row[t0 + 15] = nodes[node, cut.DEPTH]
    level, size = -1, 0
    while True:
      first, last = nodes[node, cut.FIRST], nodes[node, cut.LAST]
      here = sums[last, 0] - sums[first, 0]
      share = here / total
      _named(nodes[node], share, under, row, c0, u0)
      if last - first > size:
        size = last - first
        level += 1
        s = (sums[last, 2] - sums[first, 2]) / solids
        if 1 <= level <= 5:
          k = l0 + 4 * (level - 1)
          row[k] = share
          row[k + 1] = (sums[last, 1] - sums[first, 1]) / max(here, 1.0)
          row[k + 2] = size
          row[k + 3] = (sums[last, 2] - sums[first, 2]) / max(here, 1.0)
        if s >= 0.3:
          row[t0] = min(row[t0], level)
        if s >= 0.5 and row[t0 + 1] > level:
          row[t0 + 1], row[t0 + 3] = level, share
        if s >= 0.8:
          row[t0 + 2] = min(row[t0 + 2], level)
      if first <= nodes[best, cut.FIRST] and last >= nodes[best, cut.LAST]:
        if row[t0 + 6] == 0:
          inner = sums[nodes[best, cut.LAST], 0] - sums[nodes[best, cut.FIRST], 0]
          row[t0 + 6] = inner / max(here, 1.0)
      if node == 0:
        break
      node = nodes[node, cut.PARENT]
    for k in range(max(0, level), 5):
      _fill(row, l0 + 4 * k, l0 + 4 * k + 4, -1.0)
    first, last = nodes[best, cut.FIRST], nodes[best, cut.LAST]
    row[t0 + 4] = (sums[last, 0] - sums[first, 0]) / total
    row[t0 + 5] = first <= i < last
    row[t0 + 7] = -1.0 if i < first else 1.0 if i >= last else 0.0


@compiled.inner
def _fill(row, first, last, value):
  for k in range(first, last):
    row[k] = value


@compiled.once
def _named(node, share, under, row, c0, u0):
  """Smaller shares of the groups and elements that an ancestor belongs to."""
  bits, k = node[cut.CLASS], 0
  while bits:
    if bits & 1:
      row[c0 + k] = min(row[c0 + k], share)
    bits >>= 1
    k += 1
  for k in range(len(under)):
    if node[cut.KIND] == under[k]:
      row[u0 + k] = min(row[u0 + k], share)
  if node[cut.HIDDEN]:
    row[u0 + N_UNDER - 1] = min(row[u0 + N_UNDER - 1], share)


@compiled.once
def _best(blocks, nodes, mass, solid, sums):
  """The element whose own paragraphs hold the most text, two levels deep."""
  score = np.zeros(len(nodes))
  for i in range(len(blocks)):
    if solid[i]:
      node = blocks[i, cut.NODE]
      while nodes[node, cut.KIND] == 0 and node > 0:
        node = nodes[node, cut.PARENT]
      parent = nodes[node, cut.PARENT] if nodes[node, cut.KIND] == T_P else node
      score[parent] += solid[i]
      score[nodes[parent, cut.PARENT]] += 0.6 * solid[i] * (parent > 0)
  best = 0
  for k in range(len(score)):
    if score[k] > score[best]:
      best = k
  return best


@compiled.once
def _head(i, head, mass, x, p0):
  """What the last heading up to a block says; images and inputs after the block."""
  row, n, h0 = x[i], len(x), p0 + N_PLACE + N_NEAR
  row[p0 + 10] = x[i + 1, 23] if i + 1 < n else -1.0
  row[p0 + 11] = x[i + 1, 24] if i + 1 < n else -1.0
  row[p0 + 12] = i - head if head >= 0 else 1000.0
  row[p0 + 13] = mass[head] if head >= 0 else -1.0
  row[p0 + 14] = x[head, 1] if head >= 0 else -1.0
  for k in range(N_TEXT):
    row[h0 + k] = x[head, N_OWN + N_TAG + k] if head >= 0 else -1.0


@compiled.kernel(compiled.FLOATS, compiled.FLOATS, compiled.NUMBERS, compiled.TABLE_F)
def _places(mass, solid, near, x):
  n = len(mass)
  p0 = N_OWN + N_TAG + N_TEXT + N_CLASS + N_UNDER + N_LEVEL + N_TREE
  total, first, last, h1, count = 0.0, -1, n - 1, -1, 0
  linked = page = before = 0.0
  for i in range(n):
    total += solid[i]
    page += mass[i]
    linked += mass[i] * x[i, 1]
    if solid[i]:
      first, last = (i if first < 0 else first), i
      count += 1
    if h1 < 0 and x[i, N_OWN + 2]:
      h1 = i
  head = -1
  for i in range(n):
    row = x[i]
    head = i if x[i, N_OWN + 1] or (x[i, 2] > 0.9 and mass[i] < 100) else head
    _head(i, head, mass, x, p0)
    row[p0] = before / max(1.0, total)
    row[p0 + 1] = i / n
    row[p0 + 2] = i - max(first, 0)
    row[p0 + 3] = last - i
    row[p0 + 4] = math.log(max(total, 1.0))
    row[p0 + 5] = n
    row[p0 + 6] = linked / page
    row[p0 + 7] = i - h1 if h1 >= 0 else -1000
    row[p0 + 8] = h1 >= 0
    row[p0 + 9] = count
    before += solid[i]
    for k in range(4):
      j = i + (-1, 1, -2, 2)[k]
      if 0 <= j < n:
        q = p0 + N_PLACE + 7 * k
        row[q], row[q + 1], row[q + 2] = x[j, 0], x[j, 1], x[j, 8]
        row[q + 3], row[q + 4] = solid[j] > 0, x[j, N_OWN + 1]
        row[q + 5] = 0.0
        for t in range(N_OWN + N_TAG, N_OWN + N_TAG + N_TEXT):
          row[q + 5] += x[j, t]
        row[q + 6] = near[i] == near[j]
