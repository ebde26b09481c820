"""Products in eight bits: casts, scales by row, the cap (6.2)."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from llama3_jax import axes
from llama3_jax import mesh
from llama3_jax.base.errors import UserError
from llama3_jax.model import linear
from llama3_jax.model import rowwise

EXPRESSION = 'BTD,DF->BTF'


def arrays(outliers=False, seed=0):
  rng = np.random.default_rng(seed)
  x = rng.normal(size=(2, 8, 64)).astype(np.float32)
  w = (rng.normal(size=(64, 48)) * 0.1).astype(np.float32)
  if outliers:
    x[0, 3] *= 300
    w[:, 5] *= 200
  return x, w


def test_casts_are_those_of_ml_dtypes():
  rng = np.random.default_rng(0)
  x = np.concatenate(
    [
      (rng.normal(size=20_000) * np.exp(rng.uniform(-9, 6, 20_000))).clip(-448, 448),
      np.arange(-448, 448.5, 0.5),
      np.arange(-64, 65) * 2.0**-11,  # subnormal numbers and ties between them
    ]
  ).astype(np.float32)
  found = jax.jit(lambda x: x.astype(jnp.float8_e4m3fn))(x)
  expected = x.astype(ml_dtypes.float8_e4m3fn)
  np.testing.assert_array_equal(
    np.asarray(found).view(np.uint8), expected.view(np.uint8)
  )


@pytest.mark.parametrize('kind', list(rowwise.KINDS))
def test_a_product_is_that_of_the_rounded_numbers(kind):
  x, w = arrays(True)
  made = rowwise.weight(w, EXPRESSION, kind)
  found = rowwise.einsum(EXPRESSION, x, made, jnp.float32)
  dtype, most, both = rowwise.KINDS[kind]
  near = np.round if dtype == jnp.int8 else (lambda v: v)
  dtype = {jnp.int8: np.int8}.get(dtype, ml_dtypes.float8_e4m3fn)
  cut = lambda v: near(np.clip(v, -most, most)).astype(dtype).astype(np.float64)
  scale = np.abs(w).max(0, keepdims=True) / np.float32(most)
  weights, inputs = cut(w / scale) * scale, x.astype(np.float64)
  if both:
    own = np.minimum(np.abs(x).max(-1, keepdims=True), 1200) / np.float32(most)
    inputs = cut(x / own) * own
  np.testing.assert_allclose(found, inputs @ weights, rtol=1e-4, atol=1e-4)
  assert made.q.dtype == dtype and made.scale.shape == (48, 1)


@pytest.mark.parametrize('kind', ['fp8', 'int8'])
def test_rows_lose_less_than_one_scale_for_all(kind):
  x, w = arrays(True)
  exact = x @ w
  by_row = np.asarray(
    rowwise.einsum(EXPRESSION, x, rowwise.weight(w, EXPRESSION, kind, 0.0), jnp.float32)
  )
  q, scale = rowwise.rounded(jnp.asarray(w), (0, 1), kind)
  p, own = rowwise.rounded(jnp.asarray(x), (0, 1, 2), kind)
  value = lambda a, s: np.asarray(a.astype(jnp.float32)) * np.asarray(s)
  by_tensor = value(p, own) @ value(q, scale)
  error = lambda y: np.mean(np.abs(y - exact) / (np.abs(exact) + 1e-2))
  assert error(by_row) <= error(by_tensor)
  assert error(by_row) < 0.1


def test_the_cap_keeps_small_values_of_a_row_with_an_outlier():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(1000, 512)).astype(np.float32) * 0.02
  x[:, 7] = 60_000.0
  lost = []
  for cap in (0.0, rowwise.CAP):
    q, _ = rowwise.rounded(jnp.asarray(x), (1,), 'fp8', cap)
    small = np.delete(np.asarray(q.astype(jnp.float32)), 7, 1)
    lost.append(float((small == 0).mean()))
  assert lost[0] > 5 * lost[1]
  q, scale = rowwise.rounded(jnp.asarray(x), (1,), 'fp8', rowwise.CAP)
  assert float((q.astype(jnp.float32) * scale)[0, 7]) == pytest.approx(rowwise.CAP)


@pytest.mark.parametrize('cap', [0.0, rowwise.CAP])
def test_a_product_is_that_of_torch_with_scales_by_row(cap):
  """The oracle is torch's own cast and torch._scaled_mm, as the released code uses."""
  torch = pytest.importorskip('torch', reason='extra oracles is not installed')
  x, w = arrays(True)
  x[1, 2, 7] = 20_000.0

  def small(a, dim, cap):
    most = a.abs().amax(dim, keepdim=True)
    scale = (most.clamp(max=cap) if cap else most) / 448
    return (a / scale).clamp(-448, 448).to(torch.float8_e4m3fn), scale

  q, own = small(torch.tensor(x.reshape(-1, 64)), 1, cap)
  p, scale = small(torch.tensor(w), 0, 0.0)
  p = p.t().contiguous().t()  # which must have its columns one after the other
  how = dict(scale_a=own, scale_b=scale, out_dtype=torch.float32)
  expected = torch._scaled_mm(q, p, **how).numpy()
  made = rowwise.weight(w, EXPRESSION, 'fp8', cap)
  found = rowwise.einsum(EXPRESSION, x, made, jnp.float32).reshape(-1, 48)
  worst = np.abs(expected).max(1, keepdims=True)
  np.testing.assert_array_less(np.abs(found - expected) / worst, 1e-5)


def test_zeros_stay_zeros():
  x, w = arrays()
  made = rowwise.weight(np.zeros_like(w), EXPRESSION, 'fp8')
  assert not np.asarray(rowwise.einsum(EXPRESSION, x * 0, made, jnp.float32)).any()


@pytest.mark.parametrize(
  'expression, shape',
  [
    ('BTD,DF->BTF', (64, 48)),
    ('BTF,FD->BTD', (64, 32)),
    ('BTNH,NHD->BTD', (4, 16, 32)),
  ],
)
@pytest.mark.parametrize('sizes', [(1, 2, 1, 1, 2), (2, 1, 1, 2, 2)])
def test_same_product_on_a_mesh(expression, shape, sizes):
  rng = np.random.default_rng(0)
  left = expression.split(',')[0]
  x = rng.normal(size=(4, 8, *shape[:-1])).astype(np.float32)
  w = rng.normal(size=shape).astype(np.float32)
  x[0, 0] *= 1e4

  def product(x, w):
    return linear.einsum(expression, x, rowwise.weight(w, expression, 'fp8'))

  expected = product(x, w)
  devices = jax.devices()[: int(np.prod(sizes))]
  with jax.set_mesh(mesh.create(dict(zip(axes.AXES, sizes)), devices)):
    right = expression.split('->')[0].split(',')[1]
    found = jax.jit(product)(
      axes.shard(jnp.asarray(x), left), axes.shard(jnp.asarray(w), right)
    )
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-3)


def test_another_cap_is_that_of_all_weights_of_few_bits():
  x, w = arrays()
  x[0, 0, 0] = 20_000.0
  made = {'w': rowwise.weight(w, EXPRESSION, 'fp8'), 'norm': jnp.ones(3)}
  free = rowwise.capped(made, 0.0)
  cut, whole = (
    np.asarray(rowwise.einsum(EXPRESSION, x, each['w'], jnp.float32))
    for each in (made, free)
  )
  exact = x @ w
  assert np.abs(whole - exact)[0, 0].max() < 0.1 * np.abs(exact[0, 0]).max()
  # What is above the cap is cut, which is wrong for the value itself.
  assert np.abs(cut - exact)[0, 0].max() > 0.5 * np.abs(exact[0, 0]).max()
  np.testing.assert_array_equal(cut[1], whole[1])
  assert free['norm'] is made['norm']


def test_an_unknown_kind_is_refused():
  rowwise.check('')
  with pytest.raises(UserError, match='fp8_weights'):
    rowwise.check('fp4')
