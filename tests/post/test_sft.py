"""Properties of supervised finetuning."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import post_examples as toy
import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.model import llama
from llama3_jax.post import sft
from llama3_jax.text.chat import Message

loss = jax.jit(sft.loss, static_argnums=2)


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  return toy.tokenizer(tmp_path_factory.mktemp('vocabulary'))


def dialogs(n=9):
  turns = (
    Message('user', 'hi'),
    Message('assistant', 'hello'),
    Message('user', 'more'),
  )
  made = []
  for i in range(n):
    context = turns if i % 3 == 0 else (Message('user', f'{i}?'),)
    made.append(sft.Dialog((*context, toy.answer(f'answer {i}'))))
  return made


def test_only_final_responses_are_supervised(tokenizer):
  rows, dropped = sft.rows(dialogs(), tokenizer, 160)
  assert dropped == 0
  found = []
  for targets, weight, segment in zip(rows.targets, rows.weight, rows.segment):
    for number in range(1, segment.max() + 1):
      inside = (segment == number) & (weight > 0)
      found.append(tokenizer.decode(targets[inside].tolist()))
  assert sorted(found) == sorted(f'answer {i}<|eot_id|>' for i in range(9))


def test_rows_hold_several_dialogs_with_their_own_segments(tokenizer):
  rows, _ = sft.rows(dialogs(), tokenizer, 256)
  assert len(rows.tokens) < 9
  for segment, tokens in zip(rows.segment, rows.tokens):
    starts = np.flatnonzero(tokens == tokenizer.bos)
    np.testing.assert_array_equal(segment[starts], np.arange(1, len(starts) + 1))


def test_targets_never_cross_into_the_next_dialog(tokenizer):
  rows, _ = sft.rows(dialogs(), tokenizer, 256)
  weighted = rows.weight[:, :-1] > 0
  same = rows.segment[:, :-1] == rows.segment[:, 1:]
  assert np.all(same[weighted])
  np.testing.assert_array_equal(
    rows.targets[:, :-1][weighted], rows.tokens[:, 1:][weighted]
  )


def test_turns_all_trains_on_every_answer_and_last_on_one(tokenizer):
  every, _ = sft.rows(dialogs(1), tokenizer, 160, turns='all')
  last, _ = sft.rows(dialogs(1), tokenizer, 160)
  said = lambda r: tokenizer.decode(r.targets[r.weight > 0].tolist())
  assert said(every) == 'hello<|eot_id|>answer 0<|eot_id|>'
  assert said(last) == 'answer 0<|eot_id|>'


def test_positions_restart_or_run_through(tokenizer):
  restart, _ = sft.rows(dialogs(), tokenizer, 256, position='restart')
  run, _ = sft.rows(dialogs(), tokenizer, 256, position='run')
  real = run.segment > 0
  columns = np.broadcast_to(np.arange(256), real.shape)
  np.testing.assert_array_equal(run.position[real], columns[real])
  assert np.all(restart.position[restart.tokens == tokenizer.bos] == 0)
  with pytest.raises(UserError, match="data.positions='other'"):
    sft.rows(dialogs(), tokenizer, 256, position='other')


def test_packed_loss_equals_the_sum_over_single_dialogs(tokenizer):
  params = toy.model()
  packed, _ = sft.rows(dialogs(), tokenizer, 256)
  total, metrics = loss(params, packed, toy.CONFIG)
  parts = [sft.rows([dialog], tokenizer, 256)[0] for dialog in dialogs()]
  alone = [loss(params, part, toy.CONFIG) for part in parts]
  np.testing.assert_allclose(total, sum(float(a) for a, _ in alone), rtol=1e-4)
  assert float(metrics['count']) == sum(float(m['count']) for _, m in alone)


def test_loss_is_the_formula(tokenizer):
  params = toy.model()
  row, _ = sft.rows(dialogs(1), tokenizer, 96)
  logits = llama.apply(params, row.tokens, toy.CONFIG)
  logits = np.asarray(logits, np.float64)
  logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  picked = np.take_along_axis(logp, row.targets[..., None], -1)[..., 0]
  expected = -(picked * row.weight).sum()
  np.testing.assert_allclose(loss(params, row, toy.CONFIG)[0], expected, rtol=1e-5)


def test_prompt_targets_have_no_gradient(tokenizer):
  params = toy.model()
  row, _ = sft.rows(dialogs(1), tokenizer, 96)
  changed = jax.tree.map(lambda array: array.copy(), row)
  changed.targets[row.weight == 0] = 7
  gradient = jax.jit(jax.grad(lambda p, b: sft.loss(p, b, toy.CONFIG)[0]))
  one, other = gradient(params, row), gradient(params, changed)
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other)):
    np.testing.assert_array_equal(a, b)
  assert any(float(jnp.abs(x).max()) > 0 for x in jax.tree.leaves(one))


def test_long_dialogs_are_dropped_and_counted(tokenizer):
  long = sft.Dialog((Message('user', 'x' * 300), toy.answer('y')))
  rows, dropped = sft.rows([long, *dialogs(2)], tokenizer, 128)
  assert dropped == 1 and len(rows.tokens) >= 1


def test_files_are_read_and_bad_lines_named(tmp_path):
  path = tmp_path / 's.jsonl'
  good = {
    'messages': [
      {'role': 'user', 'content': 'a\u2028b'},
      {'role': 'assistant', 'content': 'c'},
    ],
    'source': 'x',
  }
  path.write_text(json.dumps(good, ensure_ascii=False) + '\n', encoding='utf-8')
  [dialog] = sft.read(path)
  assert [m.content for m in dialog.messages] == ['a\u2028b', 'c']
  bad = {'messages': good['messages'][:1]}
  path.write_text(json.dumps(good) + '\n' + json.dumps(bad), encoding='utf-8')
  with pytest.raises(UserError, match='s.jsonl, line 2'):
    sft.read(path)
