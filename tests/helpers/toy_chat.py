"""A tokenizer of others in miniature, and toy models that talk."""

import post_examples as toy
import templates
import tokenizers
from tokenizers import decoders
from tokenizers import pre_tokenizers

from llama3_jax.generate import engine as engines
from llama3_jax.talk.dialog import Talker
from llama3_jax.text import library


def byte_level(template=templates.CHATML, stops=(2,)):
  """A tokenizer of bytes and five special tokens that chats."""
  names = ['<unk>', '<s>', '</s>', '<|im_start|>', '<|im_end|>']
  vocab = {text: i for i, text in enumerate(names)}
  for text in sorted(pre_tokenizers.ByteLevel.alphabet()):
    vocab[text] = len(vocab)
  made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[]))
  made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  made.decoder = decoders.ByteLevel()
  made.add_special_tokens(names)
  tokens = {'bos_token': '<s>', 'eos_token': '<|im_end|>'}
  content = made.to_str().encode()
  return library.read(content, 'made', tokens, stops, template)


def engine(length=1024):
  """The toy model in an engine for one answer at a time."""
  return engines.Engine(toy.model(), toy.CONFIG, engines.one(length, toy.CONFIG))


def own(folder):
  """A toy model of ours that talks, with the codec of Llama 3."""
  return Talker(engine(), toy.tokenizer(folder))


def other(template=templates.CHATML_SYSTEM):
  """A toy model that talks as its chat template says."""
  return Talker(engine(), byte_level(template))
