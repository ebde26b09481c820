"""Pre-training, initial stage: argument is the size (tiny, small, 1b ... 405b)."""

import ml_collections

from llama3_jax import config as configs
from llama3_jax.base.errors import UserError
from llama3_jax.model import llama
from llama3_jax.train.config import TrainConfig

# Peak learning rates of table 3 (below 8B ours); ramp, warm-up and decay are those of
# the 405B.
PEAK = {'small': 1e-3, '1b': 4e-4, '3b': 3e-4, '8b': 3e-4, '70b': 1.5e-4, '405b': 8e-5}
# [TP, CP, PP, DP] of table 4 with FSDP in the place of its pipeline;
# docs/parallelism.md has the layout with 16 stages.
MESH = {n: dict(tensor=1) for n in ('small', '1b', '3b', '8b')}
MESH |= {'70b': dict(tensor=8), '405b': dict(tensor=8)}
# General knowledge, maths and reasoning, code, multilingual (section 3.1.2).
PAPER_MIX = dict(general=0.5, math=0.25, code=0.17, multilingual=0.08)
# The mix changes during the run: more non-English, more maths (3.4.1). When and by how
# much is not given; these are ours. Recent data late is a source beside the others,
# e.g. (13_000_000_000_000, 'general/recent', 0.2).
PAPER_CHANGES = (
  (5_000_000_000_000, 'general', 0.47),
  (5_000_000_000_000, 'multilingual', 0.11),
  (10_000_000_000_000, 'general', 0.43),
  (10_000_000_000_000, 'math', 0.29),
)
# A model of a million parameters sees three million tokens: most of them teach the
# verifiable tasks (math) and looking things up (drill, then needle), so that the effect
# of every later stage can be measured.
TINY_MIX = dict(
  general=0.17, math=0.12, code=0.08, multilingual=0.03, drill=0.35, needle=0.25
)
TINY_CHANGES = ((1_200_000, 'drill', 0.05), (1_200_000, 'math', 0.42))


def base():
  """The fields every training stage has, with values for a laptop's CPU."""
  c = ml_collections.ConfigDict()
  c.experiment = 'pretrain'
  c.seed = 0
  c.init_from = ''  # workdir of the stage to start from; '' starts from random values
  c.model = configs.model_fields(llama.SIZES['tiny'])
  c.mesh = ml_collections.ConfigDict(
    dict(replica=1, fsdp=-1, stage=1, context=1, tensor=1)
  )
  _pipeline(c)
  _optim(c)
  c.part = ml_collections.ConfigDict(
    dict(
      trainable=(),  # patterns of the parameters that are trained, ('*norm',); (): all
      rank=0,  # of low-rank adapters (LoRA) beside frozen products; 0: none
      lora=('*',),  # patterns of those products: ('layers.w[qkvo]',)
      alpha=16.0,  # adapters count alpha / rank
    )
  )
  c.train = configs.section(TrainConfig())
  del c.train.average  # of annealing alone
  c.data = ml_collections.ConfigDict(
    dict(
      root='runs/herd/shards',  # folder of token shards, one folder a source
      mix=dict(PAPER_MIX, drill=0.0, needle=0.0, needle_long=0.0),  # source: weight
      changes=(),  # ((tokens, source, weight), ...): the mix from then on (3.4.1)
      positions='row',  # or 'document': RoPE positions restart in each document
      lanes=64,  # documents open at a time
      eval_batches=4,
    )
  )
  return c


def _pipeline(c):
  """How mesh.stage stages share the model (3.3.2)."""
  c.pipeline = ml_collections.ConfigDict(
    dict(
      chunks=1,  # of the model a stage has, V
      group=0,  # consecutive microbatches of a chunk, N; 0: as many as stages
      form='aligned',  # aligned | 1f1b | gpipe
      bare=False,  # the first chunk is the embedding only, the last the head only
      together=False,  # no branch differs between stages
    )
  )


def _optim(c):
  """AdamW and its schedule (3.4.1)."""
  c.optim = ml_collections.ConfigDict(
    dict(
      peak=3e-3,
      warmup=50,
      decay=1300,
      floor=0.3,
      anneal_start=0,
      anneal_steps=0,
      b1=0.9,
      b2=0.95,
      eps=1e-8,
      weight_decay=0.1,
      clip=1.0,
      mu_dtype='float32',  # of the stored moments: or bfloat16, int8
      nu_dtype='float32',
      groups=(),  # ((pattern, factor), ...) on the rate of parameters: ('embed', 0.1)
    )
  )


def get_config(size='tiny'):
  c = base()
  if size == 'tiny':
    c.data.mix.update(TINY_MIX)
    c.data.changes = TINY_CHANGES
    return c
  if size not in PEAK:
    raise UserError(f'size {size!r} must be one of tiny, {", ".join(PEAK)}')
  c.model = configs.model_fields(llama.SIZES[size])
  c.mesh.update(MESH[size])
  c.optim.update(
    dict(peak=PEAK[size], warmup=8000, decay=1_200_000, floor=0.01, eps=1e-5)
  )
  c.train.update(
    dict(
      steps=1_100_000,
      # 4M x 4,096, then 8M x 8,192 after 252M tokens, 16M after 2.87T (3.4.1)
      ramp=(
        (0, 1024, 4096),
        (252_000_000, 1024, 8192),
        (2_870_000_000_000, 2048, 8192),
      ),
      save_every=1000,
      eval_every=5000,
    )
  )
  c.model.remat = 'full'
  c.data.changes = PAPER_CHANGES
  c.data.lanes = 2048  # as many as rows in the largest batch
  return c


def sweep():
  """Peak learning rates around the default."""
  for peak in (1e-3, 2e-3, 4e-3):
    yield {'optim.peak': peak}
