"""A toy model, and a server of it for the tests of the API."""

import pytest


@pytest.fixture(scope='session')
def servers():
  """The helper module, where all that it needs is installed (extra `dev`)."""
  for name in ('starlette', 'uvicorn', 'openai', 'llguidance'):
    pytest.importorskip(name, reason=f"pip install -e '.[dev]': {name} is missing")
  import toy_server

  return toy_server


@pytest.fixture(scope='session')
def model(servers, tmp_path_factory):
  """The folder of a toy model that says printable text."""
  return servers.folder(tmp_path_factory.mktemp('served'))


@pytest.fixture(scope='session')
def start(servers, model, root, tmp_path_factory):
  """start(field=value, ...): a Server of that model; all are ended in the end."""
  made = []

  def begin(**fields):
    log = tmp_path_factory.mktemp('log') / 'log'
    cache = root / '.pytest_cache/launcher'
    made.append(servers.start(model, log, cache, **fields))
    return made[-1]

  yield begin
  for server in made:
    server.process.kill()
    server.process.wait()


@pytest.fixture(scope='session')
def server(start):
  """A server for all tests; whatever they did, no page is in use in the end."""
  server = start()
  yield server
  assert server.until('pages_used', 0) and server.until('running', 0)
  assert server.end() == 0


@pytest.fixture
def client(server):
  return server.client()
