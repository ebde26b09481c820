"""Markdown markers, which the paper found harmful in web text (3.1.1).

Every repetition in the patterns is possessive, so that the time is linear in the text,
whatever its content. A sign that is part of the sentence stays: `- 5 degrees`,
`> 100 people`, `# is the symbol`, `handlers[0](event)`.
"""

import re


def _compiled(rows):
  return [(signs, re.compile(form, re.MULTILINE), new) for signs, form, new in rows]


SIGNS = (
  r'.,+=<$€£¥%~±−\ue000\ue002\ue004-'  # before a number; marks of formulas and code
)
SMALL = 'a-zß-öø-ÿа-яёα-ω'
BEGINS = re.compile('\n[ \t]*+[-`*_|:#>+]')  # a line, with a sign of LINES
LINES = _compiled(
  [
    ('`', r'^[ \t]*+```.*+$\n?', ''),  # fences
    ('-*_', r'^[ \t]*+([-*_])(?:[ \t]*+\1){2,}+[ \t]*+$\n?', ''),  # rules
    # Table rules.
    (
      '-',
      r'^[ \t]*+\|?(?:[ \t]*+:?-{3,}+:?[ \t]*+\|)++(?:[ \t]*+:?-{3,}+:?[ \t]*+)?+$\n?',
      '',
    ),
    # Headings: no sentence, and one that begins small has two signs or more.
    ('#', r'^[ \t]*+#{2,6}+[ \t]++(?=\S)', ''),
    ('#', rf'^[ \t]*+#[ \t]++(?![{SMALL}\d{SIGNS}])(?=[^\n]*+(?<![.;,])$)', ''),
    # Quotations, bullets: before words.
    ('>', rf'^[ \t]*+(?:>[ \t]++(?![\d{SIGNS}]|>[^ ]))++', ''),
    ('>', r'^[ \t]*+>$', ''),
    ('-*+', rf'^[ \t]*+[-*+][ \t]++(?![>\d{SIGNS}])', ''),
  ]
)
INSIDE = _compiled(
  [
    # Links, images: the target is an address, and nothing is called or indexed.
    (
      '[',
      r'(?<![\w)\]])!?\[([^\[\]\n]*+)\]\((?=[^()\[\s]*?[/.#:@])[^()\[\s]*+\)',
      r'\1',
    ),
    ('*', r'(?<![\w*])\*(?=[^\s*])([^*\n]++)(?<=\S)\*(?![\w*])', r'\1'),  # italic
    ('*', r'(?<!\w)\*\*(?=[^\s*])([^*\n]++)(?<=\S)\*\*(?!\w)', r'\1'),  # bold
    # Bold, but not __init__.
    ('_', r'(?<!\w)__(?=[^\s_])([^_ \n]*+ [^_\n]*+)(?<=\S)__(?!\w)', r'\1'),
    ('`', r'(?<![\w`])`([^`\n]++)`(?![\w`])', r'\1'),  # inline code
  ]
)


def strip(text: str) -> str:
  """Removes markdown markers, keeps the words."""
  if BEGINS.search('\n' + text):
    text = _without(LINES, text)
  return _without(INSIDE, text)


def _without(markers, text):
  for signs, pattern, replacement in markers:
    if any(sign in text for sign in signs):
      text = pattern.sub(replacement, text)
  return text
