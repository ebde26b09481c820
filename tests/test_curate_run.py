"""Curation of files: outputs, funnel, damaged input, determinism."""

import gzip
import json
import random

import pytest

from configs import curate as curate_config
from experiments import curate
from llama3_jax.config import UserError
from llama3_jax.curate import heuristics
from llama3_jax.curate import run
from llama3_jax.curate import warc
from llama3_jax.data import sample_pages

CONFIG = run.Config(limits=heuristics.Limits(min_words=5))


def article(i):
  words = ' '.join(f'The cat number {i} of house {k * i} sat down.' for k in range(8))
  return f'<html><body><main><article><p>{words}</p></article></main></body></html>'


def write_inputs(folder):
  pages = [
    {'url': f'https://a.example/{i}', 'date': '2024-02-01', 'html': article(i)}
    for i in range(5)
  ]
  old = {'url': 'https://a.example/1#x', 'date': '2020-01-01', 'html': article(99)}
  warc.write(folder / 'web.warc.gz', [*pages, old])
  code = {'text': 'def f(x):\n  return x\n' * 10, 'url': 'f.py', 'date': '2024'}
  warc.write_jsonl(folder / 'code.jsonl.gz', [code])
  return [
    {'path': str(folder / 'web.warc.gz')},
    {'path': str(folder / 'code.jsonl.gz'), 'category': 'code', 'source': 'mine'},
  ]


def read(path):
  with gzip.open(path, 'rb') as f:
    return [json.loads(line) for line in f]


def test_survivors_and_dropped_documents_are_written_with_their_reasons(tmp_path):
  config = run.Config(limits=heuristics.Limits(min_words=5, duplicate_grams=(2.0,) * 6))
  result = run.run(write_inputs(tmp_path), config, tmp_path / 'out')
  code = read(tmp_path / 'out/documents/code.jsonl.gz')
  assert code[0]['source'] == 'mine' and code[0]['lang'] == 'code'
  assert set(code[0]) == {'text', 'url', 'date', 'source', 'lang', 'category'}
  dropped = read(tmp_path / 'out/dropped.jsonl.gz')
  older = [row for row in dropped if row['reason'] == 'url.older']
  assert [row['url'] for row in older] == ['https://a.example/1#x']
  assert json.loads((tmp_path / 'out/funnel.json').read_text('utf-8')) == result


def test_every_document_is_either_written_or_dropped_once(tmp_path):
  result = run.run(write_inputs(tmp_path), CONFIG, tmp_path / 'out')
  kept = sum(c['documents'] for c in result['categories'].values())
  gone = sum(d['documents'] for s in result['steps'] for d in s['dropped'].values())
  assert kept + gone == 7
  assert len(read(tmp_path / 'out/dropped.jsonl.gz')) == gone
  for before, after in zip(result['steps'], result['steps'][1:]):
    dropped = sum(d['documents'] for d in after['dropped'].values())
    assert after['documents'] == before['documents'] - dropped
    assert sum(after['languages'].values()) == after['documents']


def test_the_same_input_gives_the_same_bytes(tmp_path):
  inputs = write_inputs(tmp_path)
  for name in 'ab':
    run.run(inputs, CONFIG, tmp_path / name)
  for path in [
    'documents/general.jsonl.gz',
    'documents/code.jsonl.gz',
    'dropped.jsonl.gz',
  ]:
    assert (tmp_path / 'a' / path).read_bytes() == (tmp_path / 'b' / path).read_bytes()


def test_bad_records_are_counted_and_named(tmp_path):
  inputs = write_inputs(tmp_path)
  (tmp_path / 'bad.jsonl').write_text('{"text": 1}\nnot json\n', 'utf-8')
  inputs.append({'path': str(tmp_path / 'bad.jsonl')})
  result = run.run(inputs, CONFIG, tmp_path / 'out')
  assert len(result['problems']) == 2
  assert all('bad.jsonl: line' in problem for problem in result['problems'])


def test_a_skipped_step_does_not_run_and_an_unknown_one_is_named(tmp_path):
  inputs = write_inputs(tmp_path)
  result = run.run(inputs, run.Config(skip=('url', 'line')), tmp_path / 'out')
  assert not {'url', 'line'} & {step['step'] for step in result['steps']}
  with pytest.raises(UserError, match="'ur'"):
    run.run(inputs, run.Config(skip=('ur',)), tmp_path / 'out')


def test_missing_input_empty_input_and_unknown_category_are_named(tmp_path):
  with pytest.raises(UserError, match='nothing.warc.gz'):
    run.run([{'path': str(tmp_path / 'nothing.warc.gz')}], CONFIG, tmp_path / 'out')
  (tmp_path / 'empty.jsonl').write_text('')
  with pytest.raises(UserError, match='no document'):
    run.run([{'path': str(tmp_path / 'empty.jsonl')}], CONFIG, tmp_path / 'out')
  inputs = write_inputs(tmp_path)
  with pytest.raises(UserError, match="'poems'"):
    run.run([{**inputs[0], 'category': 'poems'}], CONFIG, tmp_path / 'out')


def test_every_rule_finds_the_defect_made_for_it(tmp_path):
  """The samples' own defects: older crawls, mirrors, logs, salad, spam, stubs."""
  pages = [
    sample_pages.page(
      f'https://book.example/{i}',
      f'Chapter {i}',
      ''.join(f'<p>{_sentence(i, k)}</p>' for k in range(8)),
    )
    for i in range(150)
  ]
  warc.write(tmp_path / 'web.warc.gz', sample_pages.site(pages, [], []))
  config = run.Config(
    blocked_hosts=(sample_pages.BLOCKED_HOST,),
    limits=heuristics.Limits(top_grams=(2.0,) * 3, duplicate_grams=(2.0,) * 6),
  )
  result = run.run([{'path': str(tmp_path / 'web.warc.gz')}], config, tmp_path / 'out')
  rows = read(tmp_path / 'out/dropped.jsonl.gz')
  found = {(row['reason'], row['url'].split('/')[2]) for row in rows}
  for reason, host in [
    ('url.blocked', f'www.{sample_pages.BLOCKED_HOST}'),
    ('url.older', 'book.example'),
    ('document.duplicate', 'book.mirror.example'),
    ('dirty.words', 'spam.example'),
    ('outlier.kl', 'salad.example'),
    ('length.words', 'stub.example'),
  ]:
    assert (reason, host) in found
  assert result['categories']['general']['documents'] >= 140
  kept = read(tmp_path / 'out/documents/general.jsonl.gz')
  assert not any('logs.example' in row['url'] for row in kept)
  book = [row['text'] for row in kept if 'book.example' in row['url']]
  assert not any('newsletter' in text or 'cookies' in text for text in book)


def _sentence(i, k):
  rng = random.Random(f'{i}/{k}')
  nouns = ['house', 'river', 'teacher', 'window', 'garden', 'winter', 'letter', 'boat']
  verbs = ['finds', 'carries', 'paints', 'forgets', 'repairs', 'follows', 'remembers']
  return ' '.join(
    f'The {rng.choice(nouns)} of my {rng.choice(nouns)} often {rng.choice(verbs)} '
    f'the {rng.choice(nouns)} and the {rng.choice(nouns)}.'
    for _ in range(3)
  )


def test_experiment_runs_on_files_and_skips_when_finished(tmp_path):
  web, code = write_inputs(tmp_path)
  config = curate_config.get_config('files')
  config.inputs = (web['path'], f'code={code["path"]}')
  result = curate.main(config, str(tmp_path / 'work'))
  assert result['categories']['code']['documents'] == 1
  assert (tmp_path / 'work/documents/general.jsonl.gz').exists()
  (tmp_path / 'web.warc.gz').unlink()
  assert curate.main(config, str(tmp_path / 'work')) == result


def test_experiment_names_what_is_wrong_in_the_config(tmp_path):
  config = curate_config.get_config('files')
  with pytest.raises(UserError, match='inputs'):
    curate.main(config, str(tmp_path / 'a'))
  config.limits.top_grams = (0.1,)
  with pytest.raises(UserError, match='limits.top_grams: 1 values, give 3'):
    curate.main(config, str(tmp_path / 'b'))
  with pytest.raises(UserError, match='herd or files'):
    curate_config.get_config('all')
