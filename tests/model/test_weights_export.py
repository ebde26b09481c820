"""Exports say what others need: ids that end a turn, lengths, the tokenizer's files."""

import dataclasses
import inspect
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers

from configs import convert as convert_config
from experiments import convert as experiment
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.config import RopeScaling
from llama3_jax.model import convert
from llama3_jax.model import hf
from llama3_jax.model import llama
from llama3_jax.text import hf_files
from llama3_jax.text import vocabulary
from llama3_jax.text.tokenizer import Tokenizer
from llama3_jax.train import final
from llama3_jax.train import models

C = ModelConfig(1, 16, 2, 2, 8, 24, vocab_size=620, dtype='float32')
TEXTS = (
  'Hello world, hello again!  1234567 ',
  'aababab aaaa  abab',
  "Don't\r\n\n stop   now",
  'naïve Ünï 漢字 🙂\u200b \ud55c\uae00',
  '',
  'x' * 300,
)


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  path = tmp_path_factory.mktemp('vocabulary') / 'v.model'
  text = "hello world, the naïve don't stop again ababab aaaa 漢字 12 345 now now"
  vocabulary.train([text * 3], 300, path)
  return Tokenizer.load(path)


def params(config=C):
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda t: jnp.asarray(rng.normal(0, 0.5, t.shape), t.dtype), llama.abstract(config)
  )


def exported(folder, mode='run_to_hf'):
  config = convert_config.get_config(mode)
  config.update(dict(source=str(folder / 'run'), target=str(folder / mode)))
  experiment.main(config, folder / f'work_{mode}')
  return folder / mode


def read(path):
  return json.loads(path.read_text())


@pytest.fixture
def out(tmp_path, tokenizer):
  final.save(tmp_path / 'run/final', params(), C, tokenizer)
  record = {'config': {'train.length': 640}, 'versions': {}}
  (tmp_path / 'run/config.json').write_text(json.dumps(record))
  return exported(tmp_path)


def test_an_exported_chat_model_stops(out, tokenizer):
  stops = [tokenizer.eos, tokenizer.eom, tokenizer.eot]
  assert stops == [301, 308, 309]
  values = read(out / 'config.json')
  assert values['eos_token_id'] == stops and values['bos_token_id'] == 300
  assert values['max_position_embeddings'] == 640
  assert read(out / 'generation_config.json') == {
    'bos_token_id': 300,
    'eos_token_id': stops,
  }
  assert read(out / 'tokenizer_config.json')['model_max_length'] == 640


def test_the_exported_tokenizer_gives_the_same_ids(out, tokenizer):
  made = tokenizers.Tokenizer.from_file(str(out / 'tokenizer.json'))
  for text in TEXTS:
    plain = tokenizer.encode(text)
    assert made.encode(text, add_special_tokens=False).ids == plain
    assert made.encode(text).ids == [tokenizer.bos, *plain]
    assert made.decode(plain) == text
  text = '<|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>'
  ids = made.encode(text, add_special_tokens=False).ids
  assert ids == tokenizer.encode(text, special=True)
  assert (out / 'tokenizer.model').read_bytes() == tokenizer.content


def test_a_token_that_no_merges_lead_to_is_still_one(tmp_path):
  tokens = [bytes([i]) for i in range(256)] + [b'ab', b' abcd']
  vocabulary.write(tokens, tmp_path / 'v')
  tokenizer = Tokenizer.load(tmp_path / 'v')
  made = hf_files.library(tokenizer)
  for text in (' abcd', 'x abcd abcde'):
    ids = made.encode(text, add_special_tokens=False).ids
    assert ids == tokenizer.encode(text)
  assert 257 in made.encode(' abcd').ids


def test_transformers_gives_the_same_ids_and_ends(out, tokenizer):
  transformers = pytest.importorskip('transformers', reason='extra oracles')
  made = transformers.PreTrainedTokenizerFast.from_pretrained(out)
  auto = transformers.AutoTokenizer.from_pretrained(out)
  for text in TEXTS:
    for library in (made, auto):
      assert library(text)['input_ids'] == tokenizer.encode(text, bos=True)
  assert made.bos_token_id == tokenizer.bos and made.eos_token_id == tokenizer.eos
  ends = transformers.GenerationConfig.from_pretrained(out)
  assert ends.eos_token_id == list(tokenizer.stop_ids)
  config = transformers.LlamaConfig.from_pretrained(out)
  assert config.max_position_embeddings == 640


def test_the_vocabulary_travels_between_formats(tmp_path, tokenizer):
  final.save(tmp_path / 'run/final', params(), C, tokenizer)
  other = exported(tmp_path, 'run_to_run')
  assert models.identity(other) == models.identity(tmp_path / 'run')
  meta = exported(tmp_path, 'run_to_meta')
  assert (meta / 'tokenizer.model').read_bytes() == tokenizer.content


def test_the_april_vocabulary_has_no_end_of_message(tmp_path, tokenizer):
  (tmp_path / 'v').write_bytes(tokenizer.content)
  april = Tokenizer.load(tmp_path / 'v', 'april')
  final.save(tmp_path / 'run/final', params(), C, april)
  values = read(exported(tmp_path) / 'config.json')
  assert values['eos_token_id'] == [301, 309]


@pytest.mark.parametrize(
  'scaling, length, wanted',
  [
    (None, 0, 8192),
    (None, 4096, 4096),
    (RopeScaling(), 0, 131_072),
    (RopeScaling(32.0), 0, 131_072),
    (RopeScaling(4.0, original=64), 0, 256),
    (RopeScaling(), 8192, 65_536),
    (RopeScaling(), 131_072, 131_072),
    (RopeScaling(), 2048, 16_384),
  ],
)
def test_lengths_are_the_models_own(scaling, length, wanted):
  config = dataclasses.replace(C, rope_scaling=scaling)
  values = hf.config_json(config, np.dtype(np.float32), length=length)
  assert values['max_position_embeddings'] == wanted
  assert (values['rope_scaling'] is None) == (scaling is None)


def test_the_released_vocabulary_is_known_by_its_size(tmp_path):
  config = dataclasses.replace(C, vocab_size=128_256)
  values = hf.config_json(config, np.dtype(np.float32))
  assert values['eos_token_id'] == [128_001, 128_008, 128_009]
  assert values['bos_token_id'] == 128_000
  weights = convert.from_params(params(), C)
  convert.write(weights, str(tmp_path / 'out'), 'hf')
  assert read(tmp_path / 'out/config.json')['eos_token_id'] is None
  assert not (tmp_path / 'out/generation_config.json').exists()


def test_what_transformers_refuses_is_refused_by_field(tmp_path):
  config = dataclasses.replace(C, d_model=15)
  weights = convert.from_params(params(config), config)
  with pytest.raises(UserError, match='model.d_model=15 .* model.n_heads=2'):
    convert.write(weights, str(tmp_path / 'out'), 'hf')
  assert not list(tmp_path.iterdir())


def test_numbers_that_float16_cannot_hold_are_named(tmp_path):
  half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params())
  wv = half.layers.wv.at[0, 3, 1, 2].set(1e5)
  bad = half.replace(layers=half.layers.replace(wv=wv))
  weights = convert.from_params(bad, C)
  with pytest.raises(UserError, match=r'wv of layer 0 holds 99840.* float16 cannot'):
    convert.write(weights, str(tmp_path / 'out'), 'hf', dtype='float16')
  assert not list(tmp_path.iterdir())
  inf = half.replace(norm=half.norm.at[0].set(jnp.inf))  # was infinite before
  convert.write(convert.from_params(inf, C), str(tmp_path / 'out'), 'hf', 'float16')


def converted(source, mode, name, **fields):
  config = convert_config.get_config(mode)
  target = source.parent / name
  config.update(dict(source=str(source), target=str(target), **fields))
  experiment.main(config, source.parent / f'work_{name}')
  return target


@pytest.mark.parametrize('place', ['.', 'original'])
def test_a_vocabulary_travels_with_the_parameters(out, tokenizer, caplog, place):
  (out / place).mkdir(exist_ok=True)
  (out / 'tokenizer.model').rename(out / place / 'tokenizer.model')
  found = converted(out, 'hf_to_run', 'a')
  assert models.identity(found)['vocabulary'] == tokenizer.fingerprint
  meta = converted(found, 'run_to_meta', 'b')
  assert (meta / 'tokenizer.model').read_bytes() == tokenizer.content
  assert (converted(meta, 'meta_to_hf', 'c') / 'tokenizer.json').exists()
  assert 'no vocabulary' not in caplog.text


def test_a_vocabulary_that_is_none_or_not_there_is_said(out, tokenizer, caplog):
  path = out.parent / 'mine.model'
  (out / 'tokenizer.model').rename(path)
  (out / 'tokenizer.json').unlink()
  assert models.identity(converted(out, 'hf_to_run', 'a'))['vocabulary'] is None
  assert 'what is written has no vocabulary' in caplog.text
  (out / 'tokenizer.model').write_bytes(b'\n\x0e\n\x05<unk>\x15\x00\x00')  # of Llama 2
  assert models.identity(converted(out, 'hf_to_run', 'b'))['vocabulary'] is None
  assert 'is a vocabulary of sentencepiece' in caplog.text
  named = converted(out, 'hf_to_run', 'c', tokenizer=str(path))
  assert models.identity(named)['vocabulary'] == tokenizer.fingerprint
  vocabulary.train([inspect.getsource(dataclasses)], 400, out.parent / 'large.model')
  with pytest.raises(UserError, match='large.model has 6.. tokens.*has 620 rows'):
    converted(out, 'hf_to_run', 'd', tokenizer=str(out.parent / 'large.model'))


@pytest.mark.parametrize('form', ['meta', 'hf', 'gguf'])
def test_a_window_is_not_dropped_in_silence(tmp_path, form):
  windowed = dataclasses.replace(C, window=8)
  weights = convert.from_params(params(windowed), windowed)
  with pytest.raises(UserError, match='model.window'):
    convert.write(weights, str(tmp_path / 'out'), form)
  assert not (tmp_path / 'out').exists()
