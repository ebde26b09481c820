"""Setup and end that the three stages of pre-training share (3.4)."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

import jax
from absl import logging
from ml_collections import ConfigDict

from llama3_jax import config as configs
from llama3_jax import show
from llama3_jax.base import log
from llama3_jax.base.errors import UserError
from llama3_jax.data import pipeline
from llama3_jax.data.config import DataConfig
from llama3_jax.model import llama
from llama3_jax.pipeline import plans
from llama3_jax.reliable import goodput
from llama3_jax.text import store
from llama3_jax.train import belongs
from llama3_jax.train import final
from llama3_jax.train import fit
from llama3_jax.train import loss as losses
from llama3_jax.train import models
from llama3_jax.train import part as parts
from llama3_jax.train import sources


@dataclasses.dataclass(frozen=True)
class Parts:
  """Model, loss, data, initial parameters and evaluation of a stage.

  loss: next-token loss, loss(params, batch) -> (sum, metric sums with 'count').
  minimised: that loss, or the Plan of a pipeline where the mesh has stages.
  part: which parameters are trained; None: all.
  sources, held: {name: Source}, of training and held out.
  start: () -> the initial parameters.
  evaluate: (params) -> held-out losses; during: the same, of parameters in the order of
    the training step, which differs in a pipeline.
  """

  model: configs.ModelConfig
  loss: Callable
  minimised: Callable | plans.Plan
  part: parts.Part | None
  sources: dict
  held: dict
  rows: pipeline.Rows
  start: Callable
  evaluate: Callable
  during: Callable


def prepare(config: ConfigDict) -> Parts:
  """The Parts of a config; UserError where they do not fit together."""
  model, t = model_of(config), config.train
  how = dict(config=model, z_loss=t.z_loss, chunk=t.loss_chunk)
  loss = functools.partial(losses.next_token, **how)
  tail = functools.partial(losses.head_loss, **how)
  plan = plans.of(config, model, tail)
  fit.check(config, model, plan)
  data = configs.fill(DataConfig(), config.data, 'data')
  used, held = (
    sources.of_split(data, split, model.vocab_size, config.init_from)
    for split in ('train', 'heldout')
  )
  rows = sources.rows(data, used, config.seed)
  evaluator = functools.partial(sources.evaluator, data, held, t.batch, t.length)
  evaluate = during = evaluator(loss)
  if plan:
    during = evaluator(plans.of(config, model, tail, 'forward'))
  begin = functools.partial(start, config, model)
  part = parts.of(config, llama.dims(model))
  return Parts(
    model, loss, plan or loss, part, used, held, rows, begin, evaluate, during
  )


def model_of(config: ConfigDict) -> configs.ModelConfig:
  """ModelConfig of a config; model.vocab_size 0 is that of the shards' tokenizer."""
  if config.model.vocab_size:
    return configs.model_config(config.model)
  data = configs.fill(DataConfig(), config.data, 'data')
  found = {s.index.get('vocab_size') for s in sources.of_split(data, 'train').values()}
  if len(found) != 1 or None in found:
    raise UserError(f'model.vocab_size=0: the shards of {data.root} do not say it')
  return configs.model_config(config.model.to_dict() | {'vocab_size': found.pop()})


def start(config: ConfigDict, model: configs.ModelConfig) -> llama.Params:
  """Initial parameters: random, or those of the stage `config.init_from`."""
  if config.init_from:
    return models.load(config.init_from, model)[0]
  params = jax.jit(llama.init, static_argnums=1)(jax.random.key(config.seed), model)
  logging.info('parameters\n%s', show.parameters(params))
  return params


def finish(
  config: ConfigDict, folder: pathlib.Path, stage: Parts, params: llama.Params
) -> dict:
  """Writes `final/` and evaluates it.

  Returns {'parameters', 'tokens', 'read': by source, 'eval_loss', 'goodput'}.
  """
  results = {'parameters': llama.count(stage.model), 'tokens': stage.rows.tokens}
  results['read'] = stage.rows.begun
  with log.work('measuring what is held out'):
    results['eval_loss'] = stage.evaluate(params)
  tokenizer = belongs.of_shards(stage.sources) or _inherited(config)
  final.save(folder / 'final', params, stage.model, tokenizer)
  return {**results, 'goodput': goodput.report(folder)}


def _inherited(config):
  """The Tokenizer stored with the previous stage, None for one without."""
  path = models.tokenizer(config.init_from) if config.init_from else None
  return path and store.load(path)
