"""Sources of pre-training: the mix over time, rows, held-out loss (3.1.2)."""

import pathlib

from llama3_jax import feed
from llama3_jax.base.errors import UserError
from llama3_jax.data import mix as mixes
from llama3_jax.data import pipeline
from llama3_jax.data import shards
from llama3_jax.train import checkpoint
from llama3_jax.train import step


def phases(data):
  """The mix as [(start_tokens, {source: weight})], of a DataConfig's mix and changes.

  A name is a folder of `data.root`: a source, or a category with a folder a source.
  """
  found = [(0, dict(data.mix))]
  for tokens, source, weight in sorted(data.changes):
    if tokens != found[-1][0]:
      found.append((tokens, dict(found[-1][1])))
    found[-1][1][source] = weight
  names = {name for _, weights in found for name in weights}
  members = {n: shards.members(pathlib.Path(data.root, n)) for n in sorted(names)}
  found = mixes.expand(found, {n: m for n, m in members.items() if m})
  return [(t, {n: w for n, w in mix.items() if w > 0}) for t, mix in found]


def of_split(data, split, limit=None, begun=''):
  """{name: one split of every source that the mix ever uses}, all of one vocabulary.

  Args:
    data: DataConfig.
    split: 'train' or 'heldout'.
    limit: rows of the model's embedding, more than which no id may have.
    begun: folder of the stage that was trained before, '' for none; the vocabulary is
      the one of it.
  """
  root = pathlib.Path(data.root)
  names = sorted({n for _, mix in phases(data) for n in mix})
  known = checkpoint.identity(begun).get('vocabulary') if begun else None
  found = {n: shards.open_source(root / n, known, split, limit) for n in names}
  if len({s.vocabulary for s in found.values()}) > 1:
    marks = ', '.join(f'{n} {s.vocabulary[:12]}' for n, s in found.items())
    raise UserError(f'data.root={root}: sources of several vocabularies ({marks})')
  return found


def rows(data, used, seed):
  """The endless stream of training rows of a DataConfig; `used`: its sources."""
  return pipeline.Rows(used, phases(data), seed, data.positions, data.lanes)


def evaluator(data, held, batch, length, loss):
  """evaluate(params) -> held-out loss of every source and of the mix, nats a token.

  held: {name: held-out source}; batch, length: rows and tokens a row that are measured
  at a time, in data.eval_batches batches of a source.
  """
  mix, batches = phases(data)[-1][1], {}
  for name, source in held.items():
    rows = pipeline.heldout(
      {name: source}, batch, length, data.eval_batches, data.positions
    )
    batches[name] = [feed.place(b) for b in rows]

  def evaluate(params):
    found = {}
    for name, rows in batches.items():
      if rows:
        found[f'eval/{name}'] = step.evaluate(params, rows, loss)['loss']
    weights = {n.removeprefix('eval/'): v for n, v in found.items()}
    total = sum(mix.get(n, 0) for n in weights)
    if total:  # else no source of the mix holds documents out
      found['eval_loss'] = sum(mix.get(n, 0) * v for n, v in weights.items()) / total
    return found

  return evaluate
