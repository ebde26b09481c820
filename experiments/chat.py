"""Chat with a model in the terminal, token by token.

  python -m experiment --config=configs/chat.py --workdir=runs/chat \\
    --config.init_from=runs/herd/average_2

Expected: a prompt `>`; an empty line forgets the dialog, Ctrl-D ends. Writes nothing
but config.json.
"""

from llama3_jax import chat
from llama3_jax import config as configs
from llama3_jax.base.errors import UserError
from llama3_jax.generate import engine
from llama3_jax.generate.sample import Settings
from llama3_jax.train import belongs
from llama3_jax.train import checkpoint


def main(config, workdir):
  """Talk until the end of the input; returns {'turns'}."""
  configs.open_workdir(config, workdir)
  tokenizer = belongs.tokenizer(config.tokenizer, config.init_from)
  params, model = checkpoint.load(config.init_from)
  params = engine.cast(params, model)
  start = [chat.Message('system', config.system)] if config.system else []
  turns, messages = 0, list(start)
  while (text := _ask()) is not None:
    if not text:
      messages = list(start)
      print('(new dialog)')
      continue
    messages.append(chat.Message('user', text))
    messages, ids = fit(tokenizer, messages, len(start), _room(config))
    settings = Settings(**config.sample)
    seed = config.seed + turns
    reply = _say(
      tokenizer,
      engine.stream(params, ids, model, tokenizer.stop_ids, settings, seed),
    )
    messages.append(chat.Message('assistant', reply))
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
  """(messages, prompt ids) with the oldest turns after the first `kept` left out until
  the prompt has at most `room` tokens."""
  messages = list(messages)
  while True:
    ids = chat.encode(tokenizer, messages, prompt=True).ids.tolist()
    if len(ids) <= room or len(messages) <= kept + 1:
      return messages, ids[-room:]
    # A question leaves together with its answer.
    del messages[kept : kept + 2]


def _ask():
  """The next line typed, or None at the end."""
  try:
    return input('> ').strip()
  except (EOFError, KeyboardInterrupt):
    print()
    return None


def _say(tokenizer, stream):
  """Prints the reply as it comes and returns it."""
  ids, shown = [], ''
  try:
    for token in stream:
      ids.append(token)
      text = tokenizer.decode(ids)
      # A character may be spread over tokens: the replacement sign waits for the rest.
      if not text.endswith('\ufffd'):
        print(text[len(shown) :], end='', flush=True)
        shown = text
  except KeyboardInterrupt:
    print(' (stopped)', end='')
  print()
  return tokenizer.decode(ids)
