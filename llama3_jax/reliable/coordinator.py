"""The coordination service of jax, in a process that outlives process 0 for a moment.

Inside process 0 it would die together with it, and jax would then abort all other
processes before they can report which one was lost. peers.py starts it as a script with
the arguments of jax; it ends when its standard input does.
"""

import json
import os
import signal
import sys
import time
from typing import NoReturn

AFTER = 2.0  # seconds that it outlives a process 0 that was killed


def main(argument: str) -> NoReturn:
  """Serves until process 0 writes a line (it is done) or the input ends (killed).

  argument: JSON of [address, number of processes, options].
  """
  from jaxlib import _jax

  for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
  address, count, options = json.loads(argument)
  service = _jax.get_distributed_runtime_service(address, count, **options)
  sys.stdout.write('ready\n')
  sys.stdout.flush()
  if sys.stdin.readline():
    service.shutdown()
  else:
    time.sleep(AFTER)
  os._exit(0)


if __name__ == '__main__':
  main(sys.argv[1])
