"""MMLU-Pro, PAWS and GSM-Plus: published rows, answers, kinds; what has no shots."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.tasks import gsm_plus
from llama3_jax.tasks import mmlu_pro
from llama3_jax.tasks import task

OPTIONS = [f'option {i}' for i in range(10)]
COT = "A: Let's think step by step. It is the one that is right. The answer is (C)."


def harder(number, category='law', **more):
  """A row of MMLU-Pro."""
  asked = f'What of {number} in {category}?'
  row = dict(question_id=number, question=asked, options=OPTIONS, answer='C')
  return row | dict(answer_index=2, category=category, cot_content='', src='x') | more


def pair(number, label, **more):
  """A row of PAWS."""
  row = dict(id=number, sentence1=f'{number} beats A .', sentence2='A beats it .')
  return row | dict(label=label) | more


def changed(number, answer, kind='digit expansion', **more):
  """A row of GSM-Plus."""
  seed = dict(seed_question=f'Old {number}?', seed_solution='x', seed_answer='4')
  row = dict(question=f'New {number}?', solution='It is so.', answer=answer)
  return row | dict(perturbation_type=kind) | seed | more


def write(path, *rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return path


@pytest.fixture
def questions(tmp_path):
  """A folder of MMLU-Pro with two categories, the solved ones in Parquet."""
  asked = [harder(i, c) for i, c in enumerate(['law'] * 3 + ['physics'] * 3)]
  write(tmp_path / 'test.jsonl', *asked)
  kinds = ['physics', 'law'] * 5
  solved = [harder(100 + i, c, cot_content=COT) for i, c in enumerate(kinds)]
  solved.append(asked[0])  # is not shown, since it is asked
  pq.write_table(pa.Table.from_pylist(solved), tmp_path / 'validation-0-of-1.parquet')
  return tmp_path


def test_solved_questions_of_mmlu_pro_are_of_the_same_category(questions):
  made = task.load(f'mmlu_pro={questions}')
  asked = made.examples('heldout', 4, 0)
  assert [e.checks[0] for e in asked] == ['law', 'physics'] * 2
  e = asked[1]
  text = made.context(e, made.solved(e, made.shots))
  assert text.startswith('Questions about physics,') and ' law?' not in text
  first, *_, last = text.partition('\n\n')[2].split('\n\n')
  assert first == (
    'Question: What of 100 in physics?\nOptions:\n'
    + ''.join(f'{a}. {o}\n' for a, o in zip('ABCDEFGHIJ', OPTIONS))
    + "Answer: Let's think step by step. It is the one that is right. "
    'The answer is (C).'
  )
  assert text.count('Question: ') == 6 and last == made.page(e)
  assert last.endswith("J. option 9\nAnswer: Let's think step by step.")
  assert {e.prompt for e in made.examples('train', 99, 0)}.isdisjoint(
    e.prompt for e in made.examples('heldout', 99, 0)
  )


def test_more_solved_questions_than_there_are_is_one_line(questions):
  made = task.load(f'mmlu_pro={questions}')
  [e] = made.examples('heldout', 1, 0)
  with pytest.raises(UserError, match=r'\(law\) has 5 solved examples, not 6: .*=5'):
    made.solved(e, 6)
  alone = task.load(f'mmlu_pro={questions}/test.jsonl')
  with pytest.raises(UserError, match='TEST,VALIDATION, or --config.shots=0'):
    alone.solved(e, 5)
  both = f'mmlu_pro={questions}/test.jsonl,{questions}/validation-0-of-1.parquet'
  shown = lambda loaded: [s.prompt for s in loaded.solved(e, 5)]
  assert shown(task.load(both)) == shown(made)


@pytest.mark.parametrize(
  'response,said',
  [
    ('So it is B. The answer is (C).', 'C'),
    ('The answer is (A). No, the answer is (D).', 'D'),
    ('the answer is: **J**', 'J'),
    ('The answer is $\\boxed{\\text{E}}$', 'E'),
    ('The answer is B because of F.', 'B'),
    ('The answer is a number.', ''),
    ('(C)', ''),
    ('', ''),
    ('The answer is (K).', ''),
    ('The answer is Because.', ''),
  ],
)
def test_the_letter_after_the_last_answer_is_counts(response, said):
  assert mmlu_pro.letter(response) == said


def test_mmlu_pro_is_the_mean_over_categories(questions):
  asked = task.load(f'mmlu_pro={questions}').examples('heldout', 3, 0)
  said = ['The answer is (C).' if e.checks == ('law',) else 'C' for e in asked]
  found = mmlu_pro.summary(asked, said)
  assert found == {'mean over categories': 0.5, 'law': 1.0, 'physics': 0.0}


def test_choices_that_only_fill_the_list_are_left_out(tmp_path):
  write(tmp_path / 'test.jsonl', harder(1, options=['a', 'b', 'c'] + ['N/A'] * 7))
  [e] = task.load(f'mmlu_pro={tmp_path}').examples('heldout', 1, 0)
  assert e.prompt.endswith('\nC. c')


@pytest.mark.parametrize(
  'bad,words',
  [
    (dict(answer_index=3), "'answer' is C, but 'answer_index' is 3, not 2"),
    (dict(answer_index='2'), "'answer_index' is '2'"),
    (dict(answer='K'), "'answer' is 'K', no letter of A to J"),
    (dict(options=['only one'], answer='A', answer_index=0), '1 choices: 2 to 10'),
    (dict(options=['a', 'b']), 'the right choice is 2, not 0 to 1'),
    (dict(options='abc'), 'the choices are not a list of texts'),
    (dict(options=['a'] * 11), '11 choices'),
    (dict(question_id=1), 'question_id 1 is also in .*line 1'),
    (dict(question=None), "'question' is a null"),
    (
      dict(cot_content='The answer is (D).'),
      "'cot_content' ends with D, 'answer' is C",
    ),
  ],
)
def test_row_of_mmlu_pro_that_is_no_question_names_its_line(tmp_path, bad, words):
  write(tmp_path / 'test.jsonl', harder(1), harder(2, **bad))
  with pytest.raises(UserError, match=f'test.jsonl, line 2: .*{words}') as error:
    task.load(f'mmlu_pro={tmp_path}').examples('heldout', 9, 0)
  assert '\n' not in str(error.value)


def test_folder_without_the_files_of_mmlu_pro_says_which(tmp_path):
  with pytest.raises(UserError, match='write mmlu_pro=FOLDER'):
    task.load('mmlu_pro').examples('heldout', 1, 0)
  with pytest.raises(UserError, match=r'one file test\*.parquet .*found none'):
    task.load(f'mmlu_pro={tmp_path}').examples('heldout', 1, 0)
  for name in ('test-0.jsonl', 'test-1.jsonl'):
    write(tmp_path / name, harder(1))
  with pytest.raises(UserError, match='found .*test-0.jsonl, .*test-1.jsonl'):
    task.load(f'mmlu_pro={tmp_path}').examples('heldout', 1, 0)


def tabbed(path, *rows):
  lines = ['\t'.join(rows[0]), *('\t'.join(map(str, row.values())) for row in rows)]
  path.write_text('\n'.join(lines) + '\n')
  return path


def test_paws_is_read_from_each_form_and_shown_solved(tmp_path):
  rows = [pair(i, i % 2, sentence2='A " quote .') for i in range(4)]
  texts = [pair(i, f'{i % 2}', sentence2='A " quote .') for i in range(4)]
  files = [tabbed(tmp_path / 'test.tsv', *rows), write(tmp_path / 'a.jsonl', *rows)]
  files.append(write(tmp_path / 'b.jsonl', *texts))
  found = [task.load(f'paws={f}').examples('heldout', 9, 0) for f in files]
  prompts = [[(e.prompt, e.answer) for e in one] for one in found]
  assert prompts[0] == prompts[1] == prompts[2] and len(prompts[0]) == 4
  train = write(tmp_path / 'train.jsonl', pair(9, 1), rows[0])
  made = task.load(f'paws={tmp_path},{train}')
  solved = made.examples('train', 5, 0)
  [e] = made.examples('heldout', 1, 0)
  ask = 'Do the two sentences mean the same? Answer Yes or No.\nAnswer:'
  assert made.context(e, solved) == (
    f'Sentence 1: 9 beats A .\nSentence 2: A beats it .\n{ask} Yes\n\n'
    f'Sentence 1: {e.prompt[12]} beats A .\nSentence 2: A " quote .\n{ask}'
  )
  right = [e.answer, f' {e.answer.lower()}.', f'**{e.answer}**, they do.']
  assert [made.score(e, r) for r in right] == [1, 1, 1]
  wrong = ['', 'Nope', 'Yesterday', 'They do: yes or no', 'YesNo']
  assert [made.score(e, r) for r in wrong] == [0] * 5
  means = made.summary(found[0], ['No'] * 4)
  assert means == {'mean of both': 0.5, 'No': 1.0, 'Yes': 0.0}
  assert (made.shots, made.max_new) == (5, 32)


@pytest.mark.parametrize(
  'bad,words',
  [
    (dict(label=2), "'label' is '2', not 0 or 1"),
    (dict(label=''), "'label' is ''"),
    (dict(sentence1=' '), 'a sentence is empty'),
    (dict(id=1), "id '1' is also in .*line 2"),
    (dict(label='1\t0'), '5 cells, not 4 as the first line has'),
  ],
)
def test_line_of_paws_that_is_no_pair_is_named(tmp_path, bad, words):
  tabbed(tmp_path / 'test.tsv', pair(1, 0), pair(2, 1) | bad)
  with pytest.raises(UserError, match=f'test.tsv, line 3: .*{words}'):
    task.load(f'paws={tmp_path}').examples('heldout', 9, 0)


def test_table_without_rows_or_that_is_not_there_is_one_line(tmp_path):
  (tmp_path / 'test.tsv').write_text('id\tsentence1\tsentence2\tlabel\n')
  for name, words in (('test.tsv', 'holds no rows'), ('no.tsv', 'does not exist')):
    with pytest.raises(UserError, match=words):
      task.load(f'paws={tmp_path}/{name}').examples('heldout', 9, 0)


@pytest.mark.parametrize(
  'answer,response,score',
  [
    ('12', 'So 3 * 4 = 12.', 1),
    ('1,200', '#### 1200', 1),
    ('0.25', '#### 1/4', 1),
    (0.5, '#### 0.50', 1),
    ('5/2', 'It is 2.5', 1),
    ('$3', '#### $3.00 each of 2', 1),
    ('12', '#### 13\nor 12', 0),
    ('12', '', 0),
    ('12', 'None', 0),
    ('12', '#### 1/0', 0),
    ('None', '#### None', 1),
    ('None', 'It has 3.\nThe price is not said: none.', 1),
    ('None', '#### 5', 0),
    ('None', '#### None of the 5', 0),
    ('None', 'None is left.\n#### 0', 0),
    ('None', '', 0),
    ('None', 'nonesuch', 0),
  ],
)
def test_number_or_its_absence_is_the_answer_of_gsm_plus(
  tmp_path, answer, response, score
):
  write(tmp_path / 'gsm_plus.jsonl', changed(1, answer))
  made = task.load(f'gsm_plus={tmp_path}')
  [e] = made.examples('heldout', 1, 0)
  assert made.score(e, response) == score
  assert made.score(e, e.worked) == 1 == made.score(e, f'#### {e.answer}')


def test_gsm_plus_is_the_mean_over_kinds_and_none_is_one_of_its_own(tmp_path):
  rows = [changed(1, '4'), changed(2, '4'), changed(3, '4', 'distraction insertion')]
  rows += [changed(4, 'None', 'critical thinking')]
  write(tmp_path / 'gsm_plus.jsonl', *rows)
  made = task.load(f'gsm_plus={tmp_path}')
  found = sorted(made.examples('heldout', 9, 0), key=lambda e: e.prompt)
  assert made.summary(found, ['4', '5', '4', '4']) == {
    'mean over kinds': 0.5,
    'critical thinking (None)': 0.0,
    'digit expansion': 0.5,
    'distraction insertion': 1.0,
  }
  assert (made.shots, made.max_new) == (8, 512)


def test_solved_rows_of_gsm8k_are_not_those_that_are_asked_or_changed(tmp_path):
  test = write(tmp_path / 'a.jsonl', changed(1, '4'), changed(2, '5'))
  said = {'answer': 'It is <<2*2=4>>4.\n#### 4'}
  asked = ['Old 1?', 'New 2?', 'Other?']
  train = write(tmp_path / 'b.jsonl', *[{'question': q} | said for q in asked])
  [e] = task.load(f'gsm_plus={test},{train}').examples('train', 9, 0)
  assert e.prompt == 'Other?' and e.worked == 'It is 4.\n#### 4'


@pytest.mark.parametrize(
  'bad',
  [
    dict(answer='four'),
    dict(answer=''),
    dict(answer=True),
    dict(answer='3 or 4'),
    dict(perturbation_type=' '),
    dict(question=' '),
    dict(answer='1/0'),
  ],
)
def test_row_of_gsm_plus_that_is_no_question_names_its_line(tmp_path, bad):
  file = write(tmp_path / 'a.jsonl', changed(1, '4'), changed(2, '4') | bad)
  with pytest.raises(UserError, match="a.jsonl, line 2: not a question with a 'pert"):
    task.load(f'gsm_plus={file}').examples('heldout', 9, 0)


def test_number_is_the_whole_text():
  assert gsm_plus.value('-1,000.50') == -1000.5
  assert gsm_plus.value('3 apples') is gsm_plus.value('') is None


HELD_OUT = ('bbh', 'bfcl', 'api_bank', 'ifeval', 'mgsm', 'humaneval')


@pytest.mark.parametrize('name', HELD_OUT)
def test_what_is_held_out_as_a_whole_says_so_in_the_same_words(name):
  with pytest.raises(UserError) as error:
    task.load(f'{name}=no_such_29c1').examples('train', 1, 0)
  assert str(error.value) == (
    f'tasks: {name} is held out as a whole: there are no solved examples of it and no '
    'rows to train on: ask it with --config.shots=0, or in a chat'
  )


@pytest.mark.parametrize('name', HELD_OUT[1:])
def test_what_is_held_out_as_a_whole_is_asked_without_solved_examples(name):
  assert task.load(f'{name}=no_such_29c1').shots == 0


def test_bbh_shows_no_more_solved_examples_than_its_files_have():
  made = task.load('bbh=no_such_29c1')
  assert made.solved(task.Example('x', 'y'), made.shots) == []
  with pytest.raises(UserError, match='bbh has 3 solved examples, not 4: .*shots=3'):
    made.solved(task.Example('x', 'y'), 4)


def test_mmlu_after_reasoning_reads_the_letter_that_is_written(tmp_path):
  for part in ('dev', 'test'):
    (tmp_path / part).mkdir()
    (tmp_path / part / f'law_{part}.csv').write_text(f'What of {part}?,a,b,c,d,C\n')
  made = task.load(f'mmlu_cot={tmp_path}')
  [e] = made.examples('heldout', 9, 0)
  assert (
    not e.choices and 'C. c' in made.prompt(e) and 'The answer is (X)' in made.prompt(e)
  )
  assert made.score(e, 'It is c. The answer is (C).') == 1 and made.score(e, 'C') == 0
  found = made.summary([e], ['The answer is (C).'])
  assert found == {'mean over subjects': 1.0, 'law': 1.0}
  with pytest.raises(UserError, match='mmlu_cot is held out as a whole'):
    made.examples('train', 1, 0)
