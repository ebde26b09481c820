r"""MATH: competition problems with an answer in LaTeX (arXiv 2103.03874; 5.1).

--config.tasks="('math=TEST,TRAIN',)": the answer is in \boxed{}, and is compared as
latex.py says. In the paper: a base model after 4 solved examples with 512 tokens, a
chat with 5,120 (--config.max_new=5120). The summary has each subject and the mean over
subjects.
"""

from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.tasks import latex
from llama3_jax.tasks import reading
from llama3_jax.tasks import task

NAMES = ('math.jsonl', 'math_even.jsonl')
ASK = '\nSolve it step by step. Put the answer alone in \\boxed{}.'


def create(source: str = '') -> task.Task:
  """The Task of 'TEST' or 'TEST,TRAIN'."""
  return reading.create(
    *(source, NAMES, parse),
    score=score,
    prompt=lambda e: e.prompt + ASK,
    page=page,
    context=context,
    stop='\nProblem:',
    max_new=512,
    summary=summary,
    shots=4,
  )


def page(e: task.Example) -> str:
  """The problem and the beginning of its solution."""
  return f'Problem: {e.prompt}\nSolution:'


def context(e: task.Example, solved: Sequence[task.Example]) -> str:
  """Solved problems, and the page of the one that is asked."""
  return '\n\n'.join([f'{page(s)} {s.worked}' for s in solved] + [page(e)])


def parse(row: Mapping, where: str) -> task.Example:
  """The Example of {"problem", "solution", "type"}, as published, or of {"context",
  "chain_of_thought", "answer", "category"}."""
  own = 'problem' not in row and reading.CONTEXT in row
  names = (reading.CONTEXT, 'chain_of_thought') if own else ('problem', 'solution')
  asked, worked = (jsonl.text(row, name, where).strip() for name in names)
  subject = row.get('category', row.get('type', row.get('subject', '')))
  answer = row.get('answer') or latex.boxed(worked)
  if not asked or not isinstance(answer, str) or not latex.plain(answer):
    raise UserError(f'{where}: no answer: field {names[1]!r} needs a \\boxed{{...}}')
  if not latex.same(latex.answer(worked), answer):
    worked = f'{worked} The answer is $\\boxed{{{answer}}}$.'
  return task.Example(asked, answer, worked=worked, checks=(str(subject),))


def score(e: task.Example, response: str) -> float:
  """1.0 when the answer that the response ends with is equal to the right one."""
  return float(latex.same(latex.answer(response), e.answer))


summary = task.by_kind(score, 'mean over subjects', lambda e: e.checks[0] or 'all')
