"""Annealing: the learning rate falls to zero, the last saves are averaged (3.4.3).

  python -m experiment --config=configs/anneal.py:tiny --workdir=runs/anneal \\
    --config.init_from=runs/herd/long_context --config.data.root=runs/herd/shards

Expected at `tiny`: a lower held-out loss than the same steps at the same rate give, and
the average no worse than its members. Writes checkpoints/, metrics.jsonl, final/ and
results.json.
"""

from llama3_jax import workdir as workdirs
from llama3_jax.eval import during
from llama3_jax.reliable import guard
from llama3_jax.train import average
from llama3_jax.train import loop
from llama3_jax.train import optim
from llama3_jax.train import pretraining
from llama3_jax.train import report
from llama3_jax.train import step


@workdirs.stage('final', report=report.write)
def main(config, folder):
  """Train, then average; returns {'eval_loss': {source: nats a token}, 'average'}."""
  parts = pretraining.prepare(config)
  train_step = step.compose(
    parts.minimised,
    optim.of(config),
    config.train.microbatches,
    guard.create(config.train),
    parts.part,
  )
  look = during.of_parts(config, parts)
  state = loop.run(
    config, folder, parts.model, train_step, parts.rows, parts.start, look
  )
  if not config.train.average:
    return pretraining.finish(config, folder, parts, train_step.whole(state))
  params, averaged = average.of_saves(
    config.train, folder, state, train_step.whole, parts.evaluate
  )
  return {'average': averaged, **pretraining.finish(config, folder, parts, params)}
