"""The verifiable tasks: right answers, disjoint splits, ranked responses."""

import json
import random

import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.tasks import needle
from llama3_jax.tasks import suite
from llama3_jax.tasks import task


@pytest.mark.parametrize('name', suite.TASKS)
def test_splits_share_no_prompt_and_held_out_prompts_are_different(name):
  train = {e.prompt for e in task.load(name).examples('train', 400, 0)}
  heldout = [e.prompt for e in task.load(name).examples('heldout', 100, 1)]
  assert heldout and len(heldout) == len(set(heldout))
  assert not train & set(heldout)


def test_answers_follow_from_prompts():
  for e in task.load('sort').examples('train', 50, 0):
    assert e.answer.split() == sorted(e.prompt.removeprefix('Sort: ').split())
  for e in task.load('arithmetic').examples('train', 50, 0):
    assert int(e.answer) == eval(e.prompt.removeprefix('Compute: '))
  for e in task.load('copy').examples('train', 50, 0):
    assert e.prompt == f'Copy: {e.answer}'
  for e in task.load('needle').examples('train', 50, 0):
    assert f'Remember: {e.answer}.' in e.prompt
    assert e.prompt.endswith(f'What goes with {e.answer.split()[0]}?')


def test_examples_depend_on_the_seed_alone():
  a, b, c = (suite.mixed(40, seed, 'train') for seed in (3, 3, 4))
  assert a == b != c


def test_ranked_is_right_then_wrapped_then_wrong():
  rng = random.Random(0)
  for e in suite.mixed(200, 0, 'heldout'):
    edited, chosen, rejected = suite.ranked(e, rng)
    assert suite.score(e, edited) == 1 and suite.score(e, chosen) == 0
    assert e.answer in chosen
    assert suite.score(e, rejected) == 0
    wraps = {suite.wrapped(e.answer, random.Random(i)) for i in range(20)}
    assert rejected not in wraps  # wrong, not only wrapped


def test_score_ignores_space_around_the_answer_only():
  e = task.Example('Copy: sun moon', 'sun moon', 'copy')
  assert suite.score(e, ' sun moon\n') == 1
  assert suite.score(e, 'sun  moon') == suite.score(e, 'sun moon.') == 0


def test_unknown_task_is_named():
  with pytest.raises(UserError, match='chess.*boolq, copa, copy, .*mmlu.* piqa, rows'):
    task.load('chess').examples('train', 1, 0)


def test_drills_repeat_a_line_of_words():
  for d in suite.drills(50, 0):
    words = d['text'].split()
    periods = [
      n for n in range(3, 17) if words == (words[:n] * len(words))[: len(words)]
    ]
    assert periods and set(words) <= set(task.WORDS)


@pytest.mark.parametrize('depth', (0.0, 0.5, 1.0))
def test_a_haystack_has_its_length_and_its_fact_at_the_depth(depth):
  hay = [f'Line number {i} says nothing.' for i in range(50)]
  context, question, answer = needle.haystack(random.Random(1), hay, 2000, depth)
  whole = needle.prompt(context, question) + ' ' + answer
  assert 1900 <= len(whole) <= 2000
  place = context.index(needle.fact(*answer.split())) / len(context)
  assert abs(place - depth) < 0.05


def test_a_page_asks_for_every_fact_it_hides():
  page = needle.page(random.Random(0), ['Nothing here.'], 400, 4)
  facts = [line for line in page.split('Remember: ')[1:]]
  assert len(facts) == 4 and page.count('\nA: ') == 4
  for fact in facts:
    key, value = fact.split('.')[0].split()
    assert f'Q: What goes with {key}?\nA: {key} {value}' in page


def write(path, rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))


def test_rows_of_a_file_are_a_task(tmp_path):
  solved = {'question': 'One and one?', 'answer': '2', 'worked': 'It is 1 + 1.\n2'}
  write(tmp_path / 'train.jsonl', [solved])
  asked = [{'question': f'{i} and {i}?', 'answer': str(2 * i)} for i in range(5)]
  write(tmp_path / 'test.jsonl', [*asked, asked[0]])
  made = task.load(f'rows={tmp_path}/test.jsonl,{tmp_path}/train.jsonl')
  found = made.examples('heldout', 10, 0)
  assert len(found) == 5 and made.examples('heldout', 10, 0) == found
  assert {e.prompt: e.answer for e in found} == {
    row['question']: row['answer'] for row in asked
  }
  [shot] = made.examples('train', 1, 0)
  assert suite.document([shot]) == 'Q: One and one?\nA: It is 1 + 1.\n2'
  assert suite.score(found[0], f' {found[0].answer}\n') == 1
  # Worked out as it was shown, a response ends in its answer.
  assert suite.score(shot, 'One more: 1 + 1.\n2') == 1
  assert suite.score(shot, 'So 2\nor 3') == suite.score(shot, '2 it is') == 0


def test_choices_are_asked_in_a_chat_and_questions_come_once(tmp_path):
  pick = {'question': 'Which?', 'answer': 'b', 'choices': ['a', 'b']}
  write(tmp_path / 'test.jsonl', [pick, pick])
  write(tmp_path / 'train.jsonl', [pick, {'question': 'Other?', 'answer': 'c'}])
  made = task.load(f'rows={tmp_path}/test.jsonl,{tmp_path}/train.jsonl')
  [e] = made.examples('heldout', 9, 0)
  assert made.prompt(e) == 'Which?\na\nb' and made.page(e) == 'Q: Which?\nA:'
  [shot] = made.examples('train', 9, 0)  # none that is asked
  assert shot.prompt == 'Other?'


@pytest.mark.parametrize(
  'row,words',
  [
    ({'question': 'Q', 'answer': 'a', 'choices': ['b', 'c']}, 'one of its choices'),
    ({'question': 'Q'}, "'answer' is missing"),
    ({'question': 'Q', 'answer': '2', 'worked': '1 + 1 = 2'}, 'last line of worked'),
    ({'question': 'Q', 'answer': 'a', 'choice': ['a']}, "is it 'choices'"),
    ({'question': 'Q', 'answer': 'a', 'choices': 'ab'}, 'a list of texts'),
    ({'question': 'Q', 'answer': 'a', 'choices': ['a', 1]}, 'a list of texts'),
  ],
)
def test_row_that_is_no_question_is_one_line(tmp_path, row, words):
  write(tmp_path / 'test.jsonl', [row])
  with pytest.raises(UserError, match='line 1') as error:
    task.load(f'rows={tmp_path}/test.jsonl').examples('heldout', 1, 0)
  assert words in str(error.value) and '\n' not in str(error.value)


def test_file_without_solved_rows_says_so(tmp_path):
  write(tmp_path / 'test.jsonl', [{'question': 'Q', 'answer': 'a'}])
  with pytest.raises(UserError, match='train rows'):
    task.load(f'rows={tmp_path}/test.jsonl').examples('train', 1, 0)


def test_a_module_of_your_own_is_a_task(tmp_path, monkeypatch):
  text = (
    'from llama3_jax.tasks import task\n\n'
    'def create(source):\n'
    "  one = task.Example('2 + 2', source)\n"
    '  return task.Task(lambda split, n, seed: [one] * n)\n'
  )
  (tmp_path / 'my_own').mkdir()
  (tmp_path / 'my_own/sums.py').write_text(text)
  monkeypatch.syspath_prepend(tmp_path)
  [e] = task.load('my_own.sums=4').examples('heldout', 1, 0)
  assert (e.answer, e.task) == ('4', 'my_own.sums=4') and suite.score(e, '4') == 1


def test_a_new_task_changes_no_data_of_others():
  two = suite.preference_rows(20, 0, 'train', ('copy', 'sort'))
  assert {row['source'] for row in two} == {'copy', 'sort'}
  assert set(suite.TASKS) == {'copy', 'sort', 'arithmetic', 'needle', 'format'}


def test_answers_that_are_all_the_same_cannot_be_spoiled(tmp_path):
  write(tmp_path / 't.jsonl', [{'question': 'Q', 'answer': 'a'}])
  write(tmp_path / 'u.jsonl', [{'question': 'P', 'answer': 'a'}])
  made = task.load(f'rows={tmp_path}/t.jsonl,{tmp_path}/u.jsonl')
  [e] = made.examples('heldout', 1, 0)
  with pytest.raises(UserError, match='one answer only'):
    suite.spoiled(e, random.Random(0))


def test_no_tasks_at_all_are_one_line():
  with pytest.raises(UserError, match='task_names is empty'):
    suite.mixed(3, 0, 'train', ())
  with pytest.raises(UserError, match='no module of yours'):
    task.load('nowhere.tasks')
