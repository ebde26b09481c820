"""Curation of files: outputs, funnel, resume, engines, determinism."""

import concurrent.futures
import dataclasses
import json
import pickle
import random
import signal
import time

import crawls
import pytest

from configs import curate as curate_config
from experiments import curate
from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.curate.machine import output
from llama3_jax.curate.machine import run
from llama3_jax.curate.machine import stages
from llama3_jax.curate.reading import warc
from llama3_jax.curate.reporting import margins
from llama3_jax.curate.rules import heuristics
from llama3_jax.data import sample_pages
from llama3_jax.data import texts


def bytes_of(folder):
  paths = [folder / 'dropped.jsonl.gz', *(folder / 'documents').rglob('*.*')]
  return {str(p.relative_to(folder)): p.read_bytes() for p in paths if p.is_file()}


def test_survivors_and_dropped_documents_are_written_with_their_reasons(tmp_path):
  crawls.curated(crawls.write_inputs(tmp_path), crawls.CONFIG, tmp_path / 'out')
  code = crawls.read(tmp_path / 'out/documents/code.jsonl.gz')
  assert code[0]['source'] == 'mine' and code[0]['lang'] == 'code'
  assert set(code[0]) == {'text', 'url', 'date', 'source', 'lang', 'category'}
  assert len(crawls.read(tmp_path / 'out/documents/general.jsonl.gz')) == 5
  dropped = crawls.read(tmp_path / 'out/dropped.jsonl.gz')
  older = [row for row in dropped if row['reason'] == 'url.older']
  assert [row['url'] for row in older] == ['https://a.example/1#x']


def test_every_document_is_either_written_or_dropped_once(tmp_path):
  result = crawls.curated(
    crawls.write_inputs(tmp_path), crawls.CONFIG, tmp_path / 'out'
  )
  kept = sum(c['documents'] for c in result['categories'].values())
  gone = sum(d['documents'] for s in result['steps'] for d in s['dropped'].values())
  assert kept + gone == 7
  assert len(crawls.read(tmp_path / 'out/dropped.jsonl.gz')) == gone
  for before, after in zip(result['steps'], result['steps'][1:]):
    dropped = sum(d['documents'] for d in after['dropped'].values())
    assert after['documents'] == before['documents'] - dropped
    assert sum(after['languages'].values()) == after['documents']


def test_pool_and_hosts_give_the_bytes_of_one_process(tmp_path):
  inputs = crawls.write_inputs(tmp_path, 9)
  total = crawls.curated(inputs, crawls.CONFIG, tmp_path / 'one')
  pool = dataclasses.replace(crawls.CONFIG, workers=2, memory_bytes=400)
  assert crawls.curated(inputs, pool, tmp_path / 'pool') == total
  hosts = [dataclasses.replace(crawls.CONFIG, hosts=2, host=i) for i in range(2)]
  with concurrent.futures.ThreadPoolExecutor(2) as threads:
    found = list(
      threads.map(
        lambda c: crawls.curated(inputs, c, tmp_path / 'hosts'), hosts, timeout=60
      )
    )
  assert found == [total, total]
  for name in ('pool', 'hosts'):
    assert bytes_of(tmp_path / name) == bytes_of(tmp_path / 'one'), name


def test_ray_gives_the_bytes_of_one_process(tmp_path):
  pytest.importorskip('ray', reason="needs the extra: pip install -e '.[ray]'")
  pytest.importorskip('daft', reason="needs the extra: pip install -e '.[ray]'")
  inputs = crawls.write_inputs(tmp_path, 9)
  total = crawls.curated(inputs, crawls.CONFIG, tmp_path / 'one')
  ray = dataclasses.replace(crawls.CONFIG, engine='ray', workers=2)
  assert crawls.curated(inputs, ray, tmp_path / 'ray') == total
  assert bytes_of(tmp_path / 'ray') == bytes_of(tmp_path / 'one')


def test_another_threshold_runs_only_the_stages_from_there_on(tmp_path):
  inputs = crawls.write_inputs(tmp_path)
  crawls.curated(inputs, crawls.CONFIG, tmp_path / 'out')
  before = {p: p.stat().st_mtime_ns for p in (tmp_path / 'out/work').rglob('*.*')}
  strict = heuristics.Config(
    prose=dataclasses.replace(crawls.LOOSE, min_words=10_000), overrides=()
  )
  config = dataclasses.replace(crawls.CONFIG, heuristics=strict)
  result = crawls.curated(inputs, config, tmp_path / 'out')
  assert result['categories'] == {'code': {'documents': 1}}
  changed = {p for p in (tmp_path / 'out/work').rglob('*.*') if p not in before}
  assert all(p.stat().st_mtime_ns == t for p, t in before.items())
  rerun = {p.relative_to(tmp_path / 'out/work').parts[0] for p in changed}
  names = {part.split('-')[1] for part in rerun}
  assert 'heuristics' in names
  assert not names & {'extract', 'language', 'document', 'line', 'c4_lines'}


def test_a_new_input_is_added_without_reading_the_others_again(tmp_path):
  inputs = crawls.write_inputs(tmp_path)
  crawls.curated(inputs, crawls.CONFIG, tmp_path / 'out')
  first = next((tmp_path / 'out/work').glob('00-extract-*'))
  then = (first / '00000.parquet').stat().st_mtime_ns
  jsonl.write(tmp_path / 'more.jsonl.gz', [{'text': crawls.article(77), 'url': 'm'}])
  inputs.append({'path': str(tmp_path / 'more.jsonl.gz')})
  result = crawls.curated(inputs, crawls.CONFIG, tmp_path / 'out')
  assert result['steps'][0]['documents'] == 8
  assert (first / '00000.parquet').stat().st_mtime_ns == then
  fresh = crawls.curated(inputs, crawls.CONFIG, tmp_path / 'fresh')
  assert fresh == result and bytes_of(tmp_path / 'out') == bytes_of(tmp_path / 'fresh')


@pytest.mark.parametrize('form', output.FORMS)
def test_killed_run_goes_on_to_the_same_bytes(tmp_path, launcher, form):
  inputs = crawls.write_inputs(tmp_path, 40)
  fields = [
    '--config=configs/curate.py:files',
    f"--config.inputs=('{inputs[0]['path']}', 'code={inputs[1]['path']}')",
    '--config.workers=1',
    f'--config.curate.form={form}',
  ]
  config = curate_config.get_config('files')
  config.inputs = (inputs[0]['path'], f'code={inputs[1]["path"]}')
  config.workers, config.curate.form = 1, form
  whole = tmp_path / 'whole'
  curate.main(config, str(whole))
  for stage in ('document', 'heuristics'):
    process = launcher.start(*fields, f'--workdir={tmp_path / "killed"}')
    # Whatever the machine's speed, it has begun and has not ended.
    _wait_for(tmp_path / 'killed/work', f'*-{stage}-*', process)
    assert process.poll() is None, 'it ended before it was killed'
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
  curate.main(config, str(tmp_path / 'killed'))
  assert bytes_of(tmp_path / 'killed') == bytes_of(whole)
  funnels = [(f / 'funnel.json').read_text() for f in (whole, tmp_path / 'killed')]
  assert funnels[0] == funnels[1]
  assert not list((tmp_path / 'killed/work').rglob('*.partial'))


def _wait_for(folder, pattern, process, limit_s=240):
  """Returns when a file of that name is in the folder, or the process has ended."""
  end = time.monotonic() + limit_s
  while time.monotonic() < end and process.poll() is None:
    if list(folder.glob(pattern)):
      return
    time.sleep(0.01)


def test_bad_records_are_counted_and_named(tmp_path):
  inputs = crawls.write_inputs(tmp_path)
  (tmp_path / 'bad.jsonl').write_text('{"text": 1}\nnot json\n', 'utf-8')
  inputs.append({'path': str(tmp_path / 'bad.jsonl')})
  result = crawls.curated(inputs, crawls.CONFIG, tmp_path / 'out')
  assert len(result['problems']) == 2
  assert all('bad.jsonl' in problem for problem in result['problems'])


def test_a_skipped_stage_does_not_run_and_an_unknown_one_is_named(tmp_path):
  inputs = crawls.write_inputs(tmp_path)
  config = dataclasses.replace(crawls.CONFIG, skip=('url', 'line', 'outlier'))
  result = crawls.curated(inputs, config, tmp_path / 'out')
  assert not {'url', 'line'} & {step['step'] for step in result['steps']}
  with pytest.raises(UserError, match="'ur'"):
    stages.stages(dataclasses.replace(crawls.CONFIG, skip=('ur',)))


def test_missing_input_empty_input_and_unknown_category_are_named(tmp_path):
  with pytest.raises(UserError, match='nothing.warc.gz'):
    run.open_store(
      [{'path': str(tmp_path / 'nothing.warc.gz')}], crawls.CONFIG, tmp_path
    )
  (tmp_path / 'empty.jsonl').write_text('')
  with pytest.raises(UserError, match='no document'):
    crawls.curated(
      [{'path': str(tmp_path / 'empty.jsonl')}], crawls.CONFIG, tmp_path / 'out'
    )
  inputs = crawls.write_inputs(tmp_path)
  with pytest.raises(UserError, match="'poems'"):
    run.open_store([{**inputs[0], 'category': 'poems'}], crawls.CONFIG, tmp_path)
  with pytest.raises(UserError, match="'spark'"):
    crawls.curated(
      inputs, dataclasses.replace(crawls.CONFIG, engine='spark'), tmp_path / 'out'
    )


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
  config = curate_config.get_config('files')
  config.curate.form = 'jsonl'
  config.inputs = (str(tmp_path / 'web.warc.gz'),)
  config.workers = 1
  config.curate.urls.hosts = (sample_pages.BLOCKED_HOST,)
  config.curate.heuristics.overrides = ()
  for n in range(2, 5):
    config.curate.heuristics.prose[f'max_top_{n}gram'] = 2.0
  for n in range(5, 11):
    config.curate.heuristics.prose[f'max_duplicate_{n}gram'] = 2.0
  result = curate.main(config, str(tmp_path / 'out'))
  rows = crawls.read(tmp_path / 'out/dropped.jsonl.gz')
  found = {(row['reason'], row['url'].split('/')[2]) for row in rows}
  for reason, host in [
    ('urls.host', f'www.{sample_pages.BLOCKED_HOST}'),
    ('url.older', 'book.example'),
    ('document.duplicate', 'book.mirror.example'),
    ('dirty.words', 'spam.example'),
    ('outlier.kl', 'salad.example'),
    ('length.words', 'stub.example'),
  ]:
    assert (reason, host) in found
  assert result['categories']['general']['documents'] >= 140
  kept = crawls.read(tmp_path / 'out/documents/general.jsonl.gz')
  assert not any('logs.example' in row['url'] for row in kept)
  book = [row['text'] for row in kept if 'book.example' in row['url']]
  assert not any('newsletter' in text or 'cookies' in text for text in book)
  page = (tmp_path / 'out/report.html').read_text('utf-8')
  assert 'dirty.words' in page and 'salad.example' in page and 'book.example' in page


def _sentence(i, k):
  rng = random.Random(f'{i}/{k}')
  nouns = ['house', 'river', 'teacher', 'window', 'garden', 'winter', 'letter', 'boat']
  verbs = ['finds', 'carries', 'paints', 'forgets', 'repairs', 'follows', 'remembers']
  return ' '.join(
    f'The {rng.choice(nouns)} of my {rng.choice(nouns)} often {rng.choice(verbs)} '
    f'the {rng.choice(nouns)} and the {rng.choice(nouns)}.'
    for _ in range(3)
  )


def test_a_sweep_says_what_the_rule_would_drop(tmp_path):
  web, _ = crawls.write_inputs(tmp_path, 8)
  config = curate_config.get_config('files')
  config.curate.form = 'jsonl'
  config.inputs, config.workers = (web['path'],), 1
  config.sweep = (('length.words', 10.0, 10_000.0),)
  curate.main(config, str(tmp_path / 'work'))
  (found,) = json.loads((tmp_path / 'work/sweep.json').read_text())
  assert found['rule'] == 'prose/length.words'
  strict = config.copy_and_resolve_references()
  strict.sweep, strict.curate.heuristics.prose.min_words = (), 10_000
  result = curate.main(strict, str(tmp_path / 'work'))
  rule = next(s for s in result['steps'] if s['step'] == 'heuristics')['dropped']
  assert found['counts'][0] == [0, 0]
  assert found['counts'][1][0] == rule['length.words']['documents'] == 8
  config.sweep = (('length.word', 1.0),)
  with pytest.raises(UserError, match='did you mean'):
    curate.main(config, str(tmp_path / 'work'))


def test_experiment_runs_on_files_and_skips_when_finished(tmp_path):
  web, code = crawls.write_inputs(tmp_path)
  config = curate_config.get_config('files')
  config.curate.form = 'jsonl'
  config.inputs = (web['path'], f'code={code["path"]}')
  config.workers = 1
  result = curate.main(config, str(tmp_path / 'work'))
  assert result['categories']['code']['documents'] == 1
  assert (tmp_path / 'work/documents/general.jsonl.gz').exists()
  (tmp_path / 'web.warc.gz').unlink()
  assert curate.main(config, str(tmp_path / 'work')) == result
  config.curate.language.min_score = 0.9
  with pytest.raises(UserError, match='web.warc.gz'):
    curate.main(config, str(tmp_path / 'work'))


def test_experiment_names_what_is_wrong_in_the_config(tmp_path):
  config = curate_config.get_config('files')
  config.curate.form = 'jsonl'
  with pytest.raises(UserError, match='inputs'):
    curate.main(config, str(tmp_path / 'a'))
  config.host = 3
  config.inputs = ('x',)
  with pytest.raises(UserError, match='host=3'):
    curate.main(config, str(tmp_path / 'b'))
  config.host = 0
  config.curate.heuristics.code.min_words = 'many'
  with pytest.raises(UserError, match="min_words='many'"):
    curate.main(config, str(tmp_path / 'c'))
  with pytest.raises(UserError, match='herd, files'):
    curate_config.get_config('all')


def test_an_input_that_changes_or_goes_leaves_nothing_of_the_old_one(tmp_path):
  inputs = crawls.write_inputs(tmp_path)
  jsonl.write(tmp_path / 'a.jsonl.gz', [{'text': crawls.article(i)} for i in range(3)])
  inputs.insert(0, {'path': str(tmp_path / 'a.jsonl.gz')})
  crawls.curated(inputs, crawls.CONFIG, tmp_path / 'out')
  changed = [{'text': crawls.article(i), 'url': str(i)} for i in range(50, 54)]
  jsonl.write(tmp_path / 'a.jsonl.gz', changed)
  for number, some in enumerate((inputs, inputs[1:])):
    fresh = crawls.curated(some, crawls.CONFIG, tmp_path / f'fresh{number}')
    assert crawls.curated(some, crawls.CONFIG, tmp_path / 'out') == fresh
    assert bytes_of(tmp_path / 'out') == bytes_of(tmp_path / f'fresh{number}')


def test_another_content_of_a_list_is_another_run(tmp_path):
  inputs = crawls.write_inputs(tmp_path)
  (tmp_path / 'words').write_text('garden\n')
  config = dataclasses.replace(
    crawls.CONFIG,
    heuristics=heuristics.Config(
      prose=dataclasses.replace(crawls.LOOSE, max_dirty_words=0.0),
      overrides=(),
      dirty_path=str(tmp_path / 'words'),
    ),
  )
  first = crawls.curated(inputs, config, tmp_path / 'out')
  (tmp_path / 'words').write_text('nothing of the kind\n')
  heuristics._table.cache_clear()
  second = crawls.curated(inputs, config, tmp_path / 'out')
  dropped = [
    next(s for s in r['steps'] if s['step'] == 'heuristics')['dropped']
    for r in (first, second)
  ]
  assert 'dirty.words' in dropped[0] and 'dirty.words' not in dropped[1]


def test_results_are_made_again_where_a_file_or_the_kept_share_is_another(tmp_path):
  web, _ = crawls.write_inputs(tmp_path)
  config = curate_config.get_config('files')
  config.curate.form = 'jsonl'
  config.inputs, config.workers = (web['path'],), 1
  curate.main(config, str(tmp_path / 'work'))
  (tmp_path / 'work/documents/general.jsonl.gz').unlink()
  curate.main(config, str(tmp_path / 'work'))
  assert (tmp_path / 'work/documents/general.jsonl.gz').exists()
  assert crawls.read(tmp_path / 'work/dropped.jsonl.gz')
  config.curate.keep_dropped = 0.0
  curate.main(config, str(tmp_path / 'work'))
  assert not crawls.read(tmp_path / 'work/dropped.jsonl.gz')


def test_a_store_is_pickled_without_its_list_of_inputs(tmp_path):
  path = tmp_path / 'x.jsonl'
  path.write_text('{"text": "a"}\n')
  store = run.open_store([{'path': str(path)}] * 500, crawls.CONFIG, tmp_path)
  assert len(pickle.dumps(store)) < 3000
  assert pickle.loads(pickle.dumps(store)) == store


def test_a_language_of_its_own_limits_is_counted_by_itself(tmp_path):
  english = 'The house of the teacher stands near the river and it is old. '
  german = 'Das Haus des Lehrers steht nicht weit vom Fluss und ist sehr alt. '
  rows = [
    {'text': f'{(german if i > 2 else english) * 6} Number {i * 7919}.', 'url': f'u{i}'}
    for i in range(5)
  ]
  jsonl.write(tmp_path / 'a.jsonl.gz', rows)
  config = dataclasses.replace(
    stages.Config(workers=1), skip=('document', 'repeated_lines')
  )
  store = run.open_store([{'path': str(tmp_path / 'a.jsonl.gz')}], config, tmp_path)
  run.run(store, config)
  each = lambda work, jobs: ((job, work(job)) for job in jobs)
  found, _ = margins.study(each, store, stages.thresholds(config), [])
  count = lambda key: found[key]['below'] + found[key]['above']
  assert count('prose/length.words') == 5
  assert count('prose/gopher.stop_words/en') == 3


def documents_of(folder):
  """{category: rows} of what a run has left, in whatever form."""
  return {
    name: [row for path in paths for row in texts.read(path, 'documents')]
    for name, paths in texts.categories(folder / 'documents', 'documents').items()
  }


def test_parquet_holds_the_documents_of_jsonl(tmp_path):
  inputs = crawls.write_inputs(tmp_path)
  crawls.curated(inputs, crawls.CONFIG, tmp_path / 'a')
  parquet = dataclasses.replace(crawls.CONFIG, form='parquet')
  crawls.curated(inputs, parquet, tmp_path / 'b')
  found, expected = documents_of(tmp_path / 'b'), documents_of(tmp_path / 'a')
  assert found == {name: rows for name, rows in expected.items() if rows}
  names = [p.name for p in (tmp_path / 'b/documents/general').iterdir()]
  assert names == ['00000.parquet']  # a file an input
  assert len(crawls.read(tmp_path / 'b/dropped.jsonl.gz')) == 1


def test_another_form_replaces_the_documents_and_keeps_the_work(tmp_path):
  inputs = crawls.write_inputs(tmp_path)
  parquet = dataclasses.replace(crawls.CONFIG, form='parquet')
  for config in (crawls.CONFIG, parquet, crawls.CONFIG):
    crawls.curated(inputs, config, tmp_path / 'out')
    assert len(documents_of(tmp_path / 'out')['general']) == 5
    assert all(p.exists() for p in output.written(tmp_path / 'out', config))
  assert not (tmp_path / 'out/documents/general').exists()
  stages = [p.name for p in (tmp_path / 'out/work').glob('[0-9]*')]
  assert len(stages) == len({name[:2] for name in stages})  # none was made twice


def test_an_input_that_is_gone_leaves_no_documents(tmp_path):
  inputs = crawls.write_inputs(tmp_path)
  parquet = dataclasses.replace(crawls.CONFIG, form='parquet')
  crawls.curated(inputs, parquet, tmp_path / 'out')
  crawls.curated(inputs[:1], parquet, tmp_path / 'out')
  assert set(documents_of(tmp_path / 'out')) == {'general'}


def test_a_run_that_leaves_nothing_says_what_took_it(tmp_path, caplog):
  jsonl.write(tmp_path / 'a.jsonl', [{'text': 'same words ' * 9, 'url': 'a'}] * 3)
  config = curate_config.get_config('files')
  config.inputs, config.workers = (str(tmp_path / 'a.jsonl'),), 1
  with caplog.at_level('WARNING', 'absl'):
    result = curate.main(config, str(tmp_path / 'work'))
  assert not result['categories']
  [line] = [r.getMessage() for r in caplog.records if 'no document' in r.getMessage()]
  assert 'dropped.jsonl.gz' in line and '(' in line
