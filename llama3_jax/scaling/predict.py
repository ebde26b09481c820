"""Benchmark accuracy of a model that is not trained yet, in two steps (section 3.2.2).

FLOPs -> normalised NLL of the right answer (a straight line in log FLOPs, or a law with
an offset), then NLL -> accuracy (a sigmoid). Both fits solve their linear values on a
grid of the others, so that every bootstrap sample is one matrix product.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
from scipy import optimize
from scipy import stats

from llama3_jax.base.errors import UserError

STEPS = ('linear', 'power', 'chinchilla')  # laws of the first step
EXPONENTS = np.geomspace(0.02, 1.2, 60)
BLOCK = 100  # pairs of exponents that are solved at once


@dataclasses.dataclass(frozen=True)
class Curve:
  """A law of the first step.

  linear: a + b log C. power: E + B C^-beta. chinchilla: E + A N^-alpha + B D^-beta.
  FLOPs, parameters and tokens are divided by `unit` (C, N, D), so that the values have
  the magnitude of the NLL.
  """

  kind: str
  exponents: tuple  # () | (beta,) | (alpha, beta)
  values: tuple  # linear ones, in the order of the formula
  unit: tuple  # (C, N, D)

  def __call__(
    self, params: float | np.ndarray, tokens: float | np.ndarray
  ) -> float | np.ndarray:
    """NLL at `params`, `tokens` (float or [n]); C = 6ND."""
    columns = _columns(self.kind, params, tokens, self.exponents, self.unit)
    return columns @ np.array(self.values)


@dataclasses.dataclass(frozen=True)
class Sigmoid:
  """accuracy = floor + (ceiling - floor) / (1 + exp(slope (nll - middle)))."""

  floor: float
  ceiling: float
  slope: float
  middle: float

  def __call__(self, nll: float | np.ndarray) -> float | np.ndarray:
    """Accuracy at `nll` (float or [n]), of its shape."""
    return self.floor + (self.ceiling - self.floor) * _fall(
      np.asarray(nll), self.slope, self.middle
    )


def _fall(nll, slope, middle):
  return 1 / (1 + np.exp(np.clip(slope * (nll - middle), -60, 60)))


def _columns(kind, params, tokens, exponents, unit):
  """Design [..., k] of a law at its `exponents`."""
  n, d = np.asarray(params, float) / unit[1], np.asarray(tokens, float) / unit[2]
  c = 6 * np.asarray(params, float) * np.asarray(tokens, float) / unit[0]
  one = np.ones_like(c)
  if kind == 'linear':
    return np.stack([one, np.log(c)], -1)
  if kind == 'power':
    return np.stack([one, c ** -exponents[0]], -1)
  return np.stack([one, n ** -exponents[0], d ** -exponents[1]], -1)


def _exponents(kind):
  if kind == 'linear':
    return [()]
  if kind == 'power':
    return [(b,) for b in EXPONENTS]
  return list(itertools.product(EXPONENTS[::2], repeat=2))


def _curves(params, tokens, nll, kind):
  """The best Curve of every column of `nll` [n, S]."""
  if kind not in STEPS:
    raise UserError(f'scaling.step={kind!r} must be one of {", ".join(STEPS)}')
  params, tokens = np.asarray(params, float), np.asarray(tokens, float)
  least = {'linear': 3, 'power': 4, 'chinchilla': 6}[kind]
  if len(params) < least:
    raise UserError(f'scaling.step={kind} needs {least} models, not {len(params)}')
  unit = (
    float(np.exp(np.log(6 * params * tokens).mean())),
    float(np.exp(np.log(params).mean())),
    float(np.exp(np.log(tokens).mean())),
  )
  grid = _exponents(kind)
  best = np.full(nll.shape[1], np.inf)
  chosen = np.zeros(nll.shape[1], int)
  values = np.zeros((nll.shape[1], 3 if kind == 'chinchilla' else 2))
  every = np.arange(nll.shape[1])
  for start in range(0, len(grid), BLOCK):
    part = grid[start : start + BLOCK]
    designs = np.stack([_columns(kind, params, tokens, e, unit) for e in part])
    coefficients, miss = _solve(designs, nll, kind != 'linear')
    g = miss.argmin(0)
    better = every[miss[g, every] < best]
    best[better], chosen[better] = miss[g, every][better], start + g[better]
    values[better] = coefficients[g[better], :, better]
  return [
    Curve(kind, tuple(map(float, grid[g])), tuple(map(float, v)), unit)
    if np.isfinite(b)
    else None
    for b, g, v in zip(best, chosen, values)
  ]


def _solve(designs, nll, positive):
  """Least squares of designs [G, n, k]: coefficients [G, k, S], squared error [G, S].

  positive: losses fall with compute, to a limit that is not negative. Where the offset
  would be negative it is 0; a rising loss has an infinite error.
  """
  coefficients = np.linalg.pinv(designs) @ nll
  if positive and (coefficients[:, 0] < 0).any():
    rest = np.linalg.pinv(designs[..., 1:]) @ nll
    rest = np.concatenate([np.zeros_like(rest[:, :1]), rest], 1)
    coefficients = np.where(coefficients[:, :1] < 0, rest, coefficients)
  miss = np.sum((designs @ coefficients - nll) ** 2, 1)
  if positive:
    miss = np.where((coefficients >= 0).all(1), miss, np.inf)
  return coefficients, miss


def fit_loss(
  params: Sequence[float] | np.ndarray,
  tokens: Sequence[float] | np.ndarray,
  nll: Sequence[float] | np.ndarray,
  kind: str = 'linear',
) -> Curve:
  """Curve of `nll` [n] over models of `params` and `tokens` [n].

  Raises UserError when there are too few models, or no law with an offset fits.
  """
  nll = np.asarray(nll, float)
  curve = _curves(params, tokens, nll[:, None], kind)[0]
  if curve is None:
    raise UserError(
      f'scaling.step={kind}: the NLL does not fall with FLOPs; use scaling.step=linear'
    )
  return curve


def fit_accuracy(
  nll: Sequence[float] | np.ndarray,
  accuracy: Sequence[float] | np.ndarray,
  chance: float = 0.0,
  ceiling: float | None = None,
) -> Sigmoid:
  """Sigmoid of `accuracy` [n] over `nll` [n].

  chance: accuracy of guessing, 1 / choices; the floor is within 0.05 of it, as small
  models may be worse: a length-normalised choice is not uniform.
  ceiling: fixed; None: free up to 1.
  """
  nll, accuracy = np.asarray(nll, float), np.asarray(accuracy, float)
  if len(np.unique(nll)) < 4:
    raise UserError(f'a sigmoid needs 4 models, not {len(nll)}')
  start = _sigmoids(nll, accuracy[:, None], chance, ceiling)[0]
  top = (start.floor + 1e-3, 1.0) if ceiling is None else (ceiling - 1e-9, ceiling)
  low = [max(chance - 0.05, 0), top[0], 1e-3, nll.min() - 3 * np.ptp(nll)]
  high = [min(chance + 0.05, 0.99), top[1], 1e3, nll.max() + np.ptp(nll)]
  low[1] = min(low[1], high[1] - 1e-9)
  x = np.clip(dataclasses.astuple(start), low, high)
  fit = optimize.least_squares(
    lambda v: Sigmoid(*v)(nll) - accuracy,
    x,
    lambda v: _slopes(nll, *v),
    bounds=(low, high),
    x_scale='jac',
  )
  return Sigmoid(*map(float, fit.x))


def _slopes(nll, floor, ceiling, slope, middle):
  """Derivatives [n, 4] of a Sigmoid by its values."""
  s = _fall(nll, slope, middle)
  steep = (ceiling - floor) * s * (1 - s)
  return np.stack([1 - s, s, -steep * (nll - middle), steep * slope], 1)


def _sigmoids(nll, accuracy, chance, ceiling, near=None):
  """A Sigmoid for every column of `accuracy` [n, S], the best of a grid.

  near: a Sigmoid around which the grid is fine.
  """
  spread = max(float(np.ptp(nll)), 1e-9)
  if near is None:
    slopes = np.geomspace(0.5, 60, 40) / spread
    middles = np.linspace(nll.min() - 2 * spread, nll.max() + 0.5 * spread, 40)
  else:
    slopes = near.slope * np.geomspace(0.25, 4, 41)
    middles = near.middle + spread * np.linspace(-0.6, 0.6, 61)
  pairs = np.array(list(itertools.product(slopes, middles)))
  s = _fall(nll[None], pairs[:, :1], pairs[:, 1:])  # [G, n]
  low, high = max(chance - 0.05, 0), min(chance + 0.05, 0.99)
  mean, middle = accuracy.mean(0), s.mean(1)[:, None]
  product = s @ accuracy / len(nll)  # [G, S]
  square = (s * s).mean(1)[:, None]
  if ceiling is None:
    variance = np.maximum(square - middle**2, 1e-12)
    span = (product - middle * mean) / variance
    floor = np.clip(mean - span * middle, low, high)
    span = (product - floor * middle) / np.maximum(square, 1e-12)
    span = np.clip(span, 0, 1 - floor)
  else:
    # accuracy = floor (1 - s) + ceiling s
    rest = 1 - 2 * middle + square
    floor = (mean - product - ceiling * (middle - square)) / np.maximum(rest, 1e-12)
    floor = np.clip(floor, low, high)
    span = ceiling - floor
  miss = floor**2 + 2 * floor * span * middle + span**2 * square
  miss = miss - 2 * floor * mean - 2 * span * product
  at = np.argmin(miss, 0)
  columns = np.arange(accuracy.shape[1])
  floor, span = floor[at, columns], span[at, columns]
  return [
    Sigmoid(float(f), float(f + w), float(k), float(m))
    for f, w, (k, m) in zip(floor, span, pairs[at])
  ]


@dataclasses.dataclass(frozen=True)
class Forecast:
  """Both fits of one benchmark and their bootstrap samples."""

  curve: Curve
  sigmoid: Sigmoid
  curves: tuple
  sigmoids: tuple
  noise: tuple  # residuals of step 1 and of step 2
  scales: tuple  # of the noise in every sample: float [S] of step 1 and of step 2
  seed: int


def forecast(
  models: Mapping[str, np.ndarray],
  points: Mapping[str, np.ndarray] | None = None,
  chance: float = 0.0,
  kind: str = 'linear',
  ceiling: float | None = None,
  samples: int = 300,
  seed: int = 0,
  spread: tuple[float, int] | None = None,
) -> Forecast:
  """Forecast from measured models.

  Few runs leave the size of their noise unknown: a sample of the bootstrap draws that
  too (a chi-squared of the degrees of freedom), so its values have the tails of
  Student's t.

  Args:
    models: dict of arrays [n]: params, tokens, nll, to which the first step is
      fitted.
    points: dict of arrays [m]: nll, accuracy and (where a run gives several) run, of
      the second step (None: of `models`); the paper adds another family here.
    chance, ceiling: see fit_accuracy; kind: see Curve.
    samples: number of bootstrap samples, with resampled residuals, scaled up for the
      number of fitted values. Where models do not tell the ceiling of a sigmoid, half
      of its samples have it at 1.
    spread: (standard deviation, degrees of freedom) of the NLL of a run, where more
      than these models tell it.
  """
  points = models if points is None else points
  rng = np.random.default_rng(seed)
  params, tokens = (np.asarray(models[k], float) for k in ('params', 'tokens'))
  nll = np.asarray(models['nll'], float)
  curve = fit_loss(params, tokens, nll, kind)
  flat = curve(params, tokens)
  fitted = len(curve.values) + len(curve.exponents)
  first = _residuals(nll - flat, fitted)
  free = max(len(nll) - fitted, 1)
  if spread:
    first, free = np.full(1, spread[0]), spread[1]
  wide = _scales(free, samples, rng)
  drawn = rms(first) * wide * rng.standard_normal((len(flat), samples))
  drawn += flat[:, None]
  curves = [
    # Of laws that do not rise, the mean is nearest to a rising sample.
    c or dataclasses.replace(curve, values=(float(v), *[0.0] * (len(curve.values) - 1)))
    for c, v in zip(_curves(params, tokens, drawn, kind), drawn.mean(0))
  ]

  sigmoid, sigmoids, second, far = _second(points, chance, ceiling, samples, rng)
  noise, scales = (tuple(first), tuple(second)), (tuple(wide), tuple(far))
  return Forecast(curve, sigmoid, tuple(curves), tuple(sigmoids), noise, scales, seed)


def _second(points, chance, ceiling, samples, rng):
  """(Sigmoid, those of the samples, residuals, scales) of the second step."""
  x, y = (np.asarray(points[k], float) for k in ('nll', 'accuracy'))
  sigmoid = fit_accuracy(x, y, chance, ceiling)
  flat = sigmoid(x)
  second = _residuals(y - flat, 3)  # the floor hardly moves
  # Errors of the points of one run are correlated: residuals change sign together.
  runs = np.unique(points.get('run', np.arange(len(x))), return_inverse=True)[1]
  far = _scales(max(runs.max() - 2, 1), samples, rng)
  signs = rng.choice((-1.0, 1.0), (runs.max() + 1, samples))
  resampled = flat[:, None] + second[:, None] * signs[runs]
  half = samples // 2 if _ceiling_is_unknown(x, y, chance) else samples
  sigmoids = _sigmoids(x, resampled[:, :half], chance, None, sigmoid)
  sigmoids += _sigmoids(x, resampled[:, half:], chance, 1.0, sigmoid)
  return sigmoid, sigmoids, second, far


def _ceiling_is_unknown(nll, accuracy, chance):
  """Whether a ceiling of 1 fits as well as a free one, by an F-test at 5%."""
  free, one = (
    np.sum((fit_accuracy(nll, accuracy, chance, c)(nll) - accuracy) ** 2)
    for c in (None, 1.0)
  )
  left = max(len(nll) - 4, 1)
  return one <= free * (1 + stats.f.ppf(0.95, 1, left) / left)


def _residuals(values, fitted):
  n = len(values)
  return (values - values.mean()) * np.sqrt(n / max(n - fitted, 1))


def _scales(free, samples, rng):
  """What the noise of a sample is to its estimate from `free` degrees of freedom."""
  return np.sqrt(free / rng.chisquare(free, samples))


def rms(values: Sequence[float] | np.ndarray) -> float:
  """Root of the mean square."""
  return float(np.sqrt(np.mean(np.square(values))))


def draws(
  found: Forecast, params: float, tokens: float, noise: bool = True
) -> tuple[np.ndarray, np.ndarray]:
  """Bootstrap samples (NLL [S], accuracy [S]) at a model: of both fits and, with
  `noise`, of the deviation of a single run."""
  rng = np.random.default_rng(found.seed + 1)
  wide, far = (np.array(s) for s in found.scales)
  losses = _at(found.curves, params, tokens)
  middle = found.sigmoid(losses)
  floor, ceiling, slope, at = np.array(
    [(s.floor, s.ceiling, s.slope, s.middle) for s in found.sigmoids]
  ).T
  drawn = floor + (ceiling - floor) * _fall(losses, slope, at)
  scores = middle + far * (drawn - middle)
  if noise:
    losses = losses + rms(found.noise[0]) * wide * rng.standard_normal(len(wide))
    scores = scores + rms(found.noise[1]) * far * rng.standard_normal(len(far))
  return losses, np.clip(scores, 0, 1)


def _at(curves, params, tokens):
  """NLL [S] of curves of one kind and unit at a model."""
  kind, unit = curves[0].kind, curves[0].unit
  exponents = np.array([c.exponents for c in curves]).T
  columns = _columns(kind, np.full(len(curves), params), tokens, exponents, unit)
  return np.sum(columns * np.array([c.values for c in curves]), -1)


def predict(
  found: Forecast, params: float, tokens: float
) -> dict[str, tuple[float, float, float]]:
  """{'nll', 'accuracy'} at a model, each (value, low, high): the 95% interval of what a
  run measures, by the uncertainty of both fits and a run's own noise."""
  nll = float(found.curve(params, tokens))
  losses, scores = draws(found, params, tokens)
  return {
    'nll': (nll, *interval(losses)),
    'accuracy': (float(found.sigmoid(nll)), *interval(scores)),
  }


def interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
  """(low, high) of the central 95% of `values`."""
  return tuple(float(q) for q in np.quantile(values, (0.025, 0.975)))
