"""Runs a text as a cell of a notebook: the value of its last expression is shown."""

import ast
import linecache
import sys
import traceback
import types

NAME = 'cell'


def run(text: str) -> int:
  """Runs a text as the main module; returns the exit status, as Python has it."""
  module = types.ModuleType('__main__')
  sys.modules['__main__'] = module
  linecache.cache[NAME] = (len(text), None, text.splitlines(keepends=True), NAME)
  try:
    body = ast.parse(text, NAME).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    whole = ast.Module(body, [])
    exec(compile(whole, NAME, 'exec', dont_inherit=True), module.__dict__)
    if last is not None:
      shown = compile(ast.Expression(last.value), NAME, 'eval', dont_inherit=True)
      value = eval(shown, module.__dict__)
      if value is not None:
        sys.stdout.write(f'{value!r}\n')
  except (SystemExit, MemoryError):
    raise
  except BaseException as error:
    unread = isinstance(error, SyntaxError) and error.filename == NAME
    below = None if unread else error.__traceback__.tb_next
    sys.stdout.flush()
    traceback.print_exception(type(error), error, below)
    return 1
  return 0
