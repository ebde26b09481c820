"""The one training step: losses are sums, divided by the global count (section 3.3)."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import struct

from llama3_jax import axes
from llama3_jax import feed
from llama3_jax.base.errors import UserError
from llama3_jax.pipeline import plans
from llama3_jax.pipeline import run as pipelines
from llama3_jax.reliable import guard as guards
from llama3_jax.train import part as parts


@struct.dataclass
class State:
  """All that training changes: step int32, params, optimizer state, guard.Health.

  frozen: parameters that it does not change (train/part.py), None where it does.
  """

  step: jax.Array
  params: object
  opt: object
  health: object = None
  frozen: object = None


def create(params, optimizer, part=None):
  """State at step 0; the optimizer's moments are laid out like the parameters."""
  params, frozen = part.split(params) if part else (params, None)
  opt = optimizer.init(params)
  return State(jnp.int32(0), params, opt, guards.fresh(), frozen)


def gradients(loss, params, batch, microbatches):
  """Sums over the batch: (gradients float32, metrics).

  Microbatches take strided rows, so that each keeps the batch's layout over devices;
  their gradients are added in float32 (section 3.3.2).
  """
  if isinstance(loss, plans.Plan):
    return pipelines.gradients(params, batch, loss)
  grad = jax.grad(lambda p, b: loss(p, b), has_aux=True)
  if microbatches == 1:
    return grad(params, batch)

  def split(x):
    x = x.reshape(x.shape[0] // microbatches, microbatches, *x.shape[1:])
    return jnp.moveaxis(x, 1, 0)

  def add(total, part):
    return jax.tree.map(jnp.add, total, grad(params, part)), None

  parts = jax.tree.map(split, batch)
  zero = jax.eval_shape(grad, params, jax.tree.map(lambda x: x[0], parts))
  zero = jax.tree.map(_zeros, zero)
  total, _ = jax.lax.scan(add, zero, parts)
  return total


def _zeros(x):
  place = {} if axes.mesh() is None else dict(out_sharding=x.sharding.spec)
  return jnp.zeros(x.shape, x.dtype, **place)


def normalise(tree, count):
  return jax.tree.map(lambda x: x / jnp.maximum(count, 1), tree)


@dataclasses.dataclass(frozen=True)
class TrainStep:
  """A training step, `train_step(state, batch) -> (state, metrics)`, and its parts.

  loss: loss(params, batch) -> (sum, metric sums with 'count'), or the Plan of a
    pipeline: parameters are then in the order of its layout.
  optimizer: of optim.create; microbatches: of a batch, one after the other.
  guard: what a bad step is (reliable/guard.py); None looks at none.
  part: which parameters are trained (train/part.py); None: all.

  Metrics are means over the supervised items, and grad_norm, count. The step is static
  under jit, so make it once; the state that it is given is donated.
  """

  loss: Callable | plans.Plan
  optimizer: optax.GradientTransformation
  microbatches: int = 1
  guard: guards.Guard | None = None
  part: parts.Part | None = None

  def __call__(self, state, batch):
    return train_step(state, batch, self)

  def start(self, params):
    """State at step 0, its moments laid out like the parameters."""
    return jax.jit(create, static_argnums=(1, 2))(params, self.optimizer, self.part)

  def view(self, state):
    """The parameters of a state as the loss takes them."""
    return self.part.join(state.params, state.frozen) if self.part else state.params

  def whole(self, state):
    """The parameters of a state, adapters added to their products."""
    if not self.part:
      return state.params
    return jax.jit(self.part.whole)(state.params, state.frozen)


def compose(loss, optimizer, microbatches=1, guard=None, part=None):
  """The training step of a loss: what every stage of the paper differs by."""
  if part and isinstance(loss, plans.Plan):
    raise UserError('part: mesh.stage=1 is needed where parameters are frozen')
  return TrainStep(loss, optimizer, microbatches, guard, part)


@functools.partial(jax.jit, static_argnums=2, donate_argnums=0)
def train_step(state, batch, how):
  """One step of the TrainStep `how`: (state, metrics)."""
  optimizer, guard = how.optimizer, how.guard
  loss = how.loss
  if how.part:  # only what is trained is differentiated
    loss = lambda p, b: how.loss(how.part.join(p, state.frozen), b)
  grads, sums = gradients(loss, state.params, batch, how.microbatches)
  grads = normalise(grads, sums['count'])
  metrics = normalise(sums, sums['count'])
  metrics |= {'count': sums['count'], 'grad_norm': optax.tree.norm(grads)}
  health = state.health
  if guard:
    grads, bad, health = guards.judge(guard, health, grads, metrics)
    metrics |= {'bad_steps': health.bad, 'bad_streak': health.streak}
  updates, opt = optimizer.update(grads, state.opt, state.params)
  params = optax.apply_updates(state.params, updates)
  if guard:
    params, opt = guards.unless(bad, (params, opt), (state.params, state.opt))
  return State(state.step + 1, params, opt, health, state.frozen), metrics


@functools.partial(jax.jit, static_argnums=2)
def eval_step(params, batch, loss):
  """Metric sums of one batch."""
  if isinstance(loss, plans.Plan):
    return pipelines.measure(params, batch, loss)
  return loss(params, batch)[1]


def evaluate(params, batches, loss):
  """Means over the supervised items of all `batches`, as Python floats."""
  totals = [eval_step(params, b, loss) for b in batches]
  totals = jax.tree.map(lambda *x: float(sum(map(float, x))), *totals)
  count = max(totals['count'], 1)
  return {k: v / count for k, v in totals.items() if k != 'count'}


def evaluator(loss, rows, size):
  """evaluate(params) -> held-out means {'eval_loss', 'eval/NAME'}, {} of no rows.

  Args: rows: a batch of all rows; size: rows at a time, those of training, so that no
  other program is compiled.
  """
  batches = [feed.place(batch) for batch in feed.batches(rows, size)]

  def measure(params):
    if not batches:
      return {}
    found = evaluate(params, batches, loss)
    others = {f'eval/{name}': x for name, x in found.items() if name != 'loss'}
    return {'eval_loss': found['loss'], **others}

  return measure
