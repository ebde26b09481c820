"""The environment of processes that tests start."""

import os
import pathlib
import re

STARTUP = pathlib.Path(__file__).parent / 'startup'


# What a step leaves free is kept for the next one: the system neither takes it back nor
# clears it anew, which was a fifth of the time of training a small model.
KEPT = {
  'MALLOC_MMAP_THRESHOLD_': str(2**30),
  'MALLOC_TRIM_THRESHOLD_': str(2**32),
  'MALLOC_TOP_PAD_': str(2**26),
}


def variables(cache):
  """Of one CPU device, and of a folder of compilations and downloads; tracing is quick
  in them."""
  here = {'LLAMA3_CACHE': str(cache), 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': flags()}
  return here | quick()


def flags():
  """XLA's flags of the tests, for one CPU device: programs compile sooner."""
  return re.sub(r'--xla_force_host\S*', '', os.environ['XLA_FLAGS']).strip()


def quick(*folders):
  """Variables that make processes quick; `folders`: more that Python looks in."""
  paths = [str(STARTUP), *map(str, folders)]
  paths += filter(None, [os.environ.get('PYTHONPATH')])
  found = {'PYTHONPATH': os.pathsep.join(paths)}
  return found | {'JAX_TRACEBACK_IN_LOCATIONS_LIMIT': '0'} | KEPT
