"""How a run ends when the end is not a fault of this code."""


class UserError(Exception):
  """A mistake of the user: one line that names the field or file and the way out."""


class Preempted(BaseException):
  """The run was asked to stop (SIGTERM), has saved, and may exit with status 0.

  No Exception: it may come anywhere, also where a library goes on after an error.
  """
