"""Annealing: linear to zero, Polyak average; argument is the model size."""

from configs import long_context


def get_config(size='tiny'):
  c = long_context.get_config(size)
  c.experiment = 'anneal'
  c.init_from = 'runs/herd/long_context'
  c.optim.warmup = 0
  c.train.average = 4  # the last saves that make the final model (Polyak); 0: none
  del c.needle, c.gate
  # Very high quality sources are up-sampled (3.1.3), at toy scale the tasks.
  if size == 'tiny':
    c.train.update(dict(steps=40, save_every=4, keep=4))
    mix = dict(general=0.1, math=0.5, code=0.07, multilingual=0.03)
    c.data.mix.update(mix | dict(needle_long=0.3))
  else:
    # The last 40M tokens at 128K, as printed, are about two steps of 16M tokens.
    c.train.update(dict(ramp=(), batch=32, length=131_072, steps=10, save_every=2))
    c.train.update(dict(keep=3, average=3))
    c.data.mix.update(dict(general=0.4, math=0.35, code=0.2, multilingual=0.05))
  c.optim.anneal_steps = c.train.steps
  return c
