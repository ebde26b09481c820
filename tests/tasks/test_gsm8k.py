"""GSM8K: the number of an answer, and rows that are none."""

import json

import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.tasks import gsm8k
from llama3_jax.tasks import task


@pytest.mark.parametrize(
  'text,number',
  [
    ('It is 4.\n#### 5', '5'),
    ('#### 1,234', '1234'),
    ('so 3 + 4 = 7.', '7'),
    ('#### $-2.50', '-2.5'),
    ('#### 10.0 apples', '10'),
    ('none', ''),
    ('#### none of 3', '3'),
    ('4 #### nothing', ''),
  ],
)
def test_the_number_after_the_marks_counts_else_the_last(text, number):
  assert gsm8k.number(text) == number


def folder(path, test, train=()):
  (path / 'gsm8k').mkdir()
  for name, rows in (('test', test), ('train', train)):
    text = '\n'.join(map(json.dumps, rows))
    (path / f'gsm8k/{name}.jsonl').write_text(text)
  return f'gsm8k={path}'


def row(number, **more):
  said = f'It is <<{number}*1={number}>>{number}.\n#### {number}'
  return {'question': f'How much is {number}?', 'answer': said} | more


def test_splits_do_not_meet_and_solutions_have_no_calculator(tmp_path):
  loaded = task.load(folder(tmp_path, [row(1), row(2)], [row(2), row(3)]))
  assert {e.answer for e in loaded.examples('heldout', 9, 0)} == {'1', '2'}
  (solved,) = loaded.examples('train', 9, 0)
  assert solved.worked == 'It is 3.\n#### 3' and loaded.score(solved, 'It is 3') == 1
  assert loaded.prompt(solved).endswith('the number that is the answer.')


@pytest.mark.parametrize(
  'bad,words',
  [
    ({'question': 'x'}, "line 2: field 'answer' is missing"),
    (row(2, answer='2'), 'line 2: field answer must end with #### and a number'),
    (row(2, question=5), "line 2: field 'question' is"),
  ],
)
def test_a_row_that_is_no_question_names_its_line(tmp_path, bad, words):
  loaded = task.load(folder(tmp_path, [row(1), bad]))
  with pytest.raises(UserError, match=words):
    loaded.examples('heldout', 9, 0)
  with pytest.raises(UserError, match='the file is missing'):
    task.load('gsm8k').examples('heldout', 1, 0)


def test_published_solutions_are_right(assets):
  loaded = task.load(f'gsm8k={assets}')
  for split, count in (('heldout', 300), ('train', 7473)):
    found = loaded.examples(split, 10_000, 0)
    assert len(found) == count
    assert all(loaded.score(e, e.worked) == 1 for e in found)
