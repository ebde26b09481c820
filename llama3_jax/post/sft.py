"""Supervised finetuning (4.1.3): packed rows, prompt masked; cross entropy."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from collections.abc import Sequence

import jax
import numpy as np

from llama3_jax import chat
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.model import llama
from llama3_jax.post import preference
from llama3_jax.post import rows as rows_lib
from llama3_jax.tokenizer import Tokenizer
from llama3_jax.train import loss as loss_lib

POSITIONS = ('restart', 'run')


@dataclasses.dataclass(frozen=True)
class Dialog:
  """Context (all turns but the last) and the assistant's final response."""

  context: tuple[chat.Message, ...]
  response: str
  source: str = ''


def read(path: str | os.PathLike) -> list[Dialog]:
  """Dialogs of a JSONL file: {"messages": [{"role", "content"}], "source": str}.

  The last message must be the assistant's. Raises UserError with file and line.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise UserError(f'{path} does not exist: set the SFT file of the config')
  dialogs = []
  for number, line in enumerate(path.read_text(encoding='utf-8').split('\n'), 1):
    if line.strip():
      dialogs.append(_parse(line, f'{path}, line {number}'))
  return dialogs


def _parse(line: str, where: str) -> Dialog:
  try:
    return parse(json.loads(line), where)
  except ValueError as error:
    raise UserError(f'{where}: not JSON ({error}): repair or remove it') from None


def parse(row: Mapping, where: str) -> Dialog:
  """Dialog of one JSON row; `where` (file and line) opens the UserError."""
  try:
    turns = list(row['messages'])
  except (KeyError, TypeError) as error:
    raise UserError(
      f'{where}: not an SFT example ({type(error).__name__}: {error}); it needs '
      "messages (role, content), the last of them the assistant's"
    ) from None
  messages = [chat.message(turn, where) for turn in turns]
  if len(messages) < 2 or messages[-1].role != 'assistant':
    raise UserError(
      f"{where}: the last of two or more messages must be the assistant's"
    )
  return Dialog(tuple(messages[:-1]), messages[-1].content, row.get('source', ''))


def rows(
  dialogs: Sequence[Dialog],
  tokenizer: Tokenizer,
  seq_len: int,
  position: str = 'restart',
  seed: int = 0,
) -> tuple[dict[str, np.ndarray], int]:
  """Packed rows, and how many dialogs were too long and dropped.

  tokens, targets, segment, position int32 [rows, T]; weight f32 [rows, T] is 1 where
  the target belongs to the final response (its eot included). A row holds several
  dialogs, each its own segment; positions restart with each or run through the row.
  """
  if position not in POSITIONS:
    choices = ', '.join(POSITIONS)
    raise UserError(f'data.position={position!r} is unknown: use one of {choices}')
  encoded, dropped = [], 0
  for dialog in dialogs:
    prompt, response, content, _ = preference.encode(
      tokenizer, dialog.context, dialog.response
    )
    ids = prompt + response
    mask = np.concatenate([np.zeros(len(prompt), bool), content])
    if len(ids) > seq_len:
      dropped += 1
    else:
      encoded.append((ids, mask))
  order = np.random.default_rng(seed).permutation(len(encoded))
  packed = _pack([encoded[i] for i in order], seq_len)
  made = [_row(group, seq_len, position) for group in packed]
  return rows_lib.stack(made, _row([], seq_len, position)), dropped


def _pack(examples, seq_len: int, open_rows: int = 32):
  """First fit over the last `open_rows` rows."""
  packed, free = [], []
  for example in examples:
    size = len(example[0])
    first = max(len(packed) - open_rows, 0)
    for i in range(first, len(packed)):
      if free[i] >= size:
        packed[i].append(example)
        free[i] -= size
        break
    else:
      packed.append([example])
      free.append(seq_len - size)
  return packed


def _row(group, seq_len: int, position: str) -> dict[str, np.ndarray]:
  row = rows_lib.place([], seq_len)
  row['weight'] = np.zeros(seq_len, np.float32)
  start = 0
  for number, (ids, mask) in enumerate(group, 1):
    n = len(ids)
    part = rows_lib.place(ids, n)
    part['segment'] *= number
    part['position'] += start if position == 'run' else 0
    part['weight'] = rows_lib.shift(mask, n)
    for name, values in part.items():
      row[name][start : start + n] = values
    start += n
  return row


def loss(
  params: llama.Params, batch: Mapping, config: ModelConfig, chunk: int = 1024
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Cross entropy of the supervised targets, summed, and metric sums."""
  return loss_lib.next_token(params, batch, config, chunk=chunk)
