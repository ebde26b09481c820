"""What does not belong together is refused before a device is touched."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import post_examples as toy_post
import pytest
import refusals

from llama3_jax.base.errors import UserError
from llama3_jax.data import shards
from llama3_jax.model import llama
from llama3_jax.text import vocabulary
from llama3_jax.text.tokenizer import Tokenizer
from llama3_jax.train import belongs
from llama3_jax.train import final
from llama3_jax.train import models

told = refusals.told  # fixture


@pytest.fixture(scope='module')
def stage(tmp_path_factory):
  """A stage that carries its vocabulary, and another vocabulary of the same size."""
  folder = tmp_path_factory.mktemp('stage')
  tokenizer = toy_post.tokenizer(folder)
  final.save(folder / 'final', toy_post.model(), toy_post.CONFIG, tokenizer)
  vocabulary.write([bytes([i]) for i in reversed(range(256))], folder / 'other.model')
  return folder


def test_stage_carries_its_tokenizer(stage):
  found = belongs.tokenizer('', stage)
  assert found.fingerprint == toy_post.tokenizer(stage).fingerprint
  assert models.identity(stage)['vocab_size'] == 512


def test_another_vocabulary_is_refused(stage):
  with pytest.raises(UserError, match='was trained with'):
    belongs.tokenizer(stage / 'other.model', stage)


def test_shards_of_another_vocabulary_are_refused_by_name(stage, toy):
  found = Tokenizer.load(toy / 'bytes.model')
  source = shards.open_source(toy / 'web')
  belongs.compare(found, {'web': source}, 'needle.tokenizer')
  assert belongs.of_shards({'web': source}).fingerprint == source.vocabulary
  other = Tokenizer.load(stage / 'other.model')
  with pytest.raises(UserError, match='needle.tokenizer .* shards of web'):
    belongs.compare(other, {'web': source}, 'needle.tokenizer')
  source.vocabulary = other.fingerprint  # what index.json says of the folder
  with pytest.raises(UserError, match='index.json'):
    belongs.of_shards({'web': source})


def test_stages_of_different_vocabularies_are_refused(monkeypatch):
  marks = {'one': 'a' * 64, 'two': 'b' * 64, 'old': ''}
  known = lambda folder: {'vocabulary': marks[folder]}
  monkeypatch.setattr(models, 'identity', known)
  for other in ('one', 'old'):
    belongs.same('init_from', 'one', 'reward_from', other)
  with pytest.raises(UserError, match='reward_from=two'):
    belongs.same('init_from', 'one', 'reward_from', 'two')


def test_fewer_rows_than_tokens_are_refused_and_more_are_padding(tmp_path):

  tokenizer = toy_post.tokenizer(tmp_path)
  for rows, legal in ((511, False), (512, True), (520, True)):
    model = dataclasses.replace(toy_post.CONFIG, vocab_size=rows)
    params = jax.jit(llama.init, static_argnums=1)(jax.random.key(0), model)
    folder = tmp_path / str(rows)
    final.save(folder / 'final', params, model)
    if legal:
      found = belongs.tokenizer(tmp_path / 'bytes.model', folder)
      assert found.fingerprint == tokenizer.fingerprint
    else:
      with pytest.raises(UserError, match='511 rows'):
        belongs.tokenizer(tmp_path / 'bytes.model', folder)
    with pytest.raises(UserError, match='carries no vocabulary'):
      belongs.tokenizer('', folder)


def test_shards_of_more_ids_than_rows_are_refused_by_name(toy, told, tmp_path):
  command = f'--config={toy}/toy.py', f'--workdir={tmp_path}/run'
  line = told(*command, '--config.model.vocab_size=64', blind=False)
  assert '--config.model.vocab_size=512' in line


def test_id_beyond_the_rows_is_refused_where_rows_are_read(toy):
  source = shards.open_source(toy / 'web', limit=512)
  highest = max(int(source[i].max()) for i in range(len(source)))
  index = json.loads((toy / 'web/index.json').read_text())
  old = shards.Source(toy / 'web', index, 'train', limit=highest)  # an older index
  assert int(source[0].max()) <= highest
  with pytest.raises(UserError, match='model.vocab_size'):
    [old[i] for i in range(len(old))]


def test_trained_model_carries_the_vocabulary_of_its_shards(toy, launcher, tmp_path):
  command = (f'--config={toy}/toy.py:2', f'--workdir={tmp_path}/run')
  status, text = launcher.run(*command)
  assert status == 0, text
  found = belongs.tokenizer('', tmp_path / 'run')
  assert found.fingerprint == Tokenizer.load(toy / 'bytes.model').fingerprint


@pytest.mark.parametrize(
  'damage',
  [
    lambda i: i.update(vocabulary=3),
    lambda i: i['splits']['train'].update(documents='5'),
    lambda i: i['splits']['train']['shards'][0].update(file='../train.array_record'),
    lambda i: i['splits']['train']['shards'][0].update(file='/etc/passwd'),
    lambda i: i['splits']['train']['shards'][0].update(documents=1),
    lambda i: i['splits'].update(train=[]),
    lambda i: i.update(splits=None),
  ],
)
def test_index_that_lies_is_refused(toy, tmp_path, damage):

  shutil.copytree(toy / 'web', tmp_path / 'web')
  index = json.loads((tmp_path / 'web/index.json').read_text())
  damage(index)
  (tmp_path / 'web/index.json').write_text(json.dumps(index))
  with pytest.raises(UserError, match='index.json'):
    shards.open_source(tmp_path / 'web')


@pytest.mark.parametrize('seed', range(20))
def test_lengths_that_lie_are_never_used(toy, tmp_path, seed):

  shutil.copytree(toy / 'web', tmp_path / 'web')
  path = tmp_path / 'web/train-lengths.npy'
  lengths, rng = np.load(path), np.random.default_rng(seed)
  i, j = rng.integers(0, len(lengths), 2)
  if seed % 2:  # the sum stays: only the records can tell
    lengths[i] += 1
    lengths[j] -= 1
  else:
    lengths[i] = rng.integers(0, 2**32)
  np.save(path, lengths)
  try:
    source = shards.open_source(tmp_path / 'web')
    read = [source[k] for k in range(len(source))]
  except UserError as error:
    assert 'web' in str(error)
    return
  true = shards.open_source(toy / 'web')
  assert all(np.array_equal(a, true[k]) for k, a in enumerate(read))


def test_shard_cut_under_a_run_is_named(toy, tmp_path):

  shutil.copytree(toy / 'web', tmp_path / 'web')
  source = shards.open_source(tmp_path / 'web')
  file = next((tmp_path / 'web').glob('train*.array_record'))
  with open(file, 'r+b') as f:
    f.truncate(file.stat().st_size // 2)
  with pytest.raises(UserError, match='array_record'):
    for i in range(len(source)):
      source[i]
