"""Boards beside metrics.jsonl: what they get, and what they cannot do to a run."""

import functools
import importlib.util
import json

import pytest
import toy_run as toy

from llama3_jax.base.errors import UserError
from llama3_jax.train import boards
from llama3_jax.train import metrics


@pytest.fixture
def offline(monkeypatch, tmp_path):
  """Weights & Biases without network or account; skipped where it is not installed."""
  pytest.importorskip('wandb')
  monkeypatch.setenv('WANDB_MODE', 'offline')
  for name in ('CONFIG', 'CACHE', 'DATA'):
    monkeypatch.setenv(f'WANDB_{name}_DIR', str(tmp_path / 'user'))


def holds(path, text):
  return text.encode() in path.read_bytes()


def test_wandb_has_our_metrics_and_a_resumed_run_is_the_same(offline, tmp_path):
  run = tmp_path / 'run'
  run.mkdir()
  loss = 4.25
  for step in (3, 6):
    writer = metrics.Writer(run, step - 1, 'herd')
    writer.write(step, {'loss': loss + step, 'note': 'text'})
    writer.close()
  identity = json.loads((run / 'wandb.json').read_text())['id']
  found = (run / 'wandb').glob(f'offline-run-*{identity}*/run-{identity}.wandb')
  for step, path in zip((3, 6), sorted(found), strict=True):
    # Its own process writes the file, and may do so a moment after the end.
    toy.until(functools.partial(holds, path, str(loss + step)))
    content = path.read_bytes()
    assert b'loss' in content and b'herd' in content and b'note' not in content
  assert [row['step'] for row in metrics.read(run)] == [3, 6]


def test_a_board_that_fails_later_is_left_and_the_run_is_not(tmp_path, caplog):
  class Broken:
    def log(self, row):
      raise ConnectionError('gone')

  board = boards.Wandb.__new__(boards.Wandb)
  board.run = Broken()
  with caplog.at_level('INFO', logger='absl'):
    board.write(1, {'loss': 1.0})
    board.write(2, {'loss': 1.0})
    board.close()
  assert caplog.text.count('gone') == 1


def test_a_missing_package_is_one_line_with_the_command(monkeypatch, tmp_path):
  find = importlib.util.find_spec
  hidden = lambda name, *more: None if name == 'wandb' else find(name, *more)
  monkeypatch.setattr(importlib.util, 'find_spec', hidden)
  boards.check('')
  with pytest.raises(UserError, match=r"herd .* pip install -e '.\[wandb\]'"):
    boards.check('herd')


def test_no_project_no_board(tmp_path):
  metrics.Writer(tmp_path, 0).close()
  assert not (tmp_path / 'wandb.json').exists()
