"""Benchmarks of code: answers are read, run and scored; files are checked."""

import itertools
import json
import re

import attacks
import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.tasks import coding
from llama3_jax.tasks import suite
from llama3_jax.tasks import task
from llama3_jax.tools import sandbox


@pytest.fixture(autouse=True, scope='module')
def held():
  attacks.way()


def row(number, name='double', **more):
  checks = [f'assert {name}(1) == 2', f'assert {name}([]) == []']
  code = f'def {name}(x):\r\n  return x + x'
  given = dict(task_id=number, text=f'Add a thing {number} to itself.', code=code)
  return given | dict(test_list=checks, test_setup_code='') | more


def lines(path, rows):
  path.write_text(''.join(json.dumps(r) + '\n' for r in rows))
  return path


@pytest.fixture
def questions(tmp_path):
  numbers = [*range(1, 14), *range(600, 604)]
  lines(tmp_path / 'mbpp.jsonl', [row(n) for n in numbers])
  return task.load(f'mbpp={tmp_path}')


@pytest.mark.parametrize(
  'answer,code',
  [
    ('Sure:\n```python\ndef f():\n  pass\n```\nDone.', 'def f():\n  pass\n'),
    ('```\na = 1\n```\n```\nb = 2\n```', 'a = 1\n'),
    ('1. Do:\n   ```py\nx = 1\n   ```', 'x = 1\n'),
    ('```python\nx = 1', 'x = 1'),
    ('```python\r\nx = 1\r\n```', 'x = 1\n'),
    ('Here it is.\nimport re\ndef f(): pass', 'import re\ndef f(): pass'),
    ('I import:\n@cache\ndef f(): pass', '@cache\ndef f(): pass'),
    ('lambda x: x', 'lambda x: x'),
    ('Use `f`: from what\ndef f(): pass', 'def f(): pass'),
    ('', ''),
  ],
)
def test_code_of_an_answer_is_its_first_block_or_from_the_first_def(answer, code):
  assert coding.extract(answer) == code


def test_an_answer_is_right_when_its_assertions_pass(questions):
  [e] = questions.examples('heldout', 1, 0)
  scores = suite.scores(
    [
      (e, e.answer),
      (e, 'def double(x): return 2 * x'),
      (e, 'def double(x): return [] if x == [] else 2 * x'),
      (e, 'def double(x): return 2'),
      (e, 'def twice(x): return x + x'),
      (e, 'I do not know.'),
      (e, ''),
    ]
  )
  assert scores == [1, 1, 1, 0, 0, 0, 0]
  assert suite.score(e, e.answer) == 1 and suite.score(e, 'def double(x): 1 +') == 0


def test_scores_of_several_tasks_at_once_are_in_their_order(questions, monkeypatch):
  [e] = questions.examples('heldout', 1, 0)
  copies = task.load('copy').examples('heldout', 2, 0)
  runs, run_all = [], sandbox.run_all
  seen = lambda programs, *a, **more: runs.append(1) or run_all(programs, *a, **more)
  monkeypatch.setattr(sandbox, 'run_all', seen)
  pairs = [(copies[0], 'no'), (e, e.answer), (copies[1], copies[1].answer), (e, '')]
  assert suite.scores(pairs) == [0, 1, 1, 0] and len(runs) == 1


@pytest.mark.parametrize(
  'answer',
  [
    'exit(0)',
    'import sys\nsys.exit()',
    'raise SystemExit(0)',
    'import os\nos._exit(0)',
    'import os, atexit\natexit.register(os._exit, 0)\nraise SystemExit',
    'import os\nclass A(Exception):\n  def __del__(self): os._exit(0)\nraise A',
    'import sys\nsys.excepthook = lambda *a: None\nraise ValueError',
    'import os\ndef double(x): os._exit(0)',
    'print("x" * 99)\nprint("all passed")\nraise SystemExit',
    'import builtins\nbuiltins.AssertionError = SystemExit\ndef double(x): return 0',
    'def double(x): raise SystemExit(0)',
    'import threading, os\nthreading.Thread(target=os._exit, args=(0,)).start()\n'
    'while True: pass',
    '"""',
    'if False:',
    'while True: pass',
  ],
)
def test_an_answer_that_ends_early_is_not_right(questions, answer, monkeypatch):
  monkeypatch.setattr(coding, 'LIMITS', sandbox.Limits(cpu_s=1, wall_s=5.0))
  [e] = questions.examples('heldout', 1, 0)
  assert suite.score(e, f'```python\n{answer}\n```') == 0


def test_splits_are_those_of_the_paper_and_share_no_question(tmp_path):
  rows = [row(n) for n in range(1, 975)]
  rows[700]['text'] = rows[20]['text']
  lines(tmp_path / 'mbpp.jsonl', rows)
  loaded = task.load(f'mbpp={tmp_path}/mbpp.jsonl')
  number = lambda e: int(e.prompt.split()[3])
  heldout = {number(e) for e in loaded.examples('heldout', 9999, 0)}
  train = [number(e) for e in loaded.examples('train', 9999, 0)]
  assert heldout == set(range(11, 511))
  assert set(train) == {*range(1, 11), *range(601, 975)} - {701}
  assert train[:3] == [2, 3, 4]
  again = [number(e) for e in loaded.examples('train', 9999, 1)]
  assert again != train and set(again) == set(train)


def test_a_base_model_sees_solved_pages_up_to_the_mark(questions):
  shots = questions.examples('train', 2, 0)
  text = suite.document(shots)
  assert text.count('[BEGIN] \ndef double(x):\n  return x + x\n[DONE]') == 2
  assert text.startswith(
    'Task: Add a thing 2 to itself.\nTests:\nassert double(1) == 2'
  )
  page = questions.page(questions.examples('heldout', 1, 0)[0])
  assert page.endswith('assert double([]) == []\n[BEGIN]')
  assert '\r' not in text and questions.stop == '[DONE]'


def test_a_chat_sees_how_the_function_is_called(questions):
  e = questions.examples('heldout', 1, 0)[0]
  assert '\ndouble(1)\n' in questions.prompt(e)
  assert 'assert' not in questions.prompt(e) and '== 2' not in questions.prompt(e)


def test_code_that_comes_before_the_assertions_is_run(tmp_path):
  checks = dict(test_setup_code='two = 2', test_list=['assert double(1) == two'])
  lines(tmp_path / 'm.jsonl', [row(11, **checks)])
  [e] = task.load(f'mbpp={tmp_path}/m.jsonl').examples('heldout', 1, 0)
  assert suite.score(e, e.answer) == 1 and suite.score(e, 'def double(x): 3') == 0


def without(field):
  return {k: v for k, v in row(12).items() if k != field}


@pytest.mark.parametrize(
  'bad,words',
  [
    (without('task_id'), "line 2: field 'task_id' is not a whole number"),
    (without('text'), "line 2: field 'text' is missing"),
    (without('code'), "line 2: field 'code' is missing"),
    (without('test_list'), "line 2: field 'test_list' is not a list of texts"),
    (row(11), 'line 2: task_id 11 is also in .*line 1'),
    (row('12'), "line 2: field 'task_id' is not a whole number"),
    (row(None), "line 2: field 'task_id' is not a whole number"),
    (row(12, test_list=[]), "line 2: field 'test_list' is empty"),
    (row(12, test_list=[1]), "line 2: field 'test_list' is not a list of texts"),
    (row(12, test_list=['assert (']), "line 2: field 'test_list' is not Python"),
    (row(12, code='def ('), "line 2: field 'code' is not Python"),
    (row(12, text=7), "line 2: field 'text' is a number, not text"),
  ],
)
def test_row_that_is_no_question_names_its_line(tmp_path, bad, words):
  lines(tmp_path / 'mbpp.jsonl', [row(11), bad])
  with pytest.raises(UserError, match=words) as error:
    task.load(f'mbpp={tmp_path}').examples('heldout', 1, 0)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', ['mbpp', 'humaneval'])
def test_data_that_is_not_there_is_one_line(tmp_path, name):
  with pytest.raises(UserError, match='the file is missing: write .=FILE'):
    task.load(name).examples('heldout', 1, 0)
  with pytest.raises(UserError, match='no file .*jsonl is there'):
    task.load(f'{name}={tmp_path}').examples('heldout', 1, 0)
  with pytest.raises(UserError, match='does not exist'):
    task.load(f'{name}={tmp_path}/x.jsonl').examples('heldout', 1, 0)


def test_empty_split_is_one_line(tmp_path):
  lines(tmp_path / 'mbpp.jsonl', [row(11)])
  with pytest.raises(UserError, match='no questions of the train split'):
    task.load(f'mbpp={tmp_path}').examples('train', 1, 0)


GIVEN = '\n\ndef half(x):\n  return x / 2\n\n\n'
QUESTION = GIVEN + 'def double(x):\n  """ Twice.\n  >>> double(2)\n  4\n  """\n'
CHECK = 'def check(candidate):\n  assert candidate(3) == 6\n  assert half(2) == 1\n'


def function(**more):
  given = dict(task_id='HumanEval/0', prompt=QUESTION, entry_point='double')
  return given | dict(canonical_solution='  return 2 * x\n', test=CHECK) | more


@pytest.mark.parametrize(
  'answer,score',
  [
    ('```python\ndef double(x):\n    return 2 * x\n```', 1),
    ('  return 2 * x', 1),
    ('return 2 * x\n\ndef other(x):\n  return 3', 1),
    ('  y = x\n  return y + x\nprint(double(1))', 1),
    ('  return 2', 0),
    ('```python\ndef double(x):\n    return 3\n```', 0),
    ('```python\ndef twice(x):\n    return 2 * x\n```', 0),
    ('def half(x): return 1\ndef double(x): return 7', 0),
    # The functions of the question by which it is checked stay its own.
    ('def half(x): return 7\ndef double(x): return 2 * x', 1),
    ('  exit()', 0),
    ('', 0),
  ],
)
def test_function_is_completed_or_replaced(tmp_path, answer, score):
  lines(tmp_path / 'HumanEval.jsonl', [function()])
  loaded = task.load(f'humaneval={tmp_path}')
  [e] = loaded.examples('heldout', 9, 0)
  assert suite.score(e, answer) == score
  assert suite.score(e, e.answer) == 1
  assert loaded.page(e) == QUESTION and QUESTION.strip() in loaded.prompt(e)


@pytest.mark.parametrize(
  'bad,words',
  [
    (function(entry_point='treble'), "no function 'treble' in the prompt"),
    (function(test='assert 1'), 'has no function check'),
    (function(test='def check(:'), "'test' is not Python"),
    (function(prompt='def double(:'), "'prompt' is not Python"),
    (function(canonical_solution=' return 1'), "'canonical_solution' is not Python"),
    (function(task_id=[]), "'task_id' is a list"),
  ],
)
def test_function_that_is_no_question_names_its_line(tmp_path, bad, words):
  lines(tmp_path / 'HumanEval.jsonl', [bad])
  with pytest.raises(UserError, match=f'line 1: field .*{words}|line 1: .*{words}'):
    task.load(f'humaneval={tmp_path}').examples('heldout', 1, 0)


def test_humaneval_has_no_solved_examples(tmp_path):
  lines(tmp_path / 'HumanEval.jsonl', [function()])
  with pytest.raises(UserError, match='--config.shots=0'):
    task.load(f'humaneval={tmp_path}').examples('train', 1, 0)


def test_pass_at_k_is_the_share_of_subsets_with_a_right_answer():
  for n in range(1, 8):
    for right in range(n + 1):
      for k in range(1, n + 1):
        subsets = list(itertools.combinations(range(n), k))
        share = sum(min(s) < right for s in subsets) / len(subsets)
        assert abs(coding.pass_at_k(n, right, k) - share) < 1e-12
  for wrong in ((3, 4, 1), (3, -1, 1), (3, 1, 4), (3, 1, 0)):
    with pytest.raises(UserError, match='pass@'):
      coding.pass_at_k(*wrong)


def spoiled(e):
  """The reference answer with something before every result."""
  code = re.sub(r'\breturn\b', "return 'spoiled',", coding.extract(e.answer))
  return f'```python\n{code}\n```'


def test_reference_answers_of_mbpp_pass_and_spoiled_ones_fail(assets):
  loaded = task.load(f'mbpp={assets}')
  rows = loaded.examples('heldout', 9999, 0)
  assert len(rows) == 500 and len(loaded.examples('train', 9999, 0)) == 381
  some = rows[:120]
  assert sum(task.scored(loaded, [(e, e.answer) for e in some])) == len(some)
  assert sum(task.scored(loaded, [(e, spoiled(e)) for e in some])) == 0


def test_reference_answers_of_humaneval_pass_and_spoiled_ones_fail(assets):
  loaded = task.load(f'humaneval={assets}')
  rows = loaded.examples('heldout', 9999, 0)
  assert len(rows) == 40
  bodies = [(e, coding.extract(e.answer)[len(e.prompt.strip()) :]) for e in rows]
  assert sum(task.scored(loaded, [(e, e.answer) for e in rows])) == 40
  assert sum(task.scored(loaded, bodies)) == 40
  assert sum(task.scored(loaded, [(e, spoiled(e)) for e in rows])) == 0
