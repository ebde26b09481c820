"""Markdown markers, which the paper found harmful in web text (3.1.1).

Every repetition in the patterns is possessive, so that the time is linear in the text,
whatever its content.
"""

import re

MARKERS = [
  (signs, re.compile(pattern, re.MULTILINE), replacement)
  for signs, pattern, replacement in [
    ('`', r'^[ \t]*+```.*+$\n?', ''),  # fences
    ('-*_', r'^[ \t]*+([-*_])(?:[ \t]*+\1){2,}+[ \t]*+$\n?', ''),  # rules
    # Table rules.
    (
      '-',
      r'^[ \t]*+\|?(?:[ \t]*+:?-{3,}+:?[ \t]*+\|)++(?:[ \t]*+:?-{3,}+:?[ \t]*+)?+$\n?',
      '',
    ),
    ('#', r'^[ \t]*+#{1,6}+[ \t]++', ''),  # headings
    ('>', r'^[ \t]*+>[ \t]?', ''),  # quotations
    ('-*+', r'^[ \t]*+[-*+][ \t]++', ''),  # bullets
    ('[', r'!?\[([^\[\]\n]*+)\]\([^()\[\s]*+\)', r'\1'),  # links, images
    ('*', r'(?<![\w*])\*(?=[^\s*])([^*\n]++)(?<=\S)\*(?![\w*])', r'\1'),  # italic
    ('*', r'(?<!\w)\*\*(?=[^\s*])([^*\n]++)(?<=\S)\*\*(?!\w)', r'\1'),  # bold
    # Bold, but not __init__.
    ('_', r'(?<!\w)__(?=[^\s_])([^_ \n]*+ [^_\n]*+)(?<=\S)__(?!\w)', r'\1'),
    ('`', r'(?<![\w`])`([^`\n]++)`(?![\w`])', r'\1'),  # inline code
  ]
]


def strip(text: str) -> str:
  """Removes markdown markers, keeps the words."""
  for signs, pattern, replacement in MARKERS:
    if any(sign in text for sign in signs):
      text = pattern.sub(replacement, text)
  return text
