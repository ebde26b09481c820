"""WinoGrande: which of two words fits a blank (arXiv 1907.10641; 5.1).

As in the paper, what is compared is the likelihood of the text after the blank, which
is the same for both words.
"""

from collections.abc import Mapping

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.tasks import choice
from llama3_jax.tasks import task


def create(source: str = '') -> task.Task:
  """The Task of 'TEST' or 'TEST,TRAIN'."""
  return choice.create(
    *(source, ('winogrande.jsonl',), asked, task.plain, made),
    prompt=blank,
    suffix=suffix,
    shots=5,
  )


def asked(row: Mapping, where: str) -> choice.Asked:
  """Asked of {"sentence" with _, "option1", "option2", "answer": 1 or 2}, or of
  {"context_options": both beginnings, "continuation", "gold": 0 or 1}."""
  if 'context_options' in row:
    return _split(row, where)
  sentence, *words = (
    jsonl.text(row, name, where) for name in ('sentence', 'option1', 'option2')
  )
  if sentence.count('_') != 1:
    raise UserError(f'{where}: the sentence has not one blank (_)')
  return sentence, words, choice.number(row, 'answer', ('1', '2'), where)


def _split(row, where):
  """Asked of two beginnings: their last words, where they differ, are the choices."""
  both = row['context_options']
  if (
    not isinstance(both, list)
    or len(both) != 2
    or not all(isinstance(text, str) and text.strip() for text in both)
  ):
    raise UserError(f'{where}: field context_options is not a list of two texts')
  first, second = (text.split(' ') for text in both)
  most = min(len(first), len(second)) - 1  # at least a word is left of each
  same = next((i for i in range(most) if first[i] != second[i]), most)
  before, words = ' '.join(first[:same]), [' '.join(w[same:]) for w in (first, second)]
  sentence = f'{before} _ {jsonl.text(row, "continuation", where)}'
  if '_' in before:
    raise UserError(f'{where}: there is a blank (_) in context_options')
  return sentence, words, choice.number(row, 'gold', ('0', '1'), where)


def made(sentence: str, choices: list[str], right: int) -> task.Example:
  """The Example of a sentence with a blank; `worked` is all that follows it."""
  before, _, after = (part.strip() for part in sentence.partition('_'))
  worked = f'{choices[right]} {after}'
  return task.Example(
    before, choices[right], worked=worked, choices=tuple(choices), checks=(after,)
  )


def suffix(e: task.Example) -> str:
  """The text after the blank."""
  return e.checks[0]


def blank(e: task.Example) -> str:
  """The user's message: the sentence with its blank, and both words."""
  return '\n'.join([f'{e.prompt} _ {suffix(e)}', *e.choices])
