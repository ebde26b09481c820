"""Tools by name: Python functions, or functions that a JSON schema declares (4.3.5).

  tools = registry.load(('python', 'search=papers/', 'my_module.weather'))

A name is a tool of this folder, a function, or a module with
`create(source) -> tools`, by its dotted name; the text after `=` is its source.
"""

import dataclasses
import importlib
import re
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.text import tool_calls
from llama3_jax.tools import signature

# Name in a config -> module of this folder.
OWN = {
  'python': 'interpreter',
  'search': 'search',
  'math': 'mathematics',
  'files': 'files',
}
NAME = re.compile(r'[\w.-]+')
EMPTY = {'type': 'object', 'properties': {}}


@dataclasses.dataclass(frozen=True)
class Tool:
  """A function that a model may call.

  Attributes:
    name: by which it is called.
    run: takes the arguments by name; gives a text, or what JSON can write. None: it is
      declared only, and somebody else runs it.
    description: what it does, for the model.
    parameters: JSON schema of the object of its arguments.
    builtin: its name among the tools that Llama 3 knows without a definition; ''.
  """

  name: str
  run: Callable[..., object] | None = None
  description: str = ''
  parameters: Mapping = dataclasses.field(default_factory=lambda: dict(EMPTY))
  builtin: str = ''

  @property
  def schema(self) -> dict[str, object]:
    """Its definition, as chat templates and the OpenAI API write it."""
    function = {'name': self.name}
    function |= {'description': self.description} if self.description else {}
    function['parameters'] = dict(self.parameters)
    return {'type': 'function', 'function': function}


def of(function: Callable, name: str = '', builtin: str = '') -> Tool:
  """The Tool of a Python function or a bound method.

  Its annotations are the types, its docstring says what it does, and the section
  `Args:` of it what each argument is.

  Raises:
    UserError: it has no docstring, or arguments without a JSON type.
  """
  name = name or getattr(function, '__name__', '')
  said = signature.description(function)
  if not NAME.fullmatch(name):
    raise UserError(f'tool {name!r}: that is no name of a function')
  if not said:
    raise UserError(f'tool {name}: it has no docstring, which tells a model its use')
  return Tool(name, function, said, signature.parameters(function, name), builtin)


def declared(row: object, where: str, run: Callable | None = None) -> Tool:
  """The Tool of a definition: {"type": "function", "function": {...}}, or {"name",
  "description", "parameters"} alone. A UserError begins with `where`."""
  if isinstance(row, Mapping) and isinstance(row.get('function'), Mapping):
    row = row['function']
  if not isinstance(row, Mapping):
    raise UserError(f'{where}: a definition is an object, not a {jsonl.kind(row)}')
  name = row.get('name')
  if not isinstance(name, str) or not NAME.fullmatch(name):
    raise UserError(f"{where}: field 'name' is {name!r}, not the name of a function")
  said = row.get('description') or ''
  if not isinstance(said, str):
    raise UserError(f"{where}: field 'description' is a {jsonl.kind(said)}, not a text")
  rule = row.get('parameters') or dict(EMPTY)
  if not isinstance(rule, Mapping) or not isinstance(rule.get('properties', {}), dict):
    raise UserError(f"{where}: field 'parameters' is no JSON schema of an object")
  return Tool(name, run, said, rule)


def load(names: Sequence[str], field: str = 'tools') -> tuple[Tool, ...]:
  """The tools that a config names, in their order.

  Raises:
    UserError: a name is unknown, its source cannot be used, or two tools have one name.
  """
  found = []
  for text in names:
    name, _, source = text.partition('=')
    found += _tools(name, source, field)
  return distinct(found, field)


def distinct(tools: Iterable[Tool], field: str) -> tuple[Tool, ...]:
  """The tools; a UserError, which begins with `field`, where two have one name."""
  seen, tools = set(), tuple(tools)
  for name in [n for t in tools for n in {t.name, t.builtin} if n]:
    if name in seen:
      raise UserError(f'{field}: two tools have the name {name}: leave one out')
    seen.add(name)
  return tools


def find(tools: Iterable[Tool], name: str) -> Tool | None:
  """The tool of a name, its own or that of a built-in one; None: there is none."""
  return next((t for t in tools if name in (t.name, t.builtin) and name), None)


def _tools(name, source, field):
  if name in OWN:
    return importlib.import_module(f'llama3_jax.tools.{OWN[name]}').create(source)
  known = f'there are {", ".join(OWN)}, or a function of yours as module.function'
  if '.' not in name:
    raise UserError(f'{field}: tool {name!r} is unknown: {known}')
  path, _, last = name.rpartition('.')
  for module, attribute in ((name, 'create'), (path, last)):
    try:
      made = getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError as error:
      if not error.name or not f'{module}.'.startswith(f'{error.name}.'):
        raise
      made = None
    if callable(made):
      break
  else:
    raise UserError(f'{field}: tool {name!r} is not there: {known}')
  if attribute != 'create':
    if source:
      raise UserError(f'{field}: {name} is a function, and takes no source {source!r}')
    return [of(made)]
  return [one if isinstance(one, Tool) else of(one) for one in made(source)]


def builtins(tools: Iterable[Tool]) -> list[str]:
  """Names of those that Llama 3 knows and that are written name.call(...)."""
  return [t.builtin for t in tools if t.builtin in tool_calls.BUILTIN]
