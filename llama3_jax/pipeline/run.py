"""The pipeline executor: forwards and backwards in the order of the table (3.3.2).

A scan over ticks inside a shard_map in which only `stage` is manual: the other axes
stay explicit, so FSDP, tensor and context parallelism are the model's own letters.
A backward is the vjp of the chunk from its stored input; only that input is stored, so
the schedule bounds the memory of activations, whatever the number of microbatches.
Gradients are added in float32.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from llama3_jax import axes
from llama3_jax import feed
from llama3_jax.model import attention
from llama3_jax.model import embedding
from llama3_jax.model import llama
from llama3_jax.model import remat
from llama3_jax.model import rope
from llama3_jax.pipeline import schedule as schedules
from llama3_jax.pipeline import slots
from llama3_jax.pipeline.plans import Plan


@struct.dataclass
class _Row:
  """One tick of the table; [stages] outside, this stage's scalar inside."""

  op: jax.Array
  chunk: jax.Array
  microbatch: jax.Array
  read_input: jax.Array
  store_input: jax.Array
  read_gradient: jax.Array
  store_gradient: jax.Array
  length: jax.Array  # of the chunk, as an index into the layout's lengths


@struct.dataclass
class _Tick:
  """Facts about a tick that are the same on all stages: whether any of them ..."""

  forward: jax.Array
  backward: jax.Array
  first: jax.Array  # runs the backward of the first chunk
  last: jax.Array  # computes the loss
  embed: jax.Array  # reads tokens
  length: jax.Array  # the longest chunk's


@struct.dataclass
class _Carry:
  inputs: jax.Array  # [slots,b,T,D]
  gradients: jax.Array  # [slots,b,T,D]
  layers: object  # float32 sums, as the stage's parameters
  outer: object  # float32 sums of embedding, norm, head
  metrics: object


def gradients(
  params: llama.Params, batch: object, plan: Plan
) -> tuple[llama.Params, dict[str, jax.Array]]:
  """Sums over the batch: (gradients float32, metrics), as `train.step.gradients`.

  Args: params in the stored order of `plan.layout`; batch: arrays [B, ...] of which
  microbatches take strided rows. Needs an ambient mesh whose `stage` has the size of
  the schedule's stages; call under jit.
  """
  layers, outer, metrics = _over_stages(_stage, params, batch, plan)
  return outer.replace(layers=layers), metrics


def measure(params: llama.Params, batch: object, plan: Plan) -> dict[str, jax.Array]:
  """Metric sums of the batch, without gradients; the plan must have form `forward`."""
  return _over_stages(_measure, params, batch, plan)[2]


def _over_stages(function, params, batch, plan):
  """function(layers, outer, parts) on every stage: (layers, outer, metrics)."""
  split = functools.partial(_split, plan=plan)
  parts = jax.tree.map(split, batch, feed.letters(batch))
  staged, whole = axes.spec('C'), axes.spec('')
  mapped = jax.shard_map(
    functools.partial(function, plan=plan),
    in_specs=(staged, whole, whole),
    out_specs=(staged, whole, whole),
    axis_names=set(axes.over('C')),
    check_vma=False,
  )
  return mapped(params.layers, params.replace(layers=None), parts)


def _split(x, dims, plan):
  """[B,...] -> [M,B/M,...]; strided, so that microbatches have the batch's layout."""
  m = plan.schedule.microbatches
  x = jnp.moveaxis(x.reshape(x.shape[0] // m, m, *x.shape[1:]), 1, 0)
  return axes.shard(x, f'_{dims}')


def _stage(layers, outer, parts, plan):
  """One stage: layers [V,slots,...]; outer is the rest of Params; parts [M,b,...]."""
  hidden, metrics = _shapes(outer, parts, plan)
  carry = _Carry(
    inputs=_many(hidden, slots.inputs(plan.schedule).size),
    gradients=_many(hidden, slots.gradients(plan.schedule).size),
    layers=jax.tree.map(_float_zeros, layers),
    outer=jax.tree.map(_float_zeros, outer),
    metrics=jax.tree.map(_zeros, metrics),
  )
  stage = axes.device_index('C')

  def tick(carry, scanned):
    rows, common = scanned
    row = jax.tree.map(lambda x: x[stage], rows)
    return _tick(carry, _Work(row, common, layers, outer, parts, plan)), None

  carry, _ = jax.lax.scan(tick, carry, _tables(plan))
  return carry.layers, *axes.device_sum((carry.outer, carry.metrics), 'C')


def _measure(layers, outer, parts, plan):
  """As `_stage`, with forwards only and without gradients."""
  hidden, metrics = _shapes(outer, parts, plan)
  carry = _many(hidden, slots.inputs(plan.schedule).size), jax.tree.map(_zeros, metrics)
  stage = axes.device_index('C')

  def tick(carry, scanned):
    inputs, metrics = carry
    rows, common = scanned
    row = jax.tree.map(lambda x: x[stage], rows)
    work = _Work(row, common, layers, outer, parts, plan)
    x = _read(inputs, row.read_input)
    y, metrics = work.measure_tick(x, metrics)
    return (_store(inputs, row.store_input, y), metrics), None

  (_, metrics), _ = jax.lax.scan(tick, carry, _tables(plan))
  return None, None, axes.device_sum(metrics, 'C')


def _shapes(outer, parts, plan):
  """Abstract hidden states and metrics of a microbatch."""
  first = jax.tree.map(lambda x: x[0], parts)
  hidden = jax.eval_shape(lambda: embedding.embed(outer, first.tokens, plan.config))
  tail = lambda: plan.tail(outer, axes.shard(_zeros(hidden), 'BTD'), first)[1]
  return hidden, jax.eval_shape(tail)


def _tables(plan):
  """(_Row, _Tick) of int and bool arrays with the leading dim ticks."""
  s = plan.schedule
  x, g = slots.inputs(s), slots.gradients(s)
  length = np.searchsorted(plan.layout.lengths, plan.layout.counts)[s.chunk]
  rows = _Row(s.op, s.chunk, s.microbatch, x.read, x.store, g.read, g.store, length)
  forward, backward = s.op == schedules.FORWARD, s.op == schedules.BACKWARD
  busy, head = s.op != schedules.IDLE, s.chunk == s.depth - 1
  common = _Tick(
    forward=forward.any(1),
    backward=backward.any(1),
    first=(backward & (s.chunk == 0)).any(1),
    last=((backward | (s.form == 'forward')) & busy & head).any(1),
    embed=(busy & (s.chunk == 0)).any(1),
    length=np.where(busy, length, 0).max(1),
  )
  return jax.tree.map(jnp.asarray, (rows, common))


def _zeros(x):
  return jnp.zeros(x.shape, x.dtype, out_sharding=x.sharding.spec)


def _float_zeros(x):
  return jnp.zeros_like(x, jnp.float32)


def _many(x, n):
  """Buffer of n arrays like `x`."""
  return jnp.broadcast_to(_zeros(x), (max(n, 1), *x.shape))


def _tick(carry, work):
  """One tick of one stage: its backward or its forward, then the messages."""
  row, common = work.row, work.common
  # A slot that a backward has read may receive the message of a forward of the same
  # tick. Buffers are updated outside of branches, through which XLA would copy them.
  x, g = _read(carry.inputs, row.read_input), _read(carry.gradients, row.read_gradient)
  sums = carry.layers, carry.outer, carry.metrics
  skip = lambda sums, x, g: (sums, g)
  sums, g = jax.lax.cond(common.backward, work.backward_tick, skip, sums, x, g)
  y = jax.lax.cond(common.forward, work.forward_tick, lambda x: x, x)
  return _Carry(
    _store(carry.inputs, row.store_input, y),
    _store(carry.gradients, row.store_gradient, g),
    *sums,
  )


class _Work:
  """The operations of one tick of one stage."""

  def __init__(self, row, common, layers, outer, parts, plan):
    self.row, self.common, self.outer, self.plan = row, common, outer, plan
    pick = lambda x, i: jax.lax.dynamic_index_in_dim(x, i, keepdims=False)
    self.batch = jax.tree.map(lambda x: pick(x, row.microbatch), parts)
    stages, depth = plan.schedule.stages, plan.schedule.depth
    self.v = row.chunk // stages
    self.first, self.last = row.chunk == 0, row.chunk == depth - 1
    whole = plan.schedule.chunks == 1
    chunk = lambda x: x[0] if whole else pick(x, self.v)
    self.layers = lambda n: jax.tree.map(lambda x: chunk(x)[:n], layers)
    # Each chunk length is a branch of the program. Slots after a chunk's layers hold
    # zeros and change nothing, so a longer branch is correct too.
    self.length = common.length if plan.together else row.length

  def branch(self, condition, any_stage, run, skip, *operands):
    """`run` where `condition`, else `skip`: as a branch, or a mask on every stage."""
    if not self.plan.together:
      return jax.lax.cond(condition, run, skip, *operands)

    def masked(*operands):
      pick = lambda a, b: jnp.where(condition, a, b)
      return jax.tree.map(pick, run(*operands), skip(*operands))

    return jax.lax.cond(any_stage, masked, skip, *operands)

  def switch(self, run, *operands):
    """run(n, *operands) with the number of layers of the chunk."""
    branches = [functools.partial(run, n) for n in self.plan.layout.lengths]
    return jax.lax.switch(self.length, branches, *operands)

  def embed(self, x):
    """The chunk's input: embeddings of the tokens in the first chunk, else `x`."""
    tokens = self.batch.tokens
    look = lambda x: embedding.embed(self.outer, tokens, self.plan.config)
    return self.branch(self.first, self.common.embed, look, lambda x: x, x)

  def stack(self, layers, x):
    """Layers of the chunk: [n,...], [b,T,D] -> [b,T,D]."""
    c, batch = self.plan.config, self.batch
    angles = rope.angles(batch.position, c)
    attend = attention.among((batch.position, batch.segment), c)
    place = embedding.stream(x, None)

    def body(x, p):
      return llama.layer(p, x, angles, attend, place, c)

    return jax.lax.scan(remat.remat(body, c), x, layers, unroll=c.unroll)[0]

  def forward_tick(self, x):
    """The forward of a chunk; returns the input of this stage's next chunk."""
    forward = self.row.op == schedules.FORWARD

    def run(x):
      return self.switch(lambda n, x: self.stack(self.layers(n), x), self.embed(x))

    # The last chunk runs in its backward, which needs it anyway.
    y = self.branch(forward & ~self.last, True, run, lambda x: x, x)
    return _send(y, 1, self.plan)

  def backward_tick(self, sums, x, g):
    """The backward of a chunk; returns the sums and the gradient received."""
    backward = self.row.op == schedules.BACKWARD
    skip = lambda sums, x, g: (sums, g)
    sums, g = self.branch(backward, True, self.backward, skip, sums, x, g)
    return sums, _send(g, -1, self.plan)

  def backward(self, sums, x, g):
    """(sums, gradient of x), including this chunk and microbatch."""
    layers, outer, metrics = sums
    sums = layers, outer, metrics
    (layers, outer, metrics), g = self.switch(self.pull, sums, self.embed(x), g)
    outer = self.branch(
      self.first, self.common.first, self.embedding, lambda outer, g: outer, outer, g
    )
    return (layers, outer, metrics), g

  def measure_tick(self, x, metrics):
    """The forward of a chunk; returns the input received and the metric sums."""
    forward = self.row.op == schedules.FORWARD

    def run(x, metrics):
      y = self.switch(lambda n, x: self.stack(self.layers(n), x), self.embed(x))
      add = lambda metrics: jax.tree.map(jnp.add, metrics, self.loss(self.outer, y)[1])
      last = self.branch(self.last, self.common.last, add, lambda m: m, metrics)
      return y, last

    y, metrics = self.branch(forward, True, run, lambda *x: x, x, metrics)
    return _send(y, 1, self.plan), metrics

  def pull(self, n, sums, x, g):
    """The backward of `n` layers, after that of the head in the last chunk."""
    layers, *rest = sums
    y, pull = jax.vjp(self.stack, self.layers(n), x)
    if n >= self.plan.layout.counts[-1]:
      skip = lambda outer, metrics, g: (outer, metrics, g)
      head = functools.partial(self.head, y)
      *rest, g = self.branch(self.last, self.common.last, head, skip, *rest, g)
    d_layers, g = pull(g)
    add = functools.partial(_add_at, self.v, n)
    return (jax.tree.map(add, layers, d_layers), *rest), g

  def head(self, y, outer, metrics, _):
    """The loss of the last chunk: adds its gradients, returns the gradient of y."""
    total, pull, sums = jax.vjp(self.loss, self.outer, y, has_aux=True)
    d_outer, g = pull(jnp.ones_like(total))
    outer = jax.tree.map(_add, outer, d_outer)
    return outer, jax.tree.map(jnp.add, metrics, sums), g

  def loss(self, params, y):
    """(sum, metric sums) of the last layer's output."""
    y = llama.rms_norm(y, params.norm, self.plan.config.norm_eps)
    return self.plan.tail(params, axes.shard(y, 'BTD'), self.batch)

  def embedding(self, outer, g):
    """Adds the gradient of the embedding, of the first chunk."""
    look = lambda params: embedding.embed(params, self.batch.tokens, self.plan.config)
    _, pull = jax.vjp(look, self.outer)
    return jax.tree.map(_add, outer, pull(g)[0])


def _add(total, part):
  return total + part.astype(jnp.float32)


def _add_at(v, n, total, part):
  """Adds [n,...] to the first n slots of row `v` of [V,slots,...]."""
  size = (1, n, *total.shape[2:])
  start = (v,) + (0,) * (total.ndim - 1)
  old = jax.lax.dynamic_slice(total, start, size)
  return jax.lax.dynamic_update_slice(total, _add(old, part[None]), start)


def _read(buffer, slot):
  """The content of a slot; slot 0 where it is -1, which the reader ignores."""
  return jax.lax.dynamic_index_in_dim(buffer, jnp.maximum(slot, 0), keepdims=False)


def _store(buffer, slot, x):
  """The buffer with `x` in the slot; unchanged where the slot is -1."""
  x = jnp.where(slot < 0, _read(buffer, slot), x)
  return jax.lax.dynamic_update_index_in_dim(buffer, x, jnp.maximum(slot, 0), 0)


def _send(x, shift, plan):
  """Message of the neighbour: each stage sends to the next (or previous), in a ring."""
  n = plan.schedule.stages
  return jax.lax.ppermute(x, axes.over('C'), [(i, (i + shift) % n) for i in range(n)])
