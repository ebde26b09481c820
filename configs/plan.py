"""Know before you launch: argument is SIZE,CHIP:TOPOLOGY (405b,v5p:8x8x16).

8b,v5e:16x16,2slices    two slices     70b,h100:512    GPUs
"""

import ml_collections

from configs import pretrain
from llama3_jax import config as configs
from llama3_jax.base.errors import UserError
from llama3_jax.model import llama
from llama3_jax.plan import topology

SIZES = tuple(pretrain.PEAK)


def get_config(argument='8b,v5p:4x4x4'):
  size, _, target = argument.partition(',')
  if size not in llama.SIZES or not target:
    raise UserError(
      f'plan.py:{argument}: write SIZE,CHIP:TOPOLOGY with a SIZE of '
      f'{", ".join(llama.SIZES)}, e.g. plan.py:8b,v5p:4x4x4'
    )
  c = pretrain.get_config(size if size in pretrain.PEAK else 'tiny')
  c.experiment = 'plan'
  del c.ask
  c.model = configs.model_fields(llama.SIZES[size])
  c.model.remat = 'full'
  # Weights are cut over all chips of a slice; GPUs also over the 8 of a host (table 4).
  asked = topology.parse(target)
  # On several slices of a 3-D torus the compiler makes an all-reduce of a gather over
  # a whole slice, so there fsdp spans half of one.
  replica = asked.slices * (2 if asked.slices > 1 and asked.chip.dims == 3 else 1)
  gpu = target.startswith('h100') and size not in ('8b', 'tiny', '1b', '3b')
  c.mesh.update(
    dict(replica=replica, fsdp=-1, stage=1, context=1, tensor=8 if gpu else 1)
  )
  c.train.update(dict(ramp=(), batch=0, length=8192, microbatches=1))
  c.plan = ml_collections.ConfigDict(
    dict(
      size=size,
      target=target,
      step='train',  # or prefill, decode, sft, dpo, reward, ppo, grpo (their updates)
      weights='',  # of few bits, in prefill and decode: fp8, fp8_weights, int8, ...
      flags='auto',  # comma-separated sets of llama3_jax/plan/flags.py; '' for none
      full=False,  # generate code too: the compiler's cycle estimates, minutes
      timeout_s=1800,
      memory_gib=0.0,  # a tighter limit than the chip's
      search=False,  # try meshes, batches and remat policies, and rank them
      candidates=12,  # of a search, at most
    )
  )
  c.search = ml_collections.ConfigDict(
    dict(
      per_chip=(1, 2, 4),  # sequences; train.batch in a search
      context=(1,),
      tensor=(1,),
      remat=('full', 'q,k,v,attention', 'none'),
    )
  )
  del c.data, c.init_from
  return c
