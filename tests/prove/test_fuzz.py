"""Every reader of what a user brings, fed with thousands of damaged files."""

import collections
import importlib
import pathlib
import random
import signal

import numpy as np
import pytest
import readers
from bad_values import BAD

import experiment
from llama3_jax import commandline
from llama3_jax import config as configs
from llama3_jax import override
from llama3_jax import sweep
from llama3_jax.base import fields
from llama3_jax.base.errors import UserError

MOST_S = 60
WORDS = (b'null', b'-1', b'1e999', b'[]', b'{}', b'"x"', b'true', b'[' * 100_000)
WORDS += (b'\xff', b'\xef\xbb\xbf', b'\x00', b'NaN', b'"ab"', b'0.5', b'\r')


def damage(data, rng):
  """`data` (bytes) with one or two faults of any kind."""
  for _ in range(rng.choice((1, 1, 2))):
    at = rng.randrange(len(data) + 1)
    size = rng.choice((1, 4, 16))
    kind = rng.randrange(6)
    if kind == 0:
      data = data[:at]
    elif kind == 1 and data:
      at = rng.randrange(len(data))
      data = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    elif kind == 2:
      data = data[:at] + rng.choice(WORDS) + data[at + size :]
    elif kind == 3:
      data = data[:at] + rng.choice(WORDS) + data[at:]
    elif kind == 4:
      data = data[:at] + data[at + size :]
    else:
      data = data[:at] + rng.randbytes(size) + data[at + size :]
  return data


COUNTS = {'SFT rows': 1500, 'preference rows': 1500, 'side files': 1000}
EACH = 700
OUTCOMES = ('refused', 'named', 'harmless', 'used')
# Plain JSON, text and weights of others carry no checksum: their values may be others.
CHECKED = ('documents gz', 'documents zst', 'documents WARC', 'token shards', 'npz')
CHECKED += ('a final/',)


@pytest.fixture(autouse=True)
def limit():
  def late(*_):
    raise TimeoutError(f'a reader took more than {MOST_S} s')

  before = signal.signal(signal.SIGALRM, late)
  yield
  signal.alarm(0)
  signal.signal(signal.SIGALRM, before)


def outcome(read, whole):
  """'refused', 'named' (documents are fewer or other, and a problem says so),
  'harmless' (the same was read), 'used' (something else was) or what went wrong."""
  signal.alarm(MOST_S)
  try:
    found = read()
  except UserError as error:
    return 'refused' if '\n' not in str(error) else f'lines: {error}'
  except Exception as error:
    return f'{type(error).__name__}: {error}'[:200]
  finally:
    signal.alarm(0)
  if repr(found) == whole:
    return 'harmless'
  return 'named' if isinstance(found, readers.Documents) and found.problems else 'used'


def test_damaged_files_are_one_line_or_harmless(tmp_path, record):
  rng, lines, bad = random.Random(0), [], []
  total = 0
  for name, (files, read) in readers.everything(tmp_path).items():
    data = {f: (tmp_path / f).read_bytes() for f in files}
    whole, tally = repr(read()), collections.Counter()
    for i in range(COUNTS.get(name, EACH)):
      file = files[i % len(files)]
      damaged = damage(data[file], rng)
      (tmp_path / file).write_bytes(damaged)
      found = outcome(read, whole)
      (tmp_path / file).write_bytes(data[file])
      if found not in OUTCOMES or found == 'used' and name in CHECKED:
        bad.append((name, file, i, found, damaged[:200]))
      tally[found] += 1
    total += sum(tally.values())
    counts = ', '.join(f'{tally[k]} {k}' for k in OUTCOMES if tally[k])
    lines.append(f'{name} {counts}')
  record(
    f'{total:,} damaged files to every reader: tracebacks, hangs above {MOST_S} s, '
    f'and other values read where there is a checksum ({", ".join(CHECKED)})',
    f'{len(bad)}; {"; ".join(lines)}',
    '0',
  )
  assert not bad, bad[:10]


CONFIGS = sorted((pathlib.Path(__file__).parents[2] / 'configs').glob('[a-z]*.py'))


def test_values_of_every_field_are_values_or_one_line(record):
  tried, refused, bad = 0, 0, []
  for path in CONFIGS:
    config = importlib.import_module(f'configs.{path.stem}').get_config()
    for field in configs.flatten(config):
      for text in BAD:
        tried += 1
        signal.alarm(MOST_S)
        changed = config.copy_and_resolve_references()
        try:
          override.apply(changed, {field: text})
          found = configs.flatten(changed)[field]
          fields.check({field: found})
          if isinstance(found, float) and not np.isfinite(found):
            bad += [(field, text)] if 'heuristics' not in field else []
        except UserError:
          refused += 1
        except Exception as error:
          bad.append((field, text, type(error).__name__))
        finally:
          signal.alarm(0)
  record(
    f'{tried:,} values of every field of every config (24 a field)',
    f'{refused:,} refused in one line, {len(bad)} tracebacks or nonsense',
    '0',
  )
  assert not bad, bad[:10]


WORDS_OF_LINES = ('--config', '--workdir', '--data', '--sweep', '--sweep_index')
WORDS_OF_LINES += ('--devices', '--processes', '--process', '--chip', '--flags', '--x')
WORDS_OF_LINES += ('--config.train.steps', '--config.', '--config.train', '-', '--', '')
WORDS_OF_LINES += ('pretrain', 'configs/sft.py', 'herd:tiny', 'nowhere.py', 'a=b')
ARGUMENTS = ('', 'tiny', '405b', 'x', '-1', '0', '1e9', 'nan', '..', '/', 'tiny:tiny')
ARGUMENTS += (' ', "'", '\x00', 'a,b', '()', '{}', '%s', 'ä', 'None')


def understood(arguments):
  """What happens before a device is touched; the errors of a user pass."""
  flags, overrides = commandline.parse(arguments)
  module, config = experiment.load_config(flags.get('config', ''))
  for member, _ in sweep.members(module, config, flags, overrides, 'w'):
    experiment.check(member)


def test_command_lines_are_one_line_or_a_run(record):
  rng, bad, refused = random.Random(1), [], 0
  lines = [[f'--config={p}:{a}'] for p in CONFIGS for a in ARGUMENTS]
  lines += [[f'--config={p.stem}:{a}', '--sweep'] for p in CONFIGS for a in ARGUMENTS]
  for _ in range(2500):
    words = rng.choices(WORDS_OF_LINES, k=rng.randrange(1, 6))
    joined = [w + rng.choice(('', f'={rng.choice(BAD)}')) for w in words]
    lines.append(joined)
  for line in lines:
    signal.alarm(MOST_S)
    try:
      understood(line)
    except UserError as error:
      refused += 1
      assert '\n' not in str(error), line
    except Exception as error:
      bad.append((line, f'{type(error).__name__}: {error}'[:200]))
    finally:
      signal.alarm(0)
  record(
    f'{len(lines):,} command lines (a quarter: config:argument): tracebacks',
    f'{len(bad)}; {refused:,} refused',
    '0',
  )
  assert not bad, bad[:10]
