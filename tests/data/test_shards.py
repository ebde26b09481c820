"""Token shards: round trip, held-out split, refusal of wrong or damaged files."""

import json
import pickle

import numpy as np
import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.data import pipeline
from llama3_jax.data import shards
from llama3_jax.data import shuffle
from llama3_jax.data import tokenise


class Bytes:
  """A tokenizer of bytes."""

  bos, eos, fingerprint = 256, 257, 'bytes-1'

  def encode_batch(self, texts):
    return [list(text.encode()) for text in texts]


def documents(n=200):
  for i in range(n):
    lang = 'de' if i % 3 == 0 else 'en'
    yield {'text': f'Document {i} ' + 'word ' * (i % 17), 'lang': lang, 'source': 's'}


def write(folder, n=200, **options):
  return tokenise.write(documents(n), Bytes(), folder, **options)


def test_every_document_comes_back_with_bos_and_eos(tmp_path):
  index = write(tmp_path / 'a', heldout=0.2, shard_tokens=1000)
  texts = []
  for split in tokenise.SPLITS:
    source = shards.open_source(tmp_path / 'a', 'bytes-1', split)
    for i in range(len(source)):
      ids = source[i]
      assert ids.dtype == np.uint32 and ids[0] == 256 and ids[-1] == 257
      assert len(ids) == source.lengths[i]
      texts.append(bytes(ids[1:-1].astype(np.uint8)).decode())
  assert sorted(texts) == sorted(d['text'] for d in documents())
  assert len(index['splits']['train']['shards']) > 3


def test_index_counts_documents_and_tokens_by_language(tmp_path):
  index = write(tmp_path / 'a')
  assert index == json.loads((tmp_path / 'a/index.json').read_text('utf-8'))
  assert index['documents'] == 200
  assert index['languages']['de']['documents'] == 67
  by_language = sum(count['tokens'] for count in index['languages'].values())
  assert by_language == index['tokens'] == index['sources']['s']['tokens']
  assert index['vocabulary'] == 'bytes-1' and index['seed'] == 0


def test_heldout_split_depends_on_the_text_alone(tmp_path):
  def heldout(folder):
    source = shards.open_source(folder, split='heldout')
    return {bytes(source[i]) for i in range(len(source))}

  write(tmp_path / 'a', heldout=0.2)
  tokenise.write(reversed(list(documents())), Bytes(), tmp_path / 'b', heldout=0.2)
  write(tmp_path / 'c', heldout=0.2, seed=1)
  assert heldout(tmp_path / 'a') == heldout(tmp_path / 'b')
  assert heldout(tmp_path / 'a') != heldout(tmp_path / 'c')
  assert 20 <= len(heldout(tmp_path / 'a')) <= 60


def test_empty_documents_and_empty_splits_are_fine(tmp_path):
  index = tokenise.write(
    [{'text': ' '}, {'text': 'x'}], Bytes(), tmp_path / 'a', heldout=0
  )
  assert index['documents'] == 1
  assert len(shards.open_source(tmp_path / 'a', split='heldout')) == 0


def test_the_same_documents_give_the_same_files(tmp_path):
  for name in 'ab':
    write(tmp_path / name)
  for path in (tmp_path / 'a').iterdir():
    assert path.read_bytes() == (tmp_path / 'b' / path.name).read_bytes()


def test_fingerprint_is_of_the_tokens_not_of_their_number(tmp_path):
  marks = []
  for name, text in (('a', 'one two'), ('b', 'one two'), ('c', 'two one')):
    texts = [{'text': text}, {'text': 'the same'}]
    tokenise.write(texts, Bytes(), tmp_path / name, heldout=0)
    source = shards.open_source(tmp_path / name)
    assert source.lengths.tolist() == [9, 10]
    marks.append(source.fingerprint)
  assert marks[0] == marks[1] != marks[2]


def test_source_can_be_pickled_for_workers(tmp_path):
  write(tmp_path / 'a')
  source = shards.open_source(tmp_path / 'a')
  copy = pickle.loads(pickle.dumps(source))
  np.testing.assert_array_equal(copy[7], source[7])


def test_rows_read_shards(tmp_path):
  write(tmp_path / 'a')
  source = shards.open_source(tmp_path / 'a', 'bytes-1')
  batch = pipeline.Rows({'a': source}, [(0, {'a': 1})], 0).batch(4, 50)
  assert batch.tokens.shape == (4, 50)


def test_another_vocabulary_is_refused(tmp_path):
  write(tmp_path / 'a')
  with pytest.raises(UserError, match='index.json: written with vocabulary bytes-1'):
    shards.open_source(tmp_path / 'a', 'bytes-2')


def test_missing_folder_and_broken_index_are_named(tmp_path):
  with pytest.raises(UserError, match='index.json: not found'):
    shards.open_source(tmp_path / 'a')
  write(tmp_path / 'a')
  (tmp_path / 'a/index.json').write_text('{')
  with pytest.raises(UserError, match='index.json: not an index'):
    shards.open_source(tmp_path / 'a')


def test_truncated_and_missing_shards_are_refused_when_opened(tmp_path):
  write(tmp_path / 'a', shard_tokens=1000)
  file = tmp_path / 'a/train-00000-00001.array_record'
  file.write_bytes(file.read_bytes()[:-100])
  with pytest.raises(UserError, match='train-00000-00001.array_record: has'):
    shards.open_source(tmp_path / 'a')
  file.unlink()
  with pytest.raises(UserError, match='train-00000-00001.array_record: is missing'):
    shards.open_source(tmp_path / 'a')


def test_truncated_lengths_are_refused(tmp_path):
  write(tmp_path / 'a')
  file = tmp_path / 'a/train-lengths.npy'
  file.write_bytes(file.read_bytes()[:-4])
  with pytest.raises(UserError, match='train-lengths.npy'):
    shards.open_source(tmp_path / 'a')


def test_a_corrupt_record_names_its_file_when_read(tmp_path):
  tokenise.write(
    ({'text': np.random.default_rng(i).bytes(3000).hex()} for i in range(100)),
    Bytes(), tmp_path / 'a', heldout=0, shard_tokens=200_000,
  )  # fmt: skip
  file = tmp_path / 'a/train-00000-00001.array_record'
  data = bytearray(file.read_bytes())
  middle = len(data) // 2
  data[middle : middle + 3000] = bytes(3000)
  file.write_bytes(data)
  source = shards.open_source(tmp_path / 'a')
  with pytest.raises(
    UserError, match='train-00000-00001.array_record: record .* corrupt'
  ):
    for i in range(len(source)):
      _ = source[i]


def test_a_failed_write_leaves_the_old_folder(tmp_path):
  write(tmp_path / 'a')

  def broken():
    yield {'text': 'new'}
    raise RuntimeError('stop')

  with pytest.raises(RuntimeError):
    tokenise.write(broken(), Bytes(), tmp_path / 'a')
  assert len(shards.open_source(tmp_path / 'a')) > 100
  assert [p.name for p in tmp_path.iterdir()] == ['a']


def test_a_file_in_the_way_is_one_clear_line(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='shards cannot be written'):
    write(tmp_path / 'file' / 'a')


def test_shuffled_shards_hold_the_same_documents_in_another_order(tmp_path):
  def texts(folder):
    source = shards.open_source(folder)
    return [
      bytes(source[i][1:-1].astype(np.uint8)).decode() for i in range(len(source))
    ]

  plain = write(tmp_path / 'a', heldout=0.1)
  mixed = write(tmp_path / 'b', heldout=0.1, cells=7)
  again = write(tmp_path / 'c', heldout=0.1, cells=7)
  for name in ('documents', 'tokens', 'languages', 'sources'):
    assert plain[name] == mixed[name]
  a, b = texts(tmp_path / 'a'), texts(tmp_path / 'b')
  assert sorted(a) == sorted(b)
  # Neighbours of the input are no neighbours any more.
  place = {text: i for i, text in enumerate(b)}
  near = sum(abs(place[x] - place[y]) == 1 for x, y in zip(a, a[1:]))
  assert near < 12
  assert mixed['splits'] == again['splits']
  assert not (tmp_path / 'b/cells').exists()


def test_seed_changes_the_order_of_the_shuffle(tmp_path):
  def shuffled(seed, count=5):
    pairs = [('train', np.array([i, i + 100], np.uint32)) for i in range(60)]
    with shuffle.cells(tmp_path / 'cells', count, seed) as run:
      found = list(run(pairs))
    assert all(split == 'train' and ids[1] == ids[0] + 100 for split, ids in found)
    return [int(ids[0]) for _, ids in found]

  one, again, other = shuffled(0), shuffled(0), shuffled(1)
  assert one == again and sorted(one) == sorted(other) == list(range(60))
  for a, b in ((one, other), (one, range(60)), (shuffled(0, 1), range(60))):
    assert sum(x == y for x, y in zip(a, b)) < 10


def test_members_of_a_category_are_its_sources(tmp_path):
  write(tmp_path / 'general/web', n=50)
  write(tmp_path / 'general/wiki', n=20)
  found = shards.members(tmp_path / 'general')
  assert list(found) == ['general/web', 'general/wiki']
  assert found['general/web'] > found['general/wiki'] > 0
  assert shards.members(tmp_path / 'general/web') == {}
  assert shards.members(tmp_path / 'absent') == {}
