"""Setup and training that the stages of post-training share (4.1)."""

import pathlib
from collections.abc import Callable

from ml_collections import ConfigDict

from llama3_jax import feed
from llama3_jax.config import ModelConfig
from llama3_jax.post import rows as rows_lib
from llama3_jax.text.tokenizer import Tokenizer
from llama3_jax.train import belongs
from llama3_jax.train import final
from llama3_jax.train import loop
from llama3_jax.train import models
from llama3_jax.train import step


def prepare(config: ConfigDict) -> tuple[Tokenizer, ModelConfig]:
  """(Tokenizer, ModelConfig) of the stage that a config starts from."""
  data = config.data
  tokenizer = belongs.tokenizer(
    data.tokenizer, config.init_from, 'data.tokenizer', data.call_format
  )
  return tokenizer, models.config(config.init_from)


def run(
  config: ConfigDict,
  folder: pathlib.Path,
  model: ModelConfig,
  tokenizer: Tokenizer,
  train_step: step.TrainStep,
  rows: feed.Tokens | feed.Pairs | feed.Ranked,
  heldout: feed.Tokens | feed.Pairs | feed.Ranked,
  start: Callable[[], object] | None = None,
) -> tuple[object, dict[str, float]]:
  """Trains on rows and writes `final/`; returns (params, held-out measures).

  Args:
    config: ConfigDict with init_from, seed, train and optim.
    rows, heldout: batches of all rows, structs of np arrays.
    start: () -> the initial parameters; None: those of init_from.
  """
  evaluate = step.evaluator(train_step.loss, heldout, config.train.batch)
  stream = rows_lib.Rows(rows, config.train.length, config.seed)
  start = start or (lambda: models.load(config.init_from, model)[0])
  state = loop.run(config, folder, model, train_step, stream, start, evaluate)
  params = train_step.whole(state)
  final.save(folder / 'final', params, model, tokenizer)
  return params, evaluate(params)
