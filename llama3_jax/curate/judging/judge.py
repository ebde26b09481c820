"""Judges of what a good document is, from which a classifier learns (3.1.1).

A rule labels the clear cases and leaves the rest unlabelled; it is a stand-in that
needs no model. A chat model judges with `question` and `verdict` (experiments/judge.py)
and leaves a file of labels. Rules return int64 [documents]: a class number, -1 = none.
"""

import numpy as np
import pyarrow as pa
import regex

WORD = regex.compile(r'[\p{L}\p{M}\p{N}]+')
CITED = regex.compile(
  r'\b(?:1[5-9]|20)\d\d\b|\b(?:doi|isbn|references|according to|et al|journal)\b',
  regex.IGNORECASE,
)
SOLD = regex.compile(
  r'\b(?:buy|click (?:here|below)|subscribe|cart|sale|discount|free shipping|sign up'
  r'|log ?in|cookies?|coupon|order now|add to|wishlist|checkout|newsletter)\b',
  regex.IGNORECASE,
)
ENDED = regex.compile(r'[.!?。！？।]["\')\]”’]?\s*$')
STEP = regex.compile(
  r'\b(?:therefore|hence|thus|let|suppose|assume|proof|theorem|lemma|equation|implies'
  r'|solve|substitut\w+|follows that|because|since|given that)\b|[=≈≤≥∑∫√]',
  regex.IGNORECASE,
)
CODE = regex.compile(
  r'^(?:\s*(?:def|class|import|from|return|for|while|if|else|function|var|let|const'
  r'|public|private|static|#include|package|use|fn|SELECT|print)\b.*|.*[;{}]\s*)$',
  regex.MULTILINE,
)
# Words that tell what a text is about; the classifier learns the others from them.
KINDS = {
  'arts_entertainment': 'film movie actor actress album band song music singer concert '
  'episode series celebrity novel theatre guitar drama comedy fans tour premiere',
  'business': 'company market revenue investors shares profit customers industry ceo '
  'bank finance economy stock trade startup tax budget sales',
  'health': 'patients disease treatment doctor hospital symptoms cancer vaccine diet '
  'medical therapy infection clinical nutrition blood drug',
  'science': 'research theory experiment particles species cells energy physics '
  'chemistry biology galaxy molecules equation genome evolution measured',
  'technology': 'software computer code server data device algorithm network internet '
  'app programming hardware browser linux file function',
  'history': 'century war empire king dynasty ancient medieval battle treaty emperor '
  'revolution colonial archaeological reign army',
  'sports': 'team season coach player league goal match championship football '
  'tournament score basketball cricket stadium olympic',
  'society': 'government court law election police minister president parliament '
  'policy rights vote school students education party',
  'travel': 'hotel beach flight tourist island restaurant trip visitors airport '
  'mountain museum scenic destination guide resort',
}
NEEDED = 6  # words of a kind, and twice those of the next kind
CLASSES = {
  'reference': ('reject', 'keep'),
  'code': ('reject', 'keep'),
  'reasoning': ('reject', 'keep'),
  'knowledge': ('other', *KINDS),
}


def reference(batch: pa.RecordBatch) -> np.ndarray:
  """1 for sourced prose that an encyclopedia could cite, 0 for sales or lists."""
  labels = []
  for text in batch['text'].to_pylist():
    lines = [line for line in text.split('\n') if line.strip()]
    count = max(len(WORD.findall(text)), 1)
    ended = sum(len(x) for x in lines if ENDED.search(x)) / max(len(text), 1)
    cited = 1000 * len(CITED.findall(text)) / count
    sold = 1000 * len(SOLD.findall(text)) / count
    if ended > 0.7 and cited >= 4 and sold < 1 and count >= 100:
      labels.append(1)
    elif ended < 0.4 or sold >= 6:
      labels.append(0)
    else:
      labels.append(-1)
  return np.array(labels, np.int64)


def code(batch: pa.RecordBatch) -> np.ndarray:
  """1 for code with words around it, 0 for hardly any code."""
  labels = []
  for text in batch['text'].to_pylist():
    lines = [line for line in text.split('\n') if line.strip()]
    share = len(CODE.findall(text)) / max(len(lines), 1)
    if len(lines) >= 5 and 0.1 <= share <= 0.9:
      labels.append(1)
    else:
      labels.append(0 if share < 0.02 else -1)
  return np.array(labels, np.int64)


def reasoning(batch: pa.RecordBatch) -> np.ndarray:
  """1 for deduction (many steps and symbols among the words), 0 for none."""
  labels = []
  for text in batch['text'].to_pylist():
    rate = 100 * len(STEP.findall(text)) / max(len(WORD.findall(text)), 1)
    labels.append(1 if rate >= 3 else 0 if rate < 0.5 else -1)
  return np.array(labels, np.int64)


def knowledge(batch: pa.RecordBatch) -> np.ndarray:
  """The kind whose words are many and twice those of the next; 0 without any."""
  names = list(KINDS)
  sets = [frozenset(KINDS[name].split()) for name in names]
  labels = []
  for text in batch['text'].to_pylist():
    tokens = [w.lower() for w in WORD.findall(text[:20_000])]
    counts = np.array([sum(t in s for t in tokens) for s in sets])
    order = np.argsort(-counts, kind='stable')
    if counts[order[0]] >= max(NEEDED, 2 * counts[order[1]]):
      labels.append(int(order[0]) + 1)
    else:
      labels.append(0 if counts.max() == 0 and len(tokens) > 100 else -1)
  return np.array(labels, np.int64)


RULES = {
  'reference': reference,
  'code': code,
  'reasoning': reasoning,
  'knowledge': knowledge,
}

ASKED = {
  'reference': 'a well-written, factual text that an encyclopedia could refer to, '
  'without advertising, menus or lists of links',
  'code': 'a page in which working program code and the words that explain it are '
  'interleaved, so that a reader learns to program',
  'reasoning': 'a text that reasons step by step: a mathematical deduction, a proof, '
  'a worked problem of science or engineering',
}


def question(asked: str, text: str, characters: int = 3000) -> str:
  """The user message that asks a chat model to judge a document.

  Args:
    asked: one of CLASSES.
    text: the document.
    characters: of the text that are shown.
  """
  if asked == 'knowledge':
    kinds = ', '.join(CLASSES['knowledge'])
    task = f'Which kind is it mostly about: {kinds}? Answer with one of these words.'
  else:
    task = f'Is it {ASKED[asked]}? Answer with keep or reject.'
  return f'Here is the beginning of a document:\n\n{text[:characters]}\n\n{task}'


def verdict(asked: str, answer: str) -> str | None:
  """The class that an answer names first, or None."""
  low = answer.lower()
  positions = {low.find(name): name for name in CLASSES[asked] if name in low}
  return positions[min(positions)] if positions else None
