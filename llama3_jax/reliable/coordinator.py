"""The coordination service of jax, in a process that outlives process 0 for a moment.

Inside process 0 it would die with it, upon which jax aborts all other processes before
they can say which one was lost. Started by peers.py as a script; its arguments are
those of jax, and it ends when its standard input does.
"""

import json
import os
import signal
import sys
import time

AFTER = 2.0  # seconds that it outlives a process 0 that was killed


def main(argument):
  """Serves until a line comes (process 0 is done) or the input ends (it was killed)."""
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
