"""Memory of computations on the CPU in huge pages (Linux with glibc).

A training step on the CPU asks the system for some hundred MB and gives them back. In
pages of 4 kB each is filled with zeros anew in every step, up to a fifth of its time.
glibc asks for pages of 2 MB where its environment says so when a process starts.
"""

import os
import pathlib
import sys

VARIABLE, SETTING = 'GLIBC_TUNABLES', 'glibc.malloc.hugetlb=1'
SWITCH = pathlib.Path('/sys/kernel/mm/transparent_hugepage/enabled')


def huge_pages() -> bool:
  """Asks for huge pages, for processes that are started from here; whether that is new.

  Only where the system gives them to who asks; a setting of the user's stays.
  """
  try:
    asked = '[madvise]' in SWITCH.read_text()
    glibc = (os.confstr('CS_GNU_LIBC_VERSION') or '').startswith('glibc')
  except (OSError, ValueError):
    return False
  settings = os.environ.get(VARIABLE, '')
  if not asked or not glibc or SETTING.partition('=')[0] in settings:
    return False
  os.environ[VARIABLE] = f'{settings}:{SETTING}'.strip(':')
  return True


def restart() -> None:
  """Starts this process anew, as it was started, where it has no huge pages yet.

  Its number, files and arguments stay. Not under a debugger or a profiler, which would
  begin anew as well. Call it before anything was done.
  """
  watched = sys.gettrace() or sys.getprofile()
  if sys.executable and not watched and huge_pages():
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
