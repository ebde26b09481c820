"""The engine's programs lowered for chips that are not here."""

import dataclasses

from llama3_jax.config import ModelConfig
from llama3_jax.generate import absent
from llama3_jax.generate.group import Sizes
from llama3_jax.kernels import ragged
from llama3_jax.plan import topology

CONFIG = ModelConfig(2, 512, 16, 8, 128, 1024, vocab_size=512)
SIZES = Sizes((4,), (64,), 512, 64, pages=8192)


def build(given):
  """(lowered, mesh) of (target, mesh sizes, 'prefill' or 'decode', rows, whether the
  kernel takes the sizes). In a process of its own."""
  target, sizes, kind, rows, kernel = given
  if not kernel:
    ragged.fits = lambda *_: False
  mesh = topology.mesh(dict(fsdp=1, **sizes), topology.parse(target))
  asked = dataclasses.replace(SIZES, rows=(rows,))
  return absent.lower(mesh, CONFIG, asked, kind, ''), mesh
