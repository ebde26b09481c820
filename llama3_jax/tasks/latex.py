"""Answers of mathematics in LaTeX: where they are in a text, and which are equal (5.1).

Two answers are equal where they differ in layout alone (sizes of fractions and
brackets, space, units, signs of money and degrees), or are the same rational number.
"""

import fractions
import re

BOXED = re.compile(r'\\(?:boxed|fbox)\s*')
FINAL = re.compile(r'answer is:?\s*(.+?)\.?\s*(?:\n|$)', re.I)
MATHS = re.compile(r'\$\$?(.+?)\$\$?')
DROPPED = re.compile(
  r'\\(?:left|right|[bB]igg?[lr]?|displaystyle|limits|quad|qquad)(?![a-zA-Z])'
  r'|\\[!,;: ]|~|\^\{?\\circ\}?|\\degrees?(?![a-zA-Z])|\\?\$|\\?%'
)
WORDS = r'\\(?:text|textbf|textit|textrm|mbox|mathrm|mathbf|mathit|rm|bf)'
UNIT = re.compile(rf'(?<=[\d}}])\s*{WORDS}\{{[^{{}}]*\}}(?:\^\{{?\d\}}?)?$')
PLAIN_UNIT = re.compile(r'(?<=\d)\s+[a-z]+(?:\s[a-z]+)*\.?$')
WORD = re.compile(rf'{WORDS}\s*\{{([^{{}}]*)\}}')
NAMED = re.compile(r'^[a-zA-Z](?:\([a-z]\))?\s*(?:=|\\in(?![a-z]))\s*')
THOUSANDS = re.compile(r'-?\d{1,3}(?:(?:,|\{,\})\d{3})+(?:\.\d+)?')
DIGITS = re.compile(r'\\frac(\d)(\d)')
HALF = (re.compile(r'\\frac(\d)(?=\{)'), re.compile(r'(\\frac\{[^{}]*\})(\w)'))
SLASH = re.compile(r'(-?\d+)/(-?\d+)', re.A)
# Longer numbers are compared as texts.
FRACTION = re.compile(r'(-?)\\frac\{(-?\d{1,99})\}\{(-?\d{1,99})\}', re.A)
NUMBER = re.compile(r'-?(?:\d{1,99}\.?\d{0,99}|\.\d{1,99})', re.A)
TWICE = re.compile(r'\\\\(?=[a-zA-Z]{2})')
SAME = re.compile(r'\\(le|ge|ne)q(?![a-zA-Z])')


def boxed(text: str) -> str:
  """What the last \\boxed holds; '' without one that is closed."""
  for match in reversed(list(BOXED.finditer(text))):
    rest = text[match.end() :]
    if not rest.startswith('{'):
      return re.split(r'[$\s.,]', rest, maxsplit=1)[0]
    depth = 0
    for i, c in enumerate(rest):
      depth += (c == '{') - (c == '}')
      if not depth:
        return rest[1:i]
  return ''


def answer(text: str) -> str:
  """The answer that a solution ends with: boxed, else after "answer is", else the last
  formula, else the last line."""
  if found := boxed(text):
    return found
  stated = FINAL.findall(text)
  tail = stated[-1] if stated else text.strip().split('\n')[-1]
  formulas = MATHS.findall(tail if stated else text)
  return formulas[-1] if formulas else tail.strip()


def same(one: str, other: str) -> bool:
  """Whether two answers are equal."""
  return value(one) == value(other)


def value(text: str) -> str | fractions.Fraction:
  """An answer as what `same` compares: a number, or its LaTeX in one form."""
  text = plain(text)
  sign, match = 1, FRACTION.fullmatch(text)
  if match and int(match[3]):
    sign = -1 if match[1] else 1
    return sign * fractions.Fraction(int(match[2]), int(match[3]))
  return fractions.Fraction(text) if NUMBER.fullmatch(text) else text


def plain(text: str) -> str:
  """An answer in one form: no layout, no unit, no space."""
  # A command that was escaped twice is one; else two backslashes end a row.
  text = TWICE.sub(r'\\', text.replace('\n', ' ')).replace('\\\\', ';')
  text = text.strip().rstrip('.')
  text = re.sub(r'\\[dt]frac', r'\\frac', text)
  text = UNIT.sub('', DROPPED.sub('', text).strip())
  text = PLAIN_UNIT.sub('', text)
  text = NAMED.sub('', WORD.sub(r'\1', text).strip())
  text = SAME.sub(r'\\\1', text)
  text = ''.join(text.split())
  if THOUSANDS.fullmatch(text):
    text = re.sub(r'[{},]', '', text)
  text = re.sub(r'\\sqrt(\w)', r'\\sqrt{\1}', text)
  text = re.sub(r'([\^_])\{(\w)\}', r'\1\2', text)
  text = DIGITS.sub(r'\\frac{\1}{\2}', text)
  text = HALF[1].sub(r'\1{\2}', HALF[0].sub(r'\\frac{\1}', text))
  if match := SLASH.fullmatch(text):
    text = f'\\frac{{{match[1]}}}{{{match[2]}}}'
  return re.sub(r'(?<![\d])\.(?=\d)', '0.', text)
