"""GSM8K: word problems of grade-school mathematics with a number as the answer (5.1).

--config.tasks="('gsm8k=DIR',)": DIR holds gsm8k/test.jsonl, or test_first300.jsonl, and
gsm8k/train.jsonl with the solved examples; rows are {"question", "answer"}, the answer
with its steps and, after ####, the number.
"""

import pathlib
import random
import re

from llama3_jax.base.errors import UserError
from llama3_jax.data import assets
from llama3_jax.tasks import task

TEST = ('gsm8k/test.jsonl', 'gsm8k/test_first300.jsonl')
ASK = '\nSolve it step by step. End with #### and the number that is the answer.'
NUMBER = re.compile(r'-?\d[\d,]*(?:\.\d+)?')


def create(source: str = '') -> task.Task:
  """The Task of a folder; its source names the folder."""
  if not source:
    raise UserError('tasks: gsm8k needs its folder: write gsm8k=DIR')

  def examples(split, n, seed):
    name = assets.GSM8K if split == 'train' else _test(source)
    rows = [_example(row, where) for where, row in assets.problems(source, name)]
    random.Random(f'{seed}/{split}/gsm8k').shuffle(rows)
    return rows[:n]

  return task.Task(examples, score, prompt, stop='\nQ:', max_new=256, shots=8)


def _test(source):
  there = (name for name in TEST if (pathlib.Path(source) / name).exists())
  return next(there, TEST[-1])


def _example(row, where):
  worked = assets.CALCULATION.sub('', row['answer'])
  answer = number(worked) if '####' in worked else ''
  if not answer:
    raise UserError(f'{where}: field answer must end with #### and a number')
  return task.Example(row['question'], answer, worked=worked)


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
