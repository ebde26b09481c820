"""Needle: find the value of a key among others; `haystack` hides it in long text."""

from llama3_jax.tasks import example


def fact(key, value):
  return f'The code of {key} is {value}.'


def question(key):
  return f'What is the code of {key}?'


def make(rng):
  keys = example.words(rng, rng.randint(2, 5))
  values = [str(v) for v in rng.sample(range(100, 1000), len(keys))]
  facts = ' '.join(map(fact, keys, values))
  i = rng.randrange(len(keys))
  wrong = [v for v in values if v != values[i]] + [str(rng.randint(100, 999))]
  prompt = f'{facts} {question(keys[i])}'
  return example.Example('needle', prompt, values[i], tuple(wrong))


def haystack(rng, sentences, length, depth, n_facts=1, count=len):
  """(context, question, answer): facts at `depth` (0 to 1) of a text of `length`.

  Args: sentences: filler, repeated from a random place; count(text): its length in
  the unit of `length`, e.g. tokens. Further facts go to random depths.
  """
  keys = example.words(rng, n_facts)
  values = [str(v) for v in rng.sample(range(100, 1000), n_facts)]
  facts = list(map(fact, keys, values))
  room = length - sum(map(count, facts)) - count(question(keys[0])) - 4
  start, lines = rng.randrange(len(sentences)), []
  while room > 0:
    line = sentences[(start + len(lines)) % len(sentences)]
    room -= count(' ' + line)
    lines.append(line)
  lines = lines[:-1] if room < 0 else lines
  places = [round(depth * len(lines))]
  places += [rng.randint(0, len(lines)) for _ in facts[1:]]
  for place, text in sorted(zip(places, facts), reverse=True):
    lines.insert(place, text)
  return ' '.join(lines), question(keys[0]), values[0]
