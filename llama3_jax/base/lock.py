"""Lock of a workdir, for one run at a time; the lock of a dead owner is free."""

import contextlib
import fcntl
import json
import os
import pathlib
import socket
import threading
import time

from llama3_jax.base.errors import UserError

NAME = '.lock'
BEAT_S = 10.0  # between two renewals of the file's time
DEAD_S = 60.0  # without a renewal an owner on another host counts as dead

_held = {}  # folder -> open file: the kernel frees the lock when this process ends


def take(folder: str | os.PathLike, field: str = '--workdir') -> None:
  """Locks the workdir `folder` until this process ends or calls `release`.

  On one host the kernel frees the lock of a dead process. In a folder that several
  hosts share, the owner renews the file's time every 10 s; after 60 s without (by the
  clock of the file server) it counts as dead.

  Raises:
    UserError: another live process holds the lock.
  """
  folder = pathlib.Path(folder).resolve()
  if folder in _held:
    return
  file = open(folder / NAME, 'a+', encoding='utf-8')
  try:
    if owner := _owner(file, folder, keep=True):
      raise UserError(_line(folder, owner, field))
  except BaseException:
    file.close()
    raise
  file.truncate(0)
  file.write(json.dumps(_self()))
  file.flush()
  _held[folder] = file
  if len(_held) == 1:
    threading.Thread(target=_beat, daemon=True).start()


def check(folder: str | os.PathLike) -> None:
  """Raises UserError when another live process holds `folder`; does not lock it."""
  folder = pathlib.Path(folder).resolve()
  if folder in _held or not (folder / NAME).exists():
    return
  try:
    with open(folder / NAME, 'a+', encoding='utf-8') as file:
      owner = _owner(file, folder, keep=False)
  except OSError:
    return  # the first write there reports the error
  if owner:
    raise UserError(_line(folder, owner, '--workdir'))


def release(folder: str | os.PathLike) -> None:
  """Frees the lock of the workdir before the process ends."""
  file = _held.pop(pathlib.Path(folder).resolve(), None)
  if file is not None:
    file.truncate(0)
    file.close()


def _owner(file, folder, keep):
  """Owner of the file: {'host', 'process', 'since'}; None when it is free, and with
  `keep` locked by this process from now on."""
  locks = True
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return _read(file) or {'host': 'this host', 'process': '?', 'since': '?'}
  except OSError:
    locks = False  # a file system without locks: the file's time decides
  owner = _read(file)
  if owner and owner['host'] != socket.gethostname():
    alive = _age(file, folder) < DEAD_S
  else:
    alive = bool(owner) and not locks and _runs(owner['process'])
  if locks and (alive or not keep):
    fcntl.flock(file, fcntl.LOCK_UN)
  return owner if alive else None


def _read(file):
  file.seek(0)
  try:
    owner = json.loads(file.read())
    return (
      owner if isinstance(owner, dict) and {'host', 'process'} <= set(owner) else {}
    )
  except (ValueError, RecursionError):
    return {}


def _age(file, folder):
  """Seconds since the file was written, by the clock of the folder's file system."""
  probe = folder / f'{NAME}.{socket.gethostname()}.{os.getpid()}'
  try:
    probe.touch()
    return probe.stat().st_mtime - os.fstat(file.fileno()).st_mtime
  finally:
    probe.unlink(missing_ok=True)


def _runs(process):
  try:
    os.kill(int(process), 0)
  except (OSError, ValueError):
    return False
  return int(process) != os.getpid()


def _beat():
  """Renews the times of the files that this process holds, until it holds none."""
  while _held:
    for file in list(_held.values()):
      with contextlib.suppress(OSError, ValueError):  # removed, or released just now
        os.utime(file.fileno())
    time.sleep(BEAT_S)


def _self():
  since = time.strftime('%Y-%m-%d %H:%M:%S')
  return {'host': socket.gethostname(), 'process': os.getpid(), 'since': since}


def _line(folder, owner, field):
  return (
    f'{field}={folder} is in use by process {owner["process"]} on {owner["host"]} '
    f'since {owner.get("since", "?")}: wait for it, end it, or choose another {field}'
  )
