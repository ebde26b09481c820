"""The environment of processes that tests start."""

import os
import re


def variables(cache):
  """Of one CPU device, and of a folder of compilations and downloads."""
  flags = re.sub(r'--xla_force_host\S*', '', os.environ['XLA_FLAGS']).strip()
  return {'LLAMA3_CACHE': str(cache), 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': flags}
