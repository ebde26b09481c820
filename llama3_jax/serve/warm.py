"""Every program of a server is compiled before its port opens."""

from absl import logging

from llama3_jax.base import log
from llama3_jax.generate import embed
from llama3_jax.generate.engine import Engine

EMBEDDED = 1_024  # tokens; what embeds longer texts is compiled when the first comes


def start(engine: Engine) -> int:
  """Compiles each program; returns how many there are."""
  sizes = engine.sizes
  widths = embed.lengths(min(sizes.length, EMBEDDED)) if engine.stages == 1 else ()
  with log.work('compiling the programs of the server'):
    engine.warm()
    for width in widths:
      embed.texts(engine, [[0] * min(width, sizes.length)])
  count = len(sizes.rows) + len(sizes.chunks) + len(widths)
  logging.info('compiled: %d programs', count)
  return count
