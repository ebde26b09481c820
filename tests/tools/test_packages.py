"""Packages in the sandbox: shown as they are, read-only, and nothing beside them."""

import os

import attacks
import fasttext_pybind
import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.tools import sandbox

LIMITS = sandbox.Limits(cpu_s=2, wall_s=4.0)
PACKAGE = 'shown_package_29c1'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A folder of two packages, of which one is shown."""
  made = tmp_path_factory.mktemp('installed')
  os.chmod(made, 0o755)
  for name in (PACKAGE, 'beside_29c1'):
    (made / name).mkdir()
    (made / name / '__init__.py').write_text('VALUE = [1]\n')
    (made / name / 'later.py').write_text('LATER = 2\n')
  (made / 'module_29c1.py').write_text('')
  (made / 'broken_29c1').mkdir()
  (made / 'broken_29c1' / '__init__.py').write_text('import no_such_29c1\n')
  (made / 'secret.txt').write_text('told')
  return made


@pytest.fixture
def path(folder, monkeypatch):
  monkeypatch.syspath_prepend(folder)
  return folder


@pytest.fixture(params=[w for w in sandbox.WAYS if w != 'none'])
def worker(request, path):
  reason = sandbox._tried(request.param)[0]
  assert 'AssertionError' not in reason, reason
  if reason:
    pytest.skip(reason)
  with sandbox.Worker(request.param, [PACKAGE]) as one:
    yield one


def test_package_is_imported_with_its_modules(worker):
  program = f'import {PACKAGE}, {PACKAGE}.later as later\n'
  program += f'print({PACKAGE}.VALUE, later.LATER)'
  assert worker.run(program, LIMITS).stdout == '[1] 2\n'


def test_packages_beside_it_are_not_there(worker):
  for name in ('beside_29c1', 'module_29c1', 'numpy'):
    outcome = worker.run(f'import {name}', LIMITS)
    assert 'ModuleNotFoundError' in outcome.stderr


WRITES = [
  'open(init, "a").write("x")',
  'open(os.path.join(folder, "new.py"), "w")',
  'os.remove(init)',
  'os.rename(init, init + "2")',
  'os.chmod(init, 0o777)',
  'os.truncate(init, 0)',
  'os.mkdir(os.path.join(folder, "__pycache__"))',
  'os.symlink("/etc", os.path.join(folder, "link"))',
]


@pytest.mark.parametrize('write', WRITES)
def test_package_cannot_be_changed(worker, folder, write):
  program = f'import os, {PACKAGE}\ninit = {PACKAGE}.__file__\n'
  program += f'folder = os.path.dirname(init)\n{write}'
  outcome = worker.run(program, LIMITS)
  assert outcome.status == 'failed' and 'Error' in outcome.stderr, outcome
  made = folder / PACKAGE
  assert {p.name for p in made.iterdir()} - {'__pycache__'} == {
    '__init__.py',
    'later.py',
  }
  assert (made / '__init__.py').read_text() == 'VALUE = [1]\n'


def test_files_beside_a_package_are_not_read(worker, folder):
  program = f"""
import os, {PACKAGE}
for name in (os.path.join(os.path.dirname({PACKAGE}.__file__), '..'), {str(folder)!r}):
  try:
    print(open(os.path.join(name, 'secret.txt')).read())
  except OSError:
    pass
"""
  assert worker.run(program, LIMITS).stdout == ''


def test_a_link_in_a_package_leads_nowhere(path, worker):
  link = path / PACKAGE / 'link.txt'
  link.symlink_to(path / 'secret.txt')
  try:
    program = f'import os, {PACKAGE}\n'
    program += f'open(os.path.join(os.path.dirname({PACKAGE}.__file__), "link.txt"))'
    assert worker.run(program, LIMITS).status == 'failed'
  finally:
    link.unlink()


def test_what_a_program_does_to_a_package_ends_with_it(worker):
  assert worker.run(f'import {PACKAGE} as p; p.VALUE.append(2)', LIMITS).status == 'ok'
  assert worker.run(f'import {PACKAGE} as p; print(p.VALUE)', LIMITS).stdout == '[1]\n'


def test_a_worker_without_packages_has_none(path):
  attacks.way()
  assert 'ModuleNotFoundError' in sandbox.run(f'import {PACKAGE}', LIMITS).stderr
  assert sandbox.run(f'import {PACKAGE}', LIMITS, packages=[PACKAGE]).status == 'ok'


@pytest.mark.parametrize('way', [w for w in sandbox.WAYS if w != 'none'])
def test_a_file_of_compiled_code_is_shown_with_its_libraries(way):
  if reason := sandbox._tried(way)[0]:
    pytest.skip(reason)
  beside = os.path.dirname(fasttext_pybind.__file__)
  program = f"""
import os, fasttext_pybind as shown
shown.fasttext()  # runs, with the libraries of C++
for what in (
  lambda: open(shown.__file__, 'r+b'),
  lambda: os.remove(shown.__file__),
  lambda: os.listdir({beside!r}),
  lambda: open({beside!r} + '/six.py'),
):
  try:
    what()
  except OSError:
    continue
  print('done')
print('end')
"""
  with sandbox.Worker(way, ['fasttext_pybind']) as one:
    outcome = one.run(program, LIMITS)
    assert outcome.stdout == 'end\n', outcome
    assert 'No module named' in one.run('import numpy', LIMITS).stderr


def test_programs_that_run_together_are_shown_packages_too(path):
  attacks.way()
  programs = [f'import {PACKAGE} as p; print(p.VALUE)'] * 2
  outcomes = sandbox.run_all(programs, LIMITS, packages=[PACKAGE])
  assert [o.stdout for o in outcomes] == ['[1]\n'] * 2


@pytest.mark.parametrize(
  'name,reason',
  [
    ('no_such_29c1', 'is not installed'),
    ('a.b', 'is not the name'),
    ('../x', 'is not the name'),
    ('module_29c1', 'is not a folder'),
    ('broken_29c1', 'cannot be imported: No module named'),
  ],
)
def test_package_that_cannot_be_shown_is_one_line(path, name, reason):
  attacks.way()
  with pytest.raises(UserError, match=reason) as error:
    sandbox.run('1', packages=[name])
  assert '\n' not in str(error.value) and str(error.value).startswith('sandbox: ')
