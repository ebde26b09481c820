"""The tool `python`: runs what a model wrote, in the sandbox (4.3.5).

`python=FOLDER` puts the files of a folder beside each program. Every program starts
afresh: nothing is left of the one before.
"""

import dataclasses
import pathlib

from llama3_jax.base.errors import UserError
from llama3_jax.text import tool_calls
from llama3_jax.tools import registry
from llama3_jax.tools import sandbox
from llama3_jax.tools.registry import Tool

LIMITS = sandbox.Limits(cpu_s=20, wall_s=30.0)
INSIDE = pathlib.Path(__file__).parent / 'inside'
# What an outcome is called where the program did not end well by itself.
ENDINGS = {
  'time': 'stopped: it took too long',
  'memory': 'stopped: it used too much memory',
  'output': 'stopped: it wrote too much',
  'killed': 'it was killed',
}


def create(source: str = '') -> list[Tool]:
  """The tool; source: a folder whose files a program may read, ''.

  Raises:
    UserError: this machine cannot hold a program, or the folder cannot be given.
  """
  sandbox.strongest_way()
  files = _files(source) if source else {}

  def python(code: str) -> str:
    """Runs a program in Python and gives what it prints, and the value of its last \
line. It starts afresh each time.

    Args:
      code: the program.
    """
    return run('cell', f'raise SystemExit(run({code!r}))', files)

  tool = registry.of(python, builtin=tool_calls.CODE)
  if files:
    said = f' These files are in its folder: {", ".join(sorted(files))}.'
    tool = dataclasses.replace(tool, description=tool.description + said)
  return [tool]


def run(
  module: str,
  last: str,
  files: dict[str, bytes] | None = None,
  packages: tuple[str, ...] = (),
  limits: sandbox.Limits = LIMITS,
) -> str:
  """The output of a module of `inside`, after which the line `last` is run."""
  text = (INSIDE / f'{module}.py').read_text('utf-8')
  outcome = sandbox.run(f'{text}\n{last}\n', limits, files, packages=packages)
  ending = ENDINGS.get(outcome.status, '')
  said = [outcome.stdout.rstrip(), outcome.stderr.rstrip(), ending]
  return '\n'.join(part for part in said if part) or 'done; nothing was printed'


def _files(source):
  """Path -> content of the files of a folder."""
  folder = pathlib.Path(source).expanduser()
  if not folder.is_dir():
    raise UserError(f'tools: python={source}: no such folder')
  paths = [p for p in sorted(folder.rglob('*')) if p.is_file() and not p.is_symlink()]
  size = sum(p.stat().st_size for p in paths)
  if size > LIMITS.disk_bytes // 2 or len(paths) > LIMITS.files // 2:
    raise UserError(
      f'tools: python={source}: {len(paths)} files of {size:,} bytes, and up to '
      f'{LIMITS.files // 2} of {LIMITS.disk_bytes // 2:,} are given: name a smaller '
      'folder'
    )
  try:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}
  except OSError as error:
    raise UserError(f'tools: python={source}: {error.strerror}') from None
