"""All of it with one command: data, pre-training, R rounds of post-training, report.

  python -m experiment --config=configs/herd.py:tiny --workdir=runs/herd
  python -m experiment --config=configs/herd.py:tiny --workdir=runs/herd --data=DIR

Every stage is another experiment in its own folder, run with the config's part of the
same name. The same command again resumes where it stopped, skipping what is finished.
Expected at `tiny`: the checks in results.json and report.html hold.
"""

import dataclasses
import pathlib

from absl import logging

from experiments import anneal
from experiments import assets
from experiments import average
from experiments import curate
from experiments import dpo
from experiments import evaluate
from experiments import long_context
from experiments import pretrain
from experiments import reject
from experiments import reward
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


@dataclasses.dataclass
class Files:
  """JSONL files that post-training takes beside the tasks; each round adds to them."""

  answers: tuple = ()  # SFT rows
  preferences: tuple = ()  # of all rounds so far
  judge: tuple = ()  # preferences by people, held out
  rows: dict = dataclasses.field(default_factory=dict)  # rows that hold those


def main(config, workdir):
  """Run all stages; returns what eval/summary.py collects."""
  folder = workdirs.claim(config, workdir).resolve()
  if not (folder / 'results.json').exists():
    run = stages.Stages(folder, _count(config))
    given = _data(config, run)
    _pretrain(config, run)
    chat = 'seed_sft'
    run.stage(chat, sft.main, config[chat], _post(config, run, 'anneal', given.answers))
    for number in range(1, config.rounds + 1):
      chat = _round(config, run, number, chat, given)
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
  """Curation, tokenizer, shards (3.1); returns the Files of the real data, if any."""
  given, inputs = Files(), ()
  if config.data:
    real = {'folder': str(pathlib.Path(config.data).resolve()), 'seed': config.seed}
    run.stage('assets', assets.main, config.assets, real)
    at = lambda name: f'{run.at("assets")}/{name}.jsonl'
    inputs = tuple(f'{c}={at(c)}' for c in ('math', 'code'))
    rows = {f'train.{name}': value for name, value in config.data_rows.items()}
    people = (at('preferences'),), (at('preferences_heldout'),)
    given = Files((at('sft'),), *people, rows)
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


def _post(config, run, start, files=()):
  """What a stage of post-training is given: its start, the vocabulary, its files."""
  return {
    'seed': config.seed,
    'init_from': run.at(start),
    'data.tokenizer': _vocabulary(run),
    'data.files': tuple(files),
    'data.heldout_files': (),
    'data.task_names': config.task_names,
  }


def _round(config, run, number, chat, given):
  """One round (4), whose prompts the model `chat` answers; returns the new chat model.

  The reward model learns from all annotations so far, DPO from the newest (4.2.1); the
  reward model and SFT start from the pre-trained model every time.
  """
  name = lambda kind: f'{kind}/{number}'
  changes = _post(config, run, 'anneal', given.preferences) | given.rows
  changes['data.heldout_files'] = given.judge
  run.stage(name('reward'), reward.main, config.reward, changes)

  changes = _post(config, run, chat) | {'reward_from': run.at(name('reward'))}
  changes['seed'] = config.seed + 1000 * number  # new prompts every round
  found = run.stage(name('reject'), reject.main, config.reject, changes)
  newest = f'{run.at(name("reject"))}/preferences.jsonl'
  given.preferences += (newest,)
  given.answers += (f'{run.at(name("reject"))}/sft.jsonl',)

  changes = _post(config, run, 'anneal', given.answers)
  run.stage(name('sft'), sft.main, config.sft, changes)

  members = []
  for i in range(config.members):
    changes = _post(config, run, name('sft'), (newest,)) | {'seed': config.seed + i}
    # Constructed pairs fill up a batch of few annotations.
    changes['data.tasks'] = max(config.dpo.data.tasks - found['annotated'], 0)
    members.append(f'{name("dpo")}{chr(ord("a") + i)}')
    run.stage(members[-1], dpo.main, config.dpo, changes)
  paths = {'members': tuple(run.at(member) for member in members)}
  run.stage(name('average'), average.main, config.average, paths)
  return name('average')


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
      'data.root': run.at('shards'),
      'shots': shots,
    }
    run.stage(f'evaluate/{name}', evaluate.main, config.evaluate, changes)
