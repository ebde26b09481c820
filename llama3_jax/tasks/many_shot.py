"""Many-shot: labels without a meaning, learned from many examples in the context (5.2).

--config.tasks="('many_shot=256',)" shows 256 lines of a word and its label, one of
four, and asks for the label of a word that was shown: chance is 0.25. Any other task
has many shots with --config.shots=N.
"""

import random

from llama3_jax.base.errors import UserError
from llama3_jax.tasks import task

SHOTS = 64
LABELS = ('dax', 'wug', 'blick', 'zup')
ARROW = ' -> '


def create(source: str = '') -> task.Task:
  """The Task of a number of shots (64)."""
  if source and not (source.isdecimal() and int(source)):
    raise UserError(f'tasks: many_shot={source}: write the number of examples')
  shots = int(source or SHOTS)
  return task.generated(
    'many_shot',
    lambda rng: make(rng, shots),
    score=score,
    prompt=lambda e: f'{e.prompt}\n\nAnswer with the word that is missing alone.',
    page=task.plain,
    max_new=8,
    shots=0,
  )


def make(rng: random.Random, shots: int) -> task.Example:
  """An Example with `shots` lines, each word with one label, and the word asked for."""
  label = {word: rng.choice(LABELS) for word in task.WORDS}
  shown = [rng.choice(task.WORDS) for _ in range(shots)]
  asked = rng.choice(shown)
  lines = [f'{word}{ARROW}{label[word]}' for word in shown]
  return task.Example('\n'.join([*lines, asked + ARROW.rstrip()]), label[asked])


def score(e: task.Example, response: str) -> float:
  """1.0 when the first word of the response is the label."""
  return float(response.strip().lower().split()[:1] == [e.answer])
