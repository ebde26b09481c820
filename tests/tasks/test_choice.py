"""Benchmarks of choices: both forms of their files, their prompts, their errors."""

import csv
import json
import zipfile

import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.tasks import mmlu
from llama3_jax.tasks import task

LABELLED = {'text': ['Rock', 'Air'], 'label': ['1', '2']}
# task: (published row, row of {query, choices, gold}, text for a base model, choices,
# answer)
FORMS = {
  'arc': (
    {'id': 'x', 'question': 'Hard?', 'choices': LABELLED, 'answerKey': '1'},
    {'query': 'Question: Hard?', 'choices': ['Rock', 'Air'], 'gold': 0},
    *('Question: Hard?\nAnswer:', ('Rock', 'Air'), 'Rock'),
  ),
  'arc_letters': (
    {'question': 'Hard?', 'choices': LABELLED, 'answerKey': '2'},
    {'query': 'Question: Hard?', 'choices': ['Rock', 'Air'], 'gold': 1},
    *('Question: Hard?\nA. Rock\nB. Air\nAnswer:', ('A', 'B'), 'B'),
  ),
  'piqa': (
    {'goal': 'Open it', 'sol1': 'Push.', 'sol2': 'Eat.', 'label': 1},
    {'query': 'Question: Open it\n', 'choices': ['Push.', 'Eat.'], 'gold': 1},
    *('Question: Open it\nAnswer:', ('Push.', 'Eat.'), 'Eat.'),
  ),
  'boolq': (
    {'passage': 'Ice is cold.', 'question': 'is ice cold', 'answer': True},
    {
      'query': 'Passage: Ice is cold.\nQuestion: is ice cold?',
      **{'choices': ['no', 'yes'], 'gold': 1},
    },
    *('Ice is cold.\nQuestion: is ice cold?\nAnswer:', ('no', 'yes'), 'yes'),
  ),
  'openbookqa': (
    {'question_stem': 'Wet is', 'choices': LABELLED, 'answerKey': '2'},
    {'query': 'Wet is', 'choices': ['Rock', 'Air'], 'gold': 1},
    *('Wet is', ('Rock', 'Air'), 'Air'),
  ),
  'copa': (
    {
      **{'premise': 'It rained.', 'question': 'effect', 'label': 0},
      **{'choice1': 'I got wet.', 'choice2': 'We sang.'},
    },
    {'query': 'It rained therefore', 'choices': ['i got wet.', 'we sang.'], 'gold': 0},
    *('It rained therefore', ('i got wet.', 'we sang.'), 'i got wet.'),
  ),
  'hellaswag': (
    {
      **{'activity_label': 'Cook', 'ctx_a': 'Take it. [title] Cut.', 'ctx_b': 'she'},
      **{'endings': ['[step] eats', 'runs'], 'label': '1'},
    },
    {'query': 'Cook: Take it.. Cut. She', 'choices': [' eats', 'runs'], 'gold': 1},
    *('Cook: Take it.. Cut. She', ('eats', 'runs'), 'runs'),
  ),
  'winogrande': (
    {
      'sentence': 'The old dog saw Ann but _ ran away.',
      **{'option1': 'Ann Lee', 'option2': 'Bob', 'answer': '2'},
    },
    {
      'context_options': ['The old dog saw Ann but ' + w for w in ('Ann Lee', 'Bob')],
      **{'continuation': 'ran away.', 'gold': 1},
    },
    *('The old dog saw Ann but', ('Ann Lee', 'Bob'), 'Bob'),
  ),
}


def write(path, *rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return path


def load(name, file):
  return task.load(f'{name}={file}')


@pytest.mark.parametrize('name', FORMS)
def test_both_forms_of_a_file_are_the_same_question(tmp_path, name):
  published, plain, text, choices, answer = FORMS[name]
  for i, row in enumerate((published, plain)):
    made = load(name, write(tmp_path / f'{i}.jsonl', row))
    [e] = made.examples('heldout', 9, 0)
    assert made.context(e, []) == text and (e.choices, e.answer) == (choices, answer)
    assert made.score(e, answer) == 1 and made.score(e, choices[0]) == (
      choices[0] == answer
    )
    assert all(c in made.prompt(e) for c in choices)  # a chat is shown what there is


def test_solved_examples_come_before_with_an_empty_line_between(tmp_path):
  shot, asked = (
    {'query': q, 'choices': ['a', 'b'], 'gold': 1} for q in ('One?', 'Two?')
  )
  test = write(tmp_path / 'test.jsonl', asked)
  made = load('arc', f'{test},{write(tmp_path / "train.jsonl", shot, asked)}')
  solved = made.examples('train', 9, 0)
  assert [e.prompt for e in solved] == ['One?']  # none that is asked
  [e] = made.examples('heldout', 9, 0)
  text = 'Question: One?\nAnswer: b\n\nQuestion: Two?\nAnswer:'
  assert made.context(e, solved) == text


def test_blank_of_winogrande_is_filled_and_the_rest_compared(tmp_path):
  published, *_ = FORMS['winogrande']
  made = load('winogrande', write(tmp_path / 'a.jsonl', published))
  [e] = made.examples('heldout', 1, 0)
  assert made.suffix(e) == 'ran away.'
  assert made.context(e, [e]) == (
    'The old dog saw Ann but Bob ran away.\n\nThe old dog saw Ann but'
  )
  assert made.prompt(e).startswith('The old dog saw Ann but _ ran away.\n')


@pytest.mark.parametrize('words', [('dog', 'dog house'), ('dog house', 'dog')])
def test_word_that_begins_the_other_is_not_left_empty(tmp_path, words):
  both = [f'He saw the {word}' for word in words]
  row = {'context_options': both, 'continuation': 'move.', 'gold': 0}
  [e] = load('winogrande', write(tmp_path / 'a.jsonl', row)).examples('heldout', 1, 0)
  assert e.choices == words and e.prompt == 'He saw the'


def test_folder_stands_for_its_file_and_the_seed_for_the_order(tmp_path):
  rows = [{'query': f'{i}', 'choices': ['a', 'b'], 'gold': 0} for i in range(9)]
  (tmp_path / 'eval_sets').mkdir()
  file = write(tmp_path / 'eval_sets/copa.jsonl', *rows)
  folder, own = load('copa', tmp_path), load('copa', file)
  prompts = [[e.prompt for e in t.examples('heldout', 5, 0)] for t in (folder, own)]
  assert prompts[0] == prompts[1] and len(prompts[0]) == 5
  assert prompts[0] != [e.prompt for e in own.examples('heldout', 5, 1)]


@pytest.mark.parametrize(
  'name,change,words',
  [
    ('copa', {'gold': 2}, 'right choice is 2, not 0 to 1'),
    ('copa', {'gold': True}, 'right choice is True'),
    ('copa', {'choices': ['a']}, '1 choices'),
    ('copa', {'choices': ['a', ' ']}, 'not a list of texts'),
    ('copa', {'query': 3}, "'query' is a number"),
    ('copa', {'querry': 'x', 'query': None}, "'query' is a null"),
    ('winogrande', {'context_options': ['a b']}, 'not a list of two texts'),
    ('winogrande', {'context_options': ['a _ b', 'a _ c']}, 'a blank'),
    ('winogrande', {'continuation': None}, "'continuation' is a null"),
    ('winogrande', {'gold': 3}, "'gold' is '3', none of 0, 1"),
  ],
)
def test_plain_row_that_is_no_question_is_one_line(tmp_path, name, change, words):
  one_line(tmp_path, name, FORMS[name][1] | change, words)


@pytest.mark.parametrize(
  'name,change,words',
  [
    ('arc', {'answerKey': 'C'}, "'answerKey' is 'C', none of 1, 2"),
    ('arc', {'choices': ['a', 'b']}, '{"text": [...], "label": [...]}'),
    ('arc', {'question': None}, "'question' is a null"),
    ('piqa', {'label': 2}, "'label' is '2', none of 0, 1"),
    ('piqa', {'sol2': None}, "'sol2' is a null"),
    ('boolq', {'answer': 'yes'}, "'yes', not true or false"),
    ('copa', {'question': 'why'}, "'why', none of cause, effect"),
    ('hellaswag', {'endings': 'x'}, 'endings is not a list'),
    ('hellaswag', {'label': ''}, "'label' is ''"),
    ('winogrande', {'sentence': 'No blank.'}, 'not one blank'),
    ('winogrande', {'answer': ''}, "'answer' is ''"),
  ],
)
def test_published_row_that_is_no_question_is_one_line(tmp_path, name, change, words):
  one_line(tmp_path, name, FORMS[name][0] | change, words)


def one_line(tmp_path, name, row, words):
  first = {k: v for k, v in FORMS[name][0].items() if k != 'id'}
  file = write(tmp_path / 'a.jsonl', first, row)
  with pytest.raises(UserError, match=f'{file}, line 2') as error:
    load(name, file).examples('heldout', 9, 0)
  assert words in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('name', FORMS)
def test_without_a_file_or_solved_rows_it_says_what_to_write(tmp_path, name):
  for source, words in (('', "write '=FILE'"), (tmp_path, 'no file')):
    with pytest.raises(UserError, match=words):
      load(name, source).examples('heldout', 1, 0)
  file = write(tmp_path / 'a.jsonl', FORMS[name][0])
  with pytest.raises(UserError, match='TEST,TRAIN'):
    load(name, file).examples('train', 1, 0)


@pytest.fixture
def subjects(tmp_path):
  for part, count in (('dev', 6), ('test', 4)):
    (tmp_path / 'data' / part).mkdir(parents=True)
    for name in ('anatomy', 'world_religions'):
      with open(tmp_path / f'data/{part}/{name}_{part}.csv', 'w', newline='') as file:
        for i in range(count):
          csv.writer(file).writerow([f'{part} {name}, {i}?', *'wxyz', 'ABCD'[i % 4]])
  return tmp_path


def test_mmlu_shows_solved_questions_of_the_same_subject(subjects):
  made = task.load(f'mmlu={subjects}')
  asked = made.examples('heldout', 100, 0)
  assert len(asked) == 8
  # Any beginning has as many questions of each subject.
  assert [{e.checks for e in asked[i : i + 2]} for i in (0, 2)] == [
    {('anatomy',), ('world_religions',)}
  ] * 2
  assert all(s.checks == e.checks for e in asked for s in made.solved(e, 5))
  e = next(e for e in asked if e.checks == ('world_religions',))
  text = made.context(e, made.solved(e, 5))
  assert text.startswith(
    'The following are multiple choice questions (with answers) about world religions.'
    '\n\ndev world_religions, 0?\nA. w\nB. x\nC. y\nD. z\nAnswer: A\n\ndev '
  )
  assert text.count('Answer: ') == 5 and 'anatomy' not in text
  assert text.endswith(f'\n\n{e.prompt}\nAnswer:') and e.choices == tuple('ABCD')


def test_mmlu_is_the_mean_over_subjects(subjects):
  asked = task.load(f'mmlu={subjects}').examples('heldout', 3, 0)
  said = [e.answer if e.checks == ('anatomy',) else 'no' for e in asked]
  found = mmlu.summary(asked, said)
  assert found == {'mean over subjects': 0.5, 'anatomy': 1, 'world_religions': 0}


def test_mmlu_in_a_zip_is_that_in_a_folder_and_a_subject_is_alone(subjects, tmp_path):
  file = tmp_path / 'all.zip'
  with zipfile.ZipFile(file, 'w') as packed:
    for path in sorted(subjects.rglob('*.csv')):
      packed.write(path, path.relative_to(subjects))
  found = [mmlu.read(str(p), 'test') for p in (file, subjects / 'data')]
  assert found[0] == found[1] and list(found[0]) == ['anatomy', 'world_religions']
  [one] = mmlu.read(str(file), 'test', 'anatomy')
  assert one == 'anatomy'
  with pytest.raises(UserError, match='no file test/chess_test.csv'):
    mmlu.read(str(file), 'test', 'chess')


@pytest.mark.parametrize('cells', [['Q', *'wxy', 'A'], ['Q', *'wxyz', 'E'], ['Q']])
def test_line_of_mmlu_that_is_no_question_is_named(subjects, cells):
  file = subjects / 'data/test/anatomy_test.csv'
  with open(file, 'a', newline='') as open_file:
    csv.writer(open_file).writerow(cells)
  with pytest.raises(UserError, match=f'{file}, line 5: not a question'):
    task.load(f'mmlu={subjects}').examples('heldout', 1, 0)


def test_the_published_sets_are_read_whole(assets):
  counts = dict(arc=2376, piqa=1838, boolq=3270, openbookqa=500, winogrande=1267)
  if not (assets / 'eval_sets').is_dir() or not (assets / 'mmlu').is_dir():
    pytest.skip('no benchmarks beside the repository')
  for name, count in counts.items():
    assert len(load(name, assets).examples('heldout', 9999, 0)) == count, name
  found = load('mmlu', assets / 'mmlu').examples('heldout', 99999, 0)
  assert len(found) == 12289 and len({e.checks for e in found}) == 48


def test_id_that_is_there_twice_is_named_with_both_lines(tmp_path):
  row = FORMS['arc'][0]
  file = write(tmp_path / 'a.jsonl', row, row | {'id': 'y'}, row)
  with pytest.raises(UserError, match=f'line 3: id .x. is also in {file}, line 1'):
    load('arc', file).examples('heldout', 9, 0)
