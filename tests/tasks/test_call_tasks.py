"""BFCL and API-Bank: calls are right by their syntax, damaged rows are named."""

import json

import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.tasks import api_bank
from llama3_jax.tasks import bfcl
from llama3_jax.tasks import calls
from llama3_jax.tasks import task
from llama3_jax.text.tool_calls import Call

PROPERTIES = {
  's': {'type': 'string'},
  'i': {'type': 'integer'},
  'f': {'type': 'float'},
  'b': {'type': 'boolean'},
  'l': {'type': 'array', 'items': {'type': 'string'}},
  'n': {'type': 'array', 'items': {'type': 'float'}},
  'd': {'type': 'dict'},
  'r': {'type': 'array', 'items': {'type': 'dict'}},
}


def right(value, answers, name, required=True):
  rule = {'properties': PROPERTIES, 'required': [name] if required else []}
  given = {} if value is None else {name: value}
  return calls.same(
    [{'name': 'g', 'parameters': rule}], [Call('g', given)], [{'g': {name: answers}}]
  )


@pytest.mark.parametrize(
  'name,value,answers,expected',
  [
    ('s', 'New York', ['new-york'], True),
    ('s', "it's", ['it"s'], True),
    ('s', 'York', ['New York'], False),
    ('s', 5, ['5'], False),
    ('i', 5, [4, 5], True),
    ('i', 5.0, [5], False),
    ('i', True, [1], False),
    ('i', 'count', ['count'], True),  # a variable
    ('i', 'Count', ['count'], False),
    ('f', 5, [5.0], True),
    ('f', 5.5, [5], False),
    ('f', '5', [5], False),
    ('b', True, [True], True),
    ('b', 'true', [True], False),
    ('l', ['A b', 'c'], [['ab', 'C']], True),
    ('l', ['c', 'ab'], [['ab', 'c']], False),
    ('l', ['a', 1], [['a', 1]], True),  # not of its type, and equal
    ('n', [1.0, 2.0], [[1.0, 2.0]], True),
    ('n', [1, 2], [[1, 2]], True),
    ('n', [1, 2], [[1.5, 2]], False),
    ('d', {'k': 'X Y', 'm': 1}, [{'k': ['xy'], 'm': [1, 2]}], True),
    ('d', {'k': 'x'}, [{'k': ['x'], 'm': ['', 2]}], True),
    ('d', {'k': 'x'}, [{'k': ['x'], 'm': [2]}], False),
    ('d', {'k': 'x', 'z': 1}, [{'k': ['x']}], False),
    ('r', [{'k': 1}, {'k': 2}], [[{'k': [1]}, {'k': [2]}]], True),
    ('r', [{'k': 2}, {'k': 1}], [[{'k': [1]}, {'k': [2]}]], False),
    ('r', [{'k': 1}], [[{'k': [1]}, {'k': [2]}]], False),
    ('r', ['k'], [[{'k': [1]}]], False),
  ],
)
def test_argument_is_right_by_its_type_and_value(name, value, answers, expected):
  assert right(value, answers, name) is expected


def test_arguments_may_be_left_out_where_the_answer_says_so():
  assert right(None, ['x', ''], 's', required=False)
  assert not right(None, ['x'], 's', required=False)
  assert not right(None, ['x', ''], 's', required=True)


def test_calls_are_right_in_any_order_and_each_once():
  rule = {'properties': {'i': {'type': 'integer'}}, 'required': ['i']}
  functions = [{'name': n, 'parameters': rule} for n in 'gh']
  answers = [{'g': {'i': [1]}}, {'g': {'i': [1, 2]}}]
  made = [Call('g', {'i': 2}), Call('g', {'i': 1})]
  same = lambda *c: calls.same(functions, c, answers)
  assert same(*made) and same(*made[::-1])
  assert not same(made[0]) and not same(made[0], made[0]) and not same(*made, made[0])
  twice = [{'g': {'i': [1]}}] * 2
  assert not calls.same(functions, made, twice)
  assert not same(made[0], Call('h', {'i': 1}))
  assert not same(made[0], Call('g', {'i': 1, 'j': 1}))


FIRSTS = {'simple': 394, 'multiple': 197, 'parallel': 198, 'parallel_multiple': 195}
SPOILED = {'simple': 7, 'multiple': 6, 'parallel': 2, 'parallel_multiple': 1}


def spoil(value):
  """Another number or text; lists, objects and booleans as they are."""
  if isinstance(value, (int, float)) and not isinstance(value, bool):
    return value + 1
  return value + 'zz' if isinstance(value, str) else value


@pytest.mark.parametrize('category', FIRSTS)
def test_first_listed_answers_are_judged_as_the_leaderboard_judges_them(
  assets, category
):
  """Figures of the package bfcl-eval 2026.3.23 on the same rows."""
  found, spoiled = 0, 0
  for e in bfcl.read(str(assets), category):
    functions, answers = json.loads(e.checks[1]), json.loads(e.checks[2])
    first = [
      Call(name, {k: v[0] for k, v in given.items() if v[0] != ''})
      for one in answers
      for name, given in one.items()
    ]
    changed = [
      Call(c.name, {k: spoil(v) for k, v in c.arguments.items()}) for c in first
    ]
    found += calls.same(functions, first, answers)
    spoiled += calls.same(functions, changed, answers)
  assert (found, spoiled) == (FIRSTS[category], SPOILED[category])


def test_answers_of_bfcl_are_right_and_words_are_not(assets):
  loaded = task.load(f'bfcl={assets}')
  examples = loaded.examples('heldout', 10**6, 0)
  assert len(examples) == len({e.prompt for e in examples}) == 1240
  scores = loaded.summary(examples, [e.answer for e in examples])
  assert min(scores.values()) >= 0.995 and set(scores) == {*bfcl.CATEGORIES, 'average'}
  words = loaded.summary(examples, ['I would not know.'] * len(examples))
  assert words['average'] == 0.2 and words['irrelevance'] == 1


def write(path, rows):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text('\n'.join(map(json.dumps, rows)))


RULE = {'type': 'dict', 'properties': {'x': {'type': 'integer'}}, 'required': ['x']}
ROW = {
  'id': 'a',
  'question': [[{'role': 'user', 'content': 'Call it with 1.'}]],
  'function': [{'name': 'm.g', 'description': 'd', 'parameters': RULE}],
}
ANSWER = {'id': 'a', 'ground_truth': [{'m.g': {'x': [1]}}]}


@pytest.fixture
def simple(tmp_path):
  def made(row=ROW, answer=ANSWER):
    write(tmp_path / 'bfcl/simple.json', [row])
    write(tmp_path / 'bfcl/answers/simple.json', [answer])
    return f'bfcl={tmp_path},simple'

  return made


@pytest.mark.parametrize(
  'response,score',
  [
    ('{"name": "m.g", "parameters": {"x": 1}}', 1),
    ('[m.g(x=1)]', 1),
    ('m.g(1)', 1),
    ('<function=m.g>{"x": 1}</function>', 1),
    ('<|python_tag|>{"name": "m.g", "parameters": {"x": 1}}', 1),
    ('{"name": "m.g", "parameters": {"x": 2}}', 0),
    ('{"name": "m.g", "parameters": {"x": 1}', 0),
    ('[m.g(x=1), m.g(x=1)]', 0),
    ('It is 1.', 0),
  ],
)
def test_response_is_right_in_any_form_of_a_call(simple, response, score):
  loaded = task.load(simple())
  [example] = loaded.examples('heldout', 9, 0)
  assert example.answer == '{"name": "m.g", "parameters": {"x": 1}}'
  assert '"type": "object"' in example.prompt and 'Call it with 1.' in example.prompt
  assert loaded.score(example, response) == score


DAMAGED = [
  ({'id': 5}, {}, "simple.json, line 1: field 'id' is a number"),
  ({'question': 'x'}, {}, "simple.json, line 1: field 'question'"),
  ({'function': []}, {}, "simple.json, line 1: field 'function'"),
  ({'function': [{'name': ''}]}, {}, "simple.json, line 1: field 'name'"),
  (
    {'function': [{'name': 'm.g', 'parameters': {'properties': {'x': {'type': '?'}}}}]},
    {},
    'simple.json, line 1: argument x of m.g has no known type',
  ),
  ({}, {'id': 'b'}, 'simple.json, line 1: there is no answer to a'),
  ({}, {'ground_truth': {}}, "answers/simple.json, line 1: field 'ground_truth'"),
  ({}, {'ground_truth': [{'m.g': {'x': 1}}]}, 'answers/simple.json, line 1: field'),
  ({}, {'ground_truth': [{'h': {'x': [1]}}]}, 'line 1: h is none of the functions'),
]


@pytest.mark.parametrize('row,answer,reason', DAMAGED)
def test_damaged_row_of_bfcl_is_named(simple, row, answer, reason):
  loaded = task.load(simple(ROW | row, ANSWER | answer))
  with pytest.raises(UserError, match=reason) as error:
    loaded.examples('heldout', 9, 0)
  assert '\n' not in str(error.value)


def test_ids_of_bfcl_are_different(tmp_path):
  write(tmp_path / 'irrelevance.json', [ROW, ROW])
  with pytest.raises(UserError, match='line 2: id a is also in .*line 1'):
    task.load(f'bfcl={tmp_path},irrelevance').examples('heldout', 9, 0)


@pytest.mark.parametrize(
  'name,reason',
  [
    ('bfcl', 'needs its folder'),
    ('bfcl=x,java', "category 'java' is none of simple"),
    ('bfcl=no_such_29c1', 'is not there'),
    ('api_bank', 'needs its folder'),
    ('api_bank=no_such_29c1', 'does not exist'),
  ],
)
def test_data_of_calls_that_is_not_there_is_one_line(name, reason):
  with pytest.raises(UserError, match=reason):
    task.load(name).examples('heldout', 1, 0)


@pytest.mark.parametrize('name', ['bfcl', 'api_bank'])
def test_nothing_of_them_is_for_training(name):
  with pytest.raises(UserError, match='held out as a whole'):
    task.load(f'{name}=x').examples('train', 1, 0)


USE = {'role': 'API', 'api_name': 'Add', 'param_dict': {'a': '1', 'b': ' x'}}
TURNS = [
  {'role': 'User', 'text': 'Add 1\nand x.'},
  USE | {'result': {'output': 'success'}},
  {'role': 'AI', 'text': 'Done.'},
  USE | {'param_dict': {'a': '2'}},
]


def test_every_call_of_api_bank_is_a_question(tmp_path):
  write(tmp_path / 'level1.jsonl', [{'file': 'f', 'turns': TURNS}] * 2)
  found = api_bank.read(tmp_path / 'level1.jsonl')
  assert len(found) == 2
  first, second = found
  assert first.prompt.endswith('User: Add 1 and x.')
  assert second.prompt.endswith('Result: "success"\nAssistant: Done.')
  assert json.loads(first.checks[0])[0]['function']['parameters']['required'] == ['a']
  score = lambda **given: api_bank.score(
    first, json.dumps({'name': 'Add', 'parameters': given})
  )
  assert score(a='1', b='x') == 1 and score(a=1, b='x') == 1
  assert score(a='1') == score(a='1', b='X') == score(a='1', b='x', c='') == 0
  assert api_bank.score(first, 'Add it') == api_bank.score(first, '{"name": "Add"') == 0
  assert api_bank.score(first, f'{first.answer};{first.answer}') == 0


def test_answers_of_api_bank_are_right(assets):
  examples = task.load(f'api_bank={assets}').examples('heldout', 10**6, 0)
  assert len(examples) == 389
  assert all(api_bank.score(e, e.answer) == 1 for e in examples)
  assert not any(api_bank.score(e, '') for e in examples)


@pytest.mark.parametrize(
  'turns,reason',
  [
    (None, "line 1: field 'turns' is not"),
    ([{'role': 'Bot'}], "line 1, turn 1: role 'Bot'"),
    ([{'role': 'AI'}], "line 1, turn 1: field 'text' is missing"),
    ([USE | {'param_dict': []}], "line 1, turn 1: field 'param_dict'"),
    ([TURNS[0]], 'no turn calls a function'),
  ],
)
def test_damaged_row_of_api_bank_is_named(tmp_path, turns, reason):
  write(tmp_path / 'level1.jsonl', [{'file': 'f', 'turns': turns}])
  with pytest.raises(UserError, match=reason):
    task.load(f'api_bank={tmp_path}').examples('heldout', 1, 0)
