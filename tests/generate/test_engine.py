"""The engine: equal to the plain way, whatever the company; pages; compilations."""

import dataclasses
import functools
import math
import re

import jax
import numpy as np
import pytest
import toy_generate as toy

from llama3_jax.base.errors import UserError
from llama3_jax.generate import engine
from llama3_jax.generate import plain
from llama3_jax.generate import programs
from llama3_jax.generate.engine import Engine
from llama3_jax.generate.engine import Request
from llama3_jax.generate.engine import Sizes
from llama3_jax.generate.pages import Pages
from llama3_jax.generate.settings import Settings
from llama3_jax.model import llama
from llama3_jax.model import rowwise

params = toy.params  # fixture
SMALL = Sizes(rows=(4,), chunks=(32,), length=128, page=8, steps=3)
MIXED = (
  Settings(0.0, max_new=8),
  Settings(1.0, 0.95, 0, 8),
  Settings(0.8, 1.0, 5, 9, 50, 0.05),
  Settings(1.0, 0.9, 0, 20, 0, 0.0, 1.3, 0.5, 0.3, ((3, 5.0), (4, -100.0))),
)


def prompts(lengths=(3, 40, 7, 12, 5, 100, 1), seed=0):
  rng = np.random.default_rng(seed)
  return [rng.integers(1, 64, n).tolist() for n in lengths]


def run(made, requests):
  """Answers of requests that are all submitted at once."""
  found = [made.submit(request) for request in requests]
  while not made.idle:
    made.step()
  assert made.pages[0] == 0
  return found


def same(answers, expected):
  for answer, (ids, logps) in zip(answers, expected, strict=True):
    assert answer.ids == ids
    np.testing.assert_allclose(answer.logps, logps, atol=1e-5)


@pytest.mark.parametrize('settings', MIXED)
@pytest.mark.parametrize('samples', [1, 2, 5])
def test_answers_are_those_of_the_plain_way(params, settings, samples):
  stops = (5, 9)
  expected = plain.generate(params, prompts(), toy.CONFIG, stops, settings, 3, samples)
  made = Engine(params, toy.CONFIG, SMALL)
  found = run(made, [Request(p, settings, stops, samples, 3) for p in prompts()])
  for answers, wanted in zip(found, expected):
    same(answers, wanted)
    for answer in answers:
      stopped = answer.ids[-1] in stops
      assert answer.end == ('stop' if stopped else 'length')


@pytest.mark.parametrize(
  'change, page',
  [({'window': 20}, 8), ({'window': 20}, 16), ({'window': 20}, 64)]
  + [({'tie_embeddings': True}, 16), ({}, 64)],
)
def test_any_page_and_any_model(page, change):
  config = dataclasses.replace(toy.CONFIG, **change)
  made = jax.jit(llama.init, static_argnums=1)(jax.random.key(0), config)
  settings = dataclasses.replace(toy.GREEDY, max_new=12)
  expected = plain.generate(made, prompts(), config, (), settings, 0, 4)
  sizes = Sizes(rows=(16,), chunks=(64,), length=128, page=page)
  found = run(
    Engine(made, config, sizes), [Request(p, settings, (), 4) for p in prompts()]
  )
  for answers, wanted in zip(found, expected):
    same(answers, wanted)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_an_answer_is_the_same_bit_for_bit_whatever_the_company(params, dtype):
  config = dataclasses.replace(toy.CONFIG, dtype=dtype)
  requests = [
    Request(p, MIXED[i % 4], (5,), 1 + 4 * (i % 2), i)
    for i, p in enumerate(prompts((30, 64, 1, 7, 90, 33, 12)))
  ]
  read = lambda answers: [(a.ids, a.logps) for a in answers]
  sizes = dataclasses.replace(SMALL, rows=(8,))
  together = run(Engine(params, config, sizes), requests)
  backwards = run(Engine(params, config, sizes), requests[::-1])[::-1]
  alone = [run(Engine(params, config, sizes), [r])[0] for r in requests]
  for a, b, c in zip(together, backwards, alone):
    assert read(a) == read(b) == read(c)


def test_a_known_beginning_is_not_read_again(params):
  made = Engine(params, toy.CONFIG, SMALL)
  first, other = prompts((60, 9))
  settings = dataclasses.replace(toy.GREEDY, max_new=6)
  [[whole]] = run(made, [Request(first, settings)])
  assert made.read == 59
  run(made, [Request(first[:40] + other, settings)])
  assert made.read == 59 + 8  # 40 of 48 tokens are known
  # What was answered is known too, as the next turn of a dialog.
  asked = first + whole.ids + other
  [[answer]] = run(made, [Request(asked, settings)])
  assert made.read == 67 + len(asked) - 1 - 64
  same([answer], plain.generate(params, [asked], toy.CONFIG, (), settings)[0])


def test_new_weights_know_no_beginning(params):
  other = jax.tree.map(lambda x: x + 0.01, params)
  made = Engine(params, toy.CONFIG, SMALL)
  request = Request(prompts()[1], toy.GREEDY)
  run(made, [request])
  made.update(other)
  [[answer]] = run(made, [request])
  same([answer], plain.generate(other, [request.prompt], toy.CONFIG, (), toy.GREEDY)[0])


def test_what_began_with_other_weights_is_not_known_later(params):
  other = jax.tree.map(lambda x: x + 0.01, params)
  made, prompt = Engine(params, toy.CONFIG, SMALL), prompts()[1]
  [begun] = made.submit(Request(prompt, dataclasses.replace(toy.GREEDY, max_new=30)))
  made.step()
  made.step()
  assert begun.ids and not begun.end
  made.update(other)
  while not made.idle:
    made.step()
  [[answer]] = run(made, [Request(prompt, toy.GREEDY)])
  same([answer], plain.generate(other, [prompt], toy.CONFIG, (), toy.GREEDY)[0])


def test_more_samples_than_rows(params):
  prompt = prompts()[0]
  settings = dataclasses.replace(MIXED[1], max_new=125)
  [found] = engine.generate(params, [prompt], toy.CONFIG, (), settings, 0, 70)
  assert len(found) == 70 and len({c.ids for c in found}) == 70


def test_programs_are_compiled_before_the_first_request(params):
  made = Engine(params, toy.CONFIG, SMALL)
  made.submit(Request(prompts()[0], toy.GREEDY))
  with pytest.raises(RuntimeError, match='without requests'):
    made.warm()


@pytest.mark.parametrize('field', ['rows', 'chunks'])
@pytest.mark.parametrize('value', [(), (4, 4), (16, 4), (0,)])
def test_sizes_grow(field, value):
  with pytest.raises(UserError, match=f'{field}='):
    Sizes(**{field: value})


def test_samples_of_a_prompt_share_its_pages(params):
  settings = dataclasses.replace(toy.GREEDY, max_new=8)
  made = Engine(params, toy.CONFIG, dataclasses.replace(SMALL, rows=(16,)))
  made.submit(Request(prompts()[5], settings, (), 16))
  made.step()
  shared = 99 // 8
  assert made.pages[0] <= shared + 1 + 16 * 2 < 16 * (shared + 2) / 3


def test_a_prompt_of_whole_pages_shares_all_of_them(params):
  """Its last token is read with it, and no row writes to a page that others read."""
  prompt = prompts((64,))[0]
  settings = dataclasses.replace(MIXED[1], max_new=9)
  expected = plain.generate(params, [prompt], toy.CONFIG, (), settings, 0, 6)[0]
  made = Engine(params, toy.CONFIG, SMALL)
  answers = made.submit(Request(prompt, settings, (), 6))
  made.step()
  made.step()
  assert made.read == 64 and made.pages[0] == 8 + 6 * 1
  while not made.idle:
    made.step()
  for answer, wanted in zip(answers, expected):
    same([answer], [wanted])


def test_the_last_samples_of_many_prompts_are_read_together(params):
  requests = [
    Request(p, MIXED[i % 4], (5,), 5, i) for i, p in enumerate(prompts((70,) * 12))
  ]
  made = Engine(params, toy.CONFIG, dataclasses.replace(SMALL, rows=(4,)))
  for request, answers in zip(requests, run(made, requests)):
    how = request.settings, request.seed, 5
    same(answers, plain.generate(params, [request.prompt], toy.CONFIG, (5,), *how)[0])


def test_a_request_waits_for_pages_and_nothing_is_put_out(params):
  sizes = dataclasses.replace(SMALL, pages=20)
  made = Engine(params, toy.CONFIG, sizes)
  requests = [Request(p, toy.GREEDY) for p in prompts((100, 90, 3, 80, 110))]
  answers = [made.submit(r) for r in requests]
  made.step()
  assert made.waiting >= 3  # also the short one behind the long one
  ended = []
  while not made.idle:
    ended += [a for a in made.step() if a.end]
  assert [a.request for a in ended] == requests
  assert all(len(a.ids) == 8 for [a] in answers)


def test_a_request_that_is_left_frees_its_pages(params):
  made = Engine(params, toy.CONFIG, SMALL)
  long = dataclasses.replace(toy.GREEDY, max_new=20)
  requests = [Request(p, long, (), 1 + i % 3) for i, p in enumerate(prompts())]
  every = [answer for r in requests for answer in made.submit(r)]
  for turn in range(4):
    made.step()
    for answer in every[turn::4]:
      made.cancel(answer)
  while not made.idle:
    made.step()
  assert made.pages[0] == 0 and all(a.end for a in every)
  assert {a.end for a in every} >= {'cancelled'}


def test_few_programs_are_compiled_and_all_of_them_at_the_start(params):
  sizes = Sizes(rows=(4, 16), chunks=(16, 64), length=128, page=16)
  made, compiled = Engine(params, toy.CONFIG, sizes), []
  listen = lambda name, *_, **__: compiled.append(name)
  jax.monitoring.register_event_duration_secs_listener(listen)
  jax.clear_caches()
  made.warm()
  built = lambda: sum('backend_compile' in name for name in compiled)
  at_start = built()
  rng = np.random.default_rng(0)
  for i in range(1000):
    settings = dataclasses.replace(
      MIXED[i % 4], max_new=int(rng.integers(1, 5)), alternatives=int(i % 50 == 0)
    )
    ids = rng.integers(1, 64, rng.integers(1, 120)).tolist()
    made.submit(Request(ids, settings, tuple(range(i % 9)), 1 + 4 * (i % 97 == 0), i))
  while not made.idle:
    made.step()
  jax.monitoring.unregister_event_duration_listener(listen)
  assert built() == at_start == 4
  assert made.padded < 0.1 * made.read


def test_constraint_decides_which_tokens_may_come(params):
  class Even:
    def __init__(self):
      self.said = []

    def allowed(self):
      return np.full(2, 0x55555555 if len(self.said) % 2 else 0xAAAAAAAA, np.uint32)

    def accept(self, token):
      self.said.append(token)

  made = Engine(params, toy.CONFIG, SMALL)
  [bound] = made.submit(Request(prompts()[0], MIXED[1]))
  [free] = made.submit(Request(prompts()[2], MIXED[1]))
  bound.bound = Even()
  while not made.idle:
    made.step()
  assert [i % 2 for i in bound.ids] == [1, 0] * 4 == [i % 2 for i in bound.bound.said]
  assert (
    free.ids
    == plain.generate(params, [prompts()[2]], toy.CONFIG, (), MIXED[1], 0)[0][0][0]
  )


@pytest.mark.parametrize(
  'request_, words',
  [
    (Request([], toy.GREEDY), 'empty'),
    (Request([1, 64], toy.GREEDY), 'below 64'),
    (Request([1, -1], toy.GREEDY), 'below 64'),
    (Request([1.5], toy.GREEDY), 'whole numbers'),
    (Request([1] * 121, toy.GREEDY), '121 tokens and max_new=8 are more than 128'),
    (Request([1], Settings(max_new=8, bias=((64, 1.0),))), 'bias names token 64'),
    (Request([1], toy.GREEDY, tuple(range(9))), '9 stop tokens'),
    (Request([1], toy.GREEDY, (), 0), 'samples=0'),
    (Request([1], toy.GREEDY, (), 1.5), 'samples=1.5'),
    (Request([1], toy.GREEDY, (), 1000), '1000 samples of a prompt'),
    (Request([1], toy.GREEDY, (), 1, -1), 'seed=-1'),
  ],
)
def test_a_request_that_cannot_be_answered_is_refused(params, request_, words):
  made = Engine(params, toy.CONFIG, SMALL)
  with pytest.raises(UserError, match=words):
    made.submit(request_)
  [[answer]] = run(made, [Request([1, 2], toy.GREEDY)])
  assert answer.end == 'length'


@pytest.mark.parametrize('size', [8, 16, 64])
def test_pages_are_never_lost_and_never_used_by_two(size):
  """Owners come and go at random; a model of plain sets knows who has what."""
  rng, pages = np.random.default_rng(size), Pages(40, size)
  owners, content = {}, {}
  for turn in range(3000):
    if owners and rng.random() < 0.45:
      key = list(owners)[rng.integers(len(owners))]
      ids, mine = owners.pop(key)
      pages.remember(pages.digests(ids), mine)
      pages.release(mine)
    else:
      ids = tuple(rng.integers(0, 2, rng.integers(1, 4) * size).tolist())
      ids = ids[: -(rng.integers(0, 2)) or None]
      for i, page in enumerate(pages.known(pages.digests(ids))):
        assert content[page] == ids[: (i + 1) * size]
      before = pages.free
      part = len(ids) % size > 0
      entered = pages.hold(ids, part)
      if entered is None:
        assert before == pages.free < -(-len(ids) // size)
        continue
      full, known = entered
      new = full[known:] + pages.take(part)
      held = [p for _, mine in owners.values() for p in mine]
      assert not set(new) & set(held) and 0 not in new
      for i, page in enumerate(new, known):
        content[page] = ids[: (i + 1) * size]
      owners[turn] = ids, full[:known] + new
    held = {p for _, mine in owners.values() for p in mine}
    assert pages.used == len(held) and pages.free == 40 - len(held)
  pages.forget()
  for _, mine in owners.values():
    pages.release(mine)
  assert pages.free == 40 and sorted(pages.take(40)) == list(range(1, 41))


def test_answers_of_one_room_are_few_programs():
  rooms = {engine.room(n) for n in range(1, 1000)}
  assert rooms == {128, 256, 512, 1024}
  made = functools.partial(engine.sizes, 100)
  assert made(1, 1).rows == (4,) and made(16, 1).rows == (16,)
  assert made(16, 8).rows == (64,) and made(1, 1).chunks != made(2, 1).chunks


@pytest.mark.parametrize('platform', ['cpu', 'tpu'])
@pytest.mark.parametrize('weights', ['', 'fp8', 'int8_weights'])
def test_layers_alone_and_layers_in_a_loop(monkeypatch, platform, weights):
  """On a TPU layers are scanned, elsewhere each is by itself; few bits of weights
  change little, and nothing in the first and last layer."""
  config = dataclasses.replace(toy.CONFIG, n_layers=4)
  made = jax.jit(llama.init, static_argnums=1)(jax.random.key(0), config)
  expected = plain.generate(made, prompts(), config, (), toy.GREEDY)
  monkeypatch.setattr(engine.axes, 'platform', lambda: platform)
  built = Engine(made, config, SMALL, weights)
  found = run(built, [Request(p, toy.GREEDY) for p in prompts()])
  if not weights:
    for answers, wanted in zip(found, expected):
      same(answers, wanted)
    return
  first = [(a.logps[0], e[0][1][0]) for [a], e in zip(found, expected)]
  near = [abs(a - b) for a, b in first if a > b - 1]
  assert len(near) > 4 and 1e-6 < max(near) < 0.2
  parts = built.params.layers
  small = [isinstance(p.w_up, rowwise.Rowwise) for p in parts]
  assert small == [False, *[True] * (len(parts) - 2), False]
  assert len(parts) == (4 if platform == 'cpu' else 3)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('rows', [1, 4])
def test_no_step_copies_the_pages(params, rows, dtype):
  config = dataclasses.replace(toy.CONFIG, dtype=dtype)
  made = Engine(params, config, dataclasses.replace(SMALL, rows=(rows,)))
  given = *made._arrays(rows), np.int32(1), config, SMALL.steps
  program = programs.decode.lower(made.params, made.memory, *given).compile().as_text()
  shapes = re.findall(r'= \w+\[([\d,]+)\]\S* (copy|fusion|scatter)\(', program)
  whole = [
    kind
    for shape, kind in shapes
    if math.prod(map(int, shape.split(','))) == made.memory.kv.size
  ]
  assert whole and 'copy' not in whole


def test_parameters_that_were_prepared_otherwise_are_refused():
  config = dataclasses.replace(toy.CONFIG, n_layers=3)
  made = jax.jit(llama.init, static_argnums=1)(jax.random.key(0), config)
  small = Engine(made, config, SMALL, 'fp8').params
  assert Engine(small, config, SMALL, 'fp8').params is small
  for ready, weights in ((small, 'int8'), (Engine(made, config, SMALL).params, 'fp8')):
    with pytest.raises(UserError, match='prepared otherwise'):
      Engine(ready, config, SMALL, weights)


def test_a_model_of_two_layers_has_no_weights_of_few_bits(params):
  with pytest.raises(UserError, match='first and last'):
    Engine(params, toy.CONFIG, SMALL, 'fp8')
