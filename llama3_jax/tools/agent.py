"""Runs the calls of a model and gives it what they said, until it answers (4.3.5)."""

import dataclasses
import json
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax.generate import engine as engines
from llama3_jax.generate.engine import Engine
from llama3_jax.generate.settings import Settings
from llama3_jax.text import chat
from llama3_jax.text import tool_calls
from llama3_jax.text.chat import Message
from llama3_jax.text.library import Library
from llama3_jax.text.tokenizer import Tokenizer
from llama3_jax.text.tool_calls import Call
from llama3_jax.tools import arguments
from llama3_jax.tools import parser
from llama3_jax.tools import prompt
from llama3_jax.tools import registry
from llama3_jax.tools.registry import Tool

STEPS, MOST = 8, 4000
DEEPEST = 8  # calls in arguments of calls
NO_MORE = 'no more calls are possible: answer with what is known'


@dataclasses.dataclass(frozen=True)
class Output:
  """What a call gave.

  call: None where the model's message could not be read as one. text: for the model.
  ok: whether it ran to its end. seconds: by the clock.
  """

  call: Call | None
  text: str
  ok: bool
  seconds: float = 0.0

  @property
  def message(self) -> Message:
    """The message that the model reads."""
    return Message('ipython', self.text)


class Failed(Exception):
  """Why a call gave nothing, as a clause for the model."""


def outputs(
  tools: Sequence[Tool], message: Message, most: int = MOST
) -> Iterator[Output]:
  """Yields the outputs of the calls of an assistant's message, in their order; none
  where it is an answer. most: characters of each, the middle left out of longer ones.

  Nothing that a model wrote and nothing that a tool does is an exception.
  """
  try:
    calls = parser.calls(message, tools)
  except parser.Unreadable as error:
    yield Output(None, cut(f'error: this call cannot be read: {error}', most), False)
    return
  for call in calls:
    yield execute(tools, call, most)


def execute(tools: Sequence[Tool], call: Call, most: int = MOST) -> Output:
  """The output of one call; calls in its arguments are run before it."""
  began = time.monotonic()
  try:
    text, ok = written(_value(tools, call, 0)), True
  except Failed as error:
    text, ok = f'error: {error}', False
  except RecursionError:
    text, ok = f'error: the arguments of {call.name} are nested too deeply', False
  return Output(call, cut(text, most), ok, time.monotonic() - began)


def _value(tools, call, depth):
  """What a call returns."""
  tool = registry.find(tools, call.name)
  if tool is None or tool.run is None:
    known = ', '.join(t.name for t in tools) or 'none'
    what = 'the Python interpreter' if call.name == tool_calls.CODE else call.name
    raise Failed(f'{what} is no tool here; there are: {known}')
  if depth > DEEPEST:
    raise Failed(f'calls in arguments of {call.name} are nested too deeply')
  given = {k: _resolved(tools, v, depth) for k, v in call.arguments.items()}
  if fault := arguments.fault(tool.parameters, given):
    raise Failed(f'{call.name}: {fault}')
  try:
    return tool.run(**given)
  except Failed:
    raise
  except Exception as error:  # of any kind: a tool is anybody's
    said = ' '.join(str(error).split())
    raise Failed(f'{call.name}: {type(error).__name__}: {said}') from None


def _resolved(tools, value, depth):
  if isinstance(value, Call):
    return _value(tools, value, depth + 1)
  if isinstance(value, Mapping):
    return {key: _resolved(tools, one, depth) for key, one in value.items()}
  if isinstance(value, (list, tuple)):
    return [_resolved(tools, one, depth) for one in value]
  return value


def written(value: object) -> str:
  """A value as the model reads it: a text as it is, else JSON."""
  if isinstance(value, str):
    return value
  try:
    return json.dumps(value, ensure_ascii=False)
  except (TypeError, ValueError, RecursionError):
    return str(value)


def cut(text: str, most: int) -> str:
  """A text of at most `most` characters, and what stands for the middle of it."""
  # A lone surrogate has no bytes, which an encoder needs.
  text = text.encode('utf-8', 'replace').decode('utf-8')
  if len(text) <= most:
    return text
  end = most // 4
  left = len(text) - most
  return f'{text[: most - end]}\n... {left:,} characters left out ...\n{text[-end:]}'


def sampler(
  engine: Engine,
  tokenizer: Tokenizer | Library,
  tools: Sequence[Tool],
  settings: Settings = Settings(),
  seed: int = 0,
) -> Callable[[Sequence[Message]], Message]:
  """A function that answers a dialog with a model: the message of sampled ids.

  The dialog with its answer has room in the engine, or a UserError says that it has
  not.
  """
  own = dataclasses.replace(settings, vocab_size=tokenizer.vocab_size)

  def ask(messages):
    ids = prompt.encode(tokenizer, messages, tools).ids.tolist()
    [[made]] = engines.complete(engine, [ids], tokenizer.stop_ids, own, seed)
    return chat.sampled(tokenizer, made.sampled)

  return ask


def run(
  ask: Callable[[Sequence[Message]], Message],
  tools: Sequence[Tool],
  messages: Sequence[Message],
  steps: int = STEPS,
  most: int = MOST,
) -> Iterator[Message | Output]:
  """Yields what happens until the model answers: its messages, as sampled, and the
  output of each call, whose message it reads next.

  ask: gives the next message of the assistant, as `sampler` makes it.
  steps: messages with calls; after the last one the model is told to answer.
  """
  messages = list(messages)
  for step in range(steps + 1):
    said = ask(messages)
    messages.append(said)
    yield said
    last = step == steps
    if last and not called(said, tools):
      return
    made = [Output(None, NO_MORE, False)] if last else outputs(tools, said, most)
    count = 0
    for output in made:
      messages.append(output.message)
      yield output
      count += 1
    if not count:
      return
  yield ask(messages)


def called(message: Message, tools: Sequence[Tool]) -> bool:
  """Whether a message is a call, or was meant as one."""
  try:
    return bool(parser.calls(message, tools))
  except parser.Unreadable:
    return True
