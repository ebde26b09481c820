"""The programs of generation for chips that are not here, to be planned (6.1, 6.2)."""

import jax
import jax.numpy as jnp
import numpy as np

from llama3_jax import axes
from llama3_jax.config import ModelConfig
from llama3_jax.generate import group
from llama3_jax.generate import pool
from llama3_jax.generate import stages
from llama3_jax.generate.group import Sizes
from llama3_jax.model import llama
from llama3_jax.plan import roofline

KINDS = roofline.GENERATES


def lower(
  mesh: jax.sharding.Mesh, model: ModelConfig, sizes: Sizes, kind: str, weights: str
) -> jax.stages.Lowered:
  """The lowered program that reads a chunk of prompts, or decodes steps of rows: of the
  largest of `sizes`. UserError as the engine's."""
  with jax.set_mesh(mesh):
    made = stages.chosen(sizes.microbatches)
    prepare = lambda: stages.prepared(_zeros(model), model, weights)
    params, groups = jax.eval_shape(prepare), axes.parts('B')
    pages = lambda: pool.create(model, sizes.count, sizes.page, groups)
    memory = jax.eval_shape(pages)
    if kind == 'prefill':
      chunk = group.Chunk(groups, sizes.chunks[-1], sizes)
      given = chunk.tokens, chunk.spots, chunk.items
      return made.read.lower(params, memory, *given, model)
    rows = group.empty(sizes, groups, sizes.rows[-1], model.vocab_size)
    return made.decode.lower(params, memory, *rows, np.int32(1), model, sizes.steps)


def _zeros(model):
  """Parameters in the compute dtype, laid out as they are loaded."""

  def leaf(x, letters):
    return axes.shard(jnp.zeros(x.shape, model.dtype), letters)

  return jax.tree.map(leaf, llama.abstract(model), llama.dims(model))


def loops(kind: str, sizes: Sizes, count: int) -> dict[str, int]:
  """{name of a loop: its trips} of a step in which every row is at the end of its room,
  or every prompt is as long; the programs decide them while they run. count: stages."""
  ticks = max(sizes.microbatches, count)
  if kind == 'decode':
    return {'steps': ticks, 'by_row': sizes.columns, 'by_item': 0, 'copies': 0}
  ticks = sizes.microbatches + count - 1
  return {'ticks': ticks, 'by_item': (sizes.columns + 1) // 2}
