"""Extraction: shingle F1 and documents a CPU-second, ours and its peers.

python bench/extraction.py FOLDER [--peer=PYTHON] [--folds=10] [--train] [--hostile]

FOLDER holds pages and their hand-made article bodies: html/<id>.html.gz and
ground-truth.json, {id: {articleBody}}, as in the article-extraction-benchmark.
PYTHON is an interpreter with trafilatura and resiliparse. --train makes block_model.py
of llama3_jax/curate/extraction/ again; --folds says how it does on pages it has not
seen; --hostile measures the most that a page within the limits can cost.
"""

import argparse
import collections
import gzip
import json
import pathlib
import re
import resource
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np

from llama3_jax.curate.extraction import block_model
from llama3_jax.curate.extraction import blocks
from llama3_jax.curate.extraction import extract
from llama3_jax.curate.machine import documents

ROUNDS, RATE, BINS, RIDGE = 60, 0.2, 16, 3.0
WORD = re.compile(r'\w+')
MODEL = pathlib.Path(block_model.__file__)
PEERS = {
  'resiliparse main': (
    'from resiliparse.extract.html2text import extract_plain_text as e\n'
    'f = lambda h: e(h, main_content=True, alt_texts=False, post_meta=False,'
    ' comments=False)'
  ),
  'trafilatura': (
    'import trafilatura\nf = lambda h: trafilatura.extract(h, include_comments=False)'
  ),
  'trafilatura fast': (
    'import trafilatura\n'
    'f = lambda h: trafilatura.extract(h, include_comments=False, fast=True)'
  ),
}
CHILD = """
import gzip, json, pathlib, sys, time
{setup}
pages = [gzip.open(p).read().decode() for p in json.load(sys.stdin)]
f(pages[0])
start = time.process_time()
texts = [f(page) or '' for page in pages]
json.dump([texts, time.process_time() - start], sys.stdout)
"""


def shingles(text, n=4):
  words = WORD.findall(text)
  count = max(1, len(words) - n + 1)
  grams = (tuple(words[i : i + n]) for i in range(count))
  return collections.Counter(gram for gram in grams if gram)


def counts(truth, found):
  """True positives, false positives, false negatives; they sum to 1."""
  a, b = shingles(truth), shingles(found)
  both = sum((a & b).values())
  numbers = both, b.total() - both, a.total() - both
  total = sum(numbers)
  return tuple(number / total if total else 0.0 for number in numbers)


def f1(pages):
  """(F1, precision, recall): harmonic mean of means over pages."""
  precision = statistics.mean(_share(tp, fp, fn) for tp, fp, fn in pages if tp + fp)
  recall = statistics.mean(_share(tp, fn, fp) for tp, fp, fn in pages if tp + fn)
  return 2 * precision * recall / (precision + recall), precision, recall


def _share(tp, wrong, other):
  return 1.0 if wrong == other == 0 else tp / (tp + wrong)


def load(folder):
  """(names, pages, article bodies)."""
  truth = json.loads((folder / 'ground-truth.json').read_text('utf-8'))
  names = sorted(truth)
  pages = [gzip.open(folder / f'html/{n}.html.gz').read().decode() for n in names]
  return names, pages, [truth[name]['articleBody'] for name in names]


def row(name, truths, texts, seconds):
  scores = f1([counts(a, b) for a, b in zip(truths, texts)])
  rate = f'{len(texts) / seconds:9.0f}' if seconds else ' ' * 9
  print(f'{name:28}' + ''.join(f'{score:8.4f}' for score in scores) + rate)


def ours(pages):
  """Texts and CPU-seconds, with the scan of the limits, as in the step."""
  config = extract.Config()
  raw = [page.encode() for page in pages]
  _one(pages[0], raw[0], config)
  start = time.process_time()
  texts = [_one(page, data, config) for page, data in zip(pages, raw)]
  return texts, time.process_time() - start


def _one(page, data, config):
  return extract.extract(page, config, 'general', extract.refuse(data, config)).text


def peer(python, setup, folder, names):
  paths = [str(folder / f'html/{name}.html.gz') for name in names]
  done = subprocess.run(
    [python, '-c', CHILD.format(setup=setup)],
    input=json.dumps(paths),
    capture_output=True,
    text=True,
    timeout=900,
    check=True,
  )
  return json.loads(done.stdout)


def examples(pages, truths):
  """Of each page (blocks, measures, targets, weights)."""
  found, kept = [], blocks.keep
  try:
    for page, truth in zip(pages, truths):
      seen = []
      blocks.keep = lambda b, m, seen=seen: seen.append(b) or kept(b, KEEP_ALL)
      extract.extract(page)
      found.append(_targets(seen[0], truth) if seen and seen[0] else None)
  finally:
    blocks.keep = kept
  return found


KEEP_ALL = (1.0, (('chars', 0.0, 0.0),))


def _targets(page, truth):
  truth_grams, words = shingles(truth), len(WORD.findall(truth))
  targets, weights = [], []
  for block in page:
    grams = shingles(block.text)
    hit = sum((grams & truth_grams).values()) / max(1, grams.total())
    size = len(WORD.findall(block.text))
    targets.append(hit if size >= 4 else float(size > 0 and block.text in truth))
    weights.append(max(size, 1))
  weights = np.sqrt(np.array(weights) / max(words, sum(weights)))
  return page, blocks.measures(page)[0], np.array(targets), weights


def train(pages):
  """Boosted steps (one measure, one threshold each) on a logistic loss."""
  x = np.concatenate([page[1] for page in pages])
  y = np.concatenate([page[2] for page in pages])
  w = np.concatenate([page[3] for page in pages])
  w *= len(w) / w.sum()
  edges = [np.unique(np.quantile(c, np.arange(1, BINS) / BINS)) for c in x.T]
  edges = [edge if len(edge) > 1 else np.unique(c)[:-1] for edge, c in zip(edges, x.T)]
  columns = np.concatenate([np.full(len(e), i) for i, e in enumerate(edges)])
  limits = np.concatenate(edges)
  above = (x[:, columns] > limits).astype(np.float32)
  mean = np.average(y, weights=w)
  bias = np.log(mean / (1 - mean))
  score, steps = np.full(len(y), bias), []
  for _ in range(ROUNDS):
    p = 1 / (1 + np.exp(-score))
    gradient, curve = w * (y - p), w * p * (1 - p)
    g, h = gradient @ above, curve @ above
    rest_g, rest_h = gradient.sum() - g, curve.sum() - h
    gain = g**2 / (h + RIDGE) + rest_g**2 / (rest_h + RIDGE)
    best = int(gain.argmax())
    high, low = g[best] / (h[best] + RIDGE), rest_g[best] / (rest_h[best] + RIDGE)
    bias += RATE * low
    steps.append((int(columns[best]), float(limits[best]), RATE * (high - low)))
    score += RATE * np.where(above[:, best], high, low)
  return bias, steps


def model(bias, steps):
  merged = collections.defaultdict(float)
  for column, limit, value in steps:
    merged[column, round(limit, 4)] += value
  rows = [
    (blocks.NAMES[column], limit, round(float(value), 3))
    for (column, limit), value in sorted(merged.items())
  ]
  return round(float(bias), 3), tuple(rows)


def cross_validate(pages, truths, data, folds):
  order = np.random.default_rng(0).permutation(len(pages)) % folds
  texts = [''] * len(pages)
  for fold in range(folds):
    chosen = [d for d, o in zip(data, order) if o != fold and d]
    fitted = model(*train(chosen))
    before, block_model.MODEL = block_model.MODEL, fitted
    for i in np.flatnonzero(order == fold):
      texts[i] = extract.extract(pages[i]).text
    block_model.MODEL = before
  return texts


def write(fitted):
  """Puts the steps into the source of block_model."""
  bias, rows = fitted
  steps = 'STEPS = (\n' + ''.join(f'  {row!r},\n' for row in rows) + ')\n'
  source = MODEL.read_text('utf-8')
  source = re.sub(r'BIAS = .*', f'BIAS = {bias!r}', source)
  MODEL.write_text(re.sub(r'STEPS = \(\n.*?\n\)\n', steps, source, flags=re.DOTALL))


def hostile():
  """CPU-seconds and memory of the step for pages that use a limit up."""
  c = extract.Config()
  n, deep = c.max_nodes - 10, c.max_walk // c.max_nodes * 2 - 2
  size = c.max_bytes - 1000
  pages = {
    'paragraphs': '<p>x' * n,
    'nested': ('<div>' * deep + 'x' + '</div>' * deep) * (n // deep),
    'nested lists': ('<ul><li>' * (deep // 2) + 'x' + '</ul>' * (deep // 2))
    * (n // deep),
    'attributes': f'<p {" ".join(f"a{i}=1" for i in range(17_000))}>',
    'long list': '<ul>' + '<li>word word word' * n + '</ul>',
    'lists': '<ul><li>word</ul>' * (n // 2),
    'links': '<a href=x>y</a>' * n,
    'code': '<pre>x</pre>' * n,
    'lines of code': f'<pre>{"<div>x</div>" * n}</pre>',
    'formulas': '<math><mi>x</mi></math>' * (n // 2),
    'MathJax': '<mjx-container><mjx-c class="mjx-c78"></mjx-c></mjx-container>'
    * (n // 2),
    'table': '<table><tr>' + '<td>x' * n,
    'text': '<p>' + 'word ' * (size // 5),
    'bold': '<p>' + '**a' * (size // 3),
    'brackets': '<p>' + '[' * size,
    'less than': '<' * size,
    'tabs': '<p>' + '\t\xa0' * (size // 3) + 'y',
  }
  print(f'{"page within the limits":28}{"MB":>8}{"seconds":>9}  result')
  worst = 0.0
  for name, body in pages.items():
    html = f'<html><body>{body}'
    batch = documents.batch([{'html': html, 'category': 'general'}])
    start = time.process_time()
    batch = extract.step(batch, c)
    seconds = time.process_time() - start
    worst = max(worst, seconds)
    result = batch['drop_reason'][0].as_py() or f'{len(batch["text"][0].as_py())} chars'
    print(f'{name:28}{len(html.encode()) / 1e6:8.1f}{seconds:9.2f}  {result}')
  print(f'worst {worst:.2f} s')


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument('folder', type=pathlib.Path)
  parser.add_argument('--peer')
  parser.add_argument('--folds', type=int, default=0)
  parser.add_argument('--train', action='store_true')
  parser.add_argument('--hostile', action='store_true')
  options = parser.parse_args()
  if options.hostile:
    hostile()
  names, pages, truths = load(options.folder)
  print(f'{"":28}{"F1":>8}{"P":>8}{"R":>8}{"pages/s":>9}')
  row('ours', truths, *ours(pages))
  if options.folds or options.train:
    data = examples(pages, truths)
  if options.folds:
    texts = cross_validate(pages, truths, data, options.folds)
    row(f'ours, {options.folds} folds by page', truths, texts, None)
  if options.train:
    block_model.MODEL = model(*train([d for d in data if d]))
    write(block_model.MODEL)
    row(f'ours, {len(block_model.MODEL[1])} new steps', truths, *ours(pages))
  if options.peer:
    for name, setup in PEERS.items():
      row(name, truths, *peer(options.peer, setup, options.folder, names))
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
  print(f'peak memory {peak} MB')


if __name__ == '__main__':
  main()
