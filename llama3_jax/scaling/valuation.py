"""Value of a data set, measured by annealing on it (section 3.1.3).

A half-trained model is annealed, the learning rate linear to 0, twice: on the default
mix (control), and on 30% of the new data set and 70% of the default mix (treatment).
"""

import dataclasses
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

MEAN = 'mean'  # of the judged sources, each with the same weight


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
    resampled, the same for both arms, and so are the seeds of each), helps (share of
    the samples in which the treatment's loss is lower), verdict. Of several sources
    there is a last row MEAN, of their mean.
  """
  if len(control) != len(treatment) or not control:
    raise UserError('scaling.seeds: both arms need the same seeds, 1 or more')
  rows, changes, seeds = [], [], _Seeds.drawn(len(control), samples)
  for source in control[0]:
    nats = [
      np.array([run[source][0] for run in arm], float) for arm in (control, treatment)
    ]
    counts = np.array(control[0][source][1], float)
    if nats[0].shape != nats[1].shape or nats[0].shape[1] != len(counts):
      raise UserError(f'rows of {source!r} differ between control and treatment')
    values = {}
    if start is not None:
      values['before'] = float(np.sum(start[source][0]) / counts.sum())
    for name, arm in zip(('control', 'treatment'), nats):
      values[name] = float(arm.sum() / (counts.sum() * len(arm)))
    changes.append(_changes(nats, counts, seeds))
    rows.append(_row(source, values, changes[-1]))
  if len(rows) > 1:
    means = {k: float(np.mean([r[k] for r in rows])) for k in values}
    rows.append(_row(MEAN, means, np.mean(changes, 0)))
  return rows


def _row(source, values, changes):
  low, high = (float(q) for q in np.quantile(changes, (0.025, 0.975)))
  verdict = 'better' if high < 0 else 'worse' if low > 0 else 'no difference shown'
  delta = values['treatment'] - values['control']
  row = {'source': source, **values, 'delta': delta, 'low': low, 'high': high}
  return row | {'helps': float(np.mean(changes < 0)), 'verdict': verdict}


@dataclasses.dataclass(frozen=True)
class _Seeds:
  """Which deviations of the seeds every sample draws, the same for all sources."""

  picks: np.ndarray  # [S, arm, seeds], of the 2 x seeds deviations of both arms
  scales: np.ndarray  # [S]: few seeds leave the size of their noise unknown

  @classmethod
  def drawn(cls, seeds, samples):
    rng = np.random.default_rng(1)
    free = 2 * (seeds - 1)
    scales = np.zeros(samples)  # one seed tells no noise
    if free:
      scales = np.sqrt(free / rng.chisquare(free, samples) * seeds / (seeds - 1))
    return cls(rng.integers(2 * seeds, size=(samples, 2, seeds)), scales)


def _changes(nats, counts, seeds):
  """Samples [S] of treatment - control: rows are drawn in pairs, and seeds."""
  rng = np.random.default_rng(0)
  means = [arm.mean(0) for arm in nats]
  apart = np.concatenate([arm - mean for arm, mean in zip(nats, means)])
  found = []
  for picks, scale in zip(seeds.picks, seeds.scales):
    rows = rng.integers(len(counts), size=len(counts))
    noise = scale * np.diff(apart[picks][..., rows].sum(-1).mean(-1))[0]
    change = (means[1] - means[0])[rows].sum()
    found.append((change + noise) / counts[rows].sum())
  return np.array(found)
