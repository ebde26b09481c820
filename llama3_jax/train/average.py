"""Averages of checkpoints: Polyak in annealing (3.4.3), of models (4.1.5)."""

import jax
import jax.numpy as jnp

from llama3_jax.base.errors import UserError
from llama3_jax.train import checkpoint
from llama3_jax.train import resume


def mean(trees):
  """Leaf-wise mean of parameter trees, in float32, laid out like the first."""
  trees = list(trees)
  if not trees:
    raise UserError('nothing to average: give at least one checkpoint')
  shapes = [jax.tree.map(jnp.shape, t) for t in trees]
  if any(s != shapes[0] for s in shapes):
    raise UserError('the checkpoints to average are of different models')
  return jax.tree.map(lambda *x: sum(a.astype(jnp.float32) for a in x) / len(x), *trees)


def of_saves(train, folder, state, whole, evaluate):
  """Polyak's average: the mean of the last `train.average` saves of a run (3.4.3).

  Args: state: the last one, laid out as the saves are restored; whole(state) -> its
  parameters; evaluate(params) -> held-out losses.

  Returns (params, {'steps', 'members': [their losses], 'mean': its loss}).
  """
  saves = checkpoint.open_run(folder, train)
  steps = saves.steps()[-train.average :]
  members = [whole(resume.restore(saves, state, s, None)[0]) for s in steps]
  saves.close()
  params = mean(members)
  report = {
    'steps': steps,
    'members': [evaluate(m).get('eval_loss') for m in members],
    'mean': evaluate(params).get('eval_loss'),
  }
  return params, report
