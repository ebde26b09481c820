"""Calls of the Linux kernel that Python has no function for, by ctypes."""

import ctypes
import os
import platform
import struct

_libc = ctypes.PyDLL(None, use_errno=True)

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC = 2, 4, 8
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
MNT_DETACH = 2
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, AT_RECURSIVE = 1, 2, 4, 0x8000
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP = 1, 4, 22
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, FILTER = 24, 38, 2
# pivot_root and capset have other numbers on other machines; the rest is shared.
NUMBERS = {'x86_64': (155, 126), 'aarch64': (41, 91)}
MOUNT_SETATTR, LANDLOCK = 442, 444
LAST_CAPABILITY = 63
NET, SCOPES = 3, 3  # bind and connect of TCP; abstract sockets and signals

# Rights of Landlock to files, from its first version on, and those that came later.
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
CHANGE = 0x10 | 0x20 | 0x80 | 0x100 | 0x1000  # remove, make folders, files, links
MAKE_SPECIAL = 0x40 | 0x200 | 0x400 | 0x800  # devices, sockets, pipes
REFER, TRUNCATE, IOCTL_DEVICE = 0x2000, 0x4000, 0x8000
SCRATCH = WRITE_FILE | READ_FILE | READ_DIR | CHANGE | REFER | TRUNCATE


def _checked(result, what):
  if result < 0:
    number = ctypes.get_errno()
    raise OSError(number, f'{what}: {os.strerror(number)}')
  return result


def _call(what, number, *arguments):
  long = [a if isinstance(a, bytes) else ctypes.c_long(a) for a in arguments]
  return _checked(_libc.syscall(ctypes.c_long(number), *long), what)


def unshare(flags: int) -> None:
  """New namespaces for this process; of process numbers: for its children."""
  _checked(_libc.unshare(flags), 'unshare')


def mount(source: str, target: str, kind: str, flags: int, data: str = '') -> None:
  """Mounts a file system, or with MS_BIND a folder a second time."""
  arguments = (source.encode(), target.encode(), kind.encode() or None)
  flags = ctypes.c_ulong(flags)
  result = _libc.mount(*arguments, flags, data.encode() or None)
  _checked(result, f'mount of {target}')


def set_attributes(target: str, attributes: int) -> None:
  """Gives a mount and all below it more attributes, such as read-only (Linux 5.12)."""
  block = struct.pack('<QQQQ', attributes, 0, 0, 0)
  what, here = f'mount_setattr of {target}', -100
  _call(what, MOUNT_SETATTR, here, target.encode(), AT_RECURSIVE, block, len(block))


def detach(target: str) -> None:
  """Takes a mount away, at once for new uses."""
  _checked(_libc.umount2(target.encode(), MNT_DETACH), f'umount of {target}')


def pivot_root(new: str, old: str) -> None:
  """Makes `new` the root of the file system; the former root is mounted at `old`."""
  number = NUMBERS[platform.machine()][0]
  _call('pivot_root', number, new.encode(), old.encode())


def prctl(option: int, value: int = 0) -> None:
  """Sets a property of this process."""
  more = [ctypes.c_ulong(v) for v in (value, 0, 0, 0)]
  _checked(_libc.prctl(option, *more), f'prctl {option}')


def drop_capabilities() -> None:
  """Gives up all capabilities, for ever."""
  for capability in range(LAST_CAPABILITY + 1):
    try:
      prctl(PR_CAPBSET_DROP, capability)
    except OSError:
      break  # the kernel has no more of them, or they were not there to drop
  version = 0x20080522
  header, none = struct.pack('<Ii', version, 0), bytes(24)
  _call('capset', NUMBERS[platform.machine()][1], header, none)


def landlock_version() -> int:
  """Version of Landlock, 0: none."""
  try:
    return _call('Landlock', LANDLOCK, 0, 0, 1)
  except OSError:
    return 0


def _handled(version):
  """(files, net, scopes): all that a version of Landlock can refuse."""
  files = (1 << 13) - 1
  files |= REFER if version >= 2 else 0
  files |= TRUNCATE if version >= 3 else 0
  files |= IOCTL_DEVICE if version >= 5 else 0
  return files, NET if version >= 4 else 0, SCOPES if version >= 6 else 0


def landlock(allowed: dict[str, int]) -> None:
  """Refuses all files but these: path -> rights. Needs no_new_privs."""
  version = landlock_version()
  files, net, scopes = _handled(version)
  block = struct.pack('<QQQ', files, net, scopes)
  size = 8 if version < 4 else 16 if version < 6 else 24
  rules = _call('Landlock', LANDLOCK, block, size, 0)
  for path, rights in allowed.items():
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    if not os.path.isdir(path):
      rights &= WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEVICE
    rule = struct.pack('<Qi', rights & files, place)
    _call(f'Landlock of {path}', LANDLOCK + 1, rules, 1, rule, 0)
    os.close(place)
  _call('Landlock', LANDLOCK + 2, rules, 0)
  os.close(rules)


def filter_calls(code: bytes) -> None:
  """Installs a seccomp filter: instructions of 8 bytes each. Needs no_new_privs."""
  memory = ctypes.create_string_buffer(code, len(code))
  address = ctypes.addressof(memory)
  block = struct.pack('<HxxxxxxQ', len(code) // 8, address)
  prctl_block = ctypes.create_string_buffer(block, len(block))
  where = ctypes.c_void_p(ctypes.addressof(prctl_block))
  result = _libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(FILTER), where, 0, 0)
  _checked(result, 'seccomp')
