"""Guesses: no answer changes, right ones come sooner, wrong ones cost nothing."""

import collections
import dataclasses

import jax
import numpy as np
import pytest
import toy_generate as toy

from llama3_jax import axes
from llama3_jax import mesh
from llama3_jax.base.errors import UserError
from llama3_jax.generate import engine
from llama3_jax.generate import guess
from llama3_jax.generate.engine import Engine
from llama3_jax.generate.engine import Request
from llama3_jax.generate.engine import Sizes
from llama3_jax.generate.group import Answer
from llama3_jax.generate.settings import Settings
from llama3_jax.model import llama

params = toy.params  # fixture
PLAIN = Sizes(rows=(8,), chunks=(32,), length=128, page=8, steps=3)
GUESSING = dataclasses.replace(PLAIN, guesses=3)
SETTINGS = (
  Settings(0.0, max_new=40),
  Settings(0.3, 0.95, 0, 40, alternatives=3),
  Settings(0.8, 1.0, 5, 33, 50, 0.05),
  Settings(0.5, 0.9, 0, 40, 0, 0.0, 1.3, 0.5, 0.3, ((3, 2.0), (4, -100.0))),
)


def repeating(lengths=(3, 40, 16, 5, 73), seed=0):
  """Prompts in which runs of tokens occur again, some of whole pages."""
  rng = np.random.default_rng(seed)
  made = []
  for n in lengths:
    run = rng.integers(1, 64, rng.integers(2, 6)).tolist()
    made.append((run * n)[:n])
  return made


def run(made, requests):
  """Answers of requests that are all submitted at once."""
  found = [made.submit(request) for request in requests]
  while not made.idle:
    made.step()
  assert made.pages[0] == 0
  return [answer for answers in found for answer in answers]


def bits(answers):
  return [(a.ids, a.logps, a.alternatives, a.end) for a in answers]


class Oracle:
  """Guesses what a plain engine answered; or surely something else."""

  def __init__(self, answers, wrong=False):
    self.known = {(*a.request.prompt, a.request.seed, a.number): a.ids for a in answers}
    self.wrong, self.asked = wrong, 0

  def __call__(self, wanted):
    self.asked += len(wanted)
    return [self._of(*each) for each in wanted]

  def _of(self, answer, count):
    asked = answer.request
    ids = self.known.get((*asked.prompt, asked.seed, answer.number), [])
    ids = ids[len(answer.ids) :]
    return [(t + self.wrong) % 64 for t in ids[:count]]


@pytest.mark.parametrize('settings', SETTINGS)
@pytest.mark.parametrize('samples', [1, 2, 5])
def test_no_bit_of_an_answer_changes(params, settings, samples):
  stops = (5, 9)
  requests = [Request(p, settings, stops, samples, 3) for p in repeating()]
  expected = run(Engine(params, toy.CONFIG, PLAIN), requests)
  for guesser in (None, Oracle(expected), Oracle(expected, wrong=True)):
    made = Engine(params, toy.CONFIG, GUESSING, guesser=guesser)
    assert bits(run(made, requests)) == bits(expected)
    assert made.guesses.made or guesser is None
    assert made.decoded == sum(len(a.ids) for a in expected)


@pytest.mark.parametrize('page', [8, 16, 64])
@pytest.mark.parametrize('change', [{'window': 20}, {'dtype': 'bfloat16'}])
def test_any_page_and_any_model(page, change):
  config = dataclasses.replace(toy.CONFIG, **change)
  made = jax.jit(llama.init, static_argnums=1)(jax.random.key(0), config)
  requests = [Request(p, SETTINGS[i % 4], (), 2) for i, p in enumerate(repeating())]
  plain = dataclasses.replace(PLAIN, page=page)
  expected = run(Engine(made, config, plain), requests)
  guessing = dataclasses.replace(plain, guesses=7)
  for guesser in (Oracle(expected), Oracle(expected, wrong=True)):
    found = Engine(made, config, guessing, guesser=guesser)
    assert bits(run(found, requests)) == bits(expected)


def test_right_guesses_are_answers_in_fewer_calls(params):
  request = Request(repeating()[1], dataclasses.replace(SETTINGS[1], max_new=40))
  expected = run(Engine(params, toy.CONFIG, PLAIN), [request])
  made = Engine(params, toy.CONFIG, GUESSING, guesser=Oracle(expected))
  [answer] = made.submit(request)
  made.step()
  made.step()
  sizes = []
  while not made.idle:
    before = len(answer.ids)
    made.step()
    sizes.append(len(answer.ids) - before)
  assert set(sizes[:-1]) == {4}
  assert made.guesses.made == made.guesses.right == 30


def test_an_answer_whose_guesses_are_wrong_soon_gets_few(params):
  request = Request(repeating()[1], Settings(1.0, max_new=80))
  expected = run(Engine(params, toy.CONFIG, PLAIN), [request])
  oracle = Oracle(expected, wrong=True)
  run(Engine(params, toy.CONFIG, GUESSING, guesser=oracle), [request])
  assert 4 <= oracle.asked <= 10


@pytest.mark.parametrize(
  'tokens', [[64], [-1], [10**12], [63] * 100, [1, 64, 2], (), np.array([3, 4])]
)
def test_what_is_no_guess_is_left_out(params, tokens):
  requests = [Request(p, s, (5,)) for p, s in zip(repeating(), SETTINGS)]
  expected = run(Engine(params, toy.CONFIG, PLAIN), requests)
  strange = lambda wanted: [tokens for _ in wanted]
  made = Engine(params, toy.CONFIG, GUESSING, guesser=strange)
  assert bits(run(made, requests)) == bits(expected)


def test_guesses_take_idle_rows_alone(params):
  sizes = Sizes(rows=(4, 16), chunks=(32,), length=128, page=8, guesses=3)
  requests = [Request(p, SETTINGS[0]) for p in repeating((9, 9, 9), 1)]
  found, expected = [], run(Engine(params, toy.CONFIG, sizes), requests)

  class Watched(Engine):
    def _call_decode(self, count, limit):
      found.append((count, len(self.groups[0].seats), int(limit)))
      return super()._call_decode(count, limit)

  run(Watched(params, toy.CONFIG, sizes, guesser=Oracle(expected)), requests)
  assert {count for count, _, _ in found} == {4}
  assert (4, 4, 1) in found
  assert all(limit == 1 for _, seats, limit in found if seats == 4)


@pytest.mark.parametrize('sizes', [(1, 2, 1, 2, 2), (2, 2, 1, 1, 1)])
def test_no_bit_changes_on_a_mesh(params, sizes):
  devices = jax.devices()[: int(np.prod(sizes))]
  with jax.set_mesh(mesh.create(dict(zip(axes.AXES, sizes)), devices)):
    placed = jax.tree.map(axes.shard, params, llama.dims(toy.CONFIG))
    requests = [Request(p, s, (5,), 2) for p, s in zip(repeating(), SETTINGS)]
    expected = run(Engine(placed, toy.CONFIG, PLAIN), requests)
    made = Engine(placed, toy.CONFIG, GUESSING, guesser=Oracle(expected))
    assert bits(run(made, requests)) == bits(expected)
    assert made.guesses.right


def test_one_answer_guesses_where_its_rows_would_idle(params):
  assert not engine.one(64, toy.CONFIG).guesses
  config = dataclasses.replace(toy.CONFIG, dtype='bfloat16')
  sizes, prompt = engine.one(64, config), repeating()[1]
  assert sizes.guesses == sizes.rows[0] - 1 == 3
  plain = Engine(params, config, dataclasses.replace(sizes, guesses=0))
  settings = dataclasses.replace(SETTINGS[0], max_new=20)
  expected = list(engine.stream(plain, prompt, (5,), settings))
  made = Engine(params, config, sizes)
  assert list(engine.stream(made, prompt, (5,), settings)) == expected
  assert made.guesses.made


def test_rejected_guesses_are_in_no_page_that_is_remembered(params):
  prompt = repeating()[1]
  request = Request(prompt, dataclasses.replace(SETTINGS[1], max_new=60))
  expected = run(Engine(params, toy.CONFIG, PLAIN), [request])
  made = Engine(params, toy.CONFIG, GUESSING, guesser=Oracle(expected, wrong=True))
  [answer] = run(made, [request])
  assert made.guesses.made and not made.guesses.right
  after = Request([*prompt, *answer.ids[:50], 7], toy.GREEDY)
  read = made.read
  [again] = run(made, [after])
  assert made.read - read < 8  # nearly all of it is remembered
  # The keys that it found are those of a chunk but for rounding.
  [fresh] = run(Engine(params, toy.CONFIG, PLAIN), [after])
  assert again.ids == fresh.ids
  np.testing.assert_allclose(again.logps, fresh.logps, atol=1e-5)


class Never:
  """A constraint that allows all."""

  def allowed(self):
    return np.full(2, 2**32 - 1, np.uint32)

  def accept(self, token):
    pass


def test_a_bound_answer_gets_no_guesses(params):
  made = Engine(params, toy.CONFIG, GUESSING)
  [answer] = made.submit(Request(repeating()[1], SETTINGS[0]))
  answer.bound = Never()
  while not made.idle:
    made.step()
  assert answer.end == 'length' and not made.guesses.made


def test_no_program_more_is_compiled(params):
  made, compiled = Engine(params, toy.CONFIG, GUESSING), []
  listen = lambda name, *_, **__: compiled.append(name)
  jax.monitoring.register_event_duration_secs_listener(listen)
  jax.clear_caches()
  made.warm()
  built = lambda: sum('backend_compile' in name for name in compiled)
  at_start = built()
  run(made, [Request(p, s, (5,), 2) for p, s in zip(repeating(), SETTINGS)])
  made.warm()  # which is allowed again
  jax.monitoring.unregister_event_duration_listener(listen)
  assert made.guesses.made
  assert built() == at_start == 2


@pytest.mark.parametrize('settings', SETTINGS)
def test_an_answer_goes_on_the_same_after_what_was_said(params, settings):
  made = Engine(params, toy.CONFIG, PLAIN)
  for prompt in repeating():
    whole = run(made, [Request(prompt, settings, (), 3, 5)])
    for number, n in ((0, 1), (1, 8), (2, 30)):
      said = whole[number].ids[:n]
      request = Request(prompt, settings, (), 1, 5, said, number)
      [rest] = run(made, [request])
      assert said + rest.ids == whole[number].ids
      np.testing.assert_allclose(rest.logps, whole[number].logps[n:], atol=1e-5)


@pytest.mark.parametrize(
  ('field', 'value', 'words'),
  [
    ('said', [1] * 8, 'said has 8 tokens'),
    ('said', [64], 'below 64'),
    ('first', -1, 'first=-1'),
  ],
)
def test_what_cannot_go_on_is_refused(params, field, value, words):
  request = dataclasses.replace(Request([1, 2], toy.GREEDY), **{field: value})
  with pytest.raises(UserError, match=words):
    Engine(params, toy.CONFIG, PLAIN).submit(request)


def test_sizes_are_refused():
  with pytest.raises(UserError, match='guesses=-1'):
    Sizes(guesses=-1)


def drafted(params, change=lambda x: x, **sizes):
  small = Sizes((4,), (16,), 128, 16, **sizes)
  return guess.Draft(Engine(jax.tree.map(change, params), toy.CONFIG, small))


@pytest.mark.parametrize('settings', SETTINGS)
def test_a_draft_model_that_is_the_model_is_always_right(params, settings):
  requests = [Request(p, settings, (5,), 2, 3) for p in repeating()]
  expected = run(Engine(params, toy.CONFIG, PLAIN), requests)
  made = Engine(params, toy.CONFIG, GUESSING, guesser=drafted(params))
  assert bits(run(made, requests)) == bits(expected)
  assert made.guesses.right > 0.95 * made.guesses.made > 0
  other = drafted(params, lambda x: x * 1.2)
  made = Engine(params, toy.CONFIG, GUESSING, guesser=other)
  assert bits(run(made, requests)) == bits(expected)
  assert 0 < made.guesses.right < made.guesses.made


def test_a_draft_of_another_kind_is_refused(params):
  config = dataclasses.replace(toy.CONFIG, vocab_size=65)
  with pytest.raises(UserError, match='vocab_size=64: it must be 65'):
    Engine(params, config, GUESSING, guesser=drafted(params))
  longer = dataclasses.replace(GUESSING, length=256)
  with pytest.raises(UserError, match='length=128: it must be 256'):
    Engine(params, toy.CONFIG, longer, guesser=drafted(params))


def brute(text, count):
  """Lookup by a search of everything."""
  for size in guess.GRAMS:
    for start in range(len(text) - size - 1, -1, -1):
      if text[start : start + size] == text[len(text) - size :]:
        found = list(text)
        for i in range(count):
          found.append(found[start + size + i])
        return found[len(text) :]
  return []


def test_lookup_finds_the_latest_of_the_longest_runs():
  rng = np.random.default_rng(0)
  hits = 0
  for n in (1, 2, 3, 4, 30):
    prompt = rng.integers(0, 4, n).tolist()
    look, request = guess.Lookup(), Request(prompt, toy.GREEDY)
    answers = [Answer(request, 0), Answer(request, 1)]
    for _ in range(60):
      for answer in answers:
        text = prompt + answer.ids
        [found] = look([(answer, 4)])
        assert found == brute(text, 4)
        hits += bool(found)
        answer.ids += rng.integers(0, 4, rng.integers(1, 4)).tolist()
  assert hits > 300


def test_lookup_forgets_with_the_answers():
  look = guess.Lookup()
  answer = Answer(Request([1, 2, 1, 2], toy.GREEDY), 0)
  assert look([(answer, 2)]) == [[1, 2]]
  del answer
  assert not look._asked and not look._said


@pytest.mark.parametrize('kind', ['lookup', 'draft'])
def test_the_distribution_is_that_of_the_plain_way(params, kind):
  """Pairs of second and third tokens of many seeds, against those of other seeds
  without guesses: chi-square of two samples."""
  flat = jax.tree.map(lambda x: x * 1.5, params)
  settings = Settings(0.7, 1.0, 4, max_new=3)
  prompt = [1, 2, 3, 1, 2, 3, 1, 2]
  sizes = dataclasses.replace(PLAIN, rows=(64,), length=16)
  counts = []
  for guesses, seed in ((0, 1), (2, 2)):
    sizes = dataclasses.replace(sizes, guesses=guesses)
    other = drafted(flat, lambda x: x * 1.1) if kind == 'draft' else None
    made = Engine(flat, toy.CONFIG, sizes, guesser=other)
    found = []
    for k in range(100):
      answers = run(made, [Request(prompt, settings, (), 20, 1000 * seed + k)])
      found += [tuple(a.ids) for a in answers]
    counts.append(collections.Counter(found))
    assert bool(made.guesses.made) == bool(guesses)
  a, b = counts
  common = [x for x in a | b if a[x] + b[x] >= 10]
  rest = [sum(c.values()) - sum(c[x] for x in common) for c in counts]
  pairs = np.array([[a[x], b[x]] for x in common] + [rest])
  pairs = pairs[pairs.sum(1) > 0]
  square = ((pairs[:, 0] - pairs[:, 1]) ** 2 / pairs.sum(1)).sum()
  degrees = len(pairs) - 1
  assert degrees >= 5
  assert square < degrees + 4 * (2 * degrees) ** 0.5
