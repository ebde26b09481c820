"""The engine's programs lowered for chips that are not here."""

import jax
import numpy as np

from llama3_jax.config import ModelConfig
from llama3_jax.generate import group
from llama3_jax.generate import paged
from llama3_jax.generate import pool
from llama3_jax.generate import programs
from llama3_jax.generate import rows as rows_lib
from llama3_jax.model import llama
from llama3_jax.plan import topology

CONFIG = ModelConfig(2, 512, 16, 8, 128, 1024, vocab_size=512)
SIZES = group.Sizes((4,), (64,), 512, 64, pages=8192)


def build(given):
  """(lowered, mesh) of (target, 'read' or 'decode'), heads cut in four."""
  target, name = given
  mesh = topology.mesh(dict(fsdp=1, tensor=4), topology.parse(target))
  c, s = CONFIG, SIZES
  with jax.set_mesh(mesh):
    create = lambda: programs.cast(llama.init(jax.random.key(0), c), c)
    params = jax.eval_shape(create)
    memory = jax.eval_shape(lambda: pool.create(c, s.count, s.page, 1))
    if name == 'read':
      chunk = group.Chunk(1, s.chunks[0], s)
      arrays = chunk.tokens, chunk.spots, chunk.items
      return programs.read.lower(params, memory, *arrays, c), mesh
    count = s.rows[0]
    rows = rows_lib.idle(1, count, s.columns, s.length, c.vocab_size)
    items = paged.items(1, count, count * s.columns, count + 1)
    copies = np.zeros((1, count, 2), np.int32), np.zeros(1, np.int32)
    arrays = rows, items, copies, np.int32(0)
    return programs.decode.lower(params, memory, *arrays, c, s.steps), mesh
