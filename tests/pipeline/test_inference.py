"""Throughput and latency of generation over stages, against closed forms (6.1)."""

import types

import pytest
import toy_generate as toy

from configs import schedule as config
from experiments import schedule as experiment
from llama3_jax.base.errors import UserError
from llama3_jax.generate import stage_time
from llama3_jax.pipeline import inference
from llama3_jax.pipeline.inference import Load
from llama3_jax.pipeline.inference import Stage

LOAD = Load(rows=16, prompt=100, answer=50)


def test_prompts_gain_what_the_stages_do_at_the_same_time():
  """Microbatches of 1/m of the time each: S m / (m + S - 1) of one stage at a time."""
  base = inference.run(Stage(8.0, 1.0), 2, 1, LOAD)
  assert base.read == pytest.approx(1600 / 16)
  for parts, gain in ((2, 4 / 3), (4, 8 / 5)):
    found = inference.run(Stage(8.0 / parts, 1.0), 2, parts, LOAD)
    assert found.read / base.read == pytest.approx(gain)


def test_tokens_gain_only_as_far_as_fewer_rows_take_less_time():
  base = inference.run(Stage(0.0, 1.0), 2, 1, LOAD)
  assert base.last == pytest.approx(100)  # each token passes two stages
  # Rows cost nothing: two microbatches give twice the tokens at the same latency.
  assert inference.run(Stage(0.0, 0.5), 2, 2, LOAD).last == pytest.approx(50.5)
  # A step costs the same for half of the rows: nothing is won.
  same = inference.run(Stage(0.0, 1.0), 2, 2, LOAD)
  assert same.last == pytest.approx(101) and same.decoded < base.decoded
  # More microbatches than stages wait for their turn.
  assert inference.run(Stage(0.0, 0.5), 2, 4, LOAD).last == pytest.approx(100.5)


def test_messages_cost_a_way_around_the_ring():
  slow = inference.run(Stage(0.0, 1.0, 0.25), 2, 1, LOAD)
  assert slow.last == pytest.approx(100 + 0.5 * 51)  # that of the prompts is one too
  hidden = inference.run(Stage(0.0, 1.0, 0.25), 2, 4, LOAD)
  assert hidden.last == pytest.approx(4 * 50 + 1 + 0.5 + 0.5, abs=0.6)


def test_times_are_measured_or_given(tmp_path):
  c = config.get_config('inference')
  c.update(dict(prompt=64, answer=4, rows=4, microbatches=(1, 2)))
  measured = experiment.main(c, tmp_path / 'measured')['rows']
  assert [row['m'] for row in measured] == [1, 2]
  assert all(row['decode_s'] > 0 and row['total'] > 0 for row in measured)
  c.update(dict(prefill_s=(2.0, 1.0), decode_s=(1.0, 0.5)))
  given = experiment.main(c, tmp_path / 'given')['rows']
  assert [row['last_s'] for row in given] == [4 + 8, 3 + 4.5 - 0.5]
  assert 'Microbatches' in (tmp_path / 'given' / 'report.html').read_text()


@pytest.mark.parametrize('busy, calls', [(1, 12), (9, None)])
def test_a_busy_machine_is_measured_again_or_said(monkeypatch, busy, calls):
  """The first `busy` rounds of prompts alone take longer than those with answers."""
  asked, clock = [], [0.0]

  def complete(engine, prompts, stops, settings):
    asked.append(settings.max_new)
    late = settings.max_new == 1 and asked.count(1) <= 3 * busy
    clock[0] += 9 if late else 2 + settings.max_new

  monkeypatch.setattr(stage_time, 'complete', complete)
  watch = types.SimpleNamespace(perf_counter=lambda: clock[0])
  monkeypatch.setattr(stage_time, 'time', watch)
  load = inference.Load(2, 8, 4)
  if calls is None:
    with pytest.raises(UserError, match='answer=4: .*prefill_s and decode_s'):
      stage_time.measure(toy.CONFIG, 1, 1, load)
    return
  found = stage_time.measure(toy.CONFIG, 1, 1, load)
  assert len(asked) == calls and (found.prefill, found.decode) == (2, 1)


@pytest.mark.parametrize(
  'changes, said',
  [
    (dict(microbatches=(3,)), 'rows=16 do not divide into microbatches=3'),
    (dict(prefill_s=(1.0,)), 'prefill_s'),
    (dict(prefill_s=(1.0, 1.0, 1.0)), 'decode_s'),
    (dict(decode_s=(1.0, 1.0, 1.0)), 'prefill_s'),
    (dict(answer=1), 'answer=1'),
  ],
)
def test_wrong_fields_are_named(tmp_path, changes, said):
  c = config.get_config('inference')
  c.update(changes)
  with pytest.raises(UserError, match=said):
    experiment.main(c, tmp_path / 'run')
