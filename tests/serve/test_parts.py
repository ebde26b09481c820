"""Parts of the server by themselves: schemas, prompts with tools, a failing engine."""

import asyncio
import json
import sys

import jax
import numpy as np
import post_examples as toy
import pytest
import templates
import toy_chat

from configs import serve as config
from experiments import serve as recipe
from llama3_jax.base.errors import UserError
from llama3_jax.generate import embed
from llama3_jax.generate import engine as engines
from llama3_jax.generate import programs
from llama3_jax.generate import schema as schemas
from llama3_jax.generate.group import Request
from llama3_jax.generate.group import Sizes
from llama3_jax.generate.settings import Settings
from llama3_jax.model import llama
from llama3_jax.serve import messages
from llama3_jax.serve import worker as workers
from llama3_jax.serve.faults import Fault
from llama3_jax.text.chat import Message

TOOL = {'type': 'function', 'function': {'name': 'add', 'parameters': {}}}
ASKED = [Message('system', 'Be short.'), Message('user', 'hi')]


@pytest.fixture
def guide():
  pytest.importorskip('llguidance')


def bits(words):
  return np.flatnonzero(np.unpackbits(words.view(np.uint8), bitorder='little'))


@pytest.mark.parametrize('size', [261, 288, 300])
def test_a_constraint_allows_tokens_of_the_schema_alone(guide, size):
  tokenizer = toy_chat.byte_level()
  vocabulary = schemas.Vocabulary(tokenizer, size)
  bound = schemas.Grammar(vocabulary, {'enum': ['ä', 12]}).bound()
  text = lambda: {tokenizer.decode([i]) for i in bits(bound.allowed())}
  assert text() == {'"', '1'} and len(bound.allowed()) == -(-size // 32)
  for i in tokenizer.encode('12'):
    assert i in bits(bound.allowed())
    bound.accept(i)
  assert set(bits(bound.allowed())) == set(tokenizer.stop_ids) and not bound.failed
  bound.accept(tokenizer.stop_ids[0])
  bound.accept(tokenizer.stop_ids[0])  # one more changes nothing


def test_a_constraint_that_is_at_its_wits_end_ends_the_answer(guide):
  tokenizer = toy_chat.byte_level()
  vocabulary = schemas.Vocabulary(tokenizer, tokenizer.vocab_size)
  bound = schemas.Grammar(vocabulary, {'enum': ['x']}).bound()
  bound.accept(tokenizer.encode('y')[0])  # which was not allowed
  assert set(bits(bound.allowed())) == set(tokenizer.stop_ids) and bound.failed


def test_without_llguidance_the_extra_is_named(monkeypatch):
  schemas._library.cache_clear()
  monkeypatch.setitem(sys.modules, 'llguidance', None)
  with pytest.raises(UserError, match=r"pip install -e '\.\[schema\]'"):
    schemas.Vocabulary(toy_chat.byte_level(), 261)
  schemas._library.cache_clear()


def test_tools_are_written_as_the_template_of_the_model_does():
  other = toy_chat.byte_level(templates.LLAMA31)
  text = other.decode(messages.prompt(other, ASKED, [TOOL]))
  assert 'You can call these functions' in text and '"name": "add"' in text
  plain = other.decode(messages.prompt(other, ASKED, []))
  assert 'call these' not in plain


def test_tools_stand_in_the_system_message_where_a_template_has_no_place(tmp_path):
  for tokenizer in (toy_chat.byte_level(), toy.tokenizer(tmp_path)):
    for dialog in (ASKED, ASKED[1:]):
      text = tokenizer.decode(messages.prompt(tokenizer, dialog, [TOOL]))
      assert text.count('system') == 1 and '"name": "add"' in text
      assert ('Be short.' in text) == (dialog is ASKED)


def spoken(calls, results):
  """A body's messages: a question, calls by id, and results by id."""
  made = [
    {'id': i, 'type': 'function', 'function': {'name': 'add', 'arguments': text}}
    for i, text in calls.items()
  ]
  back = [{'role': 'tool', 'tool_call_id': i, 'content': t} for i, t in results.items()]
  rows = [{'role': 'user', 'content': 'hi'}, {'role': 'assistant', 'tool_calls': made}]
  return messages.messages({'messages': [*rows, *back]})


def test_results_stand_in_the_order_of_their_calls():
  calls = {'a': '{"n": 1}', 'b': '{"n": 2}', 'c': '{"n": 3}'}
  dialog = spoken(calls, {'c': 'three', 'a': 'one', 'b': 'two'})
  assert [m.content for m in dialog[2:]] == ['one', 'two', 'three']
  assert [m.role for m in dialog] == ['user', 'assistant', *3 * ('ipython',)]


def test_several_calls_are_a_message_each_in_a_chat_of_llama_3(tmp_path):
  dialog = spoken({'a': '{"n": 1}', 'b': '{"n": 2}'}, {'b': 'two', 'a': 'one'})
  own = toy.tokenizer(tmp_path)
  text = own.decode(messages.prompt(own, dialog, [TOOL]))
  places = [text.rindex(x) for x in ('{"n": 1}', 'one', '{"n": 2}', 'two')]
  assert places == sorted(places)
  other = toy_chat.byte_level(templates.LLAMA31)
  with pytest.raises(Fault, match='messages'):  # which has one call a message
    messages.prompt(other, dialog, [TOOL])


def test_calls_of_an_answer_are_told_in_the_form_of_the_api(tmp_path):
  own = toy.tokenizer(tmp_path)
  rows = [{'name': 'add', 'arguments': {'n': n}} for n in (1, 2)]
  text = '; '.join(map(json.dumps, rows))
  made = messages.called(own, own.encode(text), [TOOL])
  assert [json.loads(c['function']['arguments']) for c in made] == [{'n': 1}, {'n': 2}]
  assert len({c['id'] for c in made}) == 2
  assert len(messages.called(own, own.encode(text), [TOOL], several=False)) == 1
  for said in ('It is 3.', '{"name": "add", "parameters": {"n": 1}'):
    assert messages.called(own, own.encode(said), [TOOL]) is None
  assert messages.parallel({}) and messages.parallel({'parallel_tool_calls': True})
  assert not messages.parallel({'parallel_tool_calls': False})
  with pytest.raises(Fault, match='parallel_tool_calls'):
    messages.parallel({'parallel_tool_calls': 'no'})


@pytest.mark.parametrize('name', ['get weather', '', 'a/b'])
def test_definition_of_a_tool_that_has_no_name_is_a_fault(name):
  with pytest.raises(Fault, match=r'tools\[0\]'):
    messages.declared([{'type': 'function', 'function': {'name': name}}])


def test_a_model_that_does_not_chat_says_so():
  with pytest.raises(Fault, match='chat template') as caught:
    messages.prompt(toy_chat.byte_level(None), ASKED, [])
  assert caught.value.status == 400


@pytest.mark.parametrize('value', [(), (16, 4), (4, 4)])
def test_numbers_of_rows_and_chunks_grow(value):
  for name in ('rows', 'chunks'):
    c = config.get_config()
    c[name] = value
    with pytest.raises(UserError, match=f'{name}='):
      recipe._sizes(c)


def test_a_file_without_keys_is_refused(tmp_path):
  assert recipe._keys('') == ()
  (tmp_path / 'empty').write_text('\n \n')
  for name in ('empty', 'absent'):
    with pytest.raises(UserError, match='key_file='):
      recipe._keys(str(tmp_path / name))


def small(params):
  return engines.Engine(params, toy.CONFIG, Sizes((4,), (64,), 256, steps=2))


def test_embeddings_are_the_mean_of_the_hidden_states(mesh):
  params = toy.model()
  prompts = [[256, 1, 2, 3], [256] + [7] * 99, [256]]
  made = embed.texts(small(params), prompts)
  for ids, row in zip(prompts, made, strict=True):
    tokens = np.array([ids], np.int32)
    position = np.arange(len(ids))[None]
    hidden, _ = llama.forward(
      params, tokens, position, np.ones_like(tokens), toy.CONFIG
    )
    due = np.asarray(hidden[0].mean(0))
    np.testing.assert_allclose(row, due / np.linalg.norm(due), atol=2e-5)
  with jax.set_mesh(mesh(fsdp=4, tensor=2)):
    cut = jax.jit(llama.init, static_argnums=1)(jax.random.key(0), toy.CONFIG)
    cut = programs.prepared(cut, toy.CONFIG)
    again = embed.texts(small(cut), prompts)
  np.testing.assert_allclose(again, made, atol=2e-5)


def test_when_the_engine_fails_all_are_told_and_new_requests_refused(monkeypatch):
  engine = small(toy.model())

  def broken(self):
    raise RuntimeError('out of memory')

  monkeypatch.setattr(engines.Engine, 'step', broken)

  async def run():
    worker = workers.Worker(engine, 8)
    worker.start(asyncio.get_running_loop())
    assert worker.alive
    pieces = asyncio.Queue()
    request = Request([1, 2], Settings(max_new=2), samples=2)
    worker.submit([workers.Job(request, pieces)])
    async with asyncio.timeout(10):
      got = [await pieces.get(), await pieces.get()]
    assert {p.index for p in got} == {0, 1} and {p.end for p in got} == {'failed'}
    assert not worker.alive
    with pytest.raises(Fault) as caught:
      worker.submit([workers.Job(request, pieces)])
    assert caught.value.status == 503
    worker.close()

  asyncio.run(run())


def test_calls_run_between_steps_and_their_errors_come_back():
  async def run():
    worker = workers.Worker(small(toy.model()), 2)
    worker.start(asyncio.get_running_loop())
    assert await worker.call(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
      await worker.call(lambda: 1 // 0)
    assert worker.alive
    worker.close()
    assert not worker.alive

  asyncio.run(run())
