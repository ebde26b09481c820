"""Average of the weights of models from several runs of one stage (4.1.5).

  python -m experiment --config=configs/average.py --workdir=runs/average \\
    --config.members="('runs/dpo_a', 'runs/dpo_b')"

Expected: no worse than the mean of its members (see experiments/evaluate.py). Writes
final/ and results.json.
"""

import pathlib

from llama3_jax import workdir as workdirs
from llama3_jax.base.errors import UserError
from llama3_jax.text import store
from llama3_jax.train import average
from llama3_jax.train import final
from llama3_jax.train import models


@workdirs.stage('final')
def main(config, folder):
  """Average; returns {'members'}."""
  if not config.members:
    raise UserError('members is empty: name the workdirs to average')
  model = models.config(config.members[0], 'members')
  if len({str(pathlib.Path(m).resolve()) for m in config.members}) < len(
    config.members
  ):
    raise UserError('members names a workdir twice: each counts once')
  for member in config.members[1:]:
    if models.config(member, 'members') != model:
      raise UserError(
        f'members: {member} holds another model than {config.members[0]}: average '
        'runs of one stage'
      )
    marks = {models.identity(m)['vocabulary'] for m in (config.members[0], member)}
    if len(marks) > 1:
      raise UserError(
        f'members: {member} was trained with another vocabulary than '
        f'{config.members[0]}: average runs of one stage'
      )
  loaded = (models.load(m, model, field='members')[0] for m in config.members)
  path = models.tokenizer(config.members[0])
  tokenizer = path and store.load(path)
  final.save(folder / 'final', average.mean(loaded), model, tokenizer)
  return {'members': list(config.members)}
