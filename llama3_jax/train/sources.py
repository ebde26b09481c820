"""Sources of pre-training: their mix over time, rows, held-out loss (3.1.2)."""

import pathlib
from collections.abc import Callable
from collections.abc import Mapping

from llama3_jax import feed
from llama3_jax.base.errors import UserError
from llama3_jax.data import mix as mixes
from llama3_jax.data import pipeline
from llama3_jax.data import shards
from llama3_jax.data.config import DataConfig
from llama3_jax.pipeline import plans
from llama3_jax.train import models
from llama3_jax.train import step


def phases(data: DataConfig) -> list[tuple[int, dict[str, float]]]:
  """The mix as [(start_tokens, {source: weight})], of a DataConfig's mix and changes.

  A name is a folder of `data.root`: a source, or a category with a folder a source.
  """
  starts = [(0, dict(data.mix))]
  for tokens, source, weight in sorted(data.changes):
    if tokens != starts[-1][0]:
      starts.append((tokens, dict(starts[-1][1])))
    starts[-1][1][source] = weight
  names = {name for _, weights in starts for name in weights}
  members = {n: shards.members(pathlib.Path(data.root, n)) for n in sorted(names)}
  starts = mixes.expand(starts, {n: m for n, m in members.items() if m})
  return [(t, {n: w for n, w in mix.items() if w > 0}) for t, mix in starts]


def of_split(
  data: DataConfig, split: str, limit: int | None = None, begun: str = ''
) -> dict[str, shards.Source]:
  """{name: Source} of one split, for every source that the mix ever uses.

  Args:
    data: DataConfig.
    split: 'train' or 'heldout'.
    limit: rows of the model's embedding; every id must be below it.
    begun: workdir of the stage before, whose vocabulary is required; '': none.

  Raises:
    UserError: the sources have several vocabularies, or another one than `begun`.
  """
  root = pathlib.Path(data.root)
  names = sorted({n for _, mix in phases(data) for n in mix})
  known = models.identity(begun).get('vocabulary') if begun else None
  sources = {n: shards.open_source(root / n, known, split, limit) for n in names}
  if len({s.vocabulary for s in sources.values()}) > 1:
    marks = ', '.join(f'{n} {s.vocabulary[:12]}' for n, s in sources.items())
    raise UserError(f'data.root={root}: sources of several vocabularies ({marks})')
  return sources


def rows(
  data: DataConfig, used: Mapping[str, shards.Source], seed: int
) -> pipeline.Rows:
  """The endless stream of training rows of a DataConfig; `used`: its sources."""
  return pipeline.Rows(used, phases(data), seed, data.positions, data.lanes)


def evaluator(
  data: DataConfig,
  held: Mapping[str, shards.Source],
  batch: int,
  length: int,
  loss: Callable | plans.Plan,
) -> Callable[[object], dict[str, float]]:
  """Function evaluate(params) -> {'eval/NAME', 'eval_loss'}: held-out loss of every
  source and of the mix, nats a token.

  held: {name: held-out source}; batch, length: rows of a batch and tokens of a row, in
  data.eval_batches batches of a source.
  """
  mix, batches = phases(data)[-1][1], {}
  for name, source in held.items():
    rows = pipeline.heldout(
      {name: source}, batch, length, data.eval_batches, data.positions
    )
    batches[name] = [feed.place(b) for b in rows]

  def evaluate(params):
    losses = {}
    for name, rows in batches.items():
      if rows:
        losses[f'eval/{name}'] = step.evaluate(params, rows, loss)['loss']
    weights = {n.removeprefix('eval/'): v for n, v in losses.items()}
    total = sum(mix.get(n, 0) for n in weights)
    if total:  # else no source of the mix holds documents out
      losses['eval_loss'] = sum(mix.get(n, 0) * v for n, v in weights.items()) / total
    return losses

  return step.once(evaluate)
