"""Properties of annotators, and of the pool of models that they compare."""

import collections
import dataclasses
import json

import numpy as np
import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.post import annotators
from llama3_jax.post import pool
from llama3_jax.post import preference
from llama3_jax.post import ratings
from llama3_jax.post.annotators import Question
from llama3_jax.post.annotators import Verdict
from llama3_jax.text.chat import Message


def question(a='4', b='5', name='1', prompt='2+2?'):
  said = Message('assistant', a), Message('assistant', b)
  return Question(name, (Message('user', prompt),), said, ('m', 'n'))


def fixed(*verdicts):
  return lambda questions: list(verdicts)


def test_a_checkable_task_decides_where_one_answer_is_right():
  annotate = annotators.checkable(lambda q, m: m.content == '4')
  asked = [question(), question('5', '4'), question('4', '4 '[:1]), question('5', '6')]
  assert annotate(asked) == [Verdict(0, 4), Verdict(1, 4), None, None]


def test_labels_of_people_are_what_was_written(tmp_path):
  edited = Message('assistant', 'four')
  asked = [
    question(name='1'),
    question(name='2'),
    question(name='3'),
    question('x', 'y'),
  ]
  given = [Verdict(1, 2), Verdict(0, 4, edited), None, None]
  rows = [annotators.row(q, v) for q, v in zip(asked, given) if v]
  path = tmp_path / 'labels.jsonl'
  path.write_text('\n'.join(map(json.dumps, rows)))
  assert annotators.labels(path)(asked) == given
  first, second = preference.read(path)
  assert [m.content for m in first.responses] == ['5', '4'] and first.strength == 2
  assert [m.content for m in second.responses] == ['four', '4', '5']
  assert first.models == ('n', 'm') and second.models == ('person', 'm', 'n')
  path.write_text('\n'.join(map(json.dumps, [rows[0], rows[0]])))
  with pytest.raises(UserError, match="line 2: id '1' is there twice"):
    annotators.labels(path)


def test_a_judge_is_asked_in_both_orders_and_nonsense_is_counted():
  counts, shown = collections.Counter(), []

  def ask(texts):
    shown.extend(texts)
    replies = ['A3', 'B4', 'A2', 'A2', 'I cannot say', 'B1', ' b. ', 'B 1', 'A5', 'B1']
    return [*replies, '**B2**', 'A: 3']

  annotate = annotators.judge(ask, counts=counts)
  asked = [question(f'{i}', f'{i + 1}', prompt='{a} {b}') for i in range(6)]
  found = annotate(asked)
  assert found == [Verdict(0, 3), None, None, None, None, Verdict(1, 2)]
  assert counts == {'asked': 6, 'nonsense': 3, 'contradicted': 1}
  assert 'Answer A:\n0\n\nAnswer B:\n1' in shown[0]
  assert 'Answer A:\n1\n\nAnswer B:\n0' in shown[1]
  assert 'Request:\n{a} {b}\n' in shown[0]  # the prompt's braces are its own
  with pytest.raises(UserError, match='template lacks {b}'):
    annotators.judge(ask, '{prompt} {a}')


def test_an_ensemble_needs_a_majority_or_all():
  edited = Message('assistant', 'e')
  a4, a1, b2, e2 = Verdict(0, 4), Verdict(0, 1), Verdict(1, 2), Verdict(0, 2, edited)
  one = lambda how, *verdicts: annotators.ensemble([fixed(v) for v in verdicts], how)(
    [question()]
  )
  assert one('majority', a4, a1, b2) == [a1]
  assert one('majority', a4, e2, None) == [e2]
  assert one('majority', a4, b2, None) == [None]
  assert one('majority', None, None) == [None]
  assert one('minimum', a4, e2, a4) == [e2]
  assert one('minimum', a4, a1, b2) == one('minimum', a4, None) == [None]
  with pytest.raises(UserError, match='majority, minimum'):
    annotators.ensemble([], 'mean')


def test_questions_take_two_answers_that_differ():
  row = {'prompt': [{'role': 'user', 'content': 'q'}], 'responses': ['a', 'a', 'b']}
  same = {**row, 'responses': ['a', 'a']}
  bad = []
  rows = [('f, line 1', row), ('f, line 2', same), ('f, line 3', {**row, 'id': 5})]
  found = annotators.questions(rows, bad.append)
  assert [q.id[:1] for q in found][1:] == ['5'] and len(found[0].id) == 16
  assert [m.content for m in found[0].answers] == ['a', 'b']
  assert 'line 2: no two answers differ' in str(bad[0]) and len(bad) == 1
  with pytest.raises(UserError, match='line 2'):
    annotators.questions(rows)
  moved = [('elsewhere, line 9', row), ('g, line 1', row)]
  assert annotators.questions(moved) == found[:1]  # an id is of what the row says
  other = {**row, 'id': 5, 'responses': ['x', 'y']}
  both = annotators.questions([('f', {**row, 'id': 5}), ('g', other)])
  assert len({q.id for q in both}) == 2 and both[1].id.startswith('5 ')


def test_a_prompt_is_answered_by_two_different_models_of_the_pool():
  prompts, calls = [(Message('user', f'{i}'),) for i in range(31)], []

  def answer(name, asked):
    calls.append(name)
    return [Message('assistant', f'{name}: {p[-1].content}') for p in asked]

  rows = pool.collect(prompts, ('x', 'y', 'z'), answer, seed=3)
  assert calls == ['x', 'y', 'z']  # each is loaded once
  pairs = collections.Counter(frozenset(row['models']) for row in rows)
  assert set(map(len, pairs)) == {2} and max(pairs.values()) - min(pairs.values()) <= 1
  for i, row in enumerate(rows):
    said = [m['content'] for m in row['responses']]
    assert said == [f'{name}: {i}' for name in row['models']]
  firsts = collections.Counter(row['models'][0] for row in rows)
  assert min(firsts.values()) > 3  # the order says nothing about the model
  assert rows == pool.collect(prompts, ('x', 'y', 'z'), answer, seed=3)
  assert annotators.questions([('r', row) for row in rows])[4].id == '4'
  for names in (('x',), ('x', 'x')):
    with pytest.raises(UserError, match='name at least two'):
      pool.assign(3, names)


def test_a_reward_model_prefers_what_it_scores_higher():
  values = {'one': 0.0, 'two': 0.2, 'three': 5.0}
  score = lambda dialogs: [values[d[-1].content] for d in dialogs]
  asked = [question('one', 'two'), question('three', 'one'), question('one', 'one')]
  found = annotators.scored(score)(asked)
  assert [(v.best, v.strength) for v in found[:2]] == [(1, 1), (0, 4)]
  assert found[2] is None
  assert annotators.scored(lambda d: [np.nan] * len(d))(asked) == [None] * 3


def test_liking_a_letter_decides_nothing():
  def weigh(texts):
    # Likes A by three nats, and the answer 'good' by one.
    good = ['Answer A:\ngood' in text for text in texts]
    return [(4.0, 0.0) if g else (3.0, 1.0) for g in good]

  asked = [question('good', 'bad'), question('bad', 'good')]
  found = annotators.weighed(weigh)(asked)
  assert [v.best for v in found] == [0, 1] and found[0].strength == found[1].strength
  with pytest.raises(UserError, match='template lacks {b}'):
    annotators.weighed(weigh, 'which of {prompt} {a}?')


def test_a_judge_of_seven_points_gives_the_milder_of_both_orders():
  counts, shown = collections.Counter(), []
  # The second reply is of the answers in reverse: A there is the second answer.
  said = (('A3', 'B1'), ('B2', '**A 3**'), ('A1', 'A2'), ('B1', '0'), ('same', 'B0'))
  said += (('A: 2', 'I cannot say'), ('A4', 'B1'))

  def ask(texts):
    shown.extend(texts)
    return [reply for pair in said for reply in pair]

  rate = ratings.judge(ask, counts=counts)
  found = rate([question(f'{i}', f'{i + 1}') for i in range(len(said))])
  assert [r and (r.point, r.both) for r in found] == [
    (3, (1, 3)),
    (6, (6, 7)),
    (4, (3, 6)),
    (4, (5, 4)),
    (4, (4, 4)),
    None,
    None,
  ]
  assert counts == {'asked': 7, 'nonsense': 2, 'contradicted': 1}
  assert 'Answer A:\n0\n\nAnswer B:\n1' in shown[0] and '3 (much)' in shown[0]
  assert 'Answer A:\n1\n\nAnswer B:\n0' in shown[1]


def test_strengths_of_both_sides_are_the_seven_points_and_back():
  every = [Verdict(best, s) for best in (0, 1) for s in (1, 2, 3, 4)]
  found = ratings.of(fixed(*every, None))([question()] * 9)
  assert [r and r.point for r in found] == [4, 3, 2, 1, 4, 5, 6, 7, None]
  back = [ratings.verdict(r) for r in found]
  assert back == [None, *every[1:4], None, *every[5:], None]


def test_row_of_a_rating_says_whose_answers_and_how_they_were_shown():
  asked = dataclasses.replace(question(), category='maths')
  row = ratings.row(asked, ratings.Rating(2), 'ann', False)
  assert row['models'] == ['m', 'n'] and (row['rating'], row['swapped']) == (2, False)
  assert [m['content'] for m in row['responses']] == ['4', '5']
  assert row['category'] == 'maths' and 'both' not in row and 'subcategory' not in row
  row = ratings.row(asked, ratings.Rating(4, (3, 6)), 'judge=x')
  assert row['both'] == [3, 6] and 'swapped' not in row
