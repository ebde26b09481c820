"""Completions of prompts: one on the command line, or files of them."""

import ml_collections

from configs import pretrain


def get_config(arg=None):
  del arg
  c = ml_collections.ConfigDict()
  c.experiment = 'generate'
  c.seed = 0
  c.init_from = 'runs/herd/average_2'  # workdir of a finished stage, or another's model
  c.mesh = pretrain.base().mesh
  c.tokenizer = ''  # vocabulary file; '': the one that init_from carries
  c.prompt = ''  # a text to be completed
  c.files = ()  # rows {"prompt": text}, or {"messages": [...]} to be answered
  c.samples = 1  # completions of a prompt
  c.batch = 16  # prompts decoded together
  c.microbatches = 1  # of them, where mesh.stage cuts the layers
  c.weights = ''  # fp8 | fp8_weights | int8 | int8_weights: of few bits (6.2)
  # The defaults of the release code.
  c.sample = ml_collections.ConfigDict(
    dict(temperature=0.6, top_p=0.9, top_k=0, max_new=128)
  )
  return c
