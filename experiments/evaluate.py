"""Evaluation of one model: tasks with 95% intervals, held-out loss by source (5.1).

  python -m experiment --config=configs/evaluate.py:chat --workdir=runs/evaluate \\
    --config.init_from=runs/herd/average_2

  python -m experiment --config=evaluate --init_from=MODEL --files=qa.jsonl \\
    --workdir=runs/evaluate

  python -m experiment --config=evaluate --init_from=MODEL --suite=base --data=DIR \\
    --workdir=runs/base

The second one asks your own questions (tasks/rows.py), the third a suite of benchmarks
(eval/suites.py); --text=FOLDER measures the loss on your own text. Expected: a table of
scores; `:base` asks a base model after solved examples. The same command goes on after
any end. Writes answers.jsonl, every question with its answer, table.md, results.json.
"""

import pathlib

from absl import logging

from llama3_jax import workdir as workdirs
from llama3_jax.base import files
from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.data import shards
from llama3_jax.eval import evaluation_page
from llama3_jax.eval import kept
from llama3_jax.eval import own_text
from llama3_jax.eval import paired
from llama3_jax.eval import run
from llama3_jax.eval import suites
from llama3_jax.eval import table
from llama3_jax.generate import stages
from llama3_jax.generate.settings import Settings
from llama3_jax.model import rowwise
from llama3_jax.train import belongs
from llama3_jax.train import models


@workdirs.stage(report=evaluation_page.write)
def main(config, folder):
  """Evaluate; returns {'tasks': {task: {score, n, ci, interval}}, 'eval_loss':
  {source}, 'text': of own_text.measure, 'dialogs': [{title, messages}] of a chat model,
  'against': what other evaluations score, and paired differences}."""
  names, shots, absent = _tasks(config)
  if not (names or config.shards.root or config.text):
    raise UserError('tasks, text and shards.root are empty: nothing to evaluate')
  rowwise.check(config.weights)
  if config.weights and (config.shards.root or config.text):
    raise UserError(
      f'weights={config.weights!r}: losses are of the weights as they are: leave text '
      'and shards.root empty, or weights'
    )
  titles = table.runs([pathlib.Path(path).resolve() for path in config.against])
  before = [_finished(*pair) for pair in zip(config.against, titles)]
  if config.samples > 1 and not config.temperature:
    raise UserError(
      f'samples={config.samples}: greedy answers are the same: --config.temperature=0.8'
    )
  settings = Settings(temperature=config.temperature, max_new=config.max_new)
  how = config.turns, settings, config.batch, config.longest_answer, config.samples
  how = run.How(shots, *how)
  tokenizer = belongs.tokenizer(config.tokenizer, config.init_from)
  params, model = models.load(config.init_from)
  asked = params
  if config.weights:
    asked = stages.prepared(params, model, config.weights)
  said, answered = [], kept.Kept(folder / kept.FILE)
  found = run.tasks(
    asked,
    model,
    tokenizer,
    names,
    _examples(config, names),
    config.seed,
    how,
    said.append,
    answered,
  )
  if said:
    table.write(folder / 'table.md', found)
    logging.info('%s', table.text(found))
    jsonl.write(folder / 'answers.jsonl', said)
    logging.info('every answer, and what it had to be: %s/answers.jsonl', folder)
  answered.close()
  results = {'tasks': found, **_losses(config, folder, params, model, tokenizer)}
  results |= {'absent': absent} if absent else {}
  if shots == run.CHAT:
    results['dialogs'] = _dialogs(config, names, said)
  results['against'] = [one | {'paired': _paired(one, folder)} for one in before]
  return results


def _tasks(config):
  """(tasks, shots, why tasks of the suite are left out)."""
  if not config.suite:
    return suites.filled(config.tasks, config.data), config.shots, []
  names, absent = suites.chosen(config.suite, config.data, config.longest_question)
  shots = config.shots if config.shots >= 0 else suites.SUITES[config.suite].shots
  return names, shots, absent


def _finished(workdir, name):
  """{'name', 'folder', 'scores'} of an evaluation that is compared with."""
  folder = pathlib.Path(workdir).resolve()
  if not (folder / paired.FILE).exists() or not (folder / 'results.json').exists():
    raise UserError(
      f'against={workdir}: no finished evaluation with {paired.FILE}: name the workdir '
      'of one'
    )
  scores = files.read_json(folder / 'results.json')['tasks']
  return {'name': name, 'folder': str(folder), 'scores': scores}


def _paired(one, folder):
  found = paired.of_runs(one['folder'], folder)
  logging.info('against %s: %s', one['name'], paired.sentence(found['all']))
  return found


def _examples(config, names):
  """{task: number of held-out examples}."""
  found = dict.fromkeys(names, config.examples)
  kinds = {name: name.partition('=')[0] for name in names}
  for kind, count in config.fewer:
    if kind not in kinds.values():
      raise UserError(f'fewer: {kind!r} is no task of {", ".join(kinds.values())}')
    found |= {name: count for name in names if kinds[name] == kind}
  return found


def _losses(config, folder, params, model, tokenizer):
  """Losses on held-out shards and on text of the user's own, nats a token."""
  found, d = {'eval_loss': {}}, config.shards
  how = dict(batch=d.batch, length=d.length, batches=d.batches, positions=d.positions)
  if d.root:
    found['eval_loss'] = run.held_out(params, model, _sources(d.root), **how)
  if config.text:
    own = own_text.measure(config.text, folder, params, model, tokenizer, **how)
    found['text'] = own
    shown = own['loss'], own['bits_per_byte'], own['measured'], own['tokens']
    logging.info(
      'text: %.4f nats a token, %.4f bits a byte, by %d of its %d tokens', *shown
    )
  return found


def _dialogs(config, names, said):
  """The first answers of each task, for the reader."""
  found = []
  for task in names:
    for row in [row for row in said if row['task'] == task][: config.dialogs]:
      right = row['score'] == 1
      mark = 'right' if right else f'wrong, the answer is {row["answer"]}'
      turns = (('user', row['prompt']), ('assistant', row['response']))
      messages = [{'role': role, 'content': content} for role, content in turns]
      found.append({'title': f'{task} ({mark})', 'messages': messages})
  return found


def _sources(root):
  """{name: held-out source} of every folder of shards in `root`."""
  folders = sorted(p.parent for p in pathlib.Path(root).glob('*/index.json'))
  if not folders:
    raise UserError(f'shards.root={root}: no token shards there; run configs/shards.py')
  return {f.name: shards.open_source(f, split='heldout') for f in folders}
