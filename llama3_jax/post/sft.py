"""Supervised finetuning (4.1.3): packed rows, prompt masked; cross entropy."""

import dataclasses
import os
from collections.abc import Mapping
from collections.abc import Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from llama3_jax import feed
from llama3_jax.base import jsonl
from llama3_jax.base import log
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.model import llama
from llama3_jax.post import formats
from llama3_jax.post import preference
from llama3_jax.post import rows as rows_lib
from llama3_jax.post import split as shares
from llama3_jax.tasks import suite
from llama3_jax.text import chat
from llama3_jax.text.tokenizer import Tokenizer
from llama3_jax.train import counted
from llama3_jax.train import loss as loss_lib

POSITIONS = ('restart', 'run')
TURNS = ('last', 'all')


@dataclasses.dataclass(frozen=True)
class Dialog:
  """Messages, the last one the assistant's, or a text that is no chat.

  `where` (file and line) is for errors; form: of the file's row, '' where it was made;
  reward: of the row, None where it has none.
  """

  messages: tuple[chat.Message, ...]
  source: str = ''
  text: str = ''
  where: str = dataclasses.field(default='', compare=False)
  form: str = dataclasses.field(default='', compare=False)
  reward: float | None = dataclasses.field(default=None, compare=False)


def read(
  path: str | os.PathLike, field: str = 'data.files', quiet: bool = False
) -> list[Dialog]:
  """Dialogs of a file of rows, in any form of formats.DIALOGS.

  The last message must be the assistant's: text, tool calls, or sampled ids. Raises
  UserError with file and line, or `field` (that of the config) for a missing file.
  """
  rows = formats.read(path, field, formats.DIALOGS, quiet)
  return [
    dataclasses.replace(parse(row, where), form=form) for where, row, form in rows
  ]


def dialogs(data: ConfigDict, seed: int, split: str) -> list[Dialog]:
  """Dialogs of a split by a config's `data`: generated ones, then those of files."""
  n = data['tasks' if split == 'train' else 'heldout_tasks']
  rows = suite.sft_rows(n, seed, split, data.task_names) if n else []
  parsed = [parse(row, f'{split} example {i}') for i, row in enumerate(rows)]
  if split == 'train':
    return parsed + shares.train(data, read, _prompt)
  for path in data.heldout_files:
    parsed += read(path, 'data.heldout_files')
  return parsed + shares.heldout(data, read, _prompt)


def _prompt(dialog):
  return dialog.text or shares.question(dialog.messages[:-1])


def parse(row: Mapping, where: str) -> Dialog:
  """Dialog of one JSON row; a UserError starts with `where` (file and line)."""
  jsonl.known(row, ('messages', 'text', 'source', 'reward'), where)
  if 'text' in row:
    text = jsonl.text(row, 'text', where)
    if not text.strip():
      raise UserError(f'{where}: field text is empty')
    return Dialog((), jsonl.text(row, 'source', where, ''), text, where)
  turns = preference.listed(row, 'messages', where)
  messages = tuple(chat.message(turn, where) for turn in turns)
  if len(messages) < 2 or messages[-1].role != 'assistant':
    raise UserError(
      f"{where}: the last of two or more messages must be the assistant's"
    )
  last = messages[-1]
  if not (last.content or last.calls or last.ids):
    raise UserError(f'{where}: the last message says nothing: there is no answer')
  reward = row.get('reward')
  if reward is not None and type(reward) not in (int, float):
    raise UserError(f'{where}: field reward is {reward!r}: it must be a number')
  source = jsonl.text(row, 'source', where, '')
  return Dialog(messages, source, where=where, reward=reward)


def rows(
  dialogs: Sequence[Dialog],
  tokenizer: Tokenizer,
  seq_len: int,
  position: str = 'restart',
  seed: int = 0,
  turns: str = 'last',
) -> tuple[feed.Tokens, int]:
  """Packed rows [rows,T], and how many dialogs were too long and dropped.

  T is `seq_len`; 0: as long as the longest dialog (rows.fitting).
  The weight is 1 where the target belongs to the final response (its end included),
  with turns 'all' to any response. A row holds several dialogs, each its own segment;
  positions restart with each or run through the row.
  """
  if position not in POSITIONS:
    choices = ', '.join(POSITIONS)
    raise UserError(f'data.positions={position!r} is unknown: use one of {choices}')
  if turns not in TURNS:
    choices = ', '.join(TURNS)
    raise UserError(f'data.turns={turns!r} is unknown: use one of {choices}')
  with log.work(f'encoding {len(dialogs):,} dialogs'):
    encoded = [_supervised(tokenizer, dialog, turns) for dialog in dialogs]
  seq_len = seq_len or rows_lib.fitting(
    max((len(ids) for ids, _ in encoded), default=1)
  )
  encoded = [(ids, mask) for ids, mask in encoded if len(ids) <= seq_len]
  dropped = len(dialogs) - len(encoded)
  rows_lib.tell_dropped(dropped, len(dialogs), seq_len)
  order = np.random.default_rng(seed).permutation(len(encoded))
  encoded = [encoded[i] for i in order]
  packed = rows_lib.first_fit([len(ids) for ids, _ in encoded], seq_len)
  filled = [_row([encoded[i] for i in group], seq_len, position) for group in packed]
  if not filled:
    return feed.empty(feed.Tokens, dict(B=0, T=seq_len)), dropped
  return rows_lib.stack(filled), dropped


def _supervised(tokenizer, dialog, turns):
  """Ids of a dialog, and a mask of those that are trained on."""
  if dialog.text:
    ids = tokenizer.encode(dialog.text, bos=True, eos=True)
    return ids, np.arange(len(ids)) > 0
  *context, last = dialog.messages
  encoded = preference.encode(tokenizer, context, last, dialog.where)
  before = encoded.earlier if turns == 'all' else np.zeros(len(encoded.prompt), bool)
  return encoded.prompt + encoded.response, np.concatenate([before, encoded.content])


def _row(group, seq_len: int, position: str) -> feed.Tokens:
  row = rows_lib.place([], seq_len)
  start = 0
  for number, (ids, mask) in enumerate(group, 1):
    n = len(ids)
    part = rows_lib.place(ids, n, mask)
    part.segment[:] = number
    part.position[:] += start if position == 'run' else 0
    for field in dataclasses.fields(row):
      getattr(row, field.name)[start : start + n] = getattr(part, field.name)
    start += n
  return row


def loss(
  params: llama.Params,
  batch: feed.Tokens,
  config: ModelConfig,
  chunk: int = 1024,
  kept: int = 0,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Cross entropy of the supervised targets, summed, and metric sums.

  kept: of counted.most, the supervised tokens of a row at most, so that no other has
  logits; 0: every token has.
  """
  hidden, _ = llama.forward(params, batch.tokens, batch.position, batch.segment, config)
  _, weight, found = counted.pick(kept, batch.weight, hidden, batch.targets)
  hidden, targets = found
  supervised = batch.replace(weight=weight, targets=targets)
  return loss_lib.head_loss(params, hidden, supervised, config, chunk=chunk)
