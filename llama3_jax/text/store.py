"""Tokenizers in files: ours and those that lie beside somebody's parameters (3.2)."""

import json
import os
import pathlib
from collections.abc import Mapping

from absl import logging

from llama3_jax.base import files
from llama3_jax.base.errors import UserError
from llama3_jax.text import library
from llama3_jax.text import templated
from llama3_jax.text import tokenizer as llama3
from llama3_jax.text import vocabulary
from llama3_jax.text.library import Library

JSON, CONFIG = 'tokenizer.json', 'tokenizer_config.json'
GENERATION, TEMPLATE = 'generation_config.json', 'chat_template.jinja'
# What `write` leaves; the first that is there is the path by which it is loaded.
FILES = ('tokenizer.model', JSON, CONFIG, GENERATION)
MODEL = ('tokenizer.model', 'original/tokenizer.model')
# Special tokens of Llama 3 that carry its chats.
PROTOCOL = ('<|begin_of_text|>', '<|end_of_text|>', '<|start_header_id|>')
PROTOCOL += ('<|end_header_id|>', '<|eot_id|>', '<|eom_id|>', '<|python_tag|>')
NAMES = ('bos_token', 'eos_token', 'unk_token', 'pad_token', 'sep_token', 'cls_token')


def load(path: str | os.PathLike, variant: str = '3.1') -> llama3.Tokenizer | Library:
  """The tokenizer of a file: Meta's, or a tokenizer.json with what lies beside it.

  variant: of Llama 3's special tokens, see Tokenizer.load.
  """
  path = pathlib.Path(path)
  if path.is_dir() and any((path / name).exists() for name in (*MODEL, JSON)):
    return of_folder(path)
  if path.name == JSON and path.exists():
    return of_folder(path.parent)
  return llama3.Tokenizer.load(path, variant)


def write(
  tokenizer: llama3.Tokenizer | Library, folder: str | os.PathLike, **more: object
) -> None:
  """Writes the files of a tokenizer into a folder, from which `load` reads it back.

  more: further fields of tokenizer_config.json.
  """
  folder = pathlib.Path(folder)
  if isinstance(tokenizer, llama3.Tokenizer):
    (folder / FILES[0]).write_bytes(tokenizer.content)
    return
  (folder / JSON).write_bytes(tokenizer.content)
  settings = dict(tokenizer.tokens, tokenizer_class='PreTrainedTokenizerFast')
  settings |= dict(clean_up_tokenization_spaces=False, **more)
  if tokenizer.template is not None:
    settings['chat_template'] = tokenizer.template.text
  files.write_json(folder / CONFIG, settings)
  files.write_json(folder / GENERATION, {'eos_token_id': list(tokenizer.stop_ids)})


def of_folder(folder: str | os.PathLike) -> llama3.Tokenizer | Library | None:
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
  general = _object(folder / GENERATION)
  tokens = {n: _text(settings[n]) for n in NAMES if settings.get(n) is not None}
  template = _template(folder, settings)
  made = library.read(path.read_bytes(), str(path), tokens, (), template)
  ends = general.get('eos_token_id')
  ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
  if not all(type(i) is int for i in ends):
    raise UserError(f'{folder / GENERATION}: eos_token_id is no id')
  return chatting(library.with_stops(made, ends))


def chatting(tokenizer: Library) -> Library:
  """The same, which also stops where its chat template ends an answer.

  Many models name only the end of a document as their end. A template that does not
  work is left for the chat to refuse.
  """
  if tokenizer.template is None:
    return tokenizer
  try:
    end = templated.end_of_turn(tokenizer)
  except UserError as error:
    logging.warning('%s', error)
    return tokenizer
  missing = end is not None and end not in tokenizer.stop_ids
  return (
    library.with_stops(tokenizer, (*tokenizer.stop_ids, end)) if missing else tokenizer
  )


def of_llama3(found: Library) -> llama3.Tokenizer | None:
  """Llama 3's codec where a tokenizer.json holds its vocabulary, else None.

  It does when the last 256 ids are special tokens and those of the chat protocol are in
  the places that Llama 3 gives them; others of the 256 go by several names.
  """
  n_base = found.vocab_size - llama3.N_SPECIAL
  if n_base < 1 or set(found.specials.values()) != set(range(n_base, found.vocab_size)):
    return None
  for variant in llama3.SPECIALS:
    expected = llama3.special_tokens(n_base, variant)
    needed = [name for name in PROTOCOL if name in expected]
    if all(found.specials.get(name) == expected[name] for name in needed):
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
