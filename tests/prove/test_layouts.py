"""One run through four layouts, a save apart: the same losses, the same parameters."""

import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp

from llama3_jax.train import metrics

STEPS = 24
LAYOUTS = (
  ('FSDP 8', {'fsdp': 8}, 1),
  ('PP 2 x FSDP 2 x TP 2', {'stage': 2, 'fsdp': 2, 'tensor': 2}, 4),
  ('CP 2 x FSDP 2 x TP 2', {'context': 2, 'fsdp': 2, 'tensor': 2}, 1),
  ('replica 2 x PP 2 x CP 2', {'replica': 2, 'stage': 2, 'context': 2, 'fsdp': 1}, 2),
)


def command(toy, workdir, sizes, microbatches):
  fields = {f'mesh.{a}': n for a, n in sizes.items()}
  fields |= {'train.microbatches': microbatches, 'train.save_every': 6}
  fields |= {'train.keep': 9}
  changes = [f'--config.{k}={v}' for k, v in fields.items()]
  config = f'--config={toy}/toy.py:{STEPS}'
  return [config, '--devices=8', *changes, f'--workdir={workdir}']


def parameters(workdir):
  with ocp.StandardCheckpointer() as reader:
    return jax.tree.map(np.asarray, reader.restore(workdir / 'final' / 'params'))


def losses(workdir):
  rows = metrics.read(workdir)
  return np.array([r['loss'] for r in rows if 'loss' in r])


def test_a_run_goes_on_in_every_layout(launcher, toy, tmp_path, record):
  whole, moved = tmp_path / 'whole', tmp_path / 'moved'
  status, text = launcher.run(*command(toy, whole, *LAYOUTS[0][1:]))
  assert status == 0, text
  shutil.copytree(whole, moved)
  # Every layout takes the save of step 6 i, runs to the end, and leaves its next save.
  for i, (_, sizes, microbatches) in enumerate(LAYOUTS[1:], 1):
    for old in (moved / 'checkpoints').iterdir():
      if not old.name.isdigit() or int(old.name) > 6 * i:
        shutil.rmtree(old)
    shutil.rmtree(moved / 'final')
    (moved / 'results.json').unlink()
    status, text = launcher.run(*command(toy, moved, sizes, microbatches))
    assert status == 0 and f'resumed at step {6 * i}' in text, text
  a, b = losses(whole), losses(moved)
  apart = np.max(np.abs(a - b) / a)
  leaves = zip(*(jax.tree.leaves(parameters(w)) for w in (whole, moved)))
  worst = max(np.max(np.abs(x - y)) / np.max(np.abs(x)) for x, y in leaves)
  names = ', then '.join(name for name, *_ in LAYOUTS)
  record(f'{STEPS} steps saved and resumed on {names}: loss', f'{apart:.1e}', '1e-4')
  record('the same: final parameters, relative to the largest', f'{worst:.1e}', '1e-2')
  assert len(a) == len(b) == STEPS and apart < 1e-4 and worst < 1e-2
