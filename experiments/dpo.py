"""Direct preference optimization from the SFT model (4.1.4).

  python -m experiment --config=configs/dpo.py:tiny --workdir=runs/dpo \\
    --config.init_from=runs/herd/sft_2

Expected at `tiny`: preference accuracy above 0.9 on held-out pairs, and the chosen
log-probability does not fall. Writes checkpoints/, metrics.jsonl, final/, results.json.
"""

import functools

from llama3_jax import workdir as workdirs
from llama3_jax.model import llama
from llama3_jax.post import dpo
from llama3_jax.post import preference
from llama3_jax.post import training
from llama3_jax.reliable import guard
from llama3_jax.train import models
from llama3_jax.train import optim
from llama3_jax.train import part
from llama3_jax.train import report
from llama3_jax.train import step


@workdirs.stage('final', report=report.write)
def main(config, folder):
  """Train; returns held-out {'eval_loss', 'eval/chosen', 'eval/accuracy', ...}."""
  tokenizer, model = training.prepare(config)
  length = config.train.length
  train, dropped, read = preference.pairs(config, tokenizer, 'train', length)
  config = training.settle(config, model, train)
  t = config.train
  heldout, *_ = preference.pairs(config, tokenizer, 'heldout', t.length)
  reference, _ = models.load(config.init_from, model)
  train, heldout = (
    dpo.reference(reference, pairs, model, t.batch, t.loss_chunk)
    for pairs in (train, heldout)
  )
  del reference
  loss = functools.partial(
    dpo.loss, config=model, beta=config.beta, nll=config.nll, chunk=t.loss_chunk
  )
  train_step = step.compose(
    loss,
    optim.of(config),
    t.microbatches,
    guard.create(t),
    part.of(config, llama.dims(model)),
  )
  _, measured = training.run(
    config, folder, model, tokenizer, train_step, train, heldout
  )
  return {
    'pairs': len(train.tokens),
    'dropped': dropped,
    'read': read,
    'trained': training.used(config),
    **measured,
  }
