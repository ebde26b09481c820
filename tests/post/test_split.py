"""Rows that are held out share no prompt with those that are trained on."""

import ml_collections
import pytest

from llama3_jax.post import split


def data(**more):
  return ml_collections.ConfigDict(
    dict(files=('a',), heldout_files=(), heldout=0.2) | more
  )


def read(path, field, quiet):
  del path, field, quiet
  return [(f'prompt {i // 3}', i) for i in range(30)]


def test_the_two_sides_are_all_rows_and_share_no_prompt():
  train = split.train(data(), read, lambda e: e[0])
  held = split.heldout(data(), read, lambda e: e[0])
  assert sorted(train + held) == sorted(read('', '', True)) and len(held) == 6
  assert not {p for p, _ in train} & {p for p, _ in held}


@pytest.mark.parametrize('more', [{'heldout': 0.0}, {'heldout_files': ('b',)}])
def test_nothing_is_held_out_without_a_share_or_with_files_for_it(more):
  assert len(split.train(data(**more), read, str)) == 30
  assert split.heldout(data(**more), read, str) == []


def test_one_prompt_is_left_to_train_on():
  assert split.choose(['a', 'a', 'a'], 0.5) == set()
  assert len(split.choose(['a', 'b'], 0.5)) == 1


def test_the_choice_does_not_depend_on_the_order():
  prompts = [f'p{i}' for i in range(50)]
  held = {prompts[i] for i in split.choose(prompts, 0.1)}
  back = prompts[::-1]
  assert {back[i] for i in split.choose(back, 0.1)} == held and len(held) == 5
