"""A workdir answers for one run: identity by content, one at a time, longer runs."""

import json
import os
import signal
import subprocess
import sys
import time

import ml_collections
import numpy as np
import pytest

from llama3_jax import config as configs
from llama3_jax import workdir as workdirs
from llama3_jax.base import content
from llama3_jax.base import files
from llama3_jax.base import lock
from llama3_jax.base import processes
from llama3_jax.base.errors import UserError
from llama3_jax.train import checkpoint


def made(**fields):
  c = ml_collections.ConfigDict(dict(experiment='sft', seed=0, init_from=''))
  c.train = ml_collections.ConfigDict(dict(steps=10, batch=2))
  c.data = ml_collections.ConfigDict(dict(files=(), mix=dict(web=1.0)))
  return configs.edit(c, fields)


def begin(config, folder):
  workdirs.claim(config, folder)
  (folder / 'metrics.jsonl').write_text('{}\n')


def stage(folder, digest):
  folder.mkdir()
  (folder / 'model.json').write_text('{}')
  (folder / 'identity.json').write_text(json.dumps({'digest': digest}))
  return str(folder)


def test_another_model_is_refused_and_a_moved_one_is_not(tmp_path):
  one, two = stage(tmp_path / 'one', 'aa'), stage(tmp_path / 'two', 'bb')
  begin(made(init_from=one), tmp_path / 'run')
  with pytest.raises(UserError, match='init_from'):
    workdirs.claim(made(init_from=two), tmp_path / 'run')
  os.rename(one, tmp_path / 'moved')
  workdirs.claim(made(init_from=str(tmp_path / 'moved')), tmp_path / 'run')


@pytest.mark.parametrize('edit', ['{"a": 2}', '{"a": 1} ', ''])
def test_edited_file_is_refused_and_a_copy_is_not(tmp_path, edit):
  file = tmp_path / 'rows.jsonl'
  file.write_text('{"a": 1}')
  begin(made(**{'data.files': (str(file),)}), tmp_path / 'run')
  (tmp_path / 'copy.jsonl').write_text('{"a": 1}')
  copy = made(**{'data.files': (str(tmp_path / 'copy.jsonl'),)})
  workdirs.claim(copy, tmp_path / 'run')
  (tmp_path / 'copy.jsonl').write_text(edit)
  with pytest.raises(UserError, match='data.files'):
    workdirs.claim(copy, tmp_path / 'run')


def test_sources_of_shards_are_known_one_by_one(tmp_path):
  for name in ('a', 'b'):
    (tmp_path / name).mkdir()
    (tmp_path / name / 'index.json').write_text(f'{{"n": "{name}"}}')
  flat = {'experiment': 'pretrain', 'data.root': str(tmp_path)}
  before = content.inputs(flat)
  assert set(before) == {'data.root/a', 'data.root/b'}
  (tmp_path / 'b' / 'index.json').write_text('{"n": "c"}')
  after = content.inputs(flat)
  assert before['data.root/a'] == after['data.root/a']
  assert before['data.root/b'] != after['data.root/b']


def test_every_file_of_a_list_and_of_a_folder_counts(tmp_path):
  folder = tmp_path / 'documents'
  (folder / 'deep').mkdir(parents=True)
  paths = [folder / 'a', folder / 'deep/b']
  for file in paths:
    file.write_text('one')
  flat = {'data.files': tuple(map(str, paths)), 'documents': str(folder)}
  seen = [content.inputs(flat)]
  for texts in (('one', 'two'), ('onet', 'wo')):  # the same bytes, cut elsewhere
    for file, text in zip(paths, texts):
      file.write_text(text)
    seen.append(content.inputs(flat))
  for name in flat:
    assert len({found[name] for found in seen}) == 3, name


def test_stage_is_known_by_its_arrays_and_its_model(tmp_path):
  one = stage(tmp_path / 'one', 'aa')
  before = content.of(one)
  (tmp_path / 'one/model.json').write_text('{"rope_theta": 1}')
  assert content.of(one) != before


def test_older_stage_is_known_by_the_sizes_of_its_files(tmp_path):
  (tmp_path / 'params').mkdir()
  (tmp_path / 'model.json').write_text('{}')
  (tmp_path / 'params/a').write_text('12')
  before = content.of(tmp_path)
  (tmp_path / 'params/a').write_text('123')
  assert content.of(tmp_path) != before


def test_field_that_is_new_takes_its_default(tmp_path):
  begin(made(), tmp_path / 'run')
  workdirs.claim(made(fresh=3), tmp_path / 'run')
  with pytest.raises(UserError, match='fresh 3 -> 4'):
    workdirs.claim(made(fresh=4), tmp_path / 'run')


def test_new_source_of_the_mix_is_a_change(tmp_path):
  begin(made(), tmp_path / 'run')
  with pytest.raises(UserError, match='data.mix.code'):
    workdirs.claim(made(**{'data.mix.code': 0.5}), tmp_path / 'run')


def test_more_steps_go_on_and_fewer_are_refused(tmp_path):
  folder = tmp_path / 'run'
  begin(made(), folder)
  processes.write_json(folder / 'results.json', {'loss': 1.0})
  assert workdirs.finished(folder) == {'loss': 1.0}
  workdirs.claim(made(**{'train.steps': 20}), folder)
  assert workdirs.finished(folder) is None
  assert files.read_json(folder / 'results_10.json') == {'loss': 1.0}
  with pytest.raises(UserError, match='train.steps 20 -> 10'):
    workdirs.claim(made(), folder)


def test_steps_by_epochs_are_not_a_number_that_may_be_raised(tmp_path):
  by_epochs = {'train.steps': 0, 'data.epochs': 3.0}
  begin(made(**by_epochs), tmp_path / 'run')
  with pytest.raises(UserError, match='train.steps 0 -> 2'):
    workdirs.claim(made(**by_epochs | {'train.steps': 2}), tmp_path / 'run')


@pytest.mark.parametrize('decay,said', [(0, 'a run of so many'), (9, 'decay=9, after')])
def test_a_longer_run_says_how_its_rate_goes_on(tmp_path, caplog, decay, said):
  fields = {'optim': ml_collections.ConfigDict({'decay': decay})}
  begin(configs.edit(made(), fields), tmp_path / 'run')
  with caplog.at_level('INFO'), caplog.at_level('INFO', 'absl'):
    workdirs.claim(configs.edit(made(), fields | {'train.steps': 20}), tmp_path / 'run')
  assert said in caplog.text


@pytest.mark.parametrize('field', ['text', 'files', 'data.files', 'tasks'])
def test_an_edited_file_is_refused_whatever_names_it(tmp_path, field):
  file = tmp_path / 'a.jsonl'
  file.write_text('{"a": 1}')
  name = {'text': f'{tmp_path}/*.jsonl', 'tasks': f'rows={file}'}.get(field, str(file))
  begin(made(**{field: (name,)}), tmp_path / 'run')
  workdirs.claim(made(**{field: (name,)}), tmp_path / 'run')
  file.write_text('{"a": 2}')
  with pytest.raises(UserError, match=field):
    workdirs.claim(made(**{field: (name,)}), tmp_path / 'run')


def test_another_task_is_another_run_though_its_rows_are_the_same(tmp_path):
  rows = f'rows={tmp_path / "a.jsonl"}'
  (tmp_path / 'a.jsonl').write_text('{"a": 1}')
  begin(made(tasks=('copy', rows)), tmp_path / 'run')
  with pytest.raises(UserError, match='tasks'):
    workdirs.claim(made(tasks=(rows,)), tmp_path / 'run')


@pytest.mark.parametrize('place', ['in', 'in/deep/run'])
def test_a_workdir_inside_the_text_is_refused(tmp_path, place):
  (tmp_path / 'in').mkdir()
  with pytest.raises(UserError, match='inside text='):
    workdirs.claim(made(text=(str(tmp_path / 'in'),)), tmp_path / place)
  workdirs.claim(made(text=(str(tmp_path / 'in'),)), tmp_path / 'in2')


def test_a_file_of_a_folder_that_cannot_be_read_is_left_to_its_reader(
  tmp_path, monkeypatch
):
  for name in 'ab':
    (tmp_path / name).write_text(name)
  monkeypatch.setattr(os, 'access', lambda path, mode: path.name != 'b')
  before = content.of(tmp_path)
  (tmp_path / 'b').write_text('c')
  assert content.of(tmp_path) == before


def test_empty_workdir_is_refused(launcher):
  with pytest.raises(UserError, match='--workdir is empty'):
    workdirs.claim(made(), '')


HOLD = """
import sys, time
from llama3_jax.base import lock
lock.take(sys.argv[1])
print('held', flush=True)
time.sleep(60)
"""


def test_second_run_is_refused_until_the_first_is_dead(tmp_path):
  owner = subprocess.Popen(
    [sys.executable, '-c', HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
  )
  try:
    assert owner.stdout.readline() == 'held\n'
    for attempt in (lock.check, lock.take):
      with pytest.raises(UserError, match=f'in use by process {owner.pid}'):
        attempt(tmp_path)
  finally:
    owner.send_signal(signal.SIGKILL)
    owner.wait()
  lock.check(tmp_path)
  lock.take(tmp_path)
  lock.release(tmp_path)


def test_owner_on_another_host_is_dead_without_signs_of_life(tmp_path):
  path = tmp_path / lock.NAME
  path.write_text(json.dumps({'host': 'elsewhere', 'process': 1, 'since': 'x'}))
  with pytest.raises(UserError, match='on elsewhere'):
    lock.take(tmp_path)
  old = time.time() - 2 * lock.DEAD_S
  os.utime(path, (old, old))
  lock.take(tmp_path)
  lock.release(tmp_path)


def test_owner_gives_signs_of_life_and_leaves_none_behind(tmp_path, monkeypatch):
  monkeypatch.setattr(lock, 'BEAT_S', 0.01)
  lock.take(tmp_path)
  path = tmp_path / lock.NAME
  assert json.loads(path.read_text())['process'] == os.getpid()
  os.utime(path, (0, 0))
  end = time.monotonic() + 30
  while path.stat().st_mtime < 1000 and time.monotonic() < end:
    time.sleep(0.01)
  assert path.stat().st_mtime > 1000
  lock.release(tmp_path)
  assert path.read_text() == ''  # another host need not wait


@pytest.mark.parametrize('alive', [True, False])
def test_without_locks_of_the_file_system_the_process_decides(
  tmp_path, monkeypatch, alive
):
  def none(*_):
    raise OSError

  monkeypatch.setattr(lock.fcntl, 'flock', none)
  process = os.getppid() if alive else 2**22 + 1  # beyond the largest id
  owner = {'host': lock.socket.gethostname(), 'process': process, 'since': 'x'}
  (tmp_path / lock.NAME).write_text(json.dumps(owner))
  if alive:
    with pytest.raises(UserError, match=f'process {os.getppid()}'):
      lock.take(tmp_path)
  else:
    lock.take(tmp_path)
    lock.release(tmp_path)


NONE = ['[]', '5', '{}', '{"config": 3}', '[' * 100_000]
NONE += ['{"config": {"train.steps": "x"}}', '{"config": {}, "made_from": [1]}']


@pytest.mark.parametrize('text', NONE)
def test_config_file_that_is_none_is_one_line(tmp_path, text):
  begin(made(), tmp_path / 'run')
  (tmp_path / 'run/config.json').write_text(text)
  with pytest.raises(UserError, match='config.json'):
    workdirs.claim(made(), tmp_path / 'run')


@pytest.mark.parametrize('first,then', [('', 'one'), ('one', ''), ('one', 'gone')])
def test_input_that_is_set_unset_or_missing_is_another_run(tmp_path, first, then):
  stage(tmp_path / 'one', 'aa')
  where = {'': '', 'one': str(tmp_path / 'one'), 'gone': str(tmp_path / 'gone')}
  begin(made(init_from=where[first]), tmp_path / 'run')
  kept = (tmp_path / 'run/config.json').read_text()
  with pytest.raises(UserError, match='init_from'):
    workdirs.claim(made(init_from=where[then]), tmp_path / 'run')
  assert (tmp_path / 'run/config.json').read_text() == kept


def test_shards_may_move_as_a_whole_only(tmp_path):
  for root, names in (('first', 'ab'), ('all', 'abc'), ('part', 'a')):
    for name in names:
      (tmp_path / root / name).mkdir(parents=True)
      (tmp_path / root / name / 'index.json').write_text(f'{{"n": "{name}"}}')
  begin(made(**{'data.root': str(tmp_path / 'first')}), tmp_path / 'run')
  workdirs.claim(made(**{'data.root': str(tmp_path / 'all')}), tmp_path / 'run')
  with pytest.raises(UserError, match='data.root'):
    workdirs.claim(made(**{'data.root': str(tmp_path / 'part')}), tmp_path / 'run')


@pytest.mark.parametrize('name', workdirs.OUTPUTS)
def test_outputs_that_no_config_claims_are_not_taken(tmp_path, name):
  (tmp_path / name).write_text('{}')
  with pytest.raises(UserError, match=f'{name} but no config.json'):
    workdirs.claim(made(), tmp_path)
  assert not (tmp_path / 'config.json').exists()


def test_large_source_is_known_by_parts_of_its_files(tmp_path):
  text = bytearray(content.PARTS * content.PART + 5)
  (tmp_path / 'a').write_bytes(text)
  marks = {content.of(tmp_path, sampled=True)}
  assert content.of(tmp_path / 'a', True) != content.of(tmp_path / 'a')
  for place in (0, len(text) // 2, len(text) - 1):
    text[place] = 1
    (tmp_path / 'a').write_bytes(text)
    marks.add(content.of(tmp_path, sampled=True))
  (tmp_path / 'a').write_bytes(text + b'1')
  marks.add(content.of(tmp_path, sampled=True))
  assert len(marks) == 5


def test_what_is_gone_is_made_again(tmp_path):
  processes.write_json(tmp_path / 'results.json', {'a': 1})
  (tmp_path / 'final').mkdir()
  assert workdirs.finished(tmp_path, lambda _: ['final']) == {'a': 1}
  assert workdirs.finished(tmp_path, list) is None  # the file `a`, which is not there
  (tmp_path / 'final').rmdir()
  assert workdirs.finished(tmp_path, lambda _: ['final']) is None


def saves(tmp_path, name, config):
  begin(config, tmp_path / name)
  return checkpoint.Checkpoints(tmp_path / name, elsewhere=str(tmp_path / 'saves'))


def test_saves_elsewhere_belong_to_one_run(tmp_path):
  mine = saves(tmp_path, 'one', made())
  mine.save(1, {'a': np.ones(2)}, {})
  mine.close()
  again = made(**{'train.steps': 20, 'train.keep': 3})
  assert saves(tmp_path, 'moved', again).latest() == 1  # its workdir was lost
  with pytest.raises(UserError, match=r'train.checkpoints.*seed 0 -> 1'):
    saves(tmp_path, 'two', made(seed=1))
  (tmp_path / 'saves/config.json').write_text('{}')
  with pytest.raises(UserError, match=r'train.checkpoints.*not readable'):
    saves(tmp_path, 'one', made())


def test_saves_that_nobody_signed_are_not_continued_by_a_new_run(tmp_path):
  (tmp_path / 'saves/3').mkdir(parents=True)
  workdirs.claim(made(), tmp_path / 'new')
  with pytest.raises(UserError, match='train.checkpoints'):
    checkpoint.Checkpoints(tmp_path / 'new', elsewhere=str(tmp_path / 'saves'))


def test_folder_of_benchmarks_is_not_read_and_any_name_of_a_file_is_fingerprinted(
  tmp_path,
):
  """Such a folder may be large; what an evaluation keeps says what was asked."""
  for i, name in enumerate((b'a.jsonl', b'\xff.jsonl')):
    (tmp_path / os.fsdecode(name)).write_text(str(i))
  flat = {'experiment': 'evaluate', 'data': str(tmp_path)}
  flat['tasks'] = [f'mmlu={tmp_path}']
  assert content.inputs(flat) == {}
  one = [f'rows={tmp_path}/a.jsonl,{tmp_path}/b.jsonl']
  assert set(content.inputs(flat | {'tasks': one})) == {'tasks'}
  assert set(content.inputs(flat | {'experiment': 'scaling'})) == {'data'}
