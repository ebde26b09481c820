"""Direct preference optimization from the SFT model (4.1.4).

  python -m experiment --config=configs/dpo.py:tiny --workdir=runs/dpo \\
    --config.init_from=runs/herd/sft_2

Expected at `tiny`: preference accuracy above 0.9 on held-out pairs, and the chosen
log-probability does not fall. Writes checkpoints/, metrics.jsonl, final/, results.json.
"""

import functools

from experiments import reward as preferences
from llama3_jax import config as configs
from llama3_jax import workdir as workdirs
from llama3_jax.post import dpo
from llama3_jax.post import preference
from llama3_jax.post import rows as rows_lib
from llama3_jax.train import belongs
from llama3_jax.train import checkpoint
from llama3_jax.train import loop


def main(config, workdir):
  """Train; returns held-out {'eval_loss', 'eval/chosen', 'eval/accuracy', ...}."""
  folder = workdirs.claim(config, workdir)
  if (done := workdirs.finished(folder, ('final',))) is not None:
    return done
  tokenizer = belongs.tokenizer(
    config.data.tokenizer, config.init_from, 'data.tokenizer'
  )
  reference, model = checkpoint.load(config.init_from)
  rows = {}
  for split in ('train', 'heldout'):
    found = preferences.examples(config, split)
    made, dropped = preference.dpo_rows(
      found, tokenizer, config.train.length, config.data.pairs
    )
    rows[split] = dpo.reference(
      reference, made, model, config.train.batch, config.train.loss_chunk
    )
    rows[f'{split}_dropped'] = dropped
  del reference
  loss = functools.partial(
    dpo.loss,
    config=model,
    beta=config.beta,
    nll=config.nll,
    chunk=config.train.loss_chunk,
  )
  batches = preferences.batches(config, rows['heldout'])
  evaluate = functools.partial(preferences.evaluate, batches=batches, loss=loss)
  state = loop.run(
    config,
    folder,
    model,
    loss,
    rows_lib.Rows(rows['train'], config.train.length, config.seed),
    lambda: checkpoint.load(config.init_from, model)[0],
    evaluate,
  )
  results = {
    'pairs': len(rows['train'].tokens),
    'dropped': rows['train_dropped'],
    **evaluate(state.params),
  }
  checkpoint.save_params(folder / 'final', state.params, model, tokenizer)
  configs.write_json(folder / 'results.json', results)
  return results
