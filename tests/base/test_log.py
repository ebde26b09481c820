"""Lines of the log: their width, what long work says, no silence of half a minute."""

import time

import pytest
from absl import logging

from llama3_jax.base import log

LONG = log.TIME + 'step 20/60  held-out loss 4.638  drill 4.003  general 7.809  code 3'


@pytest.mark.parametrize('columns', [40, 60, 80])
def test_a_long_line_is_continued_below_its_words(columns):
  lines = log.wrapped(LONG, columns).split('\n')
  assert all(len(line) <= columns for line in lines)
  assert all(line.startswith(' ' * len(log.TIME)) for line in lines[1:])
  assert ' '.join(' '.join(lines).split()) == ' '.join(LONG.split())


def test_a_path_stays_whole_and_a_table_as_it_is():
  path = '/a/very-long/path' * 5
  assert path in log.wrapped(f'{log.TIME}done: {path}', 40)
  table = log.TIME + 'parameters\n' + 'x' * 90
  assert log.wrapped(table, 40) == table


@pytest.fixture
def handled(monkeypatch):
  """absl's handler on the root logger, as the launcher has it, and silent."""
  logging.use_absl_handler()
  level = logging.get_verbosity()
  logging.set_verbosity(logging.INFO)
  handler = logging.get_absl_handler()
  monkeypatch.setattr(handler.python_handler, 'emit', lambda record: None)
  yield
  logging.set_verbosity(level)


@pytest.fixture
def said(caplog, handled):
  """said(): the messages in the log so far."""
  with caplog.at_level('INFO'):
    yield lambda: [r.getMessage() for r in caplog.records]


def test_long_work_is_announced_and_then_told(said, monkeypatch):
  monkeypatch.setattr(log, 'WORK_S', 0.05)
  with log.work('reading'):
    time.sleep(0.2)
    assert said() == ['reading']
  assert said() == ['reading', 'reading: done in 0 s']


def test_short_work_says_nothing(said, monkeypatch):
  monkeypatch.setattr(log, 'WORK_S', 0.3)
  with log.work('reading'):
    pass
  time.sleep(0.5)
  assert not said()


def test_work_that_fails_is_not_done(said, monkeypatch):
  monkeypatch.setattr(log, 'WORK_S', 0.05)
  with pytest.raises(ValueError), log.work('reading'):
    time.sleep(0.2)
    raise ValueError
  assert said() == ['reading']


def test_silence_is_broken_with_what_was_said_last(said, monkeypatch):
  monkeypatch.setattr(log, 'QUIET_S', 0.2)
  with log.heart():
    logging.info('compiling the step\nwith a table')
    time.sleep(0.75)
  beats = [m for m in said() if m.startswith('still running')]
  assert 2 <= len(beats) <= 3
  assert all(m.endswith(' s after: compiling the step') for m in beats)
  time.sleep(0.5)
  assert [m for m in said() if m.startswith('still running')] == beats


def test_a_log_with_lines_needs_no_others(said, monkeypatch):
  monkeypatch.setattr(log, 'QUIET_S', 0.4)
  with log.heart():
    for _ in range(8):
      logging.info('a line')
      time.sleep(0.1)
  assert set(said()) == {'a line'}
