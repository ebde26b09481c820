"""What the ahead-of-time bench compiles: the same shape for both sides, a bar each."""

import dataclasses

# MaxText's names for slices; v5p is counted in cores there.
TOPOLOGY = {
  'v5p:4x4x4': 'v5p-128',
  'v5p:4x8x8': 'v5p-512',
  'v5p:8x8x8': 'v5p-1024',
  'v5p:8x8x16': 'v5p-2048',
  'v6e:16x16': 'v6e-256',
}
MODEL = {'8b': 'llama3.1-8b', '70b': 'llama3.1-70b', '405b': 'llama3.1-405b'}
# Blocks of the attention kernel and the embedding as in its published recipes.
RECIPE = ('use_iota_embed=true', 'sa_use_fused_bwd_kernel=true') + tuple(
  f'sa_block_{n}=2048'
  for n in ('q', 'kv', 'kv_compute', 'q_dkv', 'kv_dkv', 'kv_dkv_compute')
)


def offload(*names):
  """MaxText's arguments that move the activations named to the host."""
  return ('remat_policy=custom', *(f'{n}=offload' for n in names))


@dataclasses.dataclass(frozen=True)
class Case:
  """One shape. `gathers`, `kv`: most GiB a step; `time`: whether its time is a bar."""

  name: str
  size: str
  target: str
  rows: float  # sequences a chip
  ours: dict  # fields of configs/plan.py
  theirs: tuple[str, ...]  # key=value of MaxText
  length: int = 8192
  our_rows: float = 0  # where the best of ours has another batch
  memory: bool = True
  gathers: float = 0
  kv: float = 0
  time: bool = False


FULL = ('remat_policy=full',)
INPUT_QKV = ('decoder_layer_input', 'query_proj', 'key_proj', 'value_proj')
LARGE = {'train.loss_chunk': 4096, 'model.block': 2048}
LONG = ('ici_context_parallelism=16', 'ici_fsdp_parallelism=4', 'packing=false')
CASES = (
  Case('8b', '8b', 'v5p:4x4x4', 1, {}, FULL, gathers=26.0),
  Case('70b', '70b', 'v5p:4x8x8', 1, {}, FULL, gathers=250),
  Case('405b', '405b', 'v5p:8x8x16', 1, {}, FULL, gathers=1488),
  Case(
    '8b-131072',
    '8b',
    'v5p:4x4x4',
    1 / 16,
    {'mesh.context': 16, 'mesh.fsdp': 4},
    (*FULL, *LONG),
    length=131072,
    gathers=26.0,
    kv=16.0,
  ),
  Case(
    '8b-v6e',
    '8b',
    'v6e:16x16',
    4,
    {'model.remat': 'offload_qkvo', **LARGE},
    (*offload(*INPUT_QKV, 'out_proj'), *RECIPE),
  ),
  # MaxText's best published configurations, and the best of ours for the same chips
  # that needs no more memory of the host than such a machine has.
  Case(
    'best-8b-v6e',
    '8b',
    'v6e:16x16',
    4,
    {'model.remat': 'input@host,q,k,v,attention@host,out@host', **LARGE},
    (*offload(*INPUT_QKV, 'out_proj'), *RECIPE),
    memory=False,
    time=True,
  ),
  Case(
    'best-70b-v6e',
    '70b',
    'v6e:16x16',
    5,
    {'model.remat': 'input@host,q@host,k@host,v@host,attention@host,out@host', **LARGE},
    (*offload(*INPUT_QKV), *RECIPE),
    our_rows=4,
    memory=False,
    time=True,
  ),
  Case(
    'best-405b-v5p',
    '405b',
    'v5p:8x8x8',
    2,
    {
      # 4,096 tokens a chip: so few that of a layer nothing large is computed again.
      'mesh.context': 8,
      'mesh.fsdp': 64,
      'model.remat': 'input@host,q,k,v,attention@host,out@host,gate@host,up',
      'train.loss_chunk': 4096,
    },
    (*offload('context', 'mlpwo'), *RECIPE, 'num_vocab_tiling=4'),
    our_rows=0.5,
    memory=False,
    time=True,
  ),
)
