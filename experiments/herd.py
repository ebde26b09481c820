"""All of it with one command: data, pre-training, R rounds of post-training, report.

  python -m experiment --config=configs/herd.py:tiny --workdir=runs/herd
  python -m experiment --config=configs/herd.py:tiny --workdir=runs/herd --data=DIR

Every stage is another experiment in its own folder, run with the config's part of the
same name. The same command again resumes where it stopped, skipping what is finished.
Expected at `tiny`: the checks in results.json and report.html hold.
"""

import pathlib

from absl import logging

from experiments import anneal
from experiments import assets
from experiments import curate
from experiments import evaluate
from experiments import long_context
from experiments import pretrain
from experiments import rounds
from experiments import sft
from experiments import shards
from experiments import tokenizer
from llama3_jax import workdir as workdirs
from llama3_jax.base import files
from llama3_jax.base import processes
from llama3_jax.eval import report
from llama3_jax.eval import stages
from llama3_jax.eval import summary

ALONE = True  # one process runs it


def main(config, workdir):
  """Run all stages; returns what eval/summary.py collects."""
  folder = workdirs.claim(config, workdir).resolve()
  if not (folder / 'results.json').exists():
    run = stages.Stages(folder, _count(config))
    given = _data(config, run)
    _pretrain(config, run)
    seed, chat = 'seed_sft', run.at('seed_sft')
    edits = rounds.changes(config, given, given.start, given.answers)
    run.stage(seed, sft.main, config[seed], edits)
    for number in range(1, config.rounds + 1):
      chat = rounds.one(config, run, number, chat, given)
    _evaluate(config, run)
    results = summary.collect(run)
    report.write(summary.for_page(results), folder / 'report.html')
    processes.write_json(folder / 'results.json', results)
  results = files.read_json(folder / 'results.json')
  failing = [check['name'] for check in results['checks'] if not check['pass']]
  for name in failing:
    logging.warning('check fails: %s', name)
  total = len(results['checks'])
  logging.info('%d of %d checks hold', total - len(failing), total)
  logging.info('report: %s', folder / 'report.html')
  return results


def _count(config):
  """How many stages there will be."""
  one_round = 4 + config.members + 2  # its two evaluations
  return 8 + bool(config.data) + config.rounds * one_round + 3


def _data(config, run):
  """Curation, tokenizer, shards (3.1); returns what the rounds are given."""
  given, inputs = rounds.Given(run.at('anneal'), _vocabulary(run)), ()
  if config.data:
    where = {'folder': str(pathlib.Path(config.data).resolve()), 'seed': config.seed}
    run.stage('assets', assets.main, config.assets, where)
    (real,) = config.assets.sets
    at = lambda name: f'{run.at("assets")}/{name}.jsonl'
    inputs = tuple(f'{c}={at(c)}' for c in ('math', 'code'))
    given.rows = {f'train.{name}': value for name, value in config.data_rows.items()}
    given.answers = (at('sft'),)
    given.preferences, given.heldout = (
      (at(f'preferences_{real}'),),
      (at(f'heldout_{real}'),),
    )
  run.stage('curate', curate.main, config.curate, {'inputs': inputs})
  documents = f'{run.at("curate")}/documents'
  names = {'task_names': config.task_names}
  words = names | {'inputs': (documents,)}
  run.stage('tokenizer', tokenizer.main, config.tokenizer, words)
  places = {'documents': documents, 'tokenizer': _vocabulary(run), 'seed': config.seed}
  run.stage('shards', shards.main, config.shards, places | names)
  return given


def _vocabulary(run):
  return f'{run.at("tokenizer")}/tokenizer.model'


def _pretrain(config, run):
  """Initial stage, long context, annealing, and a control without annealing (3.4)."""
  every = {
    'seed': config.seed,
    'model.vocab_size': run.results['tokenizer']['vocab_size'],
    'data.root': run.at('shards'),
  }
  run.stage('pretrain', pretrain.main, config.pretrain, {**every, 'init_from': ''})
  every['init_from'] = run.at('pretrain')
  hay = {
    'needle.tokenizer': _vocabulary(run),
    'needle.documents': f'{run.at("curate")}/documents',
  }
  run.stage('long_context', long_context.main, config.long_context, every | hay)
  every['init_from'] = run.at('long_context')
  # The anneal ends at zero, and the control sees the same data, whatever the steps.
  every['train.steps'] = config.anneal.train.steps
  to_zero = {'optim.anneal_steps': config.anneal.train.steps}
  run.stage('anneal', anneal.main, config.anneal, {**every, **to_zero})
  run.stage('control', pretrain.main, config.control, every)


def _evaluate(config, run):
  """Every model asked in a chat, the base model after solved examples too (5)."""
  models = {'anneal': ('anneal', -1), 'anneal_with_examples': ('anneal', config.shots)}
  models['seed_sft'] = ('seed_sft', -1)
  for number in range(1, config.rounds + 1):
    for name in (f'sft/{number}', f'average/{number}'):
      models[name] = (name, -1)
  for name, (model, shots) in models.items():
    changes = {
      'seed': config.seed,
      'init_from': run.at(model),
      'tokenizer': _vocabulary(run),
      'shards.root': run.at('shards'),
      'shots': shots,
    }
    run.stage(f'evaluate/{name}', evaluate.main, config.evaluate, changes)
