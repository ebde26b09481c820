"""The verifiable tasks: right answers, disjoint splits, ranked responses."""

import random

import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.tasks import example
from llama3_jax.tasks import needle
from llama3_jax.tasks import suite


@pytest.mark.parametrize('task', suite.TASKS)
def test_splits_share_no_prompt_and_held_out_prompts_are_different(task):
  train = {e.prompt for e in suite.examples(task, 400, 0, 'train')}
  heldout = [e.prompt for e in suite.examples(task, 100, 1, 'heldout')]
  assert heldout and len(heldout) == len(set(heldout))
  assert not train & set(heldout)


def test_answers_follow_from_prompts():
  for e in suite.examples('sort', 50, 0, 'train'):
    assert e.answer.split() == sorted(e.prompt.removeprefix('Sort: ').split())
  for e in suite.examples('arithmetic', 50, 0, 'train'):
    assert int(e.answer) == eval(e.prompt.removeprefix('Compute: '))
  for e in suite.examples('copy', 50, 0, 'train'):
    assert e.prompt == f'Copy: {e.answer}'
  for e in suite.examples('needle', 50, 0, 'train'):
    assert f'Remember: {e.answer}.' in e.prompt
    assert e.prompt.endswith(f'What goes with {e.answer.split()[0]}?')


def test_examples_depend_on_the_seed_alone():
  a, b, c = (suite.mixed(40, seed, 'train') for seed in (3, 3, 4))
  assert a == b != c


def test_ranked_is_right_then_wrapped_then_wrong():
  rng = random.Random(0)
  for e in suite.mixed(200, 0, 'heldout'):
    edited, chosen, rejected = suite.ranked(e, rng)
    assert suite.score(e, edited) == 1 and suite.score(e, chosen) == 0
    assert e.answer in chosen
    assert suite.score(e, rejected) == 0
    wraps = {suite.wrapped(e.answer, random.Random(i)) for i in range(20)}
    assert rejected not in wraps  # wrong, not only wrapped


def test_score_ignores_space_around_the_answer_only():
  e = example.Example('copy', 'Copy: sun moon', 'sun moon')
  assert suite.score(e, ' sun moon\n') == 1
  assert suite.score(e, 'sun  moon') == suite.score(e, 'sun moon.') == 0


def test_unknown_task_is_named():
  with pytest.raises(UserError, match='chess.*copy, sort'):
    suite.examples('chess', 1, 0, 'train')


def test_drills_repeat_a_line_of_words():
  for d in suite.drills(50, 0):
    words = d['text'].split()
    periods = [
      n for n in range(3, 17) if words == (words[:n] * len(words))[: len(words)]
    ]
    assert periods and set(words) <= set(example.WORDS)


@pytest.mark.parametrize('depth', (0.0, 0.5, 1.0))
def test_a_haystack_has_its_length_and_its_fact_at_the_depth(depth):
  hay = [f'Line number {i} says nothing.' for i in range(50)]
  context, question, answer = needle.haystack(random.Random(1), hay, 2000, depth)
  whole = needle.prompt(context, question) + ' ' + answer
  assert 1900 <= len(whole) <= 2000
  place = context.index(needle.fact(*answer.split())) / len(context)
  assert abs(place - depth) < 0.05


def test_a_page_asks_for_every_fact_it_hides():
  page = needle.page(random.Random(0), ['Nothing here.'], 400, 4)
  facts = [line for line in page.split('Remember: ')[1:]]
  assert len(facts) == 4 and page.count('\nA: ') == 4
  for fact in facts:
    key, value = fact.split('.')[0].split()
    assert f'Q: What goes with {key}?\nA: {key} {value}' in page
