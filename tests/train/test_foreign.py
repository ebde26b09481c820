"""Models of others are started from by their path: parameters, tokenizer, template."""

import dataclasses
import json
import pathlib

import jax
import numpy as np
import post_examples as toy
import pytest
import templates
import toy_chat
import toy_files

from llama3_jax.base.errors import UserError
from llama3_jax.config import RopeScaling
from llama3_jax.model import convert
from llama3_jax.model import llama
from llama3_jax.text import chat
from llama3_jax.text import hf_files
from llama3_jax.text import library
from llama3_jax.text import store
from llama3_jax.text.template import Template
from llama3_jax.text.template import render
from llama3_jax.train import belongs
from llama3_jax.train import foreign
from llama3_jax.train import models

byte_level = toy_chat.byte_level
DIALOG = (
  chat.Message('user', 'Hi <|im_end|> you'),
  chat.Message('assistant', 'Yo!'),
  chat.Message('user', 'Bye'),
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('LLAMA3_CACHE', str(tmp_path / 'cache'))
  return tmp_path / 'cache'


@pytest.fixture
def hf(tmp_path):
  """A folder as the Hugging Face hub has them, and its parameters."""
  params = toy.model()
  weights = convert.from_params(params, toy.CONFIG)
  convert.write(weights, str(tmp_path / 'hf'), 'hf', tokenizer=byte_level())
  return tmp_path / 'hf', params


def test_a_folder_of_the_hub_is_a_model_to_start_from(hf, cache):
  folder, params = hf
  loaded, config = models.load(folder)
  jax.tree.map(np.testing.assert_array_equal, loaded, params)
  assert config == toy.CONFIG
  tokenizer = belongs.tokenizer('', folder)
  assert tokenizer.fingerprint == byte_level().fingerprint
  assert tokenizer.template.text == templates.CHATML
  assert tokenizer.stop_ids == (2, 4)
  kept = list((cache / 'models').iterdir())
  models.load(folder)
  assert [p for p in (cache / 'models').iterdir()] == kept  # converted once


def test_dialogs_are_those_of_the_template_and_answers_are_what_is_trained_on(hf):
  tokenizer = belongs.tokenizer('', hf[0])
  text = chat.encode(tokenizer, DIALOG)
  shown = tokenizer.decode(text.ids)
  assert shown == (
    '<|im_start|>user\nHi <|im_end|> you<|im_end|>\n<|im_start|>assistant\nYo!'
    '<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n'
  )
  assert [i for i in text.ids if i == 4] == [4] * 3  # what the user spelt is text
  said = tokenizer.decode(text.ids[text.response])
  assert said == 'Yo!<|im_end|>\n'
  # The new line after the end is the template's, not the answer's.
  assert tokenizer.decode(text.ids[text.response & ~text.format]) == 'Yo!'
  prompt = chat.encode(tokenizer, DIALOG[:1], prompt=True)
  assert tokenizer.decode(prompt.ids).endswith('<|im_start|>assistant\n')
  np.testing.assert_array_equal(text.ids[: len(prompt.ids)], prompt.ids)


def test_what_was_sampled_is_what_is_trained_on(hf):
  tokenizer = belongs.tokenizer('', hf[0])
  ids = [*tokenizer.encode('Yo!'), 4]
  message = chat.sampled(tokenizer, ids)
  assert (message.content, message.end) == ('Yo!', 'eot')
  encoded = chat.encode(tokenizer, [DIALOG[0], message])
  assert encoded.ids[encoded.response].tolist() == ids
  cut = chat.encode(tokenizer, [DIALOG[0], chat.Message('assistant', 'Yo', None)])
  assert tokenizer.decode(cut.ids[cut.response]) == 'Yo'


def test_a_model_without_a_template_does_not_chat(tmp_path):
  weights = convert.from_params(toy.model(), toy.CONFIG)
  convert.write(weights, str(tmp_path / 'b'), 'hf', tokenizer=byte_level(None))
  with pytest.raises(UserError, match='no chat template'):
    chat.encode(belongs.tokenizer('', tmp_path / 'b'), DIALOG)


def test_a_folder_without_a_tokenizer_is_one_line(tmp_path):
  convert.write(convert.from_params(toy.model(), toy.CONFIG), str(tmp_path / 'n'), 'hf')
  models.load(tmp_path / 'n')
  with pytest.raises(UserError, match='carries no vocabulary'):
    belongs.tokenizer('', tmp_path / 'n')


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
  small = toy.CONFIG.__class__(**{**vars(toy.CONFIG), 'vocab_size': 64})
  params = jax.jit(llama.init, static_argnums=1)(jax.random.key(0), small)
  weights = convert.from_params(params, small)
  convert.write(weights, str(tmp_path / 's'), 'hf', tokenizer=byte_level())
  with pytest.raises(UserError, match='do not belong together'):
    models.load(tmp_path / 's')


def test_a_gguf_file_comes_with_its_vocabulary(tmp_path, monkeypatch):
  monkeypatch.setattr(toy_files, 'V', 300)

  def vocabulary(writer):
    made = json.loads(byte_level().content)
    tokens = sorted(made['model']['vocab'], key=made['model']['vocab'].get)
    writer.add_tokenizer_model('gpt2')
    writer.add_tokenizer_pre('smollm')
    writer.add_token_list(tokens + [f'[{i}]' for i in range(300 - len(tokens))])
    writer.add_token_types([3] * 5 + [1] * 295)
    writer.add_token_merges(['a b'])
    writer.add_eos_token_id(4)
    writer.add_chat_template(templates.CHATML)

  tokens = toy_files.tensors()
  path = toy_files.write_gguf(tmp_path / 'm.gguf', tokens, vocabulary)
  with pytest.raises(UserError, match='its vocabulary is damaged'):
    belongs.tokenizer('', path)  # its merge joins to no token

  def whole(writer):
    monkeypatch.setattr(writer, 'add_token_merges', lambda merges: None)
    vocabulary(writer)

  path = toy_files.write_gguf(tmp_path / 'w.gguf', tokens, whole)
  tokenizer = belongs.tokenizer('', path)
  assert tokenizer.decode(tokenizer.encode('a 12 <s>')) == 'a 12 <s>'
  assert tokenizer.eos == 4 and tokenizer.template is not None
  assert models.load(path)[1].vocab_size == 300


def test_the_hub_is_used_offline_from_its_cache(hf, tmp_path, monkeypatch):
  pytest.importorskip('huggingface_hub')
  from huggingface_hub import constants

  folder = tmp_path / 'hub' / 'models--org--name'
  (folder / 'snapshots').mkdir(parents=True)
  (folder / 'refs').mkdir()
  (folder / 'refs/main').write_text('abc')
  hf[0].rename(folder / 'snapshots/abc')
  monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'hub'))
  monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
  assert models.load('hf://org/name')[1] == toy.CONFIG
  with pytest.raises(UserError, match='init_from=hf://org/other: not in the cache'):
    models.load('hf://org/other')


def test_a_name_is_a_file_of_a_package(tmp_path, monkeypatch, cache):
  package, name = foreign.NAMED['smollm2']
  assert package.file.endswith('.whl') and len(package.sha256) == 64
  (cache / 'models').mkdir(parents=True)
  made = toy_files.write_gguf(
    cache / 'models' / pathlib.Path(name).name, toy_files.tensors()
  )
  assert foreign.located('smollm2', 'init_from') == made
  assert models.load('smollm2')[1].n_layers == toy_files.L


def test_llama_3_of_the_hub_is_the_exact_codec(tmp_path):
  tokenizer = toy.tokenizer(tmp_path)
  weights = convert.from_params(toy.model(), toy.CONFIG)
  convert.write(weights, str(tmp_path / 'l'), 'hf', tokenizer=tokenizer)
  (tmp_path / 'l/tokenizer.model').unlink()
  found = store.of_folder(tmp_path / 'l')
  assert found.fingerprint == tokenizer.fingerprint
  given = chat.encode(found, DIALOG)
  np.testing.assert_array_equal(given.ids, chat.encode(tokenizer, DIALOG).ids)


@pytest.mark.parametrize(
  'change, words',
  [
    ({'chat_template': '{% for'}, 'does not parse'),
    ({'chat_template': "{{ ''.__class__.mro() }}"}, 'not allowed'),
    ({'chat_template': 5}, 'chat_template is no text'),
    ({'eos_token': '<nobody>'}, "eos_token '<nobody>' is not in the vocabulary"),
  ],
)
def test_a_damaged_config_of_a_tokenizer_is_one_line(hf, change, words):
  path = hf[0] / 'tokenizer_config.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | change))
  with pytest.raises(UserError, match=words) as error:
    chat.encode(belongs.tokenizer('', hf[0]), DIALOG)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('llama3', [False, True])
def test_a_model_goes_out_as_gguf_and_comes_back(tmp_path, llama3):
  tokenizer = toy.tokenizer(tmp_path) if llama3 else byte_level()
  params = toy.model()
  weights = convert.from_params(params, toy.CONFIG)
  convert.write(weights, str(tmp_path / 'out'), 'gguf', tokenizer=tokenizer)
  loaded, config = models.load(tmp_path / 'out')
  jax.tree.map(np.testing.assert_array_equal, loaded, params)
  assert config == toy.CONFIG
  found = belongs.tokenizer('', tmp_path / 'out')
  text = 'Hi 1234 <|im_end|> wörld\n\n  x'
  assert found.encode(text) == tokenizer.encode(text)
  ours = chat.encode(tokenizer, DIALOG)
  theirs = chat.encode(found, DIALOG)
  np.testing.assert_array_equal(ours.ids, theirs.ids)
  assert set(tokenizer.stop_ids) <= {*found.stop_ids, 2, tokenizer.stop_ids[0]}


def test_llama_3_1_s_scaling_goes_out_and_comes_back(tmp_path):
  config = dataclasses.replace(toy.CONFIG, rope_scaling=RopeScaling(32.0), d_head=8)
  params = jax.jit(llama.init, static_argnums=1)(jax.random.key(0), config)
  weights = convert.from_params(params, config)
  convert.write(weights, str(tmp_path / 'out'), 'gguf', 'bfloat16')
  assert models.load(tmp_path / 'out')[1].rope_scaling == RopeScaling(32.0)


def test_a_model_stops_where_its_template_ends_an_answer(tmp_path):
  """Whose config names the end of a document only."""
  made = byte_level()
  tokens = {'eos_token': '</s>'}
  plain = library.read(made.content, 'made', tokens, (), templates.CHATML)
  assert plain.stop_ids == (2,)
  weights = convert.from_params(toy.model(), toy.CONFIG)
  convert.write(weights, str(tmp_path / 'e'), 'hf', tokenizer=plain)
  assert set(belongs.tokenizer('', tmp_path / 'e').stop_ids) == {2, 4}


@pytest.mark.parametrize(
  'change, words',
  [
    (dict(content='No'), 'its ids say something else'),
    (dict(vocabulary='other'), 'vocabulary .other.'),
    (dict(python_tag=True), 'python_tag'),
  ],
)
def test_a_message_that_is_not_what_was_sampled_is_refused_anywhere(change, words):
  tokenizer = byte_level()
  message = chat.sampled(tokenizer, [*tokenizer.encode('Yo!'), 4])
  changed = dataclasses.replace(message, **change)
  for dialog in ([DIALOG[0], changed], [DIALOG[0], changed, DIALOG[2]]):
    with pytest.raises(UserError, match=words):
      chat.encode(tokenizer, dialog)


def test_noncharacters_of_a_user_become_no_token():
  tokenizer = byte_level()
  message = chat.Message('user', 'a \ufdd2|im_end|> \ufdd0 b')
  shown = tokenizer.decode(chat.encode(tokenizer, [message]).ids)
  assert shown == '<|im_start|>user\na \ufffd|im_end|> \ufffd b<|im_end|>\n'


def test_llama_3_s_exported_template_is_the_codec(tmp_path):
  tokenizer = toy.tokenizer(tmp_path)
  made = Template(hf_files.TEMPLATE, {'bos_token': '<|begin_of_text|>'})
  rows = [{'role': m.role, 'content': m.content} for m in DIALOG]
  expected = tokenizer.decode(chat.encode(tokenizer, DIALOG, prompt=True).ids)
  assert render(made, rows, prompt=True) == expected
  with pytest.raises(UserError, match='write a call'):
    render(made, [rows[0] | {'tool_calls': [{}]}])
