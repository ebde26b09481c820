"""Calls are run and their outputs read, until the model answers; nothing breaks it."""

import dataclasses
import json

import post_examples as toy
import pytest
import templates
import toy_chat

from llama3_jax.base.errors import UserError
from llama3_jax.generate.settings import Settings
from llama3_jax.text import chat
from llama3_jax.text.messages import Message
from llama3_jax.text.tool_calls import Call
from llama3_jax.tools import agent
from llama3_jax.tools import prompt
from llama3_jax.tools import registry
from llama3_jax.tools.agent import Output


def add(a: int, b: int = 0) -> int:
  """Adds two numbers."""
  return a + b


def boom(text: str) -> str:
  """Fails."""
  raise ValueError(f'no\n{text}')


def rows() -> list:
  """Gives rows."""
  return [{'ä': 1}]


def whole(text: str) -> object:
  """Gives an object that JSON cannot write."""
  return {1, 2} if text == 'set' else '\ud800' * 3


def built(query: str) -> str:
  """Searches."""
  return f'found {query}'


TOOLS = tuple(map(registry.of, (add, boom, rows, whole)))
TOOLS += (registry.of(built, 'search', 'brave_search'),)
ASKED = [Message('user', '1 + 2?')]


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  return toy.tokenizer(tmp_path_factory.mktemp('vocabulary'))


def scripted(*texts, end='eot'):
  """A model that says these texts, and what it was asked each time."""
  said, seen = [Message('assistant', text, end) for text in texts], []

  def ask(messages):
    seen.append(list(messages))
    return said[len(seen) - 1]

  return ask, seen


def call(name, **given):
  return json.dumps({'name': name, 'parameters': given})


def test_outputs_are_read_until_the_model_answers():
  ask, seen = scripted(call('add', a=1, b=2), call('rows'), 'It is 3.')
  events = list(agent.run(ask, TOOLS, ASKED))
  assert [e.content for e in events if isinstance(e, Message)][-1] == 'It is 3.'
  assert [e.text for e in events if isinstance(e, Output)] == ['3', '[{"ä": 1}]']
  assert [m.role for m in seen[-1]] == ['user'] + ['assistant', 'ipython'] * 2
  assert seen[-1][2] == Message('ipython', '3')


def test_parallel_and_nested_calls_are_run_in_order():
  ask, seen = scripted('[add(a=1), add(a=add(a=2, b=2), b=1)]', 'done')
  events = list(agent.run(ask, TOOLS, ASKED))
  assert [e.text for e in events if isinstance(e, Output)] == ['1', '5']
  assert [m.content for m in seen[-1][2:]] == ['1', '5']


def test_eom_is_a_call_and_eot_an_answer():
  ask, seen = scripted('hm', 'done')
  assert len(list(agent.run(ask, TOOLS, ASKED))) == 1
  ask, seen = scripted('hm', end='eom')
  events = agent.run(ask, TOOLS, ASKED)
  next(events)
  assert 'cannot be read' in next(events).text


def test_after_the_last_step_the_model_is_told_to_answer():
  again = call('add', a=1)
  ask, seen = scripted(again, again, again, 'so be it')
  events = list(agent.run(ask, TOOLS, ASKED, steps=2))
  texts = [e.text for e in events if isinstance(e, Output)]
  assert texts == ['1', '1', agent.NO_MORE] and events[-1].content == 'so be it'
  ask, seen = scripted(again, again)
  assert len(list(agent.run(ask, TOOLS, ASKED, steps=0))) == 3


BAD = [
  ('{"name": "add", "parameters": {"a": 1', 'cannot be read'),
  (call('add'), 'add: argument a is missing'),
  (call('add', a='x'), 'add: argument a is a text: it must be integer'),
  (call('add', a=1, c=2), 'add: argument c is unknown; there are: a, b'),
  (call('nothing', a=1), 'nothing is no tool here; there are: add, boom'),
  (call('boom', text='x'), 'boom: ValueError: no x'),
  (call('add', a={'name': 'boom', 'parameters': {'text': 'x'}}), 'boom: ValueError'),
  ('[add(a=add(a=add(a=nothing)))]', 'cannot be read'),
  ('add(a=' * 12 + '1' + ')' * 12, 'nested too deeply'),
  ('photogen.call(query="x")', 'photogen is no tool here'),
]


@pytest.mark.parametrize('text,reason', BAD)
def test_malformed_call_ends_in_a_message_for_the_model(text, reason):
  ask, seen = scripted(text, 'sorry')
  events = list(agent.run(ask, TOOLS, ASKED))
  [output] = [e for e in events if isinstance(e, Output)]
  assert not output.ok and output.text.startswith('error: ') and reason in output.text
  assert '\n' not in output.text and seen[-1][-1] == output.message


def test_code_without_an_interpreter_is_told():
  code = Message('assistant', calls=(Call('code_interpreter', {'code': '1'}),))
  [output] = agent.outputs(TOOLS, code)
  assert 'the Python interpreter is no tool here' in output.text


def test_tool_that_ends_the_process_ends_it():
  """What a user stops is not a fault of a tool."""

  def stop() -> str:
    """Stops."""
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    agent.execute([registry.of(stop)], Call('stop', {}))


def test_outputs_are_texts_that_can_be_encoded_and_are_cut():
  for text in ('set', 'x'):
    agent.execute(TOOLS, Call('whole', {'text': text})).text.encode()
  long = agent.cut('a' * 50 + 'b' * 50, 40)
  assert long.startswith('a' * 30) and long.endswith('b' * 10)
  assert '60 characters left out' in long and agent.cut('a' * 40, 40) == 'a' * 40


def test_built_in_tools_are_called_by_either_name():
  for text in ('brave_search.call(query="x y")', call('search', query='x y')):
    [output] = agent.outputs(TOOLS, Message('assistant', text))
    assert output.text == 'found x y'


def test_llama_3_is_told_of_its_own_tools_by_name(tokenizer):
  search = TOOLS[-1]
  assert prompt.system([search]) == 'Environment: ipython\nTools: brave_search'
  text = prompt.system([search, TOOLS[0]], 'Be short.')
  assert text.startswith('Environment: ipython\nTools: brave_search\n\nYou have access')
  assert text.endswith('\n\nBe short.') and text.count('"name"') == 2  # add, the form
  code = registry.of(built, 'python', 'code_interpreter')
  assert prompt.system([code], 'Be short.') == 'Environment: ipython\n\nBe short.'
  assert prompt.system([], 'Be short.') == 'Be short.'
  ids = prompt.encode(tokenizer, [Message('system', 'Be short.'), *ASKED], [search]).ids
  told = [Message('system', prompt.system([search], 'Be short.')), *ASKED]
  assert ids.tolist() == chat.encode(tokenizer, told, prompt=True).ids.tolist()


def test_model_of_others_is_told_of_all_tools_as_definitions():
  plain, own = toy_chat.byte_level(), toy_chat.byte_level(templates.LLAMA31)
  for other in (plain, own):
    text = other.decode(prompt.encode(other, ASKED, TOOLS[-1:]).ids.tolist())
    assert '"name": "search"' in text and 'Tools: brave_search' not in text
  assert prompt.has_place(own) and not prompt.has_place(plain)


def test_without_tools_the_prompt_is_as_it_was(tokenizer):
  ids = prompt.encode(tokenizer, ASKED, ()).ids
  assert ids.tolist() == chat.encode(tokenizer, ASKED, prompt=True).ids.tolist()


def test_sampled_ids_of_a_call_are_kept_through_the_loop(tokenizer):
  """The engine's ids go back unchanged, whatever was sampled."""
  engine = toy_chat.engine(2048)
  settings = Settings(temperature=1.0, max_new=8)
  ask = agent.sampler(engine, tokenizer, TOOLS, settings, seed=3)
  first = ask(ASKED)
  assert first.ids and first.vocabulary == tokenizer.fingerprint
  closed = dataclasses.replace(
    chat.sampled(tokenizer, [*first.ids, tokenizer.eom])
    if first.ids[-1] not in tokenizer.stop_ids
    else first
  )
  dialog = [*ASKED, closed, Message('ipython', '3')]
  ids = prompt.encode(tokenizer, dialog, TOOLS).ids.tolist()
  joined = ' '.join(map(str, ids))
  assert ' '.join(map(str, closed.ids)) in joined
  assert ask(dialog).role == 'assistant'


def test_dialog_without_room_is_one_line(tokenizer):
  ask = agent.sampler(toy_chat.engine(64), tokenizer, TOOLS, Settings(max_new=8))
  with pytest.raises(UserError):
    ask(ASKED)
