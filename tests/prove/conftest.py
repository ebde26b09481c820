"""Long proofs: `make prove` runs them and writes what they measured to docs/proofs.md.

A proof is a test with the fixture `record(name, measured, bar)`, called once for each
figure it has to show. A part of them (`pytest tests/prove/test_kill.py
--proofs=docs/proofs.md`) renews the rows of that part only.
"""

import datetime
import importlib.metadata
import pathlib
import platform

import pytest

HEAD = """# Proofs

Written by `make prove`; a row is renewed by `python -m pytest FILE
--proofs=docs/proofs.md`. What runs in `make test` is not repeated here.

| Proof | Measured | Bar | Held | Test | Date | Versions |
|---|---|---|---|---|---|---|
"""
BELOW = '\n## '
PLACE = 4  # the column that names the test


def pytest_addoption(parser):
  parser.addoption('--proofs', default='', help='Markdown file of the results')


def pytest_ignore_collect(config):
  """Only where they are asked for by their path: `make test` leaves them out."""
  return None if any('prove' in a for a in config.args) else True


def pytest_configure(config):
  config.proofs = {}


@pytest.fixture
def record(request):
  """record(name, measured, bar): a row of the table; values as they shall be read."""
  rows = request.config.proofs.setdefault(request.node.nodeid, [])

  def add(name, measured, bar):
    rows.append([str(x).replace('|', '/') for x in (name, measured, bar)])

  return add


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
  report = (yield).get_result()
  if report.when == 'call':
    for row in item.config.proofs.get(item.nodeid, ()):
      row.append('yes' if report.passed else 'NO')


def pytest_sessionfinish(session):
  """Replaces the rows of the tests that ran, and keeps those of the others."""
  path, found = getattr(session.config.option, 'proofs', ''), session.config.proofs
  if not path or not found:
    return
  path = pathlib.Path(path)
  day = datetime.date.today().isoformat()
  with_ = f'jax {importlib.metadata.version("jax")}, Python {platform.python_version()}'
  rows = []
  for node, parts in found.items():
    rows += [[*r, f'`{node}`', day, with_] for r in parts if len(r) == PLACE]
  kept = []
  for line in path.read_text().split('\n') if path.exists() else ():
    cells = [c.strip() for c in line.strip('|').split('|')]
    if len(cells) == 7 and '`' in cells[PLACE] and cells[PLACE].strip('`') not in found:
      kept.append(cells)
  rows = sorted(kept + rows, key=lambda r: r[PLACE].partition('::')[0])
  path.parent.mkdir(exist_ok=True)
  # What is written by hand stands below the table, under a heading, and stays.
  text = path.read_text() if path.exists() else ''
  below = text[text.index(BELOW) :] if BELOW in text else ''
  path.write_text(HEAD + ''.join(f'| {" | ".join(r)} |\n' for r in rows) + below)
