"""Rates of a step report: tokens and seconds since the last one; seconds of a run."""

import types

import pytest
import toy_run as toy

from llama3_jax.base import log
from llama3_jax.model import flops
from llama3_jax.reliable import goodput
from llama3_jax.train import config as run_config
from llama3_jax.train import late as late_lib
from llama3_jax.train import metrics
from llama3_jax.train import schedule


class Clock:
  """The seconds of a run's steps, which pass only where a test says so."""

  def __init__(self):
    self.useful, self.passed = 0.0, 0.0

  def mark(self, kind):
    assert kind == 'step'
    self.useful, self.passed = self.useful + self.passed, 0.0

  def goodput(self):
    return 0.5


@pytest.fixture(autouse=True)
def peak(monkeypatch):
  monkeypatch.setattr(flops, 'peak', lambda: (1e9, 'test'))


def test_rates_are_of_the_time_since_the_last_call():
  meter, useful = metrics.Meter(toy.C, 7.0), 7.0
  for tokens, seconds in ((800, 4.0), (1000, 0.5), (300, 30.0)):
    useful += seconds
    row = meter.rates(tokens, 16, useful)
    assert row['seconds'] == seconds
    assert row['tokens_per_s'] == pytest.approx(tokens / seconds)
    used = tokens / seconds * flops.per_token(toy.C, 16) / 1e9
    assert row.get('mfu', used) == pytest.approx(used)


def test_more_than_the_peak_is_no_utilisation():
  meter = metrics.Meter(toy.C)
  least = 1e9 / flops.per_token(toy.C, 16)  # tokens that take the peak a second
  assert meter.rates(0.5 * least, 16, 1.0)['mfu'] == pytest.approx(0.5)
  assert 'mfu' not in meter.rates(2 * least, 16, 2.0)


def test_steps_without_time_have_no_rate():
  meter = metrics.Meter(toy.C)
  assert meter.rates(0, 16, 3.0) == {}  # the compiled step alone
  assert meter.rates(300, 16, 3.0) == {}
  assert meter.rates(300, 16, 6.0)['seconds'] == 3.0


def late_of(done, clock, **train):
  """(Late that writes to a dict, that dict, its config's phase)."""
  rows, config = {}, toy.config(**train)
  writer = types.SimpleNamespace(write=lambda step, row: rows.update({step: row}))
  late = late_lib.Late(writer, toy.C, run_config.of(config), done, clock, None)
  (phase,) = schedule.ramp(config.train)
  return late, rows, phase


@pytest.mark.parametrize('done', [0, 6])
def test_row_has_the_tokens_and_seconds_of_its_own_steps(done):
  """Steps of growing length in seconds; a row every 4, of a start and of the end."""
  clock = Clock()
  late, rows, phase = late_of(done, clock, steps=14, log_every=4)
  tokens = phase.batch * phase.length
  for step in range(done + 1, 15):
    late.put(step, {'loss': 1.0}, step * tokens, phase)
    clock.passed += step
  late.flush()
  due = [s for s in range(done + 1, 15) if s in (done + 1, 14) or s % 4 == 0]
  assert sorted(rows) == due
  before = done
  for step in due:
    steps = range(before + 1, step + 1)
    assert rows[step]['tokens'] == step * tokens
    assert rows[step]['seconds'] == sum(steps)
    rate = len(steps) * tokens / sum(steps)
    assert rows[step]['tokens_per_s'] == pytest.approx(rate)
    before = step


def test_a_compiled_step_counts_in_no_rate():
  """Ten seconds of compilation at steps 1 and 3 (a ramp); a step takes two."""
  clock = Clock()
  late, rows, phase = late_of(0, clock, steps=4, log_every=2)
  for step in range(1, 5):
    compiled = 10.0 if step in (1, 3) else 0.0
    late.put(step, {'loss': 1.0}, 0, phase, compiled)
    clock.passed += 0.0 if compiled else 2.0
  late.flush()
  assert rows[1]['compile_s'] == 10.0 and 'tokens_per_s' not in rows[1]
  assert 'compile_s' not in rows[2] and rows[4]['compile_s'] == 10.0
  for step in (2, 4):
    assert rows[step]['tokens_per_s'] == phase.batch * phase.length / 2.0


@pytest.mark.parametrize('at_once', [True, False])
def test_a_row_is_of_its_own_steps_whether_or_not_dispatch_waits(at_once):
  """Every step takes 2 s. A row that is written at once, as before an evaluation, and
  one that is written after the next dispatch have the same rate."""

  class Value(float):
    def is_ready(self):
      return at_once

  clock = Clock()
  late, rows, phase = late_of(0, clock, steps=12, log_every=1)
  late.put(1, {'loss': Value(1.0)}, 0, phase, 5.0)
  for step in range(2, 13):
    clock.passed += 2.0 if at_once else 0.0
    late.put(step, {'loss': Value(1.0)}, 0, phase)
    clock.passed += 0.0 if at_once else 2.0
    if step % 3 == 0:
      late.flush()
  late.flush()
  rate = phase.batch * phase.length / 2.0
  assert [rows[s]['tokens_per_s'] for s in range(2, 13)] == [rate] * 11


def test_time_left_is_told_from_the_second_row_on(caplog, monkeypatch):
  """Steps of 3 s each after a first one that took 100 s: 10 steps are left at 2."""
  moment = types.SimpleNamespace(now=0.0)
  moment.perf_counter = lambda: moment.now
  monkeypatch.setattr(late_lib, 'time', moment)
  late, _, phase = late_of(0, Clock(), steps=12, log_every=1)
  with caplog.at_level('INFO', logger='absl'):
    moment.now = 100.0
    for step in range(1, 12):
      late.put(step, {'loss': 1.0}, 0, phase)
      moment.now += 3.0
  lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith('step')]
  assert lines[0].startswith('step 1/12') and 'eta' not in lines[0]
  assert lines[1].startswith('step 8/12') and lines[1].endswith('eta 0:12')


def test_seconds_after_a_save_are_lost_and_those_before_it_are_kept(tmp_path):
  clock = goodput.Clock(tmp_path)
  clock.seconds['step'] = 10.0
  clock.back(6.0)
  assert (clock.useful, clock.seconds['lost']) == (6.0, 4.0)
  clock.seconds['step'] += 3.0
  clock.back(6.0)  # the same save once more
  assert (clock.useful, clock.seconds['lost']) == (6.0, 7.0)
  clock.back(8.0)  # a save of another account: nothing is lost twice
  assert (clock.useful, clock.seconds['lost']) == (8.0, 7.0)


def test_step_report_fits_eighty_columns_with_its_time():
  row = dict(loss=12.3456789, accuracy=0.98765, grad_norm=123.456, lr=0.00299212)
  row |= dict(tokens_per_s=1.2345e7, bad_steps=12.0)
  text = metrics.line(1_100_000, 1_100_000, row, 3_599_999)
  assert len(log.TIME + text) <= 80 and text.endswith('eta 999:59:59')
  assert 'loss 12.3' in text and '12 bad' in text
  usual = dict(loss=4.2612, lr=0.003, bad_steps=0.0, tokens_per_s=10_120.0)
  expected = 'step 100/1300  loss 4.26  lr 3.0e-3  10.1k tok/s  eta 2:10'
  assert metrics.line(100, 1300, usual, 130) == expected
  first = dict(loss=8.13, lr=0.0, bad_steps=1.0, compile_s=21.04)
  expected = 'step 1/60  loss 8.13  lr 0  1 bad  21.0 s with compilation'
  assert metrics.line(1, 60, first) == expected


def test_report_of_an_evaluation_has_the_mix_first():
  losses = {'eval/web': 2.0, 'eval/code': 1.0, 'eval_loss': 1.5}
  text = metrics.held_out(20, 60, losses)
  assert text == 'step 20/60  held-out loss 1.5  web 2  code 1'
  assert 'nothing is held out' in metrics.held_out(0, 60, {})
  alone = metrics.held_out(0, 60, {'eval/web': 2.0, 'eval_loss': 2.0})
  assert alone == 'step 0/60  held-out loss 2'
