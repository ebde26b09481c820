"""Evaluation of one model: tasks with 95% intervals, held-out loss by source (5.1).

  python -m experiment --config=configs/evaluate.py:chat --workdir=runs/evaluate \\
    --config.init_from=runs/herd/average_2

Expected: a table of exact match; `:base` asks a base model after solved examples.
Writes results.json.
"""

import pathlib

from absl import logging

from llama3_jax import workdir as workdirs
from llama3_jax.base.errors import UserError
from llama3_jax.data import shards
from llama3_jax.eval import run
from llama3_jax.generate.sample import Settings
from llama3_jax.tasks import task as tasks
from llama3_jax.train import belongs
from llama3_jax.train import models


@workdirs.stage()
def main(config, folder):
  """Evaluate; returns {'tasks': {task: {score, n, ci}}, 'eval_loss': {source},
  'dialogs': [{title, messages}] of a chat model}."""
  if not config.tasks and not config.data.root:
    raise UserError('tasks is empty and data.root as well: nothing to evaluate')
  settings = Settings(temperature=0.0, max_new=config.max_new)
  tokenizer = belongs.tokenizer(config.tokenizer, config.init_from)
  params, model = models.load(config.init_from)
  found = run.tasks(
    params,
    model,
    tokenizer,
    config.tasks,
    config.examples,
    config.seed,
    None if config.shots < 0 else config.shots,
    settings,
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
  if config.shots < 0:
    results['dialogs'] = _dialogs(config, params, model, tokenizer)
  return results


def _dialogs(config, params, model, tokenizer):
  """A few questions of each task with the model's answers, for the reader."""
  found, settings = [], Settings(temperature=0.0, max_new=config.max_new)
  for task in config.tasks:
    asked = tasks.load(task)
    examples = asked.examples('heldout', config.dialogs, config.seed)
    said = run.answers(
      params, model, tokenizer, asked, examples, None, settings, config.batch
    )
    for e, text in zip(examples, said):
      right = asked.score(e, text) == 1
      mark = 'right' if right else f'wrong, the answer is {e.answer}'
      turns = (('user', asked.prompt(e)), ('assistant', text))
      messages = [{'role': role, 'content': content} for role, content in turns]
      found.append({'title': f'{task} ({mark})', 'messages': messages})
  return found


def _sources(root):
  """{name: held-out source} of every folder of shards in `root`."""
  folders = sorted(p.parent for p in pathlib.Path(root).glob('*/index.json'))
  if not folders:
    raise UserError(f'data.root={root}: no token shards there; run configs/shards.py')
  return {f.name: shards.open_source(f, split='heldout') for f in folders}
