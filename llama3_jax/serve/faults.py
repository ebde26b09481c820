"""Errors that a client is told, in the form of the OpenAI API."""

from collections.abc import Mapping

KINDS = {401: 'authentication_error', 429: 'rate_limit_error'}


class Fault(Exception):
  """A request that is not answered: HTTP status, message, name of the field, code."""

  def __init__(
    self,
    status: int,
    message: str,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
  ) -> None:
    super().__init__(message)
    self.status, self.message = status, message
    self.param, self.code = param, code
    self.headers = dict(headers or {})

  def body(self) -> dict[str, object]:
    """The object that is sent as JSON."""
    kind = 'server_error' if self.status >= 500 else 'invalid_request_error'
    kind = KINDS.get(self.status, kind)
    named = dict(message=self.message, type=kind, param=self.param, code=self.code)
    return {'error': named}


def wrong(param: str, reason: str) -> Fault:
  """A field with a value that cannot be."""
  return Fault(400, f"'{param}': {reason}", param, 'invalid_value')
