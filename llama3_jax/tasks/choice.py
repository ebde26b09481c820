"""Questions with choices, of which the likeliest is the answer: what they share (5.1).

A file is in the form {"query", "choices", "gold": its number from 0}, or as its authors
published it. Each benchmark is a module beside this one.
"""

import pathlib
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.tasks import reading
from llama3_jax.tasks import task

LETTERS = 'ABCDEFGHIJ'
SPLITS = ('heldout', 'train')
Asked = tuple[str, list[str], int]  # question, choices, number of the right one


def create(
  source: str,
  names: Sequence[str],
  asked: Callable[[Mapping, str], Asked],
  page: Callable[[task.Example], str],
  made: Callable[[str, list[str], int], task.Example] | None = None,
  **more: object,
) -> task.Task:
  """The Task of the files 'TEST' or 'TEST,TRAIN'; TEST may be a folder that has one.

  names: of the file of questions in such a folder, or in its folder eval_sets.
  asked: (row, where) -> Asked of a row in the published form.
  page: (example) -> its text for a base model, up to the answer.
  made: (question, choices, number) -> Example; more: fields of the Task.
  """

  def parsed(path):
    return read(reading.place(path, names), asked, made or example)

  own = reading.splits(source, names[0], parsed, lambda e: (e.prompt, e.choices))
  own |= dict(prompt=listed, context=context(page), shots=0)
  return task.Task(**own | dict(score=task.exact, page=page) | more)


def example(question: str, choices: Sequence[str], right: int) -> task.Example:
  """The Example whose choices are the texts."""
  return task.Example(question, choices[right], choices=tuple(choices))


def lettered(question: str, choices: Sequence[str], right: int) -> task.Example:
  """The Example that lists its choices in the question and is answered by a letter."""
  letters = LETTERS[: len(choices)]
  lines = [f'{a}. {text}' for a, text in zip(letters, choices)]
  return task.Example(
    '\n'.join([question, *lines]), letters[right], choices=tuple(letters)
  )


def listed(e: task.Example) -> str:
  """The user's message: the question and its choices, each on a line."""
  return '\n'.join([e.prompt, *e.choices])


def by_letter(e: task.Example) -> str:
  """The user's message of a question that lists its choices."""
  return f'{e.prompt}\nAnswer with the letter alone.'


def question(e: task.Example) -> str:
  """The text of a base model: 'Question: ... Answer:'."""
  return f'Question: {e.prompt}\nAnswer:'


def context(
  page: Callable[[task.Example], str],
  intro: Callable[[task.Example], str] = lambda e: '',
) -> Callable:
  """(example, solved examples) -> the text before an answer, an empty line between."""

  def text(e, solved):
    before = [f'{page(s)} {s.worked or s.answer}' for s in solved]
    return intro(e) + '\n\n'.join([*before, page(e)])

  return text


def read(
  path: pathlib.Path,
  asked: Callable[[Mapping, str], Asked],
  made: Callable[[str, list[str], int], task.Example] = example,
) -> list[task.Example]:
  """The Examples of a file; a UserError names the line."""
  found = []
  for where, row in reading.rows(path):
    simple = 'gold' in row and 'context_options' not in row
    parts = plain(row, where) if simple else asked(row, where)
    found.append(made(*checked(*parts, where)))
  return found


def plain(row: Mapping, where: str) -> Asked:
  """Asked of {"query", "choices", "gold"}."""
  jsonl.known(row, ('query', 'choices', 'gold'), where)
  return jsonl.text(row, 'query', where), row.get('choices'), row['gold']


def checked(query: str, choices: object, right: object, where: str) -> Asked:
  """Asked without space around its texts; a UserError names what cannot be."""
  if not isinstance(choices, list) or not all(
    isinstance(c, str) and c.strip() for c in choices
  ):
    raise UserError(f'{where}: the choices are not a list of texts')
  if not 2 <= len(choices) <= len(LETTERS):
    raise UserError(
      f'{where}: {len(choices)} choices: 2 to {len(LETTERS)} are possible'
    )
  if type(right) is not int or not 0 <= right < len(choices):
    most = len(choices) - 1
    raise UserError(f'{where}: the right choice is {right!r}, not 0 to {most}')
  return query.strip(), [c.strip() for c in choices], right


def number(row: Mapping, name: str, labels: Sequence[str], where: str) -> int:
  """Place of a row's label among `labels`, or a UserError; it may be a number."""
  value = str(row.get(name)).strip()
  if value not in labels:
    known = ', '.join(labels)
    raise UserError(f'{where}: field {name!r} is {value!r}, none of {known}')
  return list(labels).index(value)


def labelled(row: Mapping, query: str, where: str) -> Asked:
  """Asked of a row whose choices are {"text": [...], "label": [...]} with answerKey."""
  given = row.get('choices')
  fits = isinstance(given, dict) and all(
    isinstance(given.get(k), list) and all(isinstance(v, str) for v in given[k])
    for k in ('text', 'label')
  )
  if not fits or len(given['text']) != len(given['label']):
    raise UserError(f'{where}: field choices is not {{"text": [...], "label": [...]}}')
  return query, given['text'], number(row, 'answerKey', given['label'], where)
