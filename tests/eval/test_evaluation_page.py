"""The page of an evaluation: scores of several runs, and the answers that changed."""

import html
import re

import ml_collections
import post_examples as toy
import pytest

from configs import evaluate as evaluate_config
from experiments import evaluate
from llama3_jax import config as configs
from llama3_jax.base.errors import UserError
from llama3_jax.eval import evaluation_page
from llama3_jax.eval import report
from llama3_jax.eval import run
from llama3_jax.report import page
from llama3_jax.report.blocks import Best
from llama3_jax.train import final


def row(question, score, response='no', task='t=/x'):
  asked = dict(task=task, question=question, prompt=f'{question} Say it.', answer='yes')
  return asked | {'response': response, 'score': score}


def by_task(rows):
  return {t: [r for r in rows if r['task'] == t] for t in {r['task']: 0 for r in rows}}


def test_changed_answers_stand_in_the_page_by_task_and_direction():
  before = [row('a?', 0), row('b?', 1, 'yes'), row('c?', 0), row('d?', 1, task='u')]
  after = [
    row('a?', 1, 'yes'),
    row('b?', 0, '<b>'),
    row('c?', 0),
    row('d?', 1, task='u'),
  ]
  (stack,) = evaluation_page._changed(by_task(before), by_task(after))
  assert [card.title for card in stack.blocks] == ['t: 1 better', 't: 1 worse']
  (opened,) = stack.blocks[1].blocks
  assert [turn.text for turn in opened.blocks] == ['b? Say it.', 'yes', '<b>', 'yes']
  assert evaluation_page._changed(by_task(before), by_task(before)) == []


def test_texts_are_escaped_and_sources_are_left_out():
  result = {'score': 0.5, 'n': 2, 'ci': 0.1, 'summary': {'loose': 0.25}}
  results = {'tasks': {'t=/x': result, 'macro': {'score': 0.5, 'n': 2, 'ci': 0.1}}}
  text = page.render(
    evaluation_page.page(results, {'t=/x': [row('<script>alert(1)?', 0)]})
  )
  body = text[: text.index('<script>')]
  assert html.escape('<script>alert(1)?') in body and '/x' not in body
  assert re.search(r'loose</td><td>25', body)


def evaluated(root, name, **given):
  c = evaluate_config.get_config()
  given |= {'init_from': str(root / 'model'), 'tasks': ('copy', 'sort'), 'examples': 3}
  return configs.edit(c, given | {'max_new': 4, 'batch': 4}), str(root / name)


def test_a_run_compares_itself_with_another(tmp_path, caplog):
  final.save(tmp_path / 'model/final', toy.model(), toy.CONFIG, toy.tokenizer(tmp_path))
  evaluate.main(*evaluated(tmp_path, 'one'))
  assert (tmp_path / 'one/report.html').exists()
  found = evaluate.main(*evaluated(tmp_path, 'two', against=(str(tmp_path / 'one'),)))
  (other,) = found['against']
  assert other['paired']['all']['difference'] == 0 and other['paired']['all']['n'] == 6
  text = (tmp_path / 'two/report.html').read_text('utf-8')
  assert 'one → this model' in text and 'not told apart' in text
  with pytest.raises(UserError, match='against=.*no finished evaluation'):
    evaluate.main(*evaluated(tmp_path, 'three', against=(str(tmp_path / 'model'),)))
  assert isinstance(evaluate_config.get_config(), ml_collections.ConfigDict)


def test_heat_map_has_a_cell_of_each_length_and_depth():
  cells = [(1000, 0.0), (4000, 0.0), (1000, 0.5), (1000, 0.5)]
  grid = run._grid(cells, [1.0, 0.0, 1.0, 0.0])
  assert grid['lengths'] == [1000, 4000] and grid['depths'] == [0.0, 0.5]
  assert grid['recall'] == [[1.0, 0.0], [0.5, None]] and grid['samples'] == 2
  task = {'score': 0.5, 'n': 4, 'ci': 0.1, 'interval': [0.1, 0.9], 'grid': grid}
  against = {'name': 'before', 'folder': '.', 'scores': {'single_needle=a': task}}
  found = {'tasks': {'single_needle=b': task}, 'against': [against]}
  rows = evaluation_page._heat(found)
  titles = [card.title for card in rows[1].blocks]
  assert titles == ['single_needle: before', 'single_needle: this model']
  [plot] = rows[1].blocks[0].blocks
  assert plot.figure['data'][0]['x'] == ['1,000', '4,000']
  assert evaluation_page._heat({'tasks': {'copy': {}}}) == []


def test_scores_have_a_row_a_task_and_a_column_a_run():
  scores = lambda a, b: {'t': {'score': a, 'n': 40}, 'u': {'score': b, 'n': 1000}}
  runs = {'one': scores(0.25, 0.5), 'two': {'t': scores(0.75, 0)['t']}}
  _, card = report.by_task(runs)
  (table,) = card.blocks
  assert list(table.header) == ['task', 'questions', 'one', 'two']
  assert table.rows[0] == ('t', '40', '25.0', Best('75.0'))
  assert table.rows[1] == ('u', '1,000', Best('50.0'), '–')
  assert table.rows[2] == ('macro average', '', '37.5%', '75.0%')
  _, card = report.by_task({'one': runs['one']})
  assert card.blocks[0].rows[0] == ('t', '40', '25.0')  # nothing to be the best of
