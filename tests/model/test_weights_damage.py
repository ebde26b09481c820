"""What was damaged on disk is named and never used; a model says whose it is."""

import dataclasses
import json
import shutil

import damage
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.model import llama
from llama3_jax.text.tokenizer import Tokenizer
from llama3_jax.train import checkpoint
from llama3_jax.train import digest
from llama3_jax.train import final
from llama3_jax.train import models


def test_no_corruption_passes_in_silence(tmp_path):
  counts, passed = damage.attack(20, tmp_path)
  assert not passed and counts['named'] >= 5, (counts, passed)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'int8', 'uint16', 'bool'])
def test_every_flip_and_swap_changes_the_digest(dtype):
  rng = np.random.default_rng(0)
  x = np.array(jnp.asarray(rng.normal(0, 2, (4, 6)), dtype))
  want = digest.arrays({'x': x})['x'][1]
  seen = {want}
  raw = x.reshape(-1).view(np.uint8)
  for bit in range(raw.size * 8) if dtype != 'bool' else ():
    raw[bit // 8] ^= 1 << bit % 8
    seen.add(digest.arrays({'x': x})['x'][1])
    raw[bit // 8] ^= 1 << bit % 8
  if dtype != 'bool':
    assert len(seen) == 1 + raw.size * 8
  for i, j in [(0, 1), (3, 17), (22, 23)]:
    y = x.copy().reshape(-1)
    y[i] = ~y[j] if dtype == 'bool' else y[j] ^ 1 if y.dtype.kind in 'iu' else -y[j]
    before = digest.arrays({'x': y.reshape(4, 6)})['x'][1]
    y[[i, j]] = y[[j, i]]  # a sign apart: the swap the plain sums do not see
    assert digest.arrays({'x': y.reshape(4, 6)})['x'][1] != before
  assert digest.arrays({'x': x})['x'][1] == want


def test_digest_is_what_its_rule_says():
  x = np.random.default_rng(1).normal(size=(5, 7)).astype(np.float32)
  first = second = 0
  for i, w in enumerate(x.reshape(-1).view(np.uint32).tolist()):
    h = (w + i * 0x9E3779B9) % 2**32
    h = (h ^ h >> 16) * 0x85EBCA6B % 2**32
    h = (h ^ h >> 13) * 0xC2B2AE35 % 2**32
    h ^= h >> 16
    g = (h ^ i) * 0x85EBCA6B % 2**32
    first, second = (first + h) % 2**32, (second + (g ^ g >> 15)) % 2**32
  assert digest.arrays([x]) == {'0': ['float32', f'{first:08x}{second:08x}']}


@pytest.mark.parametrize(
  'sizes', [dict(fsdp=8), dict(fsdp=2, context=2, tensor=2)], ids=['fsdp', 'mixed']
)
def test_digest_does_not_depend_on_the_layout(mesh, sizes):
  whole = digest.arrays(damage.params())
  with jax.set_mesh(mesh(**sizes)):
    place = lambda t, x: jax.device_put(x, t.sharding)
    cut = jax.tree.map(
      place, llama.abstract(damage.C, mesh=jax.sharding.get_mesh()), damage.params()
    )
    assert digest.arrays(cut) == whole


def test_keys_and_numbers_have_digests():
  found = digest.arrays({'a': jax.random.key(1), 'b': jax.random.key(2), 'n': 3})
  assert found['a'][1] != found['b'][1] and found['n'][1]


def test_values_that_orbax_takes_for_good_are_named(tmp_path):
  saves = checkpoint.Checkpoints(tmp_path)
  saves.save(1, {'w': jnp.arange(4.0), 'v': jnp.ones(3)}, {'index': 5})
  saves.close()
  folder = tmp_path / 'checkpoints' / '1'
  like = damage.abstract({'w': jnp.arange(4.0), 'v': jnp.ones(3)})
  path = next((folder / 'digest').glob('metadata'))
  good = path.read_text()
  values = json.loads(good)
  values['arrays']['w'][1] = '0' * 16
  path.write_text(json.dumps(values))
  with pytest.raises(UserError, match=r'1: w is not .*remove that folder and run'):
    checkpoint.Checkpoints(tmp_path).restore(like)
  for bad in ('[]', '{}', '{"arrays": [], "data": ""}', '5'):
    path.write_text(bad)
    with pytest.raises(UserError, match='digest|data is not'):
      checkpoint.Checkpoints(tmp_path).restore(like)
  path.write_text(good)
  data = next((folder / 'data').glob('metadata'))
  data.write_text('{"index": 6}')
  for read in (lambda s: s.restore(like), lambda s: s.data(1)):
    with pytest.raises(UserError, match='1: data is not'):
      read(checkpoint.Checkpoints(tmp_path))


def test_saves_from_before_the_digests_are_used_with_a_line(tmp_path, monkeypatch):
  saves = checkpoint.Checkpoints(tmp_path)
  saves.save(1, damage.params(), {'index': 5})
  saves.close()
  shutil.rmtree(tmp_path / 'checkpoints/1/digest')
  lines = []
  monkeypatch.setattr(checkpoint.logging, 'info', lambda *a: lines.append(str(a)))
  found, data = checkpoint.Checkpoints(tmp_path).restore(
    damage.abstract(damage.params())
  )
  assert damage.same(found, damage.params()) and data == {'index': 5}
  assert any('no digests' in line for line in lines)


def test_parameters_in_another_dtype_are_checked_as_they_were_saved(tmp_path):
  half = damage.params(dtype=jnp.bfloat16)
  final.save(tmp_path / 'final', half, damage.C)
  found, _ = models.load(tmp_path)
  assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype('float32')}
  assert damage.same(found, half)


def test_a_model_says_whose_it_is(tmp_path):
  tokenizer = damage.byte_tokenizer()
  final.save(tmp_path / 'final', damage.params(), damage.C, tokenizer, {'run': 'a'})
  who = models.identity(tmp_path)
  assert who == {
    'vocabulary': tokenizer.fingerprint,
    'vocab_size': 512,
    'variant': '3.1',
    'call_format': 'json',
    'digest': digest.value(digest.arrays(damage.params())),
    'origin': {'run': 'a'},
  }
  path = models.tokenizer(tmp_path)
  assert Tokenizer.load(path).fingerprint == tokenizer.fingerprint
  path.write_bytes(path.read_bytes()[:-9])
  with pytest.raises(UserError, match='tokenizer.model is not what'):
    models.tokenizer(tmp_path)
  path.unlink()
  with pytest.raises(UserError, match='tokenizer.model is not what'):
    models.tokenizer(tmp_path)


def test_a_model_without_a_tokenizer_or_a_name(tmp_path):
  final.save(tmp_path / 'final', damage.params(), damage.C)
  who = models.identity(tmp_path)
  assert who['vocabulary'] is None and len(who['digest']) == 64
  assert models.tokenizer(tmp_path) is None
  other = dataclasses.replace(damage.C, rope_theta=1e4)
  final.save(tmp_path / 'other', damage.params(1), other)
  assert models.identity(tmp_path / 'other')['digest'] != who['digest']
  (tmp_path / 'final/identity.json').unlink()
  with pytest.raises(UserError, match='identity.json is not what .* stage again'):
    models.identity(tmp_path)
  (tmp_path / 'final/digests.json').unlink()
  assert models.identity(tmp_path) == final.NOBODY
  assert damage.same(models.load(tmp_path)[0], damage.params())


JSON = ['{}', '[]', '5', 'null', '"x"', '{"n_layers": "2"}', '{"a": {"b": 1}}', '[[[']


@pytest.mark.parametrize('name', ['model.json', 'identity.json', 'digests.json'])
@pytest.mark.parametrize('old', [False, True], ids=['new', 'old'])
def test_other_valid_json_beside_the_parameters_is_one_line(tmp_path, name, old):
  final.save(tmp_path / 'final', damage.params(), damage.C)
  if old and name != 'digests.json':
    (tmp_path / 'final/digests.json').unlink()
  if old and name == 'model.json':
    (tmp_path / 'final/identity.json').unlink()
  for text in JSON + ['[' * 100_000]:
    (tmp_path / 'final' / name).write_text(text)
    for read in (models.load, models.identity, models.config):
      try:
        read(tmp_path)
      except UserError as e:
        assert '\n' not in str(e) and str(tmp_path) in str(e)
      else:
        # What a reader does not need does not stop it.
        assert (read == models.identity) != (name == 'identity.json')


def test_wrong_types_in_an_old_model_json_are_one_line(tmp_path):
  final.save(tmp_path / 'final', damage.params(), damage.C)
  folder = tmp_path / 'final'
  good = json.loads((folder / 'model.json').read_text())
  for name in ('identity.json', 'digests.json'):
    (folder / name).unlink()
  for field in good:
    for bad in ('x', -1, [], {}, None, 1e30):
      (folder / 'model.json').write_text(json.dumps(good | {field: bad}))
      try:
        model = models.config(tmp_path)
      except UserError as e:
        assert '\n' not in str(e), e
      else:
        assert isinstance(model, ModelConfig) and getattr(model, field) == bad
