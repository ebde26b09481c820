"""Every fault of section 3.3.4, put in on purpose: it is seen, named, and survived."""

import json
import os
import signal
import threading
import time

import faulty
import jax
import numpy as np
import pytest
import toy_run as toy

from llama3_jax.base.errors import Preempted
from llama3_jax.base.errors import UserError
from llama3_jax.plan import flags
from llama3_jax.reliable import goodput
from llama3_jax.reliable import health
from llama3_jax.train import checkpoint
from llama3_jax.train import metrics
from llama3_jax.train import step as steps


class Bad(toy.Data):
  """Rows with batches that give no number, or a spike.

  bad: {number of the batch since the first start: NaN for its weights, or the only
  target it has}.
  """

  def __init__(self, documents, bad, at=None, then=None):
    super().__init__(documents, at, then)
    self.bad = bad

  def restore(self, state):
    at = self.at
    super().restore(state)
    self.at = at  # a rewind is no new start
    self.number = self.tokens // (8 * 16)

  def read(self, plan, shard=(0, 1)):
    found = super().read(plan, shard)
    if self.number in self.bad:
      factor = self.bad[self.number]
      if np.isnan(factor):
        found.weight[:] *= np.float32(factor)
      else:  # all of one kind: a gradient of one direction
        found.targets[:] = int(factor)
    return found


NAN = {6: float('nan')}


def train(workdir, documents, bad, at=None, then=None, **fields):
  data = Bad(documents, bad, at, then)
  state, rows = toy.train(workdir, data, **fields)
  return state, rows


def one_line(error):
  assert '\n' not in str(error.value)
  return str(error.value)


def weights(state):
  return [np.asarray(x) for x in jax.tree.leaves((state.params, state.opt))]


def finite(state):
  return all(np.isfinite(x).all() for x in weights(state))


def test_guard_leaves_a_good_run_as_it_is(documents, tmp_path):
  guarded, _ = toy.train(tmp_path / 'a', toy.Data(documents))
  free, _ = toy.train(tmp_path / 'b', toy.Data(documents), on_bad_step='off')
  # Two programs, which the compiler may round differently.
  for x, y in zip(jax.tree.leaves(guarded.params), jax.tree.leaves(free.params)):
    np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


def test_step_that_is_not_finite_is_skipped_and_counted(documents, tmp_path):
  state, rows = train(tmp_path, documents, NAN)
  assert finite(state) and int(state.step) == 12
  bad = {r['step']: r['bad_steps'] for r in rows if 'loss' in r}
  assert bad == {i: float(i >= 6) for i in range(1, 13)}
  row = next(r for r in rows if r['step'] == 6)
  assert not np.isfinite(row['loss'])
  rate = [r['lr'] for r in rows if 'loss' in r]
  assert rate[6] != rate[5]  # the schedule does not wait


def test_skipped_step_leaves_parameters_and_moments_alone(documents, tmp_path):
  before, _ = train(tmp_path / 'a', documents, {}, steps=5)
  after, _ = train(tmp_path / 'b', documents, NAN, steps=6)
  toy.equal(before.params, after.params)
  pairs = zip(jax.tree.leaves(before.opt), jax.tree.leaves(after.opt))
  assert all((a == b).all() for a, b in pairs if a.ndim)


def test_resume_after_a_skipped_step_gives_the_same_bits(documents, tmp_path):
  whole, rows = train(tmp_path / 'a', documents, NAN)
  with pytest.raises(toy.Dies):
    train(tmp_path / 'b', documents, NAN, 10, toy.die(tmp_path / 'b', 8))
  again, found = train(tmp_path / 'b', documents, NAN)
  toy.equal(whole, again)
  assert json.dumps(found) == json.dumps(rows)


def test_bad_steps_in_a_row_end_the_run(documents, tmp_path):
  bad = dict.fromkeys(range(5, 12), float('nan'))
  with pytest.raises(UserError) as e:
    train(tmp_path, documents, bad, max_bad_steps=3)
  assert 'train.max_bad_steps' in one_line(e) and '3 bad steps' in str(e.value)


def test_stop_names_the_step_and_the_way_on(documents, tmp_path):
  with pytest.raises(UserError) as e:
    train(tmp_path, documents, NAN, on_bad_step='stop')
  assert 'step 6' in one_line(e) and 'on_bad_step=skip' in str(e.value)
  state, _ = train(tmp_path, documents, NAN)  # the same workdir, policy skip
  assert finite(state) and int(state.health.bad) == 1


def test_spike_is_skipped_in_training(documents, tmp_path):
  fields = dict(steps=32, on_bad_step='skip', spike_sigma=6.0, save_every=40)
  state, rows = train(tmp_path, documents, {30: 7}, **fields)
  assert int(state.health.bad) == 1
  assert next(r['step'] for r in rows if r.get('bad_steps')) == 30


def test_rewind_goes_back_and_on_with_other_data(documents, tmp_path):
  fields = dict(on_bad_step='rewind', rewind_steps=3, eval_every=0, steps=12)
  state, rows = train(tmp_path, documents, {10: float('nan')}, **fields)
  assert finite(state) and int(state.step) == 12 and int(state.health.bad) == 0
  event = next(r for r in rows if 'rewind_from' in r)
  assert event['step'] == 4 and event['rewind_from'] == 10
  tokens = {r['step']: r['tokens'] for r in rows if 'loss' in r}
  assert sorted(tokens) == list(range(1, 13))
  # steps 5 to 12 have the data of batches 11 to 18
  assert tokens[4] == 4 * 128 and tokens[5] == 11 * 128 and tokens[12] == 18 * 128


@pytest.mark.parametrize('at,saved', [(13, 4), (16, 8)])
def test_resume_after_a_rewind_gives_the_same_bits(documents, tmp_path, at, saved):
  bad = {10: float('nan')}
  fields = dict(on_bad_step='rewind', rewind_steps=3, eval_every=0, steps=12)
  whole, rows = train(tmp_path / 'a', documents, bad, **fields)
  with pytest.raises(toy.Dies):
    train(tmp_path / 'b', documents, bad, at, toy.die(tmp_path / 'b', saved), **fields)
  again, found = train(tmp_path / 'b', documents, bad, **fields)
  toy.equal(whole, again)
  assert found == rows


def test_rewinds_end_some_time(documents, tmp_path):
  bad = dict.fromkeys(range(6, 60), float('nan'))
  fields = dict(on_bad_step='rewind', rewind_steps=2, max_rewinds=2)
  with pytest.raises(UserError) as e:
    train(tmp_path, documents, bad, **fields)
  assert 'train.max_rewinds' in one_line(e)


def test_rewind_without_a_save_starts_again_with_other_data(documents, tmp_path):
  fields = dict(on_bad_step='rewind', steps=6, eval_every=0)
  state, rows = train(tmp_path, documents, {2: float('nan')}, **fields)
  assert finite(state)
  assert [r['tokens'] for r in rows if r['step'] == 1] == [3 * 128]


WRONG = [
  dict(on_bad_step='ignore'),
  dict(spike_sigma=-1.0),
  dict(log_every=0),
  dict(save_every=0),
  dict(microbatches=0),
  dict(keep=0),
  dict(eval_every=-1),
]


@pytest.mark.parametrize('fields', WRONG, ids=lambda f: next(iter(f)))
def test_wrong_field_is_one_line_that_names_it(documents, tmp_path, fields):
  with pytest.raises(UserError) as e:
    toy.train(tmp_path, toy.Data(documents), **fields)
  assert f'train.{next(iter(fields))}' in one_line(e)


def test_hang_leaves_the_stacks_and_a_line(documents, tmp_path, caplog):
  stacks = tmp_path / 'stacks/0.txt'

  def hang():  # a slow compilation may have left its stacks before
    toy.until(lambda: stacks.exists() and 'in hang' in stacks.read_text())

  toy.train(tmp_path, toy.Data(documents, 8, hang), watchdog_s=1.5)
  text = stacks.read_text()
  assert 'step 8' in text and 'in hang' in text and 'most recent call first' in text
  assert 'watchdog' in text  # all threads
  assert not [t for t in threading.enumerate() if t.name == 'watchdog']


def test_replayed_steps_agree_on_a_sound_machine(documents, tmp_path, mesh):
  with jax.set_mesh(mesh(fsdp=4, tensor=2)):
    state, _ = toy.train(tmp_path / 'a', toy.Data(documents), replay_every=4, steps=8)
    other, _ = toy.train(tmp_path / 'b', toy.Data(documents), steps=8)
  toy.equal(state, other)
  assert goodput.report(tmp_path / 'a')['replay_s'] > 0


@pytest.mark.parametrize('sizes', [dict(fsdp=4, tensor=2), {}])
def test_one_flipped_bit_in_a_replay_is_found(documents, tmp_path, mesh, sizes):
  real, count = health.sums, []

  def sums(state, *arguments):
    count.append(1)
    if len(count) == 4:  # the second run of the second replayed step
      state = state.replace(params=faulty.flipped(state.params))
    return real(state, *arguments)

  with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError) as e:
    patch.setattr(health, 'sums', sums)
    with jax.set_mesh(mesh(**sizes)):
      toy.train(tmp_path, toy.Data(documents), replay_every=3)
  line = one_line(e)
  assert 'step 6 gave other bits' in line and 'process 0' in line


def test_a_replay_on_gpus_needs_sums_in_one_order(monkeypatch):
  monkeypatch.setattr(health.jax, 'default_backend', lambda: 'gpu')
  monkeypatch.setenv('XLA_FLAGS', '--xla_gpu_enable_triton_gemm=false')
  with pytest.raises(UserError) as e:
    health.check(3)
  line = one_line(e)
  assert 'train.replay_every=3' in line and '--xla_gpu_deterministic_ops=true' in line
  health.check(0)
  chosen = flags.environment('h100', ['deterministic'])
  monkeypatch.setenv('XLA_FLAGS', chosen['XLA_FLAGS'])
  health.check(3)


def test_a_replay_elsewhere_needs_no_flag(monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', '')
  for backend in 'cpu', 'tpu':
    monkeypatch.setattr(health.jax, 'default_backend', lambda name=backend: name)
    health.check(3)


def test_save_now(documents, tmp_path):
  def ask():
    os.kill(os.getpid(), signal.SIGUSR1)

  before = signal.getsignal(signal.SIGUSR1)
  toy.train(tmp_path, toy.Data(documents, 6, ask), save_every=100)
  saves = checkpoint.Checkpoints(tmp_path)
  assert saves.steps() == [6, 12]
  saves.close()
  assert signal.getsignal(signal.SIGUSR1) is before


def test_kept_saves_are_the_newest_and_every_so_many(documents, tmp_path):
  fields = dict(save_every=1, keep=2, keep_every=4)
  toy.train(tmp_path, toy.Data(documents), **fields)
  saves = checkpoint.Checkpoints(tmp_path, 2, 4)
  assert saves.steps() == [4, 8, 11, 12]
  saves.close()


def test_checkpoints_in_another_folder(documents, tmp_path):
  fields = dict(checkpoints=str(tmp_path / 'far'), steps=4)
  toy.train(tmp_path / 'run', toy.Data(documents), **fields)
  assert (tmp_path / 'far/4').is_dir()
  assert not (tmp_path / 'run/checkpoints').exists()
  state, _ = toy.train(tmp_path / 'run', toy.Data(documents), **dict(fields, steps=8))
  assert int(state.step) == 8


def test_time_of_undone_steps_is_not_useful(documents, tmp_path):
  with pytest.raises(toy.Dies):
    toy.train(tmp_path, toy.Data(documents, 12, toy.die(tmp_path, 8)))
  first = goodput.report(tmp_path)
  saves = checkpoint.Checkpoints(tmp_path)
  useful = saves.data(8)['useful_s']
  saves.close()
  time.sleep(0.5)
  toy.train(tmp_path, toy.Data(documents))
  found = goodput.report(tmp_path)
  # Lost is what came after the save of step 8, and not what came before it.
  assert 0 < useful < first['step_s'] and found['step_s'] > useful
  assert found['lost_s'] == pytest.approx(first['step_s'] - useful, rel=1e-6)
  assert found['compile_s'] > 0 and found['save_s'] > 0
  assert found['elapsed_s'] > first['elapsed_s'] + 0.5
  kinds = [f'{k}_s' for k in goodput.KINDS]
  # The process of the tests began long before this run: only its own time is booked.
  assert sum(found[k] for k in kinds) == pytest.approx(found['elapsed_s'], abs=0.1)
  assert found['goodput'] == pytest.approx(found['step_s'] / found['elapsed_s'])
  rows = [r['goodput'] for r in metrics.read(tmp_path) if 'goodput' in r]
  assert len(rows) == 12 and all(0 <= r <= 1 for r in rows)


RAMP = ((0, 8, 16), (512, 8, 32), (1536, 16, 32))  # steps 1 to 4, 5 to 8, the rest


def compiled(run):
  """Shapes for which train_step is compiled while `run` goes."""
  steps.train_step.clear_cache()
  run()
  return steps.train_step._cache_size()


def test_one_compilation_a_phase(documents, tmp_path, mesh):
  with jax.set_mesh(mesh(fsdp=4, tensor=2)):
    run = lambda: toy.train(tmp_path, toy.Data(documents), ramp=RAMP, save_every=3)
    assert compiled(run) == 3


LEFT = {4: (3, 3), 8: (6, 2), 11: (9, 1)}  # dies at: (its last save, phases left)


@pytest.fixture(scope='module')
def dead(documents, tmp_path_factory, mesh):
  """Folders of runs that died in each phase, by the batch they died at."""
  folders = {at: tmp_path_factory.mktemp('dead') for at in LEFT}
  with jax.set_mesh(mesh(fsdp=4, tensor=2)):
    for at, folder in folders.items():
      data = toy.Data(documents, at, toy.die(folder, LEFT[at][0]))
      with pytest.raises(toy.Dies):
        toy.train(folder, data, ramp=RAMP, save_every=3)
  return folders


@pytest.mark.parametrize('at', LEFT)
def test_resume_compiles_the_phases_that_are_left(documents, dead, mesh, at):
  with jax.set_mesh(mesh(fsdp=4, tensor=2)):
    run = lambda: toy.train(dead[at], toy.Data(documents), ramp=RAMP, save_every=3)
    assert compiled(run) == LEFT[at][1]


def test_stop_in_a_rewinding_run_loses_nothing(documents, tmp_path):
  bad = {10: float('nan')}
  fields = dict(on_bad_step='rewind', rewind_steps=3, eval_every=0, steps=12)
  whole, rows = train(tmp_path / 'a', documents, bad, **fields)
  term = lambda: os.kill(os.getpid(), signal.SIGTERM)
  with pytest.raises(Preempted):
    train(tmp_path / 'b', documents, bad, 13, term, **fields)
  again, found = train(tmp_path / 'b', documents, bad, **fields)
  toy.equal(whole, again)
  assert found == rows


def test_a_stage_does_not_count_what_its_process_did_before(tmp_path):
  """A herd trains one stage after another in one process."""
  config = tmp_path / 'config.json'
  process, now = 1000.0, 1200.0
  config.write_text('{}')
  os.utime(config, (1190.0, 1190.0))
  assert goodput._began(config, process, now) == 1190.0
  os.utime(config, (1005.0, 1005.0))  # the first stage, or a run of one
  assert goodput._began(config, process, now) == process
  os.utime(config, (10.0, 10.0))  # a restart
  assert goodput._began(config, process, now) == process
  assert goodput._began(config, process, 90_000.0) == 90_000.0  # an old notebook


def test_a_board_that_cannot_write_ends_the_run_and_does_not_hang_it(tmp_path):
  writer = metrics.Writer(tmp_path, 0)
  writer.write(1, {'loss': 1.0})
  # As after an error of its own: nothing is taken from the queue any more.
  next(t for t in writer.boards[0].threads if hasattr(t, 'stop')).stop()
  with pytest.raises(OSError, match='No space left'):
    writer.write(2, {'loss': 1.0})
