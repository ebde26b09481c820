"""Readers of public preferences of people, as rows of ours (4.2.1).

Files, as in the data sets' own repositories:
  pref_qa_feedback/triples_edited.jsonl              question, context?, edited, ...
  pref_pandalm/testset_first800.json                 instruction, input, response1, ...
  pref_hh_harmless/harmless_test_first2000.jsonl.gz  chosen, rejected: whole dialogs
  sft_pref_demo/dpo_en_demo.json                     conversations, chosen, rejected
"""

import collections
import json
import os
import re
from collections.abc import Mapping

from absl import logging

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.data import assets

TRIPLES = 'pref_qa_feedback/triples_edited.jsonl'
PANDALM = 'pref_pandalm/testset_first800.json'
HARMLESS = 'pref_hh_harmless/harmless_test_first2000.jsonl.gz'
DEMO = 'sft_pref_demo/dpo_en_demo.json'
TRIPLE = {name: str for name in ('question', 'edited', 'chosen', 'rejected')}
TRIPLE['context'] = assets.OPTIONAL
LABELS = ('annotator1', 'annotator2', 'annotator3')
STRENGTH = {3: 'better', 2: 'slightly'}  # by how many of three agree
TURN = re.compile(r'\n\n(Human|Assistant): ?')
ROLES = {'Human': 'user', 'Assistant': 'assistant', 'system': 'system'}
ROLES |= {'human': 'user', 'gpt': 'assistant'}


def preferences(
  folder: str | os.PathLike, name: str, context: int = 0, longest: int = 0
) -> list[dict]:
  """Preference rows of one of SETS, labelled by people.

  context: characters of the passage before a question, where there is one; longest:
  characters of the prompt and all responses, more are left out; 0: none are.
  """
  if name not in SETS:
    raise UserError(f'sets: {name!r} is unknown: there are {", ".join(SETS)}')
  read = SETS[name](folder, context)
  rows = [row for row in read if row]
  for i, row in enumerate(rows):
    row |= {'source': name, 'id': f'{name} {i}'}
  kept = [row for row in rows if not longest or size(row) <= longest]
  logging.info(
    '%s: %d of %d rows; %d have no better answer, %d more than %d characters',
    *(name, len(kept), len(read), len(read) - len(rows), len(rows) - len(kept)),
    longest,
  )
  return kept


def size(row: Mapping) -> int:
  """Characters of the prompt and all responses of a row."""
  asked = sum(len(m['content']) for m in row['prompt'])
  return asked + sum(map(len, row['responses']))


def _qa_feedback(folder, context):
  """Questions with an edited > a chosen > a rejected answer."""
  rows = []
  for _, row in assets.read(folder, TRIPLES, TRIPLE):
    passage = row.get('context', '')[:context]
    question = f'{passage}\n{row["question"]}' if passage else row['question']
    responses = [row['edited'], row['chosen'], row['rejected']]
    rows.append({'prompt': [_say('user', question)], 'responses': responses})
  return rows


def _pandalm(folder, context):
  """Instructions whose answers three people compared; by the majority of them."""
  del context
  rows = []
  for where, row in _list(folder, PANDALM):
    given = [row.get(label) for label in LABELS]
    if not all(type(vote) is int and 0 <= vote <= 2 for vote in given):
      raise UserError(f'{where}: annotator1 to annotator3 must be 0, 1 or 2')
    best, count = collections.Counter(given).most_common(1)[0]
    texts = [row.get(f) for f in ('instruction', 'input', 'response1', 'response2')]
    if not best or count < 2 or not all(isinstance(t, str) for t in texts):
      rows.append(None)  # a tie; a few answers are true or false, without quotes
      continue
    instruction, more, *answers = texts
    asked = f'{instruction}\n{more}' if more else instruction
    order = answers if best == 1 else answers[::-1]
    rows.append(_row([_say('user', asked)], order, strength=STRENGTH[count]))
  return rows


def _harmless(folder, context):
  """Dialogs with two last answers, of which people took the less harmful one."""
  del context
  rows = []
  for where, row in jsonl.read(assets.find(folder, HARMLESS), 'data'):
    fields = ('chosen', 'rejected')
    both = [_dialog(jsonl.text(row, field, where), where) for field in fields]
    answers = [dialog[-1]['content'] for dialog in both]
    same = both[0][:-1] == both[1][:-1]
    rows.append(_row(both[0][:-1], answers) if same else None)
  return rows


def _dialog(text, where):
  """Messages of 'Human: ... Assistant: ...'."""
  parts = TURN.split(text)[1:]
  turns = zip(parts[::2], parts[1::2])
  messages = [_say(ROLES[who], said.strip()) for who, said in turns]
  if len(messages) < 2 or messages[-1]['role'] != 'assistant':
    raise UserError(f"{where}: a dialog must end with the assistant's answer")
  return messages


def _demo(folder, context):
  """Dialogs with a chosen and a rejected last answer."""
  del context
  rows = []
  for where, row in _list(folder, DEMO):
    try:
      turns = row['conversations']
      said = [_say(ROLES[m['from']], str.strip(m['value'])) for m in turns]
      answers = [str.strip(row[field]['value']) for field in ('chosen', 'rejected')]
    except (KeyError, TypeError):
      raise UserError(
        f'{where}: it must have conversations, chosen and rejected with from and value'
      ) from None
    asked = said and said[-1]['role'] == 'user'
    rows.append(_row(said, answers) if asked else None)
  return rows


def _list(folder, name):
  """[(where, row)] of a file that is one JSON list."""
  path = assets.find(folder, name)
  try:
    rows = json.loads(path.read_text(encoding='utf-8'))
  except ValueError as error:
    raise UserError(f'{path}: not JSON: {error}') from None
  if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
    raise UserError(f'{path}: it must be a list of objects')
  return [(f'{path}, entry {i}', row) for i, row in enumerate(rows, 1)]


def _row(prompt, answers, **more):
  """A row; None where an answer is empty or both are equal: there is no better one."""
  texts = [answer.strip() for answer in answers]
  if not all(texts) or texts[0] == texts[1]:
    return None
  return {'prompt': prompt, 'responses': texts, **more}


def _say(role, content):
  return {'role': role, 'content': content}


SETS = {
  'qa_feedback': _qa_feedback,
  'pandalm': _pandalm,
  'harmless': _harmless,
  'demo': _demo,
}
