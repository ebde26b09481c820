"""How a model is told of its tools: in its system message or its template (4.3.5)."""

import json
import re
from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax.text import chat
from llama3_jax.text import tool_calls
from llama3_jax.text.chat import Encoded
from llama3_jax.text.chat import Message
from llama3_jax.text.library import Library
from llama3_jax.text.tokenizer import Tokenizer
from llama3_jax.tools import registry
from llama3_jax.tools.registry import Tool

ENVIRONMENT = 'Environment: ipython'
# What Llama 3.1 was given with tools of the user (its model card).
FUNCTIONS = """You have access to the following functions. To call a function, please \
respond with JSON for a function call. Respond in the format {"name": function name, \
"parameters": dictionary of argument name and its value}. Do not use variables.

"""


def has_place(tokenizer: Tokenizer | Library) -> bool:
  """Whether the model's chat template writes tools itself."""
  known = isinstance(tokenizer, Library) and tokenizer.template is not None
  return bool(known and re.search(r'\btools\b', tokenizer.template.text))


def system(tools: Sequence[Tool], text: str = '', builtin: bool = True) -> str:
  """The system message that tells of tools, before the `text` of the dialog's own.

  builtin: of a model that knows the tools of Llama 3 by name; else they are defined as
  all others are.
  """
  head = [ENVIRONMENT] if tools and builtin else []
  names = registry.builtins(tools) if builtin else []
  if names:
    head.append(f'Tools: {", ".join(names)}')
  named = {*names, tool_calls.CODE} if builtin else set()
  said = '\n'.join(head) + '\n\n' if head else ''
  if rest := [tool.schema for tool in tools if tool.builtin not in named]:
    said += functions(rest)
  return f'{said}{text}'.rstrip()


def functions(schemas: Sequence[Mapping]) -> str:
  """Definitions of functions, and how they are called; '' without one."""
  rows = ''.join(f'{json.dumps(row, indent=4)}\n\n' for row in schemas)
  return f'{FUNCTIONS}{rows}' if rows else ''


def encode(
  tokenizer: Tokenizer | Library, messages: Sequence[Message], tools: Sequence[Tool]
) -> Encoded:
  """Ids of a dialog with an open answer, of a model that is told of tools.

  Raises:
    UserError: as `chat.encode`.
  """
  if not tools:
    return chat.encode(tokenizer, messages, prompt=True)
  if has_place(tokenizer):
    schemas = [tool.schema for tool in tools]
    return chat.encode(tokenizer, messages, prompt=True, tools=schemas)
  told = _told(tokenizer, messages, tools)
  return chat.encode(tokenizer, told, prompt=True)


def _told(tokenizer, messages, tools):
  """The dialog whose system message names the tools."""
  first = bool(messages) and messages[0].role == 'system'
  text = messages[0].content if first else ''
  said = system(tools, text, not isinstance(tokenizer, Library))
  return [Message('system', said), *messages[int(first) :]]
