"""Pre-training: initial, long context and annealing are this file with three configs.

  python -m experiment --config=configs/pretrain.py:tiny --workdir=runs/pretrain \\
    --config.data.root=runs/herd/shards

Expected at `tiny` on the herd's shards: held-out loss falls from 8.0 to 2.3 in
1,300 steps. Writes checkpoints/, metrics.jsonl, final/ and results.json (section 3.4).
"""

import functools
import pathlib

import jax
import ml_collections
from absl import logging

from experiments import shards as writer
from llama3_jax import config as configs
from llama3_jax import feed
from llama3_jax import show
from llama3_jax import tokenizer as tokenizers
from llama3_jax import workdir as workdirs
from llama3_jax.base.errors import UserError
from llama3_jax.data import mix as mixes
from llama3_jax.data import pipeline
from llama3_jax.data import shards
from llama3_jax.eval import gate
from llama3_jax.model import llama
from llama3_jax.pipeline import plans
from llama3_jax.train import average
from llama3_jax.train import belongs
from llama3_jax.train import checkpoint
from llama3_jax.train import goodput
from llama3_jax.train import loop
from llama3_jax.train import loss as losses
from llama3_jax.train import step


def main(config, workdir):
  """Train one stage; returns {'eval_loss': {source: nats a token}, ...}."""
  folder = workdirs.claim(config, workdir)
  if (done := workdirs.finished(folder, ('final',))) is not None:
    return done
  model = configs.model_config(config.model)
  tail = _loss(config, model, losses.head_loss)
  plan = plans.of(config, model, tail)
  loop.check(config, model, plan)
  loss = _loss(config, model)
  used = sources(config, 'train')
  if config.needle.lengths:
    needles = tokenizers.Tokenizer.load(config.needle.tokenizer)
    belongs.compare(needles, used, 'needle.tokenizer')
  data = rows(config, used)
  evaluate = evaluator(config, loss)
  forward = plans.of(config, model, tail, 'forward')
  during = evaluator(config, forward) if plan else evaluate
  begin = functools.partial(start, config, model)

  def train_to(steps):
    c = configs.edit(config, {'train.steps': steps})
    state = loop.run(c, folder, model, plan or loss, data, begin, during)
    return plans.natural(state, plan)

  extended = {}
  if config.needle.lengths:
    state, extended = gate.extend(
      config, folder, model, _hay(config), train_to, _short_loss(config)
    )
  else:
    state = train_to(config.train.steps)
  results = {'parameters': llama.count(model), 'tokens': data.tokens, **extended}
  params = state.params
  if config.train.average:
    params, results['average'] = _polyak(config, folder, state, evaluate)
  results['eval_loss'] = evaluate(params)
  tokenizer = belongs.of_shards(used) or _inherited(config)
  checkpoint.save_params(folder / 'final', params, model, tokenizer)
  results['goodput'] = goodput.report(folder)
  configs.write_json(folder / 'results.json', results)
  return results


def _inherited(config):
  """The vocabulary that the stage before carries, None for one without."""
  path = checkpoint.tokenizer(config.init_from) if config.init_from else None
  return path and tokenizers.Tokenizer.load(path)


def _loss(config, model, function=losses.next_token):
  return functools.partial(
    function,
    config=model,
    z_loss=config.train.z_loss,
    chunk=config.train.loss_chunk,
  )


def _hay(config):
  """Sentences in which needles are hidden: of the folder `needle.documents`."""
  path = pathlib.Path(config.needle.documents) / 'general.jsonl.gz'
  if not path.exists():
    raise UserError(f'needle.documents: {path} is missing; name curated documents')
  return writer.sentences(d['text'] for d in writer.read(path))


def _short_loss(config):
  """short_loss(params, model): held-out loss at the initial length (3.4.2)."""
  t, g = config.train, config.gate
  mix = {n: w for n, w in config.data.mix.items() if n in g.sources}
  short = configs.edit(
    config,
    {
      'train.length': g.length,
      'train.batch': t.batch * max(t.length // g.length, 1),
      'data.mix': ml_collections.ConfigDict(mix),
      'data.changes': (),
    },
  )

  def measure(params, model):
    found = evaluator(short, _loss(config, model))(params)
    if 'eval_loss' not in found:
      raise UserError('gate.sources: none of them holds documents out (data.root)')
    return found['eval_loss']

  return measure


def start(config, model):
  """Initial parameters: random, or those of the stage `init_from`."""
  if config.init_from:
    return checkpoint.load(config.init_from, model)[0]
  params = jax.jit(llama.init, static_argnums=1)(jax.random.key(config.seed), model)
  logging.info('parameters\n%s', show.parameters(params))
  return params


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


def rows(config, used=None):
  """The endless stream of training rows that a config describes; `used`: sources."""
  return pipeline.Rows(
    used or sources(config, 'train'),
    phases(config.data),
    config.seed,
    config.data.positions,
    config.data.lanes,
  )


def sources(config, split):
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


def evaluator(config, loss):
  """evaluate(params) -> held-out loss of every source and of the mix, nats a token."""
  t, mix = config.train, phases(config.data)[-1][1]
  batches = {}
  for name, source in sources(config, 'heldout').items():
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


def _polyak(config, folder, state, evaluate):
  """Mean of the last saves, and the held-out losses of it and of its members."""
  saves = checkpoint.open_run(folder, config.train)
  steps = saves.steps()[-config.train.average :]
  members = [loop.restore(saves, state, s, None)[0].params for s in steps]
  saves.close()
  params = average.mean(members)
  report = {
    'steps': steps,
    'members': [evaluate(m).get('eval_loss') for m in members],
    'mean': evaluate(params).get('eval_loss'),
  }
  return params, report
