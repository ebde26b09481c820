"""The page of a run: its figures, tables, commands; what users write is text in it."""

import json
import re
import shlex

import pytest

import experiment
from configs import pretrain
from configs import reward
from configs import sft
from llama3_jax import commandline
from llama3_jax import override
from llama3_jax import workdir
from llama3_jax.base import files
from llama3_jax.report.blocks import Note
from llama3_jax.report.blocks import Section
from llama3_jax.train import curves
from llama3_jax.train import report

EVIL = '</script><script>alert(1)</script><b>&amp;'
MAIN = {'pretrain': pretrain, 'sft': sft, 'reward': reward}


def rows_of(steps, **more):
  """Rows of a run with an evaluation at its start and end."""
  evaluation = {'eval/web': 2.0, 'eval/code': 3.0, 'eval_loss': 2.5}
  rows = [{'step': 0, 'tokens': 0, **evaluation}]
  for i in range(1, steps + 1):
    row = dict(step=i, tokens=64 * i, loss=4.0 - i / steps, lr=1e-3, grad_norm=1.0)
    rows.append(row | dict(tokens_per_s=100.0 * i, seconds=1.0 / i) | more)
  return [*rows, {'step': steps, 'tokens': 64 * steps, **evaluation, 'eval_loss': 1.5}]


def run_of(folder, rows, recipe='pretrain', **config):
  """A workdir with the files that the page is made of."""
  c = MAIN[recipe].get_config()
  c.train.update(config)
  workdir.claim(c, folder)
  lines = [json.dumps(row) + '\n' for row in rows]
  (folder / 'metrics.jsonl').write_text(''.join(lines))
  seconds = dict.fromkeys(('step', 'compile', 'save'), 10.0)
  account = dict(first=1.0, last=31.0, process=[1, 1], starts=2, seconds=seconds)
  files.write_json(folder / 'goodput.json', account)
  return folder


def written(folder, results, sections=()):
  """(HTML, {figure}) of the page."""
  report.write(folder, results, sections)
  text = (folder / 'report.html').read_text()
  found = re.search(r'id="figures">(.*?)</script>', text, re.S)
  return text, json.loads(found[1])


def test_page_shows_the_numbers_of_the_run(tmp_path):
  folder = run_of(tmp_path / 'run', rows_of(20))
  read = [{'from': 'web', 'documents': 90, 'read': 12, 'tokens': 1280, 'share': 1.0}]
  results = {'parameters': 1_234_567, 'tokens': 1280, 'read': read}
  results |= {'eval_loss': {'eval_loss': 1.5}, 'average': {'mean': 1.375}}
  text, figures = written(folder, results)
  shown = ['1.23M', '1.28K', '2.5 → 1.5', '0:30', '100.0%', 'average.mean', '1.375']
  for words in [*shown, 'in 2 starts', '1.5 (step 20)', 'train.steps', 'optax']:
    assert words in text, words
  assert set(figures) == {'loss', 'learning-rate', 'gradient-norm', 'tokens-a-second'}
  training, mix, web, code = figures['loss']['data']
  assert (training['x'][-1], training['y'][-1]) == (20, 3.0)
  assert (mix['x'], mix['y'], web['name']) == ([0, 20], [2.5, 1.5], 'web')
  # 20 steps of 100 tokens in 1 + 1/2 + ... + 1/20 seconds.
  assert f'{2000 / sum(1 / i for i in range(1, 21)):.3g}/s' in text


def test_what_users_write_is_text(tmp_path):
  evil = {f'eval/{EVIL}': 1.0, 'eval/web': 1.0, 'eval_loss': 1.0}
  rows = [*rows_of(3), {'step': 3, **evil}]
  folder = run_of(tmp_path / 'run', rows)
  read = [{'from': EVIL, 'form': EVIL, 'rows': 1}]
  results = {'read': read, EVIL: EVIL, 'dropped': 3}
  text, figures = written(folder, results, [Section(EVIL, [Note(EVIL)])])
  assert EVIL not in text and '<b>&amp;' not in text
  assert text.count('</script>') == 3  # plotly, figures and the page's own
  names = [trace['name'] for trace in figures['loss']['data']]
  assert len(names) == 4 and not any('<' in name for name in names), names


def test_sections_of_a_recipe_are_in_the_page(tmp_path):
  folder = run_of(tmp_path / 'run', rows_of(3))
  text, _ = written(folder, {}, [Section('Samples', [Note('once upon a time')])])
  assert text.index('once upon a time') < text.index('id="how-to-go-on"')


@pytest.mark.parametrize('rows', [[], rows_of(1), [{'step': 3, 'host_seconds': 1.0}]])
def test_a_run_of_few_metrics_has_a_page(tmp_path, rows):
  folder = run_of(tmp_path / 'run', rows)
  (folder / 'goodput.json').unlink()
  assert 'How to go on' in written(folder, {})[0]


def test_a_loss_that_falls_far_is_on_a_log_scale():
  far = [{'step': i, 'loss': x} for i, x in enumerate((9.0, 1.0, 0.1))]
  assert curves.draw('loss', far)['layout']['yaxis']['type'] == 'log'
  near = [{'step': i, 'loss': x} for i, x in enumerate((9.0, 3.0))]
  assert curves.draw('loss', near)['layout']['yaxis'].get('type') != 'log'
  negative = [{'step': i, 'loss': x} for i, x in enumerate((9.0, -0.1))]
  assert curves.draw('loss', negative)['layout']['yaxis'].get('type') != 'log'


def test_many_rows_are_few_points_that_end_with_the_last():
  rows = [{'step': i, 'loss': float(i)} for i in range(10_001)]
  rows[50]['loss'] = float('nan')
  found = curves.points(rows, 'loss')
  assert len(found) <= curves.POINTS + 1 and found[-1] == (10_000, 10_000.0)
  assert all(x == y for x, y in found)  # means of neighbours


@pytest.mark.parametrize('recipe', MAIN)
def test_commands_of_the_page_are_understood(tmp_path, recipe):
  folder = run_of(tmp_path / "a run's folder", rows_of(2), recipe)
  page = report.content(folder, {})
  [section] = [s for s in page.sections if s.title == 'How to go on']
  commands = [shlex.split(turn.text) for turn in section.blocks[0].blocks]
  assert ['tensorboard', f'--logdir={folder}'] in commands
  ours = [c[3:] for c in commands if c[:3] == ['python', '-m', 'experiment']]
  assert ours
  for arguments in ours:
    flags, overrides = commandline.parse(arguments)
    _, config = experiment.load_config(flags['config'])
    override.apply(config, overrides)
    experiment.check(config)
    assert str(folder) in overrides.values()
    experiment._needs_workdir(config, flags)
    assert flags.get('workdir') != str(folder)


def test_a_page_that_fails_does_not_fail_the_run(tmp_path, caplog):
  def broken(folder, results):
    raise ValueError('no page')

  stage = workdir.stage(report=broken)(lambda config, folder: {'eval_loss': 1.0})
  with caplog.at_level('INFO', logger='absl'):
    stage(pretrain.get_config(), tmp_path / 'run')
  assert json.loads((tmp_path / 'run' / 'results.json').read_text())['eval_loss'] == 1
  assert 'ValueError: no page' in caplog.text


def test_page_is_there_before_the_results(tmp_path):
  """A run that is killed while the page is written makes it again."""
  seen = []

  def look(folder, results):
    seen.append((folder / 'results.json').exists())

  stage = workdir.stage(report=look)(lambda config, folder: {'eval_loss': 1.0})
  for _ in range(2):
    stage(pretrain.get_config(), tmp_path / 'run')
  assert seen == [False]
