"""The command line: absl's flags, and --config.FIELD=VALUE for fields of a config."""

import difflib
import re
from collections.abc import Sequence

from absl import flags as absl_flags
from ml_collections import ConfigDict

from llama3_jax import config as configs
from llama3_jax.base import fields
from llama3_jax.base.errors import UserError

HELP = 'see python -m experiment --help'
# Flags that are short for a field of the config.
NAMES = ('data', 'suite', 'init_from', 'reward_from', 'inputs')
NAMES += ('seed', 'prompt', 'tools')
SHORT = {name: name for name in NAMES}
SWITCHES = ('curate',)  # that need no value
SHORT |= {name: name for name in SWITCHES}
SHORT = {'text': 'own_text', 'files': 'files', 'documents': 'documents'} | SHORT
SHORT |= {name: f'train.{name}' for name in ('steps', 'batch', 'length')}
SHORT['lora'] = 'part.rank'


def _defined():
  """All flags, without values."""
  f = absl_flags.FlagValues()
  whole = lambda name, text, least: absl_flags.DEFINE_integer(
    name, None, text, lower_bound=least, flag_values=f
  )
  word = lambda name, text: absl_flags.DEFINE_string(name, None, text, flag_values=f)
  switch = lambda name, text, **more: absl_flags.DEFINE_boolean(
    name, False, text, flag_values=f, **more
  )
  word('config', 'FILE[:ARG]: the config file and the size or budget it is asked for')
  word('workdir', 'folder for all output; the same command again resumes')
  switch('sweep', "runs all members of the config's sweep(), each in DIR/<index>")
  whole('sweep_index', 'runs that member only (array jobs)', 0)
  whole('devices', 'virtual CPU devices, to try a mesh on a laptop', 1)
  word('chip', "the compiler's flag sets for a chip, such as v5p")
  word('flags', 'names of those sets')
  word('coordinator', 'HOST:PORT, auto (the cluster says) or none')
  whole('processes', 'how many there are', 1)
  whole('process', 'which of them this is', 0)
  whole('stopped', 'exit status after SIGTERM, where a job must go on', 0)
  switch('help', 'this text; with --config the fields of the config', short_name='h')
  switch('version', 'the version')
  return f


def parse(arguments: Sequence[str]) -> tuple[dict[str, object], dict[str, str]]:
  """(flags, overrides): {name: value} of the flags that are given, typed, and {path:
  text} of the fields of the config. UserError for an argument that is neither.

  --flagfile=FILE is replaced by the arguments in a file, one a line. Flags of SHORT
  stand for fields: --init_from=X for --config.init_from=X.
  """
  known = _defined()
  try:
    rest, overrides = _fields(known.read_flags_from_files(list(arguments)))
    left = known(['experiment', *rest])[1:]
  except absl_flags.UnrecognizedFlagError as error:
    near = difflib.get_close_matches(error.flagname, [*known, *SHORT], 1)
    hint = f'did you mean --{near[0]}?' if near else HELP
    raise UserError(f'--{error.flagname}: not understood; {hint}') from None
  except absl_flags.Error as error:
    line = str(error).split('\n')[0].rstrip('.').removeprefix('ERROR:: ')
    raise UserError(f'{line}; {HELP}') from None
  if left:
    raise UserError(f'{left[0]}: not understood; {HELP}')
  given = {name: known[name].value for name in known if known[name].present}
  for name, value in given.items():
    if isinstance(value, str) and (not value.strip() or value.startswith('--')):
      raise UserError(f'--{name} is empty: give --{name}=VALUE; {HELP}')
  return {n: v for n, v in given.items() if v is not False}, overrides


def _fields(arguments):
  """(other arguments, {path: text} of --config.PATH=TEXT or --config.PATH TEXT)."""
  rest, overrides, left, names = [], {}, list(arguments), '|'.join(SHORT)
  while left:
    argument = left.pop(0)
    match = re.fullmatch(rf'--?(config\.[\w.\-]+|{names})(?:=(.*))?', argument, re.S)
    if not match:
      rest.append(argument)
      continue
    name, value = match.groups()
    if value is None and name in SWITCHES:
      value = 'true'
    if value is None:
      if not left or left[0].startswith('--'):
        raise UserError(f'{argument}: not understood, it has no value; {HELP}')
      value = left.pop(0)
    overrides[SHORT.get(name, name.removeprefix('config.'))] = value
  return rest, overrides


def described(config: ConfigDict) -> list[str]:
  """Lines of --help: the fields with a short flag, the config's other fields, then
  those of the stages in it, which are described at length in their own configs."""
  flat = configs.flatten(config)
  stage = lambda path: f'{path.partition(".")[0]}.experiment' in flat
  fields_of = {'own_text': ('text',), 'files': ('files', 'data.files')}
  short = {}
  for name, path in SHORT.items():
    short |= {p: f'--{name}' for p in fields_of.get(path, (path,)) if p in flat}
  rest = {path: f'--config.{path}' for path in flat if path not in short}
  inner = {path: flag for path, flag in rest.items() if stage(path)}
  own = {path: flag for path, flag in rest.items() if path not in inner}
  lines = [*fields.describe(flat, short), '', *fields.describe(flat, own)]
  if inner:
    lines += ['', 'Of the stages in it:', *fields.describe(flat, inner)]
  return lines
