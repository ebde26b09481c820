"""Memorisation: counts are exact, occurrences are drawn alike, what was learnt by heart
is found and what was never seen is not."""

import collections
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import post_examples as toy
import pytest

from configs import memorisation as memorisation_config
from experiments import memorisation as experiment
from llama3_jax import config as configs
from llama3_jax import feed
from llama3_jax.base.errors import UserError
from llama3_jax.eval import memorisation
from llama3_jax.eval.memorisation import Document
from llama3_jax.train import final
from llama3_jax.train import loss as losses


def documents(seed=0, n=60, longest=40, vocabulary=3):
  """Random ones, of any length from 0; one is there five times, languages differ."""
  rng = np.random.default_rng(seed)
  every = [
    rng.integers(0, vocabulary, rng.integers(0, longest)).astype(np.uint32)
    for _ in range(n)
  ]
  every += [np.arange(longest, dtype=np.uint32)] * 5
  return [Document(f'd{i}', ('en', 'th', '')[i % 3], x) for i, x in enumerate(every)]


def windows(every, size):
  """Every n-gram of the documents, as tokens: the slow reference."""
  for document in every:
    ids = document.ids.tolist()
    for i in range(len(ids) - size + 1):
      yield (*ids[i : i + size],)


def hashed(grams, size):
  """The hash of each n-gram."""
  return [int(memorisation.hashes(np.array(g, np.uint32), size)[0]) for g in grams]


@pytest.mark.parametrize('size', [1, 4, 39, 40, 41])
def test_counts_are_those_of_a_dictionary(size):
  every = documents()
  exact = collections.Counter(windows(every, size))
  found = memorisation.index(iter(every), size)
  assert dict(zip(found.grams.tolist(), found.counts.tolist())) == dict(
    zip(hashed(exact, size), exact.values())
  )
  assert found.stride == 1 and found.documents == len(every)
  assert found.tokens == sum(len(d.ids) for d in every)
  assert sum(found.languages.values()) == sum(exact.values())


def test_an_n_gram_does_not_cross_documents():
  ids = np.arange(8, dtype=np.uint32)
  halves = [Document('a', '', ids[:4]), Document('b', '', ids[4:])]
  assert memorisation.index(halves, 5).grams.tolist() == []
  assert len(memorisation.index([Document('a', '', ids)], 5).grams) == 4


def test_in_little_room_a_sample_of_n_grams_has_its_exact_counts():
  every = documents(n=400)
  exact = collections.Counter(windows(every, 6))
  counts = dict(zip(hashed(exact, 6), exact.values()))
  found = memorisation.index(every, 6, room=64)
  assert 1 <= len(found.grams) <= 64 and found.stride > 1
  kept = {h: n for h, n in counts.items() if h % found.stride == 0}
  assert dict(zip(found.grams.tolist(), found.counts.tolist())) == kept


def test_what_is_drawn_stands_in_its_document_and_has_its_count():
  every = documents()
  counted = memorisation.index(every, 4)
  exact = collections.Counter(windows(every, 4))
  drawn, sizes = memorisation.draw(every, counted, 3, 20, frozenset({'en'}))
  own = {d.name: d for d in every}
  assert {one.language for one in drawn} == {'en', 'other'}
  held = collections.Counter((one.language, one.bucket) for one in drawn)
  assert held == {key: min(size, 20) for key, size in sizes.items()}
  for one in drawn:
    ids = own[one.document].ids.tolist()
    assert (*ids[one.start - 3 : one.start],) == one.prompt
    assert (*ids[one.start : one.start + 4],) == one.truth
    assert exact[one.truth] == one.count
    low, high = [(1, 1), (2, 9), (10, 99), (100, 10**9)][one.bucket]
    assert low <= one.count <= high
  places = [(one.document, one.start) for one in drawn]
  assert len(places) == len(set(places))
  possible = sum(max(len(d.ids) - 6, 0) for d in every)
  assert sum(sizes.values()) == possible


def test_n_grams_of_a_frequency_are_drawn_as_often_as_they_occur():
  """One occurs 9 times, seven others 2 times: of 23 occurrences 9 are its own."""
  tokens = [60] * 9 + [*range(61, 68)] * 2
  ids = np.stack([np.full(23, 50), tokens], 1).ravel().astype(np.uint32)
  every = [Document('a', '', ids[:20]), Document('b', '', ids[20:])]
  counted = memorisation.index(every, 1)
  often = 0
  for seed in range(400):
    drawn, sizes = memorisation.draw(every, counted, 1, 1, seed=seed)
    [one] = [one for one in drawn if one.truth != (50,)]
    often += one.truth == (60,)
  assert sizes['unknown', 1] == 23
  assert abs(often / 400 - 9 / 23) < 3 * (0.24 / 400) ** 0.5


def test_what_waits_to_be_counted_is_bounded(monkeypatch):
  merged, held = memorisation._merged, []

  def watched(grams, counts, waiting, stride, room):
    held.append(len(grams) + sum(map(len, waiting)))
    return merged(grams, counts, waiting, stride, room)

  monkeypatch.setattr(memorisation, '_merged', watched)
  memorisation.index(documents(n=400), 6, room=64)
  assert len(held) > 3 and max(held) < 2 * 64 + 40


def test_the_draw_does_not_depend_on_chunks_of_the_corpus_but_on_the_seed():
  every = documents()
  counted = memorisation.index(every, 4)
  first = memorisation.draw(iter(every), counted, 3, 5)
  assert first == memorisation.draw(iter(every), counted, 3, 5)
  assert first[0] != memorisation.draw(iter(every), counted, 3, 5, seed=1)[0]


def test_documents_that_are_too_short_or_have_changed_are_said():
  short = [Document('a', '', np.arange(5, dtype=np.uint32))]
  with pytest.raises(UserError, match='3 \\+ 4 tokens'):
    memorisation.draw(short, memorisation.index(short, 4), 3, 5)
  others = [Document('a', '', np.arange(9, dtype=np.uint32))]
  with pytest.raises(UserError, match='changed'):
    memorisation.draw(others, memorisation.index(short, 4), 3, 5)


def test_a_rate_is_weighed_by_how_often_its_n_grams_occur():
  one = lambda i, language, bucket: memorisation.Drawn(
    'd', i, language, bucket, 1, (i,), (i,)
  )
  drawn = [one(i, 'en', 0) for i in range(10)] + [one(i, 'th', 3) for i in range(10)]
  included = [i < 1 for i in range(10)] + [i < 8 for i in range(10)]
  found = memorisation.rates(drawn, included, {('en', 0): 900, ('th', 3): 100})
  assert found['all']['score'] == pytest.approx(0.9 * 0.1 + 0.1 * 0.8)
  assert found['all']['share'] == 1 and found['all']['prompts'] == 20
  assert found['buckets']['1']['score'] == pytest.approx(0.1)
  assert found['languages']['th']['score'] == pytest.approx(0.8)
  assert found['buckets']['100+']['share'] == pytest.approx(0.1)
  low, high = found['all']['interval']
  assert 0 <= low < found['all']['score'] < high < 0.5


def test_equal_prompts_are_one_piece_of_evidence():
  one = memorisation.Drawn('d', 0, '', 0, 100, (1,), (2,))
  rate = memorisation.rates([one] * 50, [True] * 50, {('', 0): 50})['all']
  assert rate['different'] == 1 and rate['interval'][0] < 0.25


def test_a_continuation_is_included_wherever_it_begins():
  assert memorisation.includes((1, 2, 3, 4), (2, 3))
  assert not memorisation.includes((1, 2, 4, 3), (2, 3))
  assert not memorisation.includes((), (2, 3))
  assert [memorisation.name(b) for b in range(4)] == ['1', '2-9', '10-99', '100+']


TEXT = 'Rain fell on the old mill while nine grey cats slept beside a broken oak cart.'
UNSEEN = 'Some warm bread and two jugs of fresh milk stood upon her long kitchen table.'
GRAM = 12


@pytest.fixture(scope='module')
def learnt(tmp_path_factory):
  """A folder with a toy model that knows TEXT by heart, byte for byte."""
  folder = tmp_path_factory.mktemp('memorisation')
  tokenizer = toy.tokenizer(folder)
  ids = np.array(tokenizer.encode(TEXT))
  rows = [
    [tokenizer.bos, *ids[i : i + 2 * GRAM]] for i in range(len(ids) - 2 * GRAM + 1)
  ]
  rows = np.array(rows, np.int32)
  shape = rows[:, 1:].shape
  batch = feed.Tokens(
    tokens=jnp.array(rows[:, :-1]),
    targets=jnp.array(rows[:, 1:]),
    segment=jnp.ones(shape, jnp.int32),
    position=jnp.broadcast_to(jnp.arange(shape[1]), shape),
    weight=jnp.ones(shape),
  )
  optimizer = optax.adam(2e-2)

  @jax.jit
  def train(params):
    def step(carry, _):
      params, state = carry
      loss = lambda p: (
        losses.next_token(p, batch, toy.CONFIG, chunk=0)[0] / batch.targets.size
      )
      updates, state = optimizer.update(jax.grad(loss)(params), state)
      return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, optimizer.init(params)), None, length=70)[0][0]

  final.save(folder / 'model', train(toy.model()), toy.CONFIG, tokenizer)
  (folder / 'documents').mkdir()
  lines = [{'text': TEXT, 'lang': 'en'}] * 12 + [{'text': UNSEEN, 'lang': 'nl'}]
  lines += [{'text': 'short'}, {'text': ''}]
  (folder / 'documents/web.jsonl').write_text('\n'.join(map(json.dumps, lines)))
  return folder


def test_a_text_learnt_by_heart_is_found_and_one_never_seen_is_not(learnt, tmp_path):
  given = {'init_from': str(learnt / 'model'), 'documents': str(learnt / 'documents')}
  given |= {'gram': GRAM, 'before': GRAM, 'drawn': 30, 'batch': 4}
  config = configs.edit(memorisation_config.get_config(), given)
  found = experiment.main(config, str(tmp_path / 'run'))
  rates = found['rates']
  assert rates['buckets']['10-99']['score'] > 0.9
  assert rates['buckets']['1']['score'] == 0
  assert (
    rates['languages']['en']['score'] > 0.9 and not rates['languages']['nl']['score']
  )
  positions = [12 * (len(TEXT) - 2 * GRAM + 1), len(UNSEEN) - 2 * GRAM + 1]
  share = positions[0] / sum(positions)
  assert rates['buckets']['10-99']['share'] == pytest.approx(share)
  assert rates['all']['score'] == pytest.approx(
    share * rates['buckets']['10-99']['score']
  )
  rows = [
    json.loads(x) for x in (tmp_path / 'run/drawn.jsonl').read_text().split('\n')[:-1]
  ]
  for row in rows:
    assert row['included'] == (row['written'] == row['truth'])
    assert row['prompt'] + row['truth'] in (TEXT if row['language'] == 'en' else UNSEEN)
  assert 'inclusion rate' in (tmp_path / 'run/report.html').read_text('utf-8')
  config = configs.edit(config, {'documents': ''})
  with pytest.raises(UserError, match='documents is empty'):
    experiment.main(config, str(tmp_path / 'other'))
