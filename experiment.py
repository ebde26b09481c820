"""The launcher: python -m experiment --config=configs/pretrain.py:tiny --workdir=DIR

--config=FILE[:ARG]        the config file and the size or budget it is asked for
--config.optim.peak=1e-3   changes one field; a misspelt one is named, with the nearest
--workdir=DIR              all output; the same command again resumes (chat needs none)
--init_from=MODEL --files=ROWS --lora=RANK --steps=N --batch=N --length=N --seed=N
                           short for the fields of the config; also --text, --prompt,
                           --curate, --reward_from, --inputs, --documents, --data,
                           --suite
--flagfile=FILE            arguments from a file, one a line
--sweep                    runs all members of the config's sweep(), each in DIR/<index>
--sweep_index=I            runs member I only (array jobs)
--devices=N                N virtual CPU devices (to try a mesh on a laptop)
--chip=v5p --flags=A,B     the compiler's flag sets for a chip; without --flags its own
--coordinator=HOST:PORT --processes=N --process=I   several hosts; or
--coordinator=auto         the cluster says (TPU slices, srun); srun and GKE need none
--coordinator=none         this process alone, whatever the cluster says
--config=FILE --help       the fields of a config; --version
--stopped=STATUS           status after SIGTERM instead of 0, where a job must go on
"""

import contextlib
import difflib
import importlib.util
import inspect
import multiprocessing
import os
import pathlib
import re
import signal
import sys
import threading
import time
import traceback

from llama3_jax.base import errors
from llama3_jax.base import memory
from llama3_jax.base.errors import Preempted
from llama3_jax.base.errors import UserError

ROOT = pathlib.Path(__file__).parent


def load_config(argument):
  """(module, ConfigDict) of FILE[:ARG]."""
  path, _, variant = argument.partition(':')
  short = ROOT / 'configs' / f'{path}.py'  # --config=pretrain:tiny
  tried = (pathlib.Path(path), ROOT / path, short)
  file = next((p for p in tried if p.is_file()), None)
  if file is None or file.suffix != '.py':
    known = {p.stem: f'configs/{p.name}' for p in sorted(_files('configs'))}
    near = difflib.get_close_matches(pathlib.Path(path).stem, known, 2)
    hint = 'did you mean' if near else 'there are'
    names = ' or '.join(known[n] for n in near) or ', '.join(known)
    end = '?' if near else ''
    raise UserError(f'--config={path}: no such config file; {hint} {names}{end}')
  spec = importlib.util.spec_from_file_location(f'config_{file.stem}', file)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, 'get_config'):
    raise UserError(f'--config={path}: the file has no get_config()')
  if variant and not inspect.signature(module.get_config).parameters:
    raise UserError(f'--config={path}:{variant}: this config takes no argument')
  return module, module.get_config(variant) if variant else module.get_config()


def _files(folder):
  return [p for p in (ROOT / folder).glob('*.py') if p.stem != '__init__']


def check(config):
  """UserError for a value that cannot be, before a device is touched."""
  from llama3_jax import config as configs
  from llama3_jax.base import fields

  names = sorted(p.stem for p in _files('experiments'))
  if config.experiment not in names:
    known = ', '.join(names)
    raise UserError(f'experiment={config.experiment!r} must be one of {known}')
  fields.check(configs.flatten(config))


def _says(recipe, constant):
  """Whether a recipe declares `constant = True`; it is read, and nothing imported."""
  file = ROOT / 'experiments' / f'{recipe}.py'
  text = file.read_text(encoding='utf-8') if file in _files('experiments') else ''
  return re.search(rf'^{constant} = True\b', text, re.M) is not None


def _needs_workdir(config, flags):
  """UserError where --workdir is missing, except for a recipe that declares that it
  runs without one."""
  one = not {'sweep', 'sweep_index'} & set(flags)
  if 'workdir' not in flags and not (one and _says(config.experiment, 'NO_WORKDIR')):
    raise UserError('--workdir is missing; see python -m experiment --help')


def help_text(config=None):
  """The docstring above, and one line for every experiment and config; or the fields
  of one `config`, with value and range."""
  if config:
    from llama3_jax import commandline

    module, values = load_config(config)
    title = (module.__doc__ or '').strip()
    return '\n'.join([title, '', *commandline.described(values)])
  lines = [__doc__.strip()]
  for folder in ('experiments', 'configs'):
    lines.append(f'\n{folder}:')
    for file in sorted(_files(folder)):
      match = re.search(r'"""(.*?)(?:\n|""")', file.read_text())
      lines.append(f'  {file.stem:<12} {match.group(1) if match else ""}')
  return '\n'.join(lines)


def run(config, workdir, several=False):
  """Make the mesh and call the experiment's main; returns its results."""
  import jax

  import experiments
  from llama3_jax import mesh

  name = config.experiment
  if several and ('mesh' not in config or _says(name, 'ALONE')):
    raise UserError(f'--processes: {name} runs in one process')
  if 'mesh' not in config or _says(name, 'ABSENT'):
    return experiments.run(config, workdir)
  with jax.set_mesh(mesh.create(config.mesh)):
    return experiments.run(config, workdir)


def _compiler(flags):
  """Puts the flag sets of --chip where the compiler reads them, before jax starts."""
  from llama3_jax.plan import flags as sets

  if 'chip' not in flags:
    if 'flags' in flags:
      raise UserError('--flags needs --chip: flag sets are of one generation')
    return
  if flags['chip'] not in sets.DEFAULT:
    raise UserError(f'--chip={flags["chip"]} must be one of {", ".join(sets.DEFAULT)}')
  chosen = sets.names(flags['chip'], flags.get('flags', 'auto'))
  for name, value in sets.environment(flags['chip'], chosen).items():
    before = os.environ.get(name, '')  # what the user set comes last and wins
    joined = f'{value} {before}'.strip() if value.startswith('--') else before or value
    os.environ[name] = joined


def _chips():
  """Whether there is a TPU, or a plugin of jax for GPUs; jax is not imported."""
  chips = [*pathlib.Path('/dev').glob('accel*'), *pathlib.Path('/dev').glob('vfio/*')]
  return bool(importlib.util.find_spec('jax_plugins') or chips)


def _only_compiler():
  """Whether the compiler for TPUs is installed where no chip is: jax would look for the
  TPU at length."""
  return importlib.util.find_spec('libtpu') is not None and not _chips()


def _devices(flags):
  from llama3_jax.base import files

  _compiler(flags)
  if 'devices' in flags:
    count = f'--xla_force_host_platform_device_count={flags["devices"]}'
    os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {count}'
    os.environ.setdefault('JAX_PLATFORMS', 'cpu')  # the compiler for TPUs may be here
  import jax

  jax.config.update('jax_compilation_cache_dir', str(files.cache_folder() / 'compiled'))
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.05)


def main(arguments, peers):
  """Runs what the command line asks for; `peers` is filled when there are others."""
  from llama3_jax import commandline
  from llama3_jax import sweep
  from llama3_jax.base import lock
  from llama3_jax.base import log
  from llama3_jax.base import processes
  from llama3_jax.reliable import cluster

  flags, overrides = commandline.parse(arguments)
  if 'version' in flags:
    import llama3_jax

    sys.stdout.write(f'llama3_jax {llama3_jax.__version__}\n')
    return 0
  if 'help' in flags or not flags:
    sys.stdout.write(help_text(flags.get('config')) + '\n')
    return 0
  if 'config' not in flags:
    raise UserError('--config is missing; see python -m experiment --help')
  alone = 'coordinator' not in flags and not cluster.several()
  if alone and 'workdir' in flags:
    lock.check(flags['workdir'])  # before jax is imported; open_workdir takes it
  module, config = load_config(flags['config'])
  _needs_workdir(config, flags)
  asked = module, config, flags, overrides, flags.get('workdir')
  runs, members = sweep.members(*asked), sweep.everyone(*asked)
  for member, workdir in runs:
    check(member)
    if alone and workdir:
      lock.check(workdir)
  if _says(config.experiment, 'ABSENT') or _only_compiler():
    os.environ.setdefault('JAX_PLATFORMS', 'cpu')
  cluster.started(config, flags)
  _devices(flags)
  peers += filter(None, [cluster.join(flags)])
  log.start(quiet=bool(peers and peers[0].index))
  waits = any(_says(member.experiment, 'WAITS') for member, _ in runs)
  moves = sys.stderr.isatty() or waits  # a bar there, or a recipe that a user talks to
  with contextlib.nullcontext() if moves else log.heart():
    _all(runs, bool(peers), members)
  if members and processes.first():
    sys.stdout.write(sweep.table(sweep.collect(members)))
  return 0


def _all(runs, several, members):
  """Runs one config after the other; `members`: of the sweep, () without one."""
  from absl import logging

  from llama3_jax import sweep
  from llama3_jax import workdir as workdirs
  from llama3_jax.base import processes

  for config, workdir in runs:
    start = time.perf_counter()
    results = run(config, workdir, several)
    seconds = time.perf_counter() - start
    measured = workdirs.said(results)
    where = f': {workdir}' if workdir else ''
    words = config.experiment, seconds, measured and f', {measured}', where
    logging.info('%s: done in %.0f s%s%s', *words)
    report = pathlib.Path(workdir, 'report.html') if workdir else None
    if report and report.exists():
      sys.stdout.write(f'report: {report.resolve()}\n')
    if members and processes.first():
      sweep.write(pathlib.Path(workdir).parent, members)


def _unheard(lost):
  """What threads and callbacks of libraries raised: they raise it to us anyway. A
  SIGTERM that came inside such a callback ended there, and is sent again."""
  if isinstance(lost.exc_value, Preempted):
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()


def _interrupt(*_):
  raise Preempted('stopped by SIGTERM; the same command resumes')


def _status(arguments):
  from llama3_jax import commandline

  return commandline.parse(arguments)[0].get('stopped', 0)


def _leave(status):
  """Ends the process while threads may still compute: the exit of the interpreter would
  take their memory away, which is a segmentation fault."""
  for child in multiprocessing.active_children():
    child.terminate()
  sys.stdout.flush()
  os._exit(status)


def launch(arguments, leave=lambda status: None):
  """main() with every ending a user can cause as one line and an exit status.

  leave: called with the status where a signal came, maybe amid a computation.
  """
  signal.signal(signal.SIGTERM, _interrupt)
  threading.excepthook = sys.unraisablehook = _unheard
  peers, reason, stopped, signalled = [], None, 0, False
  try:
    status, message = main(arguments, peers), None
  except (Exception, Preempted) as e:
    status, message = errors.ending(e)
    signalled = isinstance(e, Preempted)
    stopped = _status(arguments) if signalled else 0
    if peers and status:
      # Where a peer died we fail as well, in some collective: its name comes first.
      peers[0].wait(50 if type(e).__name__ == 'JaxRuntimeError' else 5)
    if message is None and not peers:
      raise
    reason = message or f'{type(e).__name__}, see its log'
    message = message or traceback.format_exc()
  except KeyboardInterrupt:
    status, message = 130, 'interrupted; the same command resumes'
    reason, signalled = 'interrupted', True
  if message is not None:
    sys.stderr.write(f'experiment: {message}\n')
    sys.stderr.flush()
    sys.stderr = open(os.devnull, 'w')  # what libraries say at exit
  if peers:
    peers[0].leave(reason if status else None)
  if peers and status:
    os._exit(status)  # the exit of jax waits for all processes
  if signalled and not peers:
    leave(status or stopped)
  return status or stopped


if __name__ == '__main__':
  if os.environ.get('JAX_PLATFORMS') == 'cpu' or not _chips():
    memory.restart()
  sys.exit(launch(sys.argv[1:], _leave))
