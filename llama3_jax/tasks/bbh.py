"""BIG-Bench Hard: tasks that need steps (arXiv 2210.09261; 5.1).

--config.tasks="('bbh=FOLDER',)": the folder holds bbh/TASK.json and, for a base model,
cot-prompts/TASK.txt with three solved examples, as published; 'FOLDER,TASK' is one of
them. The answer is what follows "the answer is". The summary has the mean over tasks.
"""

import json
import pathlib
import random
import re

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.tasks import reading
from llama3_jax.tasks import task

ANSWER = re.compile(r'the answer is:?[ \t]*([^\n]*)', re.I)
THINK = "Let's think step by step."  # as the published examples begin
SHOTS = 3
LINE = re.compile(r'^-{3,}\s*$', re.M)  # above it, a notice that is not for the model


def create(source: str = '') -> task.Task:
  """The Task of 'FOLDER' or 'FOLDER,TASK'."""
  place, _, only = source.partition(',')
  known = {}

  def examples(split, n, seed):
    reading.held_out(split, 'bbh')
    if not known:
      known.update(read(place, only))
    rng, ranked = random.Random(f'{seed}/bbh'), []
    for rows in known.values():  # one of each task in turn
      ranked += enumerate(rng.sample(rows, len(rows)))
    return [e for _, e in sorted(ranked, key=lambda pair: pair[0])][:n]

  return task.Task(
    examples,
    score,
    prompt,
    page,
    stop='\nQ:',
    max_new=512,
    summary=summary,
    context=lambda e, solved: shown(place, e) + page(e),
    shots=SHOTS,
    # They are in the file of the task.
    solved=lambda e, n: reading.first([], n, 'bbh', SHOTS),
  )


def prompt(e: task.Example) -> str:
  """The user's message, which says how the answer is to end."""
  return f'{e.prompt}\nThink step by step. End with: So the answer is ...'


def page(e: task.Example) -> str:
  """The question and the beginning of its answer."""
  return f'Q: {e.prompt}\nA: {THINK}'


def score(e: task.Example, response: str) -> float:
  """1.0 when the last answer of the response is the right one."""
  return float(extract(response) == extract(f'the answer is {e.answer}'))


def extract(response: str) -> str:
  """What follows the last "the answer is" on its line, without marks; else ''."""
  found = ANSWER.findall(response)
  return found[-1].strip(' \t.*"$') if found else ''


summary = task.by_kind(score, 'mean over tasks')


def shown(place: str, e: task.Example) -> str:
  """The solved examples of the example's task, and an empty line; '' without a file."""
  path = pathlib.Path(place) / 'cot-prompts' / f'{e.checks[0]}.txt'
  if not path.is_file():
    return ''
  text = '\n'.join(reading.lines(path))
  return LINE.split(text, maxsplit=1)[-1].strip() + '\n\n'


def read(place: str, only: str = '') -> dict[str, list[task.Example]]:
  """{task: Examples} of a folder's files; a UserError names file and example."""
  folder = pathlib.Path(place or '.')
  if not place or not folder.is_dir():
    raise reading.Absent(
      f'tasks: bbh={place}: write bbh=FOLDER, which has bbh/TASK.json'
    )
  folder = folder / 'bbh' if (folder / 'bbh').is_dir() else folder
  paths = [p for p in sorted(folder.glob('*.json*')) if only in ('', p.stem)]
  if not paths:
    raise reading.Absent(f'tasks: bbh={place}: no file {only or "TASK"}.json is there')
  return {path.stem: _examples(path) for path in paths}


def _examples(path):
  if path.suffix == '.json':
    try:
      whole = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
      raise UserError(f'{path}: not JSON ({error})') from None
    given = whole.get('examples') if isinstance(whole, dict) else None
    if not isinstance(given, list) or not given:
      raise UserError(f"{path}: field 'examples' is no list of questions")
    rows = [(f'{path}, example {i}', row) for i, row in enumerate(given, 1)]
  else:
    rows = list(reading.rows(path))
  found = []
  for where, row in rows:
    if not isinstance(row, dict):
      raise UserError(f'{where}: a {jsonl.kind(row)}, not an object')
    asked, answer = (jsonl.text(row, name, where) for name in ('input', 'target'))
    found.append(task.Example(asked.strip(), answer.strip(), checks=(path.stem,)))
  return reading.once(found, path)
