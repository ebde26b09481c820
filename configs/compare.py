"""Two layouts of one run, a and b, whose loss curves are to agree; CPU size."""

import ml_collections

from llama3_jax import config as configs
from llama3_jax.config import ModelConfig
from llama3_jax.pipeline.plans import PipelineConfig

MODEL = ModelConfig(
  4, 64, 4, 2, 16, 192, vocab_size=512, dtype='float32', attention='auto'
)


def layout(**mesh):
  """One side of the comparison: where and how the same training runs."""
  sizes = dict(replica=1, fsdp=1, stage=1, context=1, tensor=1)
  return ml_collections.ConfigDict(
    dict(
      mesh=dict(sizes, **mesh),
      microbatches=1,  # parts of a batch, gradients summed
      dtype='float32',  # of the computation
      attention='auto',  # as model.attention
      remat='none',  # as model.remat
      pipeline=configs.section(PipelineConfig()),
    )
  )


def get_config():
  c = ml_collections.ConfigDict()
  c.experiment = 'compare'
  c.seed = 0
  c.steps = 20
  c.batch = 8  # rows a step
  c.length = 64  # tokens a row
  c.model = configs.model_fields(MODEL)
  c.a = layout()  # one device, unless it is told otherwise
  c.b = layout(fsdp=2, stage=2, tensor=2)
  c.b.microbatches = 4
  c.data = ml_collections.ConfigDict(
    dict(
      root='',  # folder of token shards, one folder a source; '': synthetic tokens
      positions='row',  # or 'document': RoPE positions restart in each document
    )
  )
  c.optim = ml_collections.ConfigDict(  # fields of OptimConfig
    dict(peak=1e-3, warmup=10, decay=1000, eps=1e-8, clip=1.0)
  )
  c.z_loss = 0.0  # weight of the squared log-normalizer
  # Largest relative differences that pass. In float32 they grow from 1e-7 with the
  # steps; two curves that differ by a mistake differ at the first.
  c.tolerance = 1e-4  # of the loss
  c.norm_tolerance = 1e-3  # of the gradient norm
  return c
