"""Tasks of long contexts: generated alike from a seed, with their facts in them."""

import json

import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.tasks import needle
from llama3_jax.tasks import task


@pytest.fixture(scope='module')
def hay(tmp_path_factory):
  file = tmp_path_factory.mktemp('hay') / 'hay.jsonl'
  lines = ' '.join(f'The harbour of town number {i} was grey.' for i in range(300))
  file.write_text(json.dumps({'text': lines}) + '\n')
  return file


def test_multi_needle_hides_four_facts_in_texts_of_its_lengths(hay):
  made = task.load(f'multi_needle={hay},1000,4000')
  every = made.examples('heldout', 6, 0)
  lengths = [len(made.page(e)) for e in every]
  for length, wanted in zip(lengths, [1000, 4000] * 3):
    assert wanted - 60 < length <= wanted
  for e in every:
    assert e.prompt.count(needle.fact('', '')[:9]) == 4
    assert all(f'Remember: {part}.' in e.prompt for part in e.answer.split(', '))
  assert every == made.examples('heldout', 6, 0) != made.examples('heldout', 6, 1)
  assert not {e.prompt for e in every} & {
    e.prompt for e in made.examples('train', 6, 0)
  }


def test_multi_needle_scores_the_share_that_is_found(hay):
  made = task.load(f'multi_needle={hay},1000,4000')
  short, long = made.examples('heldout', 2, 0)
  one, two = short.checks[1]
  responses = [f'{two.upper()} and {one}.', f'{one}', f'{one}s', 'none']
  assert [made.score(short, r) for r in responses] == [1, 0.5, 0, 0]
  found = made.summary([short, long], [short.answer, ''])
  assert found == {'at 1,000': 1.0, 'at 4,000': 0.0}


def test_single_needle_stands_at_every_depth_of_every_length(hay):
  made = task.load(f'single_needle={hay},1000,4000')
  every = made.examples('heldout', 22, 0)
  assert sorted(map(made.cell, every)) == [
    (length, i / 10) for length in (1000, 4000) for i in range(11)
  ]
  for e in every:
    length, depth = made.cell(e)
    text = made.page(e)
    assert length - 160 < len(text) <= length
    place = text.index(f'Remember: {e.answer}.') / (len(text) - 100)
    assert place == pytest.approx(depth, abs=0.12)
    assert made.score(e, f'It is {e.answer}.') == 1 and made.score(e, 'it is') == 0
  assert made.summary(every[:2], [every[0].answer, '']) == {
    'at 1,000': 1,
    'at 4,000': 0,
  }
  with pytest.raises(UserError, match='write single_needle=DOCUMENTS'):
    task.load('single_needle')


def test_key_value_asks_for_a_pair_of_the_object():
  made = task.load('key_value=20')
  every = made.examples('heldout', 5, 0)
  for e in every:
    text, _, key = e.prompt.removesuffix('"').rpartition('\n\nKey: "')
    pairs = json.loads(text.partition('\n')[2])
    assert len(pairs) == 20 and pairs[key] == e.answer
    assert made.score(e, f'"{e.answer}",') == 1 and made.score(e, key) == 0
    fifth = list(pairs).index(key) // 4
    name = ('first', 'second', 'third', 'fourth', 'last')[fifth]
    assert made.summary([e], [e.answer]) == {f'{name} fifth': 1.0}
  assert every == made.examples('heldout', 5, 0) != made.examples('heldout', 5, 1)


@pytest.mark.parametrize(
  'change,words',
  [
    ({'ordered_kv_records': [['a']]}, 'no list of pairs'),
    ({'key': 'c'}, "the key 'c' is 0 times there"),
    ({'value': '3'}, 'the value is not the one of the key'),
  ],
)
def test_row_of_key_value_that_is_no_question_is_one_line(tmp_path, change, words):
  row = {'ordered_kv_records': [['a', '1'], ['b', '2']], 'key': 'a', 'value': '1'}
  file = tmp_path / 'a.jsonl'
  file.write_text(json.dumps(row) + '\n' + json.dumps(row | change) + '\n')
  with pytest.raises(UserError, match=f'{file}, line 2: .*{words}'):
    task.load(f'key_value={file}').examples('heldout', 9, 0)


def test_many_shot_shows_the_label_of_what_it_asks():
  made = task.load('many_shot=40')
  for e in made.examples('heldout', 5, 0):
    *shown, asked = e.prompt.split('\n')
    word = asked.removesuffix(' ->')
    labels = {
      line.partition(' -> ')[2] for line in shown if line.startswith(f'{word} ')
    }
    assert len(shown) == 40 and labels == {e.answer}
    assert made.score(e, f' {e.answer}\nboat') == 1 and made.score(e, 'x') == 0


@pytest.mark.parametrize(
  'name,words',
  [
    ('key_value=1', 'two pairs'),
    ('many_shot=0', 'number of examples'),
    ('multi_needle', 'DOCUMENTS'),
    ('multi_needle=a.jsonl,12', 'at least 500'),
    ('bbh', 'bbh=FOLDER'),
    ('mgsm', 'mgsm=FOLDER'),
    ('flores=a,b', 'flores=FOLDER,FROM,TO'),
    ('svamp', 'the file is missing'),
  ],
)
def test_source_that_cannot_be_is_named(name, words):
  with pytest.raises(UserError, match=words):
    task.load(name).examples('heldout', 1, 0)
