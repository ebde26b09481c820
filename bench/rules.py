"""Precision of the reasons to drop, and recall of junk, on labelled documents.

python bench/rules.py PACKAGES [--half=report|tune|both]

PACKAGES is a folder of unpacked Debian packages (`apt-get download NAME`, `dpkg -x`), a
folder a package: those of bench/labels/rules.jsonl, which has a line a document: the
page, what is made of it ('page' is the page itself, the others are in derived.py), and
the verdict. Nothing of the text is in it. A package belongs to one half: rules are
looked at with one and reported with the other. Exits with 1 where a reason of the half
has a precision below 0.9.
"""

import argparse
import collections
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import derived

from llama3_jax.curate.extraction import extract
from llama3_jax.curate.machine import documents
from llama3_jax.curate.measures import language
from llama3_jax.curate.measures import repetition
from llama3_jax.curate.rules import c4
from llama3_jax.curate.rules import domains
from llama3_jax.curate.rules import heuristics
from llama3_jax.curate.rules import normal

LABELS = pathlib.Path(__file__).parent / 'labels' / 'rules.jsonl'
LEAST = 0.9
TUNE = ('postgresql', 'python', 'libreoffice-help-de', 'libreoffice-help-en', 'git')
BATCH = 250


def half(name):
  """tune or report: which half a page belongs to, by its package."""
  return 'tune' if name.startswith(TUNE) else 'report'


def texts(folder, names):
  """{name: text} of the pages."""
  found = {}
  for i in range(0, len(names), BATCH):
    part = names[i : i + BATCH]
    html = [(folder / name).read_bytes().decode('utf-8', 'replace') for name in part]
    rows = [{'url': n, 'category': 'general', 'html': h} for n, h in zip(part, html)]
    batch = extract.step(documents.batch(rows))
    found.update(zip(part, batch['text'].to_pylist()))
  return found


def judged(rows):
  """The reason, or None, of every row {text}."""
  batch = normal.step(documents.batch([{**r, 'category': 'general'} for r in rows]))
  batch = language.step(domains.step(batch, domains.Config()))
  batch = repetition.step_lines(batch, repetition.LineConfig())
  batch = c4.step_lines(batch, c4.Config())
  config = heuristics.Config()
  batch = heuristics.step(heuristics.measure(batch, config), config)
  return batch['drop_reason'].to_pylist()


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument('packages', type=pathlib.Path)
  parser.add_argument('--half', default='report', choices=('report', 'tune', 'both'))
  args = parser.parse_args()
  labels = [json.loads(line) for line in LABELS.read_text('utf-8').split('\n') if line]
  labels = [one for one in labels if args.half in ('both', half(one['page']))]
  pages = texts(args.packages, sorted({one['page'] for one in labels}))
  rows = []
  for one in labels:
    text = pages[one['page']]
    if one['kind'] != 'page':
      text = derived.junk(one['kind'], one['page'], text)
    rows.append({'text': text})
  reasons = judged(rows)
  sys.exit(report(labels, reasons))


def report(labels, reasons):
  """Prints the tables; 1 where a reason is below LEAST, else 0."""
  by_reason = collections.defaultdict(collections.Counter)
  by_kind = collections.defaultdict(collections.Counter)
  for one, reason in zip(labels, reasons):
    if reason:
      by_reason[reason][one['verdict']] += 1
      if one['verdict'] == 'good':
        print(f'wrong: {reason:36} {one["page"]}')
    by_kind[one['kind'], one['verdict']][bool(reason)] += 1
  print(f'{"reason":40}{"dropped":>8}{"junk":>6}{"precision":>10}')
  missed = False
  for reason, count in sorted(by_reason.items(), key=lambda pair: -pair[1].total()):
    precision = count['junk'] / count.total()
    missed |= precision < LEAST
    print(f'{reason:40}{count.total():8}{count["junk"]:6}{precision:10.3f}')
  print(f'\n{"kind":30}{"documents":>10}{"dropped":>8}{"share":>8}')
  for (kind, verdict), count in sorted(by_kind.items()):
    name = f'{kind}, {verdict}'
    share = count[True] / count.total()
    print(f'{name:30}{count.total():10}{count[True]:8}{share:8.3f}')
  for verdict in ('good', 'junk'):
    part = [bool(r) for one, r in zip(labels, reasons) if one['verdict'] == verdict]
    share = sum(part) / len(part)
    print(f'{verdict}: {sum(part)} of {len(part)} dropped ({share:.3f})')
  return int(missed)


if __name__ == '__main__':
  main()
