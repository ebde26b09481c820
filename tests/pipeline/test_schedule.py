"""Pipeline schedules as tables: valid for every size, ideal bubble, bounded memory."""

import dataclasses
import itertools

import numpy as np
import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.pipeline import layout as layouts
from llama3_jax.pipeline import picture
from llama3_jax.pipeline import schedule as schedules
from llama3_jax.pipeline import slots

FORMS = schedules.FORMS
SIZES = list(itertools.product((1, 2, 3, 4), (1, 2, 3), (1, 2, 3, 5, 8)))


@pytest.mark.parametrize('form', [*FORMS, 'forward'])
def test_every_schedule_is_valid(form):
  """Any N; also fewer microbatches than stages, and not a multiple of them or of N."""
  for stages, chunks, m in SIZES:
    for group in range(1, m + 1):
      s = schedules.build(stages, chunks, m, group, form)
      assert not schedules.problems(s), (stages, chunks, m, group)


@pytest.mark.parametrize('form', FORMS)
def test_bubble_is_that_of_the_paper(form):
  """(PP - 1) / (V M) where N is at least PP and divides M."""
  for stages, chunks, m in itertools.product((1, 2, 4, 8), (1, 2, 4), (8, 10, 16)):
    for group in (n for n in range(stages, m + 1) if m % n == 0):
      s = schedules.build(stages, chunks, m, group, form)
      ideal = (stages - 1) / (chunks * m)
      assert schedules.bubble(s) == pytest.approx(ideal), (stages, chunks, m, group)


def test_aligned_ticks_hold_one_kind_of_operation():
  for stages, chunks, m in SIZES:
    s = schedules.build(stages, chunks, m)
    forward = (s.op == schedules.FORWARD).any(1)
    assert not (forward & (s.op == schedules.BACKWARD).any(1)).any()


@pytest.mark.parametrize('backward', [1, 2, 3])
def test_aligned_form_has_the_ideal_bubble_in_step(backward):
  """Whatever a backward costs."""
  for stages, chunks, m in ((4, 1, 8), (4, 2, 8), (2, 3, 6), (8, 2, 16)):
    s = schedules.build(stages, chunks, m)
    ideal = (stages - 1) / (chunks * m)
    assert schedules.lockstep(s, 1, backward) == pytest.approx(ideal)


def test_in_step_the_aligned_form_beats_the_classical_one():
  aligned, classical = (schedules.build(4, 2, 8, 4, f) for f in ('aligned', '1f1b'))
  assert schedules.lockstep(aligned) == pytest.approx(3 / 16)
  assert schedules.lockstep(classical) > 2 * schedules.lockstep(aligned)
  assert list(schedules.live(aligned)) == list(schedules.live(classical))


@pytest.mark.parametrize('form', ['aligned', '1f1b'])
def test_live_inputs_do_not_grow_with_microbatches(form):
  for chunks in (1, 2):
    few, many = (schedules.build(4, chunks, m, 4, form) for m in (8, 32))
    assert list(schedules.live(few)) == list(schedules.live(many))
    assert slots.inputs(few).size == slots.inputs(many).size
    assert slots.gradients(few).size == slots.gradients(many).size
  gpipe = schedules.build(4, 2, 32, 4, 'gpipe')
  assert list(schedules.live(gpipe)) == [64] * 4


def test_classical_form_keeps_as_many_inputs_as_stages_follow():
  s = schedules.build(4, 1, 12, 4, '1f1b')
  assert list(schedules.live(s)) == [4, 3, 2, 1]


def test_group_is_the_run_of_one_chunk():
  """Figure 6: N = 5 forwards of the first chunk, then 5 of the second."""
  s = schedules.build(4, 2, 10, 5)
  forward = s.op[:, 0] == schedules.FORWARD
  done = list(zip(s.chunk[forward, 0], s.microbatch[forward, 0]))
  assert done[:10] == [(0, m) for m in range(5)] + [(4, m) for m in range(5)]
  assert schedules.order(2, 5, 2)[-2:] == [(0, 4), (1, 4)]  # the last group is short


def broken(s, change):
  tables = {n: getattr(s, n).copy() for n in ('op', 'chunk', 'microbatch')}
  change(tables)
  return schedules.problems(dataclasses.replace(s, **tables))


def test_checker_finds_each_mistake():
  s = schedules.build(2, 1, 2)

  def late(tables):  # stage 1 runs in the tick in which its input is made
    for t in tables.values():
      t[:-1, 1] = t[1:, 1].copy()
      t[-1, 1] = 0

  def lost(tables):
    tables['op'][0, 0] = schedules.IDLE

  def twice(tables):
    tables['op'][-1, 1] = schedules.FORWARD
    tables['chunk'][-1, 1] = 1

  def stray(tables):
    tables['chunk'][0, 0] = 1

  assert any('is not after the forward of the chunk' in p for p in broken(s, late))
  assert any('never runs' in p for p in broken(s, lost))
  assert any('runs 2 times' in p for p in broken(s, twice))
  assert any('of another' in p for p in broken(s, stray))


@pytest.mark.parametrize('form', [*FORMS, 'forward'])
def test_slots_hold_what_is_read(form):
  """Playing the messages through the slots gives every operation its own input."""
  for stages, chunks, m in SIZES:
    for group in {1, min(2, m), m}:
      s = schedules.build(stages, chunks, m, group, form)
      play(s, slots.inputs(s), slots.gradients(s))


def play(s, x, g):
  kept = {'x': {}, 'g': {}}
  for t in range(s.ticks):
    sent = []
    for stage in range(s.stages):
      op, c, m = s.op[t, stage], s.chunk[t, stage], s.microbatch[t, stage]
      if op != schedules.IDLE and c > 0:
        assert kept['x'][stage, x.read[t, stage]] == (c, m)
      if op == schedules.BACKWARD and c < s.depth - 1:
        assert kept['g'][stage, g.read[t, stage]] == (c, m)
      if op == schedules.FORWARD and c < s.depth - 1:
        sent.append(('x', (stage + 1) % s.stages, x, (c + 1, m)))
      if op == schedules.BACKWARD and c > 0:
        sent.append(('g', (stage - 1) % s.stages, g, (c - 1, m)))
    for name, to, buffer, key in sent:
      slot = buffer.store[t, to]
      assert 0 <= slot < buffer.size
      kept[name][to, slot] = key


BAD = [
  (dict(group=5), 'pipeline.group=5'),
  (dict(form='zigzag'), "pipeline.form='zigzag'"),
  (dict(microbatches=0), 'microbatches=0'),
]


@pytest.mark.parametrize('change,words', BAD)
def test_impossible_schedule_is_one_line(change, words):
  sizes = dict(stages=2, chunks=1, microbatches=4) | change
  with pytest.raises(UserError, match=words) as e:
    schedules.build(**sizes)
  assert '\n' not in str(e.value)


def test_405b_has_the_papers_balance():
  """126 layers on 16 stages: one fewer in the first and in the last stage."""
  for chunks, bare in ((1, False), (2, False), (4, False), (8, True)):
    layout = layouts.Layout(126, 16, chunks, bare)
    by_stage = layout.counts.reshape(chunks, 16).sum(0)
    assert by_stage.tolist() == [7] + [8] * 14 + [7]
  assert layout.counts[0] == layout.counts[-1] == 0
  assert layout.slots == 1


def test_every_layer_has_one_place():
  for n, stages, chunks in itertools.product((4, 5, 7, 12), (2, 4), (1, 2)):
    for bare in (False, True):
      if n < stages * chunks - 2 * bare or stages * chunks <= 2:
        continue
      layout = layouts.Layout(n, stages, chunks, bare)
      assert layout.counts.sum() == n
      assert np.ptp(layout.counts[bare : len(layout.counts) - bare]) <= 1
      assert sorted(layout.source[layout.source >= 0]) == list(range(n))
      rows, places = layout.place
      assert layout.source[rows, places].tolist() == list(range(n))


def test_too_many_chunks_for_the_layers_is_one_line():
  with pytest.raises(UserError, match='model.n_layers=4'):
    layouts.Layout(4, 4, 2)
  layouts.Layout(6, 4, 2, bare=True)


def test_picture_shows_every_operation(tmp_path):
  s = schedules.build(4, 2, 10, 5)
  lines = picture.text(s).split('\n')
  assert len(lines) == 4 and lines[0].startswith('stage 0  a0 a1 a2 a3 a4 b0')
  for line in lines:
    cells = line.split()[2:]
    assert len(set(cells) - {'.'}) == 40  # 10 microbatches, 2 chunks, both ways
  picture.write(tmp_path / 'p.html', {'a < b': s})
  page = (tmp_path / 'p.html').read_text()
  (trace,) = picture.figure(s)['data']
  shade = np.array(trace['z'])
  assert (shade > 0).sum() == (shade < 0).sum() == 80
  assert trace['customdata'][0][0] == 'forward of chunk 0, microbatch 0'
  assert 'a &lt; b' in page and '0.1500' in page
