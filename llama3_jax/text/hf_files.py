"""A tokenizer as Hugging Face's files; `transformers` gives the same ids (3.2)."""

import os
from collections.abc import Mapping

import tokenizers

from llama3_jax.base import processes
from llama3_jax.base.errors import UserError
from llama3_jax.text import store
from llama3_jax.text import vocabulary
from llama3_jax.text.library import Library
from llama3_jax.text.tokenizer import Tokenizer

# Llama 3's chat as text.chat writes it.
TEMPLATE = (
  '{{ bos_token }}{% for m in messages %}{% if m.tool_calls %}'
  "{{ raise_exception('write a call as the content of its message') }}{% endif %}"
  "{{ '<|start_header_id|>' + ('ipython' if m.role == 'tool' else m.role) }}"
  "{{ '<|end_header_id|>\\n\\n' + m.content + '<|eot_id|>' }}{% endfor %}"
  "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>' }}"
  "{{ '\\n\\n' }}{% endif %}"
)


def write(tokenizer: Tokenizer | Library, path: str, length: int) -> None:
  """Writes tokenizer.json, tokenizer_config.json, with the chat template, and Llama 3's
  tokenizer.model into `path`; length: longest row, tokens."""
  if isinstance(tokenizer, Library):
    store.write(tokenizer, path, model_max_length=length)
    return
  with open(os.path.join(path, 'tokenizer.model'), 'wb') as file:
    file.write(tokenizer.content)
  library(tokenizer).save(os.path.join(path, 'tokenizer.json'))
  values = dict(
    tokenizer_class='PreTrainedTokenizerFast',
    bos_token='<|begin_of_text|>',
    eos_token='<|end_of_text|>',
    clean_up_tokenization_spaces=False,
    model_input_names=['input_ids', 'attention_mask'],
    model_max_length=length,
    chat_template=TEMPLATE,
  )
  processes.write_json(os.path.join(path, 'tokenizer_config.json'), values)


def library(tokenizer: Tokenizer) -> tokenizers.Tokenizer:
  """A tokenizer of the `tokenizers` library; it puts begin_of_text before each text."""
  pre = tokenizers.pre_tokenizers
  ranks = vocabulary.parse(tokenizer.content, 'tokenizer.model')
  characters = {b: c for c, b in vocabulary.byte_characters().items()}
  text = lambda token: ''.join(characters[b] for b in token)
  vocab = {text(token): rank for token, rank in ranks.items()}
  pairs = [(text(a), text(b)) for a, b in merges(ranks)]
  # As in tiktoken, a piece that is a token stays whole even if no merges lead to it.
  converted = tokenizers.Tokenizer(
    tokenizers.models.BPE(vocab=vocab, merges=pairs, ignore_merges=True)
  )
  split = pre.Split(tokenizers.Regex(vocabulary.PATTERN), 'isolated')
  level = pre.ByteLevel(add_prefix_space=False, use_regex=False)
  converted.pre_tokenizer = pre.Sequence([split, level])
  converted.decoder = tokenizers.decoders.ByteLevel()
  specials = sorted(tokenizer.specials.items(), key=lambda item: item[1])
  converted.add_special_tokens(
    [
      tokenizers.AddedToken(name, special=True, normalized=False)
      for name, _ in specials
    ]
  )
  for name, number in specials:
    if converted.token_to_id(name) != number:
      raise UserError(
        f'tokenizer.model holds {name}, a special token, as an ordinary one: '
        'tokenizer.json cannot say that'
      )
  converted.post_processor = tokenizers.processors.TemplateProcessing(
    single='<|begin_of_text|> $A',
    pair='<|begin_of_text|> $A <|begin_of_text|> $B',
    special_tokens=[('<|begin_of_text|>', tokenizer.bos)],
  )
  return converted


def merges(ranks: Mapping[bytes, int]) -> list[tuple[bytes, bytes]]:
  """Every pair of tokens that joins to a token, in the order of the joined tokens."""
  merged = []
  for token, _ in sorted(ranks.items(), key=lambda item: item[1]):
    cuts = ((token[:i], token[i:]) for i in range(1, len(token)))
    pairs = [(a, b) for a, b in cuts if a in ranks and b in ranks]
    merged += sorted(pairs, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
  return merged
