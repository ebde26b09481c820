"""Calls are read in every form; what is none is an answer, or said to be unreadable."""

import json
import re

import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.text.messages import Message
from llama3_jax.text.tool_calls import Call
from llama3_jax.tools import arguments
from llama3_jax.tools import parser
from llama3_jax.tools import registry


def add(a: int, b: int = 0) -> int:
  """Adds two numbers.

  Args:
    a: the first.
    b: the second, whose
      line is long.
  """
  return a + b


def weather(place: str) -> str:
  """The weather of a place."""
  return f'sun in {place}'


TOOLS = (registry.of(add), registry.of(weather))
ONE = (Call('add', {'a': 1, 'b': 2}),)
TWO = (*ONE, Call('weather', {'place': 'Oslo; "x"'}))
ROWS = [{'name': c.name, 'parameters': dict(c.arguments)} for c in TWO]
FIRST, SECOND = map(json.dumps, ROWS)
OPENAI = [
  {'type': 'function', 'function': {'name': r['name'], 'arguments': r['parameters']}}
  for r in ROWS
]


@pytest.mark.parametrize(
  'text,calls',
  [
    (FIRST, ONE),
    (f'  <|python_tag|>{FIRST}\n', ONE),
    (f'```json\n{FIRST}\n```', ONE),
    (FIRST.replace('parameters', 'arguments'), ONE),
    (f'{FIRST}; {SECOND}', TWO),
    (f'{FIRST}\n{SECOND}', TWO),
    (json.dumps(ROWS), TWO),
    (json.dumps(OPENAI), TWO),
    ('<function=add>{"a": 1, "b": 2}</function>', ONE),
    (
      ''.join(
        f'<function={c.name}>{json.dumps(c.arguments)}</function>\n' for c in TWO
      ),
      TWO,
    ),
    (f'<tool_call>\n{FIRST}\n</tool_call>', ONE),
    (f'I add.\n<tool_call>{FIRST}</tool_call><tool_call>{SECOND}', TWO),
    ('[add(a=1, b=2)]', ONE),
    ('add(a=1, b=2)', ONE),
    ('add(1, b=2)', ONE),
    ('add(1, 2)\nweather(place=\'Oslo; "x"\')', TWO),
    ('[add(a=1, b=2), weather(place=\'Oslo; "x"\')]', TWO),
    ('[]', ()),
    ('', ()),
    ('4', ()),
    ('add the numbers (1 and 2)', ()),
    ('add (1 and 2) to it, then stop.', ()),
    ('{"name": "Ann", "age": 3}', ()),
    ('{"name": "Ann", "arguments": ["of the quarrel"]}', ()),
    ('[1, 2, 3]', ()),
    ('```python\nprint(add(1, 2))\n```', ()),
    ('The call is {"name": "add", "parameters": {"a": 1}}', ()),
    ('other(a=1)', ()),
  ],
)
def test_calls_are_read_in_every_form_and_answers_are_left(text, calls):
  assert parser.read(text, TOOLS) == calls


@pytest.mark.parametrize(
  'text',
  [
    '{"name": "add", "parameters": {"a": 1, "b": 2}',
    '{"name": "add", "parameters": {"a": 1 "b": 2}}',
    '{"name": \'add\'}, "parameters": {}}',
    '[{"name": "add", "parameters": {"a": 1}}, {"name": ',
    '<function=add>{"a": 1</function>',
    '<function=add>[1]</function>',
    '<function=add>{"a": 1}</function> and more',
    '<function=>',
    '<tool_call>{"name": "add"}</tool_call>',
    '<tool_call>nothing</tool_call>',
    'brave_search.call(q="x")',
    'add(a=1, b=)',
    'add(a=1, a=2)',
    'add(1, 2, 3)',
    'add(a=x)',
    'add(**{"a": 1})',
    'add(a=1)\nother(b=2)',
    'add(a={1, 2})',
  ],
)
def test_call_with_a_slip_is_unreadable(text):
  with pytest.raises(parser.Unreadable) as error:
    parser.read(text, TOOLS)
  assert str(error.value) and '\n' not in str(error.value)


def test_message_that_ends_as_a_call_and_is_none_is_unreadable():
  with pytest.raises(parser.Unreadable, match='ended as a call'):
    parser.calls(Message('assistant', 'let me see', 'eom'), TOOLS)
  assert parser.calls(Message('assistant', 'let me see', 'eot'), TOOLS) == ()


def test_calls_in_arguments_are_calls():
  nested = (Call('add', {'a': Call('add', {'a': 1}), 'b': 2}),)
  inner = {'name': 'add', 'parameters': {'a': 1}}
  outer = {'name': 'add', 'parameters': {'a': inner, 'b': 2}}
  for text in ('add(a=add(1), b=2)', '[add(a=add(a=1), b=2)]', json.dumps(outer)):
    assert parser.read(text, TOOLS) == nested
  assert parser.plain(nested[0]) == outer
  kept = {'name': 'weather', 'parameters': {'place': {'name': 'Ann', 'age': 1}}}
  [call] = parser.read(json.dumps(kept), TOOLS)
  assert call.arguments == kept['parameters']


@pytest.mark.parametrize(
  'text',
  [
    '[' * 5000,
    '{"name": "add", "parameters": ' + '{"a": ' * 3000 + '1' + '}' * 3001,
    'add(' * 3000,
    'add(a=' + '[' * 3000 + ']' * 3000 + ')',
    '<function=add>' + '{"a":' * 2000 + '</function>',
    '\0',
    'add(a="\ud800")',
    '{"name": "add", "parameters": {"a": NaN}}',
    '<tool_call>' * 100,
    'add(a=' + '9' * 10000 + ')',
  ],
)
def test_whatever_is_written_is_calls_an_answer_or_unreadable(text):
  try:
    found = parser.calls(Message('assistant', text), TOOLS)
  except parser.Unreadable:
    return
  assert isinstance(found, tuple)


def test_text_that_may_be_a_call_is_known_from_its_beginning():
  for text in ('', ' ', '{', '[', '<', 'wol', 'brave_search.call("', 'ad', 'add(1'):
    assert parser.may_be(text, TOOLS)
  for text in ('Hello', 'a dog', 'adds', '4'):
    assert not parser.may_be(text, TOOLS)


def test_schema_of_a_function_is_its_signature_and_docstring():
  assert TOOLS[0].schema == {
    'type': 'function',
    'function': {
      'name': 'add',
      'description': 'Adds two numbers.',
      'parameters': {
        'type': 'object',
        'properties': {
          'a': {'type': 'integer', 'description': 'the first.'},
          'b': {
            'type': 'integer',
            'description': 'the second, whose line is long.',
            'default': 0,
          },
        },
        'required': ['a'],
      },
    },
  }


def test_methods_of_objects_are_tools():
  class Counter:
    n = 0

    def more(self, by: int) -> int:
      """Counts."""
      self.n += by
      return self.n

  counter = Counter()
  tool = registry.of(counter.more)
  assert tool.run(by=2) == 2 and list(tool.parameters['properties']) == ['by']


class Odd:
  pass


def no_docstring(a: int):
  return a


def odd(a: Odd):
  """Takes an object."""


def stars(*a: int):
  """Takes many."""


@pytest.mark.parametrize(
  'function,reason',
  [(no_docstring, 'no docstring'), (odd, 'no JSON type'), (stars, 'name its')],
)
def test_function_that_a_model_cannot_call_is_refused(function, reason):
  with pytest.raises(UserError, match=f'tool {function.__name__}.*{reason}'):
    registry.of(function)


RULE = {
  'type': 'object',
  'properties': {
    'n': {'type': 'integer'},
    'x': {'type': 'number'},
    'kind': {'enum': ['a', 'b']},
    'rows': {'type': 'array', 'items': {'type': 'string'}},
    'one': {'type': 'object', 'properties': {'y': {'type': 'boolean'}},
            'required': ['y']},
    'either': {'anyOf': [{'type': 'string'}, {'type': 'null'}]},
  },
  'required': ['n'],
}  # fmt: skip


@pytest.mark.parametrize(
  'given,fault',
  [
    ({'n': 1}, ''),
    ({'n': 1.0, 'x': 2, 'kind': 'a', 'rows': [], 'one': {'y': True}}, ''),
    ({'n': 1, 'either': None, 'rows': ['x']}, ''),
    ({}, 'argument n is missing'),
    ({'n': '1'}, 'argument n is a text: it must be integer'),
    ({'n': True}, 'argument n is a boolean'),
    ({'n': 1.5}, 'argument n is a number'),
    ({'n': 1, 'm': 2}, 'argument m is unknown; there are: n, x'),
    ({'n': 1, 'kind': 'c'}, "argument kind is 'c': it must be one of 'a', 'b'"),
    ({'n': 1, 'rows': ['x', 2]}, r'argument rows\[1\] is a number'),
    ({'n': 1, 'one': {}}, 'argument one.y is missing'),
    ({'n': 1, 'one': {'y': 1}}, 'argument one.y is a number'),
    ({'n': 1, 'either': 3}, 'argument either is a number'),
  ],
)
def test_arguments_that_do_not_fit_are_told(given, fault):
  found = arguments.fault(RULE, given)
  assert (found == '') == (fault == '') and re.match(fault, found)


def test_tools_are_loaded_by_name(tmp_path, monkeypatch):
  (tmp_path / 'own_tools_29c1.py').write_text(
    'def hello(name: str) -> str:\n  """Greets."""\n  return name\n'
    'def create(source):\n  return [hello]\n'
  )
  monkeypatch.syspath_prepend(tmp_path)
  for name in ('own_tools_29c1.hello',):
    [tool] = registry.load([name])
    assert tool.name == 'hello' and tool.run(name='x') == 'x'


@pytest.mark.parametrize(
  'names,reason',
  [
    (['pyhton'], "tool 'pyhton' is unknown: there are python, search, math, files"),
    (['no_such_29c1.x'], "tool 'no_such_29c1.x' is not there"),
    (['search'], 'search needs a folder'),
    (['files'], 'files needs a folder'),
    (['math=x'], 'math takes nothing'),
    (['files=no_such_29c1'], 'no such folder'),
    (['python=no_such_29c1'], 'no such folder'),
  ],
)
def test_tool_that_cannot_be_is_one_line(names, reason):
  with pytest.raises(UserError, match=reason) as error:
    registry.load(names)
  assert '\n' not in str(error.value) and str(error.value).startswith('tools: ')


def test_two_tools_of_one_name_are_refused():
  with pytest.raises(UserError, match='two tools have the name add'):
    registry.distinct([TOOLS[0], TOOLS[0]], 'tools')


@pytest.mark.parametrize(
  'row', [1, {}, {'name': 5}, {'name': 'a b'}, {'name': 'a', 'parameters': 3}]
)
def test_definition_that_is_none_is_refused(row):
  with pytest.raises(UserError, match='here: '):
    registry.declared(row, 'here')


def test_definition_may_leave_out_all_but_its_name():
  row = {'name': 'a', 'description': None, 'parameters': None}
  tool = registry.declared({'type': 'function', 'function': row}, 'here')
  assert tool.schema['function'] == {'name': 'a', 'parameters': registry.EMPTY}
  with pytest.raises(UserError, match="here: field 'description'"):
    registry.declared(row | {'description': 5}, 'here')
