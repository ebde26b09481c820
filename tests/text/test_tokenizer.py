"""Tokenizer: Meta's file format, its guards, training and extension."""

import argparse
import base64
import hashlib
import inspect
import json
import os
import pathlib
import pickle
import random
import textwrap

import pytest
import tokenizers

from configs import tokenizer as tokenizer_config
from experiments import tokenizer as experiment
from llama3_jax.base.errors import UserError
from llama3_jax.text import tokenizer
from llama3_jax.text import vocabulary
from llama3_jax.text.tokenizer import Tokenizer

# Real text that every machine has: modules of the standard library.
CODE = [inspect.getsource(m) for m in (argparse, inspect, pathlib, random, textwrap)]
GERMAN = [
  f'Die größte Brücke überquert den Fluß, und {n} müde Straßenbahnführer grüßen.'
  for n in range(40)
]
HINDI = [f'नमस्ते दुनिया, आज {n} लोग यहाँ हैं। क्या हाल है?' for n in range(40)]
ODD = [
  '',
  ' ',
  '\n\n\r\n \t',
  "I'm o'CLOCK we'LL",
  '12345 3.14 x' * 3,
  'ﷺ 𝔘𝔫𝔦 👨‍👩‍👧 é\u2028e\x00',
  'a' * 70_000,
  ' ' * 30_000 + 'x',
  'word ' * 90_000,
]


@pytest.fixture(scope='module')
def path(tmp_path_factory):
  path = tmp_path_factory.mktemp('vocabulary') / 'tokenizer.model'
  tokenizer.train(CODE, 1024, path)
  return path


def test_ranks_give_tiktoken_the_merges_of_training(toy):
  library = tokenizers.Tokenizer(tokenizers.models.BPE())
  library.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
    [
      tokenizers.pre_tokenizers.Split(tokenizers.Regex(vocabulary.PATTERN), 'isolated'),
      tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
  )
  letters = vocabulary.byte_characters()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=1024,
    min_frequency=2,
    initial_alphabet=list(letters),
    show_progress=False,
  )
  library.train_from_iterator(CODE, trainer)
  unseen = [inspect.getsource(json.decoder), inspect.getsource(os)]
  for text in CODE + GERMAN + HINDI + ODD[:6] + unseen:
    expected = [bytes(letters[c] for c in t) for t in library.encode(text).tokens]
    assert [toy.decode_bytes([i]) for i in toy.encode(text)] == expected


def test_byte_characters_are_those_of_the_library():
  alphabet = vocabulary.byte_characters()
  assert set(alphabet) == set(tokenizers.pre_tokenizers.ByteLevel.alphabet())
  assert sorted(alphabet.values()) == list(range(256))


def test_any_text_comes_back(toy):
  rng = random.Random(0)
  letters = [chr(i) for i in range(0x20000) if not 0xD800 <= i < 0xE000]
  texts = [''.join(rng.choices(letters, k=300)) for _ in range(20)]
  for text in texts + ODD + CODE[:1]:
    assert toy.decode(toy.encode(text)) == text
  assert toy.decode(toy.encode('a\ud800b')) == 'a\ufffdb'


def test_batch_equals_one_by_one(toy):
  texts = ODD + GERMAN
  assert toy.encode_batch(texts) == [toy.encode(t) for t in texts]
  assert toy.encode_batch([]) == []


def test_tokenizer_crosses_to_another_process(toy):
  assert pickle.loads(pickle.dumps(toy)).encode('def f(x):') == toy.encode('def f(x):')


def test_pieces_respect_the_guards():
  for text in ODD + ['x' * 25_000, 'x' * 25_001, 'ab ' * 400_000]:
    parts = list(tokenizer.pieces(text))
    assert ''.join(parts) == text
    for part in parts:
      assert len(part) <= 400_000
      runs = tokenizer.RUNS.findall(part)
      assert max(map(len, runs), default=0) <= 25_000
  assert [len(p) for p in tokenizer.pieces('x' * 60_000)] == [25_000, 25_000, 10_000]


def test_special_tokens_follow_the_base_ranks(toy):
  assert toy.n_base == 1024 and toy.vocab_size == 1280
  assert (toy.bos, toy.eos, toy.pad) == (1024, 1025, 1028)
  assert (toy.start_header, toy.end_header) == (1030, 1031)
  assert (toy.eom, toy.eot, toy.python_tag) == (1032, 1033, 1034)
  assert toy.stop_ids == (1025, 1032, 1033)
  assert sorted(toy.specials.values()) == list(range(1024, 1280))


def test_april_variant_has_reserved_names_and_no_padding_id(path):
  april = Tokenizer.load(path, 'april')
  assert april.pad == -1 and april.stop_ids == (1025, 1033)
  assert april.special('<|reserved_special_token_4|>') == 1032
  assert april.special('<|reserved_special_token_250|>') == 1279
  with pytest.raises(UserError, match=r"'april' has no special token <\|eom_id\|>"):
    _ = april.eom


def test_special_looking_text_stays_text(toy):
  text = '<|eot_id|><|begin_of_text|>'
  assert max(toy.encode(text)) < toy.n_base
  assert toy.encode(text, special=True) == [toy.eot, toy.bos]
  assert toy.encode('a', bos=True, eos=True)[::2] == [toy.bos, toy.eos]


def test_training_is_deterministic(path, tmp_path):
  tokenizer.train(iter(CODE), 1024, tmp_path / 'again.model')
  assert (tmp_path / 'again.model').read_bytes() == path.read_bytes()


def test_extension_leaves_base_languages_as_they_were(path, toy, tmp_path):
  extended = tmp_path / 'extended.model'
  tokenizer.extend(path, GERMAN + HINDI, 40, extended, keep=CODE)
  new = Tokenizer.load(extended)
  assert extended.read_bytes().startswith(path.read_bytes())
  assert new.n_base == 1064
  for text in CODE:
    assert new.encode(text) == toy.encode(text)
  rates = [tokenizer.characters_per_token(t, {'hi': HINDI})['hi'] for t in (toy, new)]
  assert rates[1] > 2 * rates[0]


def test_extension_changes_only_words_with_a_new_token(path, toy, tmp_path):
  tokenizer.extend(path, GERMAN + HINDI, 60, tmp_path / 'extended.model')
  new = Tokenizer.load(tmp_path / 'extended.model')
  changed = 0
  for word in set(' '.join(CODE + GERMAN).split(' ')):
    ids = new.encode(word)
    if max(ids, default=0) < toy.n_base:
      assert ids == toy.encode(word)
    elif max(ids) < new.n_base:
      changed += 1
  assert changed


@pytest.mark.parametrize(
  'content, message',
  [
    (b'IQ== 0\nnot base64 1\n', 'line 2'),
    (b'IQ== 0\nIg== 7\n', 'line 2: rank 7 where 1 is due'),
    (b'IQ== 0\nIQ== 1\n', 'line 2: token .* twice'),
    (b'{"version": "1.0"}', 'line 1'),
    (b'IQ== 0\n', 'no token for byte 0'),
    (b'\x0a\x0e\x0a\x05<unk>', 'line 1'),
  ],
)
def test_corrupt_file_is_named_with_its_line(tmp_path, content, message):
  (tmp_path / 'bad.model').write_bytes(content)
  with pytest.raises(UserError, match=message) as error:
    Tokenizer.load(tmp_path / 'bad.model')
  assert 'bad.model' in str(error.value) and '\n' not in str(error.value)


def test_file_cut_inside_a_line_is_refused(path, tmp_path):
  (tmp_path / 'cut.model').write_bytes(path.read_bytes()[:-3])
  with pytest.raises(UserError, match='line 1024'):
    Tokenizer.load(tmp_path / 'cut.model')


def test_users_mistakes_are_named(toy, path, tmp_path):
  with pytest.raises(UserError, match='No such file'):
    Tokenizer.load(tmp_path / 'none.model')
  with pytest.raises(UserError, match="variant 'may'"):
    Tokenizer.load(path, 'may')
  with pytest.raises(UserError, match='teach only'):
    tokenizer.train(['a b c'], 500, tmp_path / 'few.model')
  with pytest.raises(UserError, match='at least 256'):
    tokenizer.train(CODE, 100, tmp_path / 'few.model')
  with pytest.raises(UserError, match='id 99999'):
    toy.decode([99_999])


def _documents(folder):
  folder.mkdir()
  for language, texts in (('en', CODE * 2), ('de', GERMAN), ('hi', HINDI)):
    rows = [json.dumps({'text': t, 'lang': language}) for t in texts]
    (folder / f'{language}.jsonl').write_text('\n'.join(rows) + '\n', encoding='utf-8')
  return folder


def test_experiment_trains_extends_and_is_skipped_when_done(tmp_path):
  folder = _documents(tmp_path / 'documents')
  config = tokenizer_config.get_config('train')
  config.update(dict(inputs=(str(folder / 'en.jsonl'),), vocab_size=600, hold_out=5))
  first = experiment.main(config, tmp_path / 'base')
  assert first['n_base'] == 600 and set(first['characters_per_token']) == {'en'}

  base = tmp_path / 'base/tokenizer.model'
  config = tokenizer_config.get_config('extend')
  config.update(dict(inputs=(str(folder),), base=str(base), vocab_size=640))
  second = experiment.main(config, tmp_path / 'more')
  rates, before = second['characters_per_token'], second['base_characters_per_token']
  assert rates['en'] == before['en'] and rates['hi'] > before['hi']

  model = tmp_path / 'more/tokenizer.model'
  stamp = model.stat().st_mtime_ns
  assert experiment.main(config, tmp_path / 'more') == second
  assert model.stat().st_mtime_ns == stamp


def test_experiment_names_the_bad_row(tmp_path):
  folder = _documents(tmp_path / 'documents')
  with open(folder / 'de.jsonl', 'a') as file:
    file.write('{"url": "x"}\n')
  config = tokenizer_config.get_config('train')
  config.inputs = (str(folder),)
  with pytest.raises(UserError, match='de.jsonl, line 41'):
    experiment.main(config, tmp_path / 'out')


def test_meta_vocabulary_encodes_as_the_released_code(meta, parity):
  assert meta.fingerprint == parity['tokenizer_sha256']
  assert vocabulary.PATTERN == parity['pat_str']
  assert meta.vocab_size == parity['n_words']
  assert list(meta.stop_ids) == parity['stop_tokens']
  names = {k.removesuffix('_id'): v for k, v in parity['ids'].items()}
  assert {k: getattr(meta, k) for k in names} == names
  for name, i in parity['special_tokens'].items():
    assert meta.special(name) == i
  for case in parity['strings']:
    assert meta.encode(case['text']) == case['ids'], case['name']
    assert meta.decode(case['ids']) == case['text'], case['name']
  for case in parity['allowed_special']:
    assert meta.encode(case['text'], special=True) == case['ids']
  for case in parity['strings_bos_eos']:
    assert meta.encode(case['text'], bos=True, eos=True) == case['ids']


def test_meta_vocabulary_encodes_long_strings_as_the_released_code(meta, parity):
  texts = dict(a_x_60000='a' * 60_000, space_x_60000=' ' * 60_000)
  texts['mix_450k'] = 'word ' * 90_000
  for case in parity['long']:
    ids = meta.encode(texts[case['name']])
    digest = hashlib.sha256(json.dumps(ids).encode()).hexdigest()
    assert (len(ids), digest) == (case['n'], case['sha256_of_json'])
    assert meta.encode_batch([texts[case['name']]]) == [ids]


# As the released code of Llama 3 has it, in one string.
RELEASED = (
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
  r'| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
)
SPLITS = {
  '12345': ['123', '45'],
  '1234567 x': ['123', '456', '7', ' x'],
  '٣٤٥٦': ['٣٤٥', '٦'],
  "I'LL we'll you'Ve": ['I', "'LL", ' we', "'ll", ' you', "'Ve"],
  "IT'Sx it'Dy": ['IT', "'S", 'x', ' it', "'D", 'y'],
  "'tis o'clock": ["'t", 'is', ' o', "'clock"],
  'a.\n\nb': ['a', '.\n\n', 'b'],
  'x =\r\n y': ['x', ' =\r\n', ' y'],
  'a  \n\n b': ['a', '  \n\n', ' b'],
  'a   b': ['a', '  ', ' b'],
  'a   ': ['a', '   '],
  '(word\tword': ['(word', '\tword'],
}


def test_pattern_is_the_released_one():
  assert vocabulary.PATTERN == RELEASED


@pytest.mark.parametrize('text', SPLITS)
def test_text_is_split_as_by_the_released_pattern(text):
  found = vocabulary._splitter().pre_tokenize_str(text)
  assert [piece for piece, _ in found] == SPLITS[text]


def test_file_is_base64_and_rank(path):
  lines = path.read_bytes().splitlines()
  assert lines[65] == base64.b64encode(b'A') + b' 65' and len(lines) == 1024
