"""Every program of a server is compiled before its port opens."""

from absl import logging

from llama3_jax.base import log
from llama3_jax.base.errors import UserError
from llama3_jax.generate.engine import Engine
from llama3_jax.generate.group import Request
from llama3_jax.generate.settings import Settings
from llama3_jax.serve import embed

EMBEDDED = 1_024  # tokens; what embeds longer texts is compiled when the first comes


def start(engine: Engine) -> int:
  """Runs a request through each shape; returns how many shapes there are."""
  sizes, before, count = engine.sizes, 0, 0
  with log.work('compiling the programs of the server'):
    for rows in sizes.rows:
      count += _answer(engine, rows, 2)
    for chunk in sizes.chunks:
      count += _answer(engine, 1, before + 2)
      before = chunk
    for width in embed.lengths(min(sizes.length, EMBEDDED)):
      embed.texts(engine, [[0] * min(width, sizes.length)])
      count += 1
  for each in engine.groups:
    each.pages.forget()
  engine.read = engine.padded = engine.decoded = 0
  logging.info('compiled: %d shapes of programs', count)
  return count


def _answer(engine, samples, length):
  """Whether a request of that shape can be asked; it was, in each group of chips."""
  settings = Settings(temperature=0, max_new=1)
  request = Request([0] * length, settings, samples=samples)
  try:
    engine.check(request)
  except UserError:  # longer than the room, or more than the pages: nobody can ask it
    return False
  for _ in engine.groups:
    engine.submit(request)
  while not engine.idle:
    engine.step()
  return True
