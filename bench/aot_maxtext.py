"""Our train step and MaxText's, compiled for absent TPUs and read by one analyser.

python bench/aot_maxtext.py [--only=8b,70b] [--sides=ours,maxtext] [--full]
  [--keep=FOLDER] [--flags=auto]

Both programs are lowered by their own code, compiled by the same compiler under the
same options, and read by llama3_jax.plan. Needs MaxText in this interpreter, see
README.md. Prints a markdown table; `--keep` keeps and reuses what was compiled.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from sides.aot_cases import CASES
from sides.aot_cases import MODEL
from sides.aot_cases import TOPOLOGY

from configs import plan as plan_config
from experiments import plan
from llama3_jax import config as configs
from llama3_jax.base import processes
from llama3_jax.base.errors import UserError
from llama3_jax.plan import analyse
from llama3_jax.plan import compile as compiler
from llama3_jax.plan import flags
from llama3_jax.plan import topology

GIB = 2**30
# A call that MaxText's program has only around its attention; ours is a named scope.
THEIR_ATTENTION = '/shard_map/vmap(static_sparsity_splash)'


def ours(case, full, names, extra):
  """What a plan knows of our train step."""
  config = plan_config.get_config(f'{case.size},{case.target}')
  rows = round((case.our_rows or case.rows) * topology.parse(case.target).n_devices)
  changes = {'train.length': case.length, 'train.batch': rows, **case.ours, **extra}
  changes |= {'plan.full': full, 'plan.flags': names}
  return plan.plan(plan.check(configs.edit(config, changes)))


def maxtext(case, full, names):
  """The same of MaxText's program."""
  target = topology.parse(case.target)
  arguments = [
    f'model_name={MODEL[case.size]}',
    f'compile_topology={TOPOLOGY[case.target]}',
    'compile_topology_num_slices=1',
    f'per_device_batch_size={case.rows}',
    f'max_target_length={case.length}',
    'attention=flash',
    'dataset_type=synthetic',
    'enable_checkpointing=false',
    'run_name=bench',
    *case.theirs,
  ]
  chip = target.chip.name
  options = flags.flags(chip, flags.names(chip, names))
  with tempfile.TemporaryDirectory() as folder:
    arguments.append(f'base_output_directory={folder}')
    found = compiler.run(
      'sides.maxtext_aot:lower', arguments, folder, options, full, 1800
    )
  text = found.hlo.replace(THEIR_ATTENTION, '/attention' + THEIR_ATTENTION)
  found = dataclasses.replace(found, hlo=text)
  config = plan_config.get_config(f'{case.size},{case.target}')
  request = {
    'step': 'train',
    'batch': round(case.rows * target.n_devices),
    'length': case.length,
    'microbatches': 1,
    'loss_chunk': 0,
  }
  return analyse.run(found, configs.model_config(config.model), target, request)


# Ours sums gradients in bfloat16, as MaxText does; `float32` is our default.
SIDES = {
  'ours': lambda *a: ours(*a, {'model.reduce_dtype': 'bfloat16'}),
  'float32': lambda *a: ours(*a, {}),
  'maxtext': maxtext,
}


def compiled(case, side, full, names, keep):
  """Numbers of one program, or the reason why there are none; kept in `keep`."""
  file = keep and keep / f'{case.name}.{side}{".full" if full else ""}.json'
  if file and file.exists():
    return json.loads(file.read_text())
  try:
    found = SIDES[side](case, full, names)
  except (UserError, compiler.OutOfMemory, RuntimeError) as e:
    found = {'failed': str(e).strip().splitlines()[-1][:300]}
  if file:
    processes.write_json(file, found)
  return found


def gathers(found, weights=True, waiting=False):
  """GiB a step that the layer loop gathers, of weights or of keys and values."""
  rows = [
    r
    for r in found['collectives']
    if r['kind'] == 'all-gather'
    and r['where'] != 'once'  # the compiler may unroll a run of the layer loop
    and ('fsdp' in r['axes'].split('+')) == weights
    and not (waiting and r['asynchronous'])
  ]
  return sum(r['bytes'] for r in rows) / GIB


def lines(case, found):
  """Rows of the table: measure, ours, MaxText, bar on the ratio or on ours."""
  sides = [found['ours'], found['maxtext']]
  memory = [f['memory']['used'] / GIB for f in sides]
  seconds = [1 / f['time']['tokens_per_s_chip'] for f in sides]
  if case.memory:
    yield 'HBM, GiB a chip', *memory, '<= 0.9 x', memory[0] <= 0.9 * memory[1]
    if 'failed' not in found['float32']:
      mine = found['float32']['memory']['used'] / GIB
      yield (
        'same, gradients summed in float32',
        mine,
        memory[1],
        '<= 0.9 x',
        mine <= 0.9 * memory[1],
      )
  if case.gathers:
    both = [gathers(f) for f in sides]
    yield (
      'weights gathered in the layer loop, GiB',
      *both,
      f'<= {case.gathers:g}',
      both[0] <= case.gathers * 1.0001,
    )
    both = [gathers(f, waiting=True) for f in sides]
    yield '... of them waited for, GiB', *both, 'first only', None
  if case.kv:
    both = [gathers(f, weights=False) for f in sides]
    yield 'keys and values gathered, GiB', *both, f'<= {case.kv:g}', both[0] <= case.kv
  if case.time:
    yield 'HBM, GiB a chip', *memory, '', None
    host = [f['memory']['host'] / GIB for f in sides]
    yield 'memory of the host, GiB a chip', *host, '', None
  yield (
    f'estimate, us a token and chip ({sides[0]["time"]["estimate"]})',
    *[s * 1e6 for s in seconds],
    '<= 0.95 x' if case.time else '',
    seconds[0] <= 0.95 * seconds[1] if case.time else None,
  )


def row(case, line):
  measure, mine, theirs, bar, holds = line
  ratio = f'{mine / theirs:.3f}' if theirs else ''
  said = {True: 'yes', False: 'no', None: ''}[holds]
  cells = (case.name, measure, f'{mine:.2f}', f'{theirs:.2f}', ratio, bar, said)
  return f'| {" | ".join(cells)} |'


def main():
  p = argparse.ArgumentParser()
  p.add_argument('--only', default=','.join(c.name for c in CASES))
  p.add_argument('--full', action='store_true')
  p.add_argument('--keep', type=pathlib.Path)
  p.add_argument('--flags', default='auto')
  p.add_argument('--sides', default='ours,float32,maxtext')
  a = p.parse_args()
  if a.keep:
    a.keep.mkdir(parents=True, exist_ok=True)
  table = ['| case | measure | ours | MaxText | ours / MaxText | bar | holds |']
  table.append('|---|---|---|---|---|---|---|')
  for case in (c for c in CASES if c.name in a.only.split(',')):
    found = {}
    for side in a.sides.split(','):
      found[side] = compiled(case, side, a.full, a.flags, a.keep)
      print(
        f'{case.name} {side}: {found[side].get("failed", "compiled")}', file=sys.stderr
      )
    if set(found) >= {'ours', 'maxtext'} and not any(
      'failed' in found[s] for s in ('ours', 'maxtext')
    ):
      table += [
        row(case, line) for line in lines(case, {'float32': {'failed': ''}} | found)
      ]
  print('\n'.join(table))


if __name__ == '__main__':
  main()
