"""What holds a program: a root of its own, Landlock, seccomp, limits of resources.

In a process of its own. `enter` prepares the worker once; `hold` is called in each
program's process, last, before the program starts.
"""

import functools
import os
import resource
import sys
import sysconfig
from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax.tools.sandbox import kernel
from llama3_jax.tools.sandbox import packages as shown
from llama3_jax.tools.sandbox import seccomp

SCRATCH = '/scratch'  # where a program runs, under a root of its own
DEVICES = ('/dev/null', '/dev/zero', '/dev/urandom')
SHARED = ('/usr/share/zoneinfo',)
HIDDEN = ('site-packages', 'dist-packages')
BASES = ('/tmp', '/var/tmp', '/run', '/dev/shm', '/mnt')
INSIDE = 1000  # user in the sandbox
STACK = 8 << 20
TRUNCATES = 3  # version of Landlock
# Of nobody: outside what distributions give to people and services (systemd's range of
# users that come and go).
STRANGERS, MANY = 61184, 4000


@functools.cache  # asked before the root is another one
def library() -> list[str]:
  """Folders of the standard library, which a program may read."""
  paths = [sysconfig.get_path('stdlib'), os.path.dirname(os.__file__)]
  paths += [p for p in sys.path if p.endswith('lib-dynload')]
  paths = [os.path.realpath(p) for p in dict.fromkeys(paths) if p and os.path.isdir(p)]
  inside = lambda p, q: p != q and p.startswith(q + '/')
  unique = list(dict.fromkeys(paths))
  return [p for p in unique if not any(inside(p, q) for q in unique)]


@functools.cache
def hidden() -> list[str]:
  """Folders in those of the library that hold what others installed."""
  paths = [os.path.join(folder, name) for folder in library() for name in HIDDEN]
  return [path for path in paths if os.path.isdir(path)]


def enter(packages: Mapping[str, str]) -> None:
  """Namespaces with a root that holds the standard library and `packages` alone.

  Root becomes a user that nobody is, for whom limits hold. Raises OSError where the
  kernel refuses any of it.
  """
  proc = os.open('/proc', os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
  more = kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
  own = kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS | more
  if os.geteuid() == 0:
    # Mounted as root, since the user that it becomes may not read Python's folder.
    kernel.unshare(kernel.CLONE_NEWNS)
    _private_root(packages)
    become_stranger()
    _own_namespaces(own, proc)
  else:
    _own_namespaces(own, proc)
    _private_root(packages)
  os.close(proc)
  kernel.prctl(kernel.PR_SET_DUMPABLE, 0)


def become_stranger() -> None:
  """From root to a user without files and processes, where there are such users."""
  stranger = STRANGERS + os.getpid() % MANY
  os.setgroups([])
  try:
    os.setresgid(stranger, stranger, stranger)
    os.setresuid(stranger, stranger, stranger)
  except OSError:
    return  # the root of a container that has few users: not the machine's root
  kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # or /proc/self belongs to root


def _own_namespaces(flags, proc):
  """New namespaces, in which this user is INSIDE; proc: a descriptor of /proc."""
  user, group = os.geteuid(), os.getegid()  # no longer known by number afterwards
  kernel.unshare(flags)
  for name, text in (
    ('setgroups', 'deny'),
    ('uid_map', f'{INSIDE} {user} 1'),
    ('gid_map', f'{INSIDE} {group} 1'),
  ):
    file = os.open(f'self/{name}', os.O_WRONLY, dir_fd=proc)
    os.write(file, text.encode())
    os.close(file)


def _private_root(packages):
  """Replaces the root by one in memory with the standard library, read-only."""
  base = next(b for b in BASES if os.path.isdir(b))
  flags = kernel.MS_NOSUID | kernel.MS_NODEV
  kernel.mount('', '/', '', kernel.MS_REC | kernel.MS_PRIVATE)
  kernel.mount('tmpfs', base, 'tmpfs', flags, 'mode=755,size=1m')
  os.chdir(base)
  for name in ('new', 'old'):
    os.mkdir(name)
  kernel.pivot_root('.', 'old')
  os.chdir('/')
  kernel.mount('tmpfs', '/new', 'tmpfs', flags, 'mode=755,size=1m')
  for path in [*library(), *filter(lambda p: os.path.isdir('/old' + p), SHARED)]:
    os.makedirs('/new' + path)
    _bind('/old' + path, '/new' + path, kernel.ATTR_NODEV)
  for path in hidden():
    kernel.mount('tmpfs', '/new' + path, 'tmpfs', flags, 'mode=555,size=4k')
  for name, path in shown.inside(packages).items():
    if os.path.isdir('/old' + packages[name]):
      os.makedirs('/new' + path)
    else:
      os.makedirs('/new' + shown.SHOWN, exist_ok=True)
      os.close(os.open('/new' + path, os.O_CREAT | os.O_WRONLY))
    _bind('/old' + packages[name], '/new' + path, kernel.ATTR_NODEV)
  os.makedirs('/new/dev')
  for path in DEVICES:
    os.close(os.open('/new' + path, os.O_CREAT | os.O_WRONLY))
    _bind('/old' + path, '/new' + path, 0)
  os.mkdir('/new' + SCRATCH)
  os.chdir('/new')
  kernel.pivot_root('.', '.')  # the former root is now above the new one
  kernel.detach('.')
  os.chdir('/')
  kernel.set_attributes('/', kernel.ATTR_RDONLY)


def _bind(source, target, more):
  kernel.mount(source, target, '', kernel.MS_BIND | kernel.MS_REC)
  attributes = kernel.ATTR_RDONLY | kernel.ATTR_NOSUID | more
  kernel.set_attributes(target, attributes)


def apart(limits: dict) -> None:
  """For one program: its own numbers of processes, and a scratch folder in memory."""
  flags = kernel.CLONE_NEWPID | kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC
  kernel.unshare(flags)
  size, files = limits['disk_bytes'], limits['files'] + 1
  data = f'mode=700,size={size},nr_inodes={files},'
  data += f'uid={os.geteuid()},gid={os.getegid()}'
  flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
  kernel.mount('tmpfs', SCRATCH, 'tmpfs', flags, data)


# Names that the module of Python does not have.
NUMBERS = {'SIGPENDING': 11, 'NICE': 13, 'RTPRIO': 14}


def set_limits(limits: dict, taken: int) -> None:
  """Limits of resources; taken: bytes of addresses that Python itself has."""
  cpu, memory = limits['cpu_s'], limits['memory_bytes'] + taken
  # The processes of the sandbox itself count: worker, keeper, first, the program.
  tasks = limits['threads'] + 4
  values = dict.fromkeys(('CORE', 'MEMLOCK', 'MSGQUEUE', 'NICE', 'RTPRIO'), (0, 0))
  values |= {'AS': (memory, memory), 'CPU': (cpu, cpu + 1), 'NPROC': (tasks, tasks)}
  values['FSIZE'] = 2 * (limits['file_bytes'],)
  values['NOFILE'] = 2 * (limits['open_files'],)
  values |= {'SIGPENDING': (64, 64), 'STACK': (STACK, STACK)}
  for name, pair in values.items():
    number = getattr(resource, f'RLIMIT_{name}', NUMBERS.get(name))
    if number is not None:
      resource.setrlimit(number, pair)


def hold(
  threads: bool, scratch: str, writes: bool, private: bool, folders: Sequence[str] = ()
) -> None:
  """The last step: from here on this process can do what a program may.

  threads, writes: whether it may start threads, and change files in the folder scratch.
  private: the root holds nothing but what a program may read. folders: of packages.
  """
  kernel.drop_capabilities()
  kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
  version = kernel.landlock_version()
  if not private and not writes and version < TRUNCATES:
    # An older one lets a file that may be read be emptied.
    raise OSError(f'Landlock has version {version}, not {TRUNCATES} (Linux 6.2)')
  if version:
    read = kernel.READ_FILE | kernel.READ_DIR
    allowed = {'/': read} if private else _visible() | dict.fromkeys(folders, read)
    there = [d for d in DEVICES if os.path.exists(d)]
    allowed |= dict.fromkeys(there, kernel.READ_FILE | kernel.WRITE_FILE)
    allowed[scratch] = kernel.SCRATCH if writes else read
    kernel.landlock(allowed)
  kernel.filter_calls(seccomp.program(os.getpid(), threads, writes))


def _visible():
  """Path -> rights: the standard library without what others installed into it."""
  rights = {}
  for folder in [*library(), *filter(os.path.isdir, SHARED)]:
    rights[folder] = kernel.READ_DIR  # the names of its files
    for name in os.listdir(folder):
      path = os.path.join(folder, name)
      if name not in HIDDEN and os.path.exists(path):  # a link may lead nowhere
        rights[path] = kernel.READ_FILE | kernel.READ_DIR
  return rights
