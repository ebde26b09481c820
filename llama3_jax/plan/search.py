"""Search for the fastest mesh, batch and remat policy within the memory."""

import dataclasses
import itertools
from collections.abc import Iterable
from collections.abc import Mapping

from llama3_jax import axes
from llama3_jax import mesh as meshes
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.plan import memory
from llama3_jax.plan.topology import Target


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
  floor: int  # lower bound of bytes a device, in closed form

  @property
  def changes(self) -> dict[str, int | str]:
    """Changes of a config, for `config.edit`."""
    return {
      'mesh.fsdp': -1,
      'mesh.context': self.context,
      'mesh.tensor': self.tensor,
      'train.batch': self.batch,
      'model.remat': self.remat,
    }

  def __str__(self) -> str:
    parts = [f'mesh.context={self.context}', f'mesh.tensor={self.tensor}']
    return ' '.join([*parts, f'train.batch={self.batch}', f'model.remat={self.remat}'])


def candidates(
  model: ModelConfig,
  mesh: dict[str, int],
  target: Target,
  length: int,
  space: Space,
  limit: int,
  state: int = 12,
) -> tuple[list[Candidate], list[tuple[str, str]]]:
  """(possible, left out): every layout of `space` that divides, lowest floor last.

  Left out, with a reason, are layouts that do not divide and those that cannot fit by
  `memory.estimate`.

  Args: mesh: the config's sizes {axis: size}; length: tokens of a row; limit: bytes a
  device; state: bytes a parameter.
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
  # A layout that nearly fills the memory is usually fastest: try it first.
  possible.sort(key=lambda c: -c.floor)
  return possible, left


def ranked(results: Iterable[Mapping]) -> list[Mapping]:
  """Results in order: those that fit, fastest first, then the others, smallest first.

  Each is {'candidate', 'used', 'fits', 'tokens_per_s_chip', ...}.
  """
  fit = [r for r in results if r['fits']]
  rest = [r for r in results if not r['fits']]
  return sorted(fit, key=lambda r: -r['tokens_per_s_chip']) + sorted(
    rest, key=lambda r: r['used'] or float('inf')
  )


def text(results: Iterable[Mapping], left: Iterable[tuple[str, str]]) -> str:
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
