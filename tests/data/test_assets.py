"""Readers of public data: the fields, the splits, and files that are missing."""

import json

import pytest

from configs import assets as assets_config
from experiments import assets as experiment
from llama3_jax.base.errors import UserError
from llama3_jax.data import assets
from llama3_jax.data import people
from llama3_jax.post import preference
from llama3_jax.post import sft


def write(path, rows):
  path.parent.mkdir(parents=True, exist_ok=True)
  text = ''.join(json.dumps(row, ensure_ascii=False) + '\n' for row in rows)
  path.write_text(text, encoding='utf-8')


@pytest.fixture
def folder(tmp_path):
  """Small files of the same form; one text holds U+2028, which ends no line."""
  triple = {'question': 'Who\u2028?', 'context': 'A long passage', 'edited': 'a'}
  triple |= {'chosen': 'b', 'rejected': 'c'}
  write(tmp_path / people.TRIPLES, [triple] * 5)
  problem = {'question': '2+2?', 'answer': 'It is <<2+2=4>>4.\n#### 4'}
  write(tmp_path / assets.GSM8K, [problem] * 10)
  task = {'text': 'Add.', 'code': 'def f():\r\n  pass', 'test_list': ['assert f()']}
  write(tmp_path / assets.MBPP, [task | {'task_id': i} for i in (11, 601, 974)])
  return tmp_path


def test_preferences_are_ranked_edited_first(folder):
  rows = people.preferences(folder, 'qa_feedback')
  assert len(rows) == 5 and rows[0]['responses'] == ['a', 'b', 'c']
  assert rows[0]['prompt'] == [{'role': 'user', 'content': 'Who\u2028?'}]
  shown = people.preferences(folder, 'qa_feedback', 6)[0]['prompt'][0]['content']
  assert shown.startswith('A long\n')


def test_maths_has_no_calculator_marks_and_full_pages(folder):
  documents = list(assets.maths_documents(folder, 4))
  assert [d['text'].count('Question') for d in documents] == [4, 4, 2]
  assert '<<' not in documents[0]['text'] and documents[0]['category'] == 'math'
  assert len(assets.maths_dialogs(folder, 3)) == 3


def test_code_is_of_the_train_split_only(folder):
  documents = list(assets.code_documents(folder))
  assert [d['url'] for d in documents] == ['mbpp:601', 'mbpp:974']
  assert '\r' not in documents[0]['text']


READERS = {
  people.TRIPLES: (
    lambda folder: people.preferences(folder, 'qa_feedback'),
    people.TRIPLE,
  ),
  assets.GSM8K: (assets.maths_documents, assets.PROBLEM),
  assets.MBPP: (assets.code_documents, assets.TASK),
}


@pytest.mark.parametrize('name', [people.TRIPLES, assets.GSM8K, assets.MBPP])
def test_missing_file_and_bad_line_are_named(folder, name):
  read = READERS[name][0]
  (folder / name).write_text('{}\n')
  with pytest.raises(UserError, match='line 1: field'):
    list(read(folder))
  (folder / name).write_text('{\n')
  with pytest.raises(UserError, match=f'{name}, line 1: not JSON'):
    list(read(folder))
  (folder / name).unlink()
  with pytest.raises(UserError, match=f'{name} is missing'):
    list(read(folder))


@pytest.mark.parametrize('name', READERS)
@pytest.mark.parametrize('value', [None, True, 7.5, 'x', '7', [1], ['x', None], {}])
def test_a_field_of_another_type_is_named_by_line_and_field(folder, name, value):
  read, fields = READERS[name]
  lines = (folder / name).read_text('utf-8').split('\n')
  for field, kind in fields.items():
    good = isinstance(value, str) and kind in (str, assets.OPTIONAL)
    row = {**json.loads(lines[1]), field: value}
    changed = [lines[0], json.dumps(row), *lines[2:]]
    (folder / name).write_text('\n'.join(changed), 'utf-8')
    if good:
      assert list(read(folder))
      continue
    with pytest.raises(UserError, match=f"{name}, line 2: field '{field}' is ") as e:
      list(read(folder))
    assert '\n' not in str(e.value)


@pytest.mark.parametrize('line', [b'caf\xe9', b'[' * 99_999, b'[1]', b'NaN', b'{"a":'])
def test_a_line_that_is_no_row_is_named(folder, line):
  (folder / assets.GSM8K).write_bytes(b'\n' + line)
  with pytest.raises(UserError, match=f'{assets.GSM8K}, line 2: '):
    assets.maths_dialogs(folder, 1)


def test_missing_folder_is_named(tmp_path):
  with pytest.raises(UserError, match='nowhere: no such folder'):
    people.preferences(tmp_path / 'nowhere', 'qa_feedback')


def test_experiment_splits_and_its_files_can_be_read(folder, tmp_path):
  config = assets_config.get_config()
  config.folder, config.heldout, config.dialogs = str(folder), 2, 3
  found = experiment.main(config, str(tmp_path / 'out'))
  split = dict(preferences_qa_feedback=3, heldout_qa_feedback=2)
  assert found == split | dict(sft=3, math=2, code=2)
  assert len(preference.read(tmp_path / 'out/preferences_qa_feedback.jsonl')) == 3
  assert len(sft.read(tmp_path / 'out/sft.jsonl')) == 3


def test_published_files_have_the_expected_rows(assets, tmp_path):
  config = assets_config.get_config()
  config.folder = str(assets)
  found = experiment.main(config, str(tmp_path / 'out'))
  split = dict(preferences_qa_feedback=200, heldout_qa_feedback=95)
  assert found == split | dict(sft=300, math=935, code=374)
