"""Whether two short answers are the same, and how much they share: EM and F1 (5.1).

Capitals, articles, punctuation and space do not count, as in the scores of SQuAD
(arXiv 1606.05250, 6.1) and TriviaQA (arXiv 1705.03551).
"""

import collections
import re
import string
from collections.abc import Callable
from collections.abc import Sequence

ARTICLES = re.compile(r'\b(?:a|an|the)\b')
QUOTES = '‘’´`'


def normal(text: str, between: str = '') -> str:
  """The words that count. between: what a sign of punctuation becomes; TriviaQA makes
  it a space, and knows more signs. Of an article alone it is that article."""
  marks = string.punctuation + (QUOTES if between else '')
  text = text.lower().translate(dict.fromkeys(map(ord, marks), between))
  return ' '.join(ARTICLES.sub(' ', text).split() or text.split())


def exact(response: str, answer: str, between: str = '') -> float:
  """1.0 where the words that count are the same."""
  return float(normal(response, between) == normal(answer, between))


def f1(response: str, answer: str, between: str = '') -> float:
  """F1 of the words that count, 0 to 1; of two without words 1."""
  said, due = (normal(text, between).split() for text in (response, answer))
  if not said or not due:
    return float(said == due)
  shared = sum((collections.Counter(said) & collections.Counter(due)).values())
  return 2 * shared / (len(said) + len(due))


def best(measure: Callable, response: str, answers: Sequence[str], *how: str) -> float:
  """The highest measure of the response and any of the right answers."""
  return max(measure(response, answer, *how) for answer in answers)
