"""Rounds of post-training of a model that you bring (4.1.6), and what they changed.

  python -m experiment --config=herd:smollm2 --data=DIR --workdir=runs/smollm2
  python -m experiment --config=rounds --init_from=MODEL --data=DIR --workdir=runs/own

DIR holds public data sets (data/assets.py, data/people.py). A round trains a reward
model on all preferences, samples K answers to every prompt, finetunes on the best, runs
DPO on the newest preferences and averages its runs. The same command resumes after any
end. Expected: report.html with paired differences on held-out questions, a win rate by
judges, and dialogs before and after.
"""

import dataclasses
import pathlib

from absl import logging

from experiments import annotate
from experiments import assets
from experiments import average
from experiments import dpo
from experiments import evaluate
from experiments import reject
from experiments import reward
from experiments import sft
from llama3_jax import workdir as workdirs
from llama3_jax.base import processes
from llama3_jax.base.errors import UserError
from llama3_jax.eval import rounds as summary
from llama3_jax.eval import rounds_report
from llama3_jax.eval import stages
from llama3_jax.eval import suites

ALONE = True  # one process runs it


@dataclasses.dataclass
class Given:
  """Files that the rounds read; each round adds to them.

  start: the pre-trained model, from which reward models and SFT begin in every round.
  answers: SFT rows. preferences: of all rounds so far. newest: those that DPO has not
  seen yet. heldout: preferences by people. prompts: whose answers are sampled too.
  rows: fields of the reward model's stage where people's preferences are among them.
  """

  start: str
  vocabulary: str = ''
  answers: tuple = ()
  preferences: tuple = ()
  newest: tuple = ()
  heldout: tuple = ()
  prompts: tuple = ()
  rows: dict = dataclasses.field(default_factory=dict)


def main(config, workdir):
  """Run all stages; returns what eval/rounds.py collects."""
  if not config.data:
    raise UserError('data is empty: name a folder of data sets with --data=DIR')
  kinds = [name.partition('=')[0] for name in config.judges]
  bare = [name for name in config.judges if '=' not in name]
  if len(set(kinds)) < len(kinds) or not {*bare} <= {'reward', 'likelihood'}:
    raise UserError(
      f'judges={tuple(config.judges)}: one of a kind, reward or likelihood alone, '
      'judge=MODEL or labels=FILE'
    )
  folder = workdirs.claim(config, workdir).resolve()
  run = stages.Stages(folder, _count(config))
  given = _data(config, run)
  chat = config.init_from
  _evaluate(config, run, 'start', chat)
  for number in range(1, config.rounds + 1):
    chat = one(config, run, number, chat, given)
    _evaluate(config, run, f'sft/{number}', run.at(f'sft/{number}'))
    _evaluate(config, run, f'average/{number}', chat)
  _compare(config, run, given, chat)
  results = summary.collect(run, config)
  rounds_report.write(results, folder / 'report.html')
  processes.write_json(folder / 'results.json', results)
  for line in results['findings']:
    logging.info('%s', line)
  logging.info('report: %s', folder / 'report.html')
  return results


def _count(config):
  """How many stages there will be."""
  return 2 + config.rounds * (6 + config.members) + 2 * len(config.judges)


def _data(config, run):
  """The files of the data sets; returns the Given."""
  real = {'folder': str(pathlib.Path(config.data).resolve()), 'seed': config.seed}
  run.stage('assets', assets.main, config.assets, real)
  at = lambda name: f'{run.at("assets")}/{name}.jsonl'
  people = tuple(at(f'preferences_{name}') for name in config.assets.sets)
  return Given(
    start=config.init_from,
    answers=(at('sft'),) if config.assets.dialogs else (),
    preferences=people,
    newest=people,
    heldout=tuple(at(f'heldout_{name}') for name in config.assets.sets),
    prompts=tuple(at(f'preferences_{name}') for name in config.prompt_sets),
  )


def changes(config, given, start, rows=()):
  """What a stage of post-training is given: its start, the vocabulary, its files."""
  return {
    'seed': config.seed,
    'init_from': start,
    'data.tokenizer': given.vocabulary,
    'data.files': tuple(rows),
    'data.heldout_files': (),
    'data.task_names': suites.filled(config.task_names, config.data),
  }


def one(config, run, number, chat, given):
  """One round (4), whose prompts the model `chat` answers; returns the new chat model.

  The reward model learns from all annotations so far, DPO from the newest (4.2.1); the
  reward model and SFT start from the pre-trained model every time.
  """
  name = lambda kind: f'{kind}/{number}'
  edits = changes(config, given, given.start, given.preferences) | given.rows
  edits['data.heldout_files'] = given.heldout
  run.stage(name('reward'), reward.main, config.reward, edits)

  edits = changes(config, given, chat, given.prompts)
  edits['reward_from'] = run.at(name('reward'))
  edits['seed'] = config.seed + 1000 * number  # new prompts every round
  edits['round'] = number
  found = run.stage(name('reject'), reject.main, config.reject, edits)
  annotated = f'{run.at(name("reject"))}/preferences.jsonl'
  if found['kept']:
    given.answers += (f'{run.at(name("reject"))}/sft.jsonl',)
  made = (annotated,) if found['annotated'] else ()
  given.preferences += made
  newest, given.newest = given.newest + made, ()

  edits = changes(config, given, given.start, given.answers)
  run.stage(name('sft'), sft.main, config.sft, edits)

  members = []
  for i in range(config.members):
    edits = changes(config, given, run.at(name('sft')), newest)
    edits['seed'] = config.seed + i
    # Constructed pairs fill up a batch of few annotations.
    edits['data.tasks'] = max(config.dpo.data.tasks - found['annotated'], 0)
    members.append(f'{name("dpo")}{chr(ord("a") + i)}')
    run.stage(members[-1], dpo.main, config.dpo, edits)
  paths = {'members': tuple(run.at(member) for member in members)}
  run.stage(name('average'), average.main, config.average, paths)
  return run.at(name('average'))


def _evaluate(config, run, name, model):
  """A model on held-out questions, the same ones every time (5)."""
  edits = {'seed': config.seed, 'init_from': model, 'tokenizer': ''}
  edits |= {'data': config.data, 'shards.root': ''}
  run.stage(f'evaluate/{name}', evaluate.main, config.evaluate, edits)


def _compare(config, run, given, chat):
  """The first and the last model answer held-out prompts of people, and judges say
  which answer is better (5.3); the judges on people's own pairs beside it."""
  kept = [f'{run.at("assets")}/heldout_{name}.jsonl' for name in config.prompt_sets]
  own = {'reward': run.at(f'reward/{config.rounds}'), 'likelihood': config.init_from}
  asked = {'files': tuple(kept), 'pool': (config.init_from, chat)}
  for name in config.judges:
    kind, _, source = name.partition('=')
    edits = {'seed': config.seed, 'judges': (f'{kind}={source or own[kind]}',)}
    run.stage(f'wins/{kind}', annotate.main, config.annotate, edits | asked)
    people = {'files': tuple(kept), 'pool': ()}
    run.stage(f'judge/{kind}', annotate.main, config.annotate, edits | people)
    # The models answer once: the others judge the same answers.
    if asked['pool']:
      answers = f'{run.at(f"wins/{kind}")}/candidates.jsonl'
      asked = {'files': (answers,), 'pool': ()}
