"""Rows of others: every form is told by its fields and becomes the same dialog."""

import csv
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llama3_jax.base import rows
from llama3_jax.base.errors import UserError
from llama3_jax.post import formats

USER, ANSWER = {'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Yo'}
SYSTEM = {'role': 'system', 'content': 'Be short.'}
CALL = {'name': 'weather', 'arguments': {'place': 'Rome'}}
DIALOG = {
  'messages': {'messages': [USER, ANSWER]},
  'ShareGPT': {
    'conversations': [{'from': 'human', 'value': 'Hi'}, {'from': 'gpt', 'value': 'Yo'}]
  },
  'prompt/completion': {'prompt': 'Hi', 'completion': 'Yo'},
  'prompt/completion of messages': {'prompt': [USER], 'completion': [ANSWER]},
  'instruction/output': {'instruction': 'Hi', 'input': '', 'output': 'Yo'},
}


@pytest.mark.parametrize('name', DIALOG)
def test_every_form_of_a_dialog_is_the_same_dialog(name):
  form, made = formats.of(DIALOG[name], formats.DIALOGS, 'x, line 1')
  assert form == name.partition(' of ')[0]
  assert made == {'messages': [USER, ANSWER]}


PAIR = {
  'texts': {'prompt': 'Hi', 'chosen': 'Yo', 'rejected': 'No'},
  'messages': {
    'prompt': [USER],
    'chosen': [ANSWER],
    'rejected': [{'role': 'assistant', 'content': 'No'}],
  },
  'the prompt again in the answers': {
    'prompt': 'Hi',
    'chosen': [USER, ANSWER],
    'rejected': [USER, {'role': 'assistant', 'content': 'No'}],
  },
  'an implicit prompt': {
    'chosen': [USER, ANSWER],
    'rejected': [USER, {'role': 'assistant', 'content': 'No'}],
  },
}


@pytest.mark.parametrize('name', PAIR)
def test_every_form_of_a_pair_is_the_same_pair(name):
  form, made = formats.of(PAIR[name], formats.PREFERENCES, 'x, line 1')
  assert form == 'prompt/chosen/rejected'
  assert made['prompt'] == [USER]
  assert [r['content'] for r in made['responses']] == ['Yo', 'No']


def test_ranked_responses_are_ours():
  row = {'prompt': 'Hi', 'responses': ['a', 'b', 'c'], 'margin': 1.5}
  form, made = formats.of(row, formats.PREFERENCES, 'x, line 1')
  assert form == 'prompt/responses'
  assert made == {'prompt': [USER], 'responses': ['a', 'b', 'c'], 'margin': 1.5}


def test_text_and_instructions_with_input_and_system():
  assert formats.of({'text': 'abc'}, formats.DIALOGS, 'x')[1] == {'text': 'abc'}
  row = {'instruction': 'Sum', 'input': '1 2', 'output': '3', 'system': 'Be short.'}
  made = formats.of(row, formats.DIALOGS, 'x')[1]['messages']
  assert made[:2] == [SYSTEM, {'role': 'user', 'content': 'Sum\n\n1 2'}]


def test_tools_and_their_messages():
  openai = {'type': 'function', 'function': {**CALL, 'arguments': '{"place": "Rome"}'}}
  called = {'role': 'assistant', 'content': None, 'tool_calls': [{'id': 'x', **openai}]}
  result = {'role': 'tool', 'content': '21', 'tool_call_id': 'x', 'name': 'weather'}
  row = {'messages': [USER, called, result, ANSWER], 'tools': json.dumps([CALL])}
  made = formats.of(row, formats.DIALOGS, 'x')[1]['messages']
  assert made[0]['role'] == 'system' and '"weather"' in made[0]['content']
  assert made[2] == {'role': 'assistant', 'content': '', 'calls': [CALL]}
  assert made[3] == {'role': 'tool', 'content': '21'}


@pytest.mark.parametrize(
  'row, words',
  [
    ({'question': 'a', 'answer': 'b'}, 'no known form'),
    ({'prompt': 'a', 'completions': 'b'}, 'prompt/completion, which lacks completion'),
    ({'instruction': 'a', 'response': 'b'}, 'instruction/output, which lacks output'),
    ({}, 'nothing in it'),
    ({'messages': 'a'}, 'messages'),
    ({'messages': [{'role': 'asistant', 'content': 'a'}]}, "is it 'assistant'"),
    ({'conversations': [{'from': 'alien', 'value': 'a'}]}, 'nobody is called'),
    ({'messages': [{'role': 'user', 'content': [{'type': 'image'}]}]}, "kind 'image'"),
    (
      {'messages': [USER, {'role': 'assistant', 'tool_calls': [{'function': {}}]}]},
      'a tool call needs',
    ),
    ({'messages': [USER, ANSWER], 'tools': '{['}, 'tools is not JSON'),
  ],
)
def test_a_row_that_fits_no_form_is_named_with_the_nearest(row, words):
  with pytest.raises(UserError, match=words) as error:
    formats.of(row, formats.DIALOGS, 'x, line 7')
  assert 'x, line 7' in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize(
  'row, words',
  [
    ({'chosen': 'a', 'rejected': 'b'}, 'no message that is the same'),
    ({'prompt': 'a', 'chosen': 'b'}, 'lacks rejected'),
    ({'prompt': 'a', 'chosen': [ANSWER, USER], 'rejected': 'b'}, 'one message'),
    ({'prompt': 'a', 'choosen': 'b', 'rejected': 'c'}, 'prompt/chosen/rejected'),
  ],
)
def test_a_pair_that_is_none_is_named(row, words):
  with pytest.raises(UserError, match=words):
    formats.of(row, formats.PREFERENCES, 'x, line 7')


def test_rows_of_every_kind_of_file_are_the_same(tmp_path):
  table = [
    {'prompt': 'Zürich?', 'completion': 'Ja,\n"so"'},
    {'prompt': 'b', 'completion': 'c'},
  ]
  lines = ''.join(json.dumps(row) + '\n' for row in table)
  (tmp_path / 'a.jsonl').write_text(lines)
  (tmp_path / 'a.jsonl.gz').write_bytes(gzip.compress(lines.encode()))
  pq.write_table(pa.Table.from_pylist(table), tmp_path / 'a.parquet')
  with open(tmp_path / 'a.csv', 'w', newline='', encoding='utf-8-sig') as file:
    writer = csv.DictWriter(file, ['prompt', 'completion'])
    writer.writeheader()
    writer.writerows(table)
  (tmp_path / 'a.csv.gz').write_bytes(gzip.compress((tmp_path / 'a.csv').read_bytes()))
  for name in ('a.jsonl', 'a.jsonl.gz', 'a.parquet', 'a.csv', 'a.csv.gz'):
    found = [row for _, row in rows.read(tmp_path / name, 'data.files')]
    assert found == table, name


def test_nulls_of_parquet_are_fields_that_are_not_there(tmp_path):
  said = [USER | {'tool_calls': None}, ANSWER | {'tool_calls': [CALL]}]
  pq.write_table(pa.Table.from_pylist([{'messages': said}]), tmp_path / 'a.parquet')
  [(where, row)] = rows.read(tmp_path / 'a.parquet', 'data.files')
  assert 'row 1' in where and row['messages'][0] == USER


@pytest.mark.parametrize(
  'name, content, words',
  [
    ('a.txt', b'x', 'rows are read from'),
    ('a.parquet', b'PAR1', 'cannot be read'),
    ('a.csv', b'a,b\n1\n', 'line 2: not 2 cells'),
    ('a.csv', b'a,b\n1,2,3\n', 'not 2 cells'),
    ('a.csv', b'a,b\n\xff,2\n', 'not UTF-8'),
    ('a.csv', b'a,b,a\n1,2,3\n', "column 'a' is there twice"),
    ('a.csv', b'a,b\n', 'holds no rows'),
    ('a.csv', b'', 'holds no rows'),
    ('a.csv', b'a,b\n"x,2\n', 'unreadable|cells'),
    ('a.csv.gz', b'no', 'unreadable'),
  ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, name, content, words):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(UserError, match=words) as error:
    list(rows.read(tmp_path / name, 'data.files'))
  assert '\n' not in str(error.value)


def test_tools_reach_the_prompt_of_every_form_and_weights_are_not_ignored():
  tools = [CALL]
  for row in (
    PAIR['texts'],
    PAIR['an implicit prompt'],
    {'prompt': 'Hi', 'responses': ['a', 'b']},
  ):
    made = formats.of(row | {'tools': tools}, formats.PREFERENCES, 'x')[1]
    assert '"weather"' in made['prompt'][0]['content']
  row = DIALOG['prompt/completion'] | {'tools': tools}
  assert (
    '"weather"' in formats.of(row, formats.DIALOGS, 'x')[1]['messages'][0]['content']
  )
  for turn in (ANSWER | {'weight': 0}, {'from': 'gpt', 'value': 'a', 'weight': 0}):
    with pytest.raises(UserError, match='has weight 0'):
      formats.of({'conversations': [USER, turn]}, formats.DIALOGS, 'x')
