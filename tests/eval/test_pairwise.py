"""Win rates, strengths and agreement: by hand, and of simulated raters."""

import itertools
import math

import numpy as np
import pytest

from llama3_jax.eval.pairwise import agreement
from llama3_jax.eval.pairwise import rates
from llama3_jax.eval.pairwise import strength
from llama3_jax.eval.pairwise.rows import Rated

WIN, TIE, LOSS = 2, 4, 6


def rated(prompt, models, point, rater='ann', **more):
  return Rated(prompt, prompt, models, point, rater, **more)


def ratings(points, models=('a', 'b'), rater='ann'):
  return [rated(f'q{i}', models, p, rater) for i, p in enumerate(points)]


def test_better_and_much_better_win_and_all_else_is_a_tie():
  assert [rates.outcome(p) for p in range(1, 8)] == [0, 0, 1, 1, 1, 2, 2]
  points = [1, 1, 2, 3, 4, 4, 5, 6, 7, 3]
  found = rates.rates(ratings(points))
  assert found['points'] == [2, 1, 2, 2, 1, 1, 1]
  assert (found['wins'], found['ties'], found['losses']) == (3, 5, 2)
  assert found['rate']['value'] == 3 / 5 and found['rate']['n'] == 5
  assert found['all']['value'] == 5.5 / 10 and found['all']['n'] == 10
  low, high = found['rate']['interval']
  assert low < 3 / 5 < high


def test_win_rate_of_the_other_model_is_what_is_left():
  points = [1, 2, 6, 4, 3, 2, 7, 1, 1]
  one = rates.rates(ratings(points))
  other = rates.rates(ratings([8 - p for p in points]))
  for name in ('rate', 'all'):
    assert one[name]['value'] == pytest.approx(1 - other[name]['value'])
    ends = [1 - end for end in other[name]['interval'][::-1]]
    assert one[name]['interval'] == pytest.approx(ends)


def test_several_ratings_of_a_prompt_are_drawn_together():
  points = [WIN, LOSS] * 15 + [WIN] * 10
  once = rates.rates(ratings(points))
  many = [one for name in 'klmnopqrs' for one in ratings(points, rater=name)]
  again = rates.rates(many)
  assert again['ratings'] == 9 * once['ratings'] and again['prompts'] == 40
  assert again['rate']['interval'] == once['rate']['interval']
  apart = rates.rates(ratings(points * 9))  # as many answers, but of more prompts
  width = lambda x: x['rate']['interval'][1] - x['rate']['interval'][0]
  assert width(apart) < width(again) / 2


def test_a_model_that_always_wins_has_an_interval_and_without_wins_there_is_none():
  found = rates.rates(ratings([WIN] * 5 + [TIE] * 5))
  assert found['rate']['value'] == 1 and found['rate']['n'] == 5
  assert found['rate']['interval'][0] == pytest.approx(0.566, abs=1e-3)  # Wilson
  empty = rates.rates(ratings([TIE] * 3))
  assert empty['rate'] == {'value': None, 'interval': None, 'n': 0}
  assert empty['all']['value'] == 0.5
  low, high = empty['all']['interval']  # three ties are not sure to be half
  assert low < 0.2 and high > 0.8


def test_interval_of_a_win_rate_has_the_true_one_in_95_percent():
  rng, inside = np.random.default_rng(1), 0
  for seed in range(200):
    points = rng.choice([WIN, TIE, LOSS], p=[0.45, 0.25, 0.3], size=150)
    low, high = rates.rates(ratings(points.tolist()), seed)['rate']['interval']
    inside += low <= 0.6 <= high
  assert 183 <= inside <= 198


def test_each_sub_category_counts_alike_however_many_prompts_it_has():
  parts = (('code', 'bugs', [WIN] * 30), ('code', 'tests', [LOSS, WIN]))
  parts += (('maths', '', [LOSS] * 5), ('poems', '', [TIE] * 4))
  every = [
    rated(f'{c}{s}{i}', ('a', 'b'), p, category=c, subcategory=s)
    for c, s, points in parts
    for i, p in enumerate(points)
  ]
  [found] = rates.pairs(every)
  assert found['rate']['value'] == pytest.approx(31 / 37) and found['told'] == 'a'
  assert found['uniform']['value'] == pytest.approx((1 + 0.5 + 0) / 3)
  assert found['uniform']['n'] == 3
  values = {c: r['rate']['value'] for c, r in found['categories'].items()}
  assert values == {'code': 31 / 32, 'maths': 0, 'poems': None}
  assert rates.uniform(ratings([WIN, LOSS])) is None


def by_hand(wins, steps=20_000):
  """Strengths by the algorithm of minorisation (Hunter 2004), in logarithms."""
  size = len(wins)
  p = [1.0] * size
  for _ in range(steps):
    for i in range(size):
      won = sum(wins[i])
      below = sum(
        (wins[i][j] + wins[j][i]) / (p[i] + p[j]) for j in range(size) if j != i
      )
      p[i] = won / below
  logs = [math.log(x) for x in p]
  return [x - sum(logs) / size for x in logs]


def test_strengths_are_those_of_a_slow_algorithm():
  rng = np.random.default_rng(1)
  for size in (2, 3, 6):
    wins = rng.integers(1, 40, (size, size)) * (1 - np.eye(size))
    [found] = strength.likeliest(wins[None])
    assert found == pytest.approx(by_hand(wins.tolist(), 2000), abs=1e-6)


def test_two_models_are_as_far_apart_as_their_win_rate_says():
  found = strength.strengths(ratings([WIN] * 30 + [LOSS] * 10))
  a, b = (found['models'][name]['strength'] for name in 'ab')
  assert a - b == pytest.approx(400 * math.log10(3)) and (a + b) / 2 == 1000
  tied = strength.strengths(ratings([WIN] * 20 + [TIE] * 20))  # of 40 half are halves
  a, b = (tied['models'][name]['strength'] for name in 'ab')
  assert a - b == pytest.approx(400 * math.log10(3)) and a > b
  assert not tied['virtual'] and tied['unbeaten'] == tied['winless'] == []


def test_true_strengths_lie_in_their_intervals():
  truth = np.array([0.6, 0.2, 0.0, -0.8]) * 400 / math.log(10)
  names, inside, rng = 'abcd', [], np.random.default_rng(2)
  for seed in range(40):
    every = []
    for i, j in itertools.combinations(range(4), 2):
      chance = 1 / (1 + 10 ** ((truth[j] - truth[i]) / 400))
      won = rng.random(60) < chance
      every += [
        rated(f'{i}{j}{n}', (names[i], names[j]), WIN if w else LOSS)
        for n, w in enumerate(won)
      ]
    found = strength.strengths(every, seed)['models']
    for name, true in zip(names, truth):
      low, high = found[name]['interval']
      inside.append(low <= 1000 + true <= high)
  assert 0.89 <= np.mean(inside) <= 0.99


def test_a_model_that_never_lost_is_named_and_gets_a_virtual_tie():
  every = ratings([WIN] * 9) + ratings([WIN, LOSS] * 5, ('b', 'c'))
  found = strength.strengths(every)
  assert found['virtual'] and found['drawn_virtual'] == 1
  assert (found['unbeaten'], found['winless']) == (['a'], [])
  strengths = {name: m['strength'] for name, m in found['models'].items()}
  wins = [[0, 9.5, 0], [0.5, 0, 5.5], [0, 5.5, 0]]
  wanted = [1000 + 400 / math.log(10) * x for x in by_hand(wins, 2000)]
  assert [strengths[name] for name in 'abc'] == pytest.approx(wanted)
  # Nobody won all, but one group never lost to the other.
  split = ratings([WIN, LOSS] * 4) + ratings([WIN, LOSS] * 4, ('c', 'd'))
  split += ratings([WIN] * 3, ('a', 'c'))
  found = strength.strengths(split)
  assert found['virtual'] and found['unbeaten'] == [] and len(found['groups']) == 1


def test_a_model_of_few_prompts_is_named():
  every = ratings([WIN, LOSS] * 15) + ratings([TIE], ('b', 'new'))
  found = strength.strengths(every)
  assert found['few'] == ['new']
  prompts = {name: own['prompts'] for name, own in found['models'].items()}
  assert prompts == {'a': 30, 'b': 30, 'new': 1}


def test_groups_that_never_met_are_told_apart():
  every = ratings([WIN, LOSS, WIN]) + ratings([LOSS, LOSS, WIN], ('x', 'y'))
  found = strength.strengths(every)
  assert found['groups'] == [['a', 'b'], ['x', 'y']] and not found['virtual']
  for group in found['groups']:
    mean = np.mean([found['models'][name]['strength'] for name in group])
    assert mean == pytest.approx(1000)


def test_place_that_a_rater_likes_is_found_and_a_fair_one_is_cleared():
  rng, every = np.random.default_rng(3), []
  for i in range(400):
    fair = int(rng.integers(1, 8))
    every.append(rated(f'q{i}', ('a', 'b'), fair, 'fair', seen=(fair,)))
    first = int(rng.choice([WIN, LOSS], p=[0.75, 0.25]))
    every.append(rated(f'q{i}', ('a', 'b'), first, 'first', seen=(first,)))
  every.append(rated('q0', ('a', 'b'), 3, 'unknown'))
  # Two orders: a contradiction, two that agree, one that knows no difference in one.
  for i, seen in enumerate([(2, 3), (2, 6), (5, 3), (4, 6)]):
    every.append(rated(f'q{i}', ('a', 'b'), 4, 'judge', seen=seen))
  found = rates.raters(every)
  low, high = found['fair']['first']['interval']
  assert low < 0.5 < high
  assert found['first']['first']['interval'][0] > 0.65
  assert found['unknown']['first']['value'] is None
  judge = found['judge']
  assert (judge['contradicted'], judge['in_both_orders']) == (1, 4)
  assert judge['first']['value'] == pytest.approx(4 / 7)


# Krippendorff's own example (2011): four observers, twelve units, '.' where none.
OBSERVED = ('123321412...', '1233224125.3', '.3332342251.', '12332441251.')


def by_definition(units):
  """Ordinal alpha from all pairs of values, without a matrix."""
  units = [unit for unit in units if len(unit) > 1]
  values = [v for unit in units for v in unit]

  def away(c, k):
    c, k = min(c, k), max(c, k)
    between = sum(c <= v <= k for v in values)
    return (between - (values.count(c) + values.count(k)) / 2) ** 2

  n = len(values)
  seen = sum(
    sum(away(a, b) for a, b in itertools.permutations(unit, 2)) / (len(unit) - 1)
    for unit in units
  )
  chance = sum(away(a, b) for a, b in itertools.permutations(values, 2)) / (n - 1)
  return 1 - seen / chance


def test_alpha_is_that_of_the_published_example_and_of_its_definition():
  units = [[int(v) for v in unit if v != '.'] for unit in zip(*OBSERVED)]
  tables = sum(agreement.coincidences(u) for u in units if len(u) > 1)
  [found] = agreement.alpha(tables[None])
  assert found == pytest.approx(0.815, abs=5e-4)
  assert found == pytest.approx(by_definition(units))
  every = [
    rated(f'u{i}', ('a', 'b'), int(v), f'rater {k}')
    for k, row in enumerate(OBSERVED)
    for i, v in enumerate(row)
    if v != '.'
  ]
  result = agreement.agreement(every)
  assert result['alpha']['value'] == pytest.approx(found)
  assert result['alpha']['n'] == 11 and len(result['pairs']) == 6
  low, high = result['alpha']['interval']
  assert low < found < high


def test_kappa_is_agreement_above_chance():
  # 20 times both say a, 15 times both say b, 5 and 10 times they differ: 0.7 seen, 0.5
  # by chance.
  counts = {(WIN, WIN): 20, (WIN, LOSS): 5, (LOSS, WIN): 10, (LOSS, LOSS): 15}
  points = [pair for pair, n in counts.items() for _ in range(n)]
  ann, bob = zip(*points)
  every = ratings(ann) + ratings(bob, rater='bob')
  [found] = agreement.agreement(every)['pairs']
  assert found['raters'] == ['ann', 'bob'] and found['n'] == 50
  assert found['kappa'] == pytest.approx(0.4)
  assert found['outcome']['value'] == found['same']['value'] == 0.7
  low, high = found['interval']
  assert low < 0.4 < high
  # Another point with the same outcome: the raw agreement of points falls, kappa stays.
  milder = ratings([p - 1 if p == WIN else p for p in ann]) + ratings(bob, rater='bob')
  [found] = agreement.agreement(milder)['pairs']
  assert found['same']['value'] == 0.3 and found['kappa'] == pytest.approx(0.4)


def test_agreement_of_raters_who_always_say_the_same_is_not_a_number():
  same = ratings([WIN] * 4) + ratings([WIN] * 4, rater='bob')
  found = agreement.agreement(same)
  assert found['pairs'][0]['kappa'] is None and found['alpha']['value'] is None
  assert found['pairs'][0]['outcome']['value'] == 1
  alone = agreement.agreement(ratings([WIN, LOSS]))
  assert alone == {'pairs': [], 'alpha': {'value': None, 'interval': None, 'n': 0}}


def test_draws_are_the_same_whatever_the_size_of_a_block(monkeypatch):
  table = np.random.default_rng(4).random((30, 2))
  whole = np.concatenate(list(rates.resampled(table, 5, 100)))
  monkeypatch.setattr(rates.confidence, 'ROOM', 30 * 7)
  parts = list(rates.resampled(table, 5, 100))
  assert len(parts) == 15 and np.allclose(np.concatenate(parts), whole)
