"""Preferences of people: what each set's labels mean, and what is no preference."""

import gzip
import json

import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.data import people
from llama3_jax.post import preference


def write(path, value):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(value), encoding='utf-8')


def entry(*votes, **fields):
  labels = dict(zip(people.LABELS, votes))
  texts = dict(instruction='Say it.', input='', response1='one', response2='two')
  return texts | labels | fields


def test_the_majority_of_three_people_decides_and_says_how_surely(tmp_path):
  rows = [entry(1, 1, 1), entry(2, 2, 0, input='More'), entry(0, 0, 1), entry(0, 1, 2)]
  rows.append(entry(1, 1, 1, response1=True))
  write(tmp_path / people.PANDALM, rows)
  first, second = people.preferences(tmp_path, 'pandalm')
  assert first['responses'] == ['one', 'two'] and first['strength'] == 'better'
  assert second['responses'] == ['two', 'one'] and second['strength'] == 'slightly'
  assert second['prompt'][0]['content'] == 'Say it.\nMore'
  made = preference.parse(second, 'here')
  assert (made.strength, made.source, made.id) == (2, 'pandalm', 'pandalm 1')


def test_dialogs_with_two_last_answers_keep_their_turns(tmp_path):
  start = '\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Why?\n\nAssistant:'
  rows = [
    {'chosen': f'{start} Good', 'rejected': f'{start} Bad'},
    {'chosen': f'{start} Same', 'rejected': f'{start} Same '},
    {'chosen': f'{start} A', 'rejected': '\n\nHuman: Other\n\nAssistant: B'},
  ]
  path = tmp_path / people.HARMLESS
  path.parent.mkdir(parents=True)
  with gzip.open(path, 'wt', encoding='utf-8') as lines:
    lines.writelines(f'{json.dumps(row)}\n' for row in rows)
  (row,) = people.preferences(tmp_path, 'harmless')
  assert [m['role'] for m in row['prompt']] == ['user', 'assistant', 'user']
  assert row['responses'] == ['Good', 'Bad']


def test_a_demonstration_ends_with_the_users_turn(tmp_path):
  said = [{'from': 'system', 'value': 'Be kind.'}, {'from': 'human', 'value': 'Hi'}]
  answers = {'chosen': {'value': 'Hello'}, 'rejected': {'value': 'What?'}}
  write(tmp_path / people.DEMO, [{'conversations': said, **answers}])
  (row,) = people.preferences(tmp_path, 'demo')
  assert [m['role'] for m in row['prompt']] == ['system', 'user']
  write(tmp_path / people.DEMO, [{'conversations': said}])
  with pytest.raises(UserError, match='dpo_en_demo.json, entry 1: it must have'):
    people.preferences(tmp_path, 'demo')


def test_long_rows_are_left_out_and_an_unknown_set_is_named(tmp_path):
  write(tmp_path / people.PANDALM, [entry(1, 1, 1), entry(1, 1, 1, response1='x' * 99)])
  assert len(people.preferences(tmp_path, 'pandalm', longest=50)) == 1
  with pytest.raises(UserError, match="'panda' is unknown: there are qa_feedback, "):
    people.preferences(tmp_path, 'panda')
  write(tmp_path / people.PANDALM, [entry(3, 3, 3)])
  with pytest.raises(UserError, match='entry 1: annotator1 to annotator3 must be'):
    people.preferences(tmp_path, 'pandalm')


def test_published_files_have_the_expected_rows(assets):
  rows = {name: people.preferences(assets, name) for name in people.SETS}
  counts = {name: len(found) for name, found in rows.items()}
  assert counts == dict(qa_feedback=295, pandalm=667, harmless=1992, demo=300)
  for found in rows.values():
    for i, row in enumerate(found):
      preference.parse(row, str(i))
