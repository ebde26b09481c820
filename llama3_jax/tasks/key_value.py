"""Key-value retrieval: the value of one of many random keys (arXiv 2307.03172; 5.2).

--config.tasks="('key_value=140',)" makes objects of 140 pairs; a file of rows
{"ordered_kv_records", "key", "value"} may be named instead. The summary has the score
for each fifth of the object in which the key stands.
"""

import json
import uuid
from collections.abc import Mapping

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.tasks import reading
from llama3_jax.tasks import task

PAIRS = 75
FIFTHS = ('first', 'second', 'third', 'fourth', 'last')


def create(source: str = '') -> task.Task:
  """The Task of a number of pairs (75), or of the files 'TEST' or 'TEST,TRAIN'."""
  how = dict(score=score, prompt=prompt, page=page, summary=summary)
  how |= dict(max_new=64, shots=0)
  if source and not source.isdecimal():
    return reading.create(source, ('kv_75.jsonl.gz', 'kv.jsonl'), parse, **how)
  count = int(source or PAIRS)
  if count < 2:
    raise UserError(f'tasks: key_value={source}: two pairs or more')

  def make(rng):
    name = lambda: str(uuid.UUID(int=rng.getrandbits(128), version=4))
    pairs = [(name(), name()) for _ in range(count)]
    return _example(pairs, rng.randrange(count))

  return task.generated('key_value', make, **how)


def prompt(e: task.Example) -> str:
  """The user's message: the object and its key."""
  return f'{e.prompt}\nAnswer with the value of this key alone.'


def page(e: task.Example) -> str:
  """The text for a base model, up to the value."""
  return f'{e.prompt}\nValue:'


def parse(row: Mapping, where: str) -> task.Example:
  """The Example of {"ordered_kv_records": [[key, value], ...], "key", "value"}."""
  pairs, key = row.get('ordered_kv_records'), jsonl.text(row, 'key', where)
  if not isinstance(pairs, list) or not all(
    isinstance(p, list) and len(p) == 2 and all(isinstance(t, str) for t in p)
    for p in pairs
  ):
    raise UserError(f"{where}: field 'ordered_kv_records' is no list of pairs of texts")
  keys = [k for k, _ in pairs]
  if keys.count(key) != 1:
    raise UserError(f'{where}: the key {key!r} is {keys.count(key)} times there')
  if pairs[keys.index(key)][1] != jsonl.text(row, 'value', where):
    raise UserError(f'{where}: the value is not the one of the key')
  return _example(pairs, keys.index(key))


def _example(pairs, at):
  key, value = pairs[at]
  text = json.dumps(dict(pairs), indent=0)
  asked = f'Data, as JSON:\n{text}\n\nKey: "{key}"'
  fifth = FIFTHS[at * len(FIFTHS) // len(pairs)]
  return task.Example(asked, value, checks=(fifth,))


def score(e: task.Example, response: str) -> float:
  """1.0 when the response has the value."""
  return float(e.answer.lower() in response.lower())


summary = task.by_kind(score, name=lambda n: f'{n} fifth', order=FIFTHS.index)
