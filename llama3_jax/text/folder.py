"""The tokenizer beside somebody's parameters, whatever its files are (3.2)."""

import json
import os
import pathlib
from collections.abc import Mapping

from llama3_jax import tokenizer as llama3
from llama3_jax import vocabulary
from llama3_jax.base.errors import UserError
from llama3_jax.text import library
from llama3_jax.text.library import Library

JSON, CONFIG = 'tokenizer.json', 'tokenizer_config.json'
TEMPLATE = 'chat_template.jinja'
MODEL = ('tokenizer.model', 'original/tokenizer.model')
NAMES = ('bos_token', 'eos_token', 'unk_token', 'pad_token', 'sep_token', 'cls_token')


def read(folder: str | os.PathLike) -> llama3.Tokenizer | Library | None:
  """The tokenizer of a folder; None where it has no file of one.

  Llama 3's own vocabulary comes as the exact codec of this code, from Meta's file or
  from tokenizer.json. Raises UserError for a file of a kind that is not known.
  """
  folder = pathlib.Path(folder)
  if (folder / JSON).exists():
    found = _library(folder)
    return of_llama3(found) or found
  for name in MODEL:
    path = folder / name
    if path.exists():
      if path.read_bytes()[:1] == b'\n':  # protobuf: field 1, a message
        raise UserError(
          f'{path} is a vocabulary of sentencepiece: give the {JSON} of the model, '
          'which says the same and more'
        )
      return llama3.Tokenizer.load(path)
  return None


def _library(folder):
  path = folder / JSON
  settings = _object(folder / CONFIG)
  general = _object(folder / 'generation_config.json')
  tokens = {n: _text(settings[n]) for n in NAMES if settings.get(n) is not None}
  template = _template(folder, settings)
  made = library.read(path.read_bytes(), str(path), tokens, (), template)
  ends = general.get('eos_token_id')
  ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
  if not all(type(i) is int for i in ends):
    raise UserError(f'{folder}/generation_config.json: eos_token_id is no id')
  return library.with_stops(made, ends)


def of_llama3(found: Library) -> llama3.Tokenizer | None:
  """Llama 3's codec where a tokenizer.json holds its vocabulary, else None.

  It does when the ids after those of plain tokens are exactly the 256 special ones.
  """
  names = sorted(found.specials, key=found.specials.get)
  n_base = found.vocab_size - llama3.N_SPECIAL
  for variant in llama3.SPECIALS:
    expected = llama3.special_tokens(n_base, variant)
    if n_base > 0 and names == list(expected) and found.specials == expected:
      break
  else:
    return None
  vocab = json.loads(found.content)['model']['vocab']
  table = vocabulary.byte_characters()
  ranks = {bytes(table[c] for c in text): i for text, i in vocab.items() if i < n_base}
  return llama3.of_ranks(ranks, variant)


def _template(folder, settings):
  """Source of the chat template: a file of its own, or a field; None: there is none."""
  path = folder / TEMPLATE
  if path.exists():
    return path.read_text('utf-8')
  value = settings.get('chat_template')
  if isinstance(value, list):  # several by name
    named = {entry.get('name'): entry.get('template') for entry in value}
    value = named.get('default') or next(iter(named.values()), None)
  if value is not None and not isinstance(value, str):
    raise UserError(f'{folder / CONFIG}: chat_template is no text')
  return value


def _text(value):
  """A special token as text; transformers also writes {"content": text, ...}."""
  return value.get('content', '') if isinstance(value, Mapping) else str(value)


def _object(path):
  """The object of a JSON file that may be missing."""
  if not path.exists():
    return {}
  try:
    value = json.loads(path.read_text('utf-8'))
  except (OSError, ValueError, RecursionError) as error:
    raise UserError(f'{path} is not readable as JSON ({error})') from None
  if not isinstance(value, dict):
    raise UserError(f'{path} is not an object of JSON')
  return value
