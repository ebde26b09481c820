"""Files of keys: what is written is read, a range of keys at a time."""

import global_steps
import numpy as np
import pyarrow as pa
import pytest

from llama3_jax.curate.duplicates import lines
from llama3_jax.curate.duplicates import minhash
from llama3_jax.curate.duplicates import newest
from llama3_jax.curate.machine import keys
from llama3_jax.curate.measures import unigram


def files(folder, sizes, seed=0):
  rng, paths, rows = np.random.default_rng(seed), [], []
  for i, size in enumerate(sizes):
    key = rng.integers(0, 2**64, size, np.uint64)
    key[: size // 4] = [0, 2**63, 2**64 - 1, 5][i % 4]
    table = pa.table({'key': key, 'id': np.arange(size) + 1000 * i})
    paths.append(folder / f'{i}.arrow')
    keys.write(paths[-1], table)
    rows += list(zip(key.tolist(), table['id'].to_pylist()))
  return paths, rows


@pytest.mark.parametrize('count', [1, 2, 3, 64])
def test_partitions_hold_every_row_once_and_equal_keys_together(tmp_path, count):
  paths, rows = files(tmp_path, [100, 0, 37, 40, 400])
  found, owner = [], {}
  for p in range(count):
    table = keys.read(paths, p, count)
    found += list(zip(table['key'].to_pylist(), table['id'].to_pylist()))
    for key in set(table['key'].to_pylist()):
      assert owner.setdefault(key, p) == p
  assert sorted(found) == sorted(rows)
  assert keys.rows(paths) == len(rows)


def test_equal_keys_stay_in_the_order_of_the_input(tmp_path):
  paths, _ = files(tmp_path, [80])
  table = keys.read(paths, 0, 1)
  pairs = zip(table['key'].to_pylist(), table['id'].to_pylist())
  assert [i for key, i in pairs if key == 0] == list(range(20))


def test_more_rows_need_more_partitions_and_memory_fewer():
  assert keys.partitions(1000, 16, 1 << 30) == 1
  assert keys.partitions(10**9, 16, 1 << 30) == 128
  assert keys.partitions(10**9, 16, 1 << 34) == 8


def test_lookup_finds_what_is_there():
  place, found = keys.lookup(np.array([2, 5, 9]), np.array([1, 2, 9, 10]))
  assert found.tolist() == [False, True, True, False]
  assert place[found].tolist() == [0, 2]
  assert not keys.lookup(np.zeros(0), np.array([1.0]))[1].any()


@pytest.mark.parametrize('rows', [[], [{'text': None, 'lang': None}], [{'text': ''}]])
@pytest.mark.parametrize('module', [newest, minhash, lines, unigram])
def test_steps_survive_shards_without_anything_to_count(module, rows):
  batch, config = global_steps.batch(rows), module.Config()
  assert global_steps.run(module, batch, config)['drop_reason'].null_count == len(rows)
  state = global_steps.state(module, [[]], config)
  assert module.step(batch, config, state)['drop_reason'].null_count == len(rows)
