"""Instructions of the attention kernel by the size of its blocks, compiled for a TPU.

python bench/sides/splash_blocks.py v6e:2x2 1024,2048 [--length=8192]

The plan counts attention at the peak and the compiler has no cycle estimate of it, but
it can write down the kernel's code, one line a cycle. A block's code has no loops, so
its lines are its cycles, without waits for memory. Needs the extra `plan-tpu`; half a
minute of one core a block size. Prints cycles of one head of one row, in thousands.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
HEADS, LENGTH = 4, 4096  # of what is compiled
KERNELS = {'forward': 'mha_fwd', 'backward': 'mha_dkv'}
CONTROL = ('sbr.rel', 'Start region', 'End region')


def lower(given):
  """(lowered, mesh) of attention and its gradient; what a plan's child calls."""
  import jax
  import jax.numpy as jnp

  from llama3_jax import axes
  from llama3_jax.kernels import splash
  from llama3_jax.kernels.rule import Rule
  from llama3_jax.plan import topology

  target, block = given
  parsed = topology.parse(target)
  mesh = topology.mesh(dict(fsdp=parsed.n_devices), parsed)
  splash._kernel(LENGTH, HEADS, 1, 1, Rule(), block, False)  # outside of the mesh

  def both(q, k, v, side, g):
    attend = lambda *x: splash.attend(*x, side, side, block=block)
    out, back = jax.vjp(attend, q, k, v)
    return out, back(g)

  def array(dims, *more, dtype=jnp.bfloat16):
    place = jax.sharding.NamedSharding(mesh, axes.spec(dims))
    shape = parsed.n_devices, LENGTH, *more
    return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

  q, k = array('BTNH', HEADS, 128), array('BSKH', 1, 128)
  side = (array('BT', dtype=jnp.int32),) * 2
  with jax.set_mesh(mesh):
    return jax.jit(both).lower(q, k, k, side, q), mesh


def child(target, block):
  """Compiles here; the compiler writes code into LIBTPU_INIT_ARGS' folder."""
  from llama3_jax.plan import flags

  lowered, _ = lower((target, block))
  chip = target.partition(':')[0]
  lowered.compile(compiler_options=flags.flags(chip, ['scoped_vmem']))
  os._exit(0)  # threads of the compiler may hang


def parts(path):
  """Lengths of the stretches of a kernel's code that no branch interrupts, longest
  first, and the length of all."""
  lines = [x for x in path.read_text().splitlines() if re.match(r'\s*0x[0-9a-f]+ ', x)]
  at = [i for i, line in enumerate(lines) if any(c in line for c in CONTROL)]
  return sorted((b - a for a, b in zip(at, at[1:])), reverse=True), len(lines)


def cycles(folder, kernel, block, length):
  """(cycles of a block, of a head of a row): the blocks under the diagonal, the start
  and end of each row of blocks, and what every step has around these."""
  [path] = [
    p
    for p in pathlib.Path(folder).glob(f'*{kernel}*final_bundles.txt')
    if 'schedule-analysis' not in p.name
  ]
  (body, *others), whole = parts(path)
  n, ends = length // block, sum(others[:2])
  around = whole - body - ends
  return body, n * (n + 1) / 2 * body + n * ends + n * n * around


def measure(target, block, length):
  with tempfile.TemporaryDirectory() as folder:
    env = dict(os.environ, PYTHONPATH=f'{ROOT}{os.pathsep}{ROOT / "bench"}')
    sys.path.insert(0, str(ROOT))
    from llama3_jax.plan import compile as compiler

    env |= compiler.ENVIRONMENT
    env['LIBTPU_INIT_ARGS'] = f'--xla_jf_dump_to={folder} --xla_jf_dump_hlo_text=true'
    command = [sys.executable, __file__, target, str(block), '--child']
    subprocess.run(command, env=env, check=True, capture_output=True)
    return {name: cycles(folder, k, block, length) for name, k in KERNELS.items()}


def main():
  p = argparse.ArgumentParser()
  p.add_argument('target')
  p.add_argument('blocks')
  p.add_argument('--length', type=int, default=8192)
  p.add_argument('--child', action='store_true')
  a = p.parse_args()
  if a.child:
    child(a.target, int(a.blocks))
  print('| block | of a block, forward | backward | of a head, forward | backward |')
  print('|---|---|---|---|---|')
  for block in map(int, a.blocks.split(',')):
    found = measure(a.target, block, a.length)
    cells = [f'{found[k][i] / 1e3:.1f}' for i in (0, 1) for k in KERNELS]
    print(f'| {block} | {" | ".join(cells)} |', flush=True)


if __name__ == '__main__':
  main()
