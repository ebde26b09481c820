"""Runs Python programs that a model wrote, where they can do no harm (4.3.1, 4.3.5).

  outcome = sandbox.run('print(6 * 7)')
  outcome.status, outcome.stdout  # 'ok', '42\n'

A program is one process with threads. It reads the standard library, packages that are
named, its own files and nothing else, writes to a scratch folder that ends with it, and
has no network. WAYS are ways to hold it, the strongest first; the first that this
machine has is used, and where it has none programs are refused. LLAMA3_SANDBOX names
another one of them.
"""

import base64
import concurrent.futures
import dataclasses
import functools
import os
import pathlib
import platform
import queue
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax.base.errors import UserError
from llama3_jax.tools.sandbox import confine
from llama3_jax.tools.sandbox import packages as installed
from llama3_jax.tools.sandbox import zygote

# Way -> what holds a program then.
WAYS = {
  'namespaces': 'namespaces of its own (user, mount, process, network, ipc), a root of '
  'the standard library alone, a scratch folder in memory, no capabilities, seccomp',
  'bubblewrap': 'bubblewrap (all namespaces), a root of the standard library alone, a '
  'scratch folder in memory, no capabilities, seccomp',
  'landlock': 'Landlock and seccomp: no threads, no file written; that a file is '
  'there, and its size, can be seen',
  'none': 'nothing: the program can do what you can',
}
CHOICE = 'LLAMA3_SANDBOX'
ROOT = pathlib.Path(__file__).resolve().parents[3]
START = (
  'import sys; sys.path.insert(0, sys.argv[1]); '
  'from llama3_jax.tools.sandbox import zygote; sys.path.pop(0); '
  'zygote.main(*sys.argv[2:])'
)
# Neither site-packages nor the folder of the caller; equal programs order sets equally.
PYTHON = ('-P', '-s', '-S', '-B', '-X', 'utf8', '-c', START)
VARIABLES = {'PYTHONHASHSEED': '0', 'LANG': 'C.UTF-8'}
# What a Python needs to start, and this package, where bubblewrap makes the root.
LIBRARIES = ('/lib', '/lib64', '/usr/lib', '/usr/lib64', '/usr/local/lib')
OWN = ('llama3_jax/__init__.py', 'llama3_jax/base', 'llama3_jax/tools')
STARTING_S, GRACE_S = 60, 5
MIB = 1 << 20
# What must fail for a way to be used, as a program that ends well when all of it does.
CHECK = """
import os, socket, subprocess
def refused(what):
  try:
    what()
  except OSError:
    return True
here = os.getcwd()
assert refused(lambda: open('/etc/passwd'))
assert refused(lambda: open('/proc/self/environ'))
assert refused(lambda: open(os.path.dirname(here) + '/written', 'w'))
assert refused(socket.socket)
assert refused(os.fork)
assert refused(lambda: os.execv('/bin/true', ['true']))
assert refused(lambda: os.kill(os.getppid(), 0))
"""


@dataclasses.dataclass(frozen=True)
class Limits:
  """What a program may use.

  cpu_s, wall_s: seconds of all its threads, and by the clock.
  memory_bytes: memory beyond what Python itself takes.
  file_bytes: of one file; disk_bytes, files: of the whole scratch folder.
  output_bytes: of output and errors together.
  """

  cpu_s: int = 5
  wall_s: float = 10.0
  memory_bytes: int = 512 * MIB
  file_bytes: int = 16 * MIB
  disk_bytes: int = 32 * MIB
  files: int = 256
  open_files: int = 64
  threads: int = 16
  output_bytes: int = MIB

  def __post_init__(self):
    for name, value in dataclasses.asdict(self).items():
      whole = isinstance(value, int) and not isinstance(value, bool)
      least = 0 if name in ('threads', 'files', 'output_bytes') else 1
      if name == 'wall_s':
        whole, least = isinstance(value, (int, float)), 0.01
      if not whole or not least <= value < 1 << 40:
        kind = 'seconds' if name == 'wall_s' else 'a whole number'
        raise UserError(f'limits: {name}={value!r} is not {kind} of at least {least}')


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How a program ended.

  status: 'ok' (exit status 0), 'failed' (another one), 'time', 'memory', 'output' (a
    limit), or 'killed' (by a signal).
  seconds: by the clock; code: exit status, or minus the number of the signal.
  """

  status: str
  stdout: str = ''
  stderr: str = ''
  seconds: float = 0.0
  code: int = 0


def run(
  program: str,
  limits: Limits = Limits(),
  files: Mapping[str, bytes] | None = None,
  stdin: str = '',
  packages: Sequence[str] = (),
) -> Outcome:
  """Runs one program; files: relative path -> content, in its scratch folder.

  packages: names of installed packages that it may import, and what these import.
  Raises a UserError where this machine cannot hold a program, for a path of `files`
  that leaves the folder, or a package that is not there. Many programs go through
  `run_all` in less time.
  """
  with Worker(packages=packages) as worker:
    return worker.run(program, limits, files, stdin)


def run_all(
  programs: Iterable[str],
  limits: Limits = Limits(),
  workers: int = 2,
  packages: Sequence[str] = (),
) -> list[Outcome]:
  """The outcomes of programs, in their order; each runs in a process of its own.

  workers: how many run at a time; packages: as of `run`.
  """
  programs = list(programs)
  if workers < 1:
    raise UserError(f'sandbox: workers={workers} must be at least 1')
  way = strongest_way()
  free = queue.Queue()
  workers = [Worker(way, packages) for _ in range(min(workers, len(programs)))]
  for worker in workers:
    free.put(worker)

  def one(text):
    worker = free.get()
    try:
      return worker.run(text, limits)
    finally:
      free.put(worker)

  try:
    with concurrent.futures.ThreadPoolExecutor(max(len(workers), 1)) as pool:
      return list(pool.map(one, programs))
  finally:
    for worker in workers:
      worker.close()


def strongest() -> str:
  """The way that programs are held here, and what holds them, in a sentence."""
  way = strongest_way()
  more = ''
  if way in ('namespaces', 'bubblewrap') and _tried(way)[1]:
    more = f', Landlock (version {_tried(way)[1]})'
  return f'{way}: {WAYS[way]}{more}'


def strongest_way() -> str:
  """The first of WAYS that this machine has; a UserError where it has none."""
  chosen = os.environ.get(CHOICE, '')
  if chosen and chosen not in WAYS:
    raise UserError(f'{CHOICE}={chosen} is none of {", ".join(WAYS)}')
  if chosen == 'none':
    return chosen
  reasons = []
  for way in [chosen] if chosen else [w for w in WAYS if w != 'none']:
    reason, _ = _tried(way)
    if not reason:
      return way
    reasons.append(f'{way} ({reason})')
  raise UserError(
    f'sandbox: this machine cannot hold a program: {"; ".join(reasons)}: use Linux '
    f'6.2 or newer that allows user namespaces or Landlock, install bubblewrap, or '
    f'set {CHOICE}=none where the programs are your own'
  )


@functools.cache
def _tried(way):
  """(why a way does not hold here, '' where it does; version of Landlock)."""
  if sys.platform != 'linux':
    return f'it is for Linux, and this is {sys.platform}', 0
  if platform.machine() not in zygote.MACHINES:
    return f'its list of system calls is not for {platform.machine()}', 0
  try:
    with Worker(way) as worker:
      outcome = worker.run(CHECK, Limits(wall_s=30.0))
      lines = outcome.stderr.strip().split('\n')
      reason = '' if outcome.status == 'ok' else f'{outcome.status}: {lines[-1]}'
      return reason, worker.landlock
  except (UserError, OSError) as error:
    return str(error).removeprefix('sandbox: '), 0


class Worker:
  """A Python that has started and forks a child a program; use in a `with`.

  packages: as of `run`; they are imported once, before the first program.
  Raises a UserError where programs cannot be held in this way.
  """

  def __init__(self, way: str = '', packages: Sequence[str] = ()):
    self._packages = installed.find(packages)
    self.way = way or strongest_way()
    self.landlock = 0
    self._room = ''
    if self.way not in zygote.APART:  # the others have their folders in memory
      self._room = tempfile.mkdtemp(prefix='llama3_sandbox_')
    try:
      self._start()
    except BaseException:
      self.close()
      raise

  def _start(self):
    command = [sys.executable, *PYTHON, str(ROOT), self.way]
    command += installed.words(self._packages)
    if self.way == 'bubblewrap':
      command = _wrapped(command, self._packages)
    self._process = subprocess.Popen(
      command,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      env=VARIABLES,
      cwd='/',
      start_new_session=True,
    )
    hello = self._answer(STARTING_S)
    if hello is None:
      text = self._process.stderr.read().decode('utf-8', 'replace').strip()
      hello = {'error': text.split('\n')[-1] or 'the worker did not start'}
    if 'error' in hello:
      raise UserError(f'sandbox: {hello["error"]}')
    self.landlock = hello['landlock']

  def __enter__(self):
    return self

  def __exit__(self, *error):
    self.close()

  def close(self) -> None:
    """Ends the worker and whatever it runs."""
    process = getattr(self, '_process', None)
    if process is not None:
      process.stdin.close()
      try:
        process.wait(0.2)
      except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
      process.stdout.close()
      process.stderr.close()
    if self._room:
      shutil.rmtree(self._room, ignore_errors=True)

  def run(
    self,
    program: str,
    limits: Limits = Limits(),
    files: Mapping[str, bytes] | None = None,
    stdin: str = '',
  ) -> Outcome:
    """As the function `run`."""
    files = files or {}
    for name in files:
      parts = pathlib.PurePosixPath(name).parts
      if not parts or parts[0] == '/' or '..' in parts or '\0' in name:
        raise UserError(f'sandbox: files: {name!r} is not a path below the folder')
    request = {
      'program': program,
      'limits': dataclasses.asdict(limits),
      'files': {k: base64.b64encode(v).decode() for k, v in files.items()},
      'stdin': stdin,
      'room': self._room,
    }
    began = time.monotonic()
    try:
      zygote.send(self._process.stdin.fileno(), request)
      answer = self._answer(limits.wall_s + GRACE_S)
    except BrokenPipeError:
      answer = None
    if answer is None:  # it ended or does not answer: whatever happened, it goes
      self._restart()
      seconds = time.monotonic() - began
      late = seconds > limits.wall_s
      return Outcome('time' if late else 'killed', seconds=seconds, code=-9)
    if 'error' in answer:
      raise UserError(f'sandbox: {answer["error"]}')
    return _outcome(answer, limits)

  def _restart(self):
    os.killpg(self._process.pid, signal.SIGKILL)
    self._process.wait()
    self._start()

  def _answer(self, seconds):
    """The next frame of the worker; None if there is none in time."""
    file, deadline = self._process.stdout.fileno(), time.monotonic() + seconds
    ready, _, _ = select.select([file], [], [], max(deadline - time.monotonic(), 0))
    return zygote.receive(file) if ready else None


def _outcome(answer, limits):
  code, reason = answer['code'], answer['reason']
  last = answer['stderr'].rstrip().split('\n')[-1]
  if reason:
    status = reason
  elif code == 0:
    status = 'ok'
  elif code == -signal.SIGXCPU or (code == -9 and answer['cpu'] >= limits.cpu_s):
    status = 'time'
  elif code < 0:
    status = 'killed'
  else:
    status = 'memory' if last.startswith('MemoryError') else 'failed'
  return Outcome(status, answer['stdout'], answer['stderr'], answer['seconds'], code)


def _wrapped(command: Sequence[str], packages: Mapping[str, str]) -> list[str]:
  """The command inside bubblewrap; a UserError where it is not installed."""
  program = shutil.which('bwrap')
  if program is None:
    raise UserError('sandbox: bubblewrap is not installed')
  folders = confine.library()
  python = os.path.realpath(command[0])
  shown = [*folders, python, *LIBRARIES, *confine.SHARED, *confine.DEVICES[1:]]
  shown += [str(ROOT / part) for part in OWN]
  words = [program, '--unshare-all', '--unshare-user', '--new-session']
  words += ['--cap-drop', 'ALL', '--cap-add', 'CAP_SYS_ADMIN', '--dev', '/dev']
  for path in shown:
    words += ['--ro-bind-try', path, path]
  for name, path in installed.inside(packages).items():
    words += ['--ro-bind', packages[name], path]
  for path in confine.hidden():
    words += ['--size', '4096', '--tmpfs', path, '--remount-ro', path]
  words += ['--dir', confine.SCRATCH, '--remount-ro', '/', '--', python]
  return [*words, *command[1:]]
