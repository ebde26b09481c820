"""Properties of the rows of the reward model and DPO."""

import json

import jax
import numpy as np
import post_examples as toy
import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.kernels import rule
from llama3_jax.post import preference
from llama3_jax.post import ranked
from llama3_jax.post import rows
from llama3_jax.text import chat


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  return toy.tokenizer(tmp_path_factory.mktemp('vocabulary'))


def write(path, *lines):
  path.write_text(
    '\n'.join(line if isinstance(line, str) else json.dumps(line) for line in lines),
    encoding='utf-8',
  )
  return path


GOOD = {
  'prompt': [{'role': 'user', 'content': 'line\u2028separator'}],
  'responses': ['a', 'b'],
  'source': 's',
}


def test_reads_examples_and_keeps_unicode_line_separators(tmp_path):
  [example] = preference.read(write(tmp_path / 'p.jsonl', GOOD))
  assert example.prompt[0].content == 'line\u2028separator'
  assert example.responses == (toy.answer('a'), toy.answer('b'))
  assert example.source == 's'


@pytest.mark.parametrize(
  'line, word',
  [
    ('{"prompt": [', 'line 2'),
    ({**GOOD, 'responses': ['only one']}, 'responses must hold 2 or 3'),
    ({**GOOD, 'prompt': []}, 'prompt is empty'),
    ({**GOOD, 'prompt': [{'role': 'boss', 'content': ''}]}, "called 'boss'"),
    ({'responses': ['a', 'b']}, 'lacks prompt'),
  ],
)
def test_bad_lines_are_named(tmp_path, line, word):
  path = write(tmp_path / 'p.jsonl', GOOD, line)
  with pytest.raises(UserError, match='line 2') as caught:
    preference.read(path)
  assert word in str(caught.value) and 'p.jsonl' in str(caught.value)


@pytest.mark.parametrize('margin', [float('nan'), float('inf'), 10**400, True, '1', -1])
def test_margin_is_a_finite_number(margin):
  row = {'prompt': [{'role': 'user', 'content': 'a'}], 'responses': ['b', 'c']}
  assert preference.parse(row | {'margin': 1}, 'row 1').margin == 1.0
  with pytest.raises(UserError, match='row 1: field margin is'):
    preference.parse(row | {'margin': margin}, 'row 1')


def test_missing_file_is_named(tmp_path):
  with pytest.raises(UserError, match='nothing.jsonl'):
    preference.read(tmp_path / 'nothing.jsonl')


def test_paper_row_holds_prompt_and_all_responses_in_random_order(tokenizer):
  examples = toy.examples(20)
  arrays, kept = ranked.rows(examples, tokenizer, 128)
  assert len(kept) == 20 and arrays.tokens.shape == (20, 1, 128)
  orders = set()
  for example, row in zip(examples, _rows(arrays)):
    said = [m.content for m in example.responses]
    tokens = row.tokens[0]
    text = tokenizer.decode(tokens[row.segment[0] > 0].tolist())
    assert all(text.count(f'\n\n{answer}<|eot_id|>') == 1 for answer in said)
    real = row.ends[row.ends >= 0]
    assert len(real) == len(example.responses)
    for end, answer in zip(real, said):
      assert tokens[end] == tokenizer.eot
      before = tokens[end - len(answer) : end]
      assert tokenizer.decode(before.tolist()) == answer
    orders.add(tuple(np.argsort(real)))
  assert len(orders) > 3  # the best is not always first


def test_rows_are_the_same_for_the_same_seed(tokenizer):
  make = lambda seed: ranked.rows(toy.examples(20), tokenizer, 128, seed=seed)
  np.testing.assert_equal(vars(make(1)[0]), vars(make(1)[0]))
  assert not np.array_equal(make(1)[0].tokens, make(2)[0].tokens)


def test_separate_rows_hold_one_response_each(tokenizer):
  examples = toy.examples(4)
  arrays, _ = ranked.rows(examples, tokenizer, 64, mode='separate')
  assert arrays.tokens.shape == (4, 3, 64)
  for example, row in zip(examples, _rows(arrays)):
    for i, answer in enumerate(example.responses):
      dialog = [*example.prompt, answer]
      ids = chat.encode(tokenizer, dialog).ids
      assert row.tokens[i][: len(ids)].tolist() == ids.tolist()
      assert row.ends[i] == len(ids) - 1
    absent = slice(len(example.responses), None)
    assert not row.segment[absent].any() and (row.ends[absent] == -1).all()


def test_exact_rows_are_branches_at_positions_that_begin_anew(tokenizer):
  examples = toy.examples(4)
  arrays, _ = ranked.rows(examples, tokenizer, 128, mode='exact')
  for example, row in zip(examples, _rows(arrays)):
    tokens, position, segment = row.tokens[0], row.position[0], row.segment[0]
    prompt = segment == 1
    for i, answer in enumerate(example.responses):
      part = prompt | (segment == 1 + (i + 1) * rule.BRANCH)
      ids = chat.encode(tokenizer, [*example.prompt, answer]).ids
      assert tokens[part].tolist() == ids.tolist()
      assert position[part].tolist() == list(range(len(ids)))
      assert np.flatnonzero(part)[-1] == row.ends[i]


@pytest.mark.parametrize('mode', ranked.MODES)
def test_long_examples_are_dropped_and_counted(tokenizer, mode):
  long = toy.changed(
    toy.multi_turn(), responses=(toy.answer('x' * 200), toy.answer('y'))
  )
  examples = [*toy.examples(3), long]
  arrays, kept = ranked.rows(examples, tokenizer, 128, mode)
  assert len(kept) == 3 and len(arrays.tokens) == 3
  arrays, kept = ranked.rows([long], tokenizer, 128, mode)
  assert not kept and len(arrays.tokens) == 0
  with pytest.raises(UserError, match='train.length=128'):
    rows.Rows(arrays, 128)


def test_dpo_masks_cover_the_final_response_only(tokenizer):
  arrays, _ = preference.dpo_rows([toy.multi_turn()], tokenizer, 128)
  for side, answer in enumerate('23'):
    targets = arrays.targets[0, side]
    weighted = targets[arrays.weight[0, side] > 0]
    assert weighted.tolist() == [*tokenizer.encode(answer), tokenizer.eot]
    contrasted = targets[arrays.contrast[0, side] > 0]
    assert contrasted.tolist() == tokenizer.encode(answer)


def test_targets_are_the_next_tokens(tokenizer):
  arrays, _ = preference.dpo_rows(toy.examples(2), tokenizer, 64)
  real = arrays.segment[..., 1:] > 0
  np.testing.assert_array_equal(
    arrays.targets[..., :-1][real], arrays.tokens[..., 1:][real]
  )


def test_pairs_of_three_responses():
  assert preference.dpo_pairs(3, 'extreme') == [(0, 2)]
  assert preference.dpo_pairs(3, 'adjacent') == [(0, 1), (1, 2)]
  assert preference.dpo_pairs(3, 'all') == [(0, 1), (0, 2), (1, 2)]
  assert all(preference.dpo_pairs(2, name) == [(0, 1)] for name in preference.PAIRS)
  with pytest.raises(UserError, match="data.pairs='best'"):
    preference.dpo_pairs(3, 'best')


def test_rows_resume_where_they_stopped(tokenizer):
  arrays, _ = preference.dpo_rows(toy.examples(6), tokenizer, 64, 'all')
  whole = rows.Rows(arrays, 64, seed=5)
  batches = [whole.batch(5, 64) for _ in range(6)]
  first = rows.Rows(arrays, 64, seed=5)
  for _ in range(3):
    first.batch(5, 64)
  second = rows.Rows(arrays, 64, seed=5)
  second.restore(json.loads(json.dumps(first.state())))
  assert second.tokens == first.tokens
  for expected in batches[3:]:
    np.testing.assert_equal(vars(second.batch(5, 64)), vars(expected))


def test_every_epoch_serves_every_row_once_and_hosts_share_a_batch(tokenizer):
  arrays, _ = preference.dpo_rows(toy.examples(6), tokenizer, 64)
  arrays = arrays.replace(ref_logp=np.arange(12).reshape(6, 2) // 2)
  stream = rows.Rows(arrays, 64)
  epochs = [stream.batch(6, 64).ref_logp[:, 0].tolist() for _ in range(3)]
  assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
  assert epochs[0] != epochs[1]
  parts = [rows.Rows(arrays, 64).batch(6, 64, (i, 2)).ref_logp for i in (0, 1)]
  assert np.concatenate(parts)[:, 0].tolist() == epochs[0]


def test_wrong_length_is_named(tokenizer):
  arrays, _ = preference.dpo_rows(toy.examples(2), tokenizer, 64)
  with pytest.raises(UserError, match='train.length=32'):
    rows.Rows(arrays, 64).batch(2, 32)


def _rows(arrays):
  count = len(arrays.tokens)
  row = lambda i: jax.tree.map(lambda array: array[i], arrays)
  return [row(i) for i in range(count)]
