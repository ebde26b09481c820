"""IsoFLOP parabolas and the power law of compute-optimal tokens (section 3.2.1).

At a budget of C FLOPs the loss of runs is a second-degree polynomial of log tokens; its
vertex is the compute-optimal number of tokens. The vertices of all budgets give
N*(C) = A C^alpha (the paper's N* is tokens), and C / (6 N*) the parameters.
"""

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from llama3_jax.base.errors import UserError


@dataclasses.dataclass(frozen=True)
class Parabola:
  """loss = lowest + curvature / 2 x (log tokens - log optimum)^2.

  problem: '' or why the vertex is no optimum ('outside': beyond the measured tokens;
  'opens downward'). used: indices of the fitted runs.
  """

  tokens: float  # at the vertex
  loss: float  # at the vertex
  curvature: float
  spread: float  # standard deviation of the residuals
  problem: str
  used: tuple

  def __call__(self, tokens: float | np.ndarray) -> float | np.ndarray:
    """Loss at `tokens`, nats, of their shape."""
    return (
      self.loss + self.curvature / 2 * np.log(np.asarray(tokens) / self.tokens) ** 2
    )


def parabola(
  tokens: Sequence[float] | np.ndarray,
  loss: Sequence[float] | np.ndarray,
  window: int = 0,
) -> Parabola:
  """Least-squares Parabola of `loss` [n] (nats) in the logarithm of `tokens` [n].

  window: number of runs that are fitted, those around the lowest one (0: all), as a
  curve is no parabola far from its minimum.
  """
  tokens, loss = np.asarray(tokens, float), np.asarray(loss, float)
  if len(np.unique(tokens)) < 3:
    raise UserError(f'a parabola needs 3 different sizes a budget, not {len(tokens)}')
  used = _around(tokens, loss, window)
  x, y = np.log(tokens[used]), loss[used]
  a, b, c, residuals = _polynomial(x, y)
  vertex = -b / (2 * a) if a else np.inf
  problem = ''
  if a <= 0:
    problem = 'opens downward'
  elif not x.min() <= vertex <= x.max():
    problem = 'outside'
  vertex = float(np.clip(vertex, -700, 700))
  return Parabola(
    tokens=float(np.exp(vertex)),
    loss=float(c - b * b / (4 * a)) if a else float(y.min()),
    curvature=float(2 * a),
    spread=float(np.sqrt(np.sum(residuals**2) / max(len(x) - 3, 1))),
    problem=problem,
    used=tuple(int(i) for i in used),
  )


def _around(tokens, loss, window):
  order = np.argsort(tokens)
  if not window or window >= len(order):
    return order
  at = int(np.argmin(loss[order]))
  half = window // 2
  return order[max(0, at - half) : at + half + 1]


def _polynomial(x, y):
  """(a, b, c, residuals) of y = a x^2 + b x + c; x is centred for the solution."""
  middle = x.mean()
  a, b, c = np.polyfit(x - middle, y, 2)
  residuals = y - np.polyval((a, b, c), x - middle)
  return a, b - 2 * a * middle, c - b * middle + a * middle**2, residuals


def power_law(
  flops: Sequence[float] | np.ndarray, values: Sequence[float] | np.ndarray
) -> tuple[float, float]:
  """(alpha, A) of values = A flops^alpha, least squares in log-log."""
  flops, values = np.asarray(flops, float), np.asarray(values, float)
  if len(np.unique(flops)) < 2:
    raise UserError('a power law needs 2 budgets with an optimum')
  alpha, intercept = np.polyfit(np.log(flops), np.log(values), 1)
  return float(alpha), float(np.exp(intercept))


def optimal(flops: float, law: tuple[float, float]) -> tuple[float, float]:
  """Optimal (tokens, parameters) at `flops` by the law (alpha, A), C = 6ND."""
  alpha, a = law
  tokens = a * flops**alpha
  return tokens, flops / (6 * tokens)


def offset_law(
  flops: Sequence[float] | np.ndarray, loss: Sequence[float] | np.ndarray
) -> tuple[float, float, float]:
  """(E, B, beta) of loss = E + B (flops / smallest)^-beta, all positive.

  The two linear values are solved for on a grid of exponents. With 2 budgets E is 0.
  """
  flops, loss = np.asarray(flops, float), np.asarray(loss, float)
  ratio = np.log(flops / flops.min())
  if len(loss) < 3:
    beta, b = np.polyfit(ratio, np.log(loss), 1)
    return 0.0, float(np.exp(b)), float(-beta)
  betas = np.geomspace(0.01, 2, 200)
  x = np.exp(-betas[:, None] * ratio)
  middle, mean = x.mean(1, keepdims=True), loss.mean()
  b = (x - middle) @ (loss - mean) / np.sum((x - middle) ** 2, 1)
  e = mean - b * middle[:, 0]
  b = np.where(e < 0, x @ loss / np.sum(x * x, 1), b)
  e = np.maximum(e, 0)
  miss = np.sum((e[:, None] + b[:, None] * x - loss) ** 2, 1)
  miss = np.where(b > 0, miss, np.inf)
  at = int(np.argmin(miss))
  if not np.isfinite(miss[at]):
    raise UserError('the lowest losses do not fall with the budget: train longer runs')
  return float(e[at]), float(b[at]), float(betas[at])


def loss_at(
  flops: float | np.ndarray, law: tuple[float, float, float], smallest: float
) -> float | np.ndarray:
  """Lowest loss at `flops` by offset_law's (E, B, beta); smallest: least budget."""
  e, b, beta = law
  return e + b * (np.asarray(flops, float) / smallest) ** -beta


@dataclasses.dataclass(frozen=True)
class Study:
  """Fits to the runs of several budgets. Intervals are (low, high), 95%."""

  budgets: tuple
  parabolas: tuple
  tokens_interval: tuple  # of every vertex
  law: tuple  # (alpha, A) of tokens
  parameter_law: tuple  # (alpha, A) of parameters
  loss_law: tuple  # (E, B, beta) of the lowest loss
  samples: dict  # bootstrap: law [S, 2], parameter_law [S, 2], loss_law [S, 3]

  @property
  def kept(self) -> list[float]:
    """Budgets that have an optimum inside their runs."""
    return [c for c, p in zip(self.budgets, self.parabolas) if not p.problem]


def study(
  runs: Sequence[Mapping], window: int = 0, samples: int = 1000, seed: int = 0
) -> Study:
  """Study of `runs`: dicts with budget, tokens, loss.

  Intervals are those of a bootstrap: the residuals of every parabola are resampled, and
  so are the budgets to which the laws are fitted.

  Raises:
    UserError: a budget with less than 3 sizes, or less than 2 budgets with an optimum.
  """
  budgets = sorted({r['budget'] for r in runs})
  groups = [_group(runs, c) for c in budgets]
  fits = [parabola(t, y, window) for t, y in groups]
  good = [i for i, p in enumerate(fits) if not p.problem]
  if len(good) < 2:
    raise UserError(
      f'{len(good)} of {len(budgets)} budgets have their lowest loss inside their '
      'sizes, 2 are needed: change scaling.sizes or scaling.optimum'
    )
  rng = np.random.default_rng(seed)
  vertices = np.stack([_resampled(*groups[i], fits[i], samples, rng) for i in good])
  spent = np.array([budgets[i] for i in good])
  laws = _laws(spent, vertices, rng)
  intervals = {
    i: _interval(np.exp(v[np.isfinite(v)])) for i, v in zip(good, vertices[..., 0])
  }
  tokens = [fits[i].tokens for i in good]
  return Study(
    budgets=tuple(budgets),
    parabolas=tuple(fits),
    tokens_interval=tuple(intervals.get(i) for i in range(len(budgets))),
    law=power_law(spent, tokens),
    parameter_law=power_law(spent, spent / (6 * np.array(tokens))),
    loss_law=offset_law(spent, [fits[i].loss for i in good]),
    samples=laws,
  )


def _group(runs, budget):
  chosen = [r for r in runs if r['budget'] == budget]
  tokens = [r['tokens'] for r in chosen]
  if len(set(tokens)) < 3:
    raise UserError(
      f'the budget of {budget:.3g} FLOPs has {len(set(tokens))} sizes: a parabola '
      'needs 3'
    )
  return np.array(tokens, float), np.array([r['loss'] for r in chosen], float)


def _resampled(tokens, loss, fit, samples, rng):
  """[samples, 2]: log tokens and loss of the vertex, residuals resampled; NaN: none.

  Residuals are scaled up for the 3 fitted values.
  """
  used = list(fit.used)
  x, flat = np.log(tokens[used]), fit(tokens[used])
  residuals = (loss[used] - flat) * np.sqrt(len(x) / max(len(x) - 3, 1))
  noise = rng.choice(residuals, (samples, len(x))) * rng.choice((-1, 1), (samples, 1))
  middle = x.mean()
  a, b, c = np.polyfit(x - middle, (flat + noise).T, 2)
  with np.errstate(divide='ignore', invalid='ignore'):
    vertices = np.stack([middle - b / (2 * a), c - b * b / (4 * a)], 1)
  vertices[(a <= 0) | (np.abs(vertices[:, 0] - middle) > 2 * np.ptp(x))] = np.nan
  return vertices


def _laws(spent, vertices, rng):
  """Bootstrap samples of the three laws from vertices [budgets, S, 2]."""
  laws, parameters, losses = [], [], []
  for k in range(vertices.shape[1]):
    chosen = rng.integers(len(spent), size=len(spent))
    at = chosen[np.isfinite(vertices[chosen, k, 0])]
    if len(np.unique(at)) < 2:
      continue
    tokens = np.exp(vertices[at, k, 0])
    laws.append(power_law(spent[at], tokens))
    parameters.append(power_law(spent[at], spent[at] / (6 * tokens)))
    # All budgets: two or three of them do not determine three values.
    whole = np.isfinite(vertices[:, k, 0])
    if k < 200 and whole.sum() >= 2:
      try:
        low = spent[whole]
        e, b, beta = offset_law(low, vertices[whole, k, 1])
        losses.append((e, b * (low.min() / spent.min()) ** beta, beta))
      except UserError:
        continue  # the losses of this sample do not fall
  if not laws:
    raise UserError(
      'scaling.samples: no bootstrap sample has two optima; use more runs'
    )
  keys = ('law', 'parameter_law', 'loss_law')
  return {k: np.array(v) for k, v in zip(keys, (laws, parameters, losses))}


def _interval(values):
  if not len(values):
    return (float('nan'), float('nan'))
  return tuple(float(q) for q in np.quantile(values, (0.025, 0.975)))


def extrapolate(found: Study, flops: float) -> dict:
  """Optimal tokens, parameters and lowest loss at `flops`, each (value, low, high)."""
  tokens, parameters = optimal(flops, found.law)
  law, smallest = found.samples['law'], min(found.kept)
  draws = law[:, 1] * flops ** law[:, 0]
  low, high = _interval(draws)
  e, b, beta = (found.samples['loss_law'].reshape(-1, 3)).T
  loss = float(loss_at(flops, found.loss_law, smallest))
  return {
    'flops': float(flops),
    'tokens': (tokens, low, high),
    'parameters': (parameters, flops / (6 * high), flops / (6 * low)),
    'loss': (loss, *_interval(e + b * (flops / smallest) ** -beta)),
  }


def held_out(rows: Sequence[Mapping], found: Study, budget: float, window: int) -> dict:
  """Prediction and measurement at a budget that the fit did not see.

  rows: runs, with those of `budget`; found, window: see `study`. Returns a dict:
  budget, predicted, vertex, lowest_run and the errors of predicted loss and tokens.
  """
  own = [r for r in rows if r['budget'] == budget]
  curve = parabola([r['tokens'] for r in own], [r['loss'] for r in own], window)
  predicted = extrapolate(found, budget)
  loss, best = predicted['loss'][0], min(own, key=lambda r: r['loss'])
  lowest = best['loss'] if curve.problem else curve.loss
  return {
    'budget': budget,
    'predicted': predicted,
    'vertex': {'tokens': curve.tokens, 'loss': curve.loss, 'problem': curve.problem},
    'lowest_run': {k: best[k] for k in ('loss', 'tokens', 'index', 'non_embedding')},
    'loss_error': loss / lowest - 1,
    'lowest_run_error': loss / best['loss'] - 1,
    'tokens_ratio': predicted['tokens'][0] / curve.tokens,
  }


def summary(found: Study) -> dict:
  """Plain values of a Study for results.json."""
  law, other = found.samples['law'], found.samples['parameter_law']
  rows = []
  for c, p, interval in zip(found.budgets, found.parabolas, found.tokens_interval):
    row = {'budget': c, 'tokens': p.tokens, 'parameters': c / (6 * p.tokens)}
    row |= {'loss': p.loss, 'curvature': p.curvature, 'spread': p.spread}
    rows.append(row | {'tokens_interval': interval, 'problem': p.problem})
  return {
    'budgets': rows,
    'tokens': _law(found.law, law),
    'parameters': _law(found.parameter_law, other),
    'lowest_loss': dict(zip(('E', 'B', 'beta'), found.loss_law)),
  }


def _law(value, samples):
  alpha, a = value
  return {
    'alpha': alpha,
    'alpha_interval': _interval(samples[:, 0]),
    'A': a,
    'A_interval': _interval(samples[:, 1]),
  }


def bent(
  found: Study, others: Mapping[str, Sequence[Mapping]], window: int, samples: int
) -> list[dict]:
  """How the exponent of other rows, {name: runs}, differs from that of `found`.

  Returns dicts: name, runs, alpha (of parameters) and alpha_interval, difference,
  difference_interval (95% of pairs of bootstrap samples), bends: whether 0 is outside
  of it. Rows that give no law are left out.
  """
  rows, own = [], found.samples['parameter_law'][:, 0]
  for name, runs in others.items():
    try:
      other = study(runs, window, samples)
    except UserError:
      continue
    drawn = other.samples['parameter_law'][:, 0]
    n = min(len(own), len(drawn))
    low, high = _interval(drawn[:n] - own[:n])
    row = {'name': name, 'runs': len(runs), 'alpha': other.parameter_law[0]}
    row |= {'alpha_interval': _interval(drawn)}
    row['difference'] = other.parameter_law[0] - found.parameter_law[0]
    row['difference_interval'] = low, high
    rows.append(row | {'bends': not low <= 0 <= high})
  return rows
