"""Long-context pre-training: argument is the model size (tiny, 8b, 70b, 405b)."""

from configs import pretrain
from llama3_jax import config as configs
from llama3_jax.eval.gate import GateConfig
from llama3_jax.eval.needle import NeedleConfig

# Six lengths from 8K to 128K, about 800B tokens together (section 3.4.2); the lengths
# between are not given by the paper.
LENGTHS = (8192, 16384, 32768, 65536, 98304, 131072)
STEP_TOKENS = 16_777_216
STAGE_TOKENS = 800_000_000_000 // len(LENGTHS)


def get_config(size='tiny'):
  c = pretrain.get_config(size)
  c.experiment = 'long_context'
  # Recall and short-context loss, before and after: only where there are lengths. The
  # stage is over when both have recovered (3.4.2).
  c.needle = configs.section(NeedleConfig())
  c.gate = configs.section(GateConfig())
  c.init_from = 'runs/herd/pretrain'
  c.optim.update(dict(decay=0, warmup=10))
  c.data.changes = ()
  if size == 'tiny':
    c.model.rope_scaling.update(dict(factor=4.0, original=256))
    c.optim.peak = 1.5e-3
    mix = dict(general=0.08, math=0.27, code=0.04, multilingual=0.01)
    c.data.mix.update(mix | dict(drill=0.0, needle=0.0, needle_long=0.6))
    c.data.eval_batches = 1
    c.train.update(dict(steps=100, batch=4, length=1088, eval_every=0, save_every=50))
    c.needle.lengths = (256, 512, 768, 1024)
    c.gate.update(dict(perfect=0.9, more_steps=25, attempts=4))  # 29 of 32 haystacks
    return c
  c.optim.peak = pretrain.PEAK[size] / 10
  c.train.ramp = tuple(
    # rows in 64s, to divide over the mesh
    (i * STAGE_TOKENS, STEP_TOKENS // n // 64 * 64, n)
    for i, n in enumerate(LENGTHS)
  )
  c.train.steps = 800_000_000_000 // STEP_TOKENS
  # CP 16 at 131,072 tokens (table 4)
  c.mesh.update(dict(context=16))
  c.needle.lengths = LENGTHS
  c.gate.update(dict(length=LENGTHS[0], more_steps=1000))
  return c
