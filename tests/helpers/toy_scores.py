"""A toy model that was taught to answer: first what can be checked, then free text.

A prompt such as 'fac?' is answered by 'c' and capitals, of which each depends on the
two before it. The same model has learnt to score: the share of capitals that may follow
the two before them.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import post_examples as toy

from llama3_jax.model import llama
from llama3_jax.post.reward import Reward

CONFIG = dataclasses.replace(toy.CONFIG, n_layers=4, d_model=64, d_head=16, d_ff=128)
LETTERS = 8
FREE = 8  # capitals of an answer
STEPS, BATCH = 250, 64
CHANNELS = 3  # of the model, that are 0 but at capitals
AFTER = np.random.default_rng(0).permuted(
  np.tile(np.arange(LETTERS), (LETTERS, LETTERS, 1)), axis=-1
)[..., :2]  # the two that may follow two others


def prompts(tokenizer, count=100):
  """Ids of `count` prompts."""
  asked = np.random.default_rng(1).integers(0, LETTERS, (count, 3))
  return [tokenizer.encode(f'{_text(a, "a")}?', bos=True) for a in asked]


def right(tokenizer, prompt, answer):
  """Whether an answer begins with the letter before the question mark."""
  return tokenizer.decode(answer)[:1] == tokenizer.decode(prompt)[-2]


def _text(numbers, first):
  return ''.join(chr(ord(first) + n) for n in numbers)


def _ids(tokenizer, first):
  """Ids of the letters from `first` on, int32 [LETTERS]."""
  letters = _text(range(LETTERS), first)
  return np.array([tokenizer.encode(c)[0] for c in letters], np.int32)


def _rows(tokenizer):
  """(ids int32 [STEPS,BATCH,T], score float32 [STEPS,BATCH]): of the second half of a
  batch some capitals are wrong."""
  rng, n = np.random.default_rng(0), STEPS * BATCH
  wrong = rng.random(n) * (np.arange(n) % BATCH >= BATCH // 2)
  asked, said = (rng.integers(0, LETTERS, (n, k)) for k in (3, FREE))
  score = np.zeros(n, np.float32)
  for i in range(2, FREE):
    may = AFTER[said[:, i - 2], said[:, i - 1]]
    legal = may[np.arange(n), (rng.random(n) < 0.2).astype(int)]
    said[:, i] = np.where(rng.random(n) < wrong, said[:, i], legal)
    score += (said[:, i, None] == may).any(1) / (FREE - 2)
  begin, mark = tokenizer.encode('?', bos=True)
  small, large = (_ids(tokenizer, first) for first in 'aA')
  one = lambda number: np.full((n, 1), number)
  parts = one(begin), small[asked], one(mark), small[asked[:, -1:]], large[said]
  rows = np.concatenate([*parts, one(tokenizer.eot)], 1).astype(np.int32)
  return rows.reshape(STEPS, BATCH, -1), score.reshape(STEPS, BATCH)


def _flagged(params, tokenizer):
  """The first channels are 3 at capitals, in turn, and else 0, in all layers."""
  n, p, ids = CHANNELS, params.layers, _ids(tokenizer, 'A')
  flags = np.zeros((CONFIG.vocab_size, n), np.float32)
  flags[ids, np.arange(LETTERS) % n] = 3
  wo, w_down = (x.at[..., :n].set(0) for x in (p.wo, p.w_down))
  layers = dataclasses.replace(p, wo=wo, w_down=w_down)
  return params.replace(embed=params.embed.at[:, :n].set(flags), layers=layers)


def trained(tokenizer):
  """A Reward after STEPS steps; its model is also the one that answers."""
  optimizer = optax.adam(optax.cosine_decay_schedule(5e-3, STEPS))

  def loss(made, rows, shares):
    params, head = _flagged(made.model, tokenizer), made.head
    position = jnp.broadcast_to(jnp.arange(rows.shape[1]), rows.shape)
    x, _ = llama.forward(params, rows, position, jnp.ones_like(rows), CONFIG)
    whole = slice(None, BATCH // 2)
    logits = llama.logits(params, x[whole, :-1], CONFIG)
    given = rows[whole, 1:]
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, given).mean()
    return nll + jnp.mean((x[:, -1] @ head - 4 * shares) ** 2)

  def step(state, batch):
    made, moments = state
    gradient = jax.grad(loss)(made, *batch)
    update, moments = optimizer.update(gradient, moments)
    return (optax.apply_updates(made, update), moments), None

  # 250 steps take longer than compiling them well.
  @functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 2})
  def train(batches):
    params = llama.init(jax.random.key(0), CONFIG)
    made = Reward(params, jnp.zeros(CONFIG.d_model))
    (made, _), _ = jax.lax.scan(step, (made, optimizer.init(made)), batches)
    return made.replace(model=_flagged(made.model, tokenizer))

  return train(_rows(tokenizer))


def loud(params, by):
  """The same function with huge inputs of the feed-forward products at capitals: a
  factor of their channels moves from rows of w_gate and w_up into the norm before."""
  factor = np.ones(CONFIG.d_model, np.float32)
  factor[:CHANNELS] = by
  p, rows = params.layers, factor[None, :, None]
  norm = p.ff_norm * factor
  small = dict(w_gate=p.w_gate / rows, w_up=p.w_up / rows)
  return params.replace(layers=dataclasses.replace(p, ff_norm=norm, **small))
