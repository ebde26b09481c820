"""CPU-minutes of a finished herd by stage; exits with 1 when it took more than the bar.

python bench/herd.py [WORKDIR] [--bar=15]

The figures are those that the run wrote of itself (cost.json of each stage):
CPU-seconds of user and of system, seconds in the compiler, programs compiled and
recalled.
"""

import argparse
import json
import pathlib
import sys

HEADER = 'stage', 'user', 'system', 'compiler', 'compiled', 'recalled'
FIELDS = 'user_s', 'system_s', 'compile_s', 'compiled', 'recalled'


def read(workdir):
  """{stage: cost} of a run's stages, in the order in which they finished."""
  paths = sorted(workdir.glob('*/cost.json'), key=lambda path: path.stat().st_mtime)
  costs = {path.parent.name: json.loads(path.read_text()) for path in paths}
  if not costs or any('user_s' not in cost for cost in costs.values()):
    sys.exit(f'{workdir}: no stages there that measured the processor: run it anew')
  return costs


def row(name, values):
  return f'{name:<30}' + ''.join(f'{value:>10.1f}' for value in values)


def main():
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('workdir', nargs='?', default='runs/herd', type=pathlib.Path)
  parser.add_argument('--bar', default=15.0, type=float, help='CPU-minutes')
  asked = parser.parse_args()
  costs = read(asked.workdir)
  print(f'{HEADER[0]:<30}' + ''.join(f'{name:>10}' for name in HEADER[1:]))
  for name, cost in costs.items():
    print(row(name, [cost[field] for field in FIELDS]))
  total = [sum(cost[field] for cost in costs.values()) for field in FIELDS]
  print(row('all', total))
  minutes = sum(total[:2]) / 60
  print(f'{minutes:.1f} CPU-minutes, {total[1] / 60:.1f} of system; bar {asked.bar:g}')
  return minutes > asked.bar


if __name__ == '__main__':
  sys.exit(main())
