"""The loss of a model on your own text (5.1)."""

import math
import pathlib
from collections.abc import Sequence

from llama3_jax.base import processes
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.data import gather
from llama3_jax.data import shards
from llama3_jax.data import texts
from llama3_jax.data import tokenise
from llama3_jax.eval import run
from llama3_jax.model import llama
from llama3_jax.text.library import Library
from llama3_jax.text.tokenizer import Tokenizer


def measure(
  given: Sequence[str],
  folder: pathlib.Path,
  params: llama.Params,
  model: ModelConfig,
  tokenizer: Tokenizer | Library,
  batch: int,
  length: int,
  batches: int,
  positions: str = 'row',
) -> dict[str, float]:
  """Loss on text in files, folders or patterns, which are read into `folder`.

  Of rows of `length` tokens, `batches` of `batch` rows at most.

  Returns:
    {'loss': nats a token, 'bits_per_byte', 'tokens' and 'documents' of all the text,
    'measured': tokens whose loss was taken}.
  """
  if processes.first():
    gather.write(given, folder / 'text')
    tokenise.write(_documents(folder), tokenizer, folder / 'tokens', heldout=0)
  processes.meet('text')
  source = shards.open_source(folder / 'tokens', limit=model.vocab_size)
  index = source.index
  how = {'text': source}, batch, length, batches, positions
  loss = run.held_out(params, model, *how).get('text')
  if loss is None:
    raise UserError(
      f'text: {index["tokens"]} tokens are fewer than a row of shards.length={length}:'
      ' give more text or lower it'
    )
  size = sum(len(row['text'].encode('utf-8', 'replace')) for row in _documents(folder))
  pairs = index['tokens'] - index['documents']  # the first of a document has no loss
  return {
    'loss': loss,
    'bits_per_byte': loss / math.log(2) * pairs / size,
    'measured': min(pairs, batch * length * batches),
    'tokens': index['tokens'],
    'documents': index['documents'],
  }


def _documents(folder):
  for path in texts.below(folder / 'text'):
    yield from texts.read(path, 'text')
