"""Rows, Examples and held-out batches: nothing lost or repeated, exact resume."""

import json

import numpy as np
import pytest
import streams

from llama3_jax.base.errors import UserError
from llama3_jax.data import mix
from llama3_jax.data import pack
from llama3_jax.data import pipeline
from llama3_jax.data.config import DataConfig
from llama3_jax.train import sources as mixtures


def stream(batches):
  """(tokens, targets) of batches as one row of pairs."""
  return tuple(
    np.concatenate([getattr(b, name).ravel() for b in batches])
    for name in ('tokens', 'targets')
  )


def test_packing_gives_back_every_pair_of_every_document():
  data = streams.rows([(0, {'web': 1})], lanes=1)
  tokens, targets = stream([data.batch(2, 37) for _ in range(40)])
  source, order = streams.sources()['web'], pipeline._order(50, 0, 'web')
  documents = [source[int(order[i])] for i in range(200)]
  inputs = np.concatenate([d[:-1] for d in documents])[: len(tokens)]
  wanted = np.concatenate([d[1:] for d in documents])[: len(tokens)]
  np.testing.assert_array_equal(tokens, inputs)
  np.testing.assert_array_equal(targets, wanted)


def order(seed=0, name='web', count=50, epochs=1):
  """[epochs, count]: numbers of the documents in the order in which they come."""
  source = streams.Source(name, [5] * count)
  data = pipeline.Rows({name: source}, [(0, {name: 1})], seed, lanes=1)
  tokens = data.batch(epochs * count, 4).tokens  # a document a row
  return tokens[:, 2].reshape(epochs, count) - 1000


def test_every_epoch_is_a_permutation_of_its_own():
  first, second = order(epochs=2)
  for found in (first, second):
    assert sorted(found) == list(range(50))
    assert np.sum(found == np.arange(50)) < 10  # not the order on disk
  assert np.sum(first == second) < 10


def test_order_depends_on_the_seed_and_the_source_and_on_nothing_else():
  one = order(seed=0)
  np.testing.assert_array_equal(one, order(seed=0))
  assert np.sum(one == order(seed=1)) < 10
  assert np.sum(one == order(name='code')) < 10


def test_every_document_comes_once_an_epoch():
  data = streams.rows([(0, {'math': 1})])
  epoch = int(streams.sources()['math'].lengths.sum()) - 40
  for _ in range(2):
    tokens, _ = stream([data.batch(1, epoch)])
    starts = np.flatnonzero(tokens == 1)
    assert sorted(tokens[starts + 2]) == list(range(1000, 1040))


def test_no_target_crosses_a_document_border():
  tokens, targets = stream([streams.rows().batch(4, 64) for _ in range(10)])
  assert not np.any(targets == 1)  # bos is an input only
  assert not np.any(tokens == 2)  # eos is a target only


def test_segments_count_from_one_in_each_row_and_change_at_each_document():
  batch = streams.rows().batch(16, 64)
  assert np.all(batch.segment[:, 0] == 1)
  begins = batch.tokens[:, 1:] == 1
  np.testing.assert_array_equal(np.diff(batch.segment, axis=1) == 1, begins)
  assert np.all(batch.weight == 1)


def test_positions_run_through_the_row_or_restart_at_each_document():
  whole, own = (
    streams.rows().batch(8, 64),
    streams.rows(positions='document').batch(8, 64),
  )
  np.testing.assert_array_equal(whole.position, np.tile(np.arange(64), (8, 1)))
  np.testing.assert_array_equal(whole.tokens, own.tokens)
  for segment, position in zip(own.segment, own.position):
    for s in np.unique(segment):
      inside = position[segment == s]
      np.testing.assert_array_equal(inside, np.arange(len(inside)))


def test_unknown_positions_are_refused():
  with pytest.raises(UserError, match='data.positions'):
    streams.rows(positions='rows').batch(1, 8)


def test_a_document_longer_than_the_row_goes_on_in_the_next():
  data = pipeline.Rows({'a': streams.Source('a', [100])}, [(0, {'a': 1})], 0, lanes=1)
  batch = data.batch(3, 33)
  np.testing.assert_array_equal(batch.segment, 1)
  np.testing.assert_array_equal(batch.tokens.ravel()[3:], np.arange(103, 199))


def test_batch_shapes_may_change_without_losing_or_repeating_tokens():
  whole = stream([streams.rows(lanes=1).batch(1, 12_000)])
  data = streams.rows(lanes=1)
  shapes = [(2, 50), (4, 100), (3, 700), (1, 13), (8, 500), (1, 5387)]
  parts = stream([data.batch(*shape) for shape in shapes])
  for a, b in zip(whole, parts):
    np.testing.assert_array_equal(a, b)
  assert data.tokens == 12_000


def test_restore_continues_exactly_also_across_a_change_of_shape_and_phase():
  data = streams.rows()
  for step in range(30):
    state = json.loads(json.dumps(data.state()))
    shape = (2, 64) if step < 10 else (3, 128)
    expected = data.batch(*shape)
    again = streams.rows()
    again.restore(state)
    got = again.batch(*shape)
    assert again.state() == data.state() and again.tokens == data.tokens
    for name in vars(expected):
      np.testing.assert_array_equal(getattr(got, name), getattr(expected, name))
  assert data.tokens > 2 * 3000  # the second phase has begun


def test_state_is_small():
  data = streams.rows()
  data.batch(64, 256)
  assert len(json.dumps(data.state())) < 500


def test_rows_of_a_batch_are_of_different_documents_and_each_goes_on_in_the_next():
  long = {'a': streams.Source('a', [1000] * 40)}
  data = pipeline.Rows(long, [(0, {'a': 1})], 0, lanes=4)
  first, second = data.batch(4, 50), data.batch(4, 50)
  assert len(set(first.tokens[:, 2])) == 4
  np.testing.assert_array_equal(first.targets[:, -1], second.tokens[:, 0])


def test_an_edited_past_is_refused_and_an_edited_future_is_accepted():
  data = streams.rows()
  data.batch(2, 500)
  state, expected = data.state(), data.batch(2, 64)
  future = streams.rows([streams.PHASES[0], (4000, {'code': 1})])
  future.restore(state)
  np.testing.assert_array_equal(future.batch(2, 64).tokens, expected.tokens)
  past = streams.rows([(0, {'web': 0.5, 'code': 0.5}), streams.PHASES[1]])
  with pytest.raises(UserError, match='data.(mix|changes)'):
    past.restore(state)
  with pytest.raises(UserError, match="'code' is gone"):
    streams.rows([(0, {'web': 1})]).restore(state)
  with pytest.raises(UserError, match='^seed='):
    streams.rows(seed=1).restore(state)
  assert past.tokens == 0  # a refused restore changes nothing


def test_another_content_of_a_used_source_is_refused():
  data = streams.rows()
  data.batch(2, 500)
  changed = streams.sources()
  changed['code'] = streams.Source('code', changed['code'].lengths, 'other')
  with pytest.raises(UserError, match='data.(mix|changes)'):
    pipeline.Rows(changed, streams.PHASES, 0, lanes=8).restore(data.state())


def test_shards_of_processes_are_the_rows_of_the_global_batch():
  whole = streams.rows()
  parts = [streams.rows() for _ in range(4)]
  for shape in ((8, 64), (4, 200)):
    expected = whole.batch(*shape)
    got = [part.batch(*shape, shard=(i, 4)) for i, part in enumerate(parts)]
    for name in vars(expected):
      joined = np.concatenate([getattr(g, name) for g in got])
      if name != 'segment':
        np.testing.assert_array_equal(joined, getattr(expected, name))
    np.testing.assert_array_equal(
      np.concatenate([g.segment for g in got]), expected.segment
    )
  assert all(part.state() == whole.state() for part in parts)


def test_a_process_reads_only_the_documents_of_its_rows():
  data = pipeline.Rows({'a': streams.Source('a', [50] * 100)}, [(0, {'a': 1})], 0)
  data.batch(8, 490, shard=(3, 8))
  assert len(data.sources['a'].read) <= 11


def test_batch_that_processes_cannot_share_is_refused():
  with pytest.raises(UserError, match='multiple of 3'):
    streams.rows().batch(8, 16, shard=(0, 3))


def test_source_without_documents_is_refused():
  with pytest.raises(UserError, match='data.mix.a'):
    pipeline.Rows({'a': streams.Source('a', [])}, [(0, {'a': 1})], 0)


def test_drawn_shares_follow_the_mix():
  data = streams.rows([(0, {'web': 0.5, 'code': 0.3, 'math': 0.2})])
  for _ in range(50):
    data.batch(8, 256)
  total = sum(data.drawn.values())
  for name, share in (('web', 0.5), ('code', 0.3), ('math', 0.2)):
    assert data.drawn[name] / total == pytest.approx(share, abs=0.01)


def test_choose_sees_the_counts_of_pairs():
  data = streams.rows()
  data.batch(1, 100)
  phases = mix.schedule(streams.PHASES, streams.sources())
  assert mix.choose(phases, data.drawn) in ('web', 'code')


def test_heldout_gives_every_document_once_and_pads_the_end():
  found = streams.sources()
  batches = pipeline.heldout(found, 4, 128, 1000)
  pairs = sum(int(s.lengths.sum()) - len(s) for s in found.values())
  assert sum(b.weight.sum() for b in batches) == pairs
  assert all(b.tokens.shape == (4, 128) for b in batches)
  assert sum((b.tokens == 1).sum() for b in batches) == 120
  last = batches[-1]
  np.testing.assert_array_equal(last.segment == 0, last.weight == 0)
  short = pipeline.heldout(found, 4, 128, 2)
  assert len(short) == 2
  np.testing.assert_array_equal(short[1].tokens, batches[1].tokens)


def test_few_heldout_batches_are_of_many_documents():
  found = {'a': streams.Source('a', [1000] * 8)}
  (batch,) = pipeline.heldout(found, 4, 64, 1)
  assert len(set(batch.tokens[:, 2])) == 4


def test_heldout_smaller_than_a_row_gives_one_padded_row():
  (batch,) = pipeline.heldout({'a': streams.Source('a', [20])}, 2, 64, 5)
  assert batch.weight.sum() == 19 and batch.segment[1].sum() == 0


def test_heldout_of_empty_sources_is_empty():
  assert pipeline.heldout({'a': streams.Source('a', [])}, 2, 64, 5) == []


def test_evaluation_of_sources_that_hold_nothing_out_is_empty():
  data, held = DataConfig(mix={'general': 1.0}), {'general': streams.Source('a', [])}
  assert mixtures.evaluator(data, held, 4, 16, loss=None)(params=None) == {}


def test_pack_gives_padding_no_weight():
  batch = pack.pack(np.arange(8), np.arange(8), np.array([0] * 5 + [-1] * 3), 4)
  np.testing.assert_array_equal(batch.weight, [[1, 1, 1, 1], [1, 0, 0, 0]])
  np.testing.assert_array_equal(batch.segment, [[1, 1, 1, 1], [1, 0, 0, 0]])


@pytest.mark.parametrize('phase,field', [(0, 'data.mix.b'), (1, 'data.changes')])
def test_source_without_documents_is_named_where_it_is_asked_for(phase, field):
  sources = {'a': streams.Source('a', [40, 50]), 'b': ()}
  phases = [(0, {'a': 1.0}), (100, {'a': 1.0})]
  phases[phase][1]['b'] = 1.0
  with pytest.raises(UserError, match=f'{field}: the folder of source b'):
    pipeline.Rows(sources, phases, seed=0)
