"""LAMBADA: the last word of a passage (arXiv 1606.06031; 5.1).

--config.tasks="('lambada=FILE',)" --config.shots=0. The word is right where greedy
decoding would write its tokens; the result has the perplexity of the words too.
"""

from collections.abc import Mapping

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.tasks import reading
from llama3_jax.tasks import task


def create(source: str = '') -> task.Task:
  """The Task of 'TEST' or 'TEST,TRAIN'."""
  return reading.create(
    *(source, ('lambada_openai.jsonl', 'lambada.jsonl'), parse),
    prompt=lambda e: f'Which word comes next? Answer with that word.\n\n{e.prompt}',
    context=passages,
  )


def passages(e: task.Example, solved: list[task.Example]) -> str:
  """The passage up to its last word, after whole ones."""
  return '\n\n'.join([f'{s.prompt} {s.answer}' for s in solved] + [e.prompt])


def parse(row: Mapping, where: str) -> task.Example:
  """The Example of {"text"}, as published, or of {"context", "continuation"}."""
  if reading.CONTEXT in row:
    before = jsonl.text(row, reading.CONTEXT, where)
    word = jsonl.text(row, 'continuation', where)
  else:
    before, _, word = jsonl.text(row, 'text', where).rpartition(' ')
  before, word = before.rstrip(), word.strip()
  if not before or not word:
    raise UserError(f'{where}: there is no passage with a last word')
  return task.Example(before, word, choices=(word,))
