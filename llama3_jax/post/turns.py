"""Dialogs that people judged message by message, one example a choice (4.2.1, 4.3.5).

Two answers are compared at every turn, and the dialog goes on with the better one. A
message is the unit, so that a call of a tool can be chosen or edited before its output.
"""

from collections.abc import Mapping

from llama3_jax.base.errors import UserError
from llama3_jax.post import formats

OF_MESSAGE = ('responses', 'strength', 'models', 'margin', 'used')


def split(row: Mapping, where: str) -> list[tuple[str, dict]]:
  """[(where, row of prompt/responses)] of a row {'dialog': [message, ...]}.

  An assistant's message with `responses` (best first, and with `strength`, `models`,
  `margin`) is an example whose prompt is all before it; the dialog goes on with the
  response of number `used`, else the best. Raises UserError for a dialog in which
  nothing was chosen, and for a choice that is not the assistant's.
  """
  before, found = [], []
  beside = {k: v for k, v in row.items() if k not in ('dialog', 'id')}
  for number, message in enumerate(row['dialog'], 1):
    place = f'{where}, message {number}'
    if not isinstance(message, Mapping) or 'responses' not in message:
      before += formats.turns([message], where, 'dialog')
      continue
    role = message.get('role', message.get('from', 'assistant'))
    if formats.ROLES.get(role) != 'assistant':
      raise UserError(
        f"{place}: responses of {role!r}: only an assistant's message is chosen or "
        'edited, no output of a tool'
      )
    responses, used = message['responses'], message.get('used', 0)
    if not isinstance(responses, list) or type(used) is not int:
      raise UserError(f'{place}: responses must be a list, and used a number in it')
    if not 0 <= used < len(responses):
      raise UserError(f'{place}: used={used}, of {len(responses)} responses')
    if not before:
      raise UserError(f'{place}: no message comes before its responses')
    label = {k: message[k] for k in OF_MESSAGE if k in message and k != 'used'}
    name = {'id': f'{row["id"]}.{number}'} if 'id' in row else {}
    found.append((place, {**beside, **name, **label, 'prompt': list(before)}))
    said = responses[used]
    said = {'content': said} if isinstance(said, str) else said
    before += formats.turns([{'role': 'assistant', **said}], where, 'dialog')
  if not found:
    raise UserError(f'{where}: no message of the dialog has responses to choose from')
  return found
