"""The time that one stage of a pipeline takes, measured on the chips at hand (6.1)."""

import dataclasses
import time

import jax
import numpy as np

from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.generate.engine import Engine
from llama3_jax.generate.engine import complete
from llama3_jax.generate.group import Sizes
from llama3_jax.generate.settings import Settings
from llama3_jax.model import llama
from llama3_jax.pipeline.inference import Load
from llama3_jax.pipeline.inference import Stage

CHUNK = 512  # tokens of prompts that are read together
TRIES = 5  # of three runs each


def measure(model: ModelConfig, stages: int, parts: int, load: Load) -> Stage:
  """Seconds of a stage with 1/`stages` of the layers, and the head, for 1/`parts` of
  the rows: the least of three runs, of random weights and prompts.

  Raises a UserError where whole answers take no longer than their first token."""
  layers = -(-model.n_layers // stages)
  own = dataclasses.replace(model, n_layers=layers)
  rows, length = load.rows // parts, load.prompt + load.answer
  sizes = Sizes((rows,), (min(CHUNK, rows * load.prompt),), length)
  engine = Engine(llama.init(jax.random.key(0), own), own, sizes)
  engine.warm()
  random = np.random.default_rng(0)

  def seconds(tokens):
    """Of new prompts and `tokens` of each answer."""
    prompts = random.integers(0, model.vocab_size, (rows, load.prompt)).tolist()
    start = time.perf_counter()
    complete(engine, prompts, (), Settings(temperature=0, max_new=tokens))
    return time.perf_counter() - start

  for _ in range(TRIES):  # other work may have taken the processor from one of them
    short = min(seconds(1) for _ in range(3))
    long = min(seconds(load.answer) for _ in range(3))
    if long > short:
      step = (long - short) / (load.answer - 1)
      return Stage(max(short - step, 0.0), step)
  raise UserError(
    f'answer={load.answer}: its tokens take no time that can be measured beside the '
    'prompts: give longer answers, or the times, prefill_s and decode_s'
  )
