"""Chat in the terminal."""

import ml_collections

from configs import pretrain


def get_config(arg=None):
  del arg
  c = ml_collections.ConfigDict()
  c.experiment = 'chat'
  c.seed = 0
  c.init_from = 'runs/herd/average_2'  # a stage's workdir, or a model of others
  c.mesh = pretrain.base().mesh
  c.tokenizer = ''  # vocabulary file; '': the one that init_from carries
  c.system = ''  # message that opens the dialog; '': as the chat template has it
  c.length = 1024  # longest dialog, tokens; older turns are forgotten
  c.tools = ()  # ('python', 'search=FOLDER', 'math', 'files=FOLDER', 'module.function')
  c.calls = 8  # messages with calls of tools, of one answer at most
  c.weights = ''  # fp8 | fp8_weights | int8 | int8_weights: of few bits (6.2)
  # The defaults of the release code.
  c.sample = ml_collections.ConfigDict(
    dict(temperature=0.6, top_p=0.9, top_k=0, max_new=256)
  )
  return c
