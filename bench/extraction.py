"""Extraction: F1 and documents a CPU-second, ours and its peers.

python bench/extraction.py FOLDER [--sentences=FOLDER] [--peer=PYTHON] [--hostile]
  [--assets=FOLDER] [--manuals=FOLDER] [--folds=5] [--assign=0] [--train]

FOLDER holds pages and their hand-made article bodies: html/<id>.html.gz and
ground-truth.json, {id: {articleBody}}, as in the article-extraction-benchmark.
--sentences: a second set, pages with sentences to keep and to leave. PYTHON is an
interpreter with trafilatura and resiliparse. --train makes blocks.npz of
llama3_jax/curate/extraction/ again, from both sets, pages made around the sentences of
--assets, and --manuals (extraction_data.py says which); --folds says how it does on
hosts it has not seen, which --assign (a seed) shares out; --hostile measures the most
that a page within the limits can cost. Exits with 1 where a bar is missed.
"""

import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).parent))

import extraction_data as data
import extraction_train as training
import numpy as np

from llama3_jax.curate.extraction import blocks
from llama3_jax.curate.extraction import extract
from llama3_jax.curate.machine import documents

load = data.load
BARS = {'bodies': 0.96, 'sentences': 0.935}  # F1
RATE = 400  # pages a CPU-second
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
  'trafilatura precise': (
    'import trafilatura\nf = lambda h: trafilatura.extract(h, include_comments=False,'
    ' favor_precision=True)'
  ),
}
TEACHER = PEERS['trafilatura'], PEERS['trafilatura precise']
CHILD = """
import json, sys, time
{setup}
pages = json.load(sys.stdin)
f(pages[0])
start = time.process_time()
texts = [f(page) or '' for page in pages]
json.dump([texts, time.process_time() - start], sys.stdout)
"""


def counts(truth, found):
  """True positives, false positives, false negatives; they sum to 1."""
  a, b = data.shingles(truth), data.shingles(found)
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


def body_f1(truths, texts):
  return f1([counts(a, b) for a, b in zip(truths, texts)])


def row(name, scores, count=0, seconds=0):
  rate = f'{count / seconds:9.0f}' if seconds else ' ' * 9
  print(f'{name:34}' + ''.join(f'{score:8.4f}' for score in scores) + rate, flush=True)


def ours(pages):
  """Texts and CPU-seconds, with the scan of the limits, as in the step."""
  config = extract.Config()
  raw = [page.encode('utf-8', 'replace') for page in pages]
  _one(raw[0], config)
  start = time.process_time()
  texts = [_one(page, config) for page in raw]
  return texts, time.process_time() - start


def _one(page, config):
  return extract.extract(page, config, 'general', extract.refuse(page, config)).text


def peer(python, setup, pages):
  """Texts and CPU-seconds of a peer on the same decoded pages."""
  done = subprocess.run(
    [python, '-c', CHILD.format(setup=setup)],
    input=json.dumps(pages),
    capture_output=True,
    text=True,
    timeout=3600,
    check=True,
  )
  return json.loads(done.stdout)


def sets(options):
  """[(name, pages, truths, hosts, score)] of the scored sets."""
  _, pages, truths = data.load(options.folder)
  hosts = data.load_hosts(options.folder)
  found = [('bodies', pages, truths, hosts, body_f1)]
  if options.sentences:
    _, pages, truths, hosts = data.load_sentences(options.sentences)
    found.append(('sentences', pages, truths, hosts, data.sentence_f1))
  return found


def items(options, found):
  """Items of the sets (one list each), with targets."""
  result = []
  for name, pages, truths, hosts, _ in found:
    if name == 'bodies':
      judges = [data.by_body(truth) for truth in truths]
    else:
      texts = [peer(options.peer, setup, pages)[0] for setup in TEACHER]
      judges = [data.by_sentences(t, both) for t, both in zip(truths, zip(*texts))]
    result.append([data.item(*three) for three in zip(pages, judges, hosts)])
  return result


def fit(pages):
  return training.fit([page[:7] for page in pages if page])


def text_of(item, both):
  """The text of a page under other trees, with its code and formulas."""
  if item is None:
    return ''
  keep = blocks.decide(item[0], training.predict(item, both), False)
  text = blocks.text(item[0], keep).text
  return blocks.MARK.sub(lambda m: item[7].aside[int(m[1])][0], text)


def cross_validate(found, scored, rest, folds, seed):
  """Texts of the sets, by trees that saw no page of the page's host; a row a fold."""
  hosts = sorted({item[6] for part in scored for item in part if item})
  order = np.random.default_rng(seed).permutation(len(hosts)) % folds
  fold_of = dict(zip(hosts, order))
  texts = [[''] * len(part) for part in scored]
  for fold in range(folds):
    seen = [i for part in scored for i in part if i and fold_of[i[6]] != fold]
    both = fit(seen + rest)
    for (name, _, truths, _, score), part, out in zip(found, scored, texts):
      rows = [k for k, i in enumerate(part) if i and fold_of[i[6]] == fold]
      for k in rows:
        out[k] = text_of(part[k], both)
      chosen = [truths[k] for k in rows], [out[k] for k in rows]
      row(f'  fold {fold}, {name}, {len(rows)} pages', score(*chosen))
  return texts


def hostile():
  """CPU-seconds and memory of the step for pages that use a limit up."""
  c = extract.Config()
  n, deep = c.max_nodes - 10, c.max_walk // c.max_nodes * 2 - 8
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
  parser.add_argument('--sentences', type=pathlib.Path)
  parser.add_argument('--assets', type=pathlib.Path)
  parser.add_argument('--manuals', type=pathlib.Path)
  parser.add_argument('--peer')
  parser.add_argument('--folds', type=int, default=0)
  parser.add_argument('--assign', type=int, default=0)
  parser.add_argument('--train', action='store_true')
  parser.add_argument('--hostile', action='store_true')
  options = parser.parse_args()
  if options.hostile:
    hostile()
  found = sets(options)
  print(f'{"":34}{"F1":>8}{"P":>8}{"R":>8}{"pages/s":>9}')
  if options.folds or options.train:
    scored = items(options, found)
    rest = data.others(options.assets, options.manuals) if options.assets else []
  if options.folds:
    texts = cross_validate(found, scored, rest, options.folds, options.assign)
    for (name, _, truths, _, score), part in zip(found, texts):
      row(f'{name}, {options.folds} folds by host', score(truths, part))
  missed = []
  if options.train:
    training.write(fit([i for part in scored for i in part] + rest))
  for name, pages, truths, _, score in found:
    texts, seconds = ours(pages)
    scores = score(truths, texts)
    row(f'{name}, ours', scores, len(pages), seconds)
    if scores[0] < BARS[name] or len(pages) / seconds < RATE:
      missed.append(f'{name}: F1 {BARS[name]} at {RATE} pages/s')
    for other, setup in PEERS.items() if options.peer and not options.train else ():
      texts, seconds = peer(options.peer, setup, pages)
      row(f'{name}, {other}', score(truths, texts), len(pages), seconds)
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
  print(f'peak memory {peak} MB')
  for bar in missed:
    print(f'missed: {bar}')
  sys.exit(bool(missed))


if __name__ == '__main__':
  main()
