"""What texts of sentences are allowed over the limits of Gopher and FineWeb (3.1.1).

These limits were found on web pages. Pages of reference repeat the name of their
subject, the shorter the page the larger its share, and have parallel sentences; release
notes and tables have few lines that end as sentences. What is to be dropped (menus,
lists of links and keywords, logs) has no sentences, or repeats itself far more. So a
measure of a text that has a sentence every few words is divided by its allowance (one
with a lower limit is multiplied), and every threshold stays one number.
"""

import numpy as np

from llama3_jax.curate.machine import compiled
from llama3_jax.curate.measures import words as texts

LEAST = 2  # sentences
SHORT, LONG = 100, 1000  # words, between which the allowance of top n-grams falls
TOP = (2.5, 1.25)
DUPLICATE = 4.5  # n-grams of 5 to 10 words; a text that is there twice is over it
LINES = (
  1.6  # lines and paragraphs that are there again; lines that end with an ellipsis
)
SIGNS = 3.0  # what has no letter
LISTING, ENDED, SHORTER, LONGEST = range(4)  # columns of tally()
BRIEF = 30  # characters (FineWeb)
LISTED = 12  # words of a line that says as much as a sentence, however it ends


def tally(words: texts.Words) -> np.ndarray:
  """int64 [documents, 4], of the lines: LISTING, ENDED, SHORTER, LONGEST.

  Lines as long as a sentence that do not end as one (bullets of release notes); words
  of these and of the lines that end as sentences; words of lines of up to BRIEF
  characters; characters of the longest line that does not end as a sentence.
  """
  result = np.zeros((len(words.scale), 4), np.int64)
  _tally(words.lines, words.line_words(), words.line_first, words.scale, result)
  return result


@compiled.kernel(
  texts.LINES, compiled.NUMBERS, compiled.NUMBERS, compiled.NUMBERS, compiled.ROWS
)
def _tally(lines, line_words, line_first, scale, result):
  for d in range(len(scale)):
    for n in range(line_first[d], line_first[d + 1]):
      count, line = line_words[n + 1] - line_words[n], lines[n]
      if line.flags & texts.ENDS_SENTENCE:
        result[d, ENDED] += count
      else:
        result[d, LONGEST] = max(result[d, LONGEST], line.size)
        if count >= LISTED * scale[d]:
          result[d, LISTING] += 1
          result[d, ENDED] += count
      if line.size <= BRIEF:
        result[d, SHORTER] += count


def of_sentences(count: np.ndarray, size: np.ndarray, most: float) -> np.ndarray:
  """bool [documents]: whether texts of `size` words have a sentence every `most`."""
  return (count >= LEAST) & (size <= most * count)


def factors(
  words: texts.Words, count: np.ndarray, most: float
) -> dict[str, np.ndarray]:
  """{'top', 'duplicate', 'lines', 'signs': float64 [documents]}: divisors of measures.

  Args:
    words: of the documents.
    count: [documents], sentences and lines that are as good (tally's LISTING).
    most: words a sentence, above which nothing is allowed.
  """
  size = np.maximum(np.diff(words.first) / words.scale, 1)
  prose = of_sentences(count, size, most)
  along = np.log(size / SHORT) / np.log(LONG / SHORT)
  top = np.interp(along, (0, 1), TOP)
  values = {'top': top, 'duplicate': DUPLICATE, 'lines': LINES, 'signs': SIGNS}
  return {name: np.where(prose, value, 1.0) for name, value in values.items()}


def kind(column: str) -> str:
  """The name of the factor of a column of repetition."""
  name = column.partition('.')[2]
  if name.endswith('gram'):
    return 'top' if name.startswith('top') else 'duplicate'
  return 'lines'
