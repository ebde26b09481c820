"""The ladder of small runs for the scaling laws (section 3.2.1): budgets to runs.

A compute budget becomes several runs that spend it on models of different size. The
cost of a token is a convention of model/flops.py; values that the paper does not state
are fields of `Ladder`.
"""

import dataclasses
import math
import os
import pathlib
from collections.abc import Sequence

from ml_collections import ConfigDict

from llama3_jax.base import files
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.model import flops
from llama3_jax.model import llama

# The budgets whose curves the paper plots, FLOPs, and its sizes, parameters.
BUDGETS = (6e18, 1e19, 3e19, 6e19, 1e20, 3e20, 6e20, 1e21, 3e21, 1e22)
SIZES = (40e6, 70e6, 120e6, 200e6, 340e6, 570e6, 960e6, 1.6e9, 2.7e9, 4.6e9, 8e9, 16e9)
LEGEND = (0.537, 0.299)  # (alpha, A) of N*(C) = A C^alpha tokens, legend of figure 3


@dataclasses.dataclass(frozen=True)
class Ladder:
  """Budgets, sizes and settings of the runs.

  Pairs are the values at the smallest and the largest budget (batch) or size (peak,
  aspect); between them the logarithm of the value follows the logarithm of the
  budget or size.
  """

  budgets: tuple = BUDGETS  # FLOPs
  sizes: tuple = SIZES  # parameters without embedding and head
  points: int = 7  # sizes a budget: those nearest to the expected optimum
  optimum: tuple = LEGEND  # (alpha, A): tokens expected to be optimal, A C^alpha
  convention: str = 'exact'  # of FLOPs a token: see flops.CONVENTIONS
  batch: tuple = (250_000, 4_000_000)  # tokens a step, fixed in a budget
  length: int = 8192  # tokens of a row
  peak: tuple = (4e-4, 2e-4)  # learning rate
  floor: float = 0.1  # of the peak, at the end of the cosine
  warmup: int = 2000  # steps, at most
  warmup_share: float = 0.1  # of a run, at most
  weight_decay: float = 0.1
  d_head: int = 64  # below the 8B's, so that more widths of small models are possible
  group: int = 4  # query heads a KV head, as of the 8B
  aspect: tuple = (64, 128)  # width / layers
  layers: int = 0  # of all models; 0: by aspect
  hidden: float = 3.5  # width of the feed-forward part / width, as of the 8B
  unit: int = 64  # d_ff is a multiple of it


@dataclasses.dataclass(frozen=True)
class Run:
  """One training run. Tokens are those of whole steps; peak is a learning rate."""

  budget: float
  model: ModelConfig
  flops_per_token: float
  tokens: int
  batch: int  # rows
  length: int
  steps: int
  peak: float
  warmup: int


def create(config: ConfigDict) -> Ladder:
  """Ladder of the fields of the same names in a ConfigDict."""
  return Ladder(**{f.name: config[f.name] for f in dataclasses.fields(Ladder)})


def between(x: float, span: tuple[float, float], values: Sequence[float]) -> float:
  """Value at `x`: a straight line in log-log through the two ends, flat beyond."""
  low, high = span
  share = math.log(x / low) / math.log(high / low) if high > low else 0.0
  share = min(max(share, 0.0), 1.0)
  return math.exp((1 - share) * math.log(values[0]) + share * math.log(values[1]))


def shape(parameters: float, ladder: Ladder, base: ModelConfig) -> ModelConfig:
  """ModelConfig with about `parameters` outside embedding and head.

  Of all depths and multiples of the head size it is the one nearest in size, where a
  factor 1.1 in size weighs as much as a factor 1.4 in width / layers.
  """
  span = min(ladder.sizes), max(ladder.sizes)
  aspect = between(parameters, span, ladder.aspect)
  best = None
  for heads in range(ladder.group, 200, ladder.group):
    width = heads * ladder.d_head
    deep = max(1, round(width / aspect))
    depths = range(max(1, deep // 2), 2 * deep + 1)
    # The first and every further layer; counted once, as there are many candidates.
    first = flops.non_embedding(_model(1, heads, ladder, base))
    layer = flops.non_embedding(_model(2, heads, ladder, base)) - first
    for layers in [ladder.layers] if ladder.layers else depths:
      miss = abs(math.log((first + (layers - 1) * layer) / parameters))
      if not ladder.layers:
        miss += 0.28 * abs(math.log(width / layers / aspect))
      if best is None or miss < best[0]:
        best = miss, layers, heads
    if first > 2 * parameters:
      break  # wider ones are larger still
  return _model(*best[1:], ladder, base)


def _model(layers, heads, ladder, base):
  width = heads * ladder.d_head
  hidden = max(1, round(ladder.hidden * width / ladder.unit)) * ladder.unit
  return dataclasses.replace(
    base,
    n_layers=layers,
    d_model=width,
    n_heads=heads,
    n_kv_heads=heads // ladder.group,
    d_head=ladder.d_head,
    d_ff=hidden,
  )


def check(ladder: Ladder) -> None:
  """Raises UserError for a ladder from which no law can be fitted."""
  if len(ladder.budgets) < 1 or list(ladder.budgets) != sorted(set(ladder.budgets)):
    raise UserError(f'scaling.budgets={ladder.budgets}: name rising FLOPs, e.g. 6e18')
  if min(ladder.budgets) <= 0 or min(ladder.sizes, default=0) <= 0:
    raise UserError('scaling.budgets and scaling.sizes are positive numbers')
  if not 3 <= ladder.points <= len(ladder.sizes):
    raise UserError(
      f'scaling.points={ladder.points}: a parabola needs 3 sizes a budget, and '
      f'scaling.sizes names {len(ladder.sizes)}'
    )
  if ladder.convention not in flops.CONVENTIONS:
    raise UserError(
      f'scaling.convention={ladder.convention!r} must be one of '
      f'{", ".join(flops.CONVENTIONS)}'
    )


def runs(ladder: Ladder, base: ModelConfig) -> list[Run]:
  """All Runs, budget after budget, small models first.

  base: ModelConfig whose vocabulary, RoPE, dtype and kernels all models have.
  """
  check(ladder)
  models = []
  for size in sorted(ladder.sizes):
    model = shape(size, ladder, base)
    if model not in models:
      models.append(model)
  planned = []
  for budget in ladder.budgets:
    alpha, a = ladder.optimum
    target = math.log(a * budget**alpha)
    cost = {m: flops.training(m, ladder.length, ladder.convention) for m in models}
    # The budget fixes the tokens of a size: nearest in tokens is nearest in size.
    near = sorted(models, key=lambda m: abs(math.log(budget / cost[m]) - target))
    chosen = near[: ladder.points]
    planned += [_run(budget, m, cost[m], ladder) for m in models if m in chosen]
  return planned


def _run(budget, model, cost, ladder):
  span = ladder.budgets[0], ladder.budgets[-1]
  rows = between(budget, span, ladder.batch) / ladder.length
  rows = max(1, 2 ** round(math.log2(rows)))  # whole rows on any mesh
  steps = max(1, round(budget / cost / (rows * ladder.length)))
  sizes = min(ladder.sizes), max(ladder.sizes)
  return Run(
    budget=budget,
    model=model,
    flops_per_token=cost,
    tokens=steps * rows * ladder.length,
    batch=rows,
    length=ladder.length,
    steps=steps,
    peak=between(flops.non_embedding(model), sizes, ladder.peak),
    warmup=max(1, min(ladder.warmup, round(ladder.warmup_share * steps))),
  )


SHAPE = ('n_layers', 'd_model', 'n_heads', 'n_kv_heads', 'd_head', 'd_ff')


def overrides(run: Run, ladder: Ladder) -> dict[str, object]:
  """The run as changes of a config of experiments/pretrain, for a member of a sweep."""
  model = {f'model.{n}': getattr(run.model, n) for n in SHAPE}
  return model | {
    'experiment': 'pretrain',
    'optim.peak': run.peak,
    'optim.warmup': run.warmup,
    'optim.decay': run.steps,
    'optim.floor': ladder.floor,
    'optim.weight_decay': ladder.weight_decay,
    'train.steps': run.steps,
    'train.batch': run.batch,
    'train.length': run.length,
  }


def name(index: int) -> str:
  """Folder of a run inside the workdir, the same as with --sweep."""
  return str(index)


def finished(folder: str | os.PathLike, count: int) -> tuple[list[int], list[int]]:
  """(indices of finished runs, indices of the others) of a sweep of `count` runs."""
  done = [
    i
    for i in range(count)
    if (pathlib.Path(folder) / name(i) / 'results.json').exists()
  ]
  return done, [i for i in range(count) if i not in done]


def collect(
  folder: str | os.PathLike, planned: Sequence[Run], convention: str
) -> list[dict]:
  """Measurements of every run of a finished sweep.

  Args:
    folder: contains one workdir a run, named by its index.
    planned: list of Run, in the order of the sweep.
    convention: of counting FLOPs, see flops.CONVENTIONS.

  Returns:
    list of dicts: index, budget, flops (spent), flops_per_token, parameters (all),
    non_embedding, tokens, loss (nats a token), eval (by source), peak, steps, batch.

  Raises:
    UserError: a run is missing or unfinished, or of another ladder.
  """
  _, missing = finished(folder, len(planned))
  if missing:
    indices = ', '.join(map(str, missing[:8])) + (', ...' if len(missing) > 8 else '')
    raise UserError(
      f'{folder}: {len(missing)} of {len(planned)} runs are not finished ({indices}); '
      'run them with --sweep_index, or all with this config and scaling.train=true'
    )
  return [_collected(folder, i, run, convention) for i, run in enumerate(planned)]


def _collected(folder, index, run, convention):
  path = pathlib.Path(folder) / name(index)
  results = files.read_json(path / 'results.json')
  config = files.read_json(path / 'config.json').get('config', {})
  expected = {f'model.{n}': getattr(run.model, n) for n in SHAPE}
  expected |= {'train.steps': run.steps, 'train.batch': run.batch}
  other = [k for k, v in expected.items() if config.get(k) != v]
  if other:
    raise UserError(
      f'{path} is a run of another ladder ({other[0]} {config.get(other[0])}, here '
      f'{expected[other[0]]}): choose another --workdir'
    )
  try:
    losses, tokens = dict(results['eval_loss']), results['tokens']
    loss = float(losses.pop('eval_loss'))
  except (KeyError, TypeError):
    raise UserError(f'{path}/results.json has no eval_loss and tokens: run it again')
  if not math.isfinite(loss):
    raise UserError(f'{path}: its held-out loss is {loss}; lower scaling.peak')
  cost = flops.training(run.model, run.length, convention)
  return {
    'index': index,
    'budget': run.budget,
    'flops': cost * tokens,
    'flops_per_token': cost,
    'parameters': llama.count(run.model),
    'non_embedding': flops.non_embedding(run.model),
    'tokens': tokens,
    'loss': loss,
    'eval': {n.removeprefix('eval/'): v for n, v in losses.items()},
    'peak': run.peak,
    'steps': run.steps,
    'batch': run.batch,
  }
