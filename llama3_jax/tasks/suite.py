"""Training data of several tasks: documents, SFT rows, preference rows."""

import itertools
import random
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence

from llama3_jax.base.errors import UserError
from llama3_jax.tasks import task

# Tasks of the toy models, unless a config names others.
TASKS = ('copy', 'sort', 'arithmetic', 'needle', 'format')
TRIES = 1000
NEAR = 0.2  # of the rejected answers are near misses: hard to tell for a small model


def mixed(
  n: int, seed: int, split: str, names: Sequence[str] = TASKS
) -> list[task.Example]:
  """`n` examples, shuffled, with equal parts of all tasks."""
  if not names:
    raise UserError('task_names is empty: name tasks, or set their number to 0')
  share = -(-n // len(names))
  pool = [e for name in names for e in task.load(name).examples(split, share, seed)]
  random.Random(f'{seed}/mixed').shuffle(pool)
  return pool[:n]


def score(e: task.Example, response: str) -> float:
  """Score of a response by the example's task, 0 to 1."""
  return task.load(e.task).score(e, response)


def scores(pairs: Sequence[tuple[task.Example, str]]) -> list[float]:
  """Scores of (example, response) pairs, of each task at once where it can do that."""
  found, places = [0.0] * len(pairs), {}
  for i, (e, _) in enumerate(pairs):
    places.setdefault(e.task, []).append(i)
  for name, own in places.items():
    for i, value in zip(own, task.scored(task.load(name), [pairs[i] for i in own])):
      found[i] = value
  return found


def asked(e: task.Example) -> str:
  """The user's message of a chat, by the example's task."""
  return task.load(e.task).prompt(e)


def ranked(e: task.Example, rng: random.Random) -> list[str]:
  """[edited, chosen, rejected] by construction (section 4.2.1).

  Edited: the answer alone, as requested. Chosen: the right answer, but wrapped in words
  that were not requested. Rejected: a wrong answer, in either form.
  """
  wrong = spoiled(e, rng)
  rejected = wrong if rng.random() < 0.5 else wrapped(wrong, rng)
  return [e.answer, wrapped(e.answer, rng), rejected]


def spoiled(e: task.Example, rng: random.Random) -> str:
  """A wrong answer: that of another prompt, or a near miss with some of its words."""
  share = rng.random() if rng.random() < NEAR else 1.0
  words = e.answer.split()
  for tries in itertools.count():
    if ' '.join(words) != e.answer:
      return ' '.join(words)
    if tries == TRIES:
      raise UserError(f'task {e.task!r} has one answer only: no wrong one can be drawn')
    other = _other(e, rng).split()
    if share == 1.0:
      words = other
      continue
    for i in rng.sample(range(len(words)), max(1, round(share * len(words)))):
      words[i] = other[i % len(other)]


def _other(e, rng):
  """The answer to some question of the same task."""
  loaded = task.load(e.task)
  example = (
    loaded.make(rng) if loaded.make else rng.choice(loaded.examples('train', 64, 0))
  )
  return example.answer


def wrapped(answer: str, rng: random.Random) -> str:
  """The answer in words that were not requested."""
  return rng.choice(('I think it is {}', 'Well, {} I guess', 'Maybe: {}')).format(
    answer
  )


def document(group: Iterable[task.Example]) -> str:
  """Plain text of several solved examples, in the form of a page of exercises."""
  return '\n'.join(f'{task.load(e.task).page(e)} {e.worked or e.answer}' for e in group)


def drill(rng: random.Random) -> str:
  """A line of random words, repeated.

  At least half of its tokens follow from the text before: the fastest known way to
  learn induction, on which copying, recall and formats depend.
  """
  line = [rng.choice(task.WORDS) for _ in range(rng.randint(3, 16))]
  return ' ' + ' '.join(line * rng.randint(2, 4))


def drills(n: int, seed: int) -> list[dict]:
  """`n` drills as documents."""
  rng = random.Random(f'{seed}/drills')
  return [{'text': drill(rng), 'source': 'drill', 'lang': 'en'} for _ in range(n)]


def documents(
  n: int, seed: int, names: Sequence[str] = TASKS, per_page: int = 8
) -> Iterator[dict]:
  """Yields `n` pages of exercises of the train split, of one task or mixed."""
  rng = random.Random(f'{seed}/documents')
  count = 1 + n * per_page // 3
  pools = {name: task.load(name).examples('train', count, seed) for name in names}
  pools['mixed'] = mixed(count, seed + 1, 'train', names)
  taken = dict.fromkeys(pools, 0)
  for _ in range(n):
    name = rng.choice(sorted(pools))
    group = [
      pools[name][(taken[name] + i) % len(pools[name])]
      for i in range(rng.randint(per_page // 2, per_page))
    ]
    taken[name] += len(group)
    yield {'text': document(group), 'source': f'task_{name}', 'lang': 'en'}


def sft_rows(
  n: int, seed: int, split: str = 'train', names: Sequence[str] = TASKS
) -> list[dict]:
  """SFT rows (`messages`, `source`)."""
  rows = []
  for e in mixed(n, seed, split, names):
    messages = [_say('user', asked(e)), _say('assistant', e.worked or e.answer)]
    rows.append({'messages': messages, 'source': e.task})
  return rows


def preference_rows(
  n: int, seed: int, split: str, names: Sequence[str] = TASKS
) -> list[dict]:
  """Preference rows (`prompt`, `responses` best first, `source`)."""
  rng = random.Random(f'{seed}/{split}/ranked')
  rows = []
  for e in mixed(n, seed, split, names):
    prompt = [_say('user', asked(e))]
    rows.append({'prompt': prompt, 'responses': ranked(e, rng), 'source': e.task})
  return rows


def _say(role, content):
  return {'role': role, 'content': content}
