"""Which mesh, batch and remat policy is fastest within the memory, by trying."""

import dataclasses
import itertools

from llama3_jax import axes
from llama3_jax import mesh as meshes
from llama3_jax.base.errors import UserError
from llama3_jax.plan import memory


@dataclasses.dataclass(frozen=True)
class Space:
  """Values to try: sizes of mesh axes, rows a chip, remat policies."""

  context: tuple[int, ...] = (1,)
  tensor: tuple[int, ...] = (1,)
  per_chip: tuple[int, ...] = (1, 2, 4)
  remat: tuple[str, ...] = ('full', 'q,k,v,attention', 'none')


@dataclasses.dataclass(frozen=True)
class Candidate:
  """One layout of a training step; `batch` in sequences of the whole mesh."""

  context: int
  tensor: int
  batch: int
  remat: str
  floor: int  # bytes a device at least, closed form

  @property
  def changes(self):
    """What `config.edit` needs."""
    return {
      'mesh.fsdp': -1,
      'mesh.context': self.context,
      'mesh.tensor': self.tensor,
      'train.batch': self.batch,
      'model.remat': self.remat,
    }

  def __str__(self):
    parts = [f'mesh.context={self.context}', f'mesh.tensor={self.tensor}']
    return ' '.join([*parts, f'train.batch={self.batch}', f'model.remat={self.remat}'])


def candidates(model, mesh, target, length, space, limit, state=12):
  """(possible, left out): every layout of `space` that divides, cheapest floor last.

  Args: ModelConfig; config's mesh sizes {axis: size}; Target; tokens; Space; limit:
  bytes; state: bytes a parameter.
  Left out with a reason: what does not divide, and what cannot fit by
  `memory.estimate`.
  """
  possible, left = [], []
  order = itertools.product(space.context, space.tensor, space.per_chip, space.remat)
  for context, tensor, rows, remat in order:
    sizes = mesh | dict(fsdp=-1, context=context, tensor=tensor)
    name = f'context={context} tensor={tensor} rows={rows} remat={remat}'
    try:
      shape = meshes.shape(sizes, target.n_devices)
      whole = dict(zip(axes.AXES, shape))
      batch = rows * axes.parts('B', whole)
      meshes.check(shape, model)
      meshes.check_batch(shape, batch, length)
    except UserError as e:
      left.append((name, str(e)))
      continue
    floor = memory.estimate(model, whole, batch, length, remat, state=state)
    if floor > limit:
      left.append(
        (name, f'needs at least {floor / 2**30:.1f} of {limit / 2**30:.1f} GiB')
      )
      continue
    possible.append(Candidate(context, tensor, batch, remat, floor))
  # What nearly fills the memory is as a rule fastest: try it first.
  possible.sort(key=lambda c: -c.floor)
  return possible, left


def ranked(results):
  """Those that fit, most tokens a second first, then those that do not, least short
  of memory first. Each is {'candidate', 'used', 'fits', 'tokens_per_s_chip', ...}."""
  fit = [r for r in results if r['fits']]
  rest = [r for r in results if not r['fits']]
  return sorted(fit, key=lambda r: -r['tokens_per_s_chip']) + sorted(
    rest, key=lambda r: r['used'] or float('inf')
  )


def text(results, left):
  """The ranking as lines."""
  lines = ['tokens/s/chip  MFU bound   GiB a device  layout']
  for r in results:
    if r['fits']:
      speed = f'{r["tokens_per_s_chip"]:>13,.0f}  {r["mfu_bound"]:>9.1%}'
    else:
      speed = f'{"no room":>13}  {"":>9}'
    lines.append(f'{speed}  {r["used"] / 2**30:>12.2f}  {r["candidate"]}')
  lines += [f'{"left out":>13}  {name}: {reason}' for name, reason in left]
  return '\n'.join(lines) + '\n'
