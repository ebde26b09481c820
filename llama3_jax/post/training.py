"""What every stage of post-training does with its rows and its training step (4.1)."""

from llama3_jax.post import rows as rows_lib
from llama3_jax.train import belongs
from llama3_jax.train import checkpoint
from llama3_jax.train import loop
from llama3_jax.train import step


def prepare(config):
  """(Tokenizer, ModelConfig) of the stage that a config starts from."""
  data = config.data
  tokenizer = belongs.tokenizer(
    data.tokenizer, config.init_from, 'data.tokenizer', data.call_format
  )
  return tokenizer, checkpoint.load_model(config.init_from)


def run(config, folder, model, tokenizer, train_step, rows, heldout, start=None):
  """Trains on rows, writes `final/`; returns (params, held-out measures).

  Args:
    config: ConfigDict with init_from, seed, train and optim.
    rows, heldout: batches of all rows, np arrays.
    start: () -> the first parameters; None: those of init_from.
  """
  evaluate = step.evaluator(train_step.loss, heldout, config.train.batch)
  stream = rows_lib.Rows(rows, config.train.length, config.seed)
  start = start or (lambda: checkpoint.load(config.init_from, model)[0])
  state = loop.run(config, folder, model, train_step, stream, start, evaluate)
  params = train_step.whole(state)
  checkpoint.save_params(folder / 'final', params, model, tokenizer)
  return params, evaluate(params)
