"""A tiny model and rows by a rule, for us and for the libraries beside us."""

import numpy as np

SIZES = dict(
  vocab_size=48,
  hidden_size=16,
  intermediate_size=24,
  num_hidden_layers=2,
  num_attention_heads=4,
  num_key_value_heads=2,
  head_dim=8,  # not hidden_size / heads: wo is not square
  rope_theta=10_000.0,
  rms_norm_eps=1e-5,
  max_position_embeddings=64,
  hidden_act='silu',
  tie_word_embeddings=False,
)
ADAM = dict(rate=1e-2, betas=(0.9, 0.95), eps=1e-4, decay=0.1, clip=1.0, steps=6)
BETA, NLL, TARGET, FLIPPED = 0.3, 0.2, 0.7, 0.2


def weights(seed=0):
  """{name of Hugging Face: float32 array}; RandomState draws alike for ever."""
  draw, s = np.random.RandomState(seed), SIZES
  d, ff, head = s['hidden_size'], s['intermediate_size'], s['head_dim']
  q, kv = s['num_attention_heads'] * head, s['num_key_value_heads'] * head
  shapes = {'model.embed_tokens': (s['vocab_size'], d)}
  for i in range(s['num_hidden_layers']):
    one = dict(
      input_layernorm=(d,),
      post_attention_layernorm=(d,),
    )
    one |= {f'self_attn.{n}_proj': (o, d) for n, o in dict(q=q, k=kv, v=kv).items()}
    one |= {'self_attn.o_proj': (d, q), 'mlp.down_proj': (d, ff)}
    one |= {f'mlp.{n}_proj': (ff, d) for n in ('gate', 'up')}
    shapes |= {f'model.layers.{i}.{name}': shape for name, shape in one.items()}
  shapes |= {'model.norm': (d,), 'lm_head': (s['vocab_size'], d)}
  found = {}
  for name, shape in shapes.items():
    x = draw.standard_normal(shape) * (0.2 if len(shape) == 1 else 0.3)
    found[f'{name}.weight'] = (x + (len(shape) == 1)).astype(np.float32)
  return found


def head():
  """The reward model's head, float32 [D]."""
  draw = np.random.RandomState(7)
  return draw.standard_normal(SIZES['hidden_size']).astype(np.float32)


def dialogs():
  """[(prompt, answer)] of different lengths, ids."""
  draw = np.random.RandomState(1)
  ids = lambda n: draw.randint(3, SIZES['vocab_size'], n).tolist()
  return [(ids(n), ids(m)) for n, m in ((5, 7), (9, 3), (2, 11), (6, 1))]


def pairs():
  """[(prompt, chosen, rejected)]; chosen answers have one length, since TRL's mean over
  the tokens of a batch is then ours over those of each answer."""
  draw = np.random.RandomState(2)
  ids = lambda n: draw.randint(3, SIZES['vocab_size'], n).tolist()
  return [(ids(n), ids(6), ids(m)) for n, m in ((4, 9), (7, 3), (5, 6), (3, 12))]


def said(arrays):
  """{name: [norm, sum of x cos(index)]} of arrays: two numbers that tell each from any
  other, its order included."""
  found = {}
  for name, x in arrays.items():
    x = np.asarray(x, np.float64).reshape(-1)
    found[name] = [float(np.sqrt(x @ x)), float(x @ np.cos(np.arange(x.size)))]
  return found
