"""Setup and training that the stages of post-training share (4.1)."""

import math
import pathlib
from collections.abc import Callable

from absl import logging
from ml_collections import ConfigDict

from llama3_jax import config as configs
from llama3_jax import feed
from llama3_jax.base import log
from llama3_jax.config import ModelConfig
from llama3_jax.model import llama
from llama3_jax.post import rows as rows_lib
from llama3_jax.text.tokenizer import Tokenizer
from llama3_jax.train import belongs
from llama3_jax.train import final
from llama3_jax.train import loop
from llama3_jax.train import models
from llama3_jax.train import schedule
from llama3_jax.train import step

# (parameters up to, peak learning rate of all of them, of adapters). The paper has 1e-5
# for 405B (4.1.3); for smaller models more is usual, and for adapters ten times that.
RATES = (
  (1e7, 3e-3, 3e-3),
  (5e8, 1e-4, 1e-3),
  (5e9, 2e-5, 2e-4),
  (math.inf, 1e-5, 1e-4),
)
DPO = 10  # its rate is that part of the rate of finetuning


def prepare(config: ConfigDict) -> tuple[Tokenizer, ModelConfig]:
  """(Tokenizer, ModelConfig) of the stage that a config starts from."""
  data = config.data
  tokenizer = belongs.tokenizer(
    data.tokenizer, config.init_from, 'data.tokenizer', data.call_format
  )
  return tokenizer, models.config(config.init_from)


def settle(config: ConfigDict, model: ModelConfig, rows: object) -> ConfigDict:
  """The config with what is 0 in it chosen by the model and its training rows.

  train.length: that of the rows; train.steps: of data.epochs; optim.decay: all steps;
  optim.warmup: a twentieth of them; optim.peak: by the size of the model (RATES), for
  adapters more, for DPO less.
  """
  count, length = rows.tokens.shape[0], rows.tokens.shape[-1]
  t, o = config.train, config.optim
  if t.steps and t.length and o.peak and o.decay and o.warmup:
    return config
  steps = t.steps or max(math.ceil(config.data.epochs * count / t.batch), 1)
  given = {'train.steps': steps, 'train.length': t.length or length}
  given |= schedule.filled(o.warmup, o.decay, steps)
  given['optim.peak'] = o.peak or peak(llama.count(model), config)
  logging.info(
    '%d rows of %d tokens: %d steps of %d rows, peak learning rate %.3g',
    *(count, length, steps, t.batch, given['optim.peak']),
  )
  return configs.edit(config, given)


def used(config: ConfigDict) -> dict[str, float]:
  """{steps, batch, length, peak} that a run was trained with, for its results."""
  t = config.train
  chosen = dict(steps=t.steps, batch=t.batch, length=t.length)
  return chosen | {'peak': config.optim.peak}


def peak(parameters: int, config: ConfigDict) -> float:
  """The highest learning rate for a model of so many parameters."""
  full, adapters = next(rates for most, *rates in RATES if parameters <= most)
  rate = adapters if config.part.rank else full
  return rate / DPO if config.experiment == 'dpo' else rate


def run(
  config: ConfigDict,
  folder: pathlib.Path,
  model: ModelConfig,
  tokenizer: Tokenizer,
  train_step: step.TrainStep,
  rows: feed.Rows,
  heldout: feed.Rows,
  start: Callable[[], object] | None = None,
  kept: Callable[[object], object] = lambda params: params,
  during: Callable[[Callable], Callable] = lambda evaluate: evaluate,
) -> tuple[object, dict[str, float]]:
  """Trains on rows and writes `final/`; returns (params, held-out measures).

  Args:
    config: ConfigDict with init_from, seed, train and optim.
    rows, heldout: batches of all rows, structs of np arrays.
    start: () -> the initial parameters; None: those of init_from.
    kept: what of the trained parameters is the model; all where it is not given.
    during: evaluate -> the evaluation at every train.eval_every steps.
  """
  evaluate = step.evaluator(train_step.loss, heldout, config.train.batch)
  stream = rows_lib.Rows(rows, config.train.length, config.seed)
  start = start or (lambda: models.load(config.init_from, model)[0])
  state = loop.run(config, folder, model, train_step, stream, start, during(evaluate))
  params = train_step.whole(state)
  final.save(folder / 'final', kept(params), model, tokenizer)
  with log.work('measuring what is held out'):
    return params, evaluate(params)
