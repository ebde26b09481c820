"""Reward model: the pre-trained model with a scalar head ranks responses (4.1.2).

  python -m experiment --config=configs/reward.py:tiny --workdir=runs/reward \\
    --config.init_from=runs/herd/anneal

Expected at `tiny`: accuracy above 0.90 on held-out pairs of the tasks. Writes
checkpoints/, metrics.jsonl, final/ and results.json with accuracy and margins.
"""

import functools

import jax

from llama3_jax import config as configs
from llama3_jax import feed
from llama3_jax import workdir as workdirs
from llama3_jax.post import preference
from llama3_jax.post import reward
from llama3_jax.post import rows as rows_lib
from llama3_jax.tasks import suite
from llama3_jax.train import belongs
from llama3_jax.train import checkpoint
from llama3_jax.train import loop
from llama3_jax.train import step


def main(config, workdir):
  """Train the reward model; returns {'accuracy', 'n', 'margins', 'files', ...}."""
  folder = workdirs.claim(config, workdir)
  if (done := workdirs.finished(folder, ('final',))) is not None:
    return done
  tokenizer = belongs.tokenizer(
    config.data.tokenizer, config.init_from, 'data.tokenizer'
  )
  model = checkpoint.load_model(config.init_from)
  make = functools.partial(_rows, config, tokenizer)
  train, dropped = make(examples(config, 'train'))
  heldout, _ = make(task_examples(config, 'heldout'))
  loss = functools.partial(reward.loss, config=model)
  state = loop.run(
    config,
    folder,
    model,
    loss,
    rows_lib.Rows(train, config.train.length, config.seed),
    functools.partial(_start, config, model),
    functools.partial(evaluate, batches=batches(config, heldout), loss=loss),
  )
  results = {'dropped': dropped, **_judge(state.params, heldout, model, config)}
  results['files'] = {}
  for path in config.data.heldout_files:
    rows, lost = make(preference.read(path, 'data.heldout_files'))
    judged = _judge(state.params, rows, model, config)
    results['files'][path] = {**judged, 'dropped': lost}
  checkpoint.save_params(folder / 'final', state.params, model, tokenizer)
  configs.write_json(folder / 'results.json', results)
  return results


def task_examples(config, split):
  """Generated preference examples of the verifiable tasks."""
  n = config.data.tasks if split == 'train' else config.data.heldout_tasks
  made = suite.preference_rows(n, config.seed, split) if n else []
  return [preference.parse(row, f'{split} example {i}') for i, row in enumerate(made)]


def examples(config, split):
  """Generated examples and those of the config's files."""
  name = 'files' if split == 'train' else 'heldout_files'
  found = task_examples(config, split)
  for path in config.data[name]:
    found += preference.read(path, f'data.{name}')
  return found


def _rows(config, tokenizer, found):
  return preference.reward_rows(
    found, tokenizer, config.train.length, config.data.mode, config.seed
  )


def _start(config, model):
  params, _ = checkpoint.load(config.init_from, model)
  key = jax.random.key(config.seed)
  return jax.jit(reward.init, static_argnums=2)(key, params, model)


def batches(config, rows):
  """Held-out rows as batches of the training's shape, on the mesh."""
  return [feed.place(batch) for batch in feed.batches(rows, config.train.batch)]


def evaluate(params, batches, loss):
  """Held-out means: eval_loss, eval/accuracy and so on."""
  if not batches:
    return {}
  found = step.evaluate(params, batches, loss)
  others = {f'eval/{name}': value for name, value in found.items() if name != 'loss'}
  return {'eval_loss': found['loss'], **others}


def _judge(params, rows, model, config):
  """Accuracy over ordered pairs, and every margin."""
  margins = reward.margins(params, rows, model, config.train.batch)
  wins = (margins > 0) + 0.5 * (margins == 0)
  return {
    'accuracy': float(wins.mean()) if len(margins) else None,
    'n': len(margins),
    'margins': [round(float(m), 4) for m in margins],
  }
