"""A workdir answers for one run: whose it is, what it was made from, what is done."""

import functools
import importlib.metadata
import json
import os
import pathlib
import tempfile
import time

from absl import logging

from llama3_jax import config as configs
from llama3_jax.base import content
from llama3_jax.base import fields
from llama3_jax.base import files
from llama3_jax.base import lock
from llama3_jax.base import processes
from llama3_jax.base.errors import UserError

NAME = 'config.json'
# What only a run writes: a folder with one of these and no config.json is somebody's.
OUTPUTS = ('results.json', 'final', 'checkpoints', 'metrics.jsonl')


def stage(*outputs, made=None, free=()):
  """Makes a recipe of `main(config, folder) -> results`: main(config, workdir).

  The workdir is claimed for the config; a run that is finished there is not made
  again; what main returns is returned and written to results.json, last of all.

  Args:
    outputs: what a finished run has left, names relative to the workdir.
    made: (config, results) -> such names, where they depend on these.
    free: fields that may change between two starts of one run, besides those that are
      marked so in base/fields.py. Paths of inputs may where the content is the same.
  """

  def decorate(main):
    @functools.wraps(main)
    def run(config, workdir):
      folder = claim(config, workdir, free)
      left = functools.partial(made, config) if made else lambda results: outputs
      results = finished(folder, left)
      if results is None:
        results = main(config, folder)
        processes.write_json(folder / 'results.json', results)
      return results

    return run

  return decorate


def claim(config, workdir, free=()):
  """Creates `workdir` and its config.json, or checks that it belongs to this config.

  Returns the folder. Raises UserError naming the differing keys when another config
  was run there, or the same with another input (another model, vocabulary or data,
  wherever it lies), and when another process runs there.
  """
  if not str(workdir):
    raise UserError('--workdir is empty: name the folder for all output')
  if '://' in str(workdir):
    raise UserError(
      f'--workdir={workdir}: metrics need a local or shared folder; name one, and put '
      f'the checkpoints there with --config.train.checkpoints={workdir}'
    )
  fields.check(configs.flatten(config))
  folder = pathlib.Path(workdir)
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
  """The one process's part of `claim`."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / 'results.json').exists():
      with tempfile.TemporaryFile(dir=folder):
        pass  # better now than after the first steps
  except OSError as e:
    raise UserError(f'--workdir={workdir}: {e.strerror}; choose a folder you can write')
  try:
    lock.take(folder)
  except OSError:
    if not (folder / 'results.json').exists():
      raise
  now = _described(config, folder)
  path = folder / NAME
  # A start that failed before it wrote anything has no claim on the folder.
  begun = set(os.listdir(folder)) - {NAME, lock.NAME}
  if not path.exists() and (found := begun & set(OUTPUTS)):
    raise UserError(
      f'--workdir={workdir} holds {min(found)} but no {NAME}: whose it is cannot be '
      'told; choose another --workdir, or put that file back'
    )
  if not path.exists() or not begun:
    versions = {}
    for package in ('jax', 'flax', 'optax', 'orbax-checkpoint', 'grain'):
      versions[package] = importlib.metadata.version(package)
    files.write_json(path, {**now, 'versions': versions})
    return
  found = read(path)
  if different := _differences(found, now, free):
    raise UserError(
      f'--workdir={workdir} holds a run of another config ({different}): choose '
      'another --workdir or remove this one'
    )
  if found['config'].get('train.steps') != now['config'].get('train.steps'):
    _lengthen(folder, found['config'], now['config'])
  made_from = found['made_from'] | now['made_from']
  if found['config'] != now['config'] or made_from != found['made_from']:
    files.write_json(path, {**found, 'config': now['config'], 'made_from': made_from})


def own(folder, workdir, field):
  """Takes `folder` of another place for the saves of the run in `workdir`, for good.

  Raises UserError (naming the config's `field`) when it holds those of another run, or
  saves that nobody signed, and when another process uses it.
  """
  mark, mine = folder / NAME, pathlib.Path(workdir) / NAME
  # A loop that was started without `claim`, in a notebook, has nothing to sign with.
  now = read(mine) if mine.exists() else {'config': {}, 'made_from': {}}
  taken = None
  if mark.exists() and not mine.exists():
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
  if mine.exists() and taken != whose:
    mark.write_text(json.dumps(whose, indent=1) + '\n')


def read(path):
  """The {config, made_from, ...} of a config.json; UserError when it is none."""
  return _whole(files.read_json(path), path)


def _whole(found, path):
  before = found.get('made_from') if isinstance(found, dict) else None
  flat = found.get('config') if isinstance(found, dict) else None
  steps = flat.get('train.steps', 0) if isinstance(flat, dict) else None
  if type(steps) is not int or not isinstance(before or {}, dict):
    raise UserError(f'{path} is not readable: remove it or choose another --workdir')
  return {**found, 'made_from': before or {}}


def _described(config, folder):
  """{config, made_from}: what a run is, in JSON's form."""
  beside = folder.resolve().parent
  flat = configs.flatten(config)
  plain = {k: _plain(v, beside) for k, v in flat.items()}
  plain = json.loads(json.dumps(plain, default=str))
  return {'config': plain, 'made_from': content.inputs(flat)}


def _plain(value, beside):
  """JSON's form of a value; a path into `beside` is kept relative to the workdir, so
  that stages which were moved together are still the same runs."""
  if isinstance(value, (tuple, list)):
    return [_plain(v, beside) for v in value]
  if isinstance(value, str):
    return value.replace(f'{beside}{os.sep}', f'..{os.sep}')
  return value


def _differences(found, now, free=()):
  """'optim.lr 1 -> 2, ...': in what the run `now` is not the one that was found."""
  old, flat = found['config'], now['config']
  before, made_from = found['made_from'], now['made_from']
  # A field that is new since then takes its default.
  changed = [k for k in flat if k in old and old[k] != flat[k]]
  changed += [
    k
    for k in sorted(old | flat)
    if k.startswith(configs.OPEN) and old.get(k, 0) != flat.get(k, 0)
  ]
  exempt = flat.get('experiment') in content.EXEMPT
  others = [k for k in before if before[k] != made_from.get(k, before[k])]
  shown = []
  for k in dict.fromkeys(changed):
    if k == 'train.steps' and flat[k] > old[k] or k in free or fields.free(k):
      continue
    if k in content.INPUTS:
      if exempt or content.same(k, before, made_from):
        continue
      others = [other for other in others if other.partition('/')[0] != k]
    shown.append(f'{k} {old.get(k)} -> {flat.get(k)}')
  more = f' and {len(shown) - 4} more' if len(shown) > 4 else ''
  shown = shown[:4] + [f'{k} has other content than then' for k in others]
  return ', '.join(shown[:6]) + more


def _lengthen(folder, old, flat):
  """A run is asked for more steps: what it said at its end is kept beside it."""
  results, before = folder / 'results.json', old['train.steps']
  if results.exists():
    os.replace(results, folder / f'results_{before}.json')
  logging.info(
    'train.steps %d -> %d: the run resumes from its newest save; the learning rate '
    'follows optim.decay=%s, after which it stays at its floor',
    before,
    flat['train.steps'],
    flat.get('optim.decay'),
  )


def finished(folder, outputs=lambda results: ()):
  """The results of a run that is finished, which is then said; else None.

  outputs(results): paths, relative to the folder, of what the run leaves: where one is
  gone, that is said and the run is made again.
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
      logging.warning('%s is gone: made again', path.parent / output)
      return None
  date = time.strftime('%Y-%m-%d %H:%M', time.localtime(path.stat().st_mtime))
  logging.info('%s: finished on %s, nothing to do', folder, date)
  return results
