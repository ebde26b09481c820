"""MMLU-Pro: questions with up to ten choices that need steps (arXiv 2406.01574; 5.1).

--config.tasks="('mmlu_pro=FOLDER',)": the folder holds the questions, test*.parquet or
test*.jsonl, and the solved ones of each category, validation*, as published; 'TEST' and
'TEST,VALIDATION' are files. The answer is the letter after "the answer is". In the
paper a base model has 512 tokens, a chat 1,024 (--config.max_new=1024). The summary has
each category and the mean over categories.
"""

import functools
import pathlib
import random
import re
from collections.abc import Mapping

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.tasks import choice
from llama3_jax.tasks import reading
from llama3_jax.tasks import task

ENDINGS = ('.parquet', '.jsonl', '.json')
THINK = "Let's think step by step."  # as the published solutions begin
LEAD = re.compile(rf'\s*(?:A:\s*)?(?:{re.escape(THINK)})?\s*', re.I)
SAID = re.compile(
  r'answer is:?[\s*$"\'(]*(?:\\(?:boxed|text|textbf)\{[\s(]*)*([A-J])\b(?![\'’])', re.I
)


def create(source: str = '') -> task.Task:
  """The Task of 'FOLDER', 'TEST' or 'TEST,VALIDATION'."""

  def examples(split, n, seed):
    found = _read(source, split)
    rng, ranked = random.Random(f'{seed}/{split}'), []
    for rows in found.values():  # one of each category in turn
      ranked += enumerate(rng.sample(rows, len(rows)))
    return [e for _, e in sorted(ranked, key=lambda pair: pair[0])][:n]

  def solved(e, n):
    rows = _read(source, 'train').get(e.checks[0], [])
    return reading.first(rows, n, f'mmlu_pro ({e.checks[0]})')

  return task.Task(
    *(examples, score, prompt, page),
    stop='\nQuestion:',
    max_new=512,
    summary=summary,
    context=choice.context(page, intro),
    solved=solved,
    shots=5,
  )


def intro(e: task.Example) -> str:
  """The line before the questions of a category."""
  return (
    f'Questions about {e.checks[0]}, each with its choices. Think step by step, then '
    'write "The answer is (X)" with the letter of the right choice.\n\n'
  )


def page(e: task.Example) -> str:
  """The question with its choices, and the beginning of its solution."""
  return f'Question: {e.prompt}\nAnswer: {THINK}'


def prompt(e: task.Example) -> str:
  """The user's message, which says how the answer is to end."""
  return f'{e.prompt}\nThink step by step. End with: The answer is (X).'


def score(e: task.Example, response: str) -> float:
  """1.0 when the last letter that the response calls the answer is the right one."""
  return float(letter(response) == e.answer)


def letter(response: str) -> str:
  """The letter after the last "answer is", else ''."""
  found = [m[1] for m in SAID.finditer(response) if m[1].isupper()]
  return found[-1] if found else ''


summary = task.by_kind(score, 'mean over categories')


@functools.lru_cache(8)
def _read(source: str, split: str) -> dict[str, list[task.Example]]:
  """{category: Examples, in order} of 'heldout' or 'train'; no question is in both."""
  path = _place(source, split)
  found = [parse(row, where) for where, row in reading.rows(path)]
  if split == 'train':
    asked = {e.prompt for rows in _read(source, 'heldout').values() for e in rows}
    found = [e for e in found if e.prompt not in asked]
  by_category = {}
  for e in reading.once(found, path):
    by_category.setdefault(e.checks[0], []).append(e)
  return dict(sorted(by_category.items()))


def _place(source, split):
  """The file of a split: the one that is named, or that of its name in the folder."""
  test, _, solved = source.partition(',')
  if not test:
    raise UserError('tasks: mmlu_pro needs its folder: write mmlu_pro=FOLDER')
  path = pathlib.Path(solved if solved and split == 'train' else test)
  if path.is_dir():
    name = 'test' if split == 'heldout' else 'validation'
    tops = (path, path / 'data', path / 'mmlu_pro')
    files = sorted(p for top in tops for p in top.glob(f'{name}*'))
    files = [p for p in files if p.suffix in ENDINGS]
    if len(files) != 1:
      there = ', '.join(map(str, files)) or 'none'
      raise (UserError if files else reading.Absent)(
        f'tasks: mmlu_pro={source}: one file {name}*.parquet or {name}*.jsonl is '
        f'needed: found {there}'
      )
    return files[0]
  if split == 'train' and not solved:
    raise UserError(
      f'tasks: mmlu_pro={source} names no file of solved questions: write the folder, '
      'TEST,VALIDATION, or --config.shots=0'
    )
  return path


def parse(row: Mapping, where: str) -> task.Example:
  """The Example of one row; a UserError starts with `where`."""
  query, category = (
    jsonl.text(row, k, where).strip() for k in ('question', 'category')
  )
  options = row.get('options')
  if isinstance(options, list):
    while options and options[-1] == 'N/A':  # fills a list of fewer than ten
      options = options[:-1]
  named = jsonl.text(row, 'answer', where).strip()
  place = choice.LETTERS.find(named) if len(named) == 1 else -1
  if place < 0:
    raise UserError(f"{where}: field 'answer' is {named!r}, no letter of A to J")
  index = row.get('answer_index', place)
  if index != place or type(index) is not int:
    raise UserError(
      f"{where}: field 'answer' is {named}, but 'answer_index' is {index!r}, not "
      f'{place}'
    )
  query, choices, right = choice.checked(query, options, place, where)
  made = choice.lettered(f'{query}\nOptions:', choices, right)
  steps = LEAD.sub('', jsonl.text(row, 'cot_content', where, ''), count=1).strip()
  if letter(steps) != named:
    if steps and letter(steps):
      raise UserError(
        f"{where}: field 'cot_content' ends with {letter(steps)}, 'answer' is {named}"
      )
    steps = f'{steps} The answer is ({named}).'.strip()
  return task.Example(made.prompt, named, worked=steps, checks=(category,))
