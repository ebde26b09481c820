"""Log-probabilities of pairs under the reference, once and kept on disk (4.1.4)."""

import json
import os
import pathlib
import zipfile
from collections.abc import Callable
from collections.abc import Mapping

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from llama3_jax import config as configs
from llama3_jax import feed
from llama3_jax.base import files
from llama3_jax.base import log
from llama3_jax.base import processes
from llama3_jax.config import ModelConfig
from llama3_jax.generate import likelihood as trees
from llama3_jax.model import llama
from llama3_jax.post import rows as rows_lib
from llama3_jax.text.tokenizer import Tokenizer
from llama3_jax.train import digest
from llama3_jax.train import likelihood
from llama3_jax.train import models

BROKEN = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


def marks(
  init_from: str | os.PathLike, model: ModelConfig, tokenizer: Tokenizer
) -> dict[str, str]:
  """Fingerprints of what decides a log-probability beside the rows; weights is '' for
  a folder of parameters without digests, of which nothing is kept."""
  return {
    'weights': models.identity(init_from)['digest'],
    'model': digest.value(configs.model_fields(model).to_dict()),
    'tokenizer': tokenizer.fingerprint,
  }


def known(
  rows: feed.Pairs,
  params: Callable[[], llama.Params],
  config: ModelConfig,
  path: str | os.PathLike,
  known_by: Mapping[str, str],
  size: int = 16,
  chunk: int = 1024,
) -> feed.Pairs:
  """`rows` with `ref_logp` f32 [pairs,2], from the file `path` if it is of the same
  weights, tokenizer and rows; else computed and written there.

  Args:
    params: () -> the reference, which is asked only where it is needed.
    known_by: of `marks`; size: rows at a time; chunk: as of likelihood.of_rows.
  """
  wanted = json.dumps({**known_by, 'rows': rows_lib.digest(rows)}, sort_keys=True)
  path, kept = pathlib.Path(path), bool(known_by['weights'])
  found = _agreed(_read(path, wanted) if kept and processes.first() else None, rows)
  if found is not None:
    return rows.replace(ref_logp=found)
  rows = compute(params(), rows, config, size, chunk)
  if kept and processes.first():
    _write(path, wanted, rows.ref_logp)
  return rows


def compute(
  params: llama.Params,
  rows: feed.Pairs,
  config: ModelConfig,
  size: int = 16,
  chunk: int = 1024,
) -> feed.Pairs:
  """`rows` with `ref_logp` f32 [pairs,2]: log-probabilities of the tokens of `contrast`
  under `params`.

  In float32 on one device the prompt of a pair is read once for both answers; elsewhere
  the rounding of the two ways differs by more than 1e-5 a token.
  """
  with log.work(f'log-probabilities of {len(rows.tokens):,} pairs before training'):
    if _plain(config) and (texts := _texts(rows)) is not None:
      return rows.replace(ref_logp=_of_texts(params, texts, config))
    contrast = rows.replace(weight=rows.contrast)
    logp = likelihood.of_rows(params, contrast, config, size, chunk)
  return rows.replace(ref_logp=logp.reshape(-1, 2))


def _plain(config):
  """Whether the engine's forward rounds as the training step's."""
  mesh = jax.sharding.get_mesh()
  alone = mesh.empty or mesh.size == 1
  return alone and config.dtype == 'float32' and not (config.quant or config.window)


def _texts(rows):
  """[(prompt, answer)] of all answers in order, ids of the tokens before those that are
  compared, and these; None where such tokens are apart."""
  texts, arrays = [], (rows.tokens, rows.targets, rows.contrast)
  for ids, targets, mask in zip(*(x.reshape(-1, x.shape[-1]) for x in arrays)):
    at = np.flatnonzero(mask)
    if len(at) and at[-1] - at[0] + 1 != len(at):
      return None
    first = at[0] + 1 if len(at) else 0
    texts.append((ids[:first].tolist(), targets[at].tolist()))
  return texts


def _of_texts(params, texts, config):
  """Log-probability of every answer, f32 [pairs,2]; 0 of one without a token."""
  total = np.zeros(len(texts), np.float32)
  some = [i for i, (_, answer) in enumerate(texts) if answer]
  if some:
    asked = zip(*(texts[i] for i in some))
    total[some] = trees.of_answers(params, *asked, config)
  return total.reshape(-1, 2)


def _agreed(found, rows):
  """What the first process found, in all of them: all must compute, or none."""
  if jax.process_count() == 1:
    return found
  empty = np.zeros((len(rows.tokens), 2), np.float32)
  there = found is not None
  given = np.bool_(there), found if there else empty
  there, found = multihost_utils.broadcast_one_to_all(given)
  return np.asarray(found) if there else None


def _read(path, wanted):
  """The values in a file that was written for `wanted`, or None."""
  if not path.exists():
    return None
  try:
    with np.load(path, allow_pickle=False) as kept:
      said, logp, mark = str(kept['marks']), kept['logp'], str(kept['digest'])
    if mark != _digest(said, logp):
      raise ValueError('its digest is another')
  except BROKEN as error:
    logging.warning('%s is damaged (%s): it is computed again', path, error)
    return None
  if said != wanted:
    old, new = json.loads(said), json.loads(wanted)
    changed = ', '.join(name for name in new if old.get(name) != new[name])
    logging.info('%s is of other %s: it is computed again', path, changed)
    return None
  return logp


def _write(path, wanted, logp):
  with files.renamed(path) as partial, open(partial, 'wb') as f:
    np.savez(f, logp=logp, marks=wanted, digest=_digest(wanted, logp))


def _digest(said, logp):
  return digest.content(said.encode() + np.ascontiguousarray(logp).tobytes())
