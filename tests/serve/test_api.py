"""The API as the client of openai sees it: answers, streams, rules, tools, schemas."""

import json
import math

import pytest

ASKED = dict(model='toy', messages=[{'role': 'user', 'content': 'hi'}], max_tokens=24)
GREEDY = ASKED | dict(temperature=0)
EOT = 256 + 9  # <|eot_id|> of the toy vocabulary


def said(answer):
  return [choice.message.content for choice in answer.choices]


def streamed(chunks):
  """(texts by choice, reasons by choice, usage) of a stream."""
  texts, ends, usage = {}, {}, None
  for chunk in chunks:
    usage = chunk.usage or usage
    for c in chunk.choices:
      texts[c.index] = texts.get(c.index, '') + (c.delta.content or '')
      ends[c.index] = c.finish_reason or ends.get(c.index)
  return texts, ends, usage


def test_models(client):
  assert [m.id for m in client.models.list()] == ['toy']
  assert client.models.retrieve('toy').id == 'toy'


def test_chat_counts_its_tokens(client):
  answer = client.chat.completions.create(**GREEDY)
  [choice] = answer.choices
  assert len(choice.message.content) == 24 and choice.finish_reason == 'length'
  assert choice.message.role == 'assistant'
  # begin_of_text, two headers, the question and the end of its message.
  assert answer.usage.prompt_tokens == 1 + 4 + 2 + 2 + 2 + 1 + 9 + 4
  assert answer.usage.completion_tokens == 24
  assert answer.usage.total_tokens == 24 + answer.usage.prompt_tokens


def test_stream_is_the_whole_answer_in_pieces(client):
  how = ASKED | dict(seed=3, n=3)
  whole = client.chat.completions.create(**how)
  usage = dict(stream=True, stream_options=dict(include_usage=True))
  chunks = list(client.chat.completions.create(**how, **usage))
  texts, ends, usage = streamed(chunks)
  assert texts == dict(enumerate(said(whole))) and len(chunks) > 6
  assert ends == {c.index: c.finish_reason for c in whole.choices}
  assert usage == whole.usage
  assert chunks[0].choices[0].delta.role == 'assistant'
  assert all(c.usage is None for c in chunks[:-1]) and not chunks[-1].choices
  assert len({c.id for c in chunks}) == 1


def test_samples_differ_and_a_seed_gives_them_again(client):
  asks = lambda seed: said(client.chat.completions.create(**ASKED, n=4, seed=seed))
  first = asks(7)
  assert len(set(first)) == 4 and asks(7) == first and asks(8) != first
  assert asks(-1) == asks(2**32 - 1)
  free = [said(client.chat.completions.create(**ASKED))[0] for _ in range(3)]
  assert len(set(free)) == 3


def test_answer_ends_before_a_stop_string_across_tokens(client):
  [text] = said(client.chat.completions.create(**GREEDY))
  stop = text[9:15]  # of one token a character
  due = text[: text.index(stop)]
  answer = client.chat.completions.create(**GREEDY, stop=['never', stop])
  assert said(answer) == [due] and answer.choices[0].finish_reason == 'stop'
  assert answer.usage.completion_tokens == len(due) + len(stop)
  chunks = list(client.chat.completions.create(**GREEDY, stop=stop, stream=True))
  assert streamed(chunks)[:2] == ({0: due}, {0: 'stop'})


def test_text_that_only_began_as_a_stop_string_is_not_lost(client):
  [text] = said(client.chat.completions.create(**GREEDY))
  assert said(client.chat.completions.create(**GREEDY, stop=text[-5:] + 'x')) == [text]


def test_stop_token_ends_an_answer(client):
  answer = client.chat.completions.create(**ASKED, logit_bias={str(EOT): 100})
  assert said(answer) == [''] and answer.choices[0].finish_reason == 'stop'
  assert answer.usage.completion_tokens == 1


def test_logprobs_of_a_chat(client):
  how = dict(GREEDY, logprobs=True, top_logprobs=3)
  [choice] = client.chat.completions.create(**how).choices
  rows = choice.logprobs.content
  assert ''.join(row.token for row in rows) == choice.message.content
  for row in rows:
    assert bytes(row.bytes).decode() == row.token and row.logprob <= 0
    assert len(row.top_logprobs) == 3
    assert row.top_logprobs[0].logprob == row.logprob  # it was the likeliest
  chunks = list(client.chat.completions.create(**how, stream=True))
  parts = [c.choices[0].logprobs for c in chunks if c.choices[0].logprobs]
  assert [row for part in parts for row in part.content] == rows


def test_rules_of_sampling_are_followed(client):
  plain = said(client.chat.completions.create(**GREEDY))
  only = client.chat.completions.create(**GREEDY, logit_bias={'65': 100})
  assert said(only) == ['A' * 24]
  never = client.chat.completions.create(
    **GREEDY, logit_bias={'65': 90}, extra_body=dict(repetition_penalty=100)
  )
  assert never.choices[0].message.content != 'A' * 24
  for rule in (dict(top_k=1), dict(min_p=1.0)):
    answer = client.chat.completions.create(**ASKED, extra_body=rule)
    assert said(answer) == plain
  assert said(client.chat.completions.create(**ASKED, top_p=1e-3)) == plain
  for name in ('presence_penalty', 'frequency_penalty'):
    assert said(client.chat.completions.create(**GREEDY, **{name: 2})) != plain


def test_completions_of_several_prompts(client):
  how = dict(model='toy', prompt=['a', 'b'], temperature=0, n=2, max_tokens=6)
  answer = client.completions.create(**how, logprobs=2)
  texts = [c.text for c in answer.choices]
  assert [c.index for c in answer.choices] == [0, 1, 2, 3]
  assert texts[0] == texts[1] and texts[2] == texts[3] and texts[0] != texts[2]
  for choice in answer.choices:
    assert ''.join(choice.logprobs.tokens) == choice.text
    assert choice.logprobs.text_offset == list(range(6))
    assert len(choice.logprobs.top_logprobs[0]) == 2
  assert answer.usage.prompt_tokens == 4 and answer.usage.completion_tokens == 24
  ids = client.completions.create(**how | dict(prompt=[[256, 97], [256, 98]]))
  assert [c.text for c in ids.choices] == texts
  got = {}
  for chunk in client.completions.create(**how, stream=True):
    for c in chunk.choices:
      got[c.index] = got.get(c.index, '') + c.text
  assert [got[i] for i in range(4)] == texts


def test_embeddings_do_not_depend_on_company(client):
  texts = ['hello', 'a longer text ' * 9, 'x', 'y', 'hello', 'hullo']
  answer = client.embeddings.create(model='toy', input=texts)
  rows = [each.embedding for each in answer.data]
  dot = lambda a, b: sum(x * y for x, y in zip(a, b, strict=True))
  assert all(math.isclose(dot(row, row), 1, rel_tol=1e-4) for row in rows)
  assert dot(rows[0], rows[4]) > 0.9999 > dot(rows[0], rows[5])
  alone = client.embeddings.create(model='toy', input='x', encoding_format='float')
  assert dot(alone.data[0].embedding, rows[2]) > 0.9999
  assert answer.usage.prompt_tokens == sum(map(len, texts)) + len(texts)


SCHEMA = {
  'type': 'object',
  'properties': {'n': {'type': 'integer', 'minimum': 0, 'maximum': 99}},
  'required': ['n'],
  'additionalProperties': False,
}
TOOL = {'type': 'function', 'function': {'name': 'add', 'parameters': SCHEMA}}


def form(schema):
  return {'type': 'json_schema', 'json_schema': {'name': 'x', 'schema': schema}}


def test_answers_meet_a_schema(client):
  answer = client.chat.completions.create(**ASKED, n=4, response_format=form(SCHEMA))
  for choice in answer.choices:
    assert choice.finish_reason == 'stop'
    value = json.loads(choice.message.content)
    assert set(value) == {'n'} and 0 <= value['n'] <= 99
  listed = {'type': 'array', 'items': {'enum': ['ä', 1]}, 'minItems': 2, 'maxItems': 2}
  answer = client.chat.completions.create(**ASKED, response_format=form(listed))
  value = json.loads(answer.choices[0].message.content)
  assert len(value) == 2 and set(value) <= {'ä', 1}
  answer = client.chat.completions.create(
    **GREEDY | dict(max_tokens=99),
    response_format={'type': 'json_object'},
    logit_bias={'125': 100},  # a brace ends it as soon as one may
  )
  assert isinstance(json.loads(answer.choices[0].message.content), dict)


def test_tools_are_shown_and_called(client):
  plain = client.chat.completions.create(**GREEDY)
  shown = client.chat.completions.create(**GREEDY, tools=[TOOL])
  assert shown.usage.prompt_tokens > plain.usage.prompt_tokens + 100
  hidden = client.chat.completions.create(**GREEDY, tools=[TOOL], tool_choice='none')
  assert hidden.usage == plain.usage
  how = dict(ASKED, tools=[TOOL], tool_choice='required', max_tokens=99)
  for more in ({}, {'tool_choice': {'type': 'function', 'function': {'name': 'add'}}}):
    [choice] = client.chat.completions.create(**how | more).choices
    [call] = choice.message.tool_calls
    assert call.function.name == 'add' and choice.finish_reason == 'tool_calls'
    assert 0 <= json.loads(call.function.arguments)['n'] <= 99
    assert choice.message.content is None
  said_back = [
    *ASKED['messages'],
    {'role': 'assistant', 'tool_calls': [call.model_dump()]},
    {'role': 'tool', 'tool_call_id': call.id, 'content': '7'},
  ]
  after = client.chat.completions.create(**how | dict(messages=said_back))
  assert after.usage.prompt_tokens > shown.usage.prompt_tokens + 20


def test_a_call_comes_whole_in_a_stream(client):
  how = dict(ASKED, tools=[TOOL], tool_choice='required', max_tokens=99)
  chunks = list(client.chat.completions.create(**how, stream=True))
  deltas = [c.choices[0].delta for c in chunks]
  assert not any(d.content for d in deltas)
  [[call]] = [d.tool_calls for d in deltas if d.tool_calls]
  assert call.index == 0 and call.function.name == 'add' and call.id
  assert 'n' in json.loads(call.function.arguments)
  assert chunks[-1].choices[0].finish_reason == 'tool_calls'


@pytest.mark.parametrize('role', ['system', 'developer'])
def test_roles_and_parts(client, role):
  parts = [{'type': 'text', 'text': 'h'}, {'type': 'text', 'text': 'i'}]
  alone = client.chat.completions.create(
    **GREEDY | dict(messages=[{'role': 'user', 'content': parts}])
  )
  assert said(alone) == said(client.chat.completions.create(**GREEDY))
  first = {'role': role, 'content': 'Be short.'}
  led = GREEDY | dict(messages=[first, *GREEDY['messages']])
  assert said(client.chat.completions.create(**led)) != said(alone)
