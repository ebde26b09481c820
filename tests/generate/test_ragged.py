"""The engine with the arguments of the kernel for TPU, against the plain way.

The kernel's own reference stands for it here, which needs values: nothing is compiled.
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


@pytest.fixture
def calls(monkeypatch):
  """Shapes of q of the kernel's calls, on a machine that says it has a TPU."""
  found = []

  def reference(q, pages, lengths, table, starts, count, **options):
    given = q, pages, lengths, table, starts, count
    library.dynamic_validate_inputs(*given, **options)
    assert count[0] > 0 and min(lengths[: count[0]]) > 0 and starts[count[0]] > 0
    assert jnp.isfinite(q).all()  # of padding too
    found.append(q.shape)
    for name in LIMITS:
      del options[name]
    out = library.ref_ragged_paged_attention(*given, **options)
    # What is in no sequence is not computed.
    rest = jnp.full((len(q) - len(out), *q.shape[1:]), jnp.nan, q.dtype)
    return jnp.concatenate([out, rest])

  monkeypatch.setattr(kernels, 'ragged_paged_attention', reference)
  monkeypatch.setattr(engine.axes, 'platform', lambda: 'tpu')
  return found


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
  with jax.disable_jit():
    made.warm()  # of a chunk without tokens
    found = [made.submit(Request(p, settings, (), n)) for p, n in asked]
    while not made.idle:
      made.step()
  assert {shape[0] for shape in calls} == {4, 32}
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
