"""The one training step: losses are sums, divided by the global count (section 3.3)."""

import dataclasses
import functools
import weakref
from collections.abc import Callable
from collections.abc import Sequence

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
  """Everything that training changes: step int32, params, optimizer state, Health.

  frozen: parameters that are not trained (train/part.py), None elsewhere.
  """

  step: jax.Array
  params: object
  opt: object
  health: object = None
  frozen: object = None


def create(
  params: object,
  optimizer: optax.GradientTransformation,
  part: parts.Part | None = None,
) -> State:
  """State at step 0; the optimizer's moments have the layout of the parameters."""
  params, frozen = part.split(params) if part else (params, None)
  opt = optimizer.init(params)
  return State(jnp.int32(0), params, opt, guards.fresh(), frozen)


def gradients(
  loss: Callable | plans.Plan, params: object, batch: object, microbatches: int
) -> tuple[object, dict[str, jax.Array]]:
  """Sums over the batch: (gradients float32, metrics).

  Microbatches take strided rows, so that each has the layout of the batch on devices;
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
  layout = {} if axes.mesh() is None else dict(out_sharding=x.sharding.spec)
  return jnp.zeros(x.shape, x.dtype, **layout)


def normalise(tree: object, count: jax.Array) -> object:
  """Every leaf of `tree`, a sum, divided by `count` (at least 1), a float32 scalar."""
  return jax.tree.map(lambda x: x / jnp.maximum(count, 1), tree)


@dataclasses.dataclass(frozen=True)
class TrainStep:
  """A training step, `train_step(state, batch) -> (state, metrics)`, and its parts.

  loss: loss(params, batch) -> (sum, metric sums with 'count'), or the Plan of a
    pipeline: parameters are then in the order of its layout.
  optimizer: of optim.create; microbatches: of a batch, run one after the other.
  guard: what a bad step is (reliable/guard.py); None: steps are not judged.
  part: which parameters are trained (train/part.py); None: all.

  Metrics are means over the supervised items, and grad_norm, count. The step is static
  under jit, so make it once; its state argument is donated.
  """

  loss: Callable | plans.Plan
  optimizer: optax.GradientTransformation
  microbatches: int = 1
  guard: guards.Guard | None = None
  part: parts.Part | None = None

  def __call__(self, state: State, batch: object) -> tuple[State, dict[str, jax.Array]]:
    return train_step(state, batch, self)

  def start(self, params: object) -> State:
    """State at step 0; its moments have the layout of the parameters."""
    return jax.jit(create, static_argnums=(1, 2))(params, self.optimizer, self.part)

  def view(self, state: State) -> object:
    """The parameters of a state in the form that the loss takes."""
    return self.part.join(state.params, state.frozen) if self.part else state.params

  def whole(self, state: State) -> object:
    """The parameters of a state, with adapters added to their products."""
    if not self.part:
      return state.params
    return jax.jit(self.part.whole)(state.params, state.frozen)


def compose(
  loss: Callable | plans.Plan,
  optimizer: optax.GradientTransformation,
  microbatches: int = 1,
  guard: guards.Guard | None = None,
  part: parts.Part | None = None,
) -> TrainStep:
  """The training step of a loss; the stages of the paper differ by the loss."""
  if part and isinstance(loss, plans.Plan):
    raise UserError('part: mesh.stage=1 is needed where parameters are frozen')
  return TrainStep(loss, optimizer, microbatches, guard, part)


@functools.partial(jax.jit, static_argnums=2, donate_argnums=0)
def train_step(
  state: State, batch: object, how: TrainStep
) -> tuple[State, dict[str, jax.Array]]:
  """One step of the TrainStep `how`: (state, metrics)."""
  optimizer, guard = how.optimizer, how.guard
  loss = how.loss
  if how.part:  # only the trained parameters are differentiated
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
def eval_step(
  params: object, batch: object, loss: Callable | plans.Plan
) -> dict[str, jax.Array]:
  """Metric sums of one batch, float32 scalars."""
  if isinstance(loss, plans.Plan):
    return pipelines.measure(params, batch, loss)
  return loss(params, batch)[1]


def evaluate(
  params: object, batches: Sequence[object], loss: Callable | plans.Plan
) -> dict[str, float]:
  """Means over the supervised items of all `batches`, as Python floats."""
  totals = [eval_step(params, b, loss) for b in batches]
  totals = jax.tree.map(lambda *x: float(sum(map(float, x))), *totals)
  count = max(totals['count'], 1)
  return {k: v / count for k, v in totals.items() if k != 'count'}


def evaluator(
  loss: Callable | plans.Plan, rows: object, size: int
) -> Callable[[object], dict[str, float]]:
  """Function evaluate(params) -> held-out means {'eval_loss', 'eval/NAME'}; {} without
  rows.

  Args: rows: a batch of all rows; size: rows at a time, as in training, so that no
  other program is compiled.
  """
  batches = [feed.place(batch) for batch in feed.batches(rows, size)]

  def measure(params):
    if not batches:
      return {}
    means = evaluate(params, batches, loss)
    others = {f'eval/{name}': x for name, x in means.items() if name != 'loss'}
    return {'eval_loss': means['loss'], **others}

  return once(measure)


def once(evaluate: Callable[[object], dict]) -> Callable[[object], dict]:
  """evaluate(params) that computes nothing again for the object it was given last: the
  loop measures its last step, and a stage the parameters that it hands on."""
  of, losses = lambda: None, {}

  def measure(params):
    nonlocal of, losses
    if params is None or of() is not params:
      losses = evaluate(params)
      # Not held: the next step takes the memory of its parameters.
      of = weakref.ref(params) if hasattr(params, '__weakref__') else lambda: None
    return dict(losses)

  return measure
