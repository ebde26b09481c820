"""Rates of a step report: tokens and seconds since the last one; seconds of a run."""

import types

import pytest
import toy_run as toy

from llama3_jax.model import flops
from llama3_jax.reliable import goodput
from llama3_jax.train import config as run_config
from llama3_jax.train import late as late_lib
from llama3_jax.train import metrics
from llama3_jax.train import schedule


class Time:
  """A clock that stands still until it is told."""

  def __init__(self):
    self.now = 1000.0

  def perf_counter(self):
    return self.now


@pytest.fixture
def clock(monkeypatch):
  found = Time()
  monkeypatch.setattr(metrics, 'time', found)
  monkeypatch.setattr(flops, 'peak', lambda: (1e9, 'test'))
  return found


def test_rates_are_of_the_time_since_the_last_call(clock):
  meter = metrics.Meter(toy.C)
  for tokens, seconds in ((800, 4.0), (1000, 0.5), (300, 30.0)):
    clock.now += seconds
    row = meter.rates(tokens, 16)
    assert row['seconds'] == seconds
    assert row['tokens_per_s'] == pytest.approx(tokens / seconds)
    used = tokens / seconds * flops.per_token(toy.C, 16) / 1e9
    assert row.get('mfu', used) == pytest.approx(used)


def test_more_than_the_peak_is_no_utilisation(clock):
  meter = metrics.Meter(toy.C)
  least = 1e9 / flops.per_token(toy.C, 16)  # tokens that take the peak a second
  clock.now += 1
  assert meter.rates(0.5 * least, 16)['mfu'] == pytest.approx(0.5)
  clock.now += 1
  assert 'mfu' not in meter.rates(2 * least, 16)


@pytest.mark.parametrize('done', [0, 6])
def test_row_has_the_tokens_and_seconds_of_its_own_steps(clock, done):
  """Steps of growing length in seconds; a row every 4, of a start and of the end."""
  rows, config = {}, toy.config(steps=14, log_every=4)
  writer = types.SimpleNamespace(write=lambda step, row: rows.update({step: row}))
  share = types.SimpleNamespace(goodput=lambda: 0.5)
  late = late_lib.Late(writer, toy.C, run_config.of(config), done, share, None)
  (phase,) = schedule.ramp(config.train)
  tokens = phase.batch * phase.length
  for step in range(done + 1, 15):
    late.put(step, {'loss': 1.0}, step * tokens, phase)
    clock.now += step
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
  assert len('12:34:56 ' + text) <= 80 and 'eta 999:59:59' in text
  assert 'loss 12.3' in text
  usual = {k: v for k, v in row.items() if k != 'accuracy'}
  usual |= dict(bad_steps=1.0, tokens_per_s=12_345.0)
  assert metrics.line(100, 1300, usual, 130).endswith('bad 1 12.3k tok/s')
