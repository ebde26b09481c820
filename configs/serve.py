"""A server of a model, as the OpenAI API."""

import ml_collections

from configs import pretrain


def get_config(arg=None):
  del arg
  c = ml_collections.ConfigDict()
  c.experiment = 'serve'
  c.seed = 0  # of the seeds that requests without one get
  c.init_from = 'runs/herd/average_2'  # a stage's workdir, or a model of others
  c.mesh = pretrain.base().mesh
  c.tokenizer = ''  # vocabulary file; '': the one that init_from carries
  c.host = '127.0.0.1'  # only this machine; 0.0.0.0 or ::: all that reach it
  c.port = 8000  # 0: any that is free; the log says which
  c.length = 2048  # longest prompt with its answer, tokens
  c.weights = ''  # fp8 | fp8_weights | int8 | int8_weights: of few bits (6.2)
  # Each number is a program; the smallest that is enough runs.
  c.rows = (4, 16)  # answers that decode together, of each group of chips
  c.chunks = (64, 512)  # tokens of prompts that are read together
  c.pages = 0  # of 64 tokens; 0: for all rows at their longest
  c.steps = 4  # tokens of each answer before a new request can enter
  c.microbatches = 1  # of rows and chunks, where mesh.stage cuts the layers
  c.queue = 256  # requests that may wait; the next is told to come later (429)
  c.timeout_s = 300.0  # seconds an answer may take
  c.arrival_s = 15.0  # seconds a request may take to arrive
  c.body_bytes = 4_000_000  # largest body
  c.key_file = ''  # keys of which a request needs one, one a line; '': none is needed
  c.log = False  # a line of JSON for each request, on stdout
  return c
