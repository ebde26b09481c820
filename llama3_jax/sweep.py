"""The members of a sweep: configs and workdirs, and the table of their results."""

import inspect
import os
import pathlib
import types
from collections.abc import Mapping
from collections.abc import Sequence

from ml_collections import ConfigDict

from llama3_jax import config as configs
from llama3_jax import override
from llama3_jax.base import files
from llama3_jax.base.errors import UserError


def members(
  module: types.ModuleType,
  config: ConfigDict,
  flags: Mapping[str, object],
  overrides: Mapping[str, str],
  workdir: str,
) -> list[tuple[ConfigDict, str]]:
  """(config, workdir) of every run that the flags ask for; `module` is the config's."""
  if not {'sweep', 'sweep_index'} & set(flags):
    override.apply(config, overrides)
    return [(config, workdir)]
  if not hasattr(module, 'sweep'):
    raise UserError(f'--sweep: {flags["config"]} defines no sweep()')
  # A sweep may depend on the argument of the config, as get_config does.
  argument = flags['config'].partition(':')[2]
  takes = argument and inspect.signature(module.sweep).parameters
  runs = []
  for i, changes in enumerate(module.sweep(argument) if takes else module.sweep()):
    member = config.copy_and_resolve_references()
    override.apply(member, {**changes, **overrides})
    if (
      member.get('train', {}).get('checkpoints') and 'train.checkpoints' not in changes
    ):
      member.train.checkpoints = os.path.join(member.train.checkpoints, str(i))
    runs.append((member, os.path.join(workdir, str(i))))
  if 'sweep_index' not in flags:
    return runs
  index = flags['sweep_index']
  if not 0 <= index < len(runs):
    raise UserError(
      f'--sweep_index={index}: the sweep has members 0 to {len(runs) - 1}'
    )
  return [runs[index]]


def table(runs: Sequence[tuple[ConfigDict, str]]) -> str:
  """Text table of the fields in which members of a sweep differ, and their losses."""
  flat = [configs.flatten(config) for config, _ in runs]
  names = sorted(k for k in flat[0] if len({str(f.get(k)) for f in flat}) > 1)
  rows = [['member', *names, 'eval_loss']]
  for values, (_, workdir) in zip(flat, runs):
    path = pathlib.Path(workdir, 'results.json')
    results = files.read_json(path) if path.exists() else {}
    loss = results.get('eval_loss', '')
    loss = loss.get('eval_loss', '') if isinstance(loss, dict) else loss
    loss = f'{loss:.4f}' if isinstance(loss, float) else str(loss)
    rows.append([os.path.basename(workdir), *(str(values[n]) for n in names), loss])
  widths = [max(map(len, column)) for column in zip(*rows)]
  lines = ['  '.join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in rows]
  return '\n'.join(lines) + '\n'
