"""Chat with a model in the terminal, token by token.

  python -m experiment --config=configs/chat.py --workdir=runs/chat \\
    --config.init_from=runs/herd/average_2

Expected: a prompt `>`; an empty line forgets the dialog, Ctrl-D ends. Writes nothing
but config.json.
"""

import sys

from llama3_jax import config as configs
from llama3_jax import workdir as workdirs
from llama3_jax.base.errors import UserError
from llama3_jax.generate import engine
from llama3_jax.generate.sample import Settings
from llama3_jax.text import chat
from llama3_jax.train import belongs
from llama3_jax.train import models


def main(config, workdir):
  """Talk until the end of the input; returns {'turns'}."""
  workdirs.claim(config, workdir)
  room = _room(config)
  configs.fill(Settings(), config.sample, 'sample')  # refused before a device is used
  tokenizer = belongs.tokenizer(config.tokenizer, config.init_from)
  own = Settings(vocab_size=tokenizer.vocab_size)
  settings = configs.fill(own, config.sample, 'sample')
  start = [chat.Message('system', config.system)] if config.system else []
  if fit(tokenizer, start, len(start), room) is None:
    raise UserError(
      f'system is longer than the {room} tokens that length={config.length} leaves for '
      'the dialog: shorten it or raise length'
    )
  params, model = models.load(config.init_from)
  params = engine.cast(params, model)
  turns, messages = 0, list(start)
  while (text := _ask()) is not None:
    if not text:
      messages = list(start)
      print('(new dialog)')
      continue
    asked = [*messages, chat.Message('user', text)]
    fitted = fit(tokenizer, asked, len(start), room)
    if fitted is None:
      _note(f'that is more than the {room} tokens of room: shorten it or raise length')
      continue
    if left_out := len(asked) - len(fitted[0]):
      _note(f'the oldest {left_out} messages no longer fit into length={config.length}')
    messages, ids = fitted
    seed = config.seed + turns
    stream = engine.stream(params, ids, model, tokenizer.stop_ids, settings, seed)
    messages.append(reply(tokenizer, _say(tokenizer, stream)))
    turns += 1
  return {'turns': turns}


def _room(config):
  room = config.length - config.sample.max_new
  if room < 16:
    raise UserError(
      f'length={config.length} leaves no room for a question beside '
      f'sample.max_new={config.sample.max_new}: raise length'
    )
  return room


def fit(tokenizer, messages, kept, room):
  """(messages, prompt ids): begin_of_text, the first `kept` messages and the newest
  whole ones that have at most `room` tokens together; None when the newest has not."""
  messages = list(messages)
  while True:
    ids = chat.encode(tokenizer, messages, prompt=True).ids.tolist()
    if len(ids) <= room:
      return messages, ids
    if len(messages) <= kept + 1:
      return None
    # A question leaves together with its answer.
    del messages[kept : kept + 2]


def reply(tokenizer, ids):
  """The message of sampled ids; one that was cut off is closed, so that the next header
  stands where a header may."""
  closed = ids and ids[-1] in tokenizer.stop_ids
  return chat.sampled(tokenizer, ids if closed else [*ids, tokenizer.eot])


def _note(text):
  print(f'({text})', file=sys.stderr, flush=True)


def _ask():
  """The next line typed, or None at the end."""
  try:
    return input('> ').strip()
  except (EOFError, KeyboardInterrupt):
    print()
    return None


def _say(tokenizer, stream):
  """Prints the reply as it comes and returns its ids."""
  ids, shown = [], ''
  try:
    for token in stream:
      ids.append(token)
      if token in tokenizer.stop_ids:
        break
      text = tokenizer.decode(ids)
      # A character may be spread over tokens: the replacement sign waits for the rest.
      if not text.endswith('\ufffd'):
        print(text[len(shown) :], end='', flush=True)
        shown = text
  except KeyboardInterrupt:
    print(' (stopped)', end='')
  print()
  return ids
