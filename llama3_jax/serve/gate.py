"""What stands before the routes: names of requests, keys, limits, the log, draining."""

import asyncio
import contextlib
import dataclasses
import hmac
import json
import re
import secrets
import sys
import time
from collections.abc import Sequence

from absl import logging
from starlette.requests import ClientDisconnect
from starlette.requests import Request
from starlette.responses import JSONResponse

from llama3_jax.serve.faults import Fault
from llama3_jax.serve.metrics import Metrics

NAME = re.compile(r'[\w.:-]{1,128}', re.A)
OPEN = ('/health', '/metrics')  # also while the server drains
RETRY = {'Retry-After': '5'}
HEADER_BYTES = 32_768
SPARE_S = 5.0  # to send the last bytes of an answer


@dataclasses.dataclass(frozen=True)
class Limits:
  """Largest body, bytes; seconds for a request to arrive, and for its answer."""

  body_bytes: int
  arrival_s: float
  timeout_s: float


async def body_of(request: Request, limits: Limits) -> bytes:
  """The body of a request; Fault for one that is too large, or arrives too slowly.

  What is too large is read and thrown away, for a client reads no answer before it has
  sent all.
  """
  most, size, parts = limits.body_bytes, 0, []
  try:
    async with asyncio.timeout(limits.arrival_s):
      async for part in request.stream():
        size += len(part)
        if size <= most:
          parts.append(part)
  except TimeoutError:
    if size <= most:
      said = f'the body was not there after {limits.arrival_s:g} s'
      raise Fault(408, said, code='timeout') from None
  except ClientDisconnect:
    raise Fault(499, 'the client has gone') from None
  if size > most:
    raise Fault(413, f'the body has more than {most} bytes', code='too_large')
  return b''.join(parts)


async def drop(request: Request, limits: Limits) -> None:
  """Reads a body that nobody wants, so that the client reads the answer."""
  if not request.scope['arrived']:
    with contextlib.suppress(Fault):
      await body_of(request, limits)


def told(fault: Fault) -> JSONResponse:
  """The response of a fault."""
  return JSONResponse(fault.body(), fault.status, fault.headers)


class Gate:
  """An ASGI application around another.

  paths: that are counted by name. keys: of which a request must bring one; none: all
  may ask.

  Attributes:
    draining: whether new requests are refused.
    active: requests that are being answered.
  """

  def __init__(
    self,
    app: object,
    metrics: Metrics,
    limits: Limits,
    paths: Sequence[str] = (),
    keys: Sequence[bytes] = (),
    log: bool = False,
  ) -> None:
    self._app, self._metrics, self._limits = app, metrics, limits
    self._paths, self._keys, self._log = tuple(paths), tuple(keys), log
    self.draining, self.active = False, 0

  async def __call__(self, scope: dict, receive: object, send: object) -> None:
    """Answers one request."""
    headers = {k.lower(): v for k, v in scope['headers']}
    given = headers.get(b'x-request-id', b'').decode('latin-1')
    name = given if NAME.fullmatch(given) else secrets.token_hex(16)
    scope['record'] = record = {'id': name, 'status': 0}
    began = time.monotonic()
    scope['arrived'] = not {b'content-length', b'transfer-encoding'} & set(headers)

    async def received():
      message = await receive()
      scope['arrived'] |= not message.get('more_body')
      return message

    async def named(message):
      if message['type'] == 'http.response.start':
        record['status'] = message['status']
        more = [(b'x-request-id', name.encode())]
        more += [] if scope['arrived'] else [(b'connection', b'close')]
        message = message | {'headers': [*message['headers'], *more]}
      await send(message)

    self.active += 1
    try:
      await self._answer(scope, received, named, headers, record)
    finally:
      self.active -= 1
      self._note(scope, record, time.monotonic() - began)

  async def _answer(self, scope, receive, send, headers, record):
    limits = self._limits
    fault = self._refusal(scope, headers)
    app = told(fault) if fault else self._app
    seconds = limits.arrival_s + limits.timeout_s + SPARE_S
    try:
      async with asyncio.timeout(seconds):
        if fault:
          await drop(Request(scope, receive), limits)
        await app(scope, receive, send)
    except Exception as error:
      if not isinstance(error, (TimeoutError, ClientDisconnect)):
        logging.exception('request %s failed', record['id'])
      if record['status']:
        return  # the rest is missing: the connection is closed without a good end
      late = isinstance(error, TimeoutError)
      fault = Fault(504, 'it took too long') if late else Fault(500, 'a fault of ours')
      await told(fault)(scope, receive, send)

  def _refusal(self, scope, headers):
    size = sum(len(k) + len(v) for k, v in scope['headers'])
    if size + len(scope['raw_path']) + len(scope['query_string']) > HEADER_BYTES:
      return Fault(431, f'the headers have more than {HEADER_BYTES} bytes')
    if scope['path'] in OPEN:
      return None
    if headers.get(b'sec-fetch-site') == b'cross-site' and scope['method'] == 'POST':
      return Fault(403, 'a page of another site may not ask', code='cross_site')
    if self.draining:
      return Fault(503, 'the server is about to end', code='draining', headers=RETRY)
    if not self._keys or not scope['path'].startswith('/v1'):
      return None
    given = headers.get(b'authorization', b'').partition(b' ')
    key = given[2].strip() if given[0].lower() == b'bearer' else b''
    # All are compared, so that the time tells nothing.
    if not sum([hmac.compare_digest(key, known) for known in self._keys]):
      said = 'a key is needed: Authorization: Bearer KEY'
      return Fault(401, said, None, 'invalid_api_key', {'WWW-Authenticate': 'Bearer'})
    return None

  def _note(self, scope, record, seconds):
    status = record['status'] or 499  # the client had gone
    path = scope['path'] if scope['path'] in self._paths else 'other'
    self._metrics.request(path, status)
    if self._log:
      row = record | {'status': status, 'method': scope['method']}
      row |= {'path': scope['path'], 'seconds': round(seconds, 4)}
      with contextlib.suppress(OSError, ValueError):  # nobody reads the log
        sys.stdout.write(json.dumps(row) + '\n')
        sys.stdout.flush()
