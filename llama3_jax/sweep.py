"""The members of a sweep: configs and workdirs, and the table of their results."""

import inspect
import json
import math
import os
import pathlib
import types
from collections.abc import Mapping
from collections.abc import Sequence

from ml_collections import ConfigDict

from llama3_jax import config as configs
from llama3_jax import override
from llama3_jax import workdir as workdirs
from llama3_jax.base import files
from llama3_jax.base.errors import UserError

NAME = 'sweep.json'
# Fields that say what the held-out loss is measured on.
HELD_OUT = ('data.mix.', 'data.changes', 'data.root', 'data.heldout')


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


def everyone(
  module: types.ModuleType,
  config: ConfigDict,
  flags: Mapping[str, object],
  overrides: Mapping[str, str],
  workdir: str,
) -> list[tuple[ConfigDict, str]]:
  """(config, workdir) of every member of the sweep, whichever of them the flags ask
  for; [] without a sweep."""
  if not {'sweep', 'sweep_index'} & set(flags):
    return []
  whole = {name: value for name, value in flags.items() if name != 'sweep_index'}
  return members(module, config, {**whole, 'sweep': True}, overrides, workdir)


def write(folder: str | os.PathLike, runs: Sequence[tuple[ConfigDict, str]]) -> dict:
  """Writes <folder>/sweep.json, whole or not at all; returns what is in it.

  The jobs of an array write it at the same time: what was finished meanwhile is in it.
  """
  while True:
    found = collect(runs)
    files.write_json(pathlib.Path(folder, NAME), found)
    if collect(runs) == found:
      return found


def collect(runs: Sequence[tuple[ConfigDict, str]]) -> dict:
  """Results of the members of a sweep so far.

  Returns:
    {'fields': paths in which the members differ, 'measure': 'eval_loss', or what else
    of workdir.MEASURES they have, None before the first is finished, 'members':
    [{'member', 'state': 'finished', 'not finished' or 'of another config', fields,
    measure}], 'best': a member's name or None, 'why': why none is the best}.
  """
  flat = [configs.flatten(config) for config, _ in runs]
  names = [n for n in sorted(flat[0]) if len({str(f.get(n)) for f in flat}) > 1]
  names = [n for n in names if n != 'train.checkpoints']
  rows, measured = [], []
  for (config, workdir), values in zip(runs, flat):
    state, results = _results(config, pathlib.Path(workdir))
    row = {'member': os.path.basename(workdir), 'state': state}
    rows.append(row | {n: values.get(n) for n in names})
    measured.append(workdirs.measured(results))
  kinds = [m for m in workdirs.MEASURES if any(m == name for name, _ in measured)]
  kind = kinds[0] if kinds else None
  for row, (name, value) in zip(rows, measured):
    if kind:
      row[kind] = value if name == kind and math.isfinite(value) else None
  best, why = _best(rows, kind, names)
  found = {'fields': names, 'measure': kind, 'members': rows, 'best': best, 'why': why}
  return json.loads(json.dumps(found, default=str))


def _results(config, folder):
  """(state, results) of a member; results are {} where none are of this config."""
  path = folder / 'results.json'
  if not path.exists():
    return 'not finished', {}
  if workdirs.differing(config, folder):
    return 'of another config', {}
  return 'finished', files.read_json(path)


def _best(rows, kind, names):
  """(member, '') or (None, why there is no best)."""
  other = [n for n in names if n.startswith(HELD_OUT)]
  if other:
    return None, f'{other[0]} differs, so each was measured on text of its own'
  known = [row for row in rows if row.get(kind) is not None]
  if not known:
    return None, ''
  choose = min if kind == 'eval_loss' else max
  return choose(known, key=lambda row: row[kind])['member'], ''


def table(found: Mapping) -> str:
  """Text table of what `collect` returns: a row a member, the best one marked."""
  names, kind = found['fields'], found['measure']
  rows = [['member', *names, kind or 'results']]
  for row in found['members']:
    value = row.get(kind)
    shown = row['state'] if value is None else f'{value:.4f}'
    mark = '  <- best' if row['member'] == found['best'] else ''
    rows.append([row['member'], *(str(row[n]) for n in names), shown + mark])
  widths = [max(map(len, column)) for column in zip(*rows)]
  lines = ['  '.join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in rows]
  lines += [f'no best: {found["why"]}'] if found['why'] else []
  return '\n'.join(lines) + '\n'
