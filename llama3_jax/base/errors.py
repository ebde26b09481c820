"""How a run ends when the end is not a fault of this code."""


class UserError(Exception):
  """A mistake of the user: one line that names the field or file and the way out."""


class Preempted(Exception):
  """The run was asked to stop (SIGTERM), has saved, and may exit with status 0."""
