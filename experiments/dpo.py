"""Direct preference optimization from the SFT model (4.1.4).

  python -m experiment --config=configs/dpo.py:tiny --workdir=runs/dpo \\
    --config.init_from=runs/herd/sft_2

Expected at `tiny`: preference accuracy above 0.9 on held-out pairs, and the chosen
log-probability does not fall. Writes checkpoints/, metrics.jsonl, final/, results.json.
--config.loss=ipo (simpo, kto, orpo, robust) trains with another loss on the same rows;
--config.data.mode=exact reads the prompt of both answers once.
"""

import functools

from llama3_jax import workdir as workdirs
from llama3_jax.base.errors import UserError
from llama3_jax.model import llama
from llama3_jax.post import dpo
from llama3_jax.post import joined
from llama3_jax.post import moving
from llama3_jax.post import preference
from llama3_jax.post import reference
from llama3_jax.post import training
from llama3_jax.reliable import guard
from llama3_jax.train import counted
from llama3_jax.train import models
from llama3_jax.train import optim
from llama3_jax.train import part
from llama3_jax.train import report
from llama3_jax.train import step


@workdirs.stage('final', report=report.write)
def main(config, folder):
  """Train; returns held-out {'eval_loss', 'eval/chosen', 'eval/accuracy', ...}."""
  compare, together = dpo.contrast(config), joined.mode(config.data.mode)
  if config.moving and (config.part.rank or config.part.trainable):
    raise UserError(
      f'moving={config.moving}: a reference that moves is of whole models: set '
      'part.rank=0 and part.trainable=(), or moving=0'
    )
  tokenizer, model = training.prepare(config)
  length = config.train.length
  train, dropped, read = preference.pairs(config, tokenizer, 'train', length)
  length = length or train.tokens.shape[-1]
  heldout, *_ = preference.pairs(config, tokenizer, 'heldout', length)
  if not config.moving:
    train, heldout = _referred(config, folder, model, tokenizer, train, heldout)
  if together:
    train, more = joined.rows(train, config.train.length)
    heldout, _ = joined.rows(heldout, train.tokens.shape[-1])
    dropped += more
  config = training.settle(config, model, train)
  t = config.train
  loss = functools.partial(
    dpo.loss, config=model, beta=config.beta, nll=config.nll, chunk=t.loss_chunk
  )
  most = counted.most(train, heldout)
  loss = functools.partial(loss, compare=compare, kept=most)
  optimizer, more = optim.of(config), {}
  if config.moving:
    loss = functools.partial(
      moving.loss, config=model, inner=loss, chunk=t.loss_chunk, kept=most
    )
    optimizer = moving.optimizer(optimizer, config.moving)
    start = lambda: moving.start(models.load(config.init_from, model)[0])
    more = {'start': start, 'kept': lambda both: both.policy}
  train_step = step.compose(
    loss,
    optimizer,
    t.microbatches,
    guard.create(t),
    part.of(config, llama.dims(model)),
  )
  _, measured = training.run(
    config, folder, model, tokenizer, train_step, train, heldout, **more
  )
  return {
    'pairs': len(train.tokens),
    'dropped': dropped,
    'read': read,
    'trained': training.used(config),
    **measured,
  }


def _referred(config, folder, model, tokenizer, train, heldout):
  """Both batches with the log-probabilities under the model that training starts from,
  which is loaded only where they are not kept in the workdir."""
  marks = reference.marks(config.init_from, model, tokenizer)
  start = functools.cache(lambda: models.load(config.init_from, model)[0])
  t = config.train
  return [
    reference.known(
      rows, start, model, folder / f'reference_{name}.npz', marks, t.batch, t.loss_chunk
    )
    for name, rows in (('train', train), ('heldout', heldout))
  ]
