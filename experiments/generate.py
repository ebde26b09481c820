"""Completions of texts, and answers to dialogs, by a model.

  python -m experiment --config=generate --init_from=runs/own --prompt='Once upon'
  python -m experiment --config=generate --init_from=smollm2 --files=prompts.jsonl \\
    --workdir=runs/generate

A row of a file is {"prompt": text}, which is completed, or {"messages": [...]} (also
{"prompt": [...]}), which is answered in a chat; JSONL, Parquet or CSV. Prints the
completion of --prompt; the rows of files with their completions are written to
completions.jsonl (to standard output without --workdir), in order, and the same command
resumes where it stopped.
"""

import dataclasses
import json
import sys

from absl import logging

from llama3_jax import config as configs
from llama3_jax import workdir as workdirs
from llama3_jax.base.errors import UserError
from llama3_jax.generate import engine
from llama3_jax.generate import prompts
from llama3_jax.generate import stages
from llama3_jax.generate.settings import Settings
from llama3_jax.model import rowwise
from llama3_jax.talk import dialog
from llama3_jax.train import belongs
from llama3_jax.train import models

ALONE = True  # one process writes
NO_WORKDIR = True  # rows are printed where it is left out
GROUP = 8  # batches between two writes


def main(config, workdir):
  """Complete; returns {'prompts', 'completions', 'tokens'}."""
  folder = workdirs.claim(config, workdir) if workdir else None
  if bool(config.prompt) == bool(config.files):
    raise UserError("give either --prompt='...' or --files=prompts.jsonl")
  # Refused before anything is read.
  rowwise.check(config.weights)
  configs.fill(Settings(), config.sample, 'sample')
  tokenizer = belongs.tokenizer(config.tokenizer, config.init_from)
  own = Settings(vocab_size=tokenizer.vocab_size)
  settings = configs.fill(own, config.sample, 'sample')
  rows = [({'prompt': config.prompt}, tokenizer.encode(config.prompt, bos=True))]
  if config.files:
    rows = [r for path in config.files for r in prompts.read(path, 'files', tokenizer)]
  params, model = models.load(config.init_from)
  params = stages.prepared(params, model, config.weights)
  how = params, model, tokenizer, settings
  if config.prompt and config.samples == 1:
    tokens = _print(rows[0][1], *how, config.seed)
  else:
    tokens = _write(config, folder, rows, *how)
  return {'prompts': len(rows), 'completions': len(rows) * config.samples} | tokens


def _print(ids, params, model, tokenizer, settings, seed):
  """Prints a text and its completion, token by token."""
  sampled, room = [], engine.room(len(ids) + settings.max_new)
  made = engine.Engine(params, model, engine.one(room, model))

  def tokens():
    for token in engine.stream(made, ids, tokenizer.stop_ids, settings, seed):
      sampled.append(token)
      yield token

  sys.stdout.write(tokenizer.decode(ids[1:] if ids[0] == tokenizer.bos else ids))
  for piece in dialog.pieces(tokenizer, tokens()):
    sys.stdout.write(piece)
    sys.stdout.flush()
  sys.stdout.write('\n')
  return {'tokens': len(sampled)}


def _write(config, folder, rows, params, model, tokenizer, settings):
  """Writes the rows with their completions, group by group, from where it stopped."""
  size, tokens = GROUP * config.batch, 0
  # One engine for all, also after a stop: the same shapes give the same bits.
  longest = max(len(ids) for _, ids in rows) + settings.max_new
  sizes = engine.sizes(longest, config.batch, config.samples)
  sizes = dataclasses.replace(sizes, microbatches=config.microbatches)
  made_by = engine.Engine(params, model, sizes)
  for start in range(_done(folder), len(rows), size):
    part = rows[start : start + size]
    made = engine.complete(
      *(made_by, [ids for _, ids in part], tokenizer.stop_ids, settings),
      *(config.seed, config.samples),
    )
    tokens += sum(len(one.sampled) for group in made for one in group)
    _append(
      folder, [prompts.completed(r, g, tokenizer) for (r, _), g in zip(part, made)]
    )
    if folder is not None:
      logging.info('%d of %d prompts completed', start + len(part), len(rows))
  return {'tokens': tokens}


def _path(folder):
  return folder / 'completions.jsonl'


def _done(folder):
  """Whole rows that an earlier start has written; the rest of its file is cut off."""
  if folder is None or not _path(folder).exists():
    return 0
  whole = _path(folder).read_bytes()
  end = whole.rfind(b'\n') + 1
  with open(_path(folder), 'r+b') as file:
    file.truncate(end)
  return whole[:end].count(b'\n')


def _append(folder, rows):
  lines = ''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows)
  if folder is None:
    sys.stdout.write(lines)
    sys.stdout.flush()
    return
  with open(_path(folder), 'a', encoding='utf-8', errors='backslashreplace') as file:
    file.write(lines)
