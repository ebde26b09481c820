"""Instructions on the form of a response: its marks, parts, start and end (IFEval).

Each function is (response, the fields of the instruction) -> whether it is followed.
"""

import json
import re

ANSWERS = ('My answer is yes.', 'My answer is no.', 'My answer is maybe.')
FENCES = ('```json', '```Json', '```JSON', '```')


def placeholders(response: str, num_placeholders: int) -> bool:
  """At least so many [placeholders] in square brackets."""
  return len(re.findall(r'\[.*?\]', response)) >= num_placeholders


def postscript(response: str, postscript_marker: str) -> bool:
  """There is a postscript; its marker may have spaces between the letters."""
  known = {'P.S.': r'p\.\s?s\.', 'P.P.S': r'p\.\s?p\.\s?s'}
  marker = postscript_marker
  return bool(re.search(known.get(marker, re.escape(marker)), response, re.IGNORECASE))


def bullets(response: str, num_bullets: int) -> bool:
  """Exactly so many lines that begin with - or with one *."""
  lines = re.findall(r'^[^\S\n]*(?:-|\*[^*\n])', response, re.MULTILINE)
  return len(lines) == num_bullets


def constrained(response: str) -> bool:
  """One of the three answers 'My answer is yes.' (no, maybe) is there."""
  return any(answer in response for answer in ANSWERS)


def highlights(response: str, num_highlights: int) -> bool:
  """At least so many parts in *one* or **two** asterisks."""
  marked = [m.strip('*') for m in re.findall(r'\*[^\n*]*\*', response)]
  marked += [m[2:-2] for m in re.findall(r'\*\*[^\n*]*\*\*', response)]
  return sum(bool(m.strip()) for m in marked) >= num_highlights


def sections(response: str, section_spliter: str, num_sections: int) -> bool:
  """At least so many headings, each the word and a number."""
  heading = rf'{re.escape(section_spliter.strip())}\s?\d+'
  return len(re.findall(heading, response)) >= num_sections


def is_json(response: str) -> bool:
  """The whole response is JSON, with or without a fence around it."""
  text = response.strip()
  for fence in FENCES:
    text = text.removeprefix(fence)
  try:
    json.loads(text.removesuffix('```').strip())
  except (ValueError, RecursionError):
    return False
  return True


def title(response: str) -> bool:
  """There is a <<title>> in double angular brackets, on one line."""
  found = re.findall(r'<<[^\n]+>>', response)
  return any(text.lstrip('<').rstrip('>').strip() for text in found)


def two_responses(response: str) -> bool:
  """Two different responses with ****** between them."""
  parts = [part.strip() for part in response.split('******')]
  if not all(parts[1:-1]):
    return False
  kept = [part for part in parts if part]
  return len(kept) == 2 and kept[0] != kept[1]


def repeats(response: str, prompt_to_repeat: str) -> bool:
  """The response begins with the request."""
  return response.strip().lower().startswith(prompt_to_repeat.strip().lower())


def ends(response: str, end_phrase: str) -> bool:
  """The response ends with a phrase, and nothing but quotation marks after it."""
  return response.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def quoted(response: str) -> bool:
  """The whole response is in double quotation marks."""
  text = response.strip()
  return len(text) > 1 and text[0] == text[-1] == '"'


def no_comma(response: str) -> bool:
  """There is no comma."""
  return ',' not in response
