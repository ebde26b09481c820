"""`import llama3_jax as l3`: models in a notebook and the functions under them."""

import dataclasses
import os
import types
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from llama3_jax import config as configs
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.generate import engine
from llama3_jax.generate import programs
from llama3_jax.generate.engine import Engine
from llama3_jax.generate.settings import Settings
from llama3_jax.model import llama
from llama3_jax.post import dpo
from llama3_jax.post import reward
from llama3_jax.post import sft
from llama3_jax.talk import dialog as dialogs
from llama3_jax.text import chat
from llama3_jax.text.chat import Message
from llama3_jax.text.library import Library
from llama3_jax.text.tokenizer import Tokenizer
from llama3_jax.train import belongs
from llama3_jax.train import loss
from llama3_jax.train import models
from llama3_jax.train import step

# loss(params, batch, config, ...) -> (sum, metric sums with 'count'); batches: feed.py.
losses = types.SimpleNamespace(
  next_token=loss.next_token, sft=sft.loss, dpo=dpo.loss, reward=reward.loss
)
# train_step(loss, optimizer) -> a step(state, batch) -> (state, metrics).
train_step = step.compose
LENGTH = 1 << 20  # tokens of a dialog in a notebook, where nothing is forgotten


def forward(params: llama.Params, tokens: jax.Array, config: ModelConfig) -> jax.Array:
  """Logits of the token after each, float32 [B,T,V], of whole rows int32 [B,T]."""
  return llama.apply(params, tokens, config)


def load(
  name: str | os.PathLike, dtype: str = '', tokenizer: str | os.PathLike = ''
) -> 'Model':
  """The Model of whatever `init_from` takes.

  Args:
    name: a run's workdir, a folder of Hugging Face or Meta, a .gguf file, hf://org/name
      or smollm2; a model of others is converted once into the cache.
    dtype: of parameters and computation, float32 or bfloat16; '': float32 parameters,
      computed with as the model's config says.
    tokenizer: vocabulary file; '': the one that travels with the model.

  Raises:
    UserError: no such model, or it and the tokenizer do not belong together.
  """
  if not isinstance(name, (str, os.PathLike)) or not str(name):
    raise UserError(f'load({name!r}): name a model, such as smollm2 or a folder')
  config = models.config(name)
  if dtype:
    config = configs.checked(dataclasses.replace(config, dtype=str(dtype)))
  found = None
  if tokenizer or models.tokenizer(name) is not None:
    found = belongs.tokenizer(tokenizer, name)
  params, _ = models.load(name, config)
  params = programs.cast(params, config) if dtype else params
  return Model(params, config, found, str(name))


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
  """A model with its tokenizer; its methods keep no state.

  Attributes:
    params: llama.Params, arrays.
    config: sizes and switches.
    tokenizer: texts to ids and back; None for a model that carries none.
    name: what it was loaded from.
  """

  params: llama.Params
  config: ModelConfig
  tokenizer: Tokenizer | Library | None = None
  name: str = ''

  def __post_init__(self) -> None:
    due = jax.tree.leaves_with_path(llama.abstract(self.config))
    have = jax.tree.leaves_with_path(self.params)
    if [path for path, _ in have] != [path for path, _ in due]:
      raise UserError(f'{self.name}: the parameters are not those of this config')
    for (path, one), (_, other) in zip(have, due):
      if one.shape != other.shape:
        field = jax.tree_util.keystr(path, simple=True, separator='.')
        raise UserError(
          f'{self.name}: {field} is {one.shape}, by the config {other.shape}: give the '
          'config that the parameters were made with'
        )

  def __repr__(self) -> str:
    n, words = llama.count(self.config), 'no tokenizer'
    if self.tokenizer is not None:
      words = f'{self.tokenizer.vocab_size:,} tokens'
    return f'Model({self.name!r}: {n:,} parameters, {self.config.dtype}, {words})'

  def replace(self, **changes: object) -> 'Model':
    """The model with other parameters, config, tokenizer or name."""
    return dataclasses.replace(self, **changes)

  def logits(self, ids: Sequence[int] | np.ndarray | jax.Array) -> jax.Array:
    """Logits of the token after each: ids [T] -> float32 [T,V], [B,T] -> [B,T,V]."""
    rows = _rows(ids, self.config.vocab_size)
    found = forward(self.params, jnp.atleast_2d(rows), self.config)
    return found[0] if rows.ndim == 1 else found

  def generate(
    self,
    prompt: str | Sequence[str],
    max_new: int = 256,
    temperature: float = 0.6,
    top_p: float = 0.9,
    top_k: int = 0,
    samples: int = 1,
    seed: int = 0,
  ) -> str | list:
    """What follows a text, without a chat around it.

    Args:
      prompt: a text or several; special tokens spelt out in it stay text.
      samples: completions of each text.

    Returns:
      a text; for several prompts a list, with several samples each a list of them.
    """
    tokenizer = _needed(self)
    if type(samples) is not int or samples < 1:
      raise UserError(f'samples={samples}: it must be a whole number from 1')
    prompts = [prompt] if isinstance(prompt, str) else _several(prompt, 'prompt')
    for i, text in enumerate(prompts):
      if not isinstance(text, str):
        raise UserError(f'prompt {i} is a {type(text).__name__}, not a text')
    ids = [tokenizer.encode(text, bos=True) for text in prompts]
    settings = Settings(temperature, top_p, top_k, max_new, tokenizer.vocab_size)
    how = dict(seed=seed, samples=samples, batch_size=min(max(len(ids), 1), 16))
    stops = tokenizer.stop_ids
    found = engine.generate(self.params, ids, self.config, stops, settings, **how)
    texts = [[tokenizer.decode(c.ids) for c in each] for each in found]
    texts = texts if samples > 1 else [each[0] for each in texts]
    return texts[0] if isinstance(prompt, str) else texts

  def chat(
    self,
    messages: str | Sequence[Mapping | Message],
    max_new: int = 256,
    temperature: float = 0.6,
    top_p: float = 0.9,
    top_k: int = 0,
    seed: int = 0,
  ) -> str:
    """The text of the answer to a question, or to a dialog of messages {"role",
    "content"}, the last of them not the assistant's."""
    talk = self.talk('', max_new, temperature, top_p, top_k, seed)
    if isinstance(messages, str):
      return talk.say(messages)[1]
    read = [
      m if isinstance(m, Message) else chat.message(m, f'message {i}')
      for i, m in enumerate(_several(messages, 'messages'))
    ]
    if not read or read[-1].role == 'assistant':
      raise UserError('the last message must be a question: one of the user')
    *before, last = read
    dialog = dataclasses.replace(talk.dialog, messages=tuple(before))
    return dataclasses.replace(talk, dialog=dialog).say(last)[1]

  def talk(
    self,
    system: str = '',
    max_new: int = 256,
    temperature: float = 0.6,
    top_p: float = 0.9,
    top_k: int = 0,
    seed: int = 0,
  ) -> 'Talk':
    """A dialog of several turns in which nothing was said yet.

    system: message that opens it; '': as the model's chat template has it.
    """
    _needed(self)
    settings = Settings(temperature, top_p, top_k, max_new)
    length = LENGTH + max_new
    return Talk(self, dialogs.Dialog(system, (), settings, length, seed))


@dataclasses.dataclass(frozen=True, eq=False)
class Talk:
  """A dialog with a model, as a value: `talk, reply = talk.say('...')`; the talk before
  is still there, and may be asked something else."""

  model: Model
  dialog: dialogs.Dialog

  def __repr__(self) -> str:
    lines = [f'{m.role}: {m.content}' for m in self.messages]
    return '\n'.join([f'Talk({self.model.name!r})', *lines])

  @property
  def messages(self) -> tuple[Message, ...]:
    """What was said, with the system message where one was given."""
    opened = [Message('system', self.dialog.system)] if self.dialog.system else []
    return (*opened, *self.dialog.messages)

  def say(self, text: str | Message) -> tuple['Talk', str]:
    """(the talk with the question and its answer, the answer's text)."""
    m = self.model
    question = dialogs.ask(m.tokenizer, self.dialog, text)
    room = engine.room(len(question.ids) + self.dialog.settings.max_new)
    talker = dialogs.Talker(
      Engine(m.params, m.config, engine.one(room, m.config)), m.tokenizer
    )
    ids = list(dialogs.stream(talker, question))
    after = dialogs.answered(question, dialogs.reply(m.tokenizer, ids))
    said = ''.join(dialogs.pieces(m.tokenizer, ids))
    return dataclasses.replace(self, dialog=after), said


@dataclasses.dataclass(frozen=True, eq=False)
class Origin:
  """What a Model has besides parameters and config."""

  tokenizer: Tokenizer | Library | None
  name: str


class Layers(nnx.Module):
  """The parameters of all layers, each [L,...]."""

  def __init__(self, layers: llama.Layer) -> None:
    for field in dataclasses.fields(layers):
      setattr(self, field.name, nnx.Param(getattr(layers, field.name)))


class Decoder(nnx.Module):
  """A model as a module of NNX: each array of its parameters is an nnx.Param.

  Products are quantised by QtProvider of Qwix. Its LoraProvider reaches the head alone,
  since the layers are one scan; adapters of layers are those of train/part.py.
  """

  def __init__(self, params: llama.Params, config: ModelConfig, origin: Origin) -> None:
    self.embed = nnx.Param(params.embed)
    self.layers = Layers(params.layers)
    self.norm = nnx.Param(params.norm)
    self.head = None if params.head is None else nnx.Param(params.head)
    self.config = config
    self.origin = origin

  def __call__(self, tokens: jax.Array) -> jax.Array:
    """Logits of the token after each, float32 [B,T,V], of whole rows int32 [B,T]."""
    if type(self) is Decoder:
      return forward(self.params(), tokens, self.config)
    # A subclass, as Qwix makes, changes operations while they are traced: a program
    # that was compiled before would not be changed, without a word.
    return llama.apply.__wrapped__(self.params(), jnp.asarray(tokens), self.config)

  def params(self) -> llama.Params:
    """The arrays as llama.Params.

    Raises:
      UserError: something else has taken the place of one, as Qwix's PtqProvider does.
    """
    names = [field.name for field in dataclasses.fields(llama.Layer)]
    layers = llama.Layer(**{n: _array(getattr(self.layers, n), n) for n in names})
    head = None if self.head is None else _array(self.head, 'head')
    embed, norm = _array(self.embed, 'embed'), _array(self.norm, 'norm')
    return llama.Params(embed, layers, norm, head)


def _array(variable, name):
  if not isinstance(variable, nnx.Variable):
    kind = type(variable).__name__
    raise UserError(
      f'{name} is no nnx.Param any more but a {kind}: quantise the products of this '
      "module with Qwix's QtProvider, or by config.quant"
    )
  return variable.get_value()


def as_nnx(model: Model) -> Decoder:
  """The model as an nnx.Module with the same arrays: nothing is copied."""
  return Decoder(model.params, model.config, Origin(model.tokenizer, model.name))


def from_nnx(module: Decoder) -> Model:
  """The Model of a module that `as_nnx` made, with the arrays it has now.

  Raises:
    UserError: another module, or one that got further variables, such as adapters.
  """
  if not isinstance(module, Decoder):
    kind = type(module).__name__
    raise UserError(f'a {kind} is no module that llama3_jax.as_nnx made')
  params = module.params()
  known = len(jax.tree.leaves(params))
  have = ['.'.join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(module))]
  if len(have) != known:
    raise UserError(
      f'the module holds {len(have)} arrays, a model {known}: merge what was added, '
      f'it has {", ".join(have)}'
    )
  origin = module.origin
  return Model(params, module.config, origin.tokenizer, origin.name)


def _needed(model):
  """The tokenizer of a model; UserError where it has none."""
  if model.tokenizer is None:
    raise UserError(
      f'{model.name} carries no tokenizer: load(..., tokenizer=PATH) gives it one'
    )
  return model.tokenizer


def _several(value, name):
  """The list of what is given as several; UserError where it is one of another kind."""
  if isinstance(value, (bytes, Mapping)) or not isinstance(value, Iterable):
    raise UserError(f'{name} is a {type(value).__name__}: give a text or a list')
  return list(value)


def _rows(ids, size):
  """Token ids as int32 [T] or [B,T]; UserError for anything else."""
  try:
    rows = np.asarray(ids)
  except ValueError:
    raise UserError('ids: rows of different lengths: pad them, or ask one by one')
  if rows.ndim not in (1, 2) or not rows.size or rows.dtype.kind not in 'iu':
    raise UserError(
      f'ids are {rows.dtype} of shape {rows.shape}: give whole numbers [T] or [B,T]'
    )
  if rows.min() < 0 or rows.max() >= size:
    wrong = rows.min() if rows.min() < 0 else rows.max()
    raise UserError(f'ids: {wrong} is outside the {size} rows of the model')
  return rows.astype(np.int32)
