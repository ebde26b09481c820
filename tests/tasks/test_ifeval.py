"""IFEval: what follows an instruction and what does not, its scores and its files."""

import json

import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.tasks import ifeval
from llama3_jax.tasks import task
from llama3_jax.tasks.instructions import kinds
from llama3_jax.tasks.instructions import wording

ENGLISH = 'The weather was lovely and we went for a long walk by the river'
# (instruction, its fields, responses that follow it, responses that do not)
CASES = (
  (
    *('keywords:existence', {'keywords': ['sun', 'C++']}),
    *(['Sunny c++', 'c++ SUN'], ['sun', 'C+ sun']),
  ),
  (
    *('keywords:frequency', {'keyword': 'war', 'frequency': 2, 'relation': 'at least'}),
    *(['War and wars'], ['one war']),
  ),
  (
    *(
      'keywords:frequency',
      {'keyword': 'a.b', 'frequency': 1, 'relation': 'less than'},
    ),
    *(['axb', 'a b'], ['A.B']),
  ),
  (
    *('keywords:forbidden_words', {'forbidden_words': ['rock', 'C++']}),
    *(['rocks', 'bedrock', 'C+'], ['a ROCK!', 'In c++, yes']),
  ),
  (
    'keywords:letter_frequency',
    {'letter': 'O', 'let_frequency': 2, 'let_relation': 'at least'},
    *(['Oslo', 'foo'], ['to']),
  ),
  (
    'keywords:letter_frequency',
    {'letter': '#', 'let_frequency': 2, 'let_relation': 'less than'},
    *(['# one'], ['## two']),
  ),
  (
    *('language:response_language', {'language': 'de'}),
    *(['Das Wetter ist heute sehr schön, wir gehen spazieren.', '12'], [ENGLISH]),
  ),
  (
    'length_constraints:number_sentences',
    {'num_sentences': 3, 'relation': 'less than'},
    *(['Dr. X came at 5 p.m. today. Good!', 'One'], ['A b. C d! E f?']),
  ),
  (
    *('length_constraints:number_paragraphs', {'num_paragraphs': 2}),
    *(['a\n***\nb', '***a***b***'], ['a\n\nb', 'a***b***c', 'a***   ***b']),
  ),
  (
    'length_constraints:number_words',
    {'num_words': 3, 'relation': 'at least'},
    *(["It's me", 'a-b c', 'हिन्दी एक भाषा'], ['two words', 'हिन्दी भाषा']),
  ),
  (
    'length_constraints:nth_paragraph_first_word',
    {'num_paragraphs': 2, 'nth_paragraph': 2, 'first_word': 'elm'},
    ['a\n\nElm, b', 'a\n\n"elm\'s'],
    ['a\n\noak', 'a\n\nelm\n\nb', 'a\n\n\n\nelm', 'elm'],
  ),
  (
    *('detectable_content:number_placeholders', {'num_placeholders': 2}),
    *(['[a] [b]', '[a][b][c]'], ['[a]', '[a\nb] [c]']),
  ),
  (
    *('detectable_content:postscript', {'postscript_marker': 'P.S.'}),
    *(['Hi\nP.S. x', 'p. s. x'], ['PS: x', 'P.P.S x']),
  ),
  (
    *('detectable_content:postscript', {'postscript_marker': 'P.P.S'}),
    *(['P.P.S x', 'p. p. s. x'], ['P.S. x']),
  ),
  (
    *('detectable_format:number_bullet_lists', {'num_bullets': 2}),
    *(['* a\n  - b', 'x\n*a\n-b\n**c**'], ['- a', '- a\n- b\n- c', '1. a\n2. b']),
  ),
  (
    *('detectable_format:constrained_response', {}),
    *(['My answer is no.', 'So: My answer is maybe. Bye'], ['My answer is no', 'no']),
  ),
  (
    *('detectable_format:number_highlighted_sections', {'num_highlights': 2}),
    *(['*a* and **b**', '*a**b*'], ['*a*', '* *\n** **', '*a\nb* *c*']),
  ),
  (
    'detectable_format:multiple_sections',
    {'section_spliter': 'Section', 'num_sections': 2},
    *(['Section 1\nx\nSection2\ny'], ['SECTION 1 SECTION 2', 'Section 1', 'Section A']),
  ),
  (
    *('detectable_format:json_format', {}),
    *(['{"a": [1]}', '```json\n{}\n```', ' 3 '], ["{'a': 1}", 'Here: {}', '{}\nBye']),
  ),
  (
    *('detectable_format:title', {}),
    *(['x <<My day>>', '<<<a>>>'], ['<My day>', '<< >>', '<<a\nb>>']),
  ),
  (
    *('combination:two_responses', {}),
    *(['a\n******\nb', '******a******b'], ['a******a ', 'a', 'a******b******c']),
  ),
  (
    *('combination:repeat_prompt', {'prompt_to_repeat': 'Write a poem.'}),
    *(['write a poem. Roses'], ['Sure. Write a poem.', 'Write a poem']),
  ),
  (
    *('startend:end_checker', {'end_phrase': 'Any questions?'}),
    *(['Hi. any QUESTIONS?" '], ['Any questions? Bye', 'Any question?']),
  ),
  (
    *('startend:quotation', {}),
    *(['"a" and "b"', ' "" '], ['"', '"a', '“a”']),
  ),
  (
    'change_case:capital_word_frequency',
    {'capital_frequency': 2, 'capital_relation': 'less than'},
    *(["NASA's Mars", 'Only this'], ['I am OK', 'A(B)', "DON'T"]),
  ),
  (
    *('change_case:english_capital', {}),
    *([ENGLISH.upper(), '1. ' + ENGLISH.upper()], [ENGLISH, ENGLISH.upper() + 'x']),
  ),
  (
    *('change_case:english_lowercase', {}),
    [ENGLISH.lower()],
    [ENGLISH, 'das wetter ist heute sehr schön und wir gehen spazieren', '12'],
  ),
  ('punctuation:no_comma', {}, ['a; b'], ['a, b']),
)


def write(path, rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))


def row(*instructions, prompt='Do it.', **more):
  names, fields = zip(*instructions) if instructions else ((), ())
  given = {'key': 1, 'prompt': prompt, 'instruction_id_list': list(names)}
  return given | {'kwargs': list(fields)} | more


def example(*instructions):
  return ifeval.parse(row(*instructions), 'here')


@pytest.mark.parametrize('name,fields,good,bad', CASES)
def test_instruction_tells_what_follows_it(name, fields, good, bad):
  [check] = example((name, fields)).checks
  assert [r for r in good if not kinds.followed(check, r)] == []
  assert [r for r in bad if kinds.followed(check, r)] == []


def test_all_kinds_are_tried_and_there_are_25():
  assert {name for name, *_ in CASES} == set(kinds.KINDS) and len(kinds.KINDS) == 25


@pytest.mark.parametrize('name,fields', [case[:2] for case in CASES])
@pytest.mark.parametrize('response', ['', ' \n'])
def test_empty_response_follows_nothing(name, fields, response):
  [check] = example((name, fields)).checks
  assert not kinds.followed(check, response)
  assert not kinds.followed_loosely(check, response)


@pytest.mark.parametrize(
  'text,count',
  [
    ('', 0),
    ('No end', 1),
    ('Mr. Smith met J. R. Jones at 5 p.m. today.', 1),
    ('He came at 5 p.m. Then he left.', 2),
    ('Wait... what? "No!" he said. (Yes.) Good', 5),
    ('It was 3.5 m. long, e.g. here', 1),
    ('A list:\n1. Apples\n2. Pears', 3),
    ('a line\nand a line', 1),
  ],
)
def test_sentences_end_at_marks_and_not_after_abbreviations(text, count):
  assert wording.count_sentences(text) == count


def test_loose_judges_the_response_also_without_its_ends_and_asterisks():
  quoted = ('startend:quotation', {})
  for said in ('Sure:\n"Hi."', '"Hi."\nBye', 'Sure:\n"Hi."\nBye', '**"Hi."**'):
    found = ifeval.details(example(quoted), said)
    assert found == {'strict': [False], 'loose': [True]}, said
  assert ifeval.details(example(quoted), 'a\nb\n"c"') == {
    'strict': [False],
    'loose': [False],
  }


def test_score_is_of_the_whole_prompt_and_the_summary_has_all_four():
  both = example(('punctuation:no_comma', {}), ('startend:quotation', {}))
  one = example(('startend:quotation', {}))
  assert ifeval.score(both, '"a"') == 1 and ifeval.score(both, '"a, b"') == 0
  found = ifeval.summary([both, one], ['"a, b"', 'Here:\n"c"'])
  assert found == {
    'prompt_strict': 0,
    'instruction_strict': 1 / 3,
    'prompt_loose': 0.5,
    'instruction_loose': 2 / 3,
    'average': pytest.approx(0.375),
  }


def test_a_folder_and_its_file_are_the_same_task_in_an_order_of_the_seed(tmp_path):
  (tmp_path / 'ifeval').mkdir()
  file = tmp_path / 'ifeval/input_data.jsonl'
  rows = [row(('en:punctuation:no_comma', {}), prompt=f'Say {i}') for i in range(9)]
  write(file, rows)
  asked = [task.load(f'ifeval={p}') for p in (tmp_path, file.parent, file)]
  folder, *others = [one.examples('heldout', 5, 0) for one in asked]
  prompts = [e.prompt for e in folder]
  assert all(prompts == [e.prompt for e in other] for other in others)
  assert prompts != [e.prompt for e in asked[0].examples('heldout', 5, 1)]
  assert folder[0].checks == (('punctuation:no_comma', {}),)
  assert asked[0].score(folder[0], 'yes') == 1


def test_nothing_of_it_is_for_training(tmp_path):
  write(tmp_path / 'input_data.jsonl', [row(('punctuation:no_comma', {}))])
  with pytest.raises(UserError, match='held out as a whole'):
    task.load(f'ifeval={tmp_path}').examples('train', 1, 0)


@pytest.mark.parametrize(
  'bad,words',
  [
    (row(('punctuation:no_coma', {})), "'punctuation:no_comma'"),
    (row((7, {})), 'instruction 7 is unknown'),
    (row(('keywords:existence', {})), "needs 'keywords'"),
    (row(('keywords:existence', {'keywords': None})), "needs 'keywords'"),
    (row(('keywords:existence', {'keywords': 'sun'})), "'sun', not a list"),
    (row(('startend:quotation', {'num_words': 3})), "takes nothing, not 'num_words'"),
    (
      row(
        ('length_constraints:number_words', {'num_words': 3, 'relation': 'more than'})
      ),
      "'more than', not 'less than' or 'at least'",
    ),
    (row(('detectable_format:number_bullet_lists', {'num_bullets': -1})), 'is -1'),
    (row(('startend:quotation', 'x')), 'kwargs of startend:quotation'),
    (row(), 'instruction_id_list is not a list'),
    (row(('startend:quotation', {}), kwargs=[{}, {}]), '1 instructions, but 2 kwargs'),
    (row(('startend:quotation', {}), prompt=3), "'prompt' is a number"),
    ({'prompts': 'x'}, "is it 'prompt'"),
    (row(('startend:quotation', {}), prompt='again'), 'its prompt is that of'),
  ],
)
def test_row_that_cannot_be_checked_is_one_line(tmp_path, bad, words):
  file = tmp_path / 'input_data.jsonl'
  write(file, [row(('punctuation:no_comma', {}), prompt='again'), bad])
  with pytest.raises(UserError, match=f'{file}, line 2') as error:
    task.load(f'ifeval={file}').examples('heldout', 1, 0)
  assert words in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('source,words', [('', 'needs its folder'), ('.', 'no file')])
def test_without_a_file_it_says_which_one_it_reads(tmp_path, source, words):
  source = source and str(tmp_path)
  with pytest.raises(UserError, match=words):
    task.load(f'ifeval={source}').examples('heldout', 1, 0)


def test_the_published_prompts_are_read(assets):
  if not (assets / 'ifeval').is_dir():
    pytest.skip('no IFEval beside the repository')
  found = task.load(f'ifeval={assets}').examples('heldout', 1000, 0)
  assert len(found) == 270 and len({e.prompt for e in found}) == 270
  assert {name for e in found for name, _ in e.checks} == set(kinds.KINDS)
