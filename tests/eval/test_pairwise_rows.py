"""Rows of ratings: what is read, what is left out and named, and the page of them."""

import json

import pytest

from configs import pairwise as pairwise_config
from experiments import pairwise as recipe
from llama3_jax.base.errors import UserError
from llama3_jax.eval.pairwise import page
from llama3_jax.eval.pairwise import rows
from llama3_jax.post import ratings
from llama3_jax.report import page as pages

GOOD = {'prompt': '2+2?', 'models': ['a', 'b'], 'rating': 2, 'rater': 'ann'}


def write(path, *lines):
  texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
  path.write_text('\n'.join(texts) + '\n')
  return path


def test_a_rating_is_a_number_or_its_words_of_the_first_of_models():
  for point, words in enumerate(ratings.SCALE, 1):
    for said in (point, str(point), words, f' {words.upper()}  '):
      assert rows.parse({**GOOD, 'rating': said}, 'f').point == point
  other = rows.parse({**GOOD, 'models': ['b', 'a'], 'rating': 'better'}, 'f')
  assert other.models == ('a', 'b') and other.point == 6  # a is worse than b
  assert rows.parse({**GOOD, 'rating': None}, 'f') is None
  assert rows.parse({**GOOD, 'rater': 3, 'category': None}, 'f').rater == '3'
  turns = [{'role': 'user', 'content': '2+2?'}]
  assert rows.parse({**GOOD, 'prompt': turns}, 'f') == rows.parse(GOOD, 'f')


@pytest.mark.parametrize(
  'fields, word',
  [
    ({'rating': 0}, 'rating is 0: write 1 to 7'),
    ({'rating': 8}, 'rating is 8'),
    ({'rating': True}, 'rating is True'),
    ({'rating': 2.5}, 'rating is 2.5'),
    ({'rating': 'good'}, "rating is 'good'"),
    ({'models': ['a']}, 'models must name the two'),
    ({'models': 'ab'}, 'models must name the two'),
    ({'models': ['a', ' ']}, 'models must name the two'),
    ({'prompt': None}, 'neither id nor prompt'),
    ({'rater': ['ann']}, "field 'rater' is a list"),
    ({'ratings': 3}, "field 'ratings' is unknown: is it 'rating'?"),
    ({'swapped': 'left'}, 'write true or false'),
    ({'both': [1]}, 'both must be the two points'),
    ({'responses': ['one']}, 'responses must be the answers'),
  ],
)
def test_a_row_that_is_no_rating_is_refused_with_its_place(fields, word):
  with pytest.raises(UserError, match='^f, line 3: ') as error:
    given = {**GOOD, **fields}
    if 'ratings' in given:
      del given['rating']
    rows.parse(given, 'f, line 3')
  assert word in str(error.value)


def test_places_are_those_of_the_answer_that_was_shown_first():
  seen = lambda **more: rows.parse({**GOOD, **more}, 'f').seen
  assert seen() == () and seen(swapped=False) == (2,) and seen(swapped=True) == (6,)
  assert seen(swapped='true') == (6,)  # of a CSV
  # Both are of the first of models: shown second it was liked less, so 8 - 5 it is.
  assert seen(both=[2, 5], rating=4) == (2, 3)
  assert seen(models=['b', 'a'], swapped=True) == (6,)


def test_rows_that_are_left_out_are_named_and_counted(tmp_path):
  path = write(
    tmp_path / 'r.jsonl',
    GOOD,
    {**GOOD, 'rating': 7},
    {**GOOD, 'rater': 'bob'},
    {**GOOD, 'prompt': '3+3?', 'rating': None},
    {**GOOD, 'prompt': '3+3?', 'rating': 9},
    {**GOOD, 'models': ['a', 'z']},
    {**GOOD, 'models': ['b', 'b']},
    '{',
    {**GOOD, 'prompt': '3+3?'},
  )
  found, left = rows.read([path], ('a', 'b'))
  assert [(o.prompt, o.rater, o.point) for o in found] == [
    ('2+2?', 'ann', 2),  # the first of two
    ('2+2?', 'bob', 2),
    ('3+3?', 'ann', 2),
  ]
  assert left.counts() == {
    rows.TWICE: 1,
    rows.NONE: 1,
    rows.BAD: 2,
    rows.OTHER: 1,
    rows.SELF: 1,
  }
  said = '\n'.join(page.left(left))
  for line in (2, 4, 5, 6, 7, 8):
    assert f'r.jsonl, line {line}' in said, said
  assert "'ann' rated it in" in said and "'z'" in said
  assert len(rows.read([path])[0]) == 4  # without names all models are taken


def test_a_file_without_a_rating_is_one_line(tmp_path):
  path = write(tmp_path / 'r.jsonl', {**GOOD, 'rating': None})
  with pytest.raises(UserError, match='files: no row is .*line 1: rating is nul'):
    rows.read([path])
  path = write(tmp_path / 'r.jsonl', GOOD)
  with pytest.raises(UserError, match="models: 'z' is in no row: there are a, b"):
    rows.read([path], ('a', 'b', 'z'))
  with pytest.raises(UserError, match='files is empty'):
    recipe.main(pairwise_config.get_config(), tmp_path / 'w')


def test_tables_of_texts_are_read(tmp_path):
  (tmp_path / 'bob.csv').write_text(
    'id,model_a,model_b,rating,swapped\n1,b,a,much worse,false\n2,a,b,6,true\n3,a,b,,\n'
  )
  found, left = rows.read([tmp_path / 'bob.csv'])
  # Without a name the rater is the file's.
  said = [(o.item, o.point, o.rater) for o in found]
  assert said == [('1', 1, 'bob'), ('2', 6, 'bob')]
  assert [o.seen for o in found] == [(7,), (2,)] and left.counts() == {rows.NONE: 1}


def test_one_prompt_of_several_ids_is_drawn_as_one():
  one = rows.parse({**GOOD, 'id': 1}, 'f')
  other = rows.parse({**GOOD, 'id': 2}, 'f')
  assert one.prompt == other.prompt and one.item != other.item


def finished(folder, *lines, **fields):
  config = pairwise_config.get_config()
  config.files = (str(write(folder / 'ratings.jsonl', *lines)),)
  with config.unlocked():
    config.update(fields)
  return recipe.main(config, folder / 'w')


def lines(bad='<script>alert(1)</script>'):
  for i in range(8):
    for rater, point in (('ann', 1 + i % 6), (bad, 2)):
      yield {
        'prompt': f'{bad} {i}',
        'models': ['m/a', bad],
        'responses': [f'said {bad}', {'role': 'assistant', 'content': 'other'}],
        'rating': point,
        'rater': rater,
        'category': f'{bad}{i % 2}',
        'swapped': i % 3 == 0,
      }


def test_the_recipe_reports_all_and_its_texts_are_escaped(tmp_path):
  found = finished(tmp_path, *lines(), {**GOOD, 'rating': None})
  assert (found['ratings'], found['prompts']) == (16, 8)
  text = (tmp_path / 'w/report.html').read_text()
  assert '<script>alert(1)' not in text and '&lt;script&gt;alert(1)' in text
  for word in ('Win rates', 'By category', 'Strengths', 'Agreement', 'Left out'):
    assert word in text
  assert 'without a rating' in text and 'line 17' in text
  saved = json.loads((tmp_path / 'w/results.json').read_text())
  assert saved['pairs'][0]['wins'] == found['pairs'][0]['wins']
  logged = '\n'.join(page.lines(found))
  assert 'm/a' in logged and 'kappa' in logged and 'alpha of all raters' in logged


def test_answers_that_are_shown_are_those_of_their_models_and_differences_come_first():
  every = [
    {**GOOD, 'prompt': f'{i}', 'rater': rater, 'responses': [f'of a {i}', f'of b {i}']}
    for i in range(40)
    for rater in ('ann', 'bob')
  ]
  every[13] |= {'rating': 7}  # of prompt 6, bob
  for row in every[::3]:  # the same answers from the other side
    row |= {'models': ['b', 'a'], 'responses': row['responses'][::-1]}
    row |= {'rating': 8 - row['rating']}
  shown = page.samples([rows.parse(row, 'f') for row in every])
  assert len(shown) == page.SHOWN
  assert shown[0]['prompt'] == '6' and shown[0]['ratings'] == {'ann': 2, 'bob': 7}
  for one in shown:
    assert one['models'] == ['a', 'b']
    assert one['responses'] == [f'of a {one["prompt"]}', f'of b {one["prompt"]}']


def test_a_page_of_ties_alone_is_written(tmp_path):
  found = finished(tmp_path, {**GOOD, 'rating': 4}, {**GOOD, 'id': 7, 'rating': 3})
  assert found['pairs'][0]['rate']['value'] is None and not found['pairs'][0]['told']
  assert 'Win rates' in pages.render(page.page(found))
  assert 'wins – of 0, 2 ties' in '\n'.join(page.lines(found))


def test_a_model_that_never_lost_is_named_in_the_log_and_on_the_page(tmp_path):
  found = finished(tmp_path, *({**GOOD, 'id': i} for i in range(3)))
  said = 'a never lost, b never won: no strength is the likeliest'
  assert said in '\n'.join(page.lines(found))
  assert said in pages.render(page.page(found))
