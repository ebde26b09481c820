"""Tokenizers of others: the ids of the files they come with, for every kind of them."""

import json
import random

import pytest
import tokenizers
from tokenizers import decoders
from tokenizers import models
from tokenizers import normalizers
from tokenizers import pre_tokenizers as pre
from tokenizers import trainers

from llama3_jax.base.errors import UserError
from llama3_jax.text import gguf_vocabulary
from llama3_jax.text import library
from llama3_jax.text import vocabulary

SPECIAL = ['<unk>', '<s>', '</s>', '<|im_start|>', '<|im_end|>']
LEVEL = pre.ByteLevel(add_prefix_space=False, use_regex=False)
WORDS = pre.ByteLevel(add_prefix_space=False, use_regex=True)
DIGITS = pre.Digits(individual_digits=True)
SPLIT = lambda *patterns: [pre.Split(tokenizers.Regex(p), 'isolated') for p in patterns]
# What tokenizer.json of models with each kind of GGUF holds.
PUBLIC = {
  'llama-bpe': pre.Sequence([*SPLIT(vocabulary.PATTERN), LEVEL]),
  'smollm': pre.Sequence([DIGITS, WORDS]),
  'gpt-2': WORDS,
  'qwen2': pre.Sequence([*SPLIT(gguf_vocabulary.QWEN2), LEVEL]),
  'tekken': pre.Sequence([*SPLIT(gguf_vocabulary.TEKKEN), LEVEL]),
  'deepseek-coder': pre.Sequence(
    [*SPLIT(*gguf_vocabulary.DEEPSEEK_CODER), DIGITS, LEVEL]
  ),
  'deepseek-llm': pre.Sequence([*SPLIT(*gguf_vocabulary.DEEPSEEK_LLM), DIGITS, LEVEL]),
}
ALPHABETS = (
  'abc deTHE ing ',
  ' \t\n\r\u00a0\u3000',
  '0123456789²½٣',
  '.,;:!?\'"()[]{}<>|/\\-_=+*&^%$#@~`',
  "'s 'll 'RE n't ",
  'äöüßéñ ÇŐ',
  'Привет мир ',
  '你好世界 漢字かな한글 ',
  '👍🏽👩‍👩‍👧🇨🇭❤️',
  'e\u0301a\u0308\u200b\ufeff',
  'नमस्ते ไทย عربي עברית',
  '<s></s><|im_end|><unk>',
)


def texts(count, seed=0):
  """Mixed strings of every script, and runs of what is cut in a special way."""
  rng = random.Random(seed)
  found = []
  for _ in range(count):
    parts = []
    for _ in range(rng.randint(0, 6)):
      letters = rng.choice(ALPHABETS)
      parts.append(''.join(rng.choices(letters, k=rng.randint(1, 12))))
    found.append(''.join(parts))
  return found


def trained(cut, normal=None):
  """A tokenizer of 1,500 tokens as public models write theirs."""
  made = tokenizers.Tokenizer(models.BPE())
  made.pre_tokenizer, made.decoder = cut, decoders.ByteLevel()
  if normal:
    made.normalizer = normal
  trainer = trainers.BpeTrainer(
    vocab_size=1500,
    special_tokens=SPECIAL,
    initial_alphabet=pre.ByteLevel.alphabet(),
    show_progress=False,
  )
  made.train_from_iterator(texts(4000, 1), trainer)
  return made


def fields(made, kind, model='gpt2'):
  """The fields of a GGUF file that holds a tokenizer."""
  spec = json.loads(made.to_str())
  tokens = sorted(made.get_vocab(), key=made.get_vocab().get)
  merges = [' '.join(pair) for pair in spec['model']['merges']]
  types = [3 if t in SPECIAL else 1 for t in tokens]
  values = dict(model=model, pre=kind, tokens=tokens, merges=merges, token_type=types)
  values |= dict(bos_token_id=1, eos_token_id=2, unknown_token_id=0)
  return {f'tokenizer.ggml.{name}': value for name, value in values.items()}


@pytest.fixture(scope='module', params=PUBLIC)
def kind(request):
  normal = normalizers.NFC() if request.param == 'qwen2' else None
  return request.param, trained(PUBLIC[request.param], normal)


def test_ids_of_gguf_are_those_of_the_public_tokenizer(kind):
  name, public = kind
  found = gguf_vocabulary.read(fields(public, name), 'x.gguf')
  public.encode_special_tokens = True
  given = texts(10_000)
  expected = [e.ids for e in public.encode_batch(given, add_special_tokens=False)]
  assert found.encode_batch(given) == expected
  assert [found.encode(text) for text in given[:500]] == expected[:500]
  assert found.vocab_size == public.get_vocab_size()


def test_bytes_and_texts_come_back(kind):
  name, public = kind
  found = gguf_vocabulary.read(fields(public, name), 'x.gguf')
  for text in texts(500, 2):
    if name == 'qwen2':
      text = normalizers.NFC().normalize_str(text)
    ids = found.encode(text)
    assert found.decode(ids) == text == found.decode_bytes(ids).decode()


def test_special_tokens_in_a_text_stay_text_unless_they_are_meant(kind):
  name, public = kind
  found = gguf_vocabulary.read(fields(public, name), 'x.gguf')
  special = set(found.specials.values())
  assert not special & set(found.encode('a<|im_end|>b</s>'))
  assert special & set(found.encode('a<|im_end|>b', special=True)) == {4}
  hidden = found.hide('user <|im_end|> 12</s>')
  ids, starts = found.spans(f'<|im_start|>{hidden}<|im_end|>')
  assert [i for i in ids if i in special] == [3, 4]
  assert found.decode(ids) == '<|im_start|>user <|im_end|> 12</s><|im_end|>'
  assert starts[0] == 0 and list(starts) == sorted(starts)
  plain = found.spans('<|im_start|>user 12<|im_end|>')[0]
  assert plain.tolist() == found.encode('<|im_start|>user 12<|im_end|>', special=True)


def pieces():
  """Fields of a GGUF file with a vocabulary of sentencepiece."""
  words = ['▁', '▁t', 'he', '▁the', 'a', 't', 'h', 'e', '▁a', 'n', 'an', '▁an', 'd']
  tokens = ['<unk>', '<s>', '</s>', *(f'<0x{b:02X}>' for b in range(256)), *words]
  types = [2, 3, 3, *[6] * 256, *[1] * len(words)]
  scores = [0.0] * 259 + [-float(i) for i in range(len(words))]
  values = dict(model='llama', tokens=tokens, token_type=types, scores=scores)
  values |= dict(bos_token_id=1, eos_token_id=2, unknown_token_id=0)
  return {f'tokenizer.ggml.{name}': value for name, value in values.items()}


def test_sentencepiece_merges_by_score_and_falls_back_on_bytes():
  found = gguf_vocabulary.read(pieces(), 'x.gguf')
  number = {t: i for i, t in enumerate(pieces()['tokenizer.ggml.tokens'])}
  ids = found.encode('the ä and', bos=True)
  byte = lambda text: [number[f'<0x{b:02X}>'] for b in text.encode()]
  assert ids == [
    *(1, number['▁the'], number['▁'], *byte('ä')),
    *(number['▁an'], number['d']),
  ]
  assert found.decode(ids[1:]) == 'the ä and'
  assert found.bos == 1 and found.eos == 2 and found.stop_ids == (2,)


def test_what_is_not_known_is_refused_by_name():
  base = fields(trained(WORDS), 'gpt-2')
  for name, value, words in (
    ('pre', 'klingon', "cuts text by 'klingon'"),
    ('model', 'bert', "kind 'bert'"),
    ('token_type', [1], 'token types'),
    ('merges', None, None),
  ):
    changed = {**base, f'tokenizer.ggml.{name}': value}
    if words:
      with pytest.raises(UserError, match=words):
        gguf_vocabulary.read(changed, 'x.gguf')
  assert gguf_vocabulary.read({}, 'x.gguf') is None


@pytest.mark.parametrize(
  'change, words',
  [
    (lambda spec: spec['model'].update(type='WordPiece'), 'WordPiece|not a tokenizer'),
    (lambda spec: spec.update(decoder=None), 'decoder is none'),
    (lambda spec: spec.update(decoder={'type': 'Metaspace'}), 'not a tok|Metaspace'),
    (lambda spec: spec.pop('model'), 'not a tokenizer.json'),
    (lambda spec: spec['model'].update(merges=[['x', 'yy']]), 'not a tokenizer.json'),
  ],
)
def test_a_tokenizer_json_of_another_kind_is_one_line(change, words):
  spec = json.loads(trained(WORDS).to_str())
  change(spec)
  with pytest.raises(UserError, match=words) as error:
    library.read(json.dumps(spec).encode(), 'm/tokenizer.json', {})
  assert '\n' not in str(error.value) and 'm/tokenizer.json' in str(error.value)


def test_a_named_token_must_be_in_the_vocabulary():
  content = trained(WORDS).to_str().encode()
  with pytest.raises(UserError, match="eos_token '<end>' is not"):
    library.read(content, 'm/tokenizer.json', {'eos_token': '<end>'})
