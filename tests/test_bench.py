"""Benches whose other side is not here: at least our side of them is whole."""

import pathlib
import sys

import pytest

from llama3_jax import feed

SIDES = pathlib.Path(__file__).parents[1] / 'bench/sides'


@pytest.fixture
def sides(monkeypatch):
  monkeypatch.setattr(sys, 'path', [str(SIDES), *sys.path])


@pytest.mark.parametrize(
  'stage, kind, shape',
  [
    ('sft', feed.Tokens, (2, 6)),
    ('dpo', feed.Pairs, (2, 2, 6)),
    ('joined', feed.Joined, (2, 10)),
    ('reward', feed.Ranked, (2, 1, 9)),
  ],
)
def test_steps_after_pre_training_have_rows(sides, stage, kind, shape):
  import post_ours

  rows = post_ours.rows(
    {'stage': stage, 'rows': [[[1, 2, 3], [4, 5, 6], [7, 8, 9]]] * 2}
  )
  assert type(rows) is kind and rows.tokens.shape == shape
  if stage == 'reward':
    assert rows.margin.shape == rows.ends.shape
