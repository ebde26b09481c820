"""Supervised finetuning on answers, the prompt masked (4.1.3).

  python -m experiment --config=configs/sft.py:tiny --workdir=runs/sft \\
    --config.init_from=runs/herd/anneal --config.data.files="('runs/reject/sft.jsonl',)"

Expected at `tiny`: the loss on held-out answers falls below a third of its start.
Writes checkpoints/, metrics.jsonl, final/ and results.json.
"""

import functools

from experiments import reward as preferences
from llama3_jax import config as configs
from llama3_jax import workdir as workdirs
from llama3_jax.post import rows as rows_lib
from llama3_jax.post import sft
from llama3_jax.tasks import suite
from llama3_jax.train import belongs
from llama3_jax.train import checkpoint
from llama3_jax.train import loop


def main(config, workdir):
  """Finetune; returns {'eval_loss', 'dialogs', 'dropped'}."""
  folder = workdirs.claim(config, workdir)
  if (done := workdirs.finished(folder, ('final',))) is not None:
    return done
  tokenizer = belongs.tokenizer(
    config.data.tokenizer, config.init_from, 'data.tokenizer'
  )
  model = checkpoint.load_model(config.init_from)
  found = dialogs(config, 'train')
  train, dropped = _rows(config, tokenizer, found)
  heldout, _ = _rows(config, tokenizer, dialogs(config, 'heldout'))
  loss = functools.partial(sft.loss, config=model, chunk=config.train.loss_chunk)
  evaluate = functools.partial(
    preferences.evaluate, batches=preferences.batches(config, heldout), loss=loss
  )
  state = loop.run(
    config,
    folder,
    model,
    loss,
    rows_lib.Rows(train, config.train.length, config.seed),
    lambda: checkpoint.load(config.init_from, model)[0],
    evaluate,
  )
  results = {'dialogs': len(found), 'dropped': dropped, **evaluate(state.params)}
  checkpoint.save_params(folder / 'final', state.params, model, tokenizer)
  configs.write_json(folder / 'results.json', results)
  return results


def dialogs(config, split):
  """Generated dialogs of the tasks and those of the config's files."""
  if split == 'train':
    made = suite.sft_rows(config.data.tasks, config.seed)
    files, field = config.data.files, 'data.files'
  else:
    made = heldout_rows(config.data.heldout_tasks, config.seed)
    files, field = config.data.heldout_files, 'data.heldout_files'
  found = [sft.parse(row, f'{split} example {i}') for i, row in enumerate(made)]
  return found + [dialog for path in files for dialog in sft.read(path, field)]


def heldout_rows(n, seed):
  """SFT rows of the tasks' held-out split, for the loss on unseen prompts."""
  rows = []
  for e in suite.mixed(n, seed, 'heldout') if n else []:
    said = (('user', e.prompt), ('assistant', e.answer))
    messages = [{'role': role, 'content': content} for role, content in said]
    rows.append({'messages': messages, 'source': e.task})
  return rows


def _rows(config, tokenizer, found):
  return sft.rows(
    found,
    tokenizer,
    config.train.length,
    config.data.positions,
    config.seed,
    config.data.turns,
  )
