"""How a run ends when the end is not a fault of this code."""

import errno

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EROFS, errno.EPERM)
# What a path is that cannot be used, and what the machine has no more of.
UNUSABLE = (errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EIO)
SPENT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)


class UserError(Exception):
  """A mistake of the user: one line that names the field or file and the way out."""


class Preempted(BaseException):
  """The run was asked to stop (SIGTERM), has saved, and may exit with status 0.

  No Exception: it may come anywhere, also where a library goes on after an error.
  """


def ending(error):
  """(exit status, the line for the user; None for an error that is ours)."""
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
      return 1, f'{path}: {error.strerror}; put right what lies there, or name another'
    if error.errno in SPENT:
      return (
        1,
        f'{path}: {error.strerror}; the machine has no more of it (see ulimit -a)',
      )
  line = ' '.join(str(error).split())[:300]
  if 'for JAX flag' in line or "for environment 'JAX_" in line:
    return 2, f'{line}: correct that variable of the environment, or unset it'
  if _raised_in(error).endswith('jax/_src/xla_bridge.py'):  # it looks for devices there
    return 2, f'no such device here: correct JAX_PLATFORMS, or unset it ({line})'
  return 1, None


def _raised_in(error):
  """The file whose code raised the error."""
  trace = error.__traceback__
  while trace and trace.tb_next:
    trace = trace.tb_next
  return trace.tb_frame.f_code.co_filename if trace else ''
