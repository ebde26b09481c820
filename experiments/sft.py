"""Supervised finetuning on answers, the prompt masked (4.1.3).

  python -m experiment --config=configs/sft.py:tiny --workdir=runs/sft \\
    --config.init_from=runs/herd/anneal --config.data.files="('runs/reject/sft.jsonl',)"

Expected at `tiny`: the loss on held-out answers falls below a third of its start.
Writes checkpoints/, metrics.jsonl, final/ and results.json.
"""

import functools

from llama3_jax import config as configs
from llama3_jax import workdir as workdirs
from llama3_jax.eval import during
from llama3_jax.model import llama
from llama3_jax.post import formats
from llama3_jax.post import mixture
from llama3_jax.post import sft
from llama3_jax.post import training
from llama3_jax.reliable import guard
from llama3_jax.train import counted
from llama3_jax.train import optim
from llama3_jax.train import part
from llama3_jax.train import report
from llama3_jax.train import step
from llama3_jax.train.config import AskConfig


@workdirs.stage('final', report=report.write)
def main(config, folder):
  """Finetune; returns {'eval_loss', 'dialogs', 'mix', 'dropped', 'read', 'trained'}."""
  data, seed = config.data, config.seed
  tokenizer, model = training.prepare(config)
  pack = functools.partial(sft.rows, tokenizer=tokenizer, seed=seed)
  pack = functools.partial(pack, position=data.positions, turns=data.turns)
  found = sft.dialogs(data, seed, 'train')
  used, mix = mixture.mixed(found, data.shares, data.passes, seed)
  train, dropped = pack(used, seq_len=config.train.length)
  config = training.settle(config, model, train)
  t = config.train
  heldout, _ = pack(sft.dialogs(data, seed, 'heldout'), seq_len=t.length)
  loss = functools.partial(
    sft.loss, config=model, chunk=t.loss_chunk, kept=counted.most(train, heldout)
  )
  train_step = step.compose(
    loss,
    optim.of(config),
    t.microbatches,
    guard.create(t),
    part.of(config, llama.dims(model)),
  )
  ask = configs.fill(AskConfig(), config.ask, 'ask')
  asked = functools.partial(
    during.beside, ask=ask, model=model, tokenizer=tokenizer, seed=seed
  )
  _, measured = training.run(
    *(config, folder, model, tokenizer, train_step, train, heldout), during=asked
  )
  read = formats.counted(found)
  return {
    'dialogs': len(found),
    'mix': mix,
    'dropped': dropped,
    'read': read,
    'trained': training.used(config),
    **measured,
  }
