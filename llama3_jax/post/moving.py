"""A reference that follows the policy: an average of its weights (4.1.4, option).

The parameters of such a run are both models. The loss differentiates only the policy;
the optimizer moves the reference, so saves and resumed runs hold it as any weight.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import struct

from llama3_jax import feed
from llama3_jax.config import ModelConfig
from llama3_jax.model import llama
from llama3_jax.post import joined


@struct.dataclass
class Both:
  """The model that is trained, and the average that it is compared with."""

  policy: llama.Params
  reference: llama.Params


def start(params: llama.Params) -> Both:
  """Both models at the first step: equal, in arrays of their own."""
  return Both(params, jax.tree.map(jnp.copy, params))


def optimizer(
  policy: optax.GradientTransformation, decay: float
) -> optax.GradientTransformation:
  """`policy` for the policy; then reference = decay reference + (1 - decay) policy."""

  def init(params):
    return policy.init(params.policy)

  def update(grads, state, params):
    updates, state = policy.update(grads.policy, state, params.policy)
    moved = optax.apply_updates(params.policy, updates)
    toward = lambda new, old: (1 - decay) * (new - old)
    return Both(updates, jax.tree.map(toward, moved, params.reference)), state

  return optax.GradientTransformation(init, update)


def loss(
  params: Both,
  batch: feed.Pairs | feed.Joined,
  config: ModelConfig,
  inner: Callable,
  chunk: int = 1024,
  kept: int = 0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """inner(policy, batch) with `ref_logp` of the reference as it is now.

  inner: loss(params, batch) of the policy, as post/dpo.py's; kept: as there.
  """
  reference = jax.lax.stop_gradient(params.reference)
  logp, pairs = joined.of_targets(reference, batch, config, chunk, kept)
  return inner(
    params.policy, batch.replace(ref_logp=jnp.sum(logp * pairs.contrast, -1))
  )
