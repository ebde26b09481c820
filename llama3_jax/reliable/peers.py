"""Processes watch each other and name the one that died (section 3.3.4).

When a process dies, the others hang in a collective, or fail in it with pages of text
that name an address. So every process keeps one TCP connection to process 0. A killed
process closes its connection at once, a frozen one or a lost machine is silent;
process 0 tells all others which one it was, and each of them ends with one line.
"""

import contextlib
import json
import secrets
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Self

import jax
import numpy as np
from jax._src.lib import _jax
from jax.experimental import multihost_utils

from llama3_jax.base.errors import UserError
from llama3_jax.reliable import coordinator

BEAT = 5.0  # seconds between signs of life
SILENCE = 40.0  # seconds without one after which a process counts as dead
JOIN = 60.0  # seconds for all processes to connect
SIZE = 256  # bytes of the message with the address of process 0 to the others


def join(
  address: str | None = None, count: int | None = None, index: int | None = None
) -> None:
  """Connects this process to the others; without arguments, as the cluster says.

  Raises UserError when they cannot be reached.
  """
  try:
    with _apart():
      jax.distributed.initialize(address, count, index)
  except Exception as e:  # of many kinds, for a wrong address or number
    reason = ' '.join(str(e).split())[:200]
    flags = f'--coordinator={address} --processes={count} --process={index}'
    raise UserError(
      f'{flags if address else "--coordinator=auto"}: the processes did not find each '
      f'other ({reason}); --coordinator=none runs this process alone'
    )


@contextlib.contextmanager
def _apart():
  """Lets jax run its coordination service in a process of its own, see coordinator."""
  make = _jax.get_distributed_runtime_service
  _jax.get_distributed_runtime_service = _Service
  try:
    yield
  finally:
    _jax.get_distributed_runtime_service = make


class _Service:
  """Stands in for jax's service, which runs in another process."""

  def __init__(self, address, count, **options):
    _free(int(address.rsplit(':', 1)[1]))
    argument = json.dumps([address, count, options])
    self.process = subprocess.Popen(
      [sys.executable, coordinator.__file__, argument],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      start_new_session=True,  # a SIGTERM to the group is not for it
    )
    if not self.process.stdout.readline():
      raise RuntimeError(f'no service can be started on {address}')

  def shutdown(self):
    self.process.communicate('done\n', timeout=60)


def _free(port):
  """Waits until the service of a killed process 0 has ended and its port is free."""
  for _ in range(50):
    try:
      socket.create_connection(('localhost', port), timeout=1).close()
    except OSError:
      return
    time.sleep(0.2)
  raise RuntimeError(f'port {port} is in use on this machine')


class Peers:
  """The connections of this process; `lost` is called once, with one line."""

  def __init__(self, lost: Callable[[str], None]) -> None:
    self.lost = lost
    self.index, self.count = jax.process_index(), jax.process_count()
    self.host = socket.gethostname()
    self.over, self.lock = threading.Event(), threading.Lock()
    self.selector = selectors.DefaultSelector()
    self.links = []

  def watch(self) -> Self:
    """Connects all processes, then watches them in a thread; every process calls it."""
    server = token = None
    if not self.index:
      server, token = socket.create_server(('', 0), backlog=4096), secrets.token_hex(16)
    address = [_route(), server.getsockname()[1], token] if server else None
    host, port, token = _from_first(address)
    if server is None:
      socket_ = _connect(host, port)
      hello = {'token': token, 'process': self.index, 'host': self.host}
      socket_.sendall(json.dumps(hello).encode() + b'\n')
      self._add(_Link(socket_, 0, host))
    else:
      self._accept(server, token)
    threading.Thread(target=self._run, name='peers', daemon=True).start()
    return self

  def wait(self, seconds: float) -> None:
    """Gives the watching thread time to name a dead peer and to end this process."""
    self.over.wait(seconds)

  def leave(self, reason: str | None = None) -> None:
    """Tells the others that this process ends, in order or because of `reason`."""
    if reason:
      self.over.set()  # the answers of the others are no news
    self._tell({'leaves': reason})

  def _accept(self, server, token):
    end = time.monotonic() + JOIN
    server.settimeout(JOIN)
    while len(self.links) < self.count - 1 and time.monotonic() < end:
      try:
        socket_, _ = server.accept()
        socket_.settimeout(JOIN)
        hello = json.loads(socket_.makefile().readline(SIZE))
      except (OSError, ValueError):
        continue
      if hello.get('token') == token:
        self._add(_Link(socket_, hello['process'], hello['host']))
    server.close()

  def _add(self, link):
    link.socket.setblocking(False)
    self.links.append(link)
    self.selector.register(link.socket, selectors.EVENT_READ, link)

  def _run(self):
    last = 0.0
    while not self.over.is_set():
      for key, _ in self.selector.select(BEAT / 5):
        self._read(key.data)
      now = time.monotonic()
      if now - last >= BEAT:
        last = now
        self._tell({})
      for link in self.links:
        if now - link.heard > SILENCE and not link.closed:
          self._lose(f'{link.name} has been silent for {SILENCE:.0f} s')

  def _read(self, link):
    """Reads messages of `link`; one that closes without a farewell is dead."""
    try:
      data = link.socket.recv(65536)
    except BlockingIOError:
      return
    except OSError:
      data = b''
    link.heard = time.monotonic()
    if not data:
      self.selector.unregister(link.socket)
      link.closed = True
      if not link.left:
        self._lose(f'{link.name} died')
      return
    *lines, link.rest = (link.rest + data).split(b'\n')
    for message in map(json.loads, lines):
      if 'lost' in message:
        self._lose(message['lost'])
      elif message.get('leaves'):
        self._lose(f'{link.name} ended: {message["leaves"]}')
      elif 'leaves' in message:
        link.left = True

  def _lose(self, line):
    if self.over.is_set():
      return
    if not self.index:
      self._tell({'lost': line})
    self.lost(line)
    self.over.set()

  def _tell(self, message):
    data = json.dumps(message).encode() + b'\n'
    with self.lock:
      for link in self.links:
        try:
          link.closed or link.socket.sendall(data)
        except OSError:
          pass  # _read sees the end of the connection


class _Link:
  """The connection to one process."""

  def __init__(self, socket_, process, host):
    self.socket, self.name = socket_, f'process {process} ({host})'
    self.heard, self.rest = time.monotonic(), b''
    self.left, self.closed = False, False


def _route():
  """The address by which other machines reach this one."""
  with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
    try:
      probe.connect(('10.255.255.255', 1))  # sends nothing: only chooses a route
      return probe.getsockname()[0]
    except OSError:
      return '127.0.0.1'


def _from_first(value):
  """`value` of process 0 on all processes; a small value of JSON."""
  text = json.dumps(value).encode() if value is not None else b''
  received = multihost_utils.broadcast_one_to_all(
    np.frombuffer(text.ljust(SIZE), np.uint8), is_source=value is not None
  )
  return json.loads(bytes(np.asarray(received).astype(np.uint8)))


def _connect(host, port):
  end = time.monotonic() + JOIN
  while True:
    try:
      return socket.create_connection((host, port), timeout=JOIN)
    except OSError:
      if time.monotonic() > end:
        raise
      time.sleep(0.2)
