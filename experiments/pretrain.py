"""Initial pre-training: the next token of a mix of sources (section 3.4.1).

  python -m experiment --config=configs/pretrain.py:tiny --workdir=runs/pretrain \\
    --config.data.root=runs/herd/shards

Expected at `tiny` on the herd's shards: held-out loss falls from 8.0 to 2.3 in
1,250 steps. Writes checkpoints/, metrics.jsonl, final/ and results.json.
"""

from llama3_jax import workdir as workdirs
from llama3_jax.eval import during
from llama3_jax.reliable import guard
from llama3_jax.train import loop
from llama3_jax.train import optim
from llama3_jax.train import pretraining
from llama3_jax.train import report
from llama3_jax.train import step


@workdirs.stage('final', report=report.write)
def main(config, folder):
  """Train; returns {'parameters', 'tokens', 'eval_loss': {source: nats a token}}."""
  parts = pretraining.prepare(config)
  train_step = step.compose(
    parts.minimised,
    optim.of(config),
    config.train.microbatches,
    guard.create(config.train),
    parts.part,
  )
  state = loop.run(
    config,
    folder,
    parts.model,
    train_step,
    parts.rows,
    parts.start,
    during.of_parts(config, parts),
  )
  return pretraining.finish(config, folder, parts, train_step.whole(state))
