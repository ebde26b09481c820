"""What is wrong with a request is told in the form of the API, and changes nothing."""

import json
import random
import socket

import httpx
import pytest

CHAT = '/v1/chat/completions'
ASKED = dict(model='toy', messages=[{'role': 'user', 'content': 'hi'}], max_tokens=2)


def post(server, body, path=CHAT):
  content = body if isinstance(body, bytes) else json.dumps(body).encode()
  return httpx.post(server.url + path, content=content, timeout=30)


def error(answer):
  """The error of an answer, whose form is checked."""
  body = answer.json()
  assert set(body) == {'error'} and answer.headers['x-request-id']
  assert set(body['error']) == {'message', 'type', 'param', 'code'}
  assert isinstance(body['error']['message'], str) and body['error']['message']
  return body['error']


WRONG = [
  ('messages', 'hi'),
  ('messages', []),
  ('messages', [1]),
  ('messages', [{'role': 'pope', 'content': 'hi'}]),
  ('messages', [{'role': 'user', 'content': 3}]),
  ('messages', [{'role': 'user'}]),
  ('messages', [{'role': 'user', 'content': [{'type': 'image_url'}]}]),
  ('messages', [{'role': 'user', 'content': 'x', 'tool_calls': [1]}]),
  ('max_tokens', 0),
  ('max_tokens', 'many'),
  ('max_tokens', 1.5),
  ('max_completion_tokens', -1),
  ('n', 0),
  ('n', 129),
  ('n', True),
  ('temperature', -1),
  ('temperature', '1'),
  ('temperature', 1e999),
  ('top_p', 1.1),
  ('top_k', -2),
  ('min_p', 2),
  ('seed', 'x'),
  ('seed', 2**70),
  ('presence_penalty', 1000),
  ('repetition_penalty', 0),
  ('logit_bias', {'x': 1}),
  ('logit_bias', {'512': 1}),
  ('logit_bias', {'1': 101}),
  ('logit_bias', []),
  ('stop', 5),
  ('stop', ['a'] * 5),
  ('stop', 'x' * 1001),
  ('stream', 'yes'),
  ('stream_options', {'include_usage': True}),
  ('logprobs', 3),
  ('top_logprobs', 21),
  ('top_logprobs', 2),
  ('tools', {}),
  ('tools', [{'type': 'x'}]),
  ('tools', [{'type': 'function', 'function': {'name': 5}}]),
  ('tool_choice', 'required'),
  ('response_format', {'type': 'xml'}),
  ('response_format', {'type': 'json_schema'}),
]


@pytest.mark.parametrize('name,value', WRONG)
def test_a_wrong_field_is_named(server, name, value):
  body = ASKED | {name: value}
  text = json.dumps(body).replace('Infinity', '1e999')
  answer = post(server, text.encode())
  told = error(answer)
  assert answer.status_code == 400 and told['type'] == 'invalid_request_error'
  assert told['param'].startswith(name) and name in told['message']


@pytest.mark.parametrize(
  'schema',
  [
    {'type': 'objet'},
    {'type': 'string', 'minLength': 5, 'maxLength': 2},
    {'enum': []},
    {'$ref': 'http://127.0.0.1:1/x'},
    {'type': 'string', 'pattern': '('},
  ],
)
def test_a_schema_that_cannot_be_met_is_refused(server, schema):
  form = {'type': 'json_schema', 'json_schema': {'schema': schema}}
  answer = post(server, ASKED | {'response_format': form})
  assert answer.status_code == 400 and error(answer)['param'] == 'response_format'


def test_unknown_fields_and_nulls_are_ignored(server):
  nothing = dict.fromkeys(('n', 'stop', 'seed', 'tools', 'logit_bias', 'top_p', 'user'))
  body = ASKED | nothing | {'colour': 'red', 'metadata': {'a': 1}}
  assert post(server, body).status_code == 200


def test_other_errors(server):
  answer = post(server, ASKED | dict(model='gpt'))
  told = error(answer)
  assert answer.status_code == 404 and told['code'] == 'model_not_found'
  assert error(post(server, {'messages': []}))['param'] == 'model'
  long = [{'role': 'user', 'content': 'x' * 1100}]
  for body in (dict(messages=long), dict(max_tokens=5000)):
    answer = post(server, ASKED | body)
    assert answer.status_code == 400
    assert error(answer)['code'] == 'context_length_exceeded'
  for path, method, status in (
    ('/v1/nothing', 'POST', 404),
    ('/v2', 'GET', 404),
    (CHAT, 'GET', 405),
    ('/v1/models', 'DELETE', 405),
    ('/v1/models/gpt', 'GET', 404),
  ):
    answer = httpx.request(method, server.url + path)
    error(answer)
    assert answer.status_code == status
  for path, body in (
    ('completions', {'prompt': []}),
    ('completions', {'prompt': [[512]]}),
    ('completions', {'prompt': 'x', 'echo': True}),
    ('completions', {'prompt': ['x'] * 300}),
    ('embeddings', {'input': ['x', 1]}),
    ('embeddings', {'input': ['x'] * 2049}),
    ('embeddings', {'input': 'x' * 2000}),
    ('embeddings', {'input': 'x', 'dimensions': 5}),
  ):
    answer = post(server, {'model': 'toy'} | body, f'/v1/{path}')
    assert answer.status_code == 400 and error(answer)['param'] in (*body, 'prompt')


def test_a_request_keeps_its_name(server):
  ask = lambda name: httpx.get(f'{server.url}/health', headers={'x-request-id': name})
  assert ask('mine-1').headers['x-request-id'] == 'mine-1'
  assert ask('no name').headers['x-request-id'] != 'no name'
  assert any(row['id'] == 'mine-1' for row in server.rows())


def test_a_page_of_another_site_may_not_ask(server):
  headers = {'sec-fetch-site': 'cross-site'}
  answer = httpx.post(server.url + CHAT, json=ASKED, headers=headers)
  assert answer.status_code == 403 and error(answer)['code'] == 'cross_site'


def test_hundreds_of_malformed_requests_leave_it_serving(server):
  rng = random.Random(0)
  whole = json.dumps(ASKED | {'stream': False, 'n': 2, 'stop': ['a']}).encode()
  fixed = [
    b'',
    b'[]',
    b'1',
    b'"x"',
    b'{',
    b'\xff',
    b'[' * 20_000,
    b'NaN',
    b'{"a":' * 999,
  ]
  with httpx.Client(base_url=server.url, timeout=30) as client:
    for i in range(300):
      body = bytearray(whole)
      for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(body))
        body[at : at + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 3))
      body = fixed[i] if i < len(fixed) else bytes(body[: rng.randint(1, 200)])
      answer = client.post(CHAT, content=body)
      assert answer.status_code in (200, 400, 404), answer.text
      if answer.status_code != 200:
        error(answer)
  assert post(server, ASKED).status_code == 200


@pytest.mark.parametrize(
  'sent',
  [
    b'nonsense\r\n\r\n',
    b'POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n',
    b'GET /' + b'a' * 70_000 + b' HTTP/1.1\r\n\r\n',
    b'GET / HTTP/1.1\r\nhost: x\r\nx: ' + b'a' * 70_000 + b'\r\n\r\n',
    b'\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03',
  ],
)
def test_what_is_no_http_is_refused(server, sent):
  host, port = server.url.removeprefix('http://').split(':')
  with socket.create_connection((host, int(port)), timeout=10) as door:
    door.sendall(sent)
    door.shutdown(socket.SHUT_WR)
    got = b''
    try:
      while part := door.recv(65_536):
        got += part
    except ConnectionResetError:
      pass
  assert not got or b'\r\nx-request-id: ' in got
  assert not got or got.split(b'\r\n')[0].split()[1] in (b'400', b'431')
  assert post(server, ASKED).status_code == 200


def test_page_and_metrics(server):
  page = httpx.get(server.url)
  assert page.status_code == 200 and 'innerHTML' not in page.text
  assert "default-src 'none'" in page.headers['content-security-policy']
  outside = [w for w in ('http://', 'https://', 'src=', '@import') if w in page.text]
  assert not outside
  for name in ('system', 'temperature', 'question', 'key'):
    assert f'<label for="{name}">' in page.text
  text = server.get('/metrics')
  assert 'llama3_requests_total{path="/v1/chat/completions",status="200"}' in text
  assert 'llama3_first_token_seconds_bucket{le="+Inf"}' in text
  assert server.metric('decoded_tokens_total') > 0
