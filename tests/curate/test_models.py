"""All classifiers, ranks, down-sampling and benchmark exclusion in one run."""

import gzip
import json
import random

import pytest

from configs import curate as curate_config
from experiments import curate
from llama3_jax.base import jsonl

ITEM = 'How many apples does Natalia sell in April if she sells half as many as in May'
CITED = 'According to the journal of 19{i:02d} the {a} was measured near the {b}.'
SOLD = (
  'Buy the {a} now, add to cart, subscribe to our newsletter for a discount on {b}!'
)
ART = 'The film has an actor and a {a}, the album a song and the singer a {b}.'
WORDS = [
  f'{a}{b}' for a in ('cor', 'mel', 'tar', 'vin') for b in ('da', 'lo', 'mi', 'su')
]


def document(i):
  """One of three kinds of pages, no two alike."""
  rng = random.Random(i)
  pick = lambda: ' '.join(rng.choices(WORDS, k=3))
  form = (CITED, SOLD, ART)[i % 3]
  lines = [form.format(i=rng.randrange(10, 99), a=pick(), b=pick()) for _ in range(12)]
  return '\n'.join(lines)


@pytest.fixture(scope='module')
def result(tmp_path_factory):
  folder = tmp_path_factory.mktemp('models')
  rows = [{'text': document(i), 'url': f'https://h{i}.example/'} for i in range(180)]
  rows[0]['text'] += f'\nAnd someone asked: {ITEM} of this year?'
  jsonl.write(folder / 'a.jsonl.gz', rows)
  (folder / 'bench.jsonl').write_text(json.dumps({'question': ITEM}) + '\n')
  config = curate_config.get_config('files')
  config.inputs, config.workers = (str(folder / 'a.jsonl.gz'),), 1
  c = config.curate
  c.skip = ('document', 'line', 'repeated_lines', 'heuristics', 'outlier', 'unigram')
  c.quality.judge, c.quality.min_labels = 'reference', 10
  c.quality_rank.min_score = 0.5
  c.kinds.judge, c.kinds.min_labels = 'knowledge', 10
  c.knowledge.max_shares = (('arts_entertainment', 0.3),)
  c.exclude.files = (str(folder / 'bench.jsonl'),)
  for model in (c.quality.model, c.kinds.model):
    model.update(dict(buckets=1 << 12, words=64, dim=8, steps=80, batch=32))
  found = curate.main(config, str(folder / 'out'))
  with gzip.open(folder / 'out/dropped.jsonl.gz', 'rt') as f:
    dropped = [json.loads(line) for line in f]
  return found, dropped, (folder / 'out/report.html').read_text('utf-8')


def number(row):
  return int(row['url'].split('//h')[1].split('.')[0])


def test_what_the_judge_rejects_is_dropped_and_what_it_keeps_stays(result):
  _, dropped, _ = result
  low = {number(row) for row in dropped if row['reason'] == 'quality.score'}
  assert {i for i in range(180) if i % 3 == 1} <= low
  assert not {i for i in low if i % 3 == 0}


def test_a_kind_that_is_too_many_is_thinned_to_its_share(result):
  _, dropped, _ = result
  thinned = [number(r) for r in dropped if r['reason'] == 'knowledge.downsampled']
  assert thinned and all(i % 3 == 2 for i in thinned)


def test_an_item_of_a_benchmark_takes_its_document_along(result):
  _, dropped, _ = result
  found = [row for row in dropped if row['reason'].startswith('benchmark.')]
  assert [number(row) for row in found] == [0]


def test_every_document_is_accounted_for_and_classifiers_are_reported(result):
  found, dropped, page = result
  kept = sum(c['documents'] for c in found['categories'].values())
  assert kept + len(dropped) == 180 and kept > 40
  assert 'AUC' in page and 'knowledge' in page
