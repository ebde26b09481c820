"""Needle: recall what goes with a word; `haystack` hides the pairs in long text."""

import random
import re

from llama3_jax.base.errors import UserError
from llama3_jax.tasks import task

HAY = 200_000  # sentences, 20 MB of text


def fact(key, value):
  return f'Remember: {key} {value}.'


def question(key):
  return f'What goes with {key}?'


def answer(key, value):
  return f'{key} {value}'


def _pairs(rng, n):
  """`n` (key, value) pairs of 2n different words."""
  words = task.words(rng, 2 * n)
  return list(zip(words[:n], words[n:]))


def make(rng):
  pairs = _pairs(rng, rng.randint(2, 5))
  key, value = rng.choice(pairs)
  facts = ' '.join(fact(*p) for p in pairs)
  prompt = f'{facts} {question(key)}'
  return task.Example(prompt, answer(key, value))


def create(source=''):
  del source
  return task.generated('needle', make)


def hide(rng, facts, sentences, length, places, count=len):
  """Text of `length` with each fact at its place, 0 (start) to 1 (end).

  Args: sentences: filler, from a random place on; count(text): length in the unit of
  `length`, e.g. tokens.
  """
  room = length - sum(count(' ' + f) for f in facts)
  start, lines = rng.randrange(len(sentences)), []
  while room > 0:
    lines.append(sentences[(start + len(lines)) % len(sentences)])
    room -= count(' ' + lines[-1])
  lines = lines[:-1] if room < 0 else lines
  marked = sorted(((round(p * len(lines)), f) for p, f in zip(places, facts)))
  for place, text in reversed(marked):
    lines.insert(place, text)
  return ' '.join(lines)


def haystack(rng, sentences, length, depth, n_facts=1, count=len):
  """(context, question, answer): the asked fact at `depth`, others anywhere.

  The context with the question and its answer is not longer than `length`.
  """
  pairs = _pairs(rng, n_facts)
  key, value = pairs[0]
  asked, said = question(key), answer(key, value)
  places = [depth] + [rng.random() for _ in pairs[1:]]
  room = length - count(prompt('', asked)) - count(' ' + said) - 2
  facts = [fact(*p) for p in pairs]
  return hide(rng, facts, sentences, room, places, count), asked, said


def prompt(context, asked):
  """How a base model is asked: the form of the pages it was trained on."""
  return f'{context}\nQ: {asked}\nA:'


def page(rng, sentences, length, n_facts, count=len):
  """A document for training: a haystack, then a question for every pair in it."""
  pairs = _pairs(rng, n_facts)
  facts = [fact(*p) for p in pairs]
  rng.shuffle(pairs)
  asked = ''.join(f'\nQ: {question(k)}\nA: {answer(k, v)}' for k, v in pairs)
  places = [rng.random() for _ in pairs]
  return hide(rng, facts, sentences, length - count(asked), places, count) + asked


def sentences(texts, most=HAY):
  """Sentences of 20 to 160 characters: the hay, the first `most` of them."""
  found = []
  for text in texts:
    for s in re.split(r'(?<=[.!?])\s+', ' '.join(text.split())):
      if 20 < len(s) < 160 and s[-1] in '.!?':
        found.append(s)
    if len(found) >= most:
      break
  if not found:
    raise UserError('documents: no sentence in category general to hide needles in')
  return found


def pages(seed, tokenizer, text, n, room, facts, name):
  """`n` documents of `room` tokens that hide `facts` (both from, to) in sentences."""
  rng = random.Random(f'{seed}/{name}')
  count = lambda s: len(tokenizer.encode(s))
  for _ in range(n):
    length, n_facts = rng.randint(*room), rng.randint(*facts)
    made = page(rng, text, length, n_facts, count)
    yield {'text': made, 'source': name, 'lang': 'en'}
