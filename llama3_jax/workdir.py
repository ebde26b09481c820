"""A workdir belongs to one run: its config, fingerprints of its inputs, its results."""

import functools
import importlib.metadata
import json
import math
import os
import pathlib
import tempfile
import time
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

from absl import logging
from ml_collections import ConfigDict

from llama3_jax import config as configs
from llama3_jax.base import content
from llama3_jax.base import fields
from llama3_jax.base import files
from llama3_jax.base import lock
from llama3_jax.base import processes
from llama3_jax.base.errors import UserError

NAME = 'config.json'
# Only a run writes these: a folder with one of them and no config.json is refused.
OUTPUTS = ('results.json', 'final', 'checkpoints', 'metrics.jsonl')
# What results may have as their main measure, the first that is there, and its name.
MEASURES = {'eval_loss': 'held-out loss', 'accuracy': 'accuracy', 'score': 'score'}


def stage(
  *outputs: str,
  made: Callable[[ConfigDict, Mapping], Iterable[str]] | None = None,
  free: Sequence[str] = (),
  report: Callable[[pathlib.Path, Mapping], None] | None = None,
) -> Callable[[Callable], Callable]:
  """Decorator that turns `main(config, folder) -> results` into main(config, workdir).

  The workdir is claimed for the config; a run that is finished there is not run again;
  the results of main are returned and written to results.json, last of all.

  Args:
    outputs: files and folders of a finished run, relative to the workdir.
    made: (config, results) -> such names, where they depend on these.
    free: fields that may change between two starts of one run, besides those that are
      marked so in base/ranges.py. Paths of inputs may if the content is the same.
    report: report(folder, results) writes the page of a run before its results; a run
      whose page cannot be written is finished all the same.
  """

  def decorate(main):
    @functools.wraps(main)
    def run(config, workdir):
      folder = claim(config, workdir, free)
      names = functools.partial(made, config) if made else lambda results: outputs
      results = finished(folder, names)
      if results is None:
        results = main(config, folder)
        if report and processes.first():
          _reported(report, folder, results)
        processes.write_json(folder / 'results.json', results)
      return results

    return run

  return decorate


def _reported(report, folder, results):
  """Calls report(folder, results); what goes wrong is a line in the log."""
  try:
    report(folder, results)
  except Exception as e:
    reason = ' '.join(f'{type(e).__name__}: {e}'.split())[:200]
    logging.warning('%s: the run is whole, its page is not (%s)', folder, reason)


def measured(results: object) -> tuple[str | None, float]:
  """(one of MEASURES, its value) of the results of a run; (None, nan) without one."""
  results = results if isinstance(results, Mapping) else {}
  if isinstance(results.get('tasks'), Mapping):  # of an evaluation
    results = {'score': results['tasks'].get('macro', {}).get('score')}
  for name in MEASURES:
    value = results.get(name)
    value = value.get(name) if isinstance(value, Mapping) else value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
      return name, float(value)
  return None, math.nan


def said(results: object) -> str:
  """The main measure of results in words: 'held-out loss 2.816'; '' without one."""
  name, value = measured(results)
  return f'{MEASURES[name]} {value:.4g}' if name else ''


def claim(
  config: ConfigDict, workdir: str | os.PathLike, free: Sequence[str] = ()
) -> pathlib.Path:
  """Creates `workdir` and its config.json, or checks that it belongs to this config.

  Returns the folder. Raises UserError naming the differing keys when another config
  was run there, or the same with other inputs (model, vocabulary or data, at any path),
  and when another process runs there.
  """
  if not str(workdir):
    raise UserError('--workdir is empty: name the folder for all output')
  if '://' in str(workdir):
    raise UserError(
      f'--workdir={workdir}: metrics need a local or shared folder; name one, and put '
      f'the checkpoints there with --config.train.checkpoints={workdir}'
    )
  flat, folder = configs.flatten(config), pathlib.Path(workdir)
  fields.check(flat)
  if name := content.inside(flat, folder):
    raise UserError(
      f'--workdir={workdir} is inside text={name}, so the run would read what it '
      'writes: choose another --workdir'
    )
  if processes.first():
    _take(config, workdir, folder, free)
  processes.meet('workdir')
  if not (folder / NAME).exists():
    raise UserError(
      f'--workdir={workdir}: this process does not see what the first one wrote there; '
      'name a folder that all machines share'
    )
  return folder


def _take(config, workdir, folder, free):
  """The part of `claim` that only the first process runs."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / 'results.json').exists():
      with tempfile.TemporaryFile(dir=folder):
        pass  # fail now rather than after the first steps
  except OSError as e:
    raise UserError(f'--workdir={workdir}: {e.strerror}; choose a folder you can write')
  try:
    lock.take(_locked(config, folder))
  except OSError:
    if not (folder / 'results.json').exists():
      raise
  now = _described(config, folder)
  path = folder / NAME
  # A run that failed before it wrote anything has no claim on the folder.
  begun = set(os.listdir(folder)) - {NAME, lock.NAME, '.hosts'}
  if not path.exists() and (outputs := begun & set(OUTPUTS)):
    raise UserError(
      f'--workdir={workdir} holds {min(outputs)} but no {NAME}: whose it is cannot be '
      'told; choose another --workdir, or put that file back'
    )
  if not path.exists() or not begun:
    versions = {}
    for package in ('jax', 'flax', 'optax', 'orbax-checkpoint', 'grain'):
      versions[package] = importlib.metadata.version(package)
    files.write_json(path, {**now, 'versions': versions})
    return
  record = read(path)
  if different := _differences(record, now, free):
    raise UserError(
      f'--workdir={workdir} holds a run of another config ({different}): choose '
      'another --workdir or remove this one'
    )
  if record['config'].get('train.steps') != now['config'].get('train.steps'):
    _lengthen(folder, record['config'], now['config'])
  made_from = record['made_from'] | now['made_from']
  if record['config'] != now['config'] or made_from != record['made_from']:
    files.write_json(path, {**record, 'config': now['config'], 'made_from': made_from})


def _locked(config, folder):
  """The folder whose lock a run takes: its own, but each of several hosts that share a
  workdir has one inside."""
  if config.get('hosts', 1) == 1:
    return folder
  inside = folder / '.hosts' / str(config.get('host', 0))
  inside.mkdir(parents=True, exist_ok=True)
  return inside


def own(folder: pathlib.Path, workdir: str | os.PathLike, field: str) -> None:
  """Claims a `folder` elsewhere for the saves of the run in `workdir`, permanently.

  Raises UserError (naming the config's `field`) when it has saves of another run, or
  saves without a record of their run, and when another process uses it.
  """
  mark, claimed = folder / NAME, pathlib.Path(workdir) / NAME
  # A loop that was started without `claim`, in a notebook, has no record to write.
  now = read(claimed) if claimed.exists() else {'config': {}, 'made_from': {}}
  taken = None
  if mark.exists() and not claimed.exists():
    raise UserError(f'{field}={folder} holds the saves of another run: name another')
  if mark.exists():
    try:
      taken = _whole(json.loads(mark.read_text()), mark)
    except (OSError, ValueError, RecursionError, UserError):
      raise UserError(f'{field}={folder}: {NAME} there is not readable: name another')
    if different := _differences(taken, now):
      raise UserError(
        f'{field}={folder} holds the saves of another run ({different}; its workdir '
        f'was {taken.get("workdir")}): name another folder'
      )
  elif any(p.name.isdigit() for p in folder.iterdir()):
    if not (pathlib.Path(workdir) / 'metrics.jsonl').exists():
      raise UserError(
        f'{field}={folder} holds saves, and no {NAME} says of which run: name another '
        'folder'
      )
  shared = '://' in str(folder)
  if not shared:
    lock.take(folder, field)
  whose = {**now, 'workdir': str(pathlib.Path(workdir).resolve())}
  if claimed.exists() and taken != whose:
    mark.write_text(json.dumps(whose, indent=1) + '\n')


def read(path: str | os.PathLike) -> dict[str, object]:
  """The {config, made_from, ...} of a config.json; UserError for another file."""
  return _whole(files.read_json(path), path)


def _whole(record, path):
  before = record.get('made_from') if isinstance(record, dict) else None
  flat = record.get('config') if isinstance(record, dict) else None
  steps = flat.get('train.steps', 0) if isinstance(flat, dict) else None
  if type(steps) is not int or not isinstance(before or {}, dict):
    raise UserError(f'{path} is not readable: remove it or choose another --workdir')
  return {**record, 'made_from': before or {}}


def _described(config, folder):
  """{config, made_from} of a run, as values of JSON."""
  return {
    'config': _recorded(config, folder),
    'made_from': content.inputs(configs.flatten(config)),
  }


def _recorded(config, folder):
  """{path: value} of a config as config.json of `folder` has it."""
  beside = folder.resolve().parent
  plain = {k: _plain(v, beside) for k, v in configs.flatten(config).items()}
  return json.loads(json.dumps(plain, default=str))


def _plain(value, beside):
  """A value as JSON has it; a path into `beside` becomes relative to the workdir, so
  that stages which were moved together are still the same runs."""
  if isinstance(value, (tuple, list)):
    return [_plain(v, beside) for v in value]
  if isinstance(value, str):
    return value.replace(f'{beside}{os.sep}', f'..{os.sep}')
  return value


def _differences(record, now, free=()):
  """'optim.lr 1 -> 2, ...': the differences of the run `now` from the recorded one."""
  old, flat = record['config'], now['config']
  before, made_from = record['made_from'], now['made_from']
  # A field that is new since then takes its default.
  changed = [k for k in flat if k in old and old[k] != flat[k]]
  changed += [
    k
    for k in sorted(old | flat)
    if k.startswith(configs.OPEN) and old.get(k, 0) != flat.get(k, 0)
  ]
  exempt = flat.get('experiment') in content.EXEMPT
  others = [k for k in before if before[k] != made_from.get(k, before[k])]
  lines = []
  for k in dict.fromkeys(changed):
    if k == 'train.steps' and _more(old, flat) or k in free or fields.free(k):
      continue
    if k in content.INPUTS:
      if exempt or content.same(k, before, made_from):
        continue
      others = [other for other in others if other.partition('/')[0] != k]
    lines.append(f'{k} {old.get(k)} -> {flat.get(k)}')
  more = f' and {len(lines) - 4} more' if len(lines) > 4 else ''
  lines = lines[:4] + [f'{k} has other content than then' for k in others]
  return ', '.join(lines[:6]) + more


def _more(old, flat):
  """Whether a run gets more steps; 0 of a stage with epochs are as many as they need,
  which is not known here."""
  before = old['train.steps']
  return flat['train.steps'] > before and (before > 0 or 'data.epochs' not in flat)


def differing(config: ConfigDict, folder: str | os.PathLike) -> str:
  """The fields in which the run of a folder is of another config than this one, '' for
  none; the content of its inputs is not compared."""
  record = read(pathlib.Path(folder) / NAME)
  flat = _recorded(config, pathlib.Path(folder))
  return _differences(record, {'config': flat, 'made_from': record['made_from']})


def _lengthen(folder, old, flat):
  """Prepares a finished run for more steps: its results are kept under another name."""
  results, before = folder / 'results.json', old['train.steps']
  if results.exists():
    os.replace(results, folder / f'results_{before}.json')
  decay = flat.get('optim.decay')
  rate = 'is from now on that of a run of so many steps (optim.decay=0)'
  if decay:
    rate = f'follows optim.decay={decay}, after which it stays at its floor'
  logging.info(
    'train.steps %d -> %d: the run resumes from its newest save; the learning rate %s',
    *(before, flat['train.steps'], rate),
  )


def finished(
  folder: str | os.PathLike,
  outputs: Callable[[Mapping], Iterable[str]] = lambda results: (),
) -> dict[str, object] | None:
  """The results of a finished run, with a line in the log; None if it is not finished.

  outputs(results): paths, relative to the folder, of the outputs of the run. If one is
  missing, the log says so and the run is not finished.
  """
  path = pathlib.Path(folder) / 'results.json'
  if not path.exists():
    return None
  results = files.read_json(path)
  if not isinstance(results, dict):
    raise UserError(
      f'{path} holds no results: remove it and run the same command again'
    )
  for output in outputs(results):
    if not (path.parent / output).exists():
      logging.warning('%s is missing: running again', path.parent / output)
      return None
  date = time.strftime('%Y-%m-%d %H:%M', time.localtime(path.stat().st_mtime))
  result = said(results)
  result = result and f' ({result})'
  logging.info('%s: finished on %s%s, nothing to do', folder, date, result)
  return results
