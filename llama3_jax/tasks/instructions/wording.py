"""Instructions on words, letters, length and language of a response (IFEval).

Each function is (response, the fields of the instruction) -> whether it is followed.
"""

import re
from collections.abc import Sequence

import regex

from llama3_jax.curate.measures import language as languages

# Where a contraction is two words there: NASA's is NASA and 's, DON'T is DO and N'T.
JOINT = re.compile(r"(?=['’](?:s|m|d|ll|re|ve)$|n['’]t$)", re.IGNORECASE)
# Words whose period does not end a sentence; what has a period inside is one, too.
SHORT = frozenset(
  'adm al apr aug ave bros capt cf co col corp dec dept dr ed est feb fig fri gen gov '
  'hon inc jan jr jul jun lt ltd maj mar messrs mon mr mrs ms mt nov oct op ph.d pp '
  'prof rep rev sat sen sep sept sgt sr st sun thu tue u.s viz vol vs wed'.split()
)
# These begin a sentence after an abbreviation or an initial: "at 5 p.m. He left".
STARTS = frozenset(
  'a after all also although an and as at because before but during each every for he '
  'her his how however i if in it its many most my no not now on one our she since so '
  'some that the their then there these they this those though to we what when where '
  'which while who why with yet you your'.split()
)
# The last word of a sentence, what closes it, and the word after it.
END = re.compile(r'(\S*[.!?])[)\]}"\'”’*:;@(\[{!?]*\s+(?=(\S+))')
# Parts of a word in the tokenization of the Penn Treebank, without the punctuation.
PARTS = re.compile(r'(?:(?!--|\.\.\.)[^\s\[\](){}<>;@#$%&?!,"“”…:])+')


def existence(response: str, keywords: Sequence[str]) -> bool:
  """Every keyword is there, in small letters or capitals, also inside a word."""
  return all(_find(keyword, response) for keyword in keywords)


def frequency(response: str, keyword: str, frequency: int, relation: str) -> bool:
  """A keyword is there so often, also inside words."""
  return compare(len(_find(keyword, response)), relation, frequency)


def forbidden(response: str, forbidden_words: Sequence[str]) -> bool:
  """None of the words is there as a whole word."""
  return not any(
    re.search(rf'(?<!\w){re.escape(word)}(?!\w)', response, re.IGNORECASE)
    for word in forbidden_words
  )


def letters(response: str, letter: str, let_frequency: int, let_relation: str) -> bool:
  """A letter or sign is there so often, small or capital."""
  found = response.lower().count(letter.lower())
  return compare(found, let_relation, let_frequency)


def words(response: str, num_words: int, relation: str) -> bool:
  """So many words: runs of letters, their marks, digits and underscores."""
  return compare(len(regex.findall(r'\w+', response)), relation, num_words)


def sentences(response: str, num_sentences: int, relation: str) -> bool:
  """So many sentences, by the rule of `count_sentences`."""
  return compare(count_sentences(response), relation, num_sentences)


def paragraphs(response: str, num_paragraphs: int) -> bool:
  """Exactly so many paragraphs, with *** between them and no empty one."""
  parts = [part.strip() for part in response.split('***')]
  if not all(parts[1:-1]):
    return False
  return sum(map(bool, parts)) == num_paragraphs


def first_word(
  response: str, num_paragraphs: int, nth_paragraph: int, first_word: str
) -> bool:
  """So many paragraphs, with an empty line between them; the nth begins with a word.

  An empty paragraph does not count, but takes a place: as published.
  """
  parts = [part.strip() for part in response.split('\n\n')]
  count = sum(map(bool, parts))
  if nth_paragraph > count or not parts[nth_paragraph - 1]:
    return False
  first = parts[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
  first = re.split(r'[.,?!\'"]', first)[0].lower()
  return count == num_paragraphs and first == first_word.lower()


def in_language(response: str, language: str) -> bool:
  """The response is in a language, such as 'hi'; without letters it is in any."""
  found, _ = languages.detect(response)
  return found in ('und', language.partition('-')[0])


def capital_words(response: str, capital_frequency: int, capital_relation: str) -> bool:
  """So many words without small letters, with at least one capital."""
  parts = [piece for part in PARTS.findall(response) for piece in JOINT.split(part)]
  found = sum(part.isupper() for part in parts)
  return compare(found, capital_relation, capital_frequency)


def capitals(response: str) -> bool:
  """English, and all letters are capitals."""
  return response.isupper() and in_language(response, 'en')


def small_letters(response: str) -> bool:
  """English, and no letter is a capital."""
  return response.islower() and in_language(response, 'en')


def count_sentences(text: str) -> int:
  """Number of sentences: they end in . ! or ? before white space.

  An abbreviation or an initial ends one only before a usual first word in capitals,
  three dots before any capital, a number ('1.') not before a small letter. A new line
  alone ends none. Published scores are with Punkt, which learned such lists from text.
  """
  ends = sum(_ends(match[1], match[2]) for match in END.finditer(text))
  return ends + bool(text.strip())


def _ends(last, after):
  """Whether a sentence ends with the word `last`, before the word `after`."""
  if last[-1] in '!?':
    return True
  if last.endswith('..'):
    return after[0].isupper()
  word = last[:-1].lstrip('("\'“‘[*')
  if word.isdigit():
    return not after[0].islower()
  if len(word) == 1 and word.islower():  # 'solve for x.'
    return after[0].isupper()
  initial = len(word) == 1 and word.isupper()
  if initial or re.fullmatch(r'(?:\w\.)+\w', word) or word.lower() in SHORT:
    return after[0].isupper() and after.lower().rstrip(',') in STARTS
  return True


def compare(count: int, relation: str, number: int) -> bool:
  """count against number; relation: 'less than' or 'at least'."""
  return count < number if relation == 'less than' else count >= number


def _find(text, response):
  return re.findall(re.escape(text), response, re.IGNORECASE)
