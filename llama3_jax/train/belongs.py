"""Checks that a model, its vocabulary and its training rows belong together."""

import dataclasses
import os
from collections.abc import Mapping

from llama3_jax.base.errors import UserError
from llama3_jax.data import shards
from llama3_jax.text import store
from llama3_jax.text import tool_calls
from llama3_jax.text.library import Library
from llama3_jax.text.tokenizer import Tokenizer
from llama3_jax.train import models


def tokenizer(
  path: str | os.PathLike,
  stage: str | os.PathLike,
  field: str = 'tokenizer',
  call_format: str = '',
) -> Tokenizer | Library:
  """The Tokenizer of the stage that a config starts from, checked before device work.

  Args:
    path: of a vocabulary file; '' selects the one stored with `stage`.
    stage: workdir of a finished stage (`init_from`).
    field: name of the config field that holds `path`.
    call_format: format of tool calls; '': that of the stage's model.

  Raises:
    UserError: the model was trained on another vocabulary, has fewer rows than the
      vocabulary has tokens, or no vocabulary is known. More rows are legal: padding.
  """
  model, known = models.config(stage), models.identity(stage)
  carried = models.tokenizer(stage)
  if not path and carried is None:
    raise UserError(
      f'{field} is empty and {stage} carries no vocabulary: give --config.{field}=PATH '
      'of the tokenizer.model it was trained with'
    )
  if call_format not in ('', *tool_calls.FORMATS):
    raise UserError(
      f'data.call_format={call_format!r}: one of {", ".join(tool_calls.FORMATS)}'
    )
  loaded = store.load(path or carried, known['variant'] or '3.1')
  written = call_format or known['call_format'] or 'json'
  loaded = dataclasses.replace(loaded, call_format=written)
  way = f'give the tokenizer.model of that model with --config.{field}=PATH'
  if carried is not None:
    way = f"leave it out: --config.{field}='' takes the one beside the model"
  if known['vocabulary'] and known['vocabulary'] != loaded.fingerprint:
    raise UserError(
      f'{field}={path} is vocabulary {loaded.fingerprint[:12]}, the model of {stage} '
      f'was trained with {known["vocabulary"][:12]}: {way}'
    )
  if loaded.vocab_size > model.vocab_size:
    raise UserError(
      f'{field}={path} has {loaded.vocab_size} tokens, the model of {stage} has '
      f'{model.vocab_size} rows (model.vocab_size): {way}'
    )
  return loaded


def of_shards(sources: Mapping[str, shards.Source]) -> Tokenizer | Library | None:
  """The Tokenizer stored with the shards, for the stage that is trained on them; None
  for shards written before they carried one."""
  for source in sources.values():
    paths = [source.folder / name for name in store.FILES]
    path = next((p for p in paths if p.exists()), None)
    if path:
      loaded = store.load(path)
      if loaded.fingerprint != source.vocabulary:
        raise UserError(
          f'{path} is not the vocabulary that index.json beside it names: write the '
          'folder again'
        )
      return loaded
  return None


def compare(
  tokenizer: Tokenizer | Library, sources: Mapping[str, shards.Source], field: str
) -> None:
  """Raises UserError unless the shards were written with `tokenizer`, which the
  config's `field` names."""
  for name, source in sources.items():
    if source.vocabulary != tokenizer.fingerprint:
      raise UserError(
        f'{field} is vocabulary {tokenizer.fingerprint[:12]}, the shards of {name} '
        f'were written with {source.vocabulary[:12]}: give the other tokenizer.model'
      )


def same(
  field: str, stage: str | os.PathLike, other_field: str, other: str | os.PathLike
) -> None:
  """Raises UserError when two stages were trained on different vocabularies."""
  marks = [models.identity(folder)['vocabulary'] for folder in (stage, other)]
  if all(marks) and marks[0] != marks[1]:
    raise UserError(
      f'{other_field}={other} was trained with vocabulary {marks[1][:12]}, '
      f'{field}={stage} with {marks[0][:12]}: name stages of one vocabulary'
    )
