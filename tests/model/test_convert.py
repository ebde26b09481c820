"""Weights in and out: round trips to the bit, memory, named faults."""

import dataclasses
import json
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
import tracemalloc
import zipfile

import gguf
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from configs import convert as convert_config
from experiments import convert as experiment
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.config import RopeScaling
from llama3_jax.model import convert
from llama3_jax.model import files
from llama3_jax.model import formats
from llama3_jax.model import llama
from llama3_jax.model import pth
from llama3_jax.train import final
from llama3_jax.train import models

UNTIED = ModelConfig(
  3, 32, 4, 2, 8, 56, 300, rope_scaling=RopeScaling(4.0, 1.0, 4.0, 64), dtype='float32'
)
TIED = dataclasses.replace(UNTIED, rope_scaling=None, tie_embeddings=True)


def _weights(config=UNTIED, dtype='float32'):
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    # Norms too, so that one mistaken for another is seen.
    lambda t: jnp.asarray(rng.normal(0, 0.5, t.shape), dtype),
    llama.abstract(config),
  )
  config = dataclasses.replace(config, dtype=dtype)
  return convert.from_params(params, config), params


def _constant(config):
  """Weights that take no memory before they are read."""

  def tensor(shape):
    read = lambda: np.full(shape, 1.5, np.float32)
    return files.Tensor(shape, np.dtype(np.float32), '', read)

  shapes = {key: formats.our_shape(config, key[0]) for key in formats.leaves(config)}
  tensors = {key: tensor(shape) for key, shape in shapes.items()}
  return formats.Weights(config, tensors)


def _equal(a, b):
  assert a.config == b.config
  assert a.tensors.keys() == b.tensors.keys()
  for key in a.tensors:
    x, y = a.tensors[key].read(), b.tensors[key].read()
    assert x.dtype == y.dtype == a.tensors[key].dtype
    np.testing.assert_array_equal(x, y, err_msg=str(key))


def _bytes(folder):
  return {p.name: p.read_bytes() for p in pathlib.Path(folder).iterdir()}


@pytest.mark.parametrize('config', [UNTIED, TIED], ids=['untied', 'tied'])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize(
  'form, options',
  [('meta', {}), ('meta', {'shards': 2}), ('hf', {}), ('hf', {'shard_bytes': 9000})],
)
def test_parameters_come_back_to_the_bit(tmp_path, config, dtype, form, options):
  weights, params = _weights(config, dtype)
  convert.write(weights, str(tmp_path / 'out'), form, **options)
  back = convert.open_checkpoint(str(tmp_path / 'out'))
  _equal(weights, back)
  again = convert.load(back, llama.abstract(back.config, dtype))
  jax.tree.map(np.testing.assert_array_equal, params, again)


@pytest.mark.parametrize('config', [UNTIED, TIED], ids=['untied', 'tied'])
@pytest.mark.parametrize('first, second', [('meta', 'hf'), ('hf', 'meta')])
def test_there_and_back_gives_the_same_files(tmp_path, config, first, second):
  weights, _ = _weights(config, 'bfloat16')
  path, target = str(tmp_path / 'a'), first
  convert.write(weights, path, first)
  for name, target in (('b', second), ('c', first)):
    convert.write(convert.open_checkpoint(path), str(tmp_path / name), target)
    path = str(tmp_path / name)
  a, c = _bytes(tmp_path / 'a'), _bytes(tmp_path / 'c')
  assert a == c


def test_shards_hold_the_slices_of_the_released_files(tmp_path):
  weights, _ = _weights()
  convert.write(weights, str(tmp_path / 'out'), 'meta', shards=2)
  one = pth.open_pth(str(tmp_path / 'out/consolidated.01.pth'))
  shapes = {name: t.shape for name, t in one.items() if 'layers.0' in name}
  assert one['tok_embeddings.weight'].shape == (150, 32)
  assert shapes['layers.0.attention.wk.weight'] == (8, 32)
  assert shapes['layers.0.attention.wo.weight'] == (32, 16)
  assert shapes['layers.0.feed_forward.w2.weight'] == (32, 28)
  assert shapes['layers.0.ffn_norm.weight'] == (32,)


def test_embedding_split_in_width_and_repeated_kv_heads_are_joined(tmp_path):
  weights, _ = _weights()
  convert.write(weights, str(tmp_path / 'out'), 'meta', shards=2)
  halves = [
    pth.open_pth(str(tmp_path / f'out/consolidated.0{i}.pth')) for i in range(2)
  ]
  embed = weights.tensors['embed', None].read()
  four = []
  for i in range(4):  # four files for two KV heads
    shard = {}
    for name, t in halves[i // 2].items():
      dim = 1 if name.endswith(('wo.weight', 'w2.weight')) else 0
      whole = t.read()
      if name.endswith(('norm.weight', 'wk.weight', 'wv.weight')):
        part = whole
      elif name == 'tok_embeddings.weight':
        part = np.split(embed, 4, axis=1)[i]
      else:
        part = np.split(whole, 2, axis=dim)[i % 2]
      shard[name] = files.Tensor(part.shape, part.dtype, '', lambda x=part: x)
    four.append(shard)
  (tmp_path / 'four').mkdir()
  for i, shard in enumerate(four):
    pth.write_pth(str(tmp_path / f'four/consolidated.0{i}.pth'), shard)
  shutil.copy(tmp_path / 'out/params.json', tmp_path / 'four')
  _equal(weights, convert.open_checkpoint(str(tmp_path / 'four')))


def test_meta_layout_rotates_neighbouring_channels():
  # One head of 4 channels: rows 0 1 2 3 of Meta's are pairs (0,1), (2,3); ours pair
  # (i, i + 2).
  config = ModelConfig(1, 4, 1, 1, 4, 4, 8)
  rows = np.arange(4.0)[:, None] * np.ones((1, 4))
  ours = formats.from_file(rows, convert.meta.LAYOUT, 'layers.wq', config)
  np.testing.assert_array_equal(ours[0, 0], [0, 2, 1, 3])


def test_permutation_matters_to_the_logits(tmp_path):
  weights, params = _weights()
  convert.write(weights, str(tmp_path / 'out'), 'meta')
  good = convert.load(convert.open_checkpoint(str(tmp_path / 'out')))
  tokens = jnp.arange(24)[None] * 7 % 300
  expected = llama.apply(params, tokens, weights.config)
  np.testing.assert_array_equal(llama.apply(good, tokens, weights.config), expected)
  swapped = good.layers.wq.reshape(3, 32, 4, 2, 4).swapaxes(3, 4).reshape(3, 32, 4, 8)
  bad = good.replace(layers=good.layers.replace(wq=swapped))
  assert np.abs(llama.apply(bad, tokens, weights.config) - expected).max() > 0.1


@pytest.mark.parametrize('form', ['meta', 'hf'])
def test_leaves_arrive_sharded(tmp_path, form):
  weights, params = _weights()
  convert.write(weights, str(tmp_path / 'out'), form)
  devices = np.array(jax.devices()[:4]).reshape(1, 2, 1, 1, 2)
  mesh = jax.sharding.Mesh(
    devices,
    ('replica', 'fsdp', 'stage', 'context', 'tensor'),
    axis_types=(jax.sharding.AxisType.Explicit,) * 5,
  )
  abstract = llama.abstract(UNTIED, jnp.float32, mesh)
  back = convert.load(convert.open_checkpoint(str(tmp_path / 'out')), abstract)
  for x, y, target in zip(*map(jax.tree.leaves, (params, back, abstract))):
    assert y.sharding == target.sharding
    np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
  with jax.set_mesh(mesh):
    convert.write(convert.from_params(back, weights.config), str(tmp_path / 'b'), form)
  _equal(weights, convert.open_checkpoint(str(tmp_path / 'b')))


def test_cast_is_the_only_change(tmp_path):
  weights, _ = _weights()
  convert.write(weights, str(tmp_path / 'out'), 'hf', dtype='bfloat16')
  back = convert.open_checkpoint(str(tmp_path / 'out'))
  assert back.config.dtype == 'bfloat16'
  x, y = (w.tensors['layers.wo', 1].read() for w in (weights, back))
  np.testing.assert_array_equal(x.astype(ml_dtypes.bfloat16), y)


def test_safetensors_library_reads_what_is_written(tmp_path):
  weights, _ = _weights(dtype='bfloat16')
  convert.write(weights, str(tmp_path / 'out'), 'hf')
  tensors = safetensors.numpy.load_file(tmp_path / 'out/model.safetensors')
  ours = files.open_safetensors(str(tmp_path / 'out/model.safetensors'))
  assert tensors.keys() == ours.keys()
  for name in tensors:
    np.testing.assert_array_equal(tensors[name], ours[name].read())


def test_npz_with_metas_names_is_read(tmp_path):
  weights, _ = _weights(dtype='bfloat16')
  convert.write(weights, str(tmp_path / 'out'), 'meta')
  tensors = pth.open_pth(str(tmp_path / 'out/consolidated.00.pth'))
  np.savez(tmp_path / 'out/w.npz', **{n: t.read() for n, t in tensors.items()})
  _equal(weights, convert.open_checkpoint(str(tmp_path / 'out/w.npz')))


def _write_gguf(weights, path, quantised=False):
  c = weights.config
  writer = gguf.GGUFWriter(path, 'llama')
  writer.add_block_count(c.n_layers)
  writer.add_embedding_length(c.d_model)
  writer.add_feed_forward_length(c.d_ff)
  writer.add_head_count(c.n_heads)
  writer.add_head_count_kv(c.n_kv_heads)
  writer.add_rope_freq_base(c.rope_theta)
  writer.add_layer_norm_rms_eps(c.norm_eps)
  for key in formats.leaves(c):
    layout = convert.gguf_in.LAYOUT
    x = formats.theirs(weights, layout, key).read()
    name, x = formats.tensor_name(layout, *key), np.ascontiguousarray(x)
    if quantised and x.ndim == 2:
      kind = gguf.GGMLQuantizationType.Q8_0
      writer.add_tensor(name, gguf.quants.quantize(x, kind), raw_dtype=kind)
    else:
      writer.add_tensor(name, x)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()


def test_gguf_is_read_and_dequantised(tmp_path):
  config = dataclasses.replace(TIED, d_ff=64)
  weights, _ = _weights(config)
  _write_gguf(weights, tmp_path / 'plain.gguf')
  _equal(weights, convert.open_checkpoint(str(tmp_path / 'plain.gguf')))
  _write_gguf(weights, tmp_path / 'small.gguf', quantised=True)
  back = convert.open_checkpoint(str(tmp_path / 'small.gguf'))
  for key, t in weights.tensors.items():
    np.testing.assert_allclose(t.read(), back.tensors[key].read(), atol=0.02)


def test_released_sizes_keep_their_rules():
  rules = {'8b': (1.3, 1024), '70b': (1.3, 4096), '405b': (1.2, 4096)}
  for name, rule in rules.items():
    c = llama.SIZES[name]
    assert convert.meta.ffn_width(c.d_model, *rule) == c.d_ff
    values = convert.meta.params_json(c)
    assert (values['ffn_dim_multiplier'], values['multiple_of']) == rule
    assert 'rope_scaling' not in values
  for c in [*llama.SIZES.values(), UNTIED, dataclasses.replace(UNTIED, d_ff=172)]:
    if c.n_heads * c.d_head == c.d_model:
      values = convert.meta.params_json(c)
      width = convert.meta.ffn_width(
        c.d_model, values['ffn_dim_multiplier'], values['multiple_of']
      )
      assert width == c.d_ff
      back = convert.meta.read_params_json(
        values, c.d_ff, c.vocab_size, c.tie_embeddings
      )
      assert (back.rope_scaling, back.d_head) == (c.rope_scaling, c.d_head)


def test_memory_is_that_of_the_largest_tensor(tmp_path):
  config = ModelConfig(12, 256, 8, 4, 32, 512, 4096, dtype='float32')
  convert.write(_constant(config), str(tmp_path / 'meta'), 'meta', shards=2)
  largest = 4096 * 256 * 4
  whole = sum(p.stat().st_size for p in (tmp_path / 'meta').iterdir())
  tracemalloc.start()
  steps = [('meta', 'hf', {}), ('hf', 'back', {}), ('hf', 'half', {'dtype': 'float16'})]
  for source, target, options in steps:
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    opened = convert.open_checkpoint(str(tmp_path / source))
    form = 'hf' if target == 'hf' else 'meta'
    convert.write(opened, str(tmp_path / target), form, **options)
    peak = tracemalloc.get_traced_memory()[1] - before
    # A part of it that is joined or cast, q or k while it is permuted, headers.
    buffer = largest // 2 + 2**20
    assert peak < largest + buffer < whole / 4, (target, peak, whole)
  tracemalloc.stop()


RSS = """
import resource, sys
from llama3_jax.model import convert
def peak():
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
source, target = sys.argv[1:]
before = peak()
weights = convert.open_checkpoint(source)
convert.write(weights, target, 'hf')
print(peak() - before)
"""


def test_process_stays_small_while_the_model_passes(tmp_path):
  config = ModelConfig(24, 512, 8, 8, 64, 1024, 2048, dtype='float32')
  convert.write(_constant(config), str(tmp_path / 'meta'), 'meta')
  size = (tmp_path / 'meta/consolidated.00.pth').stat().st_size / 2**20
  out = subprocess.run(
    [sys.executable, '-c', RSS, str(tmp_path / 'meta'), str(tmp_path / 'hf')],
    capture_output=True,
    text=True,
    timeout=120,
    check=True,
    cwd=pathlib.Path(__file__).parents[2],
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
  )
  grown = float(out.stdout)
  assert size > 200 and grown < 30, (size, grown)  # MiB; the largest tensor has 4


def _written(tmp_path, form, **options):
  weights, _ = _weights()
  convert.write(weights, str(tmp_path / 'model'), form, **options)
  return tmp_path / 'model'


def _rewrite(path, change):
  tensors = files.open_safetensors(str(path))
  loaded = {n: t.read() for n, t in tensors.items()}
  change(loaded)
  safetensors.numpy.save_file(loaded, path)


WO = 'model.layers.1.self_attn.o_proj.weight'


@pytest.mark.parametrize(
  'change, fault',
  [
    (lambda t: t.pop(WO), f'tensor {WO} is missing'),
    (lambda t: t.update({WO: t[WO][:5].copy()}), rf'{WO} is \(5, 32\), .* \(32, 32\)'),
    (lambda t: t.update(extra=t[WO].copy()), 'tensor extra is not part'),
    (lambda t: t.update({WO: t[WO].astype(np.int8)}), f'{WO} has dtype I8'),
  ],
)
def test_bad_tensor_names_itself_and_the_file(tmp_path, change, fault):
  model = _written(tmp_path, 'hf')
  _rewrite(model / 'model.safetensors', change)
  with pytest.raises(UserError, match=fault) as error:
    convert.open_checkpoint(str(model))
  assert str(model) in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize(
  'form, name, options',
  [
    ('hf', 'model.safetensors', {}),
    ('hf', 'model-00002-of-00005.safetensors', {'shard_bytes': 40_000}),
    ('meta', 'consolidated.00.pth', {}),
    ('meta', 'consolidated.01.pth', {'shards': 2}),
  ],
)
@pytest.mark.parametrize('harm', ['cut', 'noise', 'gone'])
def test_damaged_file_is_named(tmp_path, form, name, options, harm):
  file = _written(tmp_path, form, **options) / name
  content = file.read_bytes()
  if harm == 'gone':
    file.unlink()
  else:
    file.write_bytes(content[: len(content) // 2] if harm == 'cut' else b'\xff' * 999)
  with pytest.raises(UserError) as error:
    convert.open_checkpoint(str(file.parent))
  known = name if options or harm != 'gone' else str(file.parent)
  if not (options.get('shards') and harm == 'gone'):
    assert known in str(error.value)


def test_missing_shard_in_the_middle_is_named(tmp_path):
  weights, _ = _weights(dataclasses.replace(UNTIED, n_kv_heads=4))
  convert.write(weights, str(tmp_path / 'model'), 'meta', shards=4)
  (tmp_path / 'model/consolidated.02.pth').unlink()
  with pytest.raises(UserError, match='consolidated.02.pth is missing'):
    convert.open_checkpoint(str(tmp_path / 'model'))


def test_pickle_that_would_run_code_is_refused(tmp_path):
  class Evil:
    def __reduce__(self):
      return os.system, (f'touch {tmp_path}/ran',)

  with zipfile.ZipFile(tmp_path / 'consolidated.00.pth', 'w') as archive:
    archive.writestr('x/data.pkl', pickle.dumps({'w': Evil()}, protocol=2))
  with pytest.raises(UserError, match='system, which is not a tensor'):
    pth.open_pth(str(tmp_path / 'consolidated.00.pth'))
  assert not (tmp_path / 'ran').exists()


def test_tensor_outside_its_storage_is_refused(tmp_path):
  x = np.zeros(4, np.float32)
  t = files.Tensor((10_000,), x.dtype, '', lambda: x)
  pth.write_pth(str(tmp_path / 'a.pth'), {'w': t})
  with pytest.raises(UserError, match='tensor w lies outside'):
    pth.open_pth(str(tmp_path / 'a.pth'))


@pytest.mark.parametrize(
  'change, fault',
  [
    ({'hidden_act': 'gelu'}, "hidden_act is 'gelu'"),
    ({'model_type': 'qwen2'}, "model_type is 'qwen2'"),
    ({'rope_scaling': {'rope_type': 'yarn', 'factor': 2.0}}, "'yarn'"),
    ({'num_hidden_layers': None}, 'num_hidden_layers'),
    ({'num_hidden_layers': 4}, 'model.layers.3.input_layernorm.weight is missing'),
  ],
)
def test_another_model_is_refused(tmp_path, change, fault):
  model = _written(tmp_path, 'hf')
  values = json.loads((model / 'config.json').read_text()) | change
  values = {k: v for k, v in values.items() if v is not None}
  (model / 'config.json').write_text(json.dumps(values))
  with pytest.raises(UserError, match=fault):
    convert.open_checkpoint(str(model))


def test_users_mistakes_are_named(tmp_path):
  model = _written(tmp_path, 'hf')
  weights = convert.open_checkpoint(str(model))
  with pytest.raises(UserError, match='no such file'):
    convert.open_checkpoint(str(tmp_path / 'none'))
  (tmp_path / 'empty').mkdir()
  with pytest.raises(UserError, match='no consolidated'):
    convert.open_checkpoint(str(tmp_path / 'empty'))
  with pytest.raises(UserError, match='model exists'):
    convert.write(weights, str(model), 'hf')
  with pytest.raises(UserError, match='target_format=onnx'):
    convert.write(weights, str(tmp_path / 'x'), 'onnx')
  with pytest.raises(UserError, match='dtype=int8'):
    convert.write(weights, str(tmp_path / 'x'), 'hf', dtype='int8')
  with pytest.raises(UserError, match='shards=3 does not divide n_heads'):
    convert.write(weights, str(tmp_path / 'x'), 'meta', shards=3)
  other = dataclasses.replace(weights.config, d_ff=64)
  with pytest.raises(UserError, match='layers.w_gate is'):
    convert.load(weights, llama.abstract(other))
  with pytest.raises(UserError, match='tie_embeddings=False'):
    convert.load(weights, llama.abstract(TIED))
  assert not (tmp_path / 'x').exists() and not (tmp_path / 'x.partial').exists()


def test_failed_write_leaves_nothing(tmp_path):
  weights, _ = _weights()

  def full():
    raise OSError(28, 'No space left on device')

  tensors = dict(weights.tensors)
  key = 'layers.w_up', 2
  tensors[key] = dataclasses.replace(tensors[key], read=full)
  broken = dataclasses.replace(weights, tensors=tensors)
  for form in ('meta', 'hf'):
    with pytest.raises(UserError, match='No space left'):
      convert.write(broken, str(tmp_path / 'out'), form)
  assert not list(tmp_path.iterdir())


def test_experiment_converts_once(tmp_path):
  model = _written(tmp_path, 'hf')
  config = convert_config.get_config('hf_to_meta')
  config.update(dict(source=str(model), target=str(tmp_path / 'meta')))
  results = experiment.main(config, tmp_path / 'run')
  assert results['parameters'] == llama.count(UNTIED)
  assert results['model']['d_ff'] == 56
  assert experiment.main(config, tmp_path / 'run') == results
  weights, _ = _weights()
  _equal(weights, convert.open_checkpoint(str(tmp_path / 'meta')))
  with pytest.raises(UserError, match='configs/convert.py:meta_to_onnx'):
    convert_config.get_config('meta_to_onnx')


def test_experiment_exports_a_trained_run_and_imports_it(tmp_path):
  weights, params = _weights()
  final.save(tmp_path / 'stage/final', params, weights.config)
  path = tmp_path / 'stage'
  for name in ('auto_to_hf', 'hf_to_run', 'run_to_meta'):
    config = convert_config.get_config(name)
    config.update(dict(source=str(path), target=str(tmp_path / f'to_{name}')))
    experiment.main(config, tmp_path / f'work_{name}')
    path = config.target
  _equal(weights, convert.open_checkpoint(path))
  assert models.config(tmp_path / 'to_hf_to_run') == weights.config


@pytest.mark.parametrize('shards', [1, 2])
def test_torch_loads_our_pth(tmp_path, shards):
  torch = pytest.importorskip('torch', reason='extra oracles is not installed')
  weights, _ = _weights(dtype='bfloat16')
  convert.write(weights, str(tmp_path / 'out'), 'meta', shards=shards)
  path = str(tmp_path / 'out/consolidated.00.pth')
  ours = pth.open_pth(path)
  for mapped in (False, True):
    theirs = torch.load(path, weights_only=True, mmap=mapped)
    assert theirs.keys() == ours.keys()
    for name, x in theirs.items():
      bits = x.contiguous().view(torch.int16).numpy()
      np.testing.assert_array_equal(bits, ours[name].read().view(np.int16))


def test_we_load_torchs_pth(tmp_path):
  torch = pytest.importorskip('torch', reason='extra oracles is not installed')
  base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
  state = {
    'whole': base,
    'view': base[1:, 2:4],
    'transposed': base.T,
    'half': base.to(torch.bfloat16),
    'empty': torch.zeros(0, 3),
    'scalar': torch.tensor(2.5),
    'parameter': torch.nn.Parameter(base[0]),
  }
  torch.save(state, tmp_path / 'a.pth')
  ours = pth.open_pth(str(tmp_path / 'a.pth'))
  assert ours.keys() == state.keys()
  for name, x in state.items():
    expected = x.detach().float().numpy()
    np.testing.assert_array_equal(ours[name].read().astype(np.float32), expected)


@pytest.mark.parametrize('config', [UNTIED, TIED], ids=['untied', 'tied'])
def test_transformers_loads_our_export_with_the_same_logits(tmp_path, config):
  torch = pytest.importorskip('torch', reason='extra oracles is not installed')
  transformers = pytest.importorskip('transformers')
  weights, params = _weights(config)
  convert.write(weights, str(tmp_path / 'out'), 'hf', shard_bytes=50_000)
  model, report = transformers.LlamaForCausalLM.from_pretrained(
    tmp_path / 'out', output_loading_info=True, dtype=torch.float32
  )
  assert not any(report[k] for k in ('missing_keys', 'unexpected_keys'))
  tokens = np.random.default_rng(0).integers(0, 300, (2, 150))
  with torch.no_grad():
    expected = model(torch.from_numpy(tokens)).logits.numpy()
  found = llama.apply(params, jnp.asarray(tokens, jnp.int32), weights.config)
  np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
