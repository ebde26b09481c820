"""Averages of checkpoints: Polyak in annealing (3.4.3), of models (4.1.5)."""

import jax
import jax.numpy as jnp

from llama3_jax.base.errors import UserError


def mean(trees):
  """Leaf-wise mean of parameter trees, in float32, laid out like the first."""
  trees = list(trees)
  if not trees:
    raise UserError('nothing to average: give at least one checkpoint')
  shapes = [jax.tree.map(jnp.shape, t) for t in trees]
  if any(s != shapes[0] for s in shapes):
    raise UserError('the checkpoints to average are of different models')
  return jax.tree.map(lambda *x: sum(a.astype(jnp.float32) for a in x) / len(x), *trees)
