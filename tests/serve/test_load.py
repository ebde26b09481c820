"""Many requests, slow and absent clients, limits, keys, and the end of a server."""

import concurrent.futures
import contextlib
import json
import socket
import threading
import time

import httpx
import pytest

openai = pytest.importorskip('openai')

ASKED = dict(model='toy', messages=[{'role': 'user', 'content': 'hi'}])
NO_STOP = {str(token): -100 for token in (257, 264, 265)}  # of the toy vocabulary
LONG = ASKED | dict(max_tokens=900, logit_bias=NO_STOP)


@pytest.fixture(scope='module')
def strict(start, tmp_path_factory):
  """A server with keys, a queue of two, few pages and short times."""
  keys = tmp_path_factory.mktemp('keys') / 'keys'
  keys.write_text('first\n\nsecond\n')
  limits = dict(key_file=keys, queue=2, body_bytes=2_000, arrival_s=1.0)
  return start(**limits, rows=(4,), pages=40, timeout_s=30.0)


def address(server):
  host, port = server.url.removeprefix('http://').split(':')
  return host, int(port)


def test_of_200_requests_16_at_a_time_none_is_lost(server):
  client = server.client()

  def ask(i):
    how = dict(LONG, seed=i, max_tokens=4 + i % 13, stop=['zq'] if i % 5 == 0 else None)
    if i % 3:
      return i, client.chat.completions.create(**how).choices[0].message.content
    chunks = client.chat.completions.create(**how, stream=True)
    return i, ''.join(c.choices[0].delta.content or '' for c in chunks)

  with concurrent.futures.ThreadPoolExecutor(16) as pool:
    answers = dict(pool.map(ask, range(200)))
  assert len(answers) == 200 and all(answers.values())
  for i in (0, 1, 50, 199):  # the same as in other company
    assert answers[i] == ask(i)[1]
  assert server.until('pages_used', 0) and server.metric('waiting') == 0


def test_an_abandoned_answer_frees_its_pages(server):
  client = server.client()
  for stream in (True, False):
    before = server.metric('decoded_tokens_total')
    if stream:
      chunks = client.chat.completions.create(**LONG, n=4, stream=True)
      next(iter(chunks))
      assert server.metric('pages_used') > 0
      chunks.close()
    else:
      with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.1).chat.completions.create(**LONG, n=4)
    assert server.until('pages_used', 0)
    assert server.metric('decoded_tokens_total') - before < 4 * 900


def test_a_client_that_does_not_read_costs_no_pages(server):
  body = json.dumps(LONG | dict(n=16, logprobs=True, top_logprobs=20, stream=True))
  head = f'POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}'
  with socket.socket() as door:
    door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    door.connect(address(server))
    door.sendall(f'{head}\r\n\r\n{body}'.encode())
    assert server.until('running', 16)
    time.sleep(0.5)  # by now the server waits for its reader
  assert server.until('pages_used', 0)


def test_keys(strict):
  for key in ('first', 'second'):
    assert strict.client(key).models.list().data
  for key in ('third', 'firs', 'Bearer  x', 'Basic first'):
    answer = httpx.get(f'{strict.url}/v1/models', headers={'authorization': key})
    assert answer.status_code == 401
  with pytest.raises(openai.AuthenticationError) as caught:
    strict.client('third').chat.completions.create(**ASKED, max_tokens=2)
  assert caught.value.code == 'invalid_api_key'
  assert httpx.get(f'{strict.url}/health').status_code == 200


def test_too_many_waiting_are_told_to_come_later(strict):
  client, told = strict.client('first'), []

  def ask(_):
    try:
      client.chat.completions.create(**ASKED, max_tokens=400)
    except openai.RateLimitError as error:
      told.append(error.response.headers['retry-after'])

  with concurrent.futures.ThreadPoolExecutor(16) as pool:
    list(pool.map(ask, range(16)))
  assert told and len(told) < 16 and set(told) == {'1'}
  assert strict.until('pages_used', 0)


def test_a_large_body_is_refused(strict):
  with pytest.raises(openai.APIStatusError) as caught:
    strict.client('first').completions.create(model='toy', prompt='x' * 500_000)
  assert caught.value.status_code == 413
  parts = (b'x' * 1_000 for _ in range(50))
  answer = httpx.post(
    f'{strict.url}/v1/completions',
    content=parts,
    headers={'authorization': 'Bearer first'},
  )
  assert answer.status_code == 413 and answer.json()['error']['code'] == 'too_large'


def drip(server, sent, seconds):
  """Sends a byte now and then; (what came back, how long the connection was open)."""
  began, got = time.monotonic(), b''
  with socket.create_connection(address(server), timeout=0.1) as door:
    door.sendall(sent)
    while time.monotonic() - began < seconds:
      try:
        door.sendall(b'a')
        part = door.recv(65_536)
      except TimeoutError:
        continue
      except OSError:
        break
      if not part:
        break
      got += part
  return got, time.monotonic() - began


def test_slow_clients_are_let_go(strict):
  head = b'POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer first\r\n'
  cases = [b'', b'GET / HT', head + b'x: ', head + b'content-length: 1000\r\n\r\n']
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    late = [pool.submit(drip, strict, sent, 8) for sent in cases]
    assert strict.client('first').models.list().data  # others are served
    results = [future.result() for future in late]
  assert all(seconds < 4 for _, seconds in results)
  assert b' 408 ' in results[-1][0].split(b'\r\n')[0]


def test_sigterm_refuses_new_requests_and_ends_running_ones(start):
  server = start(rows=(4,))
  client, got = server.client(), []

  def read():
    for chunk in client.chat.completions.create(**LONG, stream=True, seed=1, n=4):
      got.extend(c.finish_reason for c in chunk.choices if c.finish_reason)

  reader = threading.Thread(target=read)
  reader.start()
  assert server.until('running', 4)
  server.process.terminate()
  refused = 0
  with contextlib.suppress(httpx.TransportError):
    for _ in range(1000):
      answer = httpx.get(f'{server.url}/v1/models')
      if answer.status_code == 503:
        refused += 1
        assert answer.json()['error']['code'] == 'draining'
        assert answer.headers['retry-after']
        assert httpx.get(f'{server.url}/health').status_code == 503
        break
      time.sleep(0.005)
  reader.join(30)
  assert refused and got == ['length'] * 4
  assert server.process.wait(20) == 0
  assert 'Traceback' not in server.log.read_text()
  with contextlib.suppress(FileNotFoundError):
    assert [row['status'] for row in server.rows() if row['method'] == 'POST'] == [200]


def test_a_port_that_is_taken_is_told_of_at_once(server, start):
  with pytest.raises(AssertionError, match=r'port=\d+: .*choose another') as caught:
    start(port=address(server)[1])
  assert 'Traceback' not in str(caught.value) and 'compil' not in str(caught.value)
