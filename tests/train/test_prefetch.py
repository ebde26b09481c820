"""Batches read ahead: the same batches, the same saves, errors when they are due."""

import json
import threading
import time

import numpy as np
import pytest
import streams as streams
import toy_run as toy

from llama3_jax.train import prefetch
from llama3_jax.train import schedule

PHASES = (schedule.Phase(0, 4, 32), schedule.Phase(400, 8, 64))


def batches(data, ahead, share=(0, 1)):
  return prefetch.Batches(data, PHASES, share, ahead)


@pytest.mark.parametrize('ahead', [0, 1, 3])
def test_any_number_ahead_gives_the_batches_states_and_tokens_of_one_by_one(ahead):
  plain, read = streams.rows(), batches(streams.rows(), ahead)
  for _ in range(12):
    shape = schedule.phase(PHASES, plain.tokens)
    expected = plain.batch(shape.batch, shape.length)
    phase, rows = read.take()
    assert phase == shape
    np.testing.assert_array_equal(rows.tokens, expected.tokens)
    np.testing.assert_array_equal(rows.segment, expected.segment)
    assert (read.state(), read.tokens) == (plain.state(), plain.tokens)


def test_a_state_of_one_number_ahead_is_continued_with_another():
  first, plain = batches(streams.rows(), 4), batches(streams.rows(), 0)
  for _ in range(7):
    first.take(), plain.take()
  saved = json.loads(json.dumps(first.state()))
  again = batches(streams.rows(), 2)
  again.take()
  again.restore(saved)
  for _ in range(5):
    expected = plain.take()[1].tokens
    np.testing.assert_array_equal(again.take()[1].tokens, expected)
  first.restore(saved)  # threads that still read for the time before change nothing
  np.testing.assert_array_equal(first.take()[1].tokens, streams_at(7).tokens)


def streams_at(number):
  plain = batches(streams.rows(), 0)
  return [plain.take()[1] for _ in range(number + 1)][-1]


class Waits(type(streams.rows())):
  """Rows that are slow to read, and say which threads read them."""

  seen = ()

  def read(self, plan, shard=(0, 1)):
    self.seen += (threading.current_thread(),)
    if getattr(self, 'fails_at', None) == len(self.seen):
      raise OSError(5, 'Input/output error')
    return super().read(plan, shard)


def waiting():
  return Waits(streams.sources(), streams.PHASES, 0, 'row', 8)


def test_the_next_batches_are_read_while_one_is_used():
  data = waiting()
  read = batches(data, 2)
  read.take()
  for _ in range(500):
    if len(data.seen) >= 3:
      break
    time.sleep(0.01)
  assert len(data.seen) >= 3  # one taken, two ahead
  assert threading.main_thread() not in data.seen
  data = waiting()
  batches(data, 0).take()
  assert data.seen == (threading.main_thread(),)


def test_what_cannot_be_read_is_raised_when_it_is_due():
  data = waiting()
  data.fails_at = 3
  read = batches(data, 1)
  read.take(), read.take()
  with pytest.raises(OSError, match='Input/output error'):
    read.take()
  assert read.tokens == 2 * 4 * 32


def test_processes_read_their_rows_ahead():
  whole = batches(streams.rows(), 0)
  parts = [batches(streams.rows(), 2, (i, 2)) for i in range(2)]
  for _ in range(6):
    expected = whole.take()[1].tokens
    got = np.concatenate([part.take()[1].tokens for part in parts])
    np.testing.assert_array_equal(got, expected)


def test_a_run_that_reads_ahead_stops_and_resumes_in_the_bits_of_one_that_does_not(
  documents, tmp_path
):
  whole, rows = toy.train(tmp_path / 'whole', toy.Data(documents))

  def dies():
    raise toy.Dies

  with pytest.raises(toy.Dies):
    toy.train(tmp_path / 'ahead', toy.Data(documents, 10, dies), prefetch=3)
  data = toy.Data(documents)
  state, again = toy.train(tmp_path / 'ahead', data, prefetch=2)
  assert data.tokens == 12 * 8 * 16  # of the steps, not of what was planned ahead
  toy.equal(whole.params, state.params)
  assert again == rows
