"""The text of an answer as its tokens come, and stop strings across their borders."""

import itertools
import random

import post_examples as toy
import pytest
import toy_chat

from llama3_jax.generate.text import Stops
from llama3_jax.generate.text import Text

TEXT = 'naïve 日本 🙂!'


@pytest.fixture(params=['own', 'other'])
def either(request, tmp_path):
  """A tokenizer of each kind, of one token a byte."""
  return toy.tokenizer(tmp_path) if request.param == 'own' else toy_chat.byte_level()


def shown(text, ids):
  """The pieces of tokens, and of the end."""
  return [*(text.add(i) for i in ids), text.rest()]


@pytest.mark.parametrize('stop', ['日', 'ïve', '🙂!', '本 ', ' 日本 🙂'])
def test_text_ends_before_a_stop_string_of_several_tokens(either, stop):
  text = Text(either, either.stop_ids, ['absent', stop])
  pieces = shown(text, either.encode(TEXT + ' and more'))
  assert ''.join(pieces) == TEXT[: TEXT.index(stop)] and text.ended


def test_what_only_began_as_a_stop_string_is_shown(either):
  for end in ([], [either.stop_ids[-1]]):
    text = Text(either, either.stop_ids, ['!?', '🙂!!'])
    pieces = shown(text, [*either.encode(TEXT), *end])
    assert ''.join(pieces) == TEXT
    assert pieces[:2] == ['n', 'a'] and '\ufffd' not in ''.join(pieces)


def test_a_character_that_was_cut_off_is_not_shown(either):
  ids = either.encode('a🙂')
  for n in (2, 3, 4):
    assert ''.join(shown(Text(either), ids[:n])) == 'a'
  assert ''.join(shown(Text(either), ids)) == 'a🙂'


def test_nothing_comes_after_the_end(either):
  text = Text(either, either.stop_ids, ['b'])
  assert [text.add(i) for i in either.encode('abab')] == ['a', '', '', '']
  assert text.rest() == '' and text.ended


def first(text, strings):
  """The text before the string whose end comes first; the longest of several."""
  for end in range(len(text) + 1):
    ending = [s for s in strings if text[:end].endswith(s)]
    if ending:
      return text[: end - max(map(len, ending))]
  return text


def test_stops_agree_with_a_search_of_the_whole_text():
  rng = random.Random(0)
  draw = lambda most: ''.join(rng.choices('ab', k=rng.randint(1, most)))
  for _ in range(500):
    strings, whole = [draw(5) for _ in range(rng.randint(1, 3))], draw(30)
    stops, got = Stops(strings), ''
    cuts = sorted(rng.choices(range(len(whole) + 1), k=4))
    for a, b in itertools.pairwise([0, *cuts, len(whole)]):
      got += stops.add(whole[a:b])
    assert got + stops.rest() == first(whole, strings), (strings, whole)
