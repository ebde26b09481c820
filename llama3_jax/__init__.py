"""llama3_jax: the system of "The Llama 3 Herd of Models" (arXiv 2407.21783) in JAX.

In a notebook:

  import llama3_jax as l3
  m = l3.load('smollm2')  # or a run's workdir, a folder of the hub, a GGUF file
  m.chat('What is the capital of France?')
  m.generate('Once upon a time', max_new=50, samples=3)
  m.logits(m.tokenizer.encode('Once upon a time'))  # float32 [T,V]
  talk = m.talk(system='Be short.')
  talk, reply = talk.say('Who are you?')

Everything is in api.py, which is imported when a name of it is first used.
"""

import importlib

__version__ = '0.1.0'

API = ('Model', 'Talk', 'as_nnx', 'forward', 'from_nnx', 'load', 'losses', 'train_step')


def __getattr__(name: str) -> object:
  if name not in API:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  return getattr(importlib.import_module('llama3_jax.api'), name)


def __dir__() -> list[str]:
  return sorted({*globals(), *API})
