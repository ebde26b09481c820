"""Summary of rounds of post-training: what they changed, whether it shows (4.1.6)."""

from ml_collections import ConfigDict

from llama3_jax.base import confidence
from llama3_jax.eval import paired
from llama3_jax.eval import paired_report
from llama3_jax.eval import summary
from llama3_jax.eval import table
from llama3_jax.eval.stages import Stages

START = 'round 0'


def collect(run: Stages, config: ConfigDict) -> dict:
  """Results of finished rounds: 'figures', 'findings' (sentences for the reader),
  'costs', 'seconds' and 'memory_bytes'."""
  rounds = config.rounds
  numbers = [str(r) for r in range(1, rounds + 1)]
  compared = [
    {'before': _name(a), 'after': _name(b), 'tasks': _paired(run, a, b)}
    for a, b in pairs(rounds)
  ]
  figures = {
    'evaluation': {
      _name(n): table.shown(run.results[f'evaluate/{n}']['tasks'])
      for n in models(rounds)
    },
    'paired': compared,
    'people': {r: _people(run.results[f'reward/{r}'], config) for r in numbers},
    'best_of_k': run.results[f'reject/{rounds}']['best_of_k'],
    'answers': {r: _answers(run.results[f'reject/{r}']) for r in numbers},
    'dpo': {n: summary.held(r) for n, r in summary.kind(run, 'dpo').items()},
    'wins': {n: _wins(r, config) for n, r in summary.kind(run, 'wins').items()},
    'judges': {n: _judged(r) for n, r in summary.kind(run, 'judge').items()},
    'stages': summary.curves(run),
    'dialogs': _dialogs(run, rounds),
  }
  return {
    'figures': figures,
    'findings': _findings(figures, config),
    'costs': run.costs,
    'seconds': sum(cost['seconds'] for cost in run.costs.values()),
    'memory_bytes': max(cost['memory_bytes'] for cost in run.costs.values()),
  }


def models(rounds: int) -> list[str]:
  """Names of the evaluated models, in order."""
  every = [f'{kind}/{r}' for r in range(1, rounds + 1) for kind in ('sft', 'average')]
  return ['start', *every]


def pairs(rounds: int) -> list[tuple[str, str]]:
  """Which models are compared: each with the one it came from, and the ends."""
  found, before = [], 'start'
  for r in range(1, rounds + 1):
    found += [(before, f'sft/{r}'), (f'sft/{r}', f'average/{r}')]
    if r > 1:
      found.append((before, f'average/{r}'))
    before = f'average/{r}'
  return [*found, ('start', before)]


def _name(model):
  if model == 'start':
    return START
  kind, _, number = model.partition('/')
  return f'{dict(sft="SFT", average="DPO")[kind]} of round {number}'


def _paired(run, before, after):
  at = lambda name: run.at(f'evaluate/{name}')
  return table.shown(paired.of_runs(at(before), at(after)))


def _people(result, config):
  """{set: accuracy on held-out pairs of people}."""
  found = {}
  for path, judged in result['files'].items():
    name = next(s for s in config.assets.sets if path.endswith(f'heldout_{s}.jsonl'))
    found[name] = {k: judged[k] for k in ('accuracy', 'interval', 'n')}
  return found


def _answers(result):
  return {k: result[k] for k in ('prompts', 'answers', 'kept', 'annotated', 'cut')}


def _wins(result, config):
  """Wins of the last model over the first, of the verdicts that there are."""
  won = result['wins']
  new = sum(n for name, n in won.items() if name != config.init_from)
  share = new / max(result['judged'], 1)
  return {
    'share': share,
    'interval': confidence.wilson(share * result['judged'], result['judged']),
    **{k: result[k] for k in ('judged', 'skipped', 'total')},
  }


def _judged(result):
  """How often a judge agrees with people, whose better answer comes first."""
  share = result['first'] / max(result['judged'], 1)
  return {
    'accuracy': share,
    'interval': confidence.wilson(share * result['judged'], result['judged']),
    **{k: result[k] for k in ('judged', 'skipped', 'total')},
  }


def _dialogs(run, rounds):
  """The same questions to the first and to the last model."""
  both = (
    run.results[f'evaluate/{name}']['dialogs']
    for name in ('start', f'average/{rounds}')
  )
  found = []
  for first, last in zip(*both, strict=True):
    question, before = first['messages']
    after = last['messages'][-1]
    name, _, mark = first['title'].partition(' (')
    title = f'{name.partition("=")[0]}: before {mark.rstrip(")")}'
    found.append({'title': title, 'turns': [question, before, after]})
  return found


def _findings(figures, config):
  """Sentences on what can be said, and what cannot."""
  lines = [
    f'{config.init_from} is the deployed model of round 0, and its weights stand in '
    'for the pre-trained checkpoint from which every reward model and every SFT starts.'
  ]
  lines += [paired_report.sentence(one) for one in figures['paired']]
  for name, won in figures['wins'].items():
    low, high = won['interval']
    known = figures['judges'][name]
    lines.append(
      f'By the judge {name!r} the last model answers better than the first in '
      f'{won["share"]:.0%} [{low:.0%}, {high:.0%}] of {won["judged"]} held-out prompts '
      f'of {won["total"]}; it agrees with people on {known["accuracy"]:.0%} '
      f'[{known["interval"][0]:.0%}, {known["interval"][1]:.0%}] of '
      f'{known["judged"]} pairs of {known["total"]}.'
    )
  return lines
