"""Evaluation of one model: tasks with 95% intervals, held-out loss by source (5.1).

  python -m experiment --config=configs/evaluate.py:chat --workdir=runs/evaluate \\
    --config.init_from=runs/herd/dpo

Expected: a table of exact match; `:base` asks a base model after solved examples.
Writes results.json.
"""

import pathlib

from absl import logging

from llama3_jax import config as configs
from llama3_jax import tokenizer as tokenizers
from llama3_jax.config import UserError
from llama3_jax.data import shards
from llama3_jax.eval import run
from llama3_jax.generate.sample import Settings
from llama3_jax.train import checkpoint


def main(config, workdir):
  """Evaluate; returns {'tasks': {task: {score, n, ci}}, 'eval_loss': {source}}."""
  folder = configs.open_workdir(config, workdir)
  if (folder / 'results.json').exists():
    return configs.read_json(folder / 'results.json')
  tokenizer = tokenizers.Tokenizer.load(config.tokenizer)
  params, model = checkpoint.load(config.init_from)
  found = run.tasks(
    params,
    model,
    tokenizer,
    config.tasks,
    config.examples,
    config.seed,
    None if config.shots < 0 else config.shots,
    Settings(temperature=0.0, max_new=config.max_new),
    config.batch,
  )
  for name, r in found.items():
    logging.info('%-12s %5.1f +- %.1f', name, 100 * r['score'], 100 * r['ci'])
  losses = {}
  if config.data.root:
    d = config.data
    losses = run.held_out(
      params, model, _sources(d.root), d.batch, d.length, d.batches, d.positions
    )
  results = {'tasks': found, 'eval_loss': losses}
  configs.write_json(folder / 'results.json', results)
  return results


def _sources(root):
  """{name: held-out source} of every folder of shards in `root`."""
  folders = sorted(p.parent for p in pathlib.Path(root).glob('*/index.json'))
  if not folders:
    raise UserError(f'data.root={root}: no token shards there; run configs/shards.py')
  return {f.name: shards.open_source(f, split='heldout') for f in folders}
