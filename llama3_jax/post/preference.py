"""Preference examples; rows of the reward model and DPO (4.1.2, 4.1.4, 4.2.1)."""

import dataclasses
import itertools
import json
import os
import pathlib
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from llama3_jax import chat
from llama3_jax.base.errors import UserError
from llama3_jax.post import rows as rows_lib
from llama3_jax.tokenizer import Tokenizer

MOST = 3  # responses of an example: edited > chosen > rejected
MODES = ('paper', 'exact')
PAIRS = ('all', 'extreme', 'adjacent')


@dataclasses.dataclass(frozen=True)
class Preference:
  """A prompt (any number of turns) and its 2 or 3 responses, best first.

  margin: by how much a better response should win (Llama 2); Llama 3 has none.
  """

  prompt: tuple[chat.Message, ...]
  responses: tuple[str, ...]
  source: str = ''
  margin: float = 0.0


def read(path: str | os.PathLike) -> list[Preference]:
  """Examples of a JSONL file, one a line.

  Each line is {"prompt": [{"role", "content"}], "responses": [best, ..., worst],
  "source": str, "margin"?: float}. Raises UserError with the file and the first bad
  line.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise UserError(f'{path} does not exist: set the preference file of the config')
  examples = []
  for number, line in enumerate(path.read_text(encoding='utf-8').split('\n'), 1):
    if line.strip():
      examples.append(_parse(line, f'{path}, line {number}'))
  return examples


def _parse(line: str, where: str) -> Preference:
  try:
    return parse(json.loads(line), where)
  except ValueError as error:
    raise UserError(f'{where}: not JSON ({error}): repair or remove it') from None


def parse(row: Mapping, where: str) -> Preference:
  """Preference of one JSON row; `where` (file and line) opens the UserError."""
  try:
    turns, responses = list(row['prompt']), tuple(row['responses'])
    margin = float(row.get('margin', 0))
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise UserError(
      f'{where}: not a preference example ({type(error).__name__}: {error}); it needs '
      'prompt (role, content) and responses, best first'
    ) from None
  if not 2 <= len(responses) <= MOST or not all(isinstance(r, str) for r in responses):
    raise UserError(f'{where}: field responses must hold 2 or 3 texts, best first')
  if not turns:
    raise UserError(f'{where}: field prompt is empty')
  prompt = tuple(chat.message(turn, where) for turn in turns)
  return Preference(prompt, responses, row.get('source', ''), margin)


def encode(
  tokenizer: Tokenizer, prompt: Sequence[chat.Message], response: str
) -> tuple[list[int], list[int], np.ndarray, np.ndarray]:
  """Prompt ids (no open header), response ids from its header to its eot, and two masks
  over the response ids: `content` (content and eot), `format` (header and eot)."""
  start = len(chat.encode(tokenizer, list(prompt)).ids)
  whole = chat.encode(tokenizer, [*prompt, chat.Message('assistant', response)])
  return (
    list(whole.ids[:start]),
    list(whole.ids[start:]),
    np.asarray(whole.response[start:], bool),
    np.asarray(whole.format[start:], bool),
  )


def reward_rows(
  examples: Sequence[Preference],
  tokenizer: Tokenizer,
  seq_len: int,
  mode: str = 'paper',
  seed: int = 0,
) -> tuple[dict[str, np.ndarray], int]:
  """Rows of the reward model, and how many examples were too long and dropped.

  mode 'paper' (section 4.2.1): the prompt and all its responses, in random order, in
  one row, int32 [rows, T]; a later response sees the earlier ones. 'exact': a row per
  response, int32 [rows, 3, T], so that none sees another. Beside tokens, targets,
  segment and position: `ends` int32 [rows, 3], the place of the last token of each
  response, best first, -1 where there is no such response; `margin` f32 [rows]; weight
  1 on the tokens of `ends`.
  """
  if mode not in MODES:
    raise UserError(f'data.mode={mode!r} is unknown: use one of {", ".join(MODES)}')
  build = _paper_row if mode == 'paper' else _exact_row
  rng = np.random.default_rng(seed)
  made = []
  for example in examples:
    parts = [encode(tokenizer, example.prompt, text)[:2] for text in example.responses]
    # Drawn for dropped examples too: the order does not depend on seq_len.
    order = rng.permutation(len(parts))
    row = build(parts[0][0], [ids for _, ids in parts], order, seq_len)
    if row is not None:
      made.append({**row, 'margin': np.float32(example.margin)})
  empty = {**build([], [[]], [0], seq_len), 'margin': np.float32(0)}
  return rows_lib.stack(made, empty), len(examples) - len(made)


def _paper_row(prompt, responses, order, seq_len):
  ids, ends = list(prompt), np.full(MOST, -1, np.int32)
  for which in order:
    ids += responses[which]
    ends[which] = len(ids) - 1
  if len(ids) > seq_len:
    return None
  row = rows_lib.place(ids, seq_len)
  weight = np.zeros(seq_len, np.float32)
  weight[ends[ends >= 0]] = 1
  return {**row, 'weight': weight, 'ends': ends}


def _exact_row(prompt, responses, order, seq_len):
  del order  # no response sees another
  if len(prompt) + max(map(len, responses)) > seq_len:
    return None
  ends = np.full(MOST, -1, np.int32)
  made = []
  for which in range(MOST):
    ids = prompt + responses[which] if which < len(responses) else []
    ends[which] = len(ids) - 1
    row = rows_lib.place(ids, seq_len)
    weight = np.zeros(seq_len, np.float32)
    weight[ends[which]] = float(len(ids) > 0)
    made.append({**row, 'weight': weight})
  return {**rows_lib.stack(made, {}), 'ends': ends}


def dpo_pairs(count: int, pairs: str) -> list[tuple[int, int]]:
  """Indices (chosen, rejected) among `count` ranked responses.

  'all': every ordered pair; 'extreme': best and worst; 'adjacent': neighbours.
  """
  if pairs not in PAIRS:
    raise UserError(f'data.pairs={pairs!r} is unknown: use one of {", ".join(PAIRS)}')
  if pairs == 'extreme':
    return [(0, count - 1)]
  if pairs == 'adjacent':
    return [(i, i + 1) for i in range(count - 1)]
  return list(itertools.combinations(range(count), 2))


def dpo_rows(
  examples: Sequence[Preference],
  tokenizer: Tokenizer,
  seq_len: int,
  pairs: str = 'extreme',
) -> tuple[dict[str, np.ndarray], int]:
  """Rows of DPO (section 4.1.4), and how many pairs were too long and dropped.

  tokens, targets, segment, position int32 [pairs, 2, T] (chosen, rejected); weight f32
  [pairs, 2, T]: targets that belong to the response, its eot included (the open header
  is the prompt's, as in generation); contrast f32 [pairs, 2, T]: those of them that are
  not format tokens. `ref_logp` is added by `post.dpo.reference`.
  """
  made, dropped = [], 0
  for example in examples:
    sides = [_dpo_side(tokenizer, example, text, seq_len) for text in example.responses]
    for chosen, rejected in dpo_pairs(len(sides), pairs):
      if sides[chosen] is None or sides[rejected] is None:
        dropped += 1
        continue
      made.append(rows_lib.stack([sides[chosen], sides[rejected]], {}))
  side = {**rows_lib.place([0], seq_len), 'weight': np.zeros(seq_len, np.float32)}
  empty = rows_lib.stack([{**side, 'contrast': side['weight']}] * 2, {})
  return rows_lib.stack(made, empty), dropped


def _dpo_side(tokenizer, example, text, seq_len):
  prompt, response, content, form = encode(tokenizer, example.prompt, text)
  if len(prompt) + len(response) > seq_len:
    return None
  before = np.zeros(len(prompt), bool)
  return {
    **rows_lib.place(prompt + response, seq_len),
    'weight': rows_lib.shift(np.concatenate([before, content]), seq_len),
    'contrast': rows_lib.shift(np.concatenate([before, content & ~form]), seq_len),
  }
