"""The engine with the arguments of the kernel for TPU, against the plain way.

A form in numpy stands for it here; the kernel's own reference gives the same.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_generate as toy
from jax.experimental.pallas.ops.tpu import ragged_paged_attention as kernels
from jax.experimental.pallas.ops.tpu.ragged_paged_attention import kernel as library

from llama3_jax.generate import engine
from llama3_jax.generate import paged
from llama3_jax.generate import plain
from llama3_jax.generate.engine import Engine
from llama3_jax.generate.engine import Request
from llama3_jax.generate.engine import Sizes
from llama3_jax.kernels import ragged
from llama3_jax.model import llama

CONFIG = dataclasses.replace(toy.CONFIG, d_head=128)
SMALL = Sizes(rows=(4,), chunks=(32,), length=64, page=8, steps=2)
LIMITS = 'num_kv_pages_per_block', 'num_queries_per_block'


def attention(q, pages, lengths, table, starts, count, sm_scale, sliding_window):
  """What the kernel gives, in float32 on the host; what is in no sequence is NaN."""
  out = np.full_like(q, np.nan)
  for i in range(count[0]):
    own = slice(starts[i], starts[i + 1])
    kv = pages[table[i]].reshape(-1, *pages.shape[2:])[: lengths[i]]
    k, v = (
      np.repeat(x, q.shape[1] // x.shape[1], 1) for x in (kv[:, ::2], kv[:, 1::2])
    )
    weights = np.einsum('qhd,khd->hqk', q[own], k) * sm_scale
    last = lengths[i] - 1 - np.arange(len(q[own]))[::-1, None]
    keys = np.arange(lengths[i])
    seen = (keys <= last) & (keys > last - (sliding_window or lengths[i]))
    weights = np.where(seen, weights, -np.inf)
    weights = np.exp(weights - weights.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    out[own] = np.einsum('hqk,khd->qhd', weights, v)
  return out


@pytest.fixture
def calls(monkeypatch):
  """(arguments, output) of the kernel's calls, on a machine that says it has a TPU."""
  found = []

  def reference(*given, **options):
    def compute(*values):
      values = [np.array(x) for x in values]
      plain = {k: v for k, v in options.items() if k not in LIMITS}
      found.append((values, options, attention(*values, **plain)))
      return found[-1][-1]

    return jax.pure_callback(compute, jax.typeof(given[0]), *given)

  monkeypatch.setattr(kernels, 'ragged_paged_attention', reference)
  monkeypatch.setattr(engine.axes, 'platform', lambda: 'tpu')
  return found


def check(calls):
  """The kernel takes the arguments of each call; of one of a chunk and one of rows its
  own reference gives the same."""
  tried = {}
  for given, options, out in calls:
    q, _, lengths, _, starts, count = given
    assert count[0] > 0 and min(lengths[: count[0]]) > 0 and starts[count[0]] > 0
    assert np.isfinite(q).all()  # of padding too
    library.dynamic_validate_inputs(*given, **options)
    if count[0] > 1:
      tried[len(q)] = given, options, out
  assert set(tried) == {4, 32}
  for given, options, out in tried.values():
    plain = {k: v for k, v in options.items() if k not in LIMITS}
    expected = library.ref_ragged_paged_attention(*map(jnp.asarray, given), **plain)
    np.testing.assert_allclose(out[: len(expected)], expected, atol=1e-5)
    assert np.isnan(out[len(expected) :]).all()


def prompts(lengths, seed=0):
  rng = np.random.default_rng(seed)
  return [rng.integers(1, 64, n).tolist() for n in lengths]


@pytest.mark.parametrize('window', [0, 11])
def test_answers_are_those_of_the_plain_way(calls, monkeypatch, window):
  """Prompts over several chunks and beside each other, samples that share pages."""
  config = dataclasses.replace(CONFIG, window=window)
  params = jax.jit(llama.init, static_argnums=1)(jax.random.key(0), config)
  settings = dataclasses.replace(toy.GREEDY, max_new=3)
  asked = list(zip(prompts((3, 40, 7, 1)), (1, 1, 4, 2)))
  wanted = [
    plain.generate(params, [p], config, (), settings, 0, n)[0] for p, n in asked
  ]
  made = Engine(params, config, SMALL)
  made.warm()  # of a chunk without tokens
  found = [made.submit(Request(p, settings, (), n)) for p, n in asked]
  while not made.idle:
    made.step()
  assert {len(given[0]) for given, _, _ in calls} == {4, 32}
  check(calls)
  for answers, expected in zip(found, wanted):
    for answer, (ids, logps) in zip(answers, expected, strict=True):
      assert answer.ids == ids
      np.testing.assert_allclose(answer.logps, logps, atol=1e-5)


def test_sizes_that_the_kernel_does_not_take():
  fits = ragged.fits
  assert fits(2, 128, 512, 'bfloat16') and fits(1, 256, 512, 'float32')
  assert not fits(2, 64, 512, 'bfloat16')  # heads of 64
  assert not fits(3, 128, 512, 'bfloat16')  # heads that fill no tile
  assert not fits(2, 128, 2**18, 'bfloat16')  # a table that is too large
  q = jnp.ones((1, 4, 2, 64))
  assert not paged._kernel(q, None, paged.Tables(np.ones((1, 4, 2)), None))
