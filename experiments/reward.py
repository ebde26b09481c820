"""Reward model: the pre-trained model with a scalar head ranks responses (4.1.2).

  python -m experiment --config=configs/reward.py:tiny --workdir=runs/reward \\
    --config.init_from=runs/herd/anneal

Expected at `tiny`: accuracy above 0.90 on held-out pairs of the tasks. Writes
checkpoints/, metrics.jsonl, final/, scores.jsonl (rewards of every held-out example, by
row id) and results.json with accuracies, calibration and the effect of length.
"""

import functools

import jax

from llama3_jax import workdir as workdirs
from llama3_jax.base import jsonl
from llama3_jax.base import processes
from llama3_jax.post import formats
from llama3_jax.post import measure
from llama3_jax.post import measure_page
from llama3_jax.post import preference
from llama3_jax.post import ranked
from llama3_jax.post import reward
from llama3_jax.post import selection
from llama3_jax.post import training
from llama3_jax.reliable import guard
from llama3_jax.train import models
from llama3_jax.train import optim
from llama3_jax.train import part
from llama3_jax.train import report
from llama3_jax.train import step


def _page(folder, results):
  report.write(folder, results, measure_page.sections(results))


@workdirs.stage('final', 'scores.jsonl', report=_page)
def main(config, folder):
  """Train the reward model; returns {'accuracy', 'n', 'margins', 'files', ...}."""
  data = config.data
  tokenizer, model = training.prepare(config)
  rank = lambda found: ranked.rows(
    found, tokenizer, config.train.length, data.mode, config.seed, data.margins
  )
  branches = data.mode == 'exact'
  left = selection.Left()
  found = preference.examples(data, config.seed, 'train', left)
  train, kept = rank(found)
  train = ranked.pack(train)
  config = training.settle(config, model, train)
  t = config.train
  names = data.task_names
  made = preference.of_tasks(data.heldout_tasks, config.seed, 'heldout', names)
  heldout, known = rank(made + preference.held(data, left))
  loss = functools.partial(reward.loss, config=model, branches=branches)
  train_step = step.compose(
    loss,
    optim.of(config),
    t.microbatches,
    guard.create(t),
    part.of(config, reward.dims(model), new=('head',)),
  )
  start = functools.partial(_start, config, model)
  params, _ = training.run(
    config, folder, model, tokenizer, train_step, train, ranked.pack(heldout), start
  )
  score = lambda rows: reward.of_rows(params, rows, model, t.batch, branches)
  rewards = score(heldout)
  scores = list(measure.rows(rewards, known))
  results = {'dropped': len(found) - len(kept), **measure.judged(rewards, known)}
  results['filtered'] = {'train': left.results() | {selection.LONG: results['dropped']}}
  results |= {'read': formats.counted(found), 'files': {}}
  results['trained'] = training.used(config)
  for path in data.heldout_files:
    lost = selection.Left()
    people = preference.read(path, 'data.heldout_files', left=lost)
    results['filtered'][path] = lost.results()
    rows, known = rank(people)
    rewards = score(rows)
    judged = measure.judged(rewards, known)
    results['files'][path] = {**judged, 'dropped': len(people) - len(known)}
    scores += measure.rows(rewards, known)
  if processes.first():
    jsonl.write(folder / 'scores.jsonl', scores)
  return results


def _start(config, model):
  """The parameters of `init_from` with a head that is drawn."""
  params, _ = models.load(config.init_from, model)
  key = jax.random.key(config.seed)
  return jax.jit(reward.init, static_argnums=2)(key, params, model)
