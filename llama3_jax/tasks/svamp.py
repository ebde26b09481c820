"""SVAMP: short word problems with one step of arithmetic (arXiv 2103.07191; 5.1).

--config.tasks="('svamp=FILE,TRAIN',)"; the answer is the last number of the text.
"""

from collections.abc import Mapping

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.tasks import gsm8k
from llama3_jax.tasks import reading
from llama3_jax.tasks import task


def create(source: str = '') -> task.Task:
  """The Task of 'TEST' or 'TEST,TRAIN'."""
  return reading.create(
    *(source, ('svamp.jsonl', 'SVAMP.jsonl'), parse),
    score=gsm8k.score,
    prompt=gsm8k.prompt,
    stop='\nQ:',
    max_new=256,
    shots=5,
  )


def parse(row: Mapping, where: str) -> task.Example:
  """The Example of {"Body", "Question", "Equation", "Answer"}, as published, or of
  {"context", "chain_of_thought", "answer"}; the solution is the equation."""
  if 'Body' in row:
    parts = [jsonl.text(row, name, where).strip() for name in ('Body', 'Question')]
    asked, names = ' '.join(parts), ('Equation', 'Answer')
  else:
    asked, names = (
      jsonl.text(row, reading.CONTEXT, where),
      ('chain_of_thought', 'answer'),
    )
  equation = jsonl.text(row, names[0], where, '').strip()
  given = row.get(names[1])
  fits = isinstance(given, (str, int, float)) and not isinstance(given, bool)
  answer = gsm8k.number(str(given)) if fits else ''
  if not answer:
    raise UserError(f'{where}: field {names[1]!r} has no number')
  worked = f'{equation} = {answer}' if equation else ''
  return task.Example(asked.strip(), answer, worked=worked)
