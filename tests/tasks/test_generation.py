"""Benchmarks that are answered by writing: forms of files, scores, errors."""

import json

import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.tasks import matching
from llama3_jax.tasks import mgsm
from llama3_jax.tasks import squad
from llama3_jax.tasks import task

# task: (published row, row of the other form, page, right responses, wrong ones)
FORMS = {
  'triviaqa': (
    {
      'question_id': 'q',
      'question': 'Who sang it?',
      'answer': {'value': 'The Band', 'aliases': ['Bands (group)']},
    },
    {
      'context': 'Question: Who sang it?\nAnswer:',
      **{'answer': 'The Band', 'aliases': ['Bands (group)']},
    },
    'Question: Who sang it?\nAnswer:',
    ('band', 'The band.', ' bands group '),
    ('', 'the', 'a band of men', 'bandgroup'),
  ),
  'svamp': (
    {
      **{
        'ID': 'chal-1',
        'Body': 'Ann has 8 pens.',
        'Question': 'How many are 3 fewer?',
      },
      **{'Equation': '( 8.0 - 3.0 )', 'Answer': 5.0},
    },
    {
      'context': 'Ann has 8 pens. How many are 3 fewer?',
      **{'chain_of_thought': '( 8.0 - 3.0 )', 'answer': '5'},
    },
    'Q: Ann has 8 pens. How many are 3 fewer?\nA:',
    ('5', '8 - 3 = 5.0', 'so 5 pens', '#### 5\n or 6'),
    ('', 'five', '5 or 6', '50'),
  ),
  'lambada': (
    {'text': 'He saw the old dog'},
    {'context': 'He saw the old', 'continuation': 'dog'},
    'He saw the old',
    ('dog',),
    ('', 'cat'),
  ),
  'math': (
    {'problem': 'What is $1/2$?', 'solution': r'It is $\boxed{\frac12}$.', 'type': 'A'},
    {
      **{'context': 'What is $1/2$?', 'answer': r'\frac12', 'category': 'A'},
      'chain_of_thought': r'It is $\boxed{\frac12}$.',
    },
    'Problem: What is $1/2$?\nSolution:',
    (r'$\boxed{0.5}$', r'\boxed{3}, no: \boxed{\dfrac{1}{2}}', 'The answer is $1/2$.'),
    ('', r'\boxed{2}', r'1/2 is not \boxed{\frac{1}{3}}', r'\boxed{\frac{1}{2}'),
  ),
}


def write(path, *rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return path


def load(name, source):
  return task.load(f'{name}={source}')


@pytest.mark.parametrize('name', FORMS)
def test_both_forms_of_a_file_are_the_same_question(tmp_path, name):
  published, other, page, right, wrong = FORMS[name]
  for i, row in enumerate((published, other)):
    made = load(name, write(tmp_path / f'{i}.jsonl', row))
    [e] = made.examples('heldout', 9, 0)
    text = made.context(e, []) if made.context else made.page(e)
    assert text == page and e.prompt in made.prompt(e)
    assert [made.score(e, r) for r in (*right, e.answer)] == [1.0] * (len(right) + 1)
    assert [made.score(e, r) for r in wrong] == [0.0] * len(wrong)
    assert made.score(e, e.worked or e.answer) == 1


def test_solved_rows_are_of_the_second_file_and_none_is_asked(tmp_path):
  rows = [FORMS['svamp'][1] | {'context': f'{i}?'} for i in range(6)]
  test, train = (
    write(tmp_path / n, *r) for n, r in (('a.jsonl', rows[:3]), ('b.jsonl', rows[2:]))
  )
  made = load('svamp', f'{test},{train}')
  assert {e.prompt for e in made.examples('heldout', 9, 0)} == {'0?', '1?', '2?'}
  assert {e.prompt for e in made.examples('train', 9, 0)} == {'3?', '4?', '5?'}
  with pytest.raises(UserError, match='names no file of solved rows'):
    load('svamp', test).examples('train', 1, 0)


@pytest.mark.parametrize(
  'name,change,words',
  [
    ('triviaqa', {'answer': 3}, "'answer' is a number"),
    ('triviaqa', {'answer': {'aliases': []}}, "'value' is missing"),
    ('triviaqa', {'answer': {'value': 'x', 'aliases': 'y'}}, 'not a list of texts'),
    ('triviaqa', {'answer': {'value': '?!'}}, 'is empty'),
    ('svamp', {'Answer': 'five'}, "'Answer' has no number"),
    ('svamp', {'Answer': [5]}, "'Answer' has no number"),
    ('svamp', {'Question': None}, "'Question' is a null"),
    ('lambada', {'text': 'alone'}, 'no passage with a last word'),
    ('math', {'solution': 'It is 2.'}, 'no answer'),
    ('math', {'problem': 5}, "'problem' is a number"),
  ],
)
def test_row_that_is_no_question_is_one_line_with_its_number(
  tmp_path, name, change, words
):
  first = FORMS[name][1]
  file = write(tmp_path / 'a.jsonl', first, FORMS[name][0] | change)
  with pytest.raises(UserError, match=f'{file}, line 2') as error:
    load(name, file).examples('heldout', 9, 0)
  assert words in str(error.value) and '\n' not in str(error.value)


def test_repeated_id_is_named_and_a_repeated_question_left_out(tmp_path, caplog):
  row = FORMS['triviaqa'][0]
  file = write(tmp_path / 'a.jsonl', row, row)
  with pytest.raises(UserError, match="line 2: question_id 'q' is also in .*line 1"):
    load('triviaqa', file).examples('heldout', 9, 0)
  file = write(tmp_path / 'b.jsonl', row, row | {'question_id': 'r'})
  assert len(load('triviaqa', file).examples('heldout', 9, 0)) == 1
  (tmp_path / 'c.jsonl').write_text('')
  with pytest.raises(UserError, match='c.jsonl holds no rows'):
    load('triviaqa', tmp_path / 'c.jsonl').examples('heldout', 9, 0)


def test_f1_counts_shared_words():
  assert matching.f1('the cat sat', 'a cat') == pytest.approx(2 / 3)
  assert matching.f1('cat cat', 'cat') == pytest.approx(2 / 3)
  assert matching.f1('', 'the') == 0 and matching.f1('', '') == 1
  assert matching.f1('dog', 'cat') == 0
  assert matching.normal("It's An  Apple-pie!") == 'its applepie'
  assert matching.normal('Apple-pie', ' ') == 'apple pie'


def answered(*texts):
  return [{'text': t, 'answer_start': 0} for t in texts]


def test_squad_shows_the_questions_of_the_passage_that_were_before(tmp_path):
  asked = [
    {'id': '1', 'question': 'Who?', 'answers': answered('Ann', 'Ann Lee')},
    {'id': '2', 'question': 'Why?', 'answers': [], 'is_impossible': True},
    {'id': '3', 'question': 'When?', 'answers': answered('in May')},
  ]
  whole = {'data': [{'paragraphs': [{'context': 'Ann came.', 'qas': asked}]}]}
  made = load('squad', write(tmp_path / 'dev-v2.0.json', whole))
  found = {e.prompt: e for e in made.examples('heldout', 9, 0)}
  last = found['Ann came.\n\nWhen?']
  assert made.context(last, []) == (
    'Text: Ann came.\nQuestion: Who?\nAnswer: Ann\nQuestion: Why?\nAnswer: no answer\n'
    'Question: When?\nAnswer:'
  )
  none = found['Ann came.\n\nWhy?']
  assert [made.score(none, r) for r in ('No answer.', '', 'Ann')] == [1, 1, 0]
  again = {e.prompt: e for e in made.examples('heldout', 9, 0)}
  assert again == found  # nothing of one reading is left to the next
  both = made.summary([last, none], ['May', ''])
  assert both['with an answer, f1'] == pytest.approx(2 / 3)
  assert both['without an answer, exact'] == 1 and both['f1'] == pytest.approx(5 / 6)
  rows = [
    {'id': i, 'context': 'Ann came.', 'question': q, 'answers': {'text': a}}
    for i, q, a in (('1', 'Who?', ['Ann', 'Ann Lee']), ('2', 'Why?', []))
  ]
  flat = load('squad', write(tmp_path / 'flat.jsonl', *rows))
  kept = {e.prompt: e for e in flat.examples('heldout', 9, 0)}
  assert all(squad.page(kept[p]) == squad.page(found[p]) for p in kept)
  asked[1]['id'] = '1'
  with pytest.raises(UserError, match="line 1: id '1' is there twice"):
    load('squad', write(tmp_path / 'twice.json', whole)).examples('heldout', 9, 0)


def test_bbh_has_the_solved_examples_of_its_task_and_takes_the_last_answer(tmp_path):
  (tmp_path / 'bbh').mkdir()
  (tmp_path / 'cot-prompts').mkdir()
  for name in ('sums', 'words'):
    rows = [{'input': f'{name} {i}?', 'target': '(A)'} for i in range(3)]
    (tmp_path / f'bbh/{name}.json').write_text(json.dumps({'examples': rows}))
    text = f'NOTICE\n-----\nOf {name}.\n\nQ: one\nA: So the answer is (B).\n'
    (tmp_path / f'cot-prompts/{name}.txt').write_text(text)
  made = load('bbh', tmp_path)
  every = made.examples('heldout', 4, 0)
  assert [e.checks[0] for e in every] == ['sums', 'words', 'sums', 'words']
  assert made.context(every[1], []) == (
    'Of words.\n\nQ: one\nA: So the answer is (B).\n\n'
    f"Q: {every[1].prompt}\nA: Let's think step by step."
  )
  responses = [
    'So the answer is (A).',
    'the answer is (B). No: The answer is (B)',
    '(A)',
  ]
  assert [made.score(every[0], r) for r in responses] == [1, 0, 0]
  means = made.summary(every[:2], responses[:2])
  assert means == {'mean over tasks': 0.5, 'sums': 1.0, 'words': 0.0}
  assert len(load('bbh', f'{tmp_path},sums').examples('heldout', 9, 0)) == 3
  (tmp_path / 'bbh/sums.json').write_text('{"examples": [{"input": "x"}]}')
  with pytest.raises(UserError, match="sums.json, example 1: field 'target'"):
    load('bbh', tmp_path / 'bbh').examples('heldout', 9, 0)


@pytest.mark.parametrize(
  'language,text,number',
  [
    ('en', 'It is $1,080.50.', '1080.5'),
    ('de', 'Das sind 70.000 Dollar.', '70000'),
    ('de', 'Das sind 2,50 Euro', '2.5'),
    ('de', 'Es sind 1,000.', '1000'),  # written as in English
    ('fr', 'Soit 80\u202f000 $', '80000'),
    ('fr', 'Il reste 80 000', '80000'),
    ('es', 'Son 1.234,5', '1234.5'),
    ('en', 'of 3 200', '200'),  # no separator there
    ('th', 'คำตอบคือ ๑๒๓', '123'),
    ('bn', 'উত্তর ৪২', '42'),
    ('ja', '答えは１８です', '18'),
    ('de', '#### 12 oder 13', '12'),
  ],
)
def test_number_is_read_as_the_language_writes_it(language, text, number):
  assert mgsm.number(text, language) == number


def test_mgsm_asks_in_the_language_and_means_over_languages(tmp_path):
  for name, asked in (('de', 'Wie viele?'), ('en', 'How many?')):
    lines = ''.join(f'{asked} {i}\t{i}\n' for i in range(3))
    (tmp_path / f'mgsm_{name}.tsv').write_text(lines)
  made = load('mgsm', tmp_path)
  every = made.examples('heldout', 4, 0)
  assert [e.checks[0] for e in every] == ['de', 'en', 'de', 'en']
  assert made.prompt(every[0]).endswith(mgsm.ASK['de'])
  responses = [every[0].answer, 'none', every[2].answer, every[3].answer]
  means = made.summary(every, responses)
  assert means == {'mean over languages': 0.75, 'de': 1.0, 'en': 0.5}
  assert all(
    e.checks == ('en',)
    for e in load('mgsm', f'{tmp_path},en').examples('heldout', 9, 0)
  )
  with pytest.raises(UserError, match='no mgsm_fr.tsv .*found mgsm_de.tsv'):
    load('mgsm', f'{tmp_path},fr').examples('heldout', 9, 0)
  (tmp_path / 'mgsm_sw.tsv').write_text('One?\t1\nTwo?\n')
  with pytest.raises(UserError, match='mgsm_sw.tsv, line 2: not a question'):
    load('mgsm', f'{tmp_path},sw').examples('heldout', 9, 0)


def test_translation_is_measured_by_sacrebleu(tmp_path):
  pytest.importorskip('sacrebleu', reason='the extra translation is not installed')
  for name in ('deu_Latn', 'eng_Latn'):
    lines = [f'{name} says that {i} small boats came home.' for i in range(20)]
    (tmp_path / f'{name}.dev').write_text('\n'.join(lines) + '\n')
  made = load('flores', f'{tmp_path},deu_Latn,eng_Latn')
  every = made.examples('heldout', 99, 0)
  assert len(every) == 18 and len(made.examples('train', 99, 0)) == 2
  assert 'from German to English' in made.prompt(every[0])
  right = [e.answer for e in every]
  best = {'chrF': 1.0, 'chrF ci': 0, 'BLEU': 1.0, 'BLEU ci': 0}
  assert made.summary(every, right) == pytest.approx(best, abs=1e-6)
  half = [t if i % 2 else 'No.' for i, t in enumerate(right)]
  found = made.summary(every, half)
  assert found == made.summary(every, half)
  assert found['chrF'] < 1 and found['chrF ci'] > 0.05 and found['BLEU ci'] > 0.05
  assert made.score(every[0], right[0]) == 1 > made.score(every[0], right[1]) > 0
  assert made.summary(every, ['x'] * 18)['BLEU'] < 0.01
  (tmp_path / 'fra_Latn.dev').write_text('un\n\ntrois\n')
  with pytest.raises(UserError, match='fra_Latn.dev, line 2: is empty'):
    load('flores', f'{tmp_path},fra_Latn,eng_Latn')


# Files as they are published; each answer is right by its own score.
@pytest.mark.parametrize(
  'source,count',
  [
    ('svamp={}', 300),
    ('triviaqa={}', 3000),
    ('math={}', 2500),
    ('mgsm={}', 1250),
    ('lambada={}', 5151),  # two of its passages are there twice
    ('key_value={}/long_context/kv_75.jsonl.gz', 500),
  ],
)
def test_published_files_are_read_and_their_own_answers_right(assets, source, count):
  made = task.load(source.format(assets))
  every = made.examples('heldout', 10**6, 0)
  assert len(every) == count == len({e.prompt for e in every})
  assert all(made.score(e, e.worked or e.answer) == 1 for e in every)
  assert all(made.score(e, e.answer) == 1 for e in every)


def test_base_models_are_shown_as_many_examples_as_in_the_paper(tmp_path):
  """Section 5.1 and the protocol that its authors published."""
  shots = dict(mmlu=5, arc_letters=25, winogrande=5, piqa=0, boolq=0, openbookqa=0)
  shots |= dict(gsm8k=8, mbpp=3, humaneval=0, triviaqa=5, squad=1, math=4, bbh=3)
  shots |= dict(mgsm=0, lambada=0, key_value=0, many_shot=0, copy=4)
  sources = dict.fromkeys(('key_value', 'many_shot'), '')
  for name, count in shots.items():
    assert load(name, sources.get(name, tmp_path)).shots == count, name


def test_translations_that_share_nothing_have_an_interval_too():
  pytest.importorskip('sacrebleu', reason='the extra translation is not installed')
  from llama3_jax.tasks import flores

  due = ('der Hund', 'die Katze', 'ein Haus')
  examples = [task.Example('x', text, checks=('eng_Latn', 'deu_Latn')) for text in due]
  found = flores.summary(examples, ['foo bar', 'die Katze', ''])
  assert 0 < found['chrF'] < 1 and 0 < found['chrF ci'] < 1
