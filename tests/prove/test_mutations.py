"""Can the tests fail? Mutations of the code, each with the test that must see it.

`mutations.json` lists {file, old, new, tests}; `old` occurs once in the file.
LLAMA3_MUTATIONS=text runs those whose file holds the text.
"""

import collections
import concurrent.futures
import json
import os
import pathlib
import queue
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
LIST = pathlib.Path(__file__).with_name('mutations.json')
SHARE = 0.97
TREES = 2  # worktrees at a time
LIMIT_S = 600
CHOSEN = os.environ.get('LLAMA3_MUTATIONS', '')


def mutations():
  return [m for m in json.loads(LIST.read_text('utf-8')) if CHOSEN in m['file']]


def room(mutation):
  return '/'.join(pathlib.PurePath(mutation['file']).parts[:2])


@pytest.fixture(scope='module')
def trees(tmp_path_factory):
  """Worktrees of the commit, as a queue; the reference data is beside them if here."""
  folder, free = tmp_path_factory.mktemp('trees'), queue.Queue()
  git = lambda *words: subprocess.run(['git', *words], cwd=ROOT, check=True)
  if (ROOT / '../shared').is_dir():
    (folder / 'shared').symlink_to((ROOT / '../shared').resolve())
  for i in range(TREES):
    git('worktree', 'add', '--quiet', '--detach', str(folder / str(i)), 'HEAD')
    free.put(folder / str(i))
  yield free
  for i in range(TREES):
    git('worktree', 'remove', '--force', str(folder / str(i)))


def run(tree, tests):
  """Exit status of the tests in a worktree."""
  env = os.environ | {'JAX_PLATFORMS': 'cpu'}
  env.pop('XLA_FLAGS', None)  # those of the tests themselves
  env['PYTHONDONTWRITEBYTECODE'] = '1'
  command = [sys.executable, '-m', 'pytest', '-q', '-x', '-p', 'no:cacheprovider']
  try:
    return subprocess.run(
      [*command, *tests.split()],
      cwd=tree,
      env=env,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      timeout=LIMIT_S,
    ).returncode
  except subprocess.TimeoutExpired:
    return 1  # a test that never ends does not pass


def test_list_fits_the_code():
  for m in json.loads(LIST.read_text('utf-8')):
    text = (ROOT / m['file']).read_text('utf-8')
    assert text.count(m['old']) == 1, (m['file'], m['old'])
    assert m['old'] != m['new']


def test_tests_see_mutations(trees, record):
  wanted = mutations()

  def kill(m):
    tree = trees.get()
    path = tree / m['file']
    before = path.read_text('utf-8')
    try:
      path.write_text(before.replace(m['old'], m['new']), 'utf-8')
      return run(tree, m['tests']) == 1
    finally:
      path.write_text(before, 'utf-8')
      trees.put(tree)

  def passes(tests):
    tree = trees.get()
    try:
      return run(tree, tests) == 0
    finally:
      trees.put(tree)

  with concurrent.futures.ThreadPoolExecutor(TREES) as pool:
    controls = sorted({m['tests'] for m in wanted})
    fine = dict(zip(controls, pool.map(passes, controls)))
    killed = list(pool.map(kill, wanted))
  rooms = collections.defaultdict(list)
  for m, dead in zip(wanted, killed):
    rooms[room(m)].append(dead and fine[m['tests']])
  shown = ', '.join(f'{r} {sum(x)}/{len(x)}' for r, x in sorted(rooms.items()))
  dead = sum(map(sum, rooms.values()))
  share = dead / max(len(wanted), 1)
  record(
    f'mutations killed: {dead} of {len(wanted)} ({100 * share:.1f}%)',
    shown,
    f'{100 * SHARE:.0f}%',
  )
  left = [m for m, d in zip(wanted, killed) if not (d and fine[m['tests']])]
  assert share >= SHARE, left
