"""Chat templates of others: messages to the text that their models were trained on."""

import dataclasses
import datetime
import functools
import json
import re
from collections.abc import Mapping
from collections.abc import Sequence

import jinja2
import jinja2.ext
import jinja2.sandbox

from llama3_jax.base.errors import UserError

# Noncharacters of Unicode, around what an assistant said while a template is rendered.
OPEN, CLOSE = '\ufdd0', '\ufdd1'
FAULTS = (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError)
FAULTS += (ArithmeticError, RecursionError, MemoryError)
GENERATION = re.compile(r'\{%-?\s*generation\b')


@dataclasses.dataclass(frozen=True)
class Template:
  """A chat template in jinja.

  text: its source. tokens: texts of special tokens by the names that templates use,
  such as bos_token and eos_token. where: the file it is of, for errors.
  """

  text: str
  tokens: Mapping[str, str] = dataclasses.field(default_factory=dict)
  where: str = 'chat_template'

  def __hash__(self) -> int:
    return hash((self.text, self.where))


@dataclasses.dataclass(frozen=True)
class Rendered:
  """The text of a dialog, and the spans [start, end) of what assistants said."""

  text: str
  answers: tuple[tuple[int, int], ...]


def render(
  template: Template,
  messages: Sequence[Mapping],
  tools: Sequence[Mapping] = (),
  prompt: bool = False,
  now: datetime.datetime | None = None,
) -> str:
  """The text of a dialog, as `apply_chat_template` of transformers gives it.

  Args:
    messages: objects with role, content, and what else the template reads.
    tools: JSON schemas of the tools that the model may call.
    prompt: ends with an open answer, for the model to write.
    now: the time that `strftime_now` of the template shows.

  Raises:
    UserError: the template does not parse, refuses these messages, or reaches for what
      a template may not have.
  """
  return _strip(_run(template, messages, tools, prompt, now))[0]


def answers(
  template: Template, messages: Sequence[Mapping], tools: Sequence[Mapping] = ()
) -> Rendered:
  """The text of a dialog with the spans of its answers, the tokens that end them
  included.

  They are where the template says `{% generation %}`; else what is more in the text
  with an answer than in that of the open prompt before it.

  Raises:
    UserError: the text up to an answer is another with the answer than without.
  """
  text, spans = _strip(_run(template, messages, tools, False))
  if GENERATION.search(template.text):
    return Rendered(text, spans)
  for i, message in enumerate(messages):
    if message['role'] != 'assistant':
      continue
    before = render(template, messages[:i], tools, prompt=True)
    until = render(template, messages[: i + 1], tools)
    if not until.startswith(before) or not text.startswith(until):
      raise UserError(
        f'{template.where}: the text before answer {i} is another without the answer '
        'than with it, so nothing tells what to train on: mark the answer in the '
        'template by {% generation %}'
      )
    spans += ((len(before), len(until)),)
  return Rendered(text, spans)


def _run(template, messages, tools, prompt, now=None):
  """The rendered text, with OPEN and CLOSE around generation blocks."""
  compiled = _compile(template)
  fixed = now or datetime.datetime.now()
  try:
    return compiled.render(
      messages=list(messages),
      tools=list(tools) or None,
      documents=None,
      add_generation_prompt=prompt,
      strftime_now=fixed.strftime,
      **template.tokens,
    )
  except _Refused as error:
    raise UserError(f'{template.where} refuses this dialog: {error}') from None
  except jinja2.sandbox.SecurityError as error:
    reason = str(error).split('\n')[0]
    raise UserError(f'{template.where}: not allowed in a template: {reason}') from None
  except FAULTS as e:
    reason = str(e).split('\n')[0] or type(e).__name__
    raise UserError(f'{template.where} cannot be rendered: {reason}') from None


def _strip(text):
  """Text without the marks of generation blocks, and the spans between them."""
  spans, parts, size = (), [], 0
  for part in text.split(OPEN):
    answer, closed, rest = part.partition(CLOSE)
    if closed:
      spans += ((size, size + len(answer)),)
    parts += [answer, rest]
    size += len(answer) + len(rest)
  return ''.join(parts), spans


class _Refused(Exception):
  """What a template says through raise_exception."""


class _Generation(jinja2.ext.Extension):
  """`{% generation %} ... {% endgeneration %}` around what the assistant writes."""

  tags = frozenset({'generation'})

  def parse(self, parser):
    line = next(parser.stream).lineno
    body = parser.parse_statements(('name:endgeneration',), drop_needle=True)
    call = self.call_method('_marked')
    return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

  def _marked(self, caller):
    return f'{OPEN}{caller()}{CLOSE}'


@functools.lru_cache(maxsize=64)
def _compile(template):
  environment = _environment()
  try:
    return environment.from_string(_source(template))
  except jinja2.TemplateSyntaxError as error:
    reason = str(error.message).split('\n')[0]
    raise UserError(
      f'{template.where}: the chat template does not parse: line {error.lineno}: '
      f'{reason}'
    ) from None


def _source(template):
  return template.text.replace(OPEN, '').replace(CLOSE, '')


@functools.lru_cache(maxsize=1)
def _environment():
  """As the templates expect it: no file, no attribute that begins with _, no change of
  what it is given."""
  environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True,
    lstrip_blocks=True,
    extensions=[_Generation, jinja2.ext.loopcontrols],
  )
  environment.filters['tojson'] = _to_json
  environment.globals['raise_exception'] = _refuse
  environment.globals['dict'] = lambda *values, **named: dict(*values, **named)
  return environment


def _refuse(reason):
  raise _Refused(' '.join(str(reason).split()))


def _to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
  how = dict(ensure_ascii=ensure_ascii, indent=indent, sort_keys=sort_keys)
  return json.dumps(value, separators=separators, **how)
