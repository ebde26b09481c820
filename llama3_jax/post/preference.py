"""Preference examples, and their rows for DPO (4.1.4, 4.2.1)."""

import dataclasses
import functools
import itertools
import os
from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from llama3_jax import feed
from llama3_jax.base import jsonl
from llama3_jax.base import log
from llama3_jax.base.errors import UserError
from llama3_jax.post import formats
from llama3_jax.post import rows as rows_lib
from llama3_jax.post import selection
from llama3_jax.post import split as shares
from llama3_jax.post import turns
from llama3_jax.tasks import suite
from llama3_jax.text import chat
from llama3_jax.text.library import Library
from llama3_jax.text.tokenizer import Tokenizer

FIELDS = ('prompt', 'responses', 'source', 'margin', 'rewards', 'strength', 'models')
FIELDS += ('round', 'id')
MOST = 3  # responses of an example: edited > chosen > rejected
HUGE = 1e30  # limit of a margin: integers in JSON may exceed any float
STRENGTHS = ('marginally', 'slightly', 'better', 'significantly')
PAIRS = ('all', 'extreme', 'adjacent')


@dataclasses.dataclass(frozen=True)
class Preference:
  """A prompt (any number of turns) and its 2 or 3 responses, best first.

  margin: by how much a better response should win (Llama 2); Llama 3 has none.
  strength: how much the chosen response is better than the rejected one, 1 to 4 (of
    STRENGTHS), 0: nobody said. models: of each response. round: of post-training.
  where: file and line, for errors. form: of the file's row, '' where it was made.
  """

  prompt: tuple[chat.Message, ...]
  responses: tuple[chat.Message, ...]
  source: str = ''
  margin: float = 0.0
  strength: int = 0
  models: tuple[str, ...] = ()
  round: int = 0
  id: str = ''
  where: str = dataclasses.field(default='', compare=False)
  form: str = dataclasses.field(default='', compare=False)


def read(
  path: str | os.PathLike,
  field: str = 'data.files',
  quiet: bool = False,
  left: selection.Left | None = None,
) -> list[Preference]:
  """Examples of a file of rows, in any form of formats.PREFERENCES; a dialog gives one
  for each message that people chose.

  A response is a text, or a message as an object ({"content", "calls", "end", ...}).
  Raises UserError with the file and the first bad line, or `field` (that of the config)
  for a missing file. left: takes bad rows instead, and the others are returned; a file
  without a good row raises all the same.
  """
  found, first = [], None

  def bad(error):
    nonlocal first
    first = first or error
    left.add(selection.BAD, str(error))

  lines = formats.read(path, field, formats.PREFERENCES, quiet, left and bad)
  for where, row, form in lines:
    try:
      parts = turns.split(row, where) if 'dialog' in row else [(where, row)]
      made = [parse(part, place) for place, part in parts]
    except UserError as error:
      if left is None:
        raise
      bad(error)
      continue
    found += [dataclasses.replace(example, form=form) for example in made]
  if first and not found:
    raise first
  return found


def of_tasks(n: int, seed: int, split: str, names: Sequence[str]) -> list[Preference]:
  """Generated examples of the verifiable tasks."""
  rows = suite.preference_rows(n, seed, split, names) if n else []
  return [parse(row, f'{split} example {i}') for i, row in enumerate(rows)]


def examples(
  data: ConfigDict, seed: int, split: str, left: selection.Left | None = None
) -> list[Preference]:
  """Examples of a split by a config's `data`: generated ones, then those of files.

  Those of files that are trained on pass the filters of `data` (post/selection.py);
  left: takes what does not, and bad rows of both splits.
  """
  left = selection.Left() if left is None else left
  reader = functools.partial(read, left=left)
  if split == 'train':
    made = of_tasks(data.tasks, seed, split, data.task_names)
    given = selection.chosen(shares.train(data, reader, _prompt), data, left)
    left.tell()
    return made + given
  preferences = of_tasks(data.heldout_tasks, seed, split, data.task_names)
  for path in data.heldout_files:
    preferences += reader(path, 'data.heldout_files')
  return preferences + held(data, left)


def held(data: ConfigDict, left: selection.Left | None = None) -> list[Preference]:
  """The share data.heldout of data.files."""
  reader = functools.partial(read, left=selection.Left() if left is None else left)
  return shares.heldout(data, reader, _prompt)


def _prompt(example):
  return shares.question(example.prompt)


def parse(row: Mapping, where: str) -> Preference:
  """Preference of one JSON row; a UserError starts with `where` (file and line)."""
  jsonl.known(row, FIELDS, where)
  turns = listed(row, 'prompt', where)
  if not turns:
    raise UserError(f'{where}: field prompt is empty')
  prompt = tuple(chat.message(turn, where) for turn in turns)
  if prompt[-1].role not in ('user', 'ipython'):
    raise UserError(
      f"{where}: the last message of prompt is the {prompt[-1].role}'s: end with the "
      "user's, or with a tool's output"
    )
  values = listed(row, 'responses', where)
  if not 2 <= len(values) <= MOST:
    raise UserError(f'{where}: field responses must hold 2 or 3 answers, best first')
  responses = tuple(_response(value, where) for value in values)
  plain = [dataclasses.replace(m, ids=None, vocabulary='') for m in responses]
  for i, j in itertools.combinations(range(len(plain)), 2):
    if plain[i] == plain[j]:
      raise UserError(
        f'{where}: responses {i + 1} and {j + 1} are equal, so neither is better: '
        'remove one'
      )
  margin = row.get('margin', 0)
  if type(margin) not in (int, float) or not 0 <= margin < HUGE:
    raise UserError(f'{where}: field margin is {margin!r}, not a number from 0')
  return Preference(
    prompt,
    responses,
    jsonl.text(row, 'source', where, ''),
    float(margin),
    _strength(row.get('strength'), where),
    _models(row, len(responses), where),
    _round(row.get('round', 0), where),
    str(row.get('id', '')),
    where,
  )


def _strength(value, where):
  """1 to 4 of a number, or of a name such as 'significantly better'; 0 of None."""
  if value is None:
    return 0
  if isinstance(value, str):
    name = value.strip().lower().removesuffix(' better') or value
    if name in STRENGTHS:
      return STRENGTHS.index(name) + 1
  if type(value) is int and 1 <= value <= len(STRENGTHS):
    return value
  raise UserError(
    f'{where}: field strength is {value!r}: use 1 to 4, or {", ".join(STRENGTHS)}'
  )


def _models(row, count, where):
  names = row.get('models') or []
  if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
    raise UserError(f'{where}: field models must be a list of names, one a response')
  if names and len(names) != count:
    raise UserError(
      f'{where}: field models has {len(names)} names for {count} responses: name the '
      "model of each, 'person' where a person edited it"
    )
  return tuple(names)


def _round(value, where):
  if type(value) is not int or value < 0:
    raise UserError(f'{where}: field round is {value!r}, not a whole number from 0')
  return value


def listed(row: Mapping, name: str, where: str) -> list:
  """The list in a field of a row; UserError when it is missing or is no list."""
  if not isinstance(row.get(name), list):
    what = f'is a {jsonl.kind(row[name])}' if name in row else 'is missing'
    raise UserError(f'{where}: field {name!r} {what}: it must be a list')
  return row[name]


def _response(value, where):
  if isinstance(value, str):
    return chat.Message('assistant', value)
  if not isinstance(value, Mapping):
    raise UserError(
      f'{where}: field responses holds a {jsonl.kind(value)}: each is a text, or an '
      'object {"content", "calls", "end"}'
    )
  message = chat.message(value, where, 'assistant')
  if message.role != 'assistant':
    raise UserError(f"{where}: a response is the assistant's, not of {message.role!r}")
  return message


class Ids(NamedTuple):
  """A dialog as ids: the prompt (no open header) and the last response, from its
  header to its end, with bool masks: `content` (text and end) and `format` (header and
  end) of the response, `earlier` (the assistant's turns) of the prompt.
  """

  prompt: list[int]
  response: list[int]
  content: np.ndarray
  format: np.ndarray
  earlier: np.ndarray


def encode(
  tokenizer: Tokenizer | Library,
  prompt: Sequence[chat.Message],
  response: chat.Message,
  where: str = '',
) -> Ids:
  """Ids and masks of `response` after `prompt`; a UserError starts with `where`."""
  try:
    opened = isinstance(tokenizer, Library)  # a template writes no header alone
    before = chat.encode(tokenizer, prompt, prompt=opened).ids
    whole = chat.encode(tokenizer, [*prompt, response])
    start = len(before)
    if not np.array_equal(whole.ids[:start], before):
      raise UserError('its prompt has other ids with the answer than without it')
  except UserError as error:
    raise UserError(f'{where}: {error}' if where else str(error)) from None
  ids, mask = whole.ids.tolist(), np.asarray(whole.response, bool)
  form = np.asarray(whole.format, bool)
  return Ids(ids[:start], ids[start:], mask[start:], form[start:], mask[:start])


def dpo_pairs(count: int, pairs: str) -> list[tuple[int, int]]:
  """Indices (chosen, rejected) among `count` ranked responses.

  'all': every ordered pair; 'extreme': best and worst; 'adjacent': neighbours.
  """
  if pairs not in PAIRS:
    raise UserError(f'data.pairs={pairs!r} is unknown: use one of {", ".join(PAIRS)}')
  if pairs == 'extreme':
    return [(0, count - 1)]
  if pairs == 'adjacent':
    return [(i, i + 1) for i in range(count - 1)]
  return list(itertools.combinations(range(count), 2))


def pairs(
  config: ConfigDict, tokenizer: Tokenizer | Library, split: str, length: int
) -> tuple[feed.Pairs, int, list[dict]]:
  """`dpo_rows` of `length` tokens of the examples of a split, by a config's `data`; and
  how many examples there are of each file and form."""
  found = examples(config.data, config.seed, split)
  rows, dropped = dpo_rows(found, tokenizer, length, config.data.pairs)
  return rows, dropped, formats.counted(found)


def dpo_rows(
  examples: Sequence[Preference],
  tokenizer: Tokenizer | Library,
  seq_len: int,
  pairs: str = 'extreme',
) -> tuple[feed.Pairs, int]:
  """Rows of DPO (section 4.1.4), and how many pairs were too long and dropped.

  The weight is 1 on targets of the response, its eot included (the open header belongs
  to the prompt, as in generation); contrast is 1 on those that are not format tokens.
  `ref_logp` is 0 until `post.reference.known` sets it.
  """
  with log.work(f'encoding {len(examples):,} preferences'):
    known = [encoded(tokenizer, example) for example in examples]
  seq_len = seq_len or longest(known, False)
  rows, dropped = [], 0
  for parts in known:
    sides = [_dpo_side(part, seq_len) for part in parts]
    for chosen, rejected in dpo_pairs(len(sides), pairs):
      if sides[chosen] is None or sides[rejected] is None:
        dropped += 1
        continue
      rows.append(rows_lib.stack([sides[chosen], sides[rejected]]))
  rows_lib.tell_dropped(dropped, len(rows) + dropped, seq_len)
  if not rows:
    return feed.empty(feed.Pairs, dict(B=0, A=2, T=seq_len)), dropped
  return rows_lib.stack(rows), dropped


def longest(examples: Sequence[Sequence[Ids]], together: bool) -> int:
  """Tokens of rows for the longest example, with all its responses or each alone."""
  responses = sum if together else max
  sizes = [
    len(parts[0].prompt) + responses(len(part.response) for part in parts)
    for parts in examples
  ]
  return rows_lib.fitting(max(sizes, default=1))


def encoded(tokenizer: Tokenizer | Library, example: Preference) -> list[Ids]:
  """The `encode` of each response, best first."""
  return [
    encode(tokenizer, example.prompt, m, example.where) for m in example.responses
  ]


def _dpo_side(part, seq_len):
  ids = part.prompt + part.response
  if len(ids) > seq_len:
    return None
  before = np.zeros(len(part.prompt), bool)
  supervised = np.concatenate([before, part.content])
  contrast = np.concatenate([before, part.content & ~part.format])
  row = rows_lib.place(ids, seq_len, supervised)
  more = rows_lib.place(ids, seq_len, contrast).weight
  fields = {f.name: getattr(row, f.name) for f in dataclasses.fields(row)}
  return feed.Pairs(**fields, contrast=more, ref_logp=np.float32(0))
