"""Programs that try to leave the sandbox, each with what must not happen.

A program prints LEFT where it has reached something; `Target` is what it tries to
reach, and sees for itself whether something was touched. In a program, names such as
$file stand for what a Target has.
"""

import os
import pathlib
import socket
import string
import subprocess
import sys
import typing

import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.tools import sandbox

LEFT = 'LEFT THE SANDBOX'
SECRET = 'a-secret-of-the-caller-29c1'
VARIABLE = 'LLAMA3_TEST_SECRET'


def way() -> str:
  """The strongest way of this machine; the test is skipped where it has none.

  One that is there and does not hold is a failure.
  """
  try:
    return sandbox.strongest_way()
  except UserError as error:
    if 'AssertionError' in str(error):
      raise
    pytest.skip(str(error))


class Attack(typing.NamedTuple):
  """name; program; never: what must not happen; ends: how it may end.

  alone: it reaches something where nothing holds it, without harm: a control.
  """

  name: str
  program: str
  never: str
  ends: tuple = ('ok', 'failed', 'killed', 'memory', 'time')
  alone: bool = False


HEAD = f"""
import ctypes, errno, os, sys
def left(*what):
  print({LEFT!r}, *what, flush=True)
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
  longs = [a if isinstance(a, bytes) else ctypes.c_long(a) for a in arguments]
  return libc.syscall(ctypes.c_long(number), *longs)
def reads(path):
  data = open(path, 'rb').read(100)
  left(path, data)
def writes(path):
  with open(path, 'ab') as file:
    file.write(b'x')
  left(path)
"""
TIME, OUTPUT = ('time',), ('output',)
SPENT = ('memory', 'failed', 'killed', 'ok', 'time')


def call(name, number, *arguments, never=''):
  """An attack by one system call, which reaches something if it succeeds."""
  text = ', '.join(map(str, arguments))
  program = f'if call({number}, {text}) >= 0: left({name!r})'
  return Attack(f'call {name}', program, never or f'the kernel does {name}')


# Calls of x86_64 that need an argument to be of use have one that the kernel takes.
CALLS = [
  call('mount', 165, b'none', b'/scratch', b'tmpfs', 0, 0),
  call('umount', 166, b'/scratch', 2),
  call('unshare user', 272, 0x10000000),
  call('unshare net', 272, 0x40000000),
  call('unshare mount', 272, 0x20000),
  call('setns', 308, 0, 0),
  call('pivot_root', 155, b'.', b'.'),
  call('chroot', 161, b'.'),
  call('bpf', 321, 0, 0, 0),
  call('keyctl', 250, 0, -3, 1),
  call('add_key', 248, b'user', b'k', b'v', 1, -3),
  call('request_key', 249, b'user', b'k', 0, -3),
  call('io_uring_setup', 425, 8, b'\0' * 120),
  call('ptrace me', 101, 0, 0, 0, 0),
  call('ptrace parent', 101, 16, 1, 0, 0),
  call('ptrace seize parent', 101, 0x4206, 1, 0, 0),
  call('memfd_create', 319, b'x', 0),
  call('memfd_secret', 447, 0),
  call('fork', 57),
  call('vfork', 58),
  call('clone', 56, 17, 0, 0, 0, 0),
  call('clone vm', 56, 0x100 | 17, 0, 0, 0, 0),
  call('clone user', 56, 0x10000000 | 17, 0, 0, 0, 0),
  call('clone3', 435, b'\0' * 88, 88),
  call('execve', 59, b'/bin/sh', 0, 0),
  call('execveat', 322, -100, b'/bin/sh', 0, 0, 0),
  call('perf_event_open', 298, b'\0' * 128, 0, -1, -1, 0),
  call('userfaultfd', 323, 1),
  call('kexec_load', 246, 0, 0, 0, 0),
  call('init_module', 175, b'', 0, b''),
  call('finit_module', 313, 0, b'', 0),
  call('reboot', 169, 0xFEE1DEAD, 672274793, 0, 0),
  call('swapon', 167, b'/scratch', 0),
  call('acct', 163, 0),
  call('settimeofday', 164, b'\0' * 16, 0),
  call('clock_settime', 227, 0, b'\0' * 16),
  call('sethostname', 170, b'x', 1),
  call('iopl', 172, 3),
  call('ioperm', 173, 0, 1, 1),
  call('modify_ldt', 154, 0, b'\0' * 16, 16),
  call('personality', 135, 0x0040000),
  call('open_by_handle_at', 304, -100, b'\0' * 128, 0),
  call('name_to_handle_at', 303, -100, b'.', b'\x80' + b'\0' * 140, b'\0' * 8, 0),
  call('fanotify_init', 300, 0, 0),
  call('inotify_init', 294, 0),
  call('pidfd_open', 434, 1, 0),
  call('pidfd_getfd', 438, 0, 0, 0),
  call('process_vm_readv', 310, 1, b'\0' * 16, 1, b'\0' * 16, 1, 0),
  call('process_vm_writev', 311, 1, b'\0' * 16, 1, b'\0' * 16, 1, 0),
  call('process_madvise', 440, 0, 0, 0, 0, 0),
  call('kcmp', 312, 1, 1, 0, 0, 0),
  call('move_pages', 279, 1, 0, 0, 0, 0, 0),
  call('migrate_pages', 256, 1, 0, 0, 0),
  call('sched_setaffinity', 203, 1, 8, b'\x01' + b'\0' * 7),
  call('sched_setscheduler', 144, 0, 0, b'\0' * 4),
  call('setpriority', 141, 0, 0, 0),
  call('ioprio_set', 251, 1, 0, 0),
  call('mlockall', 151, 1),
  call('shmget', 29, 0, 4096, 0o1600),
  call('msgget', 68, 0, 0o1600),
  call('semget', 64, 0, 1, 0o1600),
  call('mq_open', 240, b'/x', 0o102, 0o600, 0),
  call('timer_create', 222, 0, 0, b'\0' * 8),
  call('prctl dumpable', 157, 4, 1, 0, 0, 0),
  call('prctl death signal', 157, 1, 0, 0, 0, 0),
  call('prctl seccomp', 157, 22, 0, 0, 0, 0),
  call('seccomp', 317, 2, 0, 0),
  call('landlock', 444, 0, 0, 1),
  call('setuid', 105, 0),
  call('setresuid', 117, 0, 0, 0),
  call('setgid', 106, 0),
  call('setgroups', 116, 0, 0),
  call('capset', 126, b'\x20\x08\x08\x20' + b'\0' * 4, b'\xff' * 24),
  call('chown', 92, b'.', 0, 0),
  call('mknod', 133, b'disk', 0o60660, 0x0800),
  call('kill all', 62, -1, 0),
  call('kill parent', 62, 1, 0),
  call('kill canary', 62, '$pid', 0),
  call('tkill parent', 200, 1, 0),
  call('tgkill parent', 234, 1, 1, 0),
  call('rt_sigqueueinfo', 129, 1, 0, b'\0' * 128),
  call('pidfd_send_signal', 424, 0, 0, 0, 0),
  call('prlimit of parent', 302, 1, 7, 0, b'\0' * 16),
  call('syslog', 103, 3, b'\0' * 99, 99),
  call('splice', 275, 0, 0, 1, 0, 1, 0),
  call('vmsplice', 278, 1, b'\0' * 16, 0, 0),
  call('setsid', 112),
  call('setpgid', 109, 0, 0),
  call('fcntl owner', 72, 0, 8, 1),
  call('larger pipe', 72, 1, 1031, 1 << 20),
  call('terminal input', 16, 0, 0x5412, b'x'),
  call('socketpair inet', 53, 2, 1, 0, b'\0' * 8),
  call('socketpair datagram', 53, 1, 2, 0, b'\0' * 8),
  call('sendmsg', 46, 1, b'\0' * 56, 0),
  call('bind', 49, 0, b'\0' * 16, 16),
  call('connect', 42, 0, b'\0' * 16, 16),
  call('fsopen', 430, b'tmpfs', 0),
  call('open_tree', 428, -100, b'.', 1),
  call('mount_setattr', 442, -100, b'/', 0, b'\0' * 32, 32),
  call('x32 getpid', 0x40000000 | 39, never='a second list of calls is used'),
]

FILES = [
  Attack('reads a secret', 'reads("$file")', 'the file is read', alone=True),
  Attack('reads passwords', 'reads("/etc/passwd")', 'it is read', alone=True),
  Attack('reads shadow', 'reads("/etc/shadow")', 'it is read'),
  Attack('reads by symlink', 'os.symlink("$file", "l"); reads("l")', 'it is read'),
  Attack('reads by hard link', 'os.link("$file", "l"); reads("l")', 'it is read'),
  Attack('reads by dots', 'reads("../" * 20 + "$file"[1:])', 'it is read', alone=True),
  Attack('reads by /proc/self/root', 'reads("/proc/self/root$file")', 'it is read'),
  Attack('reads by /proc/1/root', 'reads("/proc/1/root$file")', 'it is read'),
  Attack('reads by cwd', 'reads("/proc/1/cwd$file")', 'it is read'),
  Attack('reads the environment of 1', 'reads("/proc/1/environ")', 'it is read'),
  Attack(
    'reads the environment of the caller',
    'reads("/proc/$caller/environ")',
    'it is read',
    alone=True,
  ),
  Attack(
    'has the environment of the caller',
    'left(os.environ["$variable"])',
    'it is there',
  ),
  Attack(
    'reads the first environment of its memory',
    'where = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, "environ")\n'
    'i = 0\n'
    'while where[i]:\n'
    '  if b"$variable" in where[i]: left(where[i])\n'
    '  i += 1\n',
    'the secret is there',
  ),
  Attack(
    'reads what is above its arguments in memory',
    'import ctypes\n'
    'at = ctypes.c_void_p.in_dll(libc, "program_invocation_name").value\n'
    'while True:\n'  # up to the end of the stack
    '  if ctypes.string_at(at, 64).startswith(b"$variable="): left("found")\n'
    '  at += 1\n',
    'a variable of the caller is there',
  ),
  Attack(
    'reads the memory of its parent',
    'reads(f"/proc/{os.getppid()}/mem")',
    'it is read',
  ),
  Attack('lists processes', 'left(os.listdir("/proc"))', 'others are seen', alone=True),
  Attack('lists a folder', 'left(os.listdir("$folder"))', 'it is seen', alone=True),
  Attack('reads the disk', 'reads("/dev/vda")', 'it is read'),
  Attack('reads memory', 'reads("/dev/mem")', 'it is read'),
  Attack('reads the log', 'reads("/dev/kmsg")', 'it is read'),
  Attack('reads the terminal', 'reads("/dev/tty")', 'it is read'),
  Attack('reads /sys', 'reads("/sys/kernel/mm/transparent_hugepage/enabled")', 'read'),
  Attack('reads packages', 'import numpy; left(numpy.__file__)', 'imported'),
  Attack('reads this repository', 'reads("$repository/setup.cfg")', 'it is read'),
  Attack(
    'walks everything',
    'for folder, _, names in os.walk("/"):\n'
    '  for name in names:\n'
    '    path = os.path.join(folder, name)\n'
    '    if "secret-of-the-caller" in name: left(path)\n',
    'a name of outside is found',
    ends=('ok', 'failed', 'time'),
  ),
  Attack('writes beside a secret', 'writes("$folder/new")', 'a file', alone=True),
  Attack('changes a secret', 'writes("$file")', 'a change', alone=True),
  Attack('truncates a secret', 'os.truncate("$file", 0); left()', 'a change'),
  Attack('deletes a secret', 'os.unlink("$file"); left()', 'it is gone'),
  Attack('renames a secret', 'os.rename("$file", "mine"); left()', 'it is gone'),
  Attack('changes rights', 'os.chmod("$file", 0o777); left()', 'a change', alone=True),
  Attack('changes times', 'os.utime("$file", (1, 1)); left()', 'a change'),
  Attack('writes to /tmp', 'writes("/tmp/llama3_left")', 'a file'),
  Attack('writes above', 'writes("../llama3_left")', 'a file'),
  Attack('writes to the root', 'writes("/llama3_left")', 'a file'),
  Attack('writes to shared memory', 'writes("/dev/shm/llama3_left")', 'a file'),
  Attack('writes to the library', 'writes(os.__file__)', 'a change'),
  Attack(
    'adds to the library',
    'writes(os.path.dirname(os.__file__) + "/llama3_left.py")',
    'a file',
  ),
  Attack('links and writes', 'os.symlink("$folder", "l"); writes("l/new")', 'a file'),
  Attack(
    'makes a file without a name',
    'os.open("$folder", os.O_TMPFILE | os.O_RDWR); left()',
    'a file',
  ),
  Attack(
    'makes a program of its own',
    'open("p", "w").write("#!/bin/sh\\necho hi"); os.chmod("p", 0o755)\n'
    'os.execv("p", ["p"])',
    'it runs',
  ),
  Attack(
    'loads a library of its own',
    'import shutil, _json\n'
    'shutil.copy(_json.__file__, "own.so"); ctypes.CDLL("./own.so"); left()',
    'it is mapped to run',
  ),
  Attack(
    'uses descriptors of others',
    'for number in range(3, 1024):\n'
    '  try:\n'
    '    os.fstat(number)\n'
    '    left(number)\n'
    '  except OSError:\n'
    '    pass\n',
    'one is open',
  ),
  Attack('writes to its input', 'os.write(0, b"x"); left()', 'its input changes'),
  Attack(
    'walks up from an open folder',
    'place = os.open(".", os.O_RDONLY)\n'
    'for _ in range(20):\n'
    '  place = os.open("..", os.O_RDONLY, dir_fd=place)\n'
    'os.open("$file"[1:], os.O_RDONLY, dir_fd=place); left()',
    'the file is opened',
    alone=True,
  ),
]

RESOURCES = [
  Attack('fork bomb', 'while True: os.fork()', 'processes'),
  Attack(
    'fork bomb that goes on',
    'while True:\n  try: os.fork(); left()\n  except OSError: break',
    'a process',
  ),
  Attack(
    'processes by the library',
    'import multiprocessing as m\np = m.Process(target=print); p.start(); left()',
    'a process',
  ),
  Attack('spawns', 'os.posix_spawn("/bin/true", ["true"], {}); left()', 'a process'),
  Attack('runs a shell', 'os.system("echo $word"); ', 'it runs', alone=True),
  Attack(
    'runs a program',
    'import subprocess\nleft(subprocess.run([sys.executable, "-V"], check=True))',
    'it runs',
    alone=True,
  ),
  Attack('runs with many arguments', 'os.execv("/bin/true", ["x"] * 10**6)', 'it runs'),
  Attack(
    'becomes a daemon',
    'if os.fork(): os._exit(0)\n'
    'os.setsid()\n'
    'if os.fork(): os._exit(0)\n'
    'import time; time.sleep(600)',
    'it goes on',
  ),
  Attack(
    'thread bomb',
    'import threading, time\n'
    'n = 0\n'
    'threading.stack_size(1 << 15)\n'
    'try:\n'
    '  while True:\n'
    '    threading.Thread(target=time.sleep, args=(1,), daemon=True).start(); n += 1\n'
    'except RuntimeError: pass\n'
    'if n > 16: left(n)',
    'more threads than the limit',
    ends=('ok', 'failed', 'time', 'memory', 'killed'),
  ),
  Attack('memory at once', 'x = bytearray(8 << 30); left()', 'it is there', SPENT),
  Attack(
    'memory in parts',
    'x = []\nwhile len(x) < 4096: x.append(bytearray(1 << 20))\nleft()',
    '4 GiB',
    SPENT,
  ),
  Attack('memory by doubling', 'x = "x"\nwhile True: x += x', 'no end', SPENT),
  Attack(
    'memory by mapping',
    'import mmap\nx = mmap.mmap(-1, 8 << 30); left()',
    'it is there',
    SPENT,
  ),
  Attack(
    'memory by threads',
    'import threading\n'
    'def f(): x = bytearray(1 << 30); left()\n'
    'for _ in range(8): threading.Thread(target=f).start()',
    'it is there',
    SPENT,
  ),
  Attack(
    'memory by pipes',
    'import fcntl\n'
    'n = 0\n'
    'while n < 1000:\n'
    '  r, w = os.pipe(); fcntl.fcntl(w, 1031, 1 << 20); n += 1\n'
    'left()',
    '1,000 pipes of 1 MiB',
  ),
  Attack(
    'memory by swallowing errors',
    'x = []\n'
    'for _ in range(9000):\n'
    '  try: x.append(bytearray(1 << 20))\n'
    '  except MemoryError: pass\n'
    'if len(x) > 1000: left(len(x))',
    'more than 1 GiB',
    SPENT,
  ),
  Attack(
    'limit raised',
    'import resource as r\n'
    'for name in ("AS", "CPU", "NPROC", "FSIZE", "NOFILE"):\n'
    '  number = getattr(r, f"RLIMIT_{name}")\n'
    '  soft, hard = r.getrlimit(number)\n'
    '  try: r.setrlimit(number, (hard, hard + 1)); left(name)\n'
    '  except (ValueError, OSError): pass',
    'a limit goes up',
  ),
  Attack('large file', 'open("f", "wb").write(bytes(1 << 27)); left()', 'it is there'),
  Attack('hole', 'open("f", "wb").truncate(1 << 40); left()', 'a file of 1 TiB'),
  Attack(
    'full disk',
    'for i in range(200): open(str(i), "wb").write(bytes(1 << 20))\nleft()',
    '200 MiB',
  ),
  Attack(
    'many files',
    'for i in range(5000): open(str(i), "wb").close()\nleft()',
    '5,000 files',
  ),
  Attack(
    'many folders',
    'for i in range(5000): os.mkdir("d"); os.chdir("d")\nleft()',
    '5,000 folders',
  ),
  Attack(
    'many links',
    'for i in range(5000): os.symlink("x", str(i))\nleft()',
    '5,000 links',
  ),
  Attack(
    'many open files',
    'x = [open("/dev/null") for _ in range(1000)]; left()',
    '1,000 open files',
  ),
  Attack('fills /dev', 'open("/dev/x", "w").write("x"); left()', 'a file'),
  Attack('waits', 'import time; time.sleep(600)', 'it goes on', TIME),
  Attack('waits for a signal', 'import signal; signal.pause()', 'it goes on', TIME),
  Attack(
    'waits for a thread',
    'import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()',
    'it goes on',
    (*TIME, 'failed'),
  ),
  Attack(
    'waits at its end',
    'import atexit, time; atexit.register(time.sleep, 600)',
    'it goes on',
    TIME,
  ),
  Attack('waits for input', 'sys.stdin.read(); input()', 'it goes on', ('failed',)),
  Attack('loops', 'while True: pass', 'it goes on', TIME),
  Attack('computes', '9 ** 9 ** 9', 'it goes on', (*TIME, 'memory')),
  Attack('matches', 'import re; re.match("(a+)+b", "a" * 60)', 'goes on', TIME),
  Attack(
    'loops against signals',
    'import signal\n'
    'for n in range(1, 65):\n'
    '  try: signal.signal(n, signal.SIG_IGN)\n'
    '  except (OSError, ValueError): pass\n'
    'while True: pass',
    'it goes on',
    TIME,
  ),
  Attack(
    'blocks signals',
    'import signal, time\n'
    'signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65)); time.sleep(600)',
    'it goes on',
    TIME,
  ),
  Attack(
    'stops itself',
    'import signal; os.kill(os.getpid(), signal.SIGSTOP)',
    'it stays',
    TIME,
  ),
  Attack('floods output', 'while True: print("x" * 1000)', 'all is kept', OUTPUT),
  Attack('floods errors', 'while True: os.write(2, b"x" * 9999)', 'all kept', OUTPUT),
  Attack('floods in one line', 'print("x" * (20 << 20))', 'all is kept', OUTPUT),
  Attack('output in bytes', 'os.write(1, bytes(range(256)) * 9)', 'an error', ('ok',)),
  Attack('closes output', 'os.close(1); os.close(2); print(1)', 'no answer'),
  Attack(
    'closes output and waits',
    'os.close(1); os.close(2)\nimport time; time.sleep(600)',
    'it goes on',
    TIME,
  ),
  Attack(
    'forges an answer',
    'import json, struct\n'
    'x = json.dumps({"reason": "", "code": 0, "stdout": "forged"}).encode()\n'
    'for n in range(1, 9):\n'
    '  try: os.write(n, struct.pack("<I", len(x)) + x)\n'
    '  except OSError: pass\n'
    'os._exit(3)',
    'the answer is another',
    ('failed',),
  ),
  Attack('ends hard', 'print("x"); os._exit(7)', 'no answer', ('failed',)),
  Attack('aborts', 'os.abort()', 'no answer', ('killed',)),
  Attack('crashes', 'ctypes.string_at(0)', 'no answer', ('killed',)),
  Attack('kills itself', 'os.kill(os.getpid(), 9)', 'no answer', ('killed',)),
  Attack('kills its group', 'os.killpg(0, 9); left()', 'others end'),
  Attack('kills its parent', 'os.kill(os.getppid(), 9); left()', 'no answer'),
  Attack('recursion', 'def f(): f()\nf()', 'no answer', ('failed',)),
  Attack(
    'deep recursion',
    'sys.setrecursionlimit(10**9)\n'
    'class A:\n  def __getattr__(self, n): return getattr(self, n + "x")\n'
    'A().x',
    'no answer',
    ('killed', 'failed', 'memory', 'time'),
  ),
  Attack('deep text', 'eval("(" * 10**5 + ")" * 10**5)', 'no answer', SPENT),
  Attack('text that is no Python', 'def f(:', 'no answer', ('failed',)),
  Attack('stale status', 'raise SystemExit(300)', 'another status'),
  Attack(
    'instructions of 32 bits',
    'import mmap\n'
    # mov eax, 20 (getpid); int 0x80; ret
    'm = mmap.mmap(-1, 4096, prot=7); m.write(b"\\xb8\\x14\\0\\0\\0\\xcd\\x80\\xc3")\n'
    'at = ctypes.addressof(ctypes.c_char.from_buffer(m))\n'
    'f = ctypes.CFUNCTYPE(ctypes.c_int)(at)\n'
    'if f() > 0: left()',
    'a second list of calls is used',
  ),
  Attack(
    'looks into the worker',
    'import gc\n'
    'for x in gc.get_objects():\n'
    '  if isinstance(x, (str, dict)) and "$secret" in str(x)[:10**6]: left()',
    'a secret is there',
    ends=('ok', 'failed', 'time', 'memory'),
  ),
]

NET = [
  Attack(
    f'socket of family {family}',
    f'import socket\nsocket.socket({family}, {kind})\nleft()',
    'a socket',
    alone=family in (1, 2) and kind != 3,
  )
  for family, kind in (
    *((1, 1), (1, 2), (2, 1), (2, 2), (2, 3), (10, 1), (10, 2), (16, 3), (17, 3)),
    *((29, 3), (30, 2), (31, 5), (38, 5), (40, 1), (44, 3)),
  )
] + [
  Attack(
    'connects by TCP',
    'import socket\nsocket.create_connection(("127.0.0.1", $tcp)).send(b"x"); left()',
    'a connection',
    alone=True,
  ),
  Attack(
    'sends by UDP',
    'import socket\n'
    's = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n'
    's.sendto(b"x", ("127.0.0.1", $udp)); left()',
    'a packet',
    alone=True,
  ),
  Attack(
    'connects to a socket of a file',
    'import socket\ns = socket.socket(socket.AF_UNIX); s.connect("$unix"); left()',
    'a connection',
    alone=True,
  ),
  Attack(
    'connects to a socket without a file',
    'import socket\n'
    's = socket.socket(socket.AF_UNIX); s.connect("\\0$abstract"); left()',
    'a connection',
    alone=True,
  ),
  Attack(
    'sends through a pair',
    'import socket\na, b = socket.socketpair(); a.sendto(b"x", "$unix"); left()',
    'a packet',
  ),
  Attack(
    'asks for a name',
    'import socket\nleft(socket.getaddrinfo("example.com", 80))',
    'a question to a server',
  ),
  Attack(
    'gets a page',
    'import urllib.request\n'
    'left(urllib.request.urlopen("http://127.0.0.1:$tcp", timeout=1))',
    'a connection',
  ),
]

ALL = [*FILES, *RESOURCES, *NET, *CALLS]


class Target:
  """What attacks try to reach: files, a process, sockets, a variable."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder / 'outside'
    self.folder.mkdir()
    self.folder.chmod(0o777)
    self.file = self.folder / 'secret-of-the-caller'
    self.file.write_text(SECRET)
    self.file.chmod(0o666)
    self.canary = subprocess.Popen(
      [sys.executable, '-S', '-c', 'import time; time.sleep(3600)'],
      stdout=subprocess.DEVNULL,
    )
    self.unix = str(folder / 'u')
    self.abstract = f'llama3_{os.getpid()}_{folder.name}'
    self.sockets = [
      self._bound(socket.AF_INET, socket.SOCK_STREAM, ('127.0.0.1', 0)),
      self._bound(socket.AF_INET, socket.SOCK_DGRAM, ('127.0.0.1', 0)),
      self._bound(socket.AF_UNIX, socket.SOCK_STREAM, self.unix),
      self._bound(socket.AF_UNIX, socket.SOCK_STREAM, '\0' + self.abstract),
    ]
    self.state = self.seen()

  def _bound(self, family, kind, address):
    one = socket.socket(family, kind)
    one.bind(address)
    one.setblocking(False)
    if kind == socket.SOCK_STREAM:
      one.listen(16)
    return one

  def seen(self):
    """What an attack could have changed, as a value to compare."""
    about = self.file.stat()
    return (
      sorted(os.listdir(self.folder)),
      self.file.read_text(),
      (about.st_mode, about.st_mtime_ns),
      self.canary.poll(),
      [p for p in LEFTOVERS if os.path.exists(p)],
    )

  def reached(self) -> list[str]:
    """What was touched since the start; [] if nothing."""
    found = [] if self.seen() == self.state else [f'{self.seen()} not {self.state}']
    for one in self.sockets:
      try:
        got = one.recv(9) if one.type == socket.SOCK_DGRAM else one.accept()
        found.append(f'{one}: {got}')
      except BlockingIOError:
        pass
    return found

  def program(self, attack: Attack) -> str:
    """The attack's text with this target's names."""
    names = dict(
      file=self.file,
      folder=self.folder,
      repository=pathlib.Path(__file__).parents[2],
      pid=self.canary.pid,
      caller=os.getpid(),
      variable=VARIABLE,
      # In two parts, so that the program does not hold it.
      secret=f'{SECRET[:9]}" + "{SECRET[9:]}',
      word=LEFT,
      tcp=self.sockets[0].getsockname()[1],
      udp=self.sockets[1].getsockname()[1],
      unix=self.unix,
      abstract=self.abstract,
    )
    return HEAD + string.Template(attack.program).substitute(names)

  def close(self):
    self.canary.kill()
    self.canary.wait()
    for one in self.sockets:
      one.close()


LEFTOVERS = ('/tmp/llama3_left', '/llama3_left', '/dev/shm/llama3_left', '/dev/x')


def verdict(attack: Attack, outcome, target: Target, limits) -> str:
  """'' where the attack was held, else what it did."""
  said = outcome.stdout + outcome.stderr
  if LEFT in said or SECRET in said:
    return f'{attack.never}: {said[-300:]}'
  if reached := target.reached():
    return f'{attack.never}: {reached}'
  if outcome.status not in attack.ends:
    return f'{outcome.status}, not one of {attack.ends}: {said[-300:]}'
  if outcome.seconds > limits.wall_s + 3:
    return f'it took {outcome.seconds:.1f} s'
  if len(said) > limits.output_bytes + 100:
    return f'{len(said)} characters of output'
  return ''
