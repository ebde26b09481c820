"""The launcher: python -m experiment --config=configs/pretrain.py:tiny --workdir=DIR

--config=FILE[:ARG]        the config file and the size or budget it is asked for
--config.optim.peak=1e-3   changes one field; a misspelt one is named, with the nearest
--workdir=DIR              all output; the same command again resumes
--data=DIR                 short for --config.data=DIR (real data for the herd)
--sweep                    runs all members of the config's sweep(), each in DIR/<index>
--sweep_index=I            runs member I only (array jobs)
--devices=N                N virtual CPU devices (to try a mesh on a laptop)
--coordinator=HOST:PORT --processes=N --process=I   several hosts; TPU pods need none
"""

import importlib
import importlib.util
import os
import pathlib
import re
import signal
import sys
import threading
import time

ROOT = pathlib.Path(__file__).parent


def load_config(argument):
  """(module, ConfigDict) of FILE[:ARG]."""
  from llama3_jax.config import UserError

  path, _, variant = argument.partition(':')
  file = next((p for p in (pathlib.Path(path), ROOT / path) if p.is_file()), None)
  if file is None or file.suffix != '.py':
    known = ', '.join(sorted(f'configs/{p.name}' for p in _files('configs')))
    raise UserError(f'--config={path}: no such config file; there are {known}')
  spec = importlib.util.spec_from_file_location(f'config_{file.stem}', file)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module, module.get_config(variant) if variant else module.get_config()


def override(config, overrides):
  """Set {'optim.peak': '1e-3'} in place, with the type of the present value."""
  from llama3_jax import config as configs

  flat = configs.flatten(config)
  for path, text in overrides.items():
    if path not in flat:
      near = configs.nearest(path, sorted(flat))
      hint = f'did you mean {" or ".join(near)}?' if near else 'see --help'
      raise configs.UserError(f'--config.{path}: no such field; {hint}')
    *parents, name = path.split('.')
    node = config
    for parent in parents:
      node = node[parent]
    node[name] = _parse(path, text, flat[path])


def _parse(path, text, present):
  from llama3_jax.config import UserError

  if not isinstance(text, str):
    return text
  try:
    if isinstance(present, bool):
      return {'true': True, '1': True, 'false': False, '0': False}[text.lower()]
    if isinstance(present, int):
      return int(float(text)) if float(text).is_integer() else int(text)
    if isinstance(present, float):
      return float(text)
    if isinstance(present, (tuple, list)):
      import ast

      value = ast.literal_eval(text)
      return tuple(value) if isinstance(value, (tuple, list)) else (value,)
  except (KeyError, ValueError, SyntaxError):
    kind = type(present).__name__
    raise UserError(f'--config.{path}={text}: not a {kind} (it is {present!r} now)')
  return text


def parse(arguments):
  """(flags, overrides) of the command line; UserError for what is not understood."""
  from llama3_jax.config import UserError

  flags, overrides = {}, {}
  names = ('config', 'workdir', 'sweep', 'sweep_index', 'devices', 'help')
  names += ('coordinator', 'processes', 'process')
  for argument in arguments:
    match = re.fullmatch(r'--?([\w.\-]+)(?:=(.*))?', argument, re.S)
    name, value = match.groups() if match else (argument, None)
    if name == 'data':
      name = 'config.data'
    if name.startswith('config.') and value is not None:
      overrides[name.removeprefix('config.')] = value
    elif name in names or name == 'h':
      flags[name] = value if value is not None else 'true'
    else:
      raise UserError(f'{argument}: not understood; see python -m experiment --help')
  return flags, overrides


def _number(flags, name):
  """The flag as an int."""
  from llama3_jax.config import UserError

  try:
    return int(flags[name])
  except (KeyError, ValueError):
    raise UserError(f'--{name}={flags.get(name, "")}: a whole number is needed')


def _files(folder):
  return [p for p in (ROOT / folder).glob('*.py') if p.stem != '__init__']


def help_text():
  """The docstring above, and one line for every experiment and config."""
  lines = [__doc__.strip()]
  for folder in ('experiments', 'configs'):
    lines.append(f'\n{folder}:')
    for file in sorted(_files(folder)):
      match = re.search(r'"""(.*?)(?:\n|""")', file.read_text())
      lines.append(f'  {file.stem:<12} {match.group(1) if match else ""}')
  return '\n'.join(lines)


def run(config, workdir):
  """Make the mesh and call the experiment's main; returns its results."""
  import jax

  from llama3_jax import mesh

  main = importlib.import_module(f'experiments.{config.experiment}').main
  if 'mesh' not in config:
    return main(config, workdir)
  with jax.set_mesh(mesh.create(config.mesh)):
    return main(config, workdir)


def _devices(flags):
  if 'devices' in flags:
    count = f'--xla_force_host_platform_device_count={_number(flags, "devices")}'
    os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {count}'
  import jax

  cache = os.environ.get('LLAMA3_CACHE', os.path.expanduser('~/.cache/llama3_jax'))
  jax.config.update('jax_compilation_cache_dir', os.path.join(cache, 'compiled'))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.05)
  if 'coordinator' in flags:
    jax.distributed.initialize(
      flags['coordinator'], _number(flags, 'processes'), _number(flags, 'process')
    )
  elif os.environ.get('TPU_WORKER_HOSTNAMES', '').count(',') or (
    int(os.environ.get('SLURM_NTASKS', 1)) > 1
  ):
    jax.distributed.initialize()


def members(module, config, flags, overrides, workdir):
  """(config, workdir) of every run that the flags ask for."""
  from llama3_jax.config import UserError

  if not {'sweep', 'sweep_index'} & set(flags):
    override(config, overrides)
    return [(config, workdir)]
  if not hasattr(module, 'sweep'):
    raise UserError(f'--sweep: {flags["config"]} defines no sweep()')
  runs = []
  for i, changes in enumerate(module.sweep()):
    member = config.copy_and_resolve_references()
    override(member, {**changes, **overrides})
    runs.append((member, os.path.join(workdir, str(i))))
  if 'sweep_index' not in flags:
    return runs
  index = _number(flags, 'sweep_index')
  if not 0 <= index < len(runs):
    raise UserError(
      f'--sweep_index={index}: the sweep has members 0 to {len(runs) - 1}'
    )
  return [runs[index]]


def main(arguments):
  from absl import logging

  from llama3_jax.config import UserError

  flags, overrides = parse(arguments)
  if 'help' in flags or 'h' in flags or not flags:
    sys.stdout.write(help_text() + '\n')
    return 0
  for name in ('config', 'workdir'):
    if name not in flags:
      raise UserError(f'--{name} is missing; see python -m experiment --help')
  module, config = load_config(flags['config'])
  runs = members(module, config, flags, overrides, flags['workdir'])
  _devices(flags)
  logging.set_verbosity(logging.INFO)
  logging.use_absl_handler()
  logging.get_absl_handler().addFilter(_ours)
  for config, workdir in runs:
    start = time.perf_counter()
    run(config, workdir)
    seconds = time.perf_counter() - start
    logging.info('%s: done in %.0f s: %s', config.experiment, seconds, workdir)
    report = pathlib.Path(workdir, 'report.html')
    if report.exists():
      sys.stdout.write(f'report: {report.resolve()}\n')
  return 0


def _ours(record):
  """Our own lines, and the warnings of libraries that log every file they touch."""
  return (
    str(ROOT) in record.pathname
    and '.venv' not in record.pathname
    or (
      # Orbax logs what it then raises, with its traceback.
      record.levelno >= 30 and 'orbax' not in record.pathname
    )
  )


def _interrupt(*_):
  from llama3_jax.config import Preempted

  raise Preempted('stopped by SIGTERM; the same command goes on')


def launch(arguments):
  """main() with every ending a user can cause as one line and an exit status."""
  from llama3_jax.config import Preempted
  from llama3_jax.config import UserError

  signal.signal(signal.SIGTERM, _interrupt)
  # Threads and coroutines of libraries whose error is raised to us anyway.
  threading.excepthook = sys.unraisablehook = lambda _: None
  try:
    return main(arguments)
  except UserError as e:
    message, status = str(e), 2
  except Preempted as e:
    message, status = str(e), 0
  except KeyboardInterrupt:
    message, status = 'interrupted; the same command goes on', 130
  except OSError as e:
    if e.errno not in (28, 122, 13, 30):
      raise
    message = f'{e.filename or "the disk"}: {e.strerror}; free space, run again'
    status = 1
  sys.stderr.write(f'experiment: {message}\n')
  sys.stderr.flush()
  sys.stderr = open(os.devnull, 'w')  # what libraries say at exit
  return status


if __name__ == '__main__':
  sys.exit(launch(sys.argv[1:]))
