"""Endings of a run that are not faults of this code: exit status and message."""

import errno

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EROFS, errno.EPERM)
# Errors of a path that cannot be used, and of an exhausted resource of the machine.
UNUSABLE = (errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EIO)
SPENT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)


class UserError(Exception):
  """A mistake of the user: one line that names the field or file and the way out."""


class Preempted(BaseException):
  """The run was asked to stop (SIGTERM), has saved, and may exit with status 0.

  Not an Exception: it may be raised inside a library that catches those.
  """


def ending(error: BaseException) -> tuple[int, str | None]:
  """(exit status, line for the user); the line is None for a fault of this code."""
  if isinstance(error, UserError):
    return 2, str(error)
  if isinstance(error, Preempted):
    return 0, str(error)
  if isinstance(error, OSError):
    path = error.filename or 'a file'
    if error.errno in FULL:
      return (
        1,
        f'{error.filename or "the disk"}: {error.strerror}; free space, run again',
      )
    if error.errno in FORBIDDEN:
      return 1, f'{path}: {error.strerror}; choose a --workdir you can write'
    if error.errno in UNUSABLE:
      return 1, f'{path}: {error.strerror}; repair that path, or name another'
    if error.errno in SPENT:
      return (
        1,
        f'{path}: {error.strerror}; the machine has no more of it (see ulimit -a)',
      )
  line = ' '.join(str(error).split())[:300]
  if 'for JAX flag' in line or "for environment 'JAX_" in line:
    return 2, f'{line}: correct that variable of the environment, or unset it'
  if _raised_in(error).endswith(
    'jax/_src/xla_bridge.py'
  ):  # where jax looks for devices
    return 2, f'no such device here: correct JAX_PLATFORMS, or unset it ({line})'
  return 1, None


def _raised_in(error):
  """The file whose code raised the error."""
  trace = error.__traceback__
  while trace and trace.tb_next:
    trace = trace.tb_next
  return trace.tb_frame.f_code.co_filename if trace else ''
