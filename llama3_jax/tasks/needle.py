"""Needle: recall the word paired with another; `haystack` hides pairs in long text."""

import random
import re
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence

from llama3_jax.base.errors import UserError
from llama3_jax.tasks import task
from llama3_jax.text.tokenizer import Tokenizer

HAY = 200_000  # sentences, 20 MB of text


def fact(key: str, value: str) -> str:
  """The sentence that states a pair."""
  return f'Remember: {key} {value}.'


def question(key: str) -> str:
  """The question about the pair of `key`."""
  return f'What goes with {key}?'


def answer(key: str, value: str) -> str:
  """The right answer to `question(key)`."""
  return f'{key} {value}'


def _pairs(rng, n):
  """`n` (key, value) pairs of 2n different words."""
  words = task.words(rng, 2 * n)
  return list(zip(words[:n], words[n:]))


def make(rng: random.Random) -> task.Example:
  """An Example with 2 to 5 pairs, one of which is asked for."""
  pairs = _pairs(rng, rng.randint(2, 5))
  key, value = rng.choice(pairs)
  facts = ' '.join(fact(*p) for p in pairs)
  prompt = f'{facts} {question(key)}'
  return task.Example(prompt, answer(key, value))


def create(source: str = '') -> task.Task:
  """The Task of short texts; it has no source."""
  del source
  return task.generated('needle', make)


def hide(
  rng: random.Random,
  facts: Sequence[str],
  sentences: Sequence[str],
  length: int,
  places: Sequence[float],
  count: Callable[[str], int] = len,
) -> str:
  """Text of `length` with each fact at its place, 0 (start) to 1 (end).

  Args: sentences: filler, used from a random one on; count(text): length in the unit of
  `length`, e.g. tokens.
  """
  room = length - sum(count(' ' + f) for f in facts)
  start, lines = rng.randrange(len(sentences)), []
  while room > 0:
    lines.append(sentences[(start + len(lines)) % len(sentences)])
    room -= count(' ' + lines[-1])
  lines = lines[:-1] if room < 0 else lines
  marked = sorted(((round(p * len(lines)), f) for p, f in zip(places, facts)))
  for index, text in reversed(marked):
    lines.insert(index, text)
  return ' '.join(lines)


def haystack(
  rng: random.Random,
  sentences: Sequence[str],
  length: int,
  depth: float,
  n_facts: int = 1,
  count: Callable[[str], int] = len,
) -> tuple[str, str, str]:
  """(context, question, answer): the fact in question at `depth`, others anywhere.

  Context, question and answer together are not longer than `length`.
  """
  pairs = _pairs(rng, n_facts)
  key, value = pairs[0]
  ask, reply = question(key), answer(key, value)
  places = [depth] + [rng.random() for _ in pairs[1:]]
  room = length - count(prompt('', ask)) - count(' ' + reply) - 2
  facts = [fact(*p) for p in pairs]
  return hide(rng, facts, sentences, room, places, count), ask, reply


def prompt(context: str, asked: str) -> str:
  """Prompt for a base model, in the form of the pages it was trained on."""
  return f'{context}\nQ: {asked}\nA:'


def page(
  rng: random.Random,
  sentences: Sequence[str],
  length: int,
  n_facts: int,
  count: Callable[[str], int] = len,
) -> str:
  """A document for training: a haystack, then a question for every pair in it."""
  pairs = _pairs(rng, n_facts)
  facts = [fact(*p) for p in pairs]
  rng.shuffle(pairs)
  questions = ''.join(f'\nQ: {question(k)}\nA: {answer(k, v)}' for k, v in pairs)
  places = [rng.random() for _ in pairs]
  return (
    hide(rng, facts, sentences, length - count(questions), places, count) + questions
  )


def sentences(texts: Iterable[str], most: int = HAY) -> list[str]:
  """Sentences of 20 to 160 characters, the filler; about the first `most` of them."""
  lines = []
  for text in texts:
    for s in re.split(r'(?<=[.!?])\s+', ' '.join(text.split())):
      if 20 < len(s) < 160 and s[-1] in '.!?':
        lines.append(s)
    if len(lines) >= most:
      break
  if not lines:
    raise UserError('documents: no sentence in category general to hide needles in')
  return lines


def pages(
  seed: int,
  tokenizer: Tokenizer,
  text: Sequence[str],
  n: int,
  room: tuple[int, int],
  facts: tuple[int, int],
  name: str,
) -> Iterator[dict]:
  """Yields `n` documents of `room` tokens that hide `facts` pairs (both: from, to)."""
  rng = random.Random(f'{seed}/{name}')
  count = lambda s: len(tokenizer.encode(s))
  for _ in range(n):
    length, n_facts = rng.randint(*room), rng.randint(*facts)
    document = page(rng, text, length, n_facts, count)
    yield {'text': document, 'source': name, 'lang': 'en'}
