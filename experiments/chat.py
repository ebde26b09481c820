"""Chat with a model in the terminal, token by token.

  python -m experiment --config=chat --init_from=runs/herd/average_2

Expected: a line on the model, a prompt `>`, and answers as they are sampled; /help has
the commands, Ctrl-D ends. From a pipe or file each line is a message and an empty line
begins a new dialog; only answers go to stdout. With --tools=python,math,search=FOLDER
calls, and what they give, stand between the answers. Writes nothing but what /save
names, the history of messages in the cache and, where a workdir is given, config.json
there.
"""

from llama3_jax import config as configs
from llama3_jax import workdir as workdirs
from llama3_jax.generate import engine
from llama3_jax.generate.engine import Engine
from llama3_jax.generate.settings import Settings
from llama3_jax.model import rowwise
from llama3_jax.talk import dialog as dialogs
from llama3_jax.talk import terminal
from llama3_jax.tools import registry
from llama3_jax.train import belongs
from llama3_jax.train import models

ALONE = True  # one process talks
NO_WORKDIR = True  # --workdir may be left out
WAITS = True  # for its user: its log may be silent


def main(config, workdir=None):
  """Talks until the end of the input; returns {'turns'}."""
  if workdir:
    workdirs.claim(config, workdir)
  rowwise.check(config.weights)
  dialogs.room(config.length, config.sample.max_new)
  settings = configs.fill(Settings(), config.sample, 'sample')
  tokenizer = belongs.tokenizer(config.tokenizer, config.init_from)
  model = models.config(config.init_from)
  tools = registry.distinct(registry.load(config.tools), 'tools')
  dialog = dialogs.Dialog(
    config.system,
    (),
    settings,
    length=config.length,
    seed=config.seed,
    offered=tools,
    tools=tools,
    calls=config.calls,
  )
  dialog = dialogs.check(tokenizer, dialog)
  screen = terminal.screen()
  screen.note(terminal.banner(config.init_from, model, tokenizer, dialog))
  screen.busy(f'reads the parameters and casts them to {model.dtype} ...')
  params, _ = models.load(config.init_from)
  sizes = engine.one(config.length, model)
  talker = dialogs.Talker(Engine(params, model, sizes, config.weights), tokenizer)
  del params
  screen.busy('')
  return {'turns': terminal.converse(talker, dialog, screen)}
