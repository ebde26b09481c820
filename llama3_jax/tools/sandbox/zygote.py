"""The worker: a Python that has started and is held, and forks a child a program.

`main` reads requests from standard input and answers on standard output; both are
frames of JSON: 4 bytes of length, then the text. Three processes a request: the keeper
sees to limits of time and output, the first is process 1 of the program's namespace and
ends with it, and the program.
"""

import base64
import contextlib
import fcntl
import importlib
import json
import os
import resource
import select
import shutil
import signal
import struct
import sys
import tempfile
import time

from llama3_jax.tools.sandbox import confine
from llama3_jax.tools.sandbox import kernel
from llama3_jax.tools.sandbox import packages
from llama3_jax.tools.sandbox import program
from llama3_jax.tools.sandbox import seccomp

# Modules that need libraries of the system, which a program does not see; and those
# that most programs import.
BEFORE = """
_bz2 _ctypes _decimal _hashlib _lzma _socket _sqlite3 _ssl _uuid array bisect binascii
calendar cmath collections.abc copy csv datetime decimal enum fractions functools
hashlib heapq io itertools json linecache math operator queue random re statistics
string struct sys textwrap threading time traceback types typing unicodedata uuid zlib
"""
MACHINES = seccomp.MACHINES
LENGTH = struct.Struct('<I')
MOST = 1 << 30  # bytes of a frame
SEALS = 0x1 | 0x2 | 0x4 | 0x8  # no seal, shrink, growth or write more
CHUNK = 1 << 16
TAKEN = 256 << 20
NOT_HELD = 'a program could not be held: '
APART = ('namespaces', 'bubblewrap')  # ways with namespaces for each program


def send(file: int, message: dict) -> None:
  """Writes one frame to a descriptor."""
  data = json.dumps(message).encode()
  data = memoryview(LENGTH.pack(len(data)) + data)
  while data:
    data = data[os.write(file, data) :]


def receive(file: int) -> dict | None:
  """The next frame of a descriptor; None at its end."""
  head = _exactly(file, LENGTH.size)
  body = head and _exactly(file, min(LENGTH.unpack(head)[0], MOST))
  return json.loads(body) if body else None


def _exactly(file, n):
  parts = bytearray()
  while len(parts) < n:
    part = os.read(file, min(n - len(parts), CHUNK))
    if not part:
      return b''
    parts += part
  return bytes(parts)


def main(way: str, *given: str) -> None:
  """Serves requests until standard input ends.

  way: 'namespaces', 'bubblewrap', ...; given: packages, as `packages.words` has them.
  """
  for name in BEFORE.split():
    with contextlib.suppress(ImportError):
      importlib.import_module(name)
  confine.hidden()
  with contextlib.suppress(OSError):  # the first to go where memory is short
    with open('/proc/self/oom_score_adj', 'w') as file:
      file.write('1000')
  folders, size = packages.read(given), _size()
  try:
    packages.load(folders)
    if way == 'namespaces':
      confine.enter(folders)
    elif way != 'none':
      kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
  except OSError as error:
    return send(1, {'error': str(error)})
  folders = packages.inside(folders) if way in APART else folders
  sys.meta_path.append(packages.Finder(folders))
  for name in folders:
    try:
      importlib.import_module(name)
    except Exception as error:  # of any kind: it runs
      said = f'packages: {name} cannot be imported: {error}'
      return send(1, {'error': ' '.join(said.split())})
  taken = _taken(size)
  send(1, {'landlock': kernel.landlock_version()})
  while (request := receive(0)) is not None:
    child = os.fork()
    if not child:
      status = 1
      try:
        send(1, _keep(request | {'shown': list(folders.values())}, way, taken))
        status = 0
      finally:
        os._exit(status)
    if os.waitpid(child, 0)[1]:
      return None  # it cannot be told what has become of the program


def _size():
  """The file that has the size of this process; it cannot be opened later."""
  try:
    return open('/proc/self/statm')
  except OSError:  # bubblewrap hides it
    return None


def _taken(size):
  """Bytes of addresses that this Python has."""
  if size is None:
    return TAKEN
  with size as file:
    return int(file.read().split()[0]) * resource.getpagesize()


def _keep(request, way, taken):
  """The answer to a request: runs the program and sees to its limits."""
  limits = request['limits']
  if way in APART:
    confine.apart(limits)
    folder = confine.SCRATCH
  else:
    folder = tempfile.mkdtemp(dir=request['room'])
  try:
    os.chdir(folder)
    for name, text in request['files'].items():
      os.makedirs(os.path.dirname(name) or '.', exist_ok=True)
      with open(name, 'wb') as file:
        file.write(base64.b64decode(text))
    return _run(request, way, taken, folder)
  except OSError as error:
    return {'error': f'the files of a program: {error}'}
  finally:
    if way not in APART:
      os.chdir('/')
      shutil.rmtree(folder, ignore_errors=True)


def _run(request, way, taken, folder):
  given = os.memfd_create('stdin', os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
  os.write(given, request['stdin'].encode('utf-8', 'surrogatepass'))
  os.lseek(given, 0, os.SEEK_SET)
  fcntl.fcntl(given, 1033, SEALS)  # F_ADD_SEALS
  pipes = [os.pipe(), os.pipe(), os.pipe()]  # output, errors, how it ended
  began = time.monotonic()
  first = os.fork()
  if not first:
    _first(request, way, taken, folder, given, [end for _, end in pipes])
  for _, end in pipes:
    os.close(end)
  out, errors, ended = [end for end, _ in pipes]
  reason, texts = _watch(first, out, errors, request['limits'])
  _, _, usage = os.wait4(first, 0)
  seconds = time.monotonic() - began
  told = os.read(ended, CHUNK)
  if NOT_HELD.encode() in told:
    return {'error': told.decode('utf-8', 'replace')[: -LENGTH.size]}
  status = LENGTH.unpack(told)[0] if told else signal.SIGKILL
  code = os.waitstatus_to_exitcode(status)
  cpu = usage.ru_utime + usage.ru_stime
  answer = {'reason': reason, 'code': code, 'seconds': seconds, 'cpu': cpu}
  return answer | {k: v.decode('utf-8', 'replace') for k, v in texts.items()}


def _watch(first, out, errors, limits):
  """(reason, texts) when the program has ended or was ended; reason '': by itself."""
  deadline = time.monotonic() + limits['wall_s']
  process, poll = os.pidfd_open(first), select.poll()
  texts = {'stdout': bytearray(), 'stderr': bytearray()}
  open_ = {out: texts['stdout'], errors: texts['stderr']}
  for file in (process, out, errors):
    poll.register(file, select.POLLIN)
  poll.register(0, 0)  # its other end: whoever asked has gone
  reason, room = '', limits['output_bytes']
  while True:
    left = deadline - time.monotonic()
    events = poll.poll(max(left, 0) * 1000)
    ready = [file for file, _ in events]
    for file in [f for f in ready if f in open_]:
      data = os.read(file, CHUNK)
      open_[file] += data[: max(room, 0)]
      room -= len(data)
      if not data:
        poll.unregister(file)
    over = room < 0
    if over or left <= 0 or 0 in ready:
      reason = 'output' if over else 'time'
      break
    if process in ready and not set(ready) & set(open_):
      break
  # With it, all of its namespace; elsewhere the program dies with its parent.
  signal.pidfd_send_signal(process, signal.SIGKILL)
  return reason, texts


def _first(request, way, taken, folder, given, ends):
  """Process 1 of the program's namespace: forks the program and says how it ended."""
  out, errors, ended = ends
  try:
    child = os.fork()
    if not child:
      kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
      _become(request, way, taken, folder, (given, out, errors, ended))
    os.closerange(0, ended)
    _, status = os.waitpid(child, 0)
    os.write(ended, LENGTH.pack(status))
  finally:
    os._exit(0)


def _become(request, way, taken, folder, files):
  """Turns this process into the program, and ends with it.

  files: its input, output and errors, and where to say that it could not be held.
  """
  try:
    os.setsid()
    for number, file in enumerate(files):
      os.dup2(file, number)
    told = len(files) - 1
    os.closerange(told + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    for number in range(1, signal.NSIG):
      with contextlib.suppress(OSError, ValueError):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
      signal.signal(number, signal.SIG_IGN)
    os.umask(0o077)
    if way != 'none':
      confine.set_limits(request['limits'], taken)
      apart = way in APART
      # No limit of the number of threads holds for root.
      threads = apart and os.geteuid() != 0
      shown = request['shown']
      confine.hold(threads, folder, apart, way == 'namespaces', shown)
    os.close(told)
  except BaseException as error:
    os.write(told, f'{NOT_HELD}{error}'.encode())
    os._exit(1)
  program.run(request['program'], folder)
