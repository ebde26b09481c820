"""Suites: the benchmarks that belong together, and how the paper asks them (5.1, 5.2).

`--config=evaluate --suite=base --data=DIR`: DIR holds the files of the benchmarks, as
published; benchmarks whose files are not there are named and left out.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from absl import logging

from llama3_jax.base.errors import UserError
from llama3_jax.eval import run
from llama3_jax.tasks import reading
from llama3_jax.tasks import task

CHARACTERS = 3.5  # of a token of English, so that a text has no more tokens
LENGTHS = 10  # of multi-needle questions (5.2)
SHORTEST = 2000  # tokens
LANGUAGES = (  # those of Llama 3 beside English (4.3.2), as FLORES names them
  *('deu_Latn', 'fra_Latn', 'ita_Latn', 'por_Latn'),
  *('hin_Deva', 'spa_Latn', 'tha_Thai'),
)


@dataclasses.dataclass(frozen=True)
class Suite:
  """Benchmarks, and how they are asked.

  tasks: names of tasks; DATA stands for the folder of --data, LENGTHS for numbers of
    characters. shots: of run.tasks.
  """

  shots: int
  tasks: tuple[str, ...]


# 'DATA,DATA': solved examples are other questions of the same file.
SUITES = {
  'base': Suite(
    run.PAPER,
    (
      *(
        'mmlu=DATA',
        'mmlu_pro=DATA',
        'arc_letters=DATA,DATA',
        'arc=DATA',
        'openbookqa=DATA',
      ),
      *('piqa=DATA', 'boolq=DATA', 'winogrande=DATA,DATA', 'copa=DATA'),
      *('hellaswag=DATA', 'triviaqa=DATA,DATA', 'lambada=DATA', 'squad=DATA,DATA'),
      *('svamp=DATA,DATA', 'gsm8k=DATA', 'math=DATA,DATA', 'bbh=DATA/bbh'),
      *('mbpp=DATA', 'humaneval=DATA', 'humaneval_js=DATA'),
    ),
  ),
  'chat': Suite(
    run.CHAT,
    (
      *('mmlu=DATA', 'arc_letters=DATA', 'ifeval=DATA', 'gsm8k=DATA'),
      *('svamp=DATA', 'math=DATA', 'triviaqa=DATA', 'mbpp=DATA', 'humaneval=DATA'),
      *('mmlu_pro=DATA', 'humaneval_js=DATA'),
    ),
  ),
  'long': Suite(
    run.CHAT,
    (
      *('single_needle=DATA,LENGTHS', 'multi_needle=DATA,LENGTHS'),
      *('key_value=75', 'many_shot=64'),
    ),
  ),
  'tools': Suite(run.CHAT, ('bfcl=DATA', 'api_bank=DATA')),
  'multilingual': Suite(
    run.CHAT,
    (
      'mgsm=DATA',
      *(f'flores=DATA/flores200_dev,{one},eng_Latn' for one in LANGUAGES),
      *(f'flores=DATA/flores200_dev,eng_Latn,{one}' for one in LANGUAGES),
    ),
  ),
}


def filled(names: Sequence[str], data: str) -> tuple[str, ...]:
  """Names of tasks, of which one that ends with '=' gets the folder of data."""
  if not data:
    for name in names:
      if name.endswith('='):
        raise UserError(f'tasks: {name} needs a folder: write --data=DIR, or {name}DIR')
    return tuple(names)
  if not any(name.endswith('=') for name in names):
    logging.warning('data=%s: nothing is read there, no task ends with =', data)
  folder = str(pathlib.Path(data).resolve())
  return tuple(f'{n}{folder}' if n.endswith('=') else n for n in names)


def chosen(name: str, data: str, longest: int) -> tuple[tuple[str, ...], list[str]]:
  """(tasks of a suite whose files are in the folder `data`, why others are left out).

  longest: tokens of the longest question of multi_needle. Raises a UserError where
  the suite is unknown, `data` is no folder, or none of its benchmarks is there.
  """
  if name not in SUITES:
    raise UserError(f'suite={name!r} is unknown: there are {", ".join(SUITES)}')
  if not pathlib.Path(data or '.').is_dir() or not data:
    raise UserError(f'suite={name}: data={data!r} is no folder: write --data=DIR')
  folder, kept, absent = str(pathlib.Path(data).resolve()), [], []
  for template in SUITES[name].tasks:
    made = template.replace('DATA', folder).replace('LENGTHS', lengths(longest))
    try:
      task.load(made).examples('heldout', 1, 0)
    except reading.Absent as error:
      absent.append(str(error).removeprefix('tasks: '))
      logging.warning('suite %s: left out: %s', name, absent[-1])
      continue
    kept.append(made)
  if not kept:
    raise UserError(f'suite={name}: none of its benchmarks is in {folder}: {absent[0]}')
  return tuple(kept), absent


def lengths(longest: int) -> str:
  """Evenly spaced numbers of characters up to that of `longest` tokens."""
  first = min(SHORTEST, longest)
  steps = [first + i * (longest - first) / (LENGTHS - 1) for i in range(LENGTHS)]
  return ','.join(dict.fromkeys(str(int(CHARACTERS * step)) for step in steps))
