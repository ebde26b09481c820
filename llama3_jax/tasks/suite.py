"""The five toy tasks together: documents, SFT rows, preference rows, score."""

import random

from llama3_jax.base.errors import UserError
from llama3_jax.tasks import arithmetic
from llama3_jax.tasks import copy
from llama3_jax.tasks import example
from llama3_jax.tasks import format
from llama3_jax.tasks import needle
from llama3_jax.tasks import sort

TASKS = {
  'copy': copy.make,
  'sort': sort.make,
  'arithmetic': arithmetic.make,
  'needle': needle.make,
  'format': format.make,
}

NEAR = 0.2  # of the rejected answers are near misses: hard to tell for a small model


def examples(task, n, seed, split):
  """`n` examples of `task`; `split` is 'train' or 'heldout' (disjoint prompts)."""
  if task not in TASKS:
    raise UserError(f'task {task!r} is unknown: there are {", ".join(TASKS)}')
  return example.draw(TASKS[task], n, seed, split)


def mixed(n, seed, split, tasks=tuple(TASKS)):
  """`n` examples, the tasks in equal parts and shuffled."""
  share = -(-n // len(tasks))
  found = [e for t in tasks for e in examples(t, share, seed, split)]
  random.Random(f'{seed}/mixed').shuffle(found)
  return found[:n]


def score(e, response):
  """1.0 when the response is the answer, 0.0 otherwise."""
  return float(response.strip() == e.answer)


def ranked(e, rng):
  """[edited, chosen, rejected] by construction (section 4.2.1).

  Edited: the answer alone, as asked. Chosen: the right answer, but wrapped in words
  nobody asked for. Rejected: a wrong answer, in either manner.
  """
  wrong = spoiled(e, rng)
  rejected = wrong if rng.random() < 0.5 else wrapped(wrong, rng)
  return [e.answer, wrapped(e.answer, rng), rejected]


def spoiled(e, rng):
  """The answer to another prompt, or a near miss: some words taken from there."""
  share = rng.random() if rng.random() < NEAR else 1.0
  words = e.answer.split()
  while ' '.join(words) == e.answer:
    other = TASKS[e.task](rng).answer.split()
    if share == 1.0:
      words = other
      continue
    for i in rng.sample(range(len(words)), max(1, round(share * len(words)))):
      words[i] = other[i % len(other)]
  return ' '.join(words)


def wrapped(answer, rng):
  return rng.choice(('I think it is {}', 'Well, {} I guess', 'Maybe: {}')).format(
    answer
  )


def document(group):
  """Plain text of several examples, as a page of exercises has them."""
  return '\n'.join(f'Q: {e.prompt}\nA: {e.answer}' for e in group)


def drill(rng):
  """A line of random words said again and again.

  Half of its tokens follow from the text before: the quickest known lesson in looking
  back (induction), on which copying, recall and formats rest.
  """
  line = [rng.choice(example.WORDS) for _ in range(rng.randint(3, 16))]
  return ' ' + ' '.join(line * rng.randint(2, 4))


def drills(n, seed):
  """`n` drills as documents."""
  rng = random.Random(f'{seed}/drills')
  return [{'text': drill(rng), 'source': 'drill', 'lang': 'en'} for _ in range(n)]


def documents(n, seed, per_page=8):
  """`n` pages of exercises of the train split, one task a page or mixed pages."""
  rng = random.Random(f'{seed}/documents')
  pools = {t: examples(t, 1 + n * per_page // 3, seed, 'train') for t in TASKS}
  pools['mixed'] = mixed(1 + n * per_page // 3, seed + 1, 'train')
  taken = dict.fromkeys(pools, 0)
  for _ in range(n):
    name = rng.choice(sorted(pools))
    group = [
      pools[name][(taken[name] + i) % len(pools[name])]
      for i in range(rng.randint(per_page // 2, per_page))
    ]
    taken[name] += len(group)
    yield {'text': document(group), 'source': f'task_{name}', 'lang': 'en'}


def sft_rows(n, seed, split='train'):
  """SFT rows (`messages`, `source`)."""
  rows = []
  for e in mixed(n, seed, split):
    messages = [_say('user', e.prompt), _say('assistant', e.answer)]
    rows.append({'messages': messages, 'source': e.task})
  return rows


def preference_rows(n, seed, split):
  """Preference rows (`prompt`, `responses` best first, `source`)."""
  rng = random.Random(f'{seed}/{split}/ranked')
  rows = []
  for e in mixed(n, seed, split):
    prompt = [_say('user', e.prompt)]
    rows.append({'prompt': prompt, 'responses': ranked(e, rng), 'source': e.task})
  return rows


def _say(role, content):
  return {'role': role, 'content': content}
