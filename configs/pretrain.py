"""Pre-training, initial stage: argument is the size (tiny, small, 135m ... 405b)."""

import ml_collections

from llama3_jax import config as configs
from llama3_jax.base.errors import UserError
from llama3_jax.data.config import DataConfig
from llama3_jax.model import llama
from llama3_jax.pipeline.plans import PipelineConfig
from llama3_jax.train.config import AskConfig
from llama3_jax.train.config import TrainConfig
from llama3_jax.train.optim import OptimConfig
from llama3_jax.train.part import PartConfig

# Peak learning rates of table 3 (below 8B ours); ramp, warm-up and decay are those of
# the 405B.
PEAK = {'small': 1e-3, '135m': 1e-3, '360m': 8e-4}
PEAK |= {'1b': 4e-4, '3b': 3e-4, '8b': 3e-4, '70b': 1.5e-4, '405b': 8e-5}
# [TP, CP, PP, DP] of table 4 with FSDP in the place of its pipeline;
# docs/parallelism.md has the layout with 16 stages.
MESH = {n: dict(tensor=1) for n in ('small', '135m', '360m', '1b', '3b', '8b')}
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
# A model of a million parameters sees 2.6 million tokens. Lines of repeated words come
# first (drill): once it looks things up, after 0.6 million, all else is learned faster.
# Then most teach the verifiable tasks (math) and recall (needle), so that the effect of
# every later stage can be measured.
TINY_MIX = dict(
  general=0.08, math=0.08, code=0.03, multilingual=0.01, drill=0.7, needle=0.1
)
TINY_LATER = dict(
  general=0.16, math=0.4, code=0.06, multilingual=0.03, drill=0.05, needle=0.3
)
TINY_CHANGES = tuple((600_000, name, share) for name, share in TINY_LATER.items())


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
  c.pipeline = configs.section(PipelineConfig())
  c.optim = configs.section(
    OptimConfig(peak=3e-3, warmup=50, decay=1300, floor=0.3, eps=1e-8)
  )
  c.part = configs.section(PartConfig())
  c.train = configs.section(TrainConfig())
  del c.train.average  # of annealing alone
  mix = dict(PAPER_MIX, drill=0.0, needle=0.0, needle_long=0.0)
  c.data = configs.section(DataConfig(mix=mix))
  return c


def get_config(size='tiny'):
  c = base()
  # Questions at every evaluation, after solved examples.
  c.ask = configs.section(AskConfig(shots=-2))
  if size == 'tiny':
    c.optim.update(dict(peak=3.5e-3, decay=1250, floor=0.1))
    c.train.update(dict(steps=1250, eval_every=400))
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
