"""Value of a data set, measured by annealing on it (section 3.1.3).

A half-trained model is annealed, the learning rate linear to 0, twice: on the default
mix (control), and on 30% of the new data set and 70% of the default mix (treatment).
"""

from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from llama3_jax import config as configs
from llama3_jax.base.errors import UserError
from llama3_jax.data import pipeline
from llama3_jax.data import shards
from llama3_jax.model import llama
from llama3_jax.scaling import ladder
from llama3_jax.train import likelihood
from llama3_jax.train import schedule


def base(config: ConfigDict, model: configs.ModelConfig) -> ConfigDict:
  """Config of the first part of a pre-training whose cosine spans all `steps`."""
  s = config.scaling
  steps = round(s.steps * s.done)
  if not 0 < s.done <= 1 or steps < 1:
    raise UserError(f'scaling.done={s.done}: the share of scaling.steps that is done')
  plan = ladder.create(s)
  sizes = min(plan.sizes), max(plan.sizes)
  rows = max(1, 2 ** round(np.log2(plan.batch[0] / plan.length)))
  return configs.edit(
    config,
    {f'model.{n}': getattr(model, n) for n in ladder.SHAPE}
    | {
      'experiment': 'pretrain',
      'optim.peak': ladder.between(s.size, sizes, plan.peak),
      'optim.warmup': max(1, min(plan.warmup, round(plan.warmup_share * s.steps))),
      'optim.decay': s.steps,
      'optim.floor': plan.floor,
      'optim.weight_decay': plan.weight_decay,
      'train.steps': steps,
      'train.batch': rows,
      'train.length': plan.length,
    },
  )


def anneal(
  config: ConfigDict, s: ConfigDict, arm: str, seed: int, start: str
) -> ConfigDict:
  """Config of one anneal from the workdir `start` of `config`'s run.

  s: the `scaling` part of a config (new, share, anneal_tokens); arm: 'control' or
  'treatment'; seed: order of the data. The learning rate falls linearly to 0 from the
  last value of the cosine.
  """
  before = {n: w for n, w in config.data.mix.items() if w > 0}
  if s.new not in config.data.mix:
    raise UserError(f'scaling.new={s.new!r} is no source of data.mix')
  if not 0 < s.share < 1:
    raise UserError(f'scaling.share={s.share}: between 0 and 1, e.g. 0.3')
  mix = mixture(before, s.new, s.share if arm == 'treatment' else 0.0)
  o, t = config.optim, config.train
  left = schedule.learning_rate(
    t.steps, schedule.Schedule(o.peak, o.warmup, o.decay, o.floor)
  )
  steps = max(1, round(s.anneal_tokens / (t.batch * t.length)))
  changes = {f'data.mix.{n}': mix.get(n, 0.0) for n in config.data.mix}
  return configs.edit(
    config,
    changes
    | {
      'seed': config.seed + 1000 * (seed + 1),
      'experiment': 'anneal',
      'init_from': start,
      'train.average': 0,
      'optim.peak': float(left),
      'optim.warmup': 0,
      'optim.decay': 0,
      'optim.anneal_start': 0,
      'optim.anneal_steps': steps,
      'train.steps': steps,
    },
  )


def mixture(default: Mapping[str, float], new: str, share: float) -> dict[str, float]:
  """{source: weight}: `share` of the source `new`, the rest as in `default`."""
  total = sum(default.values())
  mix = {n: (1 - share) * w / total for n, w in default.items()}
  mix[new] = mix.get(new, 0.0) + share
  return mix


def row_losses(
  params: llama.Params,
  model: configs.ModelConfig,
  source: shards.Source,
  config: ConfigDict,
) -> tuple[list[float], list[float]]:
  """(nats, tokens) of the held-out rows of a source, a float for each row."""
  t, d = config.train, config.data
  rows = pipeline.heldout(
    {'source': source}, t.batch, t.length, d.eval_batches, d.positions
  )
  if not rows:
    raise UserError('data.root: a judged source has no held-out documents')
  nats, counts = [], []
  for batch in rows:
    nats += (-likelihood.of_rows(params, batch, model, t.batch)).tolist()
    counts += batch.weight.sum(1).tolist()
  return nats, counts


def deltas(
  control: Sequence[Mapping[str, tuple]],
  treatment: Sequence[Mapping[str, tuple]],
  samples: int = 1000,
  start: Mapping[str, tuple] | None = None,
) -> list[dict]:
  """Treatment minus control, held-out loss of each source, nats a token.

  Args:
    control, treatment: one dict a seed, source -> (nats [rows], tokens [rows]); the
      same rows in all.
    start: the same dict of the model before the anneal, for the table.

  Returns:
    list of dicts: source, before, control, treatment, delta, low, high (95%; rows are
    resampled, the same for both arms, and so are the seeds of each), verdict.
  """
  if len(control) != len(treatment) or not control:
    raise UserError('scaling.seeds: both arms need the same seeds, 1 or more')
  rows = []
  for source in control[0]:
    nats = [
      np.array([run[source][0] for run in arm], float) for arm in (control, treatment)
    ]
    counts = np.array(control[0][source][1], float)
    if nats[0].shape != nats[1].shape or nats[0].shape[1] != len(counts):
      raise UserError(f'rows of {source!r} differ between control and treatment')
    means = [float(a.sum() / (counts.sum() * len(a))) for a in nats]
    low, high = _interval(nats, counts, samples)
    verdict = 'better' if high < 0 else 'worse' if low > 0 else 'no difference shown'
    row = {'source': source}
    if start is not None:
      row['before'] = float(np.sum(start[source][0]) / counts.sum())
    row |= {'control': means[0], 'treatment': means[1], 'delta': means[1] - means[0]}
    rows.append(row | {'low': low, 'high': high, 'verdict': verdict})
  return rows


def _interval(nats, counts, samples):
  """95% interval of treatment - control over rows (paired) and seeds."""
  rng = np.random.default_rng(0)
  control, treatment = nats
  seeds, n = control.shape
  differences = []
  for _ in range(samples):
    rows = rng.integers(n, size=n)
    a = control[rng.integers(seeds, size=seeds)][:, rows].sum()
    b = treatment[rng.integers(seeds, size=seeds)][:, rows].sum()
    differences.append((b - a) / (counts[rows].sum() * seeds))
  return tuple(float(q) for q in np.quantile(differences, (0.025, 0.975)))
