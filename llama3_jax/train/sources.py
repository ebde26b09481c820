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
  """The mix as [(start_tokens, {source: weight})], of `data.mix` and `data.changes`.

  A name is a folder of `data.root`: a source, or a category with a folder a source.
  """
  found = [(0, data.mix.to_dict())]
  for tokens, source, weight in sorted(data.changes):
    if tokens != found[-1][0]:
      found.append((tokens, dict(found[-1][1])))
    found[-1][1][source] = weight
  names = {name for _, weights in found for name in weights}
  members = {n: shards.members(pathlib.Path(data.root, n)) for n in sorted(names)}
  found = mixes.expand(found, {n: m for n, m in members.items() if m})
  return [(t, {n: w for n, w in mix.items() if w > 0}) for t, mix in found]


def of_split(config, split):
  """{name: one split of every source that the mix ever uses}, of one vocabulary that
  the model has rows for and was trained on before."""
  root = pathlib.Path(config.data.root)
  names = sorted({n for _, mix in phases(config.data) for n in mix})
  limit = config.model.vocab_size if 'model' in config else None
  begun = checkpoint.identity(config.init_from) if config.get('init_from') else {}
  known = begun.get('vocabulary')
  found = {n: shards.open_source(root / n, known, split, limit) for n in names}
  if len({s.vocabulary for s in found.values()}) > 1:
    marks = ', '.join(f'{n} {s.vocabulary[:12]}' for n, s in found.items())
    raise UserError(f'data.root={root}: sources of several vocabularies ({marks})')
  return found


def rows(config, used=None):
  """The endless stream of training rows that a config describes; `used`: sources."""
  return pipeline.Rows(
    used or of_split(config, 'train'),
    phases(config.data),
    config.seed,
    config.data.positions,
    config.data.lanes,
  )


def evaluator(config, loss):
  """evaluate(params) -> held-out loss of every source and of the mix, nats a token."""
  t, mix = config.train, phases(config.data)[-1][1]
  batches = {}
  for name, source in of_split(config, 'heldout').items():
    rows = pipeline.heldout(
      {name: source}, t.batch, t.length, config.data.eval_batches, config.data.positions
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
