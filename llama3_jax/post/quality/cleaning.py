"""Rules that clean the answers of a model (4.2.3): emojis, exclamation, apologies.

Synthetic answers overuse them; a model that is finetuned on what another said learns
them first. Each rule changes an answer or leaves it as it is, and is counted.
"""

import re
from collections.abc import Sequence

EMOJI = re.compile(
  '[\U0001f1e6-\U0001f1ff\U0001f300-\U0001faff\u2600-\u27bf\ufe0f\u200d]+ ?'
)
SHOUT = re.compile(r'!(?:\s*!)+')
ENDED = re.compile(r'!(?=\s|$)')
APOLOGY = re.compile(
  r"^\s*(?:(?:oh|ah),? )?(?:I(?:'m|’m| am) (?:so |very |really )?sorry|sorry"
  r'|(?:my|our) (?:sincere )?apologies|I (?:do )?apologi[sz]e)\b[^.!?\n]*[.!?]\s*',
  re.IGNORECASE,
)
MOST = 1  # sentences of an answer that may end with an exclamation mark


def emojis(text: str) -> str:
  """Without emojis, unless nothing else is said."""
  plain = EMOJI.sub('', text).rstrip()
  return plain if plain.strip() else text


def exclamations(text: str) -> str:
  """`!!!` becomes `!`, and after MOST sentences that end so, the next end with `.`."""
  text, seen = SHOUT.sub('!', text), 0

  def calm(found):
    nonlocal seen
    seen += 1
    return found[0] if seen <= MOST else '.'

  return ENDED.sub(calm, text)


def apology(text: str) -> str:
  """Without a first sentence that apologises, unless it is all that is said."""
  rest = APOLOGY.sub('', text, count=1)
  return rest[:1].upper() + rest[1:] if rest.strip() else text


RULES = {'emojis': emojis, 'exclamations': exclamations}


def clean(texts: Sequence[str], apologies: float) -> tuple[list[str], dict[str, int]]:
  """(the texts, {rule: how many it changed}).

  apologies: share of all answers that may begin with an apology; in those beyond it,
  in their order, that sentence is left out.
  """
  texts, counts = list(texts), dict.fromkeys((*RULES, 'apologies'), 0)
  for name, rule in RULES.items():
    for i, text in enumerate(texts):
      texts[i] = rule(text)
      counts[name] += texts[i] != text
  left = int(apologies * len(texts))
  for i, text in enumerate(texts):
    if (short := apology(text)) != text:
      left -= 1
      if left < 0:
        texts[i], counts['apologies'] = short, counts['apologies'] + 1
  return texts, counts
