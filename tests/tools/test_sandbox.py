"""The sandbox: attacks are held, endings are told apart, nothing is left behind."""

import ctypes
import os
import pathlib
import platform
import signal
import struct
import subprocess
import sys
import time

import attacks
import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.tools import sandbox
from llama3_jax.tools.sandbox import seccomp

LIMITS = sandbox.Limits(cpu_s=1, wall_s=2.0, memory_bytes=256 << 20)
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope='module')
def way():
  return attacks.way()


@pytest.fixture(scope='module')
def worker(way):
  before = os.environ.get(attacks.VARIABLE)
  os.environ[attacks.VARIABLE] = attacks.SECRET
  with sandbox.Worker(way) as one:
    yield one
  if before is None:
    del os.environ[attacks.VARIABLE]


@pytest.fixture(scope='module')
def target(tmp_path_factory):
  one = attacks.Target(tmp_path_factory.mktemp('target'))
  yield one
  one.close()


def test_there_are_a_hundred_attacks_of_different_names():
  names = [(a.name, a.program) for a in attacks.ALL]
  assert len(names) == len(set(names)) > 200


@pytest.mark.parametrize('attack', attacks.ALL, ids=lambda a: a.name)
def test_attack_is_held(attack, worker, target):
  if attack in attacks.CALLS and platform.machine() != 'x86_64':
    pytest.skip('numbers of calls are those of x86_64')
  outcome = worker.run(target.program(attack), LIMITS)
  assert attacks.verdict(attack, outcome, target, LIMITS) == ''
  assert worker.run('print(1)').stdout == '1\n'  # and harms no later program


ALONE = [a for a in attacks.ALL if a.alone]


@pytest.mark.parametrize('attack', ALONE, ids=lambda a: a.name)
def test_attack_reaches_its_target_where_nothing_holds_it(attack, tmp_path):
  """The control: what the attacks try is there to be reached."""
  target = attacks.Target(tmp_path)
  try:
    with sandbox.Worker('none') as worker:
      outcome = worker.run(target.program(attack), LIMITS)
    if attack.name.startswith('reads'):
      assert attacks.LEFT in outcome.stdout, outcome
    assert attacks.verdict(attack, outcome, target, LIMITS)
  finally:
    target.close()


@pytest.mark.parametrize(
  'program,status,code',
  [
    ('print(6 * 7)', 'ok', 0),
    ('raise SystemExit', 'ok', 0),
    ('import sys; sys.exit(3)', 'failed', 3),
    ('import sys; sys.exit("no")', 'failed', 1),
    ('exit(4)', 'failed', 4),
    ('quit()', 'ok', 0),
    ('assert 1 == 2', 'failed', 1),
    ('1 +', 'failed', 1),
    ('import os; os._exit(9)', 'failed', 9),
    ('import threading; threading.Thread(target=print).run()', 'ok', 0),
    ('x = bytearray(1 << 40)', 'memory', 1),
    ('while True: pass', 'time', None),
    ('import time; time.sleep(99)', 'time', None),
    ('while True: print("x" * 99)', 'output', None),
    ('import os; os.kill(os.getpid(), 11)', 'killed', -11),
    ('import os; os.abort()', 'killed', -6),
  ],
)
def test_endings_are_told_apart(program, status, code, worker):
  outcome = worker.run(program, LIMITS)
  assert outcome.status == status, outcome
  assert code is None or outcome.code == code


def test_program_has_its_input_files_and_a_scratch_folder(worker, way):
  program = (
    'import sys, os\n'
    'print(sys.stdin.read(), open("a/b.txt", encoding="utf-8").read(), sys.argv)\n'
  )
  if way != 'landlock':
    program += 'open("new", "w").write("kept"); print(open("new").read())\n'
  files = {'a/b.txt': 'für'.encode()}
  outcome = worker.run(program, LIMITS, files, stdin='çok\n')
  kept = '' if way == 'landlock' else 'kept\n'
  assert outcome.stdout == f"çok\n für ['program.py']\n{kept}", outcome


def test_traceback_has_lines_of_the_program_alone(worker):
  outcome = worker.run('def f(x):\n  return 1 / x\nf(0)\n', LIMITS)
  assert 'return 1 / x' in outcome.stderr and 'line 3, in <module>' in outcome.stderr
  assert 'llama3_jax' not in outcome.stderr
  assert outcome.stderr.count('  File ') == 2


def test_usual_programs_run(worker, way):
  program = """
import asyncio, dataclasses, decimal, hashlib, json, math, random, re, sqlite3, zlib
import collections, datetime, fractions, heapq, itertools, statistics, typing, unittest
import pathlib, tempfile, csv, io, shutil, logging, string, urllib.parse, email.message
@dataclasses.dataclass
class A:
  x: int = 1
async def f(): return A()
print(asyncio.run(f()), hashlib.sha256(b'').hexdigest()[:4], decimal.Decimal(1) / 3)
with sqlite3.connect(':memory:') as base: print(base.execute('select 1').fetchall())
"""
  outcome = worker.run(program, sandbox.Limits())
  assert outcome.stdout.startswith('A(x=1) e3b0 0.333') and '[(1,)]' in outcome.stdout
  if way == 'landlock':
    return
  program = """
import pathlib, shutil, tempfile, threading, concurrent.futures as c
pathlib.Path('a').write_text('x'); shutil.copy2('a', 'b'); shutil.rmtree
with tempfile.TemporaryDirectory() as folder: pathlib.Path(folder, 'y').touch()
with c.ThreadPoolExecutor(4) as pool: print(sum(pool.map(abs, range(-9, 9))))
"""
  assert worker.run(program, sandbox.Limits()).stdout == '81\n'


def test_a_program_leaves_nothing_to_the_next(worker, way):
  program = 'import builtins, os, math\nbuiltins.x = math.pi = os.environ["x"] = "1"\n'
  if way != 'landlock':
    program += 'open("left", "w").write("1"); open(os.devnull)\n'
  assert worker.run(program, LIMITS).status == 'ok'
  seen = 'import builtins, os, math\n'
  seen += 'print(hasattr(builtins, "x"), math.pi, os.environ.get("x"), os.listdir("."))'
  assert worker.run(seen, LIMITS).stdout == 'False 3.141592653589793 None []\n'


def test_programs_run_in_their_order_and_order_sets_equally(way):
  texts = [f'print({i}, {{"a", "b", "c", "d", "e"}})' for i in range(24)]
  outcomes = sandbox.run_all(texts, workers=2)
  assert [o.stdout.split()[0] for o in outcomes] == [str(i) for i in range(24)]
  assert len({o.stdout.split(' ', 1)[1] for o in outcomes}) == 1
  assert sandbox.run_all([]) == []
  assert sandbox.run('print(1)').stdout == '1\n'


def test_pool_outlives_what_programs_do(way):
  texts = ['import os; os._exit(1)', 'while True: pass', 'print(1)'] * 2
  outcomes = sandbox.run_all(texts, LIMITS, workers=2)
  assert [o.status for o in outcomes] == ['failed', 'time', 'ok'] * 2


def children(pid):
  """Numbers of the processes below one."""
  found = []
  for line in pathlib.Path('/proc').glob('[0-9]*/stat'):
    try:
      parent = int(line.read_text().rpartition(')')[2].split()[1])
    except OSError:
      continue
    if parent == pid:
      number = int(line.parent.name)
      found += [number, *children(number)]
  return found


def ended(pids, seconds=5.0):
  until = time.monotonic() + seconds
  alive = lambda p: pathlib.Path(f'/proc/{p}').exists()
  while time.monotonic() < until and any(map(alive, pids)):
    time.sleep(0.05)
  return not any(map(alive, pids))


CALLER = """
from llama3_jax.tools import sandbox
with sandbox.Worker() as worker:
  print(worker._process.pid, flush=True)
  worker.run('import time; time.sleep(600)', sandbox.Limits(wall_s=600))
"""


@pytest.mark.parametrize('number', [signal.SIGKILL, signal.SIGTERM])
def test_programs_end_with_their_caller(way, number):
  caller = subprocess.Popen(
    [sys.executable, '-c', CALLER], stdout=subprocess.PIPE, cwd=ROOT, text=True
  )
  first = int(caller.stdout.readline())
  until = time.monotonic() + 30
  while len(below := children(first)) < 2 and time.monotonic() < until:
    time.sleep(0.05)
  assert len(below) >= 2
  caller.send_signal(number)
  caller.wait(10)
  caller.stdout.close()
  assert ended([first, *below])


def test_worker_that_dies_is_replaced(way):
  with sandbox.Worker(way) as worker:
    os.kill(worker._process.pid, signal.SIGKILL)
    assert worker.run('print(1)', LIMITS).status == 'killed'
    assert worker.run('print(1)', LIMITS).stdout == '1\n'
    below = children(worker._process.pid)
  assert ended([worker._process.pid, *below])


@pytest.mark.parametrize('name', ['', '/etc/x', '../x', 'a/../../x', 'a\0b'])
def test_file_outside_the_folder_is_refused(worker, name):
  with pytest.raises(UserError, match='not a path below'):
    worker.run('pass', LIMITS, {name: b''})


def test_files_above_the_limit_are_one_line(worker, way):
  if way == 'landlock':
    pytest.skip('its folder is on the disk')
  with pytest.raises(UserError, match='files of a program: .*No space') as error:
    worker.run('pass', sandbox.Limits(disk_bytes=1 << 20), {'x': bytes(2 << 20)})
  assert '\n' not in str(error.value)
  assert worker.run('print(1)', LIMITS).stdout == '1\n'


@pytest.mark.parametrize(
  'values',
  [{'cpu_s': 0}, {'cpu_s': 1.5}, {'wall_s': 0}, {'wall_s': float('nan')}]
  + [{'memory_bytes': -1}, {'threads': True}, {'files': 1 << 60}],
)
def test_limits_that_are_none_are_refused(values):
  with pytest.raises(UserError, match=f'limits: {next(iter(values))}='):
    sandbox.Limits(**values)


def test_where_nothing_holds_programs_are_refused(monkeypatch):
  monkeypatch.delenv(sandbox.CHOICE, raising=False)
  monkeypatch.setattr(sandbox, '_tried', lambda way: ('not allowed', 0))
  for what in (
    sandbox.strongest,
    lambda: sandbox.run('1'),
    lambda: sandbox.run_all([]),
  ):
    with pytest.raises(UserError, match='cannot hold') as error:
      what()
    text = str(error.value)
    assert '\n' not in text and 'LLAMA3_SANDBOX=none' in text
    assert all(f'{w} (not allowed)' in text for w in sandbox.WAYS if w != 'none')
  monkeypatch.setenv(sandbox.CHOICE, 'none')  # by the user's own word alone
  assert sandbox.strongest().startswith('none: nothing')
  monkeypatch.setenv(sandbox.CHOICE, 'nome')
  with pytest.raises(UserError, match='LLAMA3_SANDBOX=nome is none of namespaces'):
    sandbox.strongest_way()


@pytest.mark.parametrize('line', sandbox.CHECK.strip().split('\n')[-7:])
def test_a_way_that_does_not_hold_is_not_used(line, monkeypatch):
  """Each line of the check fails where nothing holds."""
  head = sandbox.CHECK[: sandbox.CHECK.index('assert')]
  monkeypatch.setattr(sandbox, 'CHECK', head + line.replace('/bin/true', '/bin/false'))
  reason, _ = sandbox._tried.__wrapped__('none')
  assert reason.startswith('failed')


MOUNTS = """
from llama3_jax.tools.sandbox import kernel
kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS)
kernel.mount('none', '/tmp', 'tmpfs', 0)
"""


def test_namespaces_are_used_where_the_kernel_lets_one_make_them(way, monkeypatch):
  monkeypatch.delenv(sandbox.CHOICE, raising=False)
  made = subprocess.run([sys.executable, '-c', MOUNTS], cwd=ROOT, capture_output=True)
  if made.returncode:
    pytest.skip(f'not here: {made.stderr.decode().strip().split(chr(10))[-1]}')
  assert sandbox.strongest_way() == 'namespaces'


def test_what_holds_is_said(way):
  text = sandbox.strongest()
  assert text.startswith(f'{way}: ') and 'seccomp' in text


@pytest.mark.skipif(platform.machine() != 'x86_64', reason='numbers are of x86_64')
def test_every_call_that_is_not_named_is_refused(worker, way):
  named = {n for t in (seccomp.READ, seccomp.OTHER) for n in numbers(t)}
  named |= set(numbers(seccomp.WRITE)) if way != 'landlock' else set()
  probes = {335, 336}  # the kernel lets no filter see these, and ends who calls them
  others = [n for n in range(600) if n not in named | probes]
  program = (
    'import ctypes\n'
    'libc = ctypes.CDLL(None, use_errno=True)\n'
    f'for n in {others}:\n'
    '  r = libc.syscall(n, 0, 0, 0, 0, 0, 0)\n'
    '  assert r == -1 and ctypes.get_errno() == 1, (n, r, ctypes.get_errno())\n'
    'print("all refused")\n'
  )
  outcome = worker.run(program, LIMITS)
  assert outcome.stdout == 'all refused\n', outcome


def numbers(table):
  return seccomp.numbers(table, 'x86_64').values()


def decide(code, number, arguments=(), arch='x86_64'):
  """What a filter returns, by its instructions one at a time."""
  data = struct.pack('<IIQ', number, seccomp.AUDIT[arch], 0)
  words = [ctypes.c_uint64(a).value for a in (*arguments, *6 * (0,))][:6]
  data += struct.pack('<6Q', *words)
  at = value = 0
  while True:
    op, yes, no, k = struct.unpack_from('<HBBI', code, 8 * at)
    at += 1
    if op == seccomp.RETURN:
      return k
    if op == seccomp.LOAD:
      [value] = struct.unpack_from('<I', data, k)
    elif op == seccomp.AND:
      value &= k
    else:
      true = {
        seccomp.EQUAL: value == k,
        seccomp.AT_LEAST: value >= k,
        seccomp.SET: bool(value & k),
      }[op]
      at += yes if true else no


@pytest.mark.parametrize('machine', seccomp.MACHINES)
@pytest.mark.parametrize('threads', [False, True])
def test_filter_decides_by_arguments(machine, threads):
  number = {}
  for table in (seccomp.READ, seccomp.WRITE, seccomp.OTHER):
    number |= seccomp.numbers(table, machine)
  code = seccomp.program(7, threads, False, machine)
  says = lambda name, *a: decide(code, number[name], a, machine)
  allowed = lambda name, *a: says(name, *a) == seccomp.ALLOW
  assert allowed('read') and allowed('openat') and not allowed('mkdirat')
  thread = 0x3D0F00  # what the library asks for
  assert allowed('clone', thread) == threads
  for flags in (17, 0x100, 0x10000000 | thread, 0x80000000, 0x4000 | thread):
    assert not allowed('clone', flags)
  assert says('clone3') == seccomp.ERROR | 38
  assert allowed('kill', 7, 9) and not allowed('kill', 1, 9)
  assert not allowed('kill', -1, 9) and not allowed('kill', 0, 9)
  assert allowed('socketpair', 1, 1 | 0o2004000) and not allowed('socketpair', 1, 2)
  assert not allowed('socketpair', 2, 1) and not allowed('socketpair', 1, 5)
  assert allowed('sendto', 3, 1, 1, 0, 0) and not allowed('sendto', 3, 1, 1, 0, 1 << 32)
  assert allowed('fcntl', 1, 2) and not allowed('fcntl', 1, 8)
  assert allowed('ioctl', 1, 0x5401) and says('ioctl', 1, 0x5412) == seccomp.ERROR | 25
  assert allowed('prlimit64', 0) and not allowed('prlimit64', 1)
  assert allowed('prctl', 15) and not allowed('prctl', 4)
  other = next(m for m in seccomp.MACHINES if m != machine)
  assert decide(code, number['read'], (), other) == seccomp.KILL
  if machine == 'x86_64':
    assert decide(code, seccomp.X32 | number['read']) == seccomp.KILL
  assert decide(
    seccomp.program(7, threads, True, machine), number['mkdirat'], (), machine
  )
