"""What the benchmarks of code share: the code of an answer, its score, pass@k (5.1.4).

An answer is right when the assertions of its question pass after it, in the sandbox.
"""

import math
import os
import re
import secrets
from collections.abc import Callable
from collections.abc import Sequence

from llama3_jax.base.errors import UserError
from llama3_jax.tasks import task
from llama3_jax.tools import sandbox

LIMITS = sandbox.Limits(cpu_s=5, wall_s=15.0)
FENCE = re.compile(r'^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)', re.M | re.S)
BEGINS = re.compile(r'^(?:async def|def|import|from|class|@)\b|^@', re.M)


def extract(response: str, begins: re.Pattern = BEGINS) -> str:
  """The code of an answer: its first fenced block, else all from the first def on.

  begins: the start of a line of code, in another language. A block that was cut off
  goes to the end; a text without either comes back whole.
  """
  text = response.replace('\r\n', '\n')
  if block := FENCE.search(text):
    return block[1]
  begin = begins.search(text)
  return text[begin.start() :] if begin else text


def scored(
  program: Callable[[task.Example, str], str], packages: Sequence[str] = ()
) -> dict:
  """The fields `score` and `scores` of a Task.

  program: (example, response) -> text of Python, which fails where the answer is wrong.
  packages: that it may import, as of `sandbox.run`.
  """

  def scores(pairs: Sequence[tuple[task.Example, str]]) -> list[float]:
    # A program that ends itself early also ends well: the last line shows that the
    # assertions were reached.
    word = secrets.token_hex(16)
    last = f"\n__import__('sys').__stdout__.write('\\n{word}')\n"
    programs = [program(e, text) + last for e, text in pairs]
    workers = os.cpu_count() or 1
    outcomes = sandbox.run_all(programs, LIMITS, workers, packages)
    right = lambda o: o.status == 'ok' and o.stdout.endswith(word)
    return [float(right(outcome)) for outcome in outcomes]

  return {
    'score': lambda example, response: scores([(example, response)])[0],
    'scores': scores,
  }


def pass_at_k(n: int, right: int, k: int) -> float:
  """Chance that one of k answers is right, of which `right` of n were: unbiased.

  1 - C(n - right, k) / C(n, k) (arXiv 2107.03374, 2.1). UserError unless
  0 <= right <= n and 1 <= k <= n.
  """
  if not (0 <= right <= n and 1 <= k <= n):
    raise UserError(f'pass@{k} of {right} right among {n}: k and right are at most {n}')
  return 1 - math.comb(n - right, k) / math.comb(n, k)


def parse(text: str, name: str, where: str) -> str:
  """The text; a UserError names the field where it is not Python."""
  try:
    compile(text, name, 'exec')
  except (SyntaxError, ValueError) as error:
    raise UserError(f'{where}: field {name!r} is not Python: {error}') from None
  return text
