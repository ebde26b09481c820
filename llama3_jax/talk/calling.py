"""Tools in a dialog: what is shown of them, and what is held back (4.3.5)."""

from collections.abc import Iterator
from collections.abc import Sequence

from llama3_jax.talk import dialog as dialogs
from llama3_jax.talk.dialog import Dialog
from llama3_jax.text import tool_calls
from llama3_jax.text.library import Library
from llama3_jax.text.tokenizer import Tokenizer
from llama3_jax.tools import agent
from llama3_jax.tools import parser
from llama3_jax.tools.agent import Output

LINES, WIDTH = 12, 400  # of a result that are shown


def listed(dialog: Dialog) -> list[str]:
  """A line that names the tools, those that are off in brackets; none without tools."""
  on = {tool.name for tool in dialog.tools}
  names = [t.name if t.name in on else f'({t.name})' for t in dialog.offered]
  return [f'tools: {", ".join(names)}'] if names else []


def most(dialog: Dialog) -> int:
  """Characters of an output, so that the question still has room beside it."""
  left = dialogs.room(dialog.length, dialog.settings.max_new)
  return min(agent.MOST, max(left, 200))


def pieces(
  tokenizer: Tokenizer | Library,
  dialog: Dialog,
  tokens: Iterator[int],
  sampled: Sequence[int],
) -> Iterator[str]:
  """Yields what is shown of an answer as it comes: a text that begins as a call is held
  back to its end, and is not shown where it is one. sampled: the tokens until now."""
  texts = dialogs.pieces(tokenizer, tokens)
  if not dialog.tools:
    yield from texts
    return
  held, told = '', False
  for piece in texts:
    held += piece
    if not told and (tagged(tokenizer, sampled) or parser.may_be(held, dialog.tools)):
      continue
    told = True
    yield held
    held = ''
  if held and not agent.called(dialogs.reply(tokenizer, sampled), dialog.tools):
    yield held


def tagged(tokenizer: Tokenizer | Library, ids: Sequence[int]) -> bool:
  """Whether ids begin with the token before calls."""
  tag = tokenizer.specials.get(parser.TAG)
  return bool(ids) and tag is not None and ids[0] == tag


def shown(output: Output) -> str:
  """Lines on a call and its output."""
  seconds = f', {output.seconds:.1f} s' if output.seconds >= 0.1 else ''
  state = '' if output.ok else ', failed'
  lines = [f'[{called(output)}{seconds}{state}]']
  text = output.text if len(output.text) <= LINES * WIDTH else output.text[:4000]
  rows = text.split('\n')
  lines += [f'  {row[:WIDTH]}' for row in rows[:LINES]]
  if len(rows) > LINES:
    lines.append(f'  ... {len(rows) - LINES:,} lines more')
  return '\n'.join(lines)


def called(output: Output) -> str:
  """A call as it is shown."""
  call = output.call
  if call is None:
    return 'no call'
  if call.name == tool_calls.CODE and isinstance(call.arguments.get('code'), str):
    return f'python: {call.arguments["code"].strip()}'
  pairs = ', '.join(f'{k}={v!r}' for k, v in call.arguments.items())
  return f'{call.name}({pairs})'
