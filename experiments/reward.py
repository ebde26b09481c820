"""Reward model: the pre-trained model with a scalar head ranks responses (4.1.2).

  python -m experiment --config=configs/reward.py:tiny --workdir=runs/reward \\
    --config.init_from=runs/herd/anneal

Expected at `tiny`: accuracy above 0.90 on held-out pairs of the tasks. Writes
checkpoints/, metrics.jsonl, final/ and results.json with accuracy and margins.
"""

import functools

import jax

from llama3_jax import workdir as workdirs
from llama3_jax.post import formats
from llama3_jax.post import preference
from llama3_jax.post import reward
from llama3_jax.post import training
from llama3_jax.reliable import guard
from llama3_jax.train import models
from llama3_jax.train import optim
from llama3_jax.train import part
from llama3_jax.train import report
from llama3_jax.train import step


@workdirs.stage('final', report=report.write)
def main(config, folder):
  """Train the reward model; returns {'accuracy', 'n', 'margins', 'files', ...}."""
  data = config.data
  tokenizer, model = training.prepare(config)
  rank = lambda found: preference.reward_rows(
    found, tokenizer, config.train.length, data.mode, config.seed
  )
  found = preference.examples(data, config.seed, 'train')
  train, dropped = rank(found)
  config = training.settle(config, model, train)
  t = config.train
  names = data.task_names
  made = preference.of_tasks(data.heldout_tasks, config.seed, 'heldout', names)
  heldout, _ = rank(made + preference.held(data))
  loss = functools.partial(reward.loss, config=model)
  train_step = step.compose(
    loss,
    optim.of(config),
    t.microbatches,
    guard.create(t),
    part.of(config, reward.dims(model), new=('head',)),
  )
  start = functools.partial(_start, config, model)
  params, _ = training.run(
    config, folder, model, tokenizer, train_step, train, heldout, start
  )
  results = {'dropped': dropped, **reward.judge(params, heldout, model, t.batch)}
  results |= {'read': formats.counted(found), 'files': {}}
  results['trained'] = training.used(config)
  for path in data.heldout_files:
    people, lost = rank(preference.read(path, 'data.heldout_files'))
    judged = reward.judge(params, people, model, t.batch)
    results['files'][path] = {**judged, 'dropped': lost}
  return results


def _start(config, model):
  """The parameters of `init_from` with a head that is drawn."""
  params, _ = models.load(config.init_from, model)
  key = jax.random.key(config.seed)
  return jax.jit(reward.init, static_argnums=2)(key, params, model)
