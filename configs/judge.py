"""A chat model judges documents (3.1.1): argument is what it is asked about."""

import ml_collections

from configs import pretrain
from llama3_jax import config as configs
from llama3_jax.curate.judging import judge


def get_config(asked='reference'):
  c = ml_collections.ConfigDict()
  c.experiment = 'judge'
  c.asked = configs.choose('judge', asked, tuple(judge.CLASSES))
  c.how = 'answer'  # 'likelihood' of each class: for a model that cannot judge
  c.seed = 0
  c.mesh = pretrain.base().mesh
  c.init_from = 'runs/herd/average_2'  # the chat model
  c.tokenizer = ''  # vocabulary file; '': the one that init_from carries
  c.documents = 'runs/herd/curate/documents'  # folder of .jsonl.gz
  c.sample = 500  # documents that are asked about
  c.characters = 600  # of a document that the model sees
  c.batch = 8  # prompts decoded together
  c.settings = ml_collections.ConfigDict(
    dict(temperature=0.0, top_p=1.0, top_k=0, max_new=8)
  )
  return c
