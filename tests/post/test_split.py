"""Rows that are held out share no prompt with those that are trained on."""

import ml_collections
import pytest

from llama3_jax.post import preference
from llama3_jax.post import sft
from llama3_jax.post import split
from llama3_jax.text.chat import Message


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


def test_a_prompt_with_most_of_the_rows_is_not_held_out():
  for name in 'abcdefgh':  # whichever hash comes first
    prompts = [name] * 95 + [f'q{i}' for i in range(5)]
    assert 1 <= len(split.choose(prompts, 0.05)) <= 5
    held = split.choose([name] * 95 + ['other'] * 5, 0.05)
    assert held == set(range(95, 100))


def test_white_space_and_case_make_no_other_prompt():
  prompts = [f'Question {i}?' for i in range(40)]
  prompts += [f'question\r\n{i}? ' for i in range(40)]
  held = split.choose(prompts, 0.1)
  assert len(held) == 8 and {i % 40 for i in held} == {i for i in held if i < 40}


def test_the_question_counts_whatever_the_system_message():
  answer = Message('assistant', 'a')

  def asked(*before):
    yield sft._prompt(sft.Dialog((*before, answer)))
    yield preference._prompt(preference.Preference(before, (answer, answer)))

  user = Message('user', 'q')
  found = [p for s in 'st' for p in asked(Message('system', s), user)]
  found += asked(user)
  assert set(found) == {'q'}
  assert {*asked(Message('system', 's'))} != {*asked(Message('system', 't'))}
