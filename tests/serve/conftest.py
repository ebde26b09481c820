"""A toy model, and a server of it for the tests of the API."""

import pytest

pytest.importorskip('openai')
pytest.importorskip('uvicorn')
pytest.importorskip('starlette')
pytest.importorskip('llguidance')

import toy_server  # noqa: E402


@pytest.fixture(scope='session')
def model(tmp_path_factory):
  """The folder of a toy model that says printable text."""
  return toy_server.folder(tmp_path_factory.mktemp('served'))


@pytest.fixture(scope='session')
def start(model, root, tmp_path_factory):
  """start(field=value, ...): a Server of that model; all are ended in the end."""
  made = []

  def begin(**fields):
    log = tmp_path_factory.mktemp('log') / 'log'
    cache = root / '.pytest_cache/launcher'
    made.append(toy_server.start(model, log, cache, **fields))
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
