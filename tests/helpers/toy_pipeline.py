"""A model, batches and plans for tests of the pipeline."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import rows

from llama3_jax import feed
from llama3_jax.config import ModelConfig
from llama3_jax.model import llama
from llama3_jax.pipeline import layout as layouts
from llama3_jax.pipeline import plans
from llama3_jax.pipeline import run
from llama3_jax.train import loss as losses
from llama3_jax.train import step

C = ModelConfig(
  6, 32, 4, 4, 8, 48, vocab_size=64, rope_theta=1e4, dtype='float32', attention='dense'
)


B, T = 12, 16


packed = functools.partial(rows.packed, B, T)


@functools.partial(jax.jit, static_argnums=0)
def init(config):
  return llama.init(jax.random.key(0), config)


arrange = jax.jit(layouts.arrange, static_argnums=1)


restore = jax.jit(layouts.restore, static_argnums=1)


gradients = jax.jit(run.gradients, static_argnums=2)


@functools.lru_cache
def expected(config):
  """(gradients, metrics) of one device without a mesh, numpy."""
  loss = functools.partial(losses.next_token, config=config, z_loss=1e-3)
  sequential = jax.jit(lambda p, b: step.gradients(loss, p, b, 1))
  batch = jax.tree.map(jnp.asarray, packed())
  return jax.tree.map(np.asarray, sequential(init(config), batch))


def plan_of(config, stages, microbatches, pipeline, form=None):
  tail = functools.partial(losses.head_loss, config=config, z_loss=1e-3)
  c = plans.PipelineConfig(**pipeline)
  return plans.create(config, stages, microbatches, c, tail, form)


def temporary(mesh, form, microbatches):
  """Bytes of temporaries, with two rows a microbatch."""
  config = dataclasses.replace(C, n_layers=4, remat='full')
  plan = plan_of(config, 4, microbatches, dict(form=form, group=4))
  with jax.set_mesh(mesh(stage=4)):
    here = jax.sharding.get_mesh()
    params = layouts.abstract(llama.abstract(config, mesh=here), plan.layout, here)
    sizes = dict(B=2 * microbatches, T=128)
    batch = feed.abstract(feed.Tokens, here, sizes)
    compiled = gradients.lower(params, batch, plan).compile()
  return compiled.memory_analysis().temp_size_in_bytes
