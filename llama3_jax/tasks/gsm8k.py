"""GSM8K: word problems of grade-school mathematics with a number as the answer (5.1).

--config.tasks="('gsm8k=DIR',)": DIR holds gsm8k/test.jsonl, or test_first300.jsonl, and
gsm8k/train.jsonl with the solved examples; rows are {"question", "answer"}, the answer
with its steps and, after ####, the number.
"""

import random
import re
from collections.abc import Mapping

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.data import assets
from llama3_jax.tasks import reading
from llama3_jax.tasks import task

TEST = ('gsm8k/test.jsonl', 'gsm8k/test_first300.jsonl')
TRAIN = ('gsm8k/train.jsonl',)
ASK = '\nSolve it step by step. End with #### and the number that is the answer.'
NUMBER = re.compile(r'-?\d[\d,]*(?:\.\d+)?')


def create(source: str = '') -> task.Task:
  """The Task of a folder; its source names the folder."""

  def examples(split, n, seed):
    rows = _read(source, TEST)
    if split == 'train':
      asked = {e.prompt for e in rows}
      rows = [e for e in _read(source, TRAIN) if e.prompt not in asked]
    random.Random(f'{seed}/{split}/gsm8k').shuffle(rows)
    return rows[:n]

  return task.Task(examples, score, prompt, stop='\nQ:', max_new=256, shots=8)


def _read(source, names):
  path = reading.place(source, names)
  rows = [parse(row, where) for where, row in reading.rows(path)]
  return reading.once(rows, path)


def parse(row: Mapping, where: str) -> task.Example:
  """The Example of one row; a UserError starts with `where`."""
  asked, said = (jsonl.text(row, name, where) for name in ('question', 'answer'))
  worked = assets.CALCULATION.sub('', said)
  answer = number(worked) if '####' in worked else ''
  if not answer:
    raise UserError(f'{where}: field answer must end with #### and a number')
  return task.Example(asked, answer, worked=worked)


def prompt(example: task.Example) -> str:
  """The question, and in which form the answer is wanted."""
  return example.prompt + ASK


def score(example: task.Example, response: str) -> float:
  """1.0 when the response's number is the answer."""
  return float(number(response) == example.answer)


def number(text: str) -> str:
  """The number after the last ####, else the last one of the text; '' without one."""
  _, mark, after = text.rpartition('####')
  found = NUMBER.findall(after if mark else text)
  if not found:
    return ''
  plain = (found[0] if mark else found[-1]).replace(',', '')
  return plain.rstrip('0').rstrip('.') if '.' in plain else plain
