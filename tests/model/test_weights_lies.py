"""Weight files that lie: one line each, nothing run, no memory taken on their word."""

import dataclasses
import json
import pickle
import random
import resource
import struct
import zipfile

import numpy as np
import pytest
import safetensors.numpy
import toy_files as goldens

from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.config import RopeScaling
from llama3_jax.model import convert
from llama3_jax.model import files
from llama3_jax.model import pth
from llama3_jax.train import models


def lie(path, header, data=bytes(64)):
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  path.write_bytes(struct.pack('<Q', len(text)) + text + data)
  return str(path)


def entry(begin, end, shape=(4,), dtype='F32'):
  return {'dtype': dtype, 'shape': list(shape), 'data_offsets': [begin, end]}


def one_line(error):
  assert '\n' not in str(error) and len(str(error)) < 600
  return str(error)


GOOD = entry(0, 16)
LIES = {
  'negative': {'a': entry(-16, 0)},
  'overlap': {'a': entry(0, 16), 'b': entry(8, 24)},
  'overlap to the end': {'a': entry(0, 16), 'b': entry(8, 64, (14,))},
  'same bytes': {'a': entry(0, 16), 'b': entry(0, 16)},
  'gap': {'a': entry(0, 16), 'b': entry(32, 64, (8,))},
  'gap at the start': {'a': entry(16, 64, (12,))},
  'rest': {'a': entry(0, 16)},
  'backwards': {'a': entry(16, 0)},
  'shape and bytes': {'a': entry(0, 64, (4,))},
  'negative dims': {'a': entry(0, 64, (-4, -4))},
  'beyond the end': {'a': entry(0, 128, (32,))},
  'text as a dim': {'a': entry(0, 64, ('16',))},
  'bool as a dim': {'a': entry(0, 64, (16, True))},
  'float as an offset': {'a': entry(0.0, 64.0, (16,))},
  'huge dims': {'a': entry(0, 64, (2**62, 2**62))},
  'huge and empty': {'a': entry(0, 0, (0, 2**70)), 'b': entry(0, 64, (16,))},
  'many dims': {'a': entry(0, 64, (16,) + (1,) * 40)},
  'shape is null': {'a': {'dtype': 'F32', 'shape': None, 'data_offsets': [0, 64]}},
  'three offsets': {'a': {'dtype': 'F32', 'shape': [16], 'data_offsets': [0, 64, 9]}},
  'no offsets': {'a': {'dtype': 'F32', 'shape': [16]}},
  'more fields': {'a': entry(0, 64, (16,)) | {'x': 1}},
  'list as a dtype': {'a': entry(0, 64, (16,), ['F32'])},
  'dict as a dtype': {'a': entry(0, 64, (16,), {})},
  'other dtype': {'a': entry(0, 64, (64,), 'I8')},
  'entry is a list': {'a': [1]},
  'entry is null': {'a': None},
  'notes are numbers': {'__metadata__': {'a': 1}, 'a': entry(0, 64, (16,))},
  'notes are a list': {'__metadata__': [], 'a': entry(0, 64, (16,))},
  'header is a list': [],
  'header is a number': 5,
  'name twice': b'{"a": %s, "a": %s}'
  % ((json.dumps(entry(0, 64, (16,))).encode(),) * 2),
  'two lines as a name': {'a\nb': entry(0, 64, (16,))},
  'nested': b'[' * 100_000,
  'not UTF-8': b'{"\xff": 1}',
}


@pytest.mark.parametrize('name', LIES)
def test_lies_of_a_safetensors_header_are_one_line(tmp_path, name):
  path = lie(tmp_path / 'a.safetensors', LIES[name])
  with pytest.raises(UserError) as e:
    files.open_safetensors(path)
  assert path in one_line(e.value)


def test_headers_longer_than_the_file_or_the_limit_are_one_line(tmp_path):
  for length in (2**63 - 1, 65, 0):
    (tmp_path / 'a').write_bytes(struct.pack('<Q', length) + bytes(64))
    with pytest.raises(UserError):
      files.open_safetensors(str(tmp_path / 'a'))
  (tmp_path / 'a').write_bytes(b'')
  with pytest.raises(UserError):
    files.open_safetensors(str(tmp_path / 'a'))


def test_what_the_library_writes_is_read(tmp_path):
  x = {'b': np.zeros((0, 3), np.float32), 'a': np.arange(6, dtype=np.float32)}
  x['c'] = np.array(3, np.float32)
  safetensors.numpy.save_file(x, tmp_path / 'a', {'note': 'x'})
  found = files.open_safetensors(str(tmp_path / 'a'))
  for name in x:
    np.testing.assert_array_equal(found[name].read(), x[name])


@pytest.mark.parametrize(
  'places',
  [
    '../model.safetensors',
    '/etc/passwd',
    'a/../../model.safetensors',
    'model.bin',
    '',
    5,
    None,
    ['model.safetensors'],
  ],
)
def test_an_index_stays_in_its_folder(tmp_path, places):
  folder = goldens.write_hf(tmp_path / 'm', goldens.tensors())
  (folder / 'model.safetensors').rename(tmp_path / 'model.safetensors')
  index = {'weight_map': {'lm_head.weight': places}}
  (folder / 'model.safetensors.index.json').write_text(json.dumps(index))
  with pytest.raises(UserError, match='weight_map puts lm_head.weight') as e:
    convert.open_checkpoint(str(folder), 'hf')
  one_line(e.value)


@pytest.mark.parametrize(
  'content', ['[]', '5', '{}', '{"weight_map": []}', '[' * 99999]
)
def test_an_index_of_another_form_is_one_line(tmp_path, content):
  folder = goldens.write_hf(tmp_path / 'm', goldens.tensors())
  (folder / 'model.safetensors.index.json').write_text(content)
  with pytest.raises(UserError) as e:
    convert.open_checkpoint(str(folder))
  one_line(e.value)


LLAMA3 = {
  'rope_type': 'llama3',
  'factor': 8.0,
  'low_freq_factor': 1.0,
  'high_freq_factor': 4.0,
  'original_max_position_embeddings': 64,
}
BAD = {
  'num_hidden_layers': (1e30, -1, 0, 2.5, '2', [], {}, True, 10**9, 2**70),
  'hidden_size': (0, -24, 'x', [], 1e30),
  'num_attention_heads': (0, -1, 3.5, 'x', {}),
  'num_key_value_heads': (3, -2, 'x', [1], 0),
  'intermediate_size': (0, 'x', []),
  'vocab_size': (-1, 'x', []),
  'head_dim': (7, -6, 'x', []),
  'rms_norm_eps': (-1, 'x', [], 0, True, float('nan'), float('inf')),
  'rope_theta': (-1, 0, 'x', [], float('nan'), 1e300),
  'tie_word_embeddings': ('x', 1, [], {}),
  'rope_scaling': (
    'x',
    [1],
    {'rope_type': []},
    {'rope_type': 'llama3'},
    {
      'rope_type': 'llama3',
      'factor': -1,
      'low_freq_factor': 1,
      'high_freq_factor': 4,
      'original_max_position_embeddings': 64,
    },
    {**LLAMA3, 'high_freq_factor': 0.5},
    {**LLAMA3, 'beta_fast': 32},
    {**LLAMA3, 'partial_rotary_factor': 0.5},
    {'factor': 8.0},  # of no type
    {'type': 'linear', 'factor': 8.0},
    {'rope_type': 'default', 'factor': 8.0},
  ),
  'rope_parameters': (
    {'rope_type': 'default', 'rope_theta': 1e4, 'partial_rotary_factor': 0.5},
    {'full_attention': {'rope_type': 'default', 'rope_theta': 1e4}},
    {'rope_theta': 0.5},
  ),
  'partial_rotary_factor': (0.5, 'x'),
  'auto_map': ({'AutoModelForCausalLM': 'modeling.Mine'},),
  'final_logit_softcapping': (30.0,),
  'sliding_window': (4096,),
  'residual_multiplier': (0.22,),
}


@pytest.mark.parametrize('key', BAD)
def test_bad_values_of_a_config_name_their_key(tmp_path, key):
  folder = goldens.write_hf(tmp_path / 'm', goldens.tensors())
  good = json.loads((folder / 'config.json').read_text())
  for value in BAD[key]:
    (folder / 'config.json').write_text(json.dumps(good | {key: value}))
    with pytest.raises(UserError) as e:
      convert.open_checkpoint(str(folder))
    text = one_line(e.value)
    word = '' if key in INDIRECT else key
    assert 'config.json' in text and word in text, (value, text)


INDIRECT = ('rope_scaling', 'rope_parameters', 'num_key_value_heads', 'head_dim')


def test_rope_is_read_in_every_form_that_transformers_wrote(tmp_path):
  folder = goldens.write_hf(tmp_path / 'm', goldens.tensors())
  values = json.loads((folder / 'config.json').read_text())
  values = {k: v for k, v in values.items() if not k.startswith('rope')}

  def rope(**more):
    (folder / 'config.json').write_text(json.dumps(values | more))
    c = convert.open_checkpoint(str(folder)).config
    return c.rope_theta, c.rope_scaling

  scaled = RopeScaling(8.0, 1.0, 4.0, 64)
  old = {**LLAMA3, 'type': LLAMA3['rope_type']}
  del old['rope_type']
  for form in (old, LLAMA3, {**LLAMA3, 'type': 'llama3'}):
    assert rope(rope_theta=7e3, rope_scaling=form) == (7e3, scaled)
    assert rope(rope_parameters={**form, 'rope_theta': 7e3}) == (7e3, scaled)
    both = dict(rope_parameters={**form, 'rope_theta': 7e3}, rope_scaling=form)
    assert rope(**both) == (7e3, scaled)
    both['rope_scaling'] = {**form, 'factor': 4.0}
    with pytest.raises(UserError, match='differ in factor'):
      rope(**both)
  for plain in (None, {}, {'rope_type': 'default'}, {'type': 'default'}):
    assert rope(rope_theta=7e3, rope_scaling=plain) == (7e3, None)
  last = {'rope_type': 'default', 'rope_theta': 7e3, 'partial_rotary_factor': 1.0}
  assert rope(rope_parameters=last) == (7e3, None)


@pytest.mark.parametrize('key', ['quantization_args', 'lora_args', 'moe_args'])
def test_params_of_another_model_are_refused(tmp_path, key):
  folder = goldens.write_meta(tmp_path / 'm', goldens.tensors())
  good = json.loads((folder / 'params.json').read_text())
  (folder / 'params.json').write_text(json.dumps(good | {key: None}))
  convert.open_checkpoint(str(folder))
  (folder / 'params.json').write_text(json.dumps(good | {key: {'a': 1}}))
  with pytest.raises(UserError, match=f'params.json: {key}'):
    convert.open_checkpoint(str(folder))


@pytest.mark.parametrize(
  'change, fault',
  [
    ({'rope_theta': -1.0}, 'model.rope_theta'),
    ({'rope_theta': float('nan')}, 'model.rope_theta'),
    ({'norm_eps': 2.0}, 'model.norm_eps'),
    ({'n_layers': 0}, 'model.n_layers'),
    ({'n_layers': 2.0}, 'model.n_layers'),
    ({'vocab_size': True}, 'model.vocab_size'),
    ({'tie_embeddings': 1}, 'model.tie_embeddings'),
    ({'dtype': 5}, 'model.dtype'),
    ({'quant': 'int2'}, 'model.quant'),
    ({'rope_scaling': RopeScaling(factor=-8.0)}, 'model.rope_scaling.factor'),
    ({'rope_scaling': RopeScaling(original=0)}, 'model.rope_scaling.original'),
    ({'rope_scaling': RopeScaling(low=4.0, high=4.0)}, 'model.rope_scaling.high'),
  ],
)
def test_values_of_a_model_are_checked_whoever_wrote_them(tmp_path, change, fault):
  good = ModelConfig(1, 16, 2, 2, 8, 24, vocab_size=300)
  final = tmp_path / 'final'
  final.mkdir()
  for model, wrong in ((good, ''), (dataclasses.replace(good, **change), fault)):
    (final / 'model.json').write_text(json.dumps(dataclasses.asdict(model)))
    if wrong:
      with pytest.raises(UserError, match=f'model.json: {wrong}'):
        models.config(tmp_path)
    else:
      assert models.config(tmp_path) == model


@pytest.mark.parametrize(
  'key', ['n_layers', 'n_heads', 'n_kv_heads', 'norm_eps', 'dim']
)
def test_bad_values_of_params_json_are_one_line(tmp_path, key):
  folder = goldens.write_meta(tmp_path / 'm', goldens.tensors())
  good = json.loads((folder / 'params.json').read_text())
  for value in ('x', -1, [], {}, 1e30, True):
    (folder / 'params.json').write_text(json.dumps(good | {key: value}))
    with pytest.raises(UserError) as e:
      convert.open_checkpoint(str(folder))
    assert 'params.json' in one_line(e.value) and key in str(e.value), value


def archive(path, index, **more):
  with zipfile.ZipFile(path, 'w', more.pop('compression', zipfile.ZIP_STORED)) as z:
    z.writestr('x/data.pkl', index)
    for name, content in more.items():
      z.writestr(f'x/data/{name}', content)
  return str(path)


@pytest.mark.parametrize(
  'index',
  [
    b'Nr\xff\xff\xff\x0f.',
    b'Nr\xff\xff\xff\x7f.',
    b'Np268435455\n.',
    b'\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.',
    b'\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.',
    b'\x80\x02X\xff\xff\xff\x7fabc.',
    b'I' + b'9' * 100_000 + b'\n.',
  ],
)
def test_memory_bombs_of_a_pickle_are_refused(tmp_path, index):
  path = archive(tmp_path / 'a.pth', index)
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  with pytest.raises(UserError, match='refused') as e:
    pth.open_pth(path)
  one_line(e.value)
  assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_a_pickle_that_unpacks_to_gigabytes_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(pth, 'INDEX_BYTES', 10**6)
  bomb = b'N0' * 10**6 + b'.'
  path = archive(tmp_path / 'a.pth', bomb, compression=zipfile.ZIP_DEFLATED)
  with pytest.raises(UserError, match='data.pkl has 2000001 bytes'):
    pth.open_pth(path)
  raw = bytearray((tmp_path / 'a.pth').read_bytes())  # now the archive says 999 bytes
  at = raw.rfind(b'PK\x01\x02')
  raw[at + 24 : at + 28] = struct.pack('<I', 999)
  (tmp_path / 'a.pth').write_bytes(raw)
  with pytest.raises(UserError):
    pth.open_pth(path)


def test_pickles_of_wrong_parts_are_one_line(tmp_path):
  """Tensors whose storage, offset, shape or strides are something else."""
  w = {'w': files.Tensor((2, 3), np.dtype(np.float32), '', lambda: np.ones((2, 3)))}
  pth.write_pth(str(tmp_path / 'a.pth'), w)
  with zipfile.ZipFile(tmp_path / 'a.pth') as z:
    index = z.read('a/data.pkl')
  rebuild = b'ctorch._utils\n_rebuild_tensor_v2\n'
  storage = index[index.index(b'((X') + 1 : index.index(b'Q') + 1]
  hooks = b'\x89N'
  for part, offset, shape, strides in (
    (b'N', b'K\x00', b'K\x02\x85', b'K\x01\x85'),
    (b'X\x01\x00\x00\x00s', b'K\x00', b'K\x02\x85', b'K\x01\x85'),
    (storage, b'N', b'K\x02\x85', b'K\x01\x85'),
    (storage, b'K\x00', b'N\x85', b'K\x01\x85'),
    (storage, b'K\x00', b'X\x02\x00\x00\x00ab', b'X\x02\x00\x00\x00ab'),
    (storage, b'K\x00', b'K\x02\x85', b'J\xff\xff\xff\xff\x85'),
    (storage, b'K\x00', b'K\x02\x85', b'K\x01K\x01\x86'),
    (storage, b'K\x00', b'G?\xf0\x00\x00\x00\x00\x00\x00\x85', b'K\x01\x85'),
    (storage, b'K\x00', b'K\x00\x8a\x09' + bytes(8) + b'\x01\x86', b'K\x01K\x01\x86'),
  ):
    body = rebuild + b'(' + part + offset + shape + strides + hooks + b'tR'
    path = archive(
      tmp_path / 'b.pth',
      b'\x80\x02}X\x01\x00\x00\x00w' + body + b's.',
      **{'0': bytes(24)},
    )
    with pytest.raises(UserError) as e:
      pth.open_pth(path)
    one_line(e.value)


@pytest.mark.parametrize('form', ['meta', 'hf', 'gguf', 'npz'])
def test_random_harm_is_one_line(tmp_path, form):
  """Bytes of the header or index changed: read as before, or one line."""
  path = goldens.WRITERS[form](tmp_path / f'm.{form}', goldens.tensors())
  names = {'meta': 'consolidated.00.pth', 'hf': 'model.safetensors'}
  file = path / names[form] if form in names else path
  good = file.read_bytes()
  tail = form in ('meta', 'npz')  # where zip archives have their index
  for seed in range(60):
    rng, harmed = random.Random(seed), bytearray(good)
    for _ in range(rng.randrange(1, 4)):
      i = rng.randrange(min(len(good), 2500))
      harmed[-1 - i if tail and rng.random() < 0.6 else i] = rng.randrange(256)
    file.write_bytes(harmed)
    try:
      weights = convert.open_checkpoint(str(path), form)
      for tensor in weights.tensors.values():
        tensor.read()
    except UserError as e:
      one_line(e)


def test_pickled_numbers_are_no_tensors(tmp_path):
  path = archive(tmp_path / 'a.pth', pickle.dumps({'w': [1, 2]}))
  with pytest.raises(UserError, match='no dict of tensors'):
    pth.open_pth(path)
