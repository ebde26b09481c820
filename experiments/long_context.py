"""Long-context pre-training: longer rows, until old and new lengths are well (3.4.2).

  python -m experiment --config=configs/long_context.py:tiny --workdir=runs/long \\
    --config.init_from=runs/herd/pretrain --config.data.root=runs/herd/shards

Expected at `tiny`: the loss at the initial length recovers, and needles are found at
four times that length. Writes checkpoints/, metrics.jsonl, gate.json, final/ and
results.json.
"""

from llama3_jax import config as configs
from llama3_jax import workdir as workdirs
from llama3_jax.eval import during
from llama3_jax.eval import gate
from llama3_jax.reliable import guard
from llama3_jax.train import loop
from llama3_jax.train import optim
from llama3_jax.train import pretraining
from llama3_jax.train import report
from llama3_jax.train import step


@workdirs.stage('final', report=report.write)
def main(config, folder):
  """Train until the gate opens; returns {'needle', 'gate', 'eval_loss', ...}."""
  parts = pretraining.prepare(config)
  train_step = step.compose(
    parts.minimised,
    optim.of(config),
    config.train.microbatches,
    guard.create(config.train),
    parts.part,
  )

  look = during.of_parts(config, parts)

  def train_to(steps):
    c = configs.edit(config, {'train.steps': steps})
    state = loop.run(c, folder, parts.model, train_step, parts.rows, parts.start, look)
    return train_step.whole(state)

  params, found = gate.extend(config, folder, parts, train_to)
  return {**found, **pretraining.finish(config, folder, parts, params)}
