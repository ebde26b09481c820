"""The recipe of quality control, on a toy model."""

import json

import pytest
import toy_post

from configs import quality as quality_config
from experiments import quality
from llama3_jax.base.errors import UserError

root = toy_post.root  # fixture


def config(root, path, **changes):
  c = quality_config.get_config()
  c.init_from, c.files = str(root / 'base'), (str(path),)
  c.data.tokenizer, c.length = str(root / 'bytes.model'), 128
  c.update(changes)
  return c


def written(path, rows):
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  return path


def dialog(question, answer):
  said = [{'role': 'user', 'content': question}]
  return {'messages': [*said, {'role': 'assistant', 'content': answer}]}


def read(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_row_is_kept_or_dropped_with_its_reason(root, tmp_path):
  rows = [dialog(f'{i}+1?', f'{i + 1}!!') for i in range(8)]
  rows += rows[:2]  # twice the same
  path = written(tmp_path / 'rows.jsonl', rows)
  c = config(root, path, judge=('difficulty', 'topic'))
  c.limits.cosine = 0.999
  found = quality.main(c, str(tmp_path / 'run'))
  kept, dropped, labels = (
    read(tmp_path / 'run' / f'{name}.jsonl') for name in ('sft', 'dropped', 'labels')
  )
  assert found['kept'] == len(kept) and found['dialogs'] == len(labels) == 10
  assert len(kept) + len(dropped) == 10
  assert found['dropped'] == {'quality': 0, 'duplicate': len(dropped)}
  assert len(dropped) >= 2 and {row['reason'] for row in dropped} == {'duplicate'}
  assert {row['messages'][-1]['content'][-1] for row in kept} == {'!'}
  assert found['cleaned']['exclamations'] == 10
  assert {'topics', 'difficulty', 'cosine'} <= set(labels[0])
  assert 'Near another' in (tmp_path / 'run' / 'report.html').read_text()


def test_rewards_of_the_rows_choose_and_texts_are_counted(root, tmp_path):
  """As reject writes them; the best quarter stays, with its rewards."""
  rows = [{**dialog(f'{i}+1?', f'{i + 1}'), 'reward': float(i)} for i in range(8)]
  path = written(tmp_path / 'rows.jsonl', [*rows, {'text': 'no dialog'}])
  c = config(root, path, judge=())
  c.limits.cosine = 1.5
  found = quality.main(c, str(tmp_path / 'run'))
  assert (found['dialogs'], found['texts'], found['kept']) == (8, 1, 2)
  kept = read(tmp_path / 'run' / 'sft.jsonl')
  assert [row['reward'] for row in kept] == [6.0, 7.0]


@pytest.mark.parametrize(
  'changes, said',
  [
    ({'judge': ('quality', 'beauty')}, "judge: 'beauty' is not one of"),
    ({'topics': ('one',)}, 'topics'),
    ({'files': ()}, 'files: no dialogs'),
  ],
)
def test_wrong_fields_are_named(root, tmp_path, changes, said):
  path = written(tmp_path / 'rows.jsonl', [dialog('a', 'b')])
  with pytest.raises(UserError, match=said):
    quality.main(config(root, path, **changes), str(tmp_path / 'run'))
