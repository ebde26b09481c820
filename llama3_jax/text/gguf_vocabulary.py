"""The tokenizer inside a GGUF file, as a tokenizer.json (3.2)."""

import json
from collections.abc import Mapping

import tokenizers
from tokenizers import decoders
from tokenizers import normalizers
from tokenizers import pre_tokenizers

from llama3_jax.base.errors import UserError
from llama3_jax.text import hf_files
from llama3_jax.text import library
from llama3_jax.text import vocabulary
from llama3_jax.text.library import Library
from llama3_jax.text.tokenizer import Tokenizer

# What a token is, tokenizer.ggml.token_type.
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_END = r' ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
QWEN2 = rf"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_END}"
_UPPER, _LOWER = r'[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]', r'[\p{Ll}\p{Lm}\p{Lo}\p{M}]'
TEKKEN = (
  rf'[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*'
  r'|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+'
)
DEEPSEEK_CODER = (r'[\r\n]', r'\s?\p{L}+', r'\s?\p{P}+', '[一-龥ࠀ-一가-퟿]+')
DEEPSEEK_LLM = (
  r'[\r\n]',
  r'\s?[\p{Lu}\p{Ll}\p{Lt}]+',
  r'\s?[!-/:-~！-／：-～‘-‟　-。]+',
  r'\s+$',
  '[一-龥ࠀ-一가-퟿]+',
)
# tokenizer.ggml.pre -> (patterns that cut a text one after the other, are digits cut
# from each other, is a piece that is a token one whatever the merges say).
KINDS = {
  **dict.fromkeys(
    ('llama-bpe', 'llama3', 'llama-v3', 'falcon3', 'dbrx', 'smaug-bpe'),
    ((vocabulary.PATTERN,), False, True),
  ),
  **dict.fromkeys(
    ('smollm', 'starcoder', 'refact', 'command-r', 'codeshell', 'exaone'),
    ((GPT2,), True, False),
  ),
  **dict.fromkeys(('gpt-2', 'mpt', 'olmo', 'jais', 'phi-2'), ((GPT2,), False, False)),
  **dict.fromkeys(('qwen2', 'stablelm2'), ((QWEN2,), False, False)),
  'tekken': ((TEKKEN,), False, True),
  'deepseek-coder': (DEEPSEEK_CODER, True, False),
  'deepseek-llm': (DEEPSEEK_LLM, True, False),
}


def read(values: Mapping[str, object], where: str) -> Library | None:
  """The tokenizer of a GGUF file's fields; None where it holds no vocabulary.

  Args:
    values: {'tokenizer.ggml.tokens': [...], ...}.
    where: path of the file, for errors.

  Raises:
    UserError: a kind of vocabulary or of cutting a text that is not known.
  """
  field = lambda name, default=None: values.get(f'tokenizer.ggml.{name}', default)
  texts = field('tokens')
  if not texts:
    return None
  kind, types = field('model'), field('token_type') or [NORMAL] * len(texts)
  if len(types) != len(texts):
    raise UserError(f'{where}: {len(texts)} tokens and {len(types)} token types')
  if len(set(texts)) < len(texts):
    raise UserError(f'{where}: {len(texts) - len(set(texts))} tokens are there twice')
  build = {'gpt2': _byte_level, 'llama': _sentence_piece}.get(kind)
  if build is None:
    raise UserError(f'{where}: a vocabulary of kind {kind!r}; known are gpt2 and llama')
  try:
    made = build(field, texts, types, where)
  except UserError:
    raise
  except Exception as error:  # the library raises nothing finer
    reason = ' '.join(str(error).split())[:120]
    raise UserError(f'{where}: its vocabulary is damaged ({reason})') from None
  added = [(CONTROL, True), (USER, False)]
  for wanted, special in added:
    made.add_tokens(
      [
        tokenizers.AddedToken(text, special=special, normalized=False)
        for text, is_a in zip(texts, types)
        if is_a == wanted
      ]
    )
  names = ('bos', 'eos', 'unknown', 'padding', 'eot')
  ids = {name: field(f'{name}_token_id') for name in names}
  known = {n: i for n, i in ids.items() if i is not None}
  for name, i in known.items():
    if not 0 <= i < len(texts):
      raise UserError(f'{where}: {name}_token_id is {i} of {len(texts)} tokens')
  labels = dict(bos='bos_token', eos='eos_token', unknown='unk_token')
  labels['padding'] = 'pad_token'
  tokens = {labels[n]: texts[i] for n, i in known.items() if n in labels}
  opens = field('add_bos_token', kind == 'llama' or field('pre') == 'llama-bpe')
  if opens and 'bos' in known:
    made.post_processor = tokenizers.processors.TemplateProcessing(
      single=[tokens['bos_token'], '$A'],
      special_tokens=[(tokens['bos_token'], known['bos'])],
    )
  stops = [known['eot']] if 'eot' in known else []
  content = made.to_str().encode()
  return library.read(
    content, where, tokens, stops, values.get('tokenizer.chat_template')
  )


def _byte_level(field, texts, types, where):
  """Byte-level BPE, cut as tokenizer.ggml.pre names it."""
  name = field('pre', 'default')
  if name not in KINDS:
    raise UserError(
      f'{where}: it cuts text by {name!r}, a kind that is not known; '
      f'known are {", ".join(KINDS)}'
    )
  patterns, digits, whole = KINDS[name]
  merges = [tuple(pair.split(' ', 1)) for pair in field('merges') or ()]
  vocab = {text: i for i, text in enumerate(texts)}
  made = tokenizers.Tokenizer(
    tokenizers.models.BPE(vocab=vocab, merges=merges, ignore_merges=whole)
  )
  made.pre_tokenizer = _cutter(patterns, digits)
  made.decoder = decoders.ByteLevel()
  if name == 'qwen2':
    made.normalizer = normalizers.NFC()
  return made


def _sentence_piece(field, texts, types, where):
  """BPE of sentencepiece: pairs merge in the order of their scores, bytes stand in for
  what is not in the vocabulary."""
  scores = field('scores')
  if scores is None or len(scores) != len(texts):
    raise UserError(f'{where}: its vocabulary has no score for every token')
  vocab = {text: i for i, text in enumerate(texts)}
  unknown = next((t for t, kind in zip(texts, types) if kind == UNKNOWN), None)
  made = tokenizers.Tokenizer(
    tokenizers.models.BPE(
      vocab=vocab,
      merges=_pairs(vocab, scores),
      unk_token=unknown,
      fuse_unk=True,
      byte_fallback=True,
    )
  )
  before = [normalizers.Prepend('▁')] if field('add_space_prefix', True) else []
  made.normalizer = normalizers.Sequence([*before, normalizers.Replace(' ', '▁')])
  after = [decoders.Strip(' ', 1, 0)] if before else []
  made.decoder = decoders.Sequence(
    [decoders.Replace('▁', ' '), decoders.ByteFallback(), decoders.Fuse(), *after]
  )
  return made


def _pairs(vocab, scores):
  """Every pair of tokens that joins to a token, the best score first."""
  pairs = []
  for text, i in vocab.items():
    cuts = [(text[:n], text[n:]) for n in range(1, len(text))]
    cuts = [(a, b) for a, b in cuts if a in vocab and b in vocab]
    cuts.sort(key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
    pairs += [(a, b, scores[i]) for a, b in cuts]
  pairs.sort(key=lambda p: (p[2], len(p[0]), len(p[1])), reverse=True)
  return [(a, b) for a, b, _ in pairs]


def fields(tokenizer: Tokenizer | Library, rows: int) -> dict[str, object]:
  """The fields of a GGUF file that hold a tokenizer, without tokenizer.ggml. before.

  rows: of the model's embedding; tokens that no text has fill what is left of them.

  Raises:
    UserError: a kind of cutting a text that GGUF has no name for.
  """
  if isinstance(tokenizer, Tokenizer):
    made, template = hf_files.library(tokenizer), hf_files.TEMPLATE
    names = {'bos': tokenizer.bos, 'eos': tokenizer.eos, 'eot': tokenizer.eot}
    spec, opens = json.loads(made.to_str()), True
  else:
    spec, opens = json.loads(tokenizer.content), tokenizer.bos is not None
    template = tokenizer.template and tokenizer.template.text
    number = lambda name: tokenizer.backend.token_to_id(tokenizer.tokens[name])
    pairs = dict(bos='bos_token', eos='eos_token', unknown='unk_token')
    pairs['padding'] = 'pad_token'
    names = {n: number(name) for n, name in pairs.items() if name in tokenizer.tokens}
    others = [i for i in tokenizer.stop_ids if i != names.get('eos')]
    names |= {'eot': others[0]} if others else {}
  added = {t['id']: t for t in spec['added_tokens']}
  vocab = spec['model']['vocab'] | {t['content']: i for i, t in added.items()}
  texts, types = [f'[unused{i}]' for i in range(rows)], [UNUSED] * rows
  for text, i in vocab.items():
    special = added[i]['special'] if i in added else None
    texts[i] = text
    types[i] = NORMAL if special is None else CONTROL if special else USER
  found = dict(tokens=texts, token_type=types, add_bos_token=opens)
  if 'ByteLevel' in library.kinds(spec.get('decoder')):
    merges = [m if isinstance(m, str) else ' '.join(m) for m in spec['model']['merges']]
    found |= dict(model='gpt2', pre=_kind(spec), merges=merges)
  else:
    found |= _pieces(spec, vocab, texts, types)
  found |= {f'{name}_token_id': i for name, i in names.items()}
  return found | ({'chat_template': template} if template else {})


def _pieces(spec, vocab, texts, types):
  """Fields of sentencepiece's kind: bytes, and scores in the order of the merges."""
  order = {}
  for rank, pair in enumerate(spec['model']['merges']):
    order.setdefault(''.join(pair if isinstance(pair, list) else pair.split(' ')), rank)
  scores = [-float(order.get(text, 0)) for text in texts]
  for i, text in enumerate(texts):
    if types[i] == NORMAL and len(text) == 6 and text.startswith('<0x'):
      types[i] = BYTE
  prefix = 'Prepend' in library.kinds(spec.get('normalizer'))
  unknown = vocab.get(spec['model'].get('unk_token'))
  if unknown is not None:
    types[unknown] = UNKNOWN
  return dict(model='llama', scores=scores, add_space_prefix=prefix)


# Texts that every two kinds cut in different places.
PROBES = ("I'LL 1234 don't", 'ABc Def x1', '\n\n  a\r\n b', '你好 hello!?/\n/')
PROBES += ("it's é́ ½²",)


def _kind(spec):
  """The name of the kind that cuts texts as the tokenizer does."""
  whole = tokenizers.Tokenizer.from_str(json.dumps(spec))
  cuts = [whole.pre_tokenizer.pre_tokenize_str(text) for text in PROBES]
  for name, (patterns, digits, _) in KINDS.items():
    if (name == 'qwen2') != ('NFC' in library.kinds(spec.get('normalizer'))):
      continue
    cut = _cutter(patterns, digits)
    if [cut.pre_tokenize_str(text) for text in PROBES] == cuts:
      return name
  raise UserError(
    'the tokenizer cuts texts in a way that GGUF has no name for: write another format'
  )


def _cutter(patterns, digits):
  """The pre-tokenizer of a kind."""
  steps = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
  cuts = [pre_tokenizers.Split(tokenizers.Regex(p), 'isolated') for p in patterns]
  # SmolLM's kind cuts digits first, DeepSeek's last.
  steps = steps + cuts if patterns == (GPT2,) else cuts + steps
  level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  return pre_tokenizers.Sequence([*steps, level])
