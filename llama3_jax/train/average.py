"""Averages of checkpoints: Polyak averaging in annealing (3.4.3), model averaging
(4.1.5)."""

import os
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from llama3_jax.base.errors import UserError
from llama3_jax.train import checkpoint
from llama3_jax.train import resume
from llama3_jax.train.config import TrainConfig
from llama3_jax.train.step import State


def mean(trees: Iterable[object], scales: Sequence[float] = ()) -> object:
  """Leaf-wise mean of parameter trees, in float32, laid out like the first.

  scales: how much each counts, (): all alike; they are divided by their sum.
  """
  trees = _alike(trees)
  if not scales:
    return jax.tree.map(
      lambda *x: sum(a.astype(jnp.float32) for a in x) / len(x), *trees
    )
  scales = _scales(scales, len(trees))
  total = sum(scales)
  if abs(total) < 1e-6:
    raise UserError(f'scales={scales} add up to {total:g}: a mean needs another sum')
  return _sum(trees, [scale / total for scale in scales])


def moved(
  base: object, trees: Iterable[object], scales: Sequence[float] = ()
) -> object:
  """base + sum of scale * (tree - base) in float32: task vectors, Ilharco et al. 2022.

  scales: of each tree; (): 1 / their number, which makes it the mean.
  """
  trees = _alike([base, *trees])
  count = len(trees) - 1
  scales = _scales(scales, count) if scales else [1 / max(count, 1)] * count
  return _sum(trees, [1 - sum(scales), *scales])


def _sum(trees, scales):
  add = lambda *x: sum(s * a.astype(jnp.float32) for s, a in zip(scales, x))
  return jax.tree.map(add, *trees)


def _scales(scales, count):
  if len(scales) != count:
    raise UserError(f'scales: {len(scales)} numbers for {count} members: give one each')
  return list(scales)


def _alike(trees):
  trees = list(trees)
  if not trees:
    raise UserError('nothing to average: give at least one checkpoint')
  shapes = [jax.tree.map(jnp.shape, t) for t in trees]
  if any(s != shapes[0] for s in shapes):
    raise UserError('the checkpoints to average are of different models')
  return trees


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
