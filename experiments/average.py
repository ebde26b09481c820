"""Average of the weights of models from several runs of one stage (4.1.5).

  python -m experiment --config=configs/average.py --workdir=runs/average \\
    --config.members="('runs/dpo_a', 'runs/dpo_b')"

--config.top=3 takes the best of them by a value of their results.json (config.by), and
--config.base=runs/sft adds their changes to what they started from, by config.scales.
Expected: no worse than the mean of its members (see experiments/evaluate.py). Writes
final/ and results.json.
"""

import pathlib

from llama3_jax import workdir as workdirs
from llama3_jax.base import files
from llama3_jax.base.errors import UserError
from llama3_jax.post import reward
from llama3_jax.text import store
from llama3_jax.train import average
from llama3_jax.train import beside
from llama3_jax.train import final
from llama3_jax.train import models


@workdirs.stage('final')
def main(config, folder):
  """Average; returns {'members', 'values': of config.by, where it chose them}."""
  if not config.members:
    raise UserError('members is empty: name the workdirs to average')
  if len({str(pathlib.Path(m).resolve()) for m in config.members}) < len(
    config.members
  ):
    raise UserError('members names a workdir twice: each counts once')
  first = config.members[0]
  model = models.config(first, 'members')
  for member in config.members[1:]:
    _same(first, member, 'members')
  if config.base:
    _same(first, config.base, 'base')
  members, scales, values = _chosen(config)
  loaded = (_load(m, model, 'members') for m in members)
  if config.base:
    params = average.moved(_load(config.base, model, 'base'), loaded, scales)
  else:
    params = average.mean(loaded, scales)
  path = models.tokenizer(first)
  final.save(folder / 'final', params, model, path and store.load(path))
  return {'members': list(members)} | ({'values': values} if values else {})


def _same(first, other, field):
  """Raises UserError where two runs are of different models or vocabularies."""
  if models.config(other, field) != models.config(first, 'members'):
    raise UserError(
      f'{field}: {other} holds another model than {first}: average runs of one stage'
    )
  marks = {models.identity(m)['vocabulary'] for m in (first, other)}
  if len(marks) > 1:
    raise UserError(
      f'{field}: {other} was trained with another vocabulary than {first}: average '
      'runs of one stage'
    )
  if _ranks(first) != _ranks(other):
    raise UserError(
      f'{field}: of {first} and {other} one is a reward model: average runs of one '
      'stage'
    )


def _ranks(workdir):
  """Whether the parameters are a reward model's, by the names of its arrays."""
  recorded = beside.digests(models.folder(workdir, 'members')) or {'arrays': ()}
  return any(name.startswith('model.') for name in recorded['arrays'])


def _load(workdir, model, field):
  if _ranks(workdir):
    return reward.load(workdir, field)[0]
  return models.load(workdir, model, field=field)[0]


def _chosen(config):
  """(members, their scales, {member: value}) of the best, or all without values."""
  if not config.top:
    return config.members, config.scales, {}
  if config.best not in ('least', 'most'):
    raise UserError(f'best={config.best!r} is unknown: use least or most')
  places = config.evaluations or config.members
  if len(places) != len(config.members):
    raise UserError(
      f'evaluations: {len(places)} workdirs for {len(config.members)} members: one each'
    )
  values = [_value(place, config.by) for place in places]
  sign = -1 if config.best == 'most' else 1
  order = sorted(range(len(values)), key=lambda i: sign * values[i])
  kept = sorted(order[: config.top])
  scales = config.scales
  if len(scales) == len(values):  # of all members, else of those that are left
    scales = [scales[i] for i in kept]
  members = [config.members[i] for i in kept]
  return members, scales, dict(zip(config.members, values))


def _value(workdir, by):
  """The number at a dotted path of a finished run's results.json."""
  path = pathlib.Path(workdir) / 'results.json'
  found = files.read_json(path)
  for name in by.split('.'):
    there = ', '.join(found) if isinstance(found, dict) else 'no names'
    found = found.get(name) if isinstance(found, dict) else None
    if found is None:
      raise UserError(f'by={by}: {path} has no {name}; it has {there}')
  if isinstance(found, bool) or not isinstance(found, (int, float)) or found != found:
    raise UserError(f'by={by}: {path} has {found!r} there, which is not a number')
  return found
