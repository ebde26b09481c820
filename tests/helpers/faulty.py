"""The launcher with something broken.

Usage: python tests/helpers/faulty.py '{"fault": ...}' FLAGS...

Faults are put in from outside, so that the code under test knows nothing of them:

sums: PATH             writes the checksum of every training batch to PATH.<process>
nan: [STEP, ...]       the batch of these steps has a weight that is not a number
slow: [PROCESS, S]     a process takes S seconds longer to read a batch
hang: [PROCESS, STEP]  a process never gets the batch of this step
flip: [PROCESS, STEP]  a device of a process computes a replayed step wrongly
fail: [PROCESS, STEP]  a process runs into a full disk
"""

import json
import os
import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402
import numpy as np  # noqa: E402

import experiment  # noqa: E402
from llama3_jax.reliable import health  # noqa: E402
from llama3_jax.train import loop  # noqa: E402
from llama3_jax.train import prefetch  # noqa: E402


def checksum(arrays, start=(0, 0)):
  """Sum over all values, each times a number of its place in the global batch [B,T]."""
  total = 0
  for name in sorted(arrays):
    x = np.asarray(arrays[name]).astype(np.int64)
    row = np.arange(x.shape[0])[:, None] + start[0]
    column = np.arange(x.shape[1])[None] + start[1]
    total += int(np.sum((x + 1) * (row * 8191 + column * 127 + len(name) * 31)))
  return total


def share_of(batch):
  """This process's part of the checksum of a global batch; they add up."""
  total = 0
  for name, x in vars(batch).items():
    for shard in x.addressable_shards:
      if shard.replica_id == 0:
        start = [i.indices(n)[0] for i, n in zip(shard.index, x.shape)]
        total += checksum({name: shard.data}, start)
  return total


def broken(faults):
  """Puts the faults into the modules of the training loop."""
  real, numbers = prefetch.Batches.take, {'step': None}
  place, twice = loop.feed.place, health.sums

  def take(self):
    step = numbers['step']
    at = lambda name: faults.get(name) == [jax.process_index(), step]
    if faults.get('slow', [None])[0] == jax.process_index():
      time.sleep(faults['slow'][1])
    if at('hang'):
      time.sleep(3600)
    if at('fail'):
      raise OSError(28, 'No space left on device', 'some file')
    phase, found = real(self)
    if step in faults.get('nan', ()):
      found.weight[:] = np.nan
    return phase, found

  def placed(arrays, share=(0, 1)):
    found = place(arrays, share)
    if 'sums' in faults and numbers['step'] is not None:
      with open(f'{faults["sums"]}.{jax.process_index()}', 'a') as file:
        row = {'step': numbers['step'], 'sum': share_of(found)}
        file.write(json.dumps(row) + '\n')
    return found

  def sums(state, *arguments):
    numbers['sums'] = numbers.get('sums', 0) + 1
    if numbers['sums'] % 2 == 0 and faults['flip'] == [
      jax.process_index(),
      numbers['step'],
    ]:
      state = state.replace(params=flipped(state.params))
    return twice(state, *arguments)

  prefetch.Batches.take, loop.feed.place = take, placed
  if 'flip' in faults:
    health.sums = sums
  advance = loop._Run._advance

  def advanced(self):
    numbers['step'] = self.step + 1
    advance(self)
    numbers['step'] = None

  loop._Run._advance = advanced


def flipped(params):
  """`params` with one bit of one value changed on this process's first device."""
  leaves, tree = jax.tree.flatten(params)
  x = leaves[0]
  parts = [np.array(s.data) for s in x.addressable_shards]
  parts[0].view(np.uint32).flat[0] ^= 1 << 20
  placed = [jax.device_put(p, s.device) for p, s in zip(parts, x.addressable_shards)]
  leaves[0] = jax.make_array_from_single_device_arrays(x.shape, x.sharding, placed)
  return jax.tree.unflatten(tree, leaves)


if __name__ == '__main__':
  os.chdir(ROOT)
  broken(json.loads(sys.argv[1]))
  sys.exit(experiment.launch(sys.argv[2:]))
