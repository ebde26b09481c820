"""Files of prompts: texts to be completed, dialogs to be answered."""

import json
import os
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax.base import jsonl
from llama3_jax.base import rows
from llama3_jax.base.errors import UserError
from llama3_jax.generate.engine import Completion
from llama3_jax.text import chat
from llama3_jax.text.library import Library
from llama3_jax.text.tokenizer import Tokenizer


def read(
  path: str | os.PathLike, field: str, tokenizer: Tokenizer | Library
) -> Iterator[tuple[dict, list[int]]]:
  """Yields (row, ids of its prompt) of a file of JSONL, Parquet or CSV.

  A row has `prompt`, a text, or `messages` (also as `prompt`), which end with the
  user's; other fields travel to the row that is written. Raises UserError with file and
  line, or `field` (that of the config) for a missing file.
  """
  for where, row in rows.read(path, field):
    _writable(row, where)
    yield row, encode(row, tokenizer, where)


def _writable(row, where):
  """UserError for a row whose fields cannot be written beside a completion."""
  for name in ('completion', 'completions'):
    if name in row:
      raise UserError(
        f"{where}: field {name} is where the model's is written: rename it"
      )
  if not isinstance(row.get('metadata') or {}, Mapping):
    kind = jsonl.kind(row['metadata'])
    raise UserError(f'{where}: field metadata is a {kind}, not an object: rename it')
  for name, value in row.items():
    try:
      json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
      raise UserError(
        f'{where}: field {name} is {value!r}, which JSON cannot hold: make it a text '
        'or leave the column out'
      ) from None


def encode(row: Mapping, tokenizer: Tokenizer | Library, where: str) -> list[int]:
  """Ids of a row's prompt; a UserError starts with `where`."""
  given = [name for name in ('prompt', 'messages') if row.get(name) is not None]
  if len(given) != 1:
    have = ', '.join(row) or 'nothing'
    raise UserError(
      f'{where}: a prompt is {{"prompt": text}} or {{"messages": [...]}}; this row has '
      f'{have}'
    )
  value = row[given[0]]
  if isinstance(value, str):
    if not value:
      raise UserError(f'{where}: field {given[0]} is empty')
    return tokenizer.encode(value, bos=True)
  if not isinstance(value, list):
    kind = jsonl.kind(value)
    raise UserError(f'{where}: field {given[0]} is a {kind}, not a text or messages')
  messages = [chat.message(turn, where) for turn in value]
  if not messages or messages[-1].role not in ('user', 'ipython'):
    raise UserError(f"{where}: the last message must be the user's, to be answered")
  try:
    return chat.encode(tokenizer, messages, prompt=True).ids.tolist()
  except UserError as error:
    raise UserError(f'{where}: {error}') from None


def completed(
  row: Mapping, made: Sequence[Completion], tokenizer: Tokenizer | Library
) -> dict:
  """A row with its `completion`, with several samples `completions`, and for each in
  `metadata` its tokens and whether it stopped by itself."""
  texts = [tokenizer.decode(one.ids) for one in made]
  about = [{'tokens': len(one.sampled), 'stopped': one.stopped} for one in made]
  before = row.get('metadata')
  kept = before if isinstance(before, Mapping) else {}
  if len(made) == 1:
    return {**row, 'completion': texts[0], 'metadata': {**kept, **about[0]}}
  return {**row, 'completions': texts, 'metadata': {**kept, 'samples': about}}
