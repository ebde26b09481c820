"""The server: routes, the port, and its end by SIGTERM."""

import asyncio
import base64
import hashlib
import pathlib
import re
import secrets
import socket
import time
from collections.abc import Callable

import h11
import uvicorn
from absl import logging
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse
from starlette.responses import JSONResponse
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from uvicorn.protocols.http import h11_impl

from llama3_jax.base.errors import UserError
from llama3_jax.serve import gate as gates
from llama3_jax.serve.api import Api
from llama3_jax.serve.faults import Fault
from llama3_jax.serve.gate import Gate
from llama3_jax.serve.gate import Limits
from llama3_jax.serve.generation import Served

KEEP_S = 15  # an idle connection is kept open
LAST_S = 5  # for connections to close at the end
PROMETHEUS = 'text/plain; version=0.0.4'
PAGE = pathlib.Path(__file__).with_name('page.html')


def application(
  served: Served, limits: Limits, keys: tuple[bytes, ...] = (), log: bool = False
) -> Gate:
  """The ASGI application of a model."""
  api, page, policy = Api(served, limits), *sealed(PAGE)

  async def health(request):
    if gate.draining or not served.worker.alive:
      reason = 'draining' if gate.draining else 'the engine has failed'
      return JSONResponse({'status': reason}, 503)
    return JSONResponse({'status': 'ok'})

  async def metrics(request):
    return PlainTextResponse(served.metrics.text(), media_type=PROMETHEUS)

  async def shown(request):
    return HTMLResponse(page, headers={'Content-Security-Policy': policy})

  async def fault(request, error):
    return gates.told(error)

  async def http(request, error):
    said = f'{request.method} {request.url.path[:200]}: {error.detail}'
    code = {404: 'not_found', 405: 'method_not_allowed'}.get(error.status_code)
    await gates.drop(request, limits)
    return gates.told(Fault(error.status_code, said, None, code, error.headers))

  async def ours(request, error):
    return gates.told(Fault(500, 'a fault of the server: see its log'))

  routes = [
    Route('/', shown),
    Route('/health', health),
    Route('/metrics', metrics),
    Route('/v1/models', api.models),
    Route('/v1/models/{name:path}', api.models),
    Route('/v1/chat/completions', api.chat, methods=['POST']),
    Route('/v1/completions', api.completions, methods=['POST']),
    Route('/v1/embeddings', api.embeddings, methods=['POST']),
  ]
  handlers = {Fault: fault, HTTPException: http, Exception: ours}
  app = Starlette(routes=routes, exception_handlers=handlers)
  app.router.redirect_slashes = False
  paths = [route.path for route in routes]
  gate = Gate(app, served.metrics, limits, paths, keys, log)
  return gate


def sealed(path: pathlib.Path) -> tuple[str, str]:
  """(a page, the policy of what it may load and run: itself alone)."""
  text = path.read_text(encoding='utf-8')
  marks = []
  for tag in ('style', 'script'):
    inside = re.search(rf'<{tag}>(.*?)</{tag}>', text, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
    marks.append(f"{tag}-src 'sha256-{digest}'")
  rules = ["default-src 'none'", "connect-src 'self'", 'img-src data:', *marks]
  rules += ["base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]
  return text, '; '.join(rules)


def bound(host: str, port: int) -> socket.socket:
  """A socket of an address, which does not listen yet; UserError where it is taken."""
  try:
    family, kind, number, _, address = socket.getaddrinfo(
      host, port, type=socket.SOCK_STREAM
    )[0]
    made = socket.socket(family, kind, number)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(address)
  except (OSError, OverflowError) as error:
    raise UserError(f'host={host} port={port}: {error}: choose another') from None
  return made


def settings(app: Callable, http: object = 'h11') -> uvicorn.Config:
  """How this code serves an ASGI application: silent, without its name, and with limits
  of headers and of the time that connections stay."""
  return uvicorn.Config(
    app,
    loop='asyncio',
    http=http,
    ws='none',
    lifespan='off',
    log_config=None,
    log_level='critical',
    access_log=False,
    proxy_headers=False,
    server_header=False,
    timeout_keep_alive=KEEP_S,
    timeout_graceful_shutdown=LAST_S,
    h11_max_incomplete_event_size=gates.HEADER_BYTES,
  )


def run(gate: Gate, served: Served, limits: Limits, door: socket.socket) -> None:
  """Serves until SIGTERM or Ctrl-C, and then until the last answer has ended."""
  config = settings(gate, _protocol(limits.arrival_s))
  asyncio.run(_serve(_Server(config, gate, limits), served, door))


async def _serve(server, served, door):
  served.worker.start(asyncio.get_running_loop())
  try:
    await server.serve([door])
  finally:
    served.worker.close()


class Announced(uvicorn.Server):
  """A server that says where it listens, in words of its own with a place for it."""

  words = '%s'

  async def startup(self, sockets=None):
    """As that of uvicorn."""
    await super().startup(sockets)
    host, port = sockets[0].getsockname()[:2]
    host = f'[{host}]' if ':' in host else host
    logging.info(self.words, f'http://{host}:{port}')


class _Server(Announced):
  """Refuses new requests after the first signal, and ends when none is answered."""

  words = 'serves at %s'

  def __init__(self, config, gate, limits):
    super().__init__(config)
    self._gate, self._latest = gate, 0.0
    self._seconds = limits.arrival_s + limits.timeout_s + gates.SPARE_S

  def handle_exit(self, sig, frame):
    """The second signal does not wait. Neither is raised again when all has ended."""
    if self._gate.draining:
      self.should_exit = self.force_exit = True
    self._gate.draining = True
    self._latest = time.monotonic() + self._seconds

  async def on_tick(self, counter):
    """Whether to end now, ten times a second."""
    if self._gate.draining:
      late = time.monotonic() > self._latest
      self.should_exit |= late or not self._gate.active
    return await super().on_tick(counter)


def _protocol(seconds):
  """uvicorn's protocol, where headers must have arrived after so many seconds."""

  class Protocol(h11_impl.H11Protocol):
    """Closes a connection whose request does not come."""

    _timer = None

    def connection_made(self, transport):
      """Waits from now on."""
      super().connection_made(transport)
      self._wait()

    def data_received(self, data):
      """Waits while headers are incomplete."""
      super().data_received(data)
      if self.conn.their_state is not h11.IDLE:
        self._rest()
      elif self._timer is None and self.timeout_keep_alive_task is None:
        self._wait()

    def connection_lost(self, exc):
      """Nobody is waited for."""
      self._rest()
      super().connection_lost(exc)

    def send_400_response(self, msg):
      """A request that is no HTTP: the error has the form of all others."""
      body = JSONResponse(Fault(400, msg, None, 'invalid_http').body())
      name = b'x-request-id', secrets.token_hex(16).encode()
      headers = [*body.raw_headers, name, (b'connection', b'close')]
      reason = b'Bad Request'
      event = h11.Response(status_code=400, headers=headers, reason=reason)
      for part in (event, h11.Data(data=body.body), h11.EndOfMessage()):
        self.transport.write(self.conn.send(part))
      self.transport.close()

    def _wait(self):
      self._timer = self.loop.call_later(seconds, self._late)

    def _rest(self):
      if self._timer is not None:
        self._timer.cancel()
        self._timer = None

    def _late(self):
      self._timer = None
      if not self.transport.is_closing():
        self.transport.close()

  return Protocol
