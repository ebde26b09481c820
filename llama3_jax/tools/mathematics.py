"""The tool `math`: answers questions of mathematics with sympy, in the sandbox (4.3.5).

The parser of sympy runs what it reads, so it never does outside of the sandbox.
"""

from llama3_jax.base.errors import UserError
from llama3_jax.tools import interpreter
from llama3_jax.tools import registry
from llama3_jax.tools import sandbox
from llama3_jax.tools.registry import Tool
from llama3_jax.tools.sandbox import packages

PACKAGES = ('sympy', 'mpmath')
LIMITS = sandbox.Limits(cpu_s=8, wall_s=10.0)


def create(source: str = '') -> list[Tool]:
  """The tool; it takes no source.

  Raises:
    UserError: sympy is not installed, or this machine cannot hold a program.
  """
  if source:
    raise UserError(f'tools: math takes nothing after it, and there is {source!r}')
  try:
    packages.find(PACKAGES)
  except UserError:
    raise UserError(
      "tools: math needs sympy: pip install -e '.[tools]', or leave math out"
    ) from None
  sandbox.strongest_way()
  return [registry.of(math, builtin='wolfram_alpha')]


def math(query: str) -> str:
  """Answers a question of mathematics: arithmetic, "solve x^2 = 4", "integrate x^2 \
from 0 to 1", "derivative of sin(x)", "limit of sin(x)/x as x -> 0", "factor 360", \
"5 miles in km".

  Args:
    query: the question.
  """
  last = (
    'try:\n'
    f'  print(answer({query!r}))\n'
    'except Exception as error:\n'
    "  said = ' '.join(str(error).split())[:200] or type(error).__name__\n"
    "  print('error: the question could not be answered:', said)"
  )
  return interpreter.run('calculate', last, packages=PACKAGES, limits=LIMITS)
