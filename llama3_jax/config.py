"""Configuration: ConfigDict at the edge, frozen dataclasses inside."""

import dataclasses
import difflib
import importlib.metadata
import json
import os
import pathlib
import sys
import tempfile
import time

import ml_collections
from absl import logging

from llama3_jax.base import content
from llama3_jax.base import fields
from llama3_jax.base import lock
from llama3_jax.base.errors import UserError


@dataclasses.dataclass(frozen=True)
class RopeScaling:
  """Llama 3.1 frequency scaling; `original` is the context before extension, tokens."""

  factor: float = 8.0
  low: float = 1.0
  high: float = 4.0
  original: int = 8192


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """Sizes and switches of the decoder (paper table 3; released code for the rest)."""

  n_layers: int
  d_model: int
  n_heads: int
  n_kv_heads: int
  d_head: int
  d_ff: int
  vocab_size: int = 128_256
  rope_theta: float = 500_000.0
  rope_scaling: RopeScaling | None = None
  norm_eps: float = 1e-5
  tie_embeddings: bool = False
  dtype: str = 'bfloat16'  # of the computation; parameters stay float32 in training
  attention: str = 'auto'  # dense | blockwise | splash | flash | auto: by chip, length
  block: int = 0  # tokens a block of attention; 0: by path
  remat: str = 'none'  # none | full | preset | names of what is kept (model/remat.py)
  reshard: bool = True  # False: weights stay gathered until the backward pass (3.3.2)
  reduce_dtype: str = 'float32'  # in which gradients of weights are made and summed
  quant: str = ''  # '' | int8 | fp8: the layers' matrix products (quant.py)
  embedding: str = 'gather'  # or 'onehot': a product, no gather from a sharded table

  @property
  def sizes(self):
    """Size of every letter of the alphabet that a parameter uses."""
    return dict(
      L=self.n_layers,
      D=self.d_model,
      N=self.n_heads,
      K=self.n_kv_heads,
      H=self.d_head,
      F=self.d_ff,
      V=self.vocab_size,
    )


def model_config(config):
  """ModelConfig from the `model` part of a ConfigDict; UserError for a bad value."""
  values = config.to_dict() if hasattr(config, 'to_dict') else dict(config)
  scaling = values.get('rope_scaling')
  if scaling is not None and not isinstance(scaling, RopeScaling):
    # factor 1 is how a config file says "no scaling": a ConfigDict field keeps its type
    values['rope_scaling'] = RopeScaling(**scaling) if scaling['factor'] != 1 else None
  c = ModelConfig(**values)
  if c.n_heads % c.n_kv_heads:
    raise UserError(
      f'model.n_heads={c.n_heads} is not a multiple of '
      f'model.n_kv_heads={c.n_kv_heads}: every KV head serves the same number of heads'
    )
  if c.d_head % 2:
    raise UserError(f'model.d_head={c.d_head} is odd: RoPE rotates pairs of channels')
  if c.rope_scaling and not c.rope_scaling.low < c.rope_scaling.high:
    raise UserError(
      f'model.rope_scaling.high={c.rope_scaling.high} must be above '
      f'model.rope_scaling.low={c.rope_scaling.low}: between them RoPE blends'
    )
  choices = dict(
    dtype=('bfloat16', 'float32'),
    reduce_dtype=('float32', 'bfloat16'),
    attention=('auto', 'dense', 'blockwise', 'splash', 'flash'),
    embedding=('gather', 'onehot'),
  )
  for field, allowed in choices.items():
    if getattr(c, field) not in allowed:
      raise UserError(
        f'model.{field}={getattr(c, field)!r} is none of {", ".join(allowed)}'
      )
  return c


def model_fields(c):
  """The `model` part of a ConfigDict that `model_config` turns back into `c`."""
  values = dataclasses.asdict(c)
  if c.rope_scaling is None:
    values['rope_scaling'] = dataclasses.asdict(RopeScaling(factor=1.0))
  return ml_collections.ConfigDict(values)


def flatten(config, prefix=''):
  """{'optim.lr': value, ...} of a ConfigDict, the paths sorted."""
  flat = {}
  for name in sorted(config):
    value = config[name]
    if isinstance(value, ml_collections.ConfigDict):
      flat |= flatten(value, f'{prefix}{name}.')
    else:
      flat[prefix + name] = value
  return flat


def edit(config, changes):
  """A copy of `config` with {'data.root': value, ...} set; fields may be new."""
  config = config.copy_and_resolve_references()
  for path, value in changes.items():
    *parents, name = path.split('.')
    node = config
    for parent in parents:
      node = node[parent]
    node[name] = value
  return config


def choose(file, argument, choices):
  """`argument` of a config file; UserError that names the valid ones."""
  if argument not in choices:
    near = nearest(argument, choices)
    hint = f'; did you mean {" or ".join(near)}?' if near else ''
    raise UserError(
      f'--config=configs/{file}.py:{argument}: the argument is one of '
      f'{", ".join(choices)}{hint}'
    )
  return argument


def nearest(path, paths):
  """The `paths` a misspelt `path` may have meant: alike as a whole or at the end."""
  last = {}
  for p in paths:
    last.setdefault(p.rsplit('.', 1)[-1], []).append(p)
  near = difflib.get_close_matches(path, paths, n=3, cutoff=0.6)
  for word in difflib.get_close_matches(path.rsplit('.', 1)[-1], last, n=3, cutoff=0.6):
    near += [p for p in last[word] if p not in near]
  return near[:4]


def _plain(value, beside):
  """JSON's form of a value; a path into `beside` is kept relative to the workdir, so
  that stages which were moved together are still the same runs."""
  if isinstance(value, (tuple, list)):
    return [_plain(v, beside) for v in value]
  if isinstance(value, str):
    return value.replace(f'{beside}{os.sep}', f'..{os.sep}')
  return value


# What may change between two starts of one run without making it another run.
FREE = ('train.log_every', 'train.microbatches', 'data.root', 'init_from')
# A checkpoint restores onto any mesh.
FREE += ('mesh.replica', 'mesh.fsdp', 'mesh.stage', 'mesh.context', 'mesh.tensor')
FREE += tuple(f'pipeline.{n}' for n in ('chunks', 'group', 'form', 'bare', 'together'))
# How a run is kept alive; a run that was stopped by one of these goes on with another.
FREE += ('train.on_bad_step', 'train.spike_sigma', 'train.max_bad_steps')
FREE += ('train.rewind_steps', 'train.max_rewinds', 'train.keep', 'train.keep_every')
FREE += ('train.watchdog_s', 'train.watchdog_exit', 'train.replay_every')
FREE += ('train.stats_every', 'train.checkpoints')
# Sections whose keys are the user's: a new key there is a change, not a new field.
OPEN = ('data.mix.',)


def cache_folder():
  """LLAMA3_CACHE, or ~/.cache/llama3_jax."""
  default = pathlib.Path.home() / '.cache' / 'llama3_jax'
  return pathlib.Path(os.environ.get('LLAMA3_CACHE') or default)


def first():
  """Whether this process is the one of several that writes files."""
  jax = sys.modules.get('jax')  # not imported here: no device is touched for this
  return jax is None or not jax.distributed.is_initialized() or not jax.process_index()


def meet(name):
  """Waits for all processes; each calls it at the same place."""
  jax = sys.modules.get('jax')
  if jax and jax.distributed.is_initialized() and jax.process_count() > 1:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(name)


def open_workdir(config, workdir, free=FREE):
  """Create `workdir` and its config.json, or check that it belongs to this config.

  Raises UserError naming the differing keys when another config was run there, or the
  same with another input (another model, vocabulary or data, wherever it lies), and
  when another process runs there.
  """
  if not str(workdir):
    raise UserError('--workdir is empty: name the folder for all output')
  if '://' in str(workdir):
    raise UserError(
      f'--workdir={workdir}: metrics need a local or shared folder; name one, and put '
      f'the checkpoints there with --config.train.checkpoints={workdir}'
    )
  fields.check(flatten(config))
  folder = pathlib.Path(workdir)
  if first():
    _claim(config, workdir, folder, free)
  meet('workdir')
  if not (folder / 'config.json').exists():
    raise UserError(
      f'--workdir={workdir}: this process does not see what the first one wrote there; '
      'name a folder that all machines share'
    )
  return folder


def _claim(config, workdir, folder, free):
  """The one process's part of open_workdir."""
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
  beside = folder.resolve().parent
  flat = {k: _plain(v, beside) for k, v in flatten(config).items()}
  flat = json.loads(json.dumps(flat, default=str))
  made_from = content.inputs(flatten(config))
  path = folder / 'config.json'
  # A start that failed before it wrote anything has no claim on the folder.
  begun = set(os.listdir(folder)) - {'config.json', lock.NAME}
  if path.exists() and begun:
    _compare(path, flat, made_from, workdir, free)
    return
  versions = {}
  for package in ('jax', 'flax', 'optax', 'orbax-checkpoint', 'grain'):
    versions[package] = importlib.metadata.version(package)
  replace(path, {'config': flat, 'made_from': made_from, 'versions': versions})


def _compare(path, flat, made_from, workdir, free):
  """UserError when the config of `path` is another one; notes what may change."""
  found = read_json(path)
  if not isinstance(found, dict) or not isinstance(found.get('config'), dict):
    raise UserError(f'{path} is not readable: remove it or choose another --workdir')
  old, before = found['config'], found.get('made_from') or {}
  # A field that is new since then takes its default.
  changed = [k for k in flat if k in old and old[k] != flat[k]]
  changed += [
    k
    for k in sorted(old | flat)
    if k.startswith(OPEN) and old.get(k, 0) != flat.get(k, 0)
  ]
  longer = flat.get('train.steps', 0) > old.get('train.steps', 0)
  same = {k for k in before if before[k] == made_from.get(k)}
  different = [
    k
    for k in dict.fromkeys(changed)
    if k not in free and k not in same and not (k == 'train.steps' and longer)
  ]
  others = [k for k in before if k in made_from and k not in same]
  if different or others:
    shown = [f'{k} {old.get(k)} -> {flat.get(k)}' for k in different[:4]]
    shown += [f'{k} has other content than then' for k in others if k not in different]
    more = f' and {len(different) - 4} more' if len(different) > 4 else ''
    raise UserError(
      f'--workdir={workdir} holds a run of another config ({", ".join(shown[:6])}'
      f'{more}): choose another --workdir or remove this one'
    )
  if 'train.steps' in changed:
    _lengthen(path.parent, old, flat)
  if old != flat or made_from.keys() - before.keys():
    made_from = before | made_from
    replace(path, {**found, 'config': flat, 'made_from': made_from})


def _lengthen(folder, old, flat):
  """A run is asked for more steps: what it said at its end is kept beside it."""
  results, before = folder / 'results.json', old['train.steps']
  if results.exists():
    os.replace(results, folder / f'results_{before}.json')
  logging.info(
    'train.steps %d -> %d: the run resumes; the learning rate follows optim.decay=%s, '
    'after which it stays at its floor',
    before,
    flat['train.steps'],
    flat.get('optim.decay'),
  )


def finished(folder):
  """The results of a run that is finished, which is then said; else None."""
  path = pathlib.Path(folder) / 'results.json'
  if not path.exists():
    return None
  results = read_json(path)
  if not isinstance(results, dict):
    raise UserError(
      f'{path} holds no results: remove it and run the same command again'
    )
  date = time.strftime('%Y-%m-%d %H:%M', time.localtime(path.stat().st_mtime))
  logging.info('%s: finished on %s, nothing to do', folder, date)
  return results


def write_json(path, value):
  """Write `value` to `path` so that a reader sees the old file or the new one.

  Of several processes the first one writes, and none goes on before it has.
  """
  if first():
    replace(path, value)
  meet(pathlib.Path(path).name)


def replace(path, value):
  """write_json of one process alone."""
  path = pathlib.Path(path)
  temporary = path.with_name(path.name + '.tmp')
  temporary.write_text(json.dumps(value, indent=1) + '\n', encoding='utf-8')
  os.replace(temporary, path)


def read_json(path):
  """The value in a JSON file; UserError when it is missing or cut off."""
  try:
    return json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
  except FileNotFoundError:
    raise UserError(f'{path} is missing: run the step that writes it first')
  except (ValueError, RecursionError) as e:
    raise UserError(f'{path} is not valid JSON ({e}): remove it and run the step again')
