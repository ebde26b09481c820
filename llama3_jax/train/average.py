"""Averages of checkpoints: Polyak averaging in annealing (3.4.3), model averaging
(4.1.5)."""

import os
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from llama3_jax.base.errors import UserError
from llama3_jax.train import checkpoint
from llama3_jax.train import resume
from llama3_jax.train.config import TrainConfig
from llama3_jax.train.step import State


def mean(trees: Iterable[object]) -> object:
  """Leaf-wise mean of parameter trees, in float32, laid out like the first."""
  trees = list(trees)
  if not trees:
    raise UserError('nothing to average: give at least one checkpoint')
  shapes = [jax.tree.map(jnp.shape, t) for t in trees]
  if any(s != shapes[0] for s in shapes):
    raise UserError('the checkpoints to average are of different models')
  return jax.tree.map(lambda *x: sum(a.astype(jnp.float32) for a in x) / len(x), *trees)


def of_saves(
  train: TrainConfig | ConfigDict,
  folder: str | os.PathLike,
  state: State,
  whole: Callable[[State], object],
  evaluate: Callable[[object], Mapping[str, float]],
) -> tuple[object, dict]:
  """Polyak average: the mean of the last `train.average` saves of a run (3.4.3).

  Args:
    train: the `train` part of the run's config.
    folder: workdir of the run.
    state: a State with the layout in which the saves are restored.
    whole: whole(state) -> its parameters.
    evaluate: evaluate(params) -> held-out losses.

  Returns:
    (params, {'steps', 'members': held-out loss of each save, 'mean': that of params}).
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
