"""What belongs together: a model, its vocabulary, and the rows it is trained on."""

import dataclasses

from llama3_jax import tokenizer as tokenizers
from llama3_jax import tool_calls
from llama3_jax.base.errors import UserError
from llama3_jax.train import checkpoint


def tokenizer(path, stage, field='tokenizer', call_format=''):
  """The Tokenizer of the stage that a config starts from, compared before any device.

  Args:
    path: of a vocabulary file; '' takes the one that `stage` carries.
    stage: workdir of a finished stage (`init_from`).
    field: of the config, that names `path`.
    call_format: in which calls of tools are written; '': as the stage's model does.

  Raises:
    UserError: the model was trained on another vocabulary, has fewer rows than the
      vocabulary has tokens, or no vocabulary is known. More rows are legal: padding.
  """
  model, known = checkpoint.load_model(stage), checkpoint.identity(stage)
  carried = checkpoint.tokenizer(stage)
  if not path and carried is None:
    raise UserError(
      f'{field} is empty and {stage} carries no vocabulary: give --config.{field}=PATH '
      'of the tokenizer.model it was trained with'
    )
  if call_format not in ('', *tool_calls.FORMATS):
    raise UserError(
      f'data.call_format={call_format!r}: one of {", ".join(tool_calls.FORMATS)}'
    )
  found = tokenizers.Tokenizer.load(path or carried, known['variant'] or '3.1')
  written = call_format or known['call_format'] or 'json'
  found = dataclasses.replace(found, call_format=written)
  way = f'give the tokenizer.model of that model with --config.{field}=PATH'
  if carried is not None:
    way = f"leave it out: --config.{field}='' takes the one beside the model"
  if known['vocabulary'] and known['vocabulary'] != found.fingerprint:
    raise UserError(
      f'{field}={path} is vocabulary {found.fingerprint[:12]}, the model of {stage} '
      f'was trained with {known["vocabulary"][:12]}: {way}'
    )
  if found.vocab_size > model.vocab_size:
    raise UserError(
      f'{field}={path} has {found.vocab_size} tokens, the model of {stage} has '
      f'{model.vocab_size} rows (model.vocab_size): {way}'
    )
  return found


def of_shards(sources):
  """The Tokenizer that shards carry, for the stage that is trained on them; None for
  shards of before."""
  for source in sources.values():
    path = source.folder / 'tokenizer.model'
    if path.exists():
      found = tokenizers.Tokenizer.load(path)
      if found.fingerprint != source.vocabulary:
        raise UserError(
          f'{path} is not the vocabulary that index.json beside it names: write the '
          'folder again'
        )
      return found
  return None


def compare(tokenizer, sources, field):
  """UserError when `tokenizer` (of the config's `field`) did not write the shards."""
  for name, source in sources.items():
    if source.vocabulary != tokenizer.fingerprint:
      raise UserError(
        f'{field} is vocabulary {tokenizer.fingerprint[:12]}, the shards of {name} '
        f'were written with {source.vocabulary[:12]}: give the other tokenizer.model'
      )


def same(field, stage, other_field, other):
  """UserError when two stages were trained on different vocabularies."""
  marks = [checkpoint.identity(folder)['vocabulary'] for folder in (stage, other)]
  if all(marks) and marks[0] != marks[1]:
    raise UserError(
      f'{other_field}={other} was trained with vocabulary {marks[1][:12]}, '
      f'{field}={stage} with {marks[0][:12]}: name stages of one vocabulary'
    )
