"""Grouped-query attention under a causal document mask (sections 3.2, 3.3.2).

`attend` is the entry and chooses the path by chip and shape; `dense` is the reference.
Under context parallelism a device has its share of the queries and all keys: resharding
K and V from 'BTKH' to 'BSKH' is the paper's all-gather.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from llama3_jax import axes
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.kernels import blockwise
from llama3_jax.kernels import flash
from llama3_jax.kernels import splash
from llama3_jax.kernels.rule import Rule
from llama3_jax.kernels.rule import Side

KERNELS = ('splash', 'flash')
LONG = 64  # tokens; from this length on blocks cost less CPU time than the dense form


# How new tokens attend: q [B,T,N,H], k, v [B,T,K,H] -> output [B,T,N,H], what is kept.
Attend = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, object]]


def among(side: Side, config: ModelConfig, branches: bool = False) -> Attend:
  """Tokens attend to one another: `side` is their (position, segment), int32 [B,T];
  `branches` as of kernels/rule.py."""
  return lambda q, k, v: (attend(q, k, v, side, side, config, branches), None)


def attend(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  query: Side,
  key: Side,
  config: ModelConfig,
  branches: bool = False,
) -> jax.Array:
  """Attention output [B,T,N,H].

  Args: q [B,T,N,H]; k, v [B,S,K,H]; query, key: (position, segment) int32 pairs,
  [B,T] and [B,S]; branches: whether documents may split. kernels/rule.py defines the
  keys that a query sees; the output of one that sees none is zero. Softmax in float32.
  """
  path = method(q.shape[1], k.shape[1], query is key, config, branches)
  rule = Rule(config.window, branches)
  if path == 'splash':
    return splash.attend(q, k, v, query, key, rule, config.block)
  function = {
    'dense': functools.partial(dense, rule=rule),
    'flash': flash.attend,
    'blockwise': functools.partial(blockwise.attend, rule=rule, block=config.block),
  }[path]
  sides = (('BT', 'BT'), ('BS', 'BS'))
  return axes.local(function, ('BTNH', 'BSKH', 'BSKH', *sides), 'BTNH')(
    q, k, v, query, key
  )


def method(
  t: int, s: int, own: bool, config: ModelConfig, branches: bool = False
) -> str:
  """The path for `t` queries and `s` keys a row on the mesh's chips; `own`: whether the
  keys are those of the queries' tokens.

  The kernels derive causality from the order of columns, so they serve rows that attend
  to themselves; a cache, whose slots are in any order, and documents with branches need
  one of the other two. Raises UserError for a kernel that cannot run on the mesh.
  """
  parts, own = axes.parts('T'), own and not branches
  if config.attention == 'flash' and own and parts > 1:
    raise UserError('model.attention=flash needs mesh.context=1: use blockwise')
  if config.attention == 'flash' and config.window:
    raise UserError('model.attention=flash has no model.window: use blockwise')
  if config.attention != 'auto' and (own or config.attention not in KERNELS):
    return 'dense' if t == 1 else config.attention
  platform = axes.platform()
  if platform == 'tpu' and own and splash.fits(t // parts, s):
    return 'splash'
  alone = platform == 'gpu' and own and parts == 1 and not config.window
  if alone and flash.fits(t, s):
    return 'flash'
  return 'blockwise' if t > 1 and min(t, s) >= LONG else 'dense'


def dense(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  query: Side,
  key: Side,
  rule: Rule = Rule(),
) -> jax.Array:
  """The reference, with arguments and output as in `attend`: all scores are computed at
  once, float32 [B,K,G,T,S]."""
  b, t, n, h = q.shape
  q = q.reshape(b, t, k.shape[2], -1, h)
  scores = jnp.einsum('BTKGH,BSKH->BKGTS', q, k, preferred_element_type=jnp.float32)
  mask = rule.visible(query, key)[:, None, None]
  scores = jnp.where(mask, scores * h**-0.5, -jnp.inf)
  top = jnp.max(scores, -1, keepdims=True)
  p = jnp.exp(scores - jnp.where(jnp.isfinite(top), top, 0))
  p = p / jnp.maximum(jnp.sum(p, -1, keepdims=True), 1e-30)
  out = jnp.einsum('BKGTS,BSKH->BTKGH', p.astype(v.dtype), v).reshape(b, t, n, h)
  return checkpoint_name(out, 'attention')
