"""The data mix: shares, schedule, fingerprint of the past."""

import random

import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.data import mix

PAPER = {'general': 0.50, 'math': 0.25, 'code': 0.17, 'multilingual': 0.08}
IDENTITIES = {name: name for name in [*PAPER, 'web']}


def draw(phases, tokens, seed=0):
  """Draws documents of very different lengths until `tokens`; returns the counts."""
  rng = random.Random(seed)
  drawn = dict.fromkeys(PAPER, 0)
  while sum(drawn.values()) < tokens:
    name = mix.choose(phases, drawn)
    scale = {'general': 6, 'math': 4, 'code': 8, 'multilingual': 5}[name]
    drawn[name] += int(rng.lognormvariate(scale, 1)) + 1
  return drawn


def test_shares_are_the_papers_within_one_percent_on_a_long_draw():
  drawn = draw(mix.schedule([(0, PAPER)], PAPER), 5_000_000)
  for name, share in PAPER.items():
    assert drawn[name] / sum(drawn.values()) == pytest.approx(share, abs=0.01)


def farthest(weights, seed, documents=2000, longest=1000):
  """(above, below) the target at any time, in longest documents, of any source."""
  rng = random.Random(seed)
  phases, drawn = mix.schedule([(0, weights)], weights), dict.fromkeys(weights, 0)
  above = below = 0.0
  for _ in range(documents):
    drawn[mix.choose(phases, drawn)] += rng.randint(1, longest)
    for name, target in mix.targets(phases, sum(drawn.values())).items():
      above = max(above, (drawn[name] - target) / longest)
      below = max(below, (target - drawn[name]) / longest)
  return above, below


def test_shares_of_the_papers_mix_hold_within_one_document_at_any_time():
  for seed in range(3):
    assert max(farthest(PAPER, seed)) <= 1


def test_no_source_is_ever_above_its_share_by_more_than_one_document():
  many = {'large': 0.6, **{f'small{i}': 0.05 for i in range(8)}}
  for seed in range(3):
    above, below = farthest(many, seed)
    assert above <= 1 and below <= 2


def test_choice_is_of_the_most_missing_tokens_not_of_the_smallest_ratio():
  phases = mix.schedule([(0, {'general': 0.8, 'math': 0.1, 'code': 0.1})], PAPER)
  drawn = {'general': 750, 'math': 190, 'code': 60}  # lacks 50 of 800; code 40 of 100
  assert mix.choose(phases, drawn) == 'general'


def test_shares_follow_the_schedule_in_each_phase():
  later = {'general': 0.2, 'math': 0.6, 'code': 0.2}
  phases = mix.schedule([(0, PAPER), (2_000_000, later)], PAPER)
  before = draw(phases, 2_000_000)
  after = draw(phases, 5_000_000)
  total = sum(after.values()) - sum(before.values())
  for name in PAPER:
    share = (after[name] - before[name]) / total
    assert share == pytest.approx(later.get(name, 0), abs=0.01)


def test_a_source_without_weight_is_never_chosen():
  phases = mix.schedule([(0, {'general': 1, 'math': 0})], PAPER)
  assert phases[0].names == ('general',)


def test_choice_depends_on_nothing_but_the_counts():
  phases = mix.schedule([(0, PAPER)], PAPER)
  drawn = {'general': 10, 'math': 30, 'code': 5, 'multilingual': 1}
  assert mix.choose(phases, drawn) == mix.choose(phases, dict(reversed(drawn.items())))


def test_fingerprint_of_the_past_sees_edits_of_begun_phases_only():
  def past(phases, tokens):
    return mix.past(mix.schedule(phases, IDENTITIES), tokens, IDENTITIES)

  original = [(0, PAPER), (1000, {'math': 1}), (2000, {'code': 1})]
  future = [(0, PAPER), (1000, {'math': 1}), (1600, {'web': 1})]
  edited = [(0, PAPER), (1000, {'math': 2, 'code': 1}), (2000, {'code': 1})]
  moved = [(0, PAPER), (900, {'math': 1}), (2000, {'code': 1})]
  assert past(original, 1500) == past(future, 1500)
  assert past(original, 1500) != past(future, 1700)
  assert past(original, 1500) != past(edited, 1500)
  assert past(original, 1500) != past(moved, 1500)
  assert past(original, 800) == past(moved, 800)


def test_fingerprint_of_the_past_sees_a_source_with_other_documents():
  phases = mix.schedule([(0, {'math': 1}), (1000, {'code': 1})], IDENTITIES)
  assert mix.past(phases, 10, IDENTITIES) == mix.past(
    phases, 10, {**IDENTITIES, 'code': 'new'}
  )
  assert mix.past(phases, 10, IDENTITIES) != mix.past(
    phases, 10, {**IDENTITIES, 'math': 'new'}
  )


@pytest.mark.parametrize(
  'phases, word',
  [
    ([], 'empty'),
    ([(0, {'wb': 1})], "'wb'"),
    ([(5, {'math': 1})], 'starts at 0'),
    ([(0, {'math': 1}), (0, {'code': 1})], 'ascend'),
    ([(0, {'math': -1})], '>= 0'),
    ([(0, {'math': 0})], 'not all 0'),
    ([(0, {'math': float('nan')})], '>= 0'),
  ],
)
def test_a_wrong_schedule_is_named(phases, word):
  with pytest.raises(UserError, match='data.(mix|changes)') as error:
    mix.schedule(phases, PAPER)
  assert word in str(error.value)


def test_a_phase_may_begin_exactly_at_the_drawn_tokens():
  phases = mix.schedule([(0, {'math': 1}), (100, {'code': 1})], PAPER)
  assert mix.choose(phases, {'math': 99}) == 'math'
  assert mix.choose(phases, {'math': 100}) == 'code'


def test_category_weights_are_divided_by_tokens_or_as_said():
  members = {'general': {'general/books': 100, 'general/web': 300, 'general/wiki': 5}}
  phases = [(0, {'general': 0.5, 'code': 0.5, 'general/wiki': 0.1})]
  ((start, weights),) = mix.expand(phases, members)
  assert start == 0
  assert weights == pytest.approx(
    {'code': 0.5, 'general/books': 0.1, 'general/web': 0.3, 'general/wiki': 0.1}
  )


def test_sources_heavier_than_their_category_are_named():
  members = {'general': {'general/web': 3, 'general/wiki': 5}}
  with pytest.raises(UserError, match="'general' has weight 0.1"):
    mix.expand([(0, {'general': 0.1, 'general/wiki': 0.2})], members)
