"""The shapes every side trains: 8 rows of 256 tokens; `herd` is that of `make herd`."""

SMALL = dict(
  layers=4,
  d=256,
  heads=8,
  kv_heads=2,
  head=32,
  ffn=896,
  vocabulary=4096,
  rows=8,
  length=256,
)
SHAPES = {
  'd256': SMALL,
  'herd': dict(SMALL, d=128, heads=4, ffn=384, vocabulary=2048, rows=16),
  'd512': dict(SMALL, layers=8, d=512, head=64, ffn=1792, vocabulary=32_000),
}


def flops(shape):
  """Matrix FLOPs of a train step without recomputation; attention counted causal."""
  s = SHAPES[shape]
  width = s['heads'] * s['head']
  layer = s['d'] * (2 * width + 2 * s['kv_heads'] * s['head'] + 3 * s['ffn'])
  weights = s['layers'] * layer + s['d'] * s['vocabulary']
  attention = s['layers'] * 2 * width * s['length'] / 2
  return 6 * s['rows'] * s['length'] * (weights + attention)
