"""Completions of a text and of files of prompts, stopped and resumed."""

import datetime
import json
import zlib

import jax
import numpy as np
import post_examples as toy
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toy_post

from configs import generate as generate_config
from experiments import generate
from llama3_jax import config as configs
from llama3_jax.base.errors import UserError
from llama3_jax.generate import engine
from llama3_jax.generate.settings import Settings
from llama3_jax.model import llama
from llama3_jax.post import formats
from llama3_jax.text import chat

root = toy_post.root  # fixture


def config_of(root, **more):
  given = {'init_from': str(root / 'base'), 'tokenizer': str(root / 'bytes.model')}
  given |= {'sample.max_new': 6, 'batch': 2}
  return configs.edit(generate_config.get_config(), given | more)


def prompts(path, rows):
  path.write_text('\n'.join(map(json.dumps, rows)))
  return (str(path),)


def written(folder):
  lines = (folder / 'completions.jsonl').read_text().splitlines()
  return [json.loads(line) for line in lines]


def test_a_text_is_completed_as_the_engine_does(root, capsys):
  config = config_of(root, prompt='Once', **{'sample.temperature': 0.0})
  found = generate.main(config, '')
  tokenizer = toy.tokenizer(root)
  settings = Settings(temperature=0.0, max_new=6, vocab_size=tokenizer.vocab_size)
  ids = tokenizer.encode('Once', bos=True)
  how = toy.CONFIG, tokenizer.stop_ids, settings
  [[one]] = engine.generate(toy.model(), [ids], *how)
  shown = capsys.readouterr().out
  assert shown.startswith('Once') and found['tokens'] == len(one.sampled)
  whole = tokenizer.decode(one.ids).rstrip('\ufffd')
  assert shown.rstrip('\n').removeprefix('Once') == whole


def test_rows_keep_their_fields_and_are_answered_or_completed(root, tmp_path):
  asked = [{'role': 'user', 'content': 'Hi'}]
  rows = [{'prompt': 'a', 'id': 7}, {'messages': asked}, {'prompt': asked}]
  config = config_of(root, files=prompts(tmp_path / 'p.jsonl', rows))
  found = generate.main(config, tmp_path / 'run')
  made = written(tmp_path / 'run')
  assert [{k: row[k] for k in before} for row, before in zip(made, rows)] == rows
  assert found['completions'] == 3 and made[1]['completion'] == made[2]['completion']
  assert found['tokens'] == sum(row['metadata']['tokens'] for row in made)
  name, _ = formats.of(made[0], formats.DIALOGS, 'row')
  assert name == 'prompt/completion'  # finetuning reads it


def test_samples_of_a_prompt_differ_and_are_all_kept(root, tmp_path, capsys):
  config = config_of(root, files=prompts(tmp_path / 'p.jsonl', [{'prompt': 'a'}]))
  config.samples, config.sample.temperature = 4, 1.0
  generate.main(config, '')
  [row] = map(json.loads, capsys.readouterr().out.splitlines())
  assert len(set(row['completions'])) > 1 and len(row['metadata']['samples']) == 4


def test_a_stopped_run_resumes_and_leaves_the_same_file(root, tmp_path, monkeypatch):
  rows = [{'prompt': f'text {i}'} for i in range(7)]
  config = config_of(root, files=prompts(tmp_path / 'p.jsonl', rows))
  monkeypatch.setattr(generate, 'GROUP', 1)
  generate.main(config, tmp_path / 'whole')
  whole = (tmp_path / 'whole/completions.jsonl').read_bytes()
  generate.main(config, tmp_path / 'cut')
  path = tmp_path / 'cut/completions.jsonl'
  path.write_bytes(whole[: whole.index(b'text 3')])  # inside the row, as kill -9 does
  calls = []
  usual = engine.complete
  monkeypatch.setattr(
    engine, 'complete', lambda *a, **k: calls.append(len(a[1])) or usual(*a, **k)
  )
  generate.main(config, tmp_path / 'cut')
  assert path.read_bytes() == whole and sum(calls) == 4


@pytest.mark.parametrize(
  'rows, message',
  [
    ([{'text': 'a'}], 'line 1: a prompt is .* this row has text'),
    ([{'prompt': ''}], 'line 1: field prompt is empty'),
    ([{'prompt': 3}], 'line 1: field prompt is a number, not a text'),
    ([{'messages': [{'role': 'assistant', 'content': 'a'}]}], "must be the user's"),
    ([{'prompt': 'a', 'messages': []}], 'this row has prompt, messages'),
  ],
)
def test_a_bad_prompt_is_named(root, tmp_path, rows, message):
  config = config_of(root, files=prompts(tmp_path / 'p.jsonl', rows))
  with pytest.raises(UserError, match=message):
    generate.main(config, '')


@pytest.mark.parametrize('more', [{}, {'prompt': 'a', 'files': ('b.jsonl',)}])
def test_prompts_are_asked_for_once(root, more):
  with pytest.raises(UserError, match='give either'):
    generate.main(config_of(root, **more), '')


def test_a_dialog_is_read_as_chat_does(root):
  from llama3_jax.generate import prompts as lib

  tokenizer = toy.tokenizer(root)
  turns = [{'role': 'user', 'content': 'Hi'}]
  messages = [chat.Message('user', 'Hi')]
  ids = lib.encode({'messages': turns}, tokenizer, 'row')
  np.testing.assert_array_equal(ids, chat.encode(tokenizer, messages, prompt=True).ids)


@pytest.mark.parametrize('seed', [2**31, 2**32 - 1])
def test_every_seed_that_a_config_allows_samples(root, tmp_path, seed):
  files = prompts(tmp_path / 'p.jsonl', [{'prompt': 'a'}])
  generate.main(config_of(root, files=files, seed=seed), tmp_path / 'run')
  assert written(tmp_path / 'run')[0]['metadata']['tokens'] > 0


def test_draws_are_those_of_the_keys_of_jax():
  """A uniform number of the key folded with the prompt, the sample and the step."""
  prompt, settings = [1, 2], Settings(temperature=1.0, top_p=1.0, max_new=3)
  [found] = engine.generate(toy.model(), [prompt], toy.CONFIG, (), settings, 7, 2)
  own = jax.random.fold_in(jax.random.key(7), zlib.crc32(np.array(prompt, 'i4')))
  for i, completion in enumerate(found):
    row = np.array([[*prompt, *completion.ids]], np.int32)
    logits = llama.apply(toy.model(), row, toy.CONFIG)
    p = np.asarray(jax.nn.softmax(logits[0, 1:-1], -1), np.float64)
    key = jax.random.fold_in(own, i)
    for step, (token, shares) in enumerate(zip(completion.ids, p)):
      u = float(jax.random.uniform(jax.random.fold_in(key, step)))
      above = shares[: token + 1].sum()
      assert above - shares[token] - 1e-5 <= u <= above + 1e-5


@pytest.mark.parametrize(
  'row,said',
  [
    ({'completion': 'of a person'}, 'field completion'),
    ({'completions': []}, 'field completions'),
    ({'metadata': ['x']}, 'metadata is a list'),
    ({'when': datetime.date(2024, 1, 1)}, 'field when'),
    ({'score': float('nan')}, 'field score'),
    ({'raw': b'x'}, 'field raw'),
  ],
)
def test_a_field_that_would_be_lost_is_refused_before_anything_is_sampled(
  root, tmp_path, row, said
):
  path = str(tmp_path / 'p.parquet')
  pq.write_table(pa.table({k: [v] for k, v in (row | {'prompt': 'a'}).items()}), path)
  config = config_of(root, files=(path,))
  with pytest.raises(UserError, match=f'row 1: .*{said}'):
    generate.main(config, tmp_path / 'run')


@pytest.mark.parametrize(
  'field,value',
  [('max_new', 2.5), ('top_k', 1.5), ('temperature', 'x'), ('top_p', None)],
)
def test_settings_are_numbers(field, value):
  with pytest.raises(UserError, match=f'sample.{field}'):
    Settings(**{field: value})
