"""`final/`: the parameters that a stage hands to the next one, and who they are.

They carry digests, so that damaged data is refused, with its name.
"""

import os
import pathlib
import shutil
from collections.abc import Mapping

import jax
import orbax.checkpoint as ocp

from llama3_jax import config as configs
from llama3_jax.base import files
from llama3_jax.base import processes
from llama3_jax.config import ModelConfig
from llama3_jax.text import store
from llama3_jax.text.library import Library
from llama3_jax.text.tokenizer import Tokenizer
from llama3_jax.train import arrays as stored
from llama3_jax.train import digest

# Identity of parameters of unknown origin.
NOBODY = dict(vocabulary=None, vocab_size=0, variant='', digest='', call_format='')


def save(
  folder: str | os.PathLike,
  params: object,
  model: ModelConfig,
  tokenizer: Tokenizer | Library | None = None,
  origin: Mapping | None = None,
) -> None:
  """Write parameters and their ModelConfig to `folder`, replacing it atomically.

  Args:
    tokenizer: the one whose ids the model reads; its files are stored too.
    origin: what the parameters were made from, JSON-able, for `identity`.
  """
  folder = pathlib.Path(folder).resolve()
  fresh = folder.with_name(folder.name + '.new')
  if jax.process_index() == 0:
    shutil.rmtree(fresh, ignore_errors=True)
  with stored.quiet(), ocp.StandardCheckpointer() as saver:
    try:
      saver.save(fresh / 'params', params)
      saver.wait_until_finished()
    except Exception as e:
      raise stored.explain(e, folder)
  arrays = digest.arrays(params)
  named = NOBODY | {'digest': digest.value(arrays)}
  if tokenizer is not None:
    named['vocabulary'] = tokenizer.fingerprint
    named['vocab_size'] = tokenizer.vocab_size
    named['variant'] = getattr(tokenizer, 'variant', '')
    named['call_format'] = tokenizer.call_format
  if origin is not None:
    named['origin'] = origin
  if jax.process_index() == 0:
    _write_beside(fresh, model, named, tokenizer, arrays)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
  processes.meet('final')  # no process reads the folder before it exists


def _write_beside(folder, model, named, tokenizer, arrays):
  """Write the files beside the arrays of `folder`, and the digests of everything."""
  try:
    files.write_json(folder / 'model.json', configs.model_fields(model).to_dict())
    files.write_json(folder / 'identity.json', named)
    if tokenizer is not None:
      store.write(tokenizer, folder)
    marks = {p.name: digest.content(p.read_bytes()) for p in folder.glob('*.*')}
    files.write_json(folder / 'digests.json', {'files': marks, 'arrays': arrays})
  except OSError as e:
    raise stored.explain(e, folder)
