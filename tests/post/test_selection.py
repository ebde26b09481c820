"""Properties of what is taken of preference rows: turns, filters, bad rows."""

import dataclasses
import json

import pytest
from ml_collections import ConfigDict

from llama3_jax.base.errors import UserError
from llama3_jax.post import formats
from llama3_jax.post import preference
from llama3_jax.post import selection

ASKED = [{'role': 'user', 'content': 'Hi'}]
GOOD = {'prompt': 'Hi', 'responses': ['a', 'b']}
DIALOG = {
  'id': 7,
  'source': 'chat',
  'round': 2,
  'dialog': [
    {'role': 'user', 'content': 'one?'},
    {'role': 'assistant', 'responses': ['first', 'other'], 'strength': 4},
    {'role': 'user', 'content': 'two?'},
    {'role': 'assistant', 'content': 'not chosen'},
    {'role': 'user', 'content': 'three?'},
    {'responses': ['edited', 'good', 'bad'], 'models': ['person', 'm', 'n'], 'used': 1},
    {'role': 'user', 'content': 'four?'},
    {'role': 'assistant', 'responses': ['x', 'y'], 'strength': 'slightly better'},
  ],
}


def write(path, *rows):
  lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
  path.write_text('\n'.join(lines) + '\n', encoding='utf-8')
  return path


def test_every_chosen_message_of_a_dialog_is_an_example(tmp_path):
  found = preference.read(write(tmp_path / 'd.jsonl', DIALOG))
  said = lambda e: [m.content for m in e.prompt]
  assert [len(e.responses) for e in found] == [2, 3, 2]
  assert said(found[0]) == ['one?']
  assert said(found[1]) == ['one?', 'first', 'two?', 'not chosen', 'three?']
  assert said(found[2])[-2:] == ['good', 'four?']  # it went on with `used`
  assert [e.strength for e in found] == [4, 0, 2]
  assert found[1].models == ('person', 'm', 'n') and found[0].models == ()
  assert [e.id for e in found] == ['7.2', '7.6', '7.8']
  assert {(e.round, e.source) for e in found} == {(2, 'chat')}
  assert found[2].where.endswith('d.jsonl, line 1, message 8')
  [read] = formats.counted(found)
  assert read['rows'] == 3 and read['from'].endswith('d.jsonl')


@pytest.mark.parametrize(
  'message, word',
  [
    ({'role': 'tool', 'responses': ['a', 'b']}, 'no output of a tool'),
    ({'role': 'assistant', 'responses': ['a', 'b'], 'used': 2}, 'used=2'),
    ({'role': 'assistant', 'responses': 'ab'}, 'must be a list'),
    ({'role': 'assistant', 'content': 'a'}, 'no message of the dialog has responses'),
  ],
)
def test_a_choice_that_cannot_be_one_is_named(tmp_path, message, word):
  path = write(tmp_path / 'd.jsonl', {'dialog': [*ASKED, message]})
  with pytest.raises(UserError, match=word):
    preference.read(path)
  with pytest.raises(UserError, match='no message comes before'):
    preference.read(write(path, {'dialog': [{'responses': ['a', 'b']}]}))


@pytest.mark.parametrize(
  'value, level',
  [(4, 4), ('better', 3), ('Marginally better', 1), ('significantly', 4), (None, 0)],
)
def test_strengths_have_four_levels(value, level):
  assert (
    preference.parse({**GOOD, 'prompt': ASKED, 'strength': value}, 'r').strength
    == level
  )


@pytest.mark.parametrize('value', [0, 5, True, 'huge', 2.0, float('nan'), '', []])
def test_other_strengths_are_named(value):
  with pytest.raises(UserError, match='row 3: field strength is'):
    preference.parse({**GOOD, 'prompt': ASKED, 'strength': value}, 'row 3')


def test_pairs_may_have_an_edit_models_and_a_round(tmp_path):
  row = {'prompt': 'Hi', 'chosen': 'b', 'rejected': 'c', 'edited': 'a', 'round': 3}
  row |= {'chosen_model': 'm', 'rejected_model': 'n', 'strength': 2}
  implicit = {k: [*ASKED, {'role': 'assistant', 'content': row[k]}] for k in
              ('chosen', 'rejected', 'edited')}  # fmt: skip
  for found in preference.read(write(tmp_path / 'p.jsonl', row, row | implicit)):
    assert [m.content for m in found.responses] == ['a', 'b', 'c']
    assert found.models == ('', 'm', 'n')
    assert (found.round, found.strength) == (3, 2)
  with pytest.raises(UserError, match='models has 1 names for 2'):
    preference.parse({**GOOD, 'prompt': ASKED, 'models': ['m']}, 'row')


BAD = [
  '{"prompt": ',
  '{"prompt": "Hi", "responses": ["a", "b"], "margin": NaN}',
  {'prompt': 'Hi', 'responses': ['a', 'a']},
  {'prompt': 'Hi', 'chosen': ASKED, 'rejected': ASKED},
  {'prompt': 'Hi', 'responses': ['a', 'b'], 'strength': 9},
  {'nothing': 1},
  {'dialog': ASKED},
  [1],
]


def test_bad_rows_are_named_and_counted_and_the_rest_goes_on(tmp_path, caplog):
  path = write(tmp_path / 'p.jsonl', GOOD, *BAD, {**GOOD, 'prompt': 'Ho'})
  left = selection.Left()
  found = preference.read(path, left=left)
  assert [e.prompt[0].content for e in found] == ['Hi', 'Ho']
  assert left.counts() == {selection.BAD: len(BAD)}
  preference.read(path, left=left)  # read twice, counted once
  assert left.counts() == {selection.BAD: len(BAD)}
  for line, said in enumerate(left.named(), 2):
    assert said.startswith(f'{path}, line {line}: ')
  with caplog.at_level('INFO', logger='absl'):
    left.tell()
  assert f'{path}, line 2' in caplog.text and '8 not readable' in caplog.text
  with pytest.raises(UserError, match='line 2'):
    preference.read(path)
  with pytest.raises(UserError, match='line 1'):  # not a file of preferences at all
    preference.read(write(path, *BAD), left=selection.Left())


def example(*responses, **fields):
  row = {'prompt': ASKED, 'responses': list(responses), **fields}
  return preference.parse(row, f'{responses}')


def chosen(examples, **data):
  left = selection.Left()
  return selection.chosen(examples, ConfigDict(data), left), left.counts()


def test_weak_rows_are_left_out_and_those_of_unknown_strength_stay():
  rows = [example('a', 'b', strength=s) for s in (1, 2, 3, 4)] + [example('a', 'b')]
  rows = [dataclasses.replace(r, where=f'{i}') for i, r in enumerate(rows)]
  kept, counts = chosen(rows, min_strength=3)
  assert [e.strength for e in kept] == [3, 4, 0] and counts == {selection.WEAK: 2}
  assert chosen(rows) == (rows, {})


def test_dpo_takes_the_newest_rounds_only():
  rows = [example('a', f'{r}', round=r) for r in (0, 1, 4, 4, 2)]
  rows = [dataclasses.replace(r, where=f'{i}') for i, r in enumerate(rows)]
  assert [e.round for e in chosen(rows, newest=1)[0]] == [4, 4]
  kept, counts = chosen(rows, newest=2)
  assert [e.round for e in kept] == [4, 4, 2] and counts == {selection.OLD: 2}
  assert len(chosen(rows, newest=0)[0]) == len(chosen(rows, newest=9)[0]) == 5


def test_the_lower_of_two_similar_responses_is_left_out():
  long = 'the quick brown fox jumps over the lazy dog and runs away'
  near, far = long + ' !', 'something else'
  assert selection.similarity(long.split(), near.split()) > 0.85
  assert selection.similarity('a b'.split(), 'c d'.split()) == 0
  assert selection.similarity([], []) == selection.similarity(['a'], ['a']) == 1
  kept, counts = chosen([example(long, near)], similar=0.8)
  assert kept == [] and counts == {selection.SIMILAR: 1}
  names = ['person', 'm', 'n']
  [one], _ = chosen([example(long, near, far, strength=4, models=names)], similar=0.8)
  assert [m.content for m in one.responses] == [long, far]
  assert (one.models, one.strength) == (('person', 'n'), 4)
  [two], _ = chosen([example(far, long, near, strength=4)], similar=0.8)
  assert [m.content for m in two.responses] == [far, long]
  assert two.strength == 0  # it was said of chosen > rejected, which is gone
  assert len(chosen([example(long, near)], similar=0.0)[0]) == 1
