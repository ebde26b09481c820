"""Summary of a herd run: figures and checks from the results of its stages (5)."""

import itertools
from collections.abc import Mapping

from llama3_jax.eval import checks
from llama3_jax.eval import paired
from llama3_jax.eval.stages import SPENT
from llama3_jax.eval.stages import Stages
from llama3_jax.reliable import goodput
from llama3_jax.train import metrics

NAMES = {
  'anneal': 'base',
  'anneal_with_examples': 'base, after examples',
  'seed_sft': 'SFT on demonstrations',
}
POINTS = 200  # of a curve in results.json, at most
COSTS = ('seconds', 'memory_bytes', 'goodput', *SPENT)
TIMES = (*COSTS, 'resumed')


def collect(run: Stages) -> dict:
  """Results of a finished run.

  'figures' do not depend on interruptions of the run; 'checks' is the list of
  eval/checks.py; 'costs' has seconds and memory_bytes of every stage, 'seconds' and
  'memory_bytes' are those of the whole run; 'notes' are caveats for the reader.
  """
  figures = {
    'curation': _funnel(run.results['curate']),
    'stages': curves(run),
    'needle': run.results['long_context'].get('needle', {}),
    'gate': run.results['long_context'].get('gate', {}),
    'reward': _rewards(run),
    'best_of_k': _rounds(run, 'reject', 'best_of_k'),
    'dpo': {n: held(r) for n, r in kind(run, 'dpo').items()},
    'evaluation': {_name(n): r['tasks'] for n, r in kind(run, 'evaluate').items()},
    'paired': _paired(run),
    'held_out': _held_out(run),
    'dialogs': _dialogs(run),
    'tokens': {n: r['tokens'] for n, r in run.results['shards'].items()},
    'characters_per_token': run.results['tokenizer']['characters_per_token'],
  }
  seconds = sum(cost['seconds'] for cost in run.costs.values())
  memory = max(cost['memory_bytes'] for cost in run.costs.values())
  return {
    'figures': figures,
    'checks': checks.all(run, seconds, memory),
    'notes': _notes(run),
    'costs': {n: {**c, **_goodput(run.at(n))} for n, c in run.costs.items()},
    'seconds': seconds,
    'memory_bytes': memory,
  }


def timeless(value: object) -> object:
  """`value` without times and memory: equal for runs with and without interruptions."""
  if isinstance(value, Mapping):
    return {k: timeless(v) for k, v in value.items() if k not in TIMES}
  return [timeless(v) for v in value] if isinstance(value, list) else value


def for_page(results: Mapping) -> dict:
  """The dict for eval/report.py."""
  figures = dict(results['figures'])
  costs = results['costs']
  figures['stages'] = [
    {**stage, **{k: cost[k] for k in COSTS if k in cost}}
    for stage in figures['stages']
    for cost in [costs[stage['name']]]
  ]
  rewards = list(figures.pop('reward').values())
  curves = list(figures.pop('best_of_k').values())
  checked = [{**check, 'value': _shown(check)} for check in results['checks']]
  return {
    'title': 'The herd',
    'summary': 'The recipe of Llama 3, from crawled pages to an aligned model.',
    'notes': results['notes'],
    'seconds': results['seconds'],
    'memory_bytes': results['memory_bytes'],
    **figures,
    'reward': rewards[-1] if rewards else {},
    'best_of_k': curves[-1] if curves else (),
    'checks': checked,
  }


def _goodput(folder):
  account = goodput.report(folder)
  return {'goodput': account} if account else {}


def kind(run: Stages, name: str) -> dict[str, dict]:
  """{'1': results of `name`/1, ...}."""
  start = f'{name}/'
  return {
    stage.removeprefix(start): results
    for stage, results in run.results.items()
    if stage.startswith(start)
  }


def _rounds(run, name, field):
  return {n: results[field] for n, results in kind(run, name).items()}


def _name(model):
  """Name of a model for the reader: the average of a round is its result, after DPO."""
  return NAMES.get(model, model.replace('average', 'DPO').replace('sft', 'SFT'))


def _paired(run):
  """DPO against the SFT it began with, and each round against the one before."""
  rounds = [n.partition('/')[2] for n in run.results if n.startswith('average/')]
  pairs = [(f'sft/{r}', f'average/{r}') for r in rounds]
  pairs += [(f'average/{a}', f'average/{b}') for a, b in itertools.pairwise(rounds)]
  at = lambda name: run.at(f'evaluate/{name}')
  return [
    {'before': _name(a), 'after': _name(b), 'tasks': paired.of_runs(at(a), at(b))}
    for a, b in pairs
  ]


def _funnel(curated):
  return [
    {'name': step['step'], 'documents': step['documents']} for step in curated['steps']
  ]


def curves(run: Stages) -> list[dict]:
  """Every stage with the training metrics that a second run would reproduce."""
  stages = []
  for name in run.results:
    rows = [] if name == 'control' else _thin(metrics.read(run.at(name)), run, name)
    stages.append({'name': name, 'metrics': rows})
  return stages


def _thin(rows, run, name):
  """Rows of planned steps (a resumed run writes more) at POINTS steps, and all
  held-out losses."""
  if not rows:
    return []
  train = run.configs[name].train
  last = max(row['step'] for row in rows)
  every = train.log_every * -(-last // (POINTS * train.log_every))
  kept = []
  for row in rows:
    if 'eval_loss' in row:
      names = ('step', 'tokens', 'eval_loss')
    elif 'lr' in row and (row['step'] in (1, last) or row['step'] % every == 0):
      names = ('step', 'tokens', 'loss', 'lr', 'grad_norm')
    else:
      continue
    kept.append({n: row[n] for n in names if n in row})
  return kept


def _rewards(run):
  rewards = {}
  for name, result in kind(run, 'reward').items():
    entry = {k: result[k] for k in ('accuracy', 'n', 'margins')}
    for judged in result['files'].values():
      entry |= {'real_accuracy': judged['accuracy'], 'real_n': judged['n']}
    rewards[name] = entry
  return rewards


def held(results: Mapping) -> dict:
  """The held-out measures of a stage of DPO, and its pairs."""
  return {k: v for k, v in results.items() if k.startswith('eval') or k == 'pairs'}


def _held_out(run):
  names = ('pretrain', 'long_context', 'anneal', 'control')
  losses = {n: run.results[n]['eval_loss'] for n in names}
  return {**losses, 'average': run.results['anneal'].get('average', {})}


def _dialogs(run):
  last = list(kind(run, 'evaluate').values())[-1]
  return last.get('dialogs', [])


def _notes(run):
  notes = []
  inputs = run.results['curate']['inputs']
  if inputs.get('offline'):
    notes.append(
      f'No text from the package registry ({inputs["reason"]}): the standard library '
      'and generated text stood in for it.'
    )
  elif inputs.get('reason'):
    notes.append(f'A part of the registry text was out of reach: {inputs["reason"]}.')
  resumed = [name for name, cost in run.costs.items() if cost['resumed']]
  if resumed:
    notes.append(
      f'Interrupted in {", ".join(resumed)}: times count the part that finished.'
    )
  return notes


def _shown(check):
  """The measurement of a check, as shown to the reader."""
  if check.get('value') is not None:
    return check['value']
  if 'seconds' in check:
    return f'{check["seconds"] / 60:.1f} min'
  return (
    f'{check["memory_bytes"] / 1e9:.2f} GB'
    if 'memory_bytes' in check
    else 'not measured'
  )
