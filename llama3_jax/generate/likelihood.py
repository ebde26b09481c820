"""Log-probability of many answers, each beginning that they share read once (5.1).

Texts are put in order, so that those with a common beginning are neighbours, and packed
into chunks as trees. A beginning that all texts of a chunk share, whole pages of it, is
read into pages and kept there for the next chunk.
"""

import itertools
from collections.abc import Callable
from collections.abc import Sequence

import numpy as np

from llama3_jax import axes
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.generate import group
from llama3_jax.generate import paged
from llama3_jax.generate import pool
from llama3_jax.generate import programs
from llama3_jax.generate.pages import Pages
from llama3_jax.generate.settings import Settings
from llama3_jax.model import llama

CHUNK, PAGE = 512, 64  # tokens


def of_answers(
  params: llama.Params,
  prompts: Sequence[Sequence[int]],
  answers: Sequence[Sequence[int]],
  config: ModelConfig,
  chunk: int = 0,
  page: int = PAGE,
) -> np.ndarray:
  """Log-probability of every answer after its prompt, np.float32 [n]; as `weighed`."""
  return weighed(params, prompts, answers, config, chunk, page)[0]


def weighed(
  params: llama.Params,
  prompts: Sequence[Sequence[int]],
  answers: Sequence[Sequence[int]],
  config: ModelConfig,
  chunk: int = 0,
  page: int = PAGE,
  told: Callable[[int, float, bool], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """(log-probability of every answer after its prompt, np.float32 [n]; whether greedy
  decoding writes it: each of its tokens is the likeliest or equal to it, bool [n]).

  Args:
    prompts, answers: token ids, at least one each; common beginnings are found on ids,
      so a prompt is the beginning of what was encoded together with its answer.
    chunk: tokens that are computed at a time; 0: 512, or more for longer answers.
    told: (number, log-probability, greedy) of each answer, as soon as it is known.

  Raises:
    UserError: an empty prompt or answer, or one that a chunk cannot hold.
  """
  if not len(prompts):
    return np.zeros(0, np.float32), np.zeros(0, bool)
  longest = max(map(len, answers)) + page
  chunk = chunk or max(CHUNK, 1 << (longest - 1).bit_length())
  texts = [(*prompt, *answer) for prompt, answer in zip(prompts, answers, strict=True)]
  starts = list(map(len, prompts))
  for i, (text, start) in enumerate(zip(texts, starts)):
    if not start or start == len(text):
      raise UserError(f'answer {i}: it and its prompt need at least one token each')
    if len(text) - start > chunk - page:
      n, most = len(text) - start, chunk - page
      raise UserError(f'answer {i} has {n} tokens: at most {most}')
  parts = _packed(texts, starts, chunk, page)
  scorer = _Scorer(params, config, max(base for *_, base in parts), chunk, page)
  total, greedy = np.zeros(len(texts), np.float32), np.zeros(len(texts), bool)
  for i in range(0, len(parts), scorer.groups):
    trees = [_Tree(texts, starts, *part) for part in parts[i : i + scorer.groups]]
    for tree, logp in zip(trees, scorer.score(trees)):
      for text, places in tree.places.items():
        own = logp[places]
        total[text] = own[:, 0].sum(dtype=np.float64)
        greedy[text] = (own[:, 0] >= own[:, 1]).all()
        if told:
          told(text, total[text], greedy[text])
  return total, greedy


def of_each(
  params: llama.Params,
  prompts: Sequence[Sequence[int]],
  answers: Sequence[Sequence[int]],
  config: ModelConfig,
) -> np.ndarray:
  """Log-probability of every answer after every prompt, np.float32 [prompts, answers];
  as `of_answers`."""
  pairs = list(itertools.product(prompts, answers))
  logp = of_answers(params, *zip(*pairs), config) if pairs else np.zeros(0, np.float32)
  return logp.reshape(len(prompts), len(answers))


def _common(a, b):
  """Length of the common beginning."""
  n = min(len(a), len(b))
  differ = np.flatnonzero(np.asarray(a[:n]) != np.asarray(b[:n]))
  return int(differ[0]) if len(differ) else n


def _packed(texts, starts, chunk, page):
  """[(texts in order, common beginning of each with the one before, tokens of the
  beginning that is in pages), ...], one for each chunk."""
  order = sorted(range(len(texts)), key=texts.__getitem__)
  floor = lambda n: n // page * page
  parts, i = [], 0
  while i < len(order):
    first = order[i]
    base = floor(starts[first] - 1)  # the token before the answer is in the chunk
    members, shared, used = [first], [0], len(texts[first])
    pairs = len(texts[first])
    for text in order[i + 1 :]:
      common = _common(texts[members[-1]], texts[text])
      fewer = min(base, floor(min(common, starts[text] - 1)))
      more = len(texts[text]) - common + 1
      if used + more - fewer > chunk or pairs + more > 2 * chunk:
        break
      base, used, pairs = fewer, used + more, pairs + more
      members.append(text)
      shared.append(common)
    parts.append((members, shared, base))
    i += len(members)
  return parts


class _Tree:
  """A chunk of texts in order: its tokens, and what is asked of it.

  tokens, position, leave: of each token, leave is the number after its branch; wanted:
  [(number of the token before, token), ...]; places: {text: its indices in wanted};
  beginning: the ids that are in pages.
  """

  def __init__(self, texts, starts, members, shared, base):
    self.beginning = texts[members[0]][:base]
    self.tokens, self.position, self.leave = [], [], []
    self.wanted, self.places = [], {}
    found, path = {}, []  # numbers of the tokens from `base` on
    for text, common in zip(members, shared):
      ids = texts[text]
      self._cut(path, max(common - base, 0))
      for position in range(base + len(path), len(ids) - 1):
        path.append(len(self.tokens))
        self.tokens.append(ids[position])
        self.position.append(position)
        self.leave.append(0)
      places = []
      for position in range(starts[text], len(ids)):
        pair = path[position - 1 - base], ids[position]
        places.append(found.setdefault(pair, len(found)))
      self.places[text] = places
    self._cut(path, 0)
    self.wanted = list(found)

  def _cut(self, path, length):
    for number in path[length:]:
      self.leave[number] = len(self.tokens)
    del path[length:]


class _Scorer:
  """Parameters, pages of beginnings, and the arrays of a call."""

  def __init__(self, params, config, longest, chunk, page):
    if axes.parts('C') > 1:
      raise UserError('likelihoods need mesh.stage=1')
    self.params, self.config = programs.prepared(params, config), config
    self.groups = axes.parts('B')
    # Few different numbers, so that few programs are compiled.
    columns = 1 << (max(-(-longest // page), 1) - 1).bit_length()
    # Room for two beginnings: the last one, and that which is read next.
    self.sizes = group.Sizes((1,), (chunk,), columns * page, page, 2 * columns)
    self.pages = [Pages(self.sizes.count, page) for _ in range(self.groups)]
    self.memory = pool.create(config, self.sizes.count, page, self.groups)

  def score(self, trees):
    """np.float32 [E,2] of the tokens that each tree, at most one a group, wants."""
    held = self._read([tree.beginning for tree in trees])
    chunk, page = self.sizes.chunks[0], self.sizes.page
    shape = self.groups, chunk
    spots = paged.Spots(*(np.zeros(shape, np.int32) for _ in range(4)))
    tokens, leave = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    number = np.zeros(shape, np.int32)
    before, after = (np.zeros((self.groups, 2 * chunk), np.int32) for _ in range(2))
    count = np.zeros(self.groups, np.int32)
    items = paged.items(self.groups, chunk, self.sizes.columns, 2)
    for g, (tree, pages) in enumerate(zip(trees, held)):
      n, count[g] = len(tree.tokens), len(tree.wanted)
      tokens[g, :n], leave[g, :n] = tree.tokens, tree.leave
      number[g, :n] = np.arange(n)
      spots.position[g, :n], spots.group[g, :n] = tree.position, 1
      before[g, : count[g]], after[g, : count[g]] = zip(*tree.wanted)
      items.page[g, :, : len(pages)] = pages
      items.first[g, :, : len(pages)] = np.arange(len(pages)) * page
      items.who[g, :, : len(pages), 1] = True
      items.count[g] = len(pages)
    given = tokens, spots, items, paged.Tree(number, leave), (before, after, count)
    found = axes.fetch(programs.score(self.params, self.memory, *given, self.config))
    for own, pages in zip(self.pages, held):
      own.release(pages)
    return [found[g, : count[g]] for g in range(len(trees))]

  def _read(self, beginnings):
    """Pages with the beginnings, which are read as far as they are not known."""
    held, unread = [], []
    for own, ids in zip(self.pages, beginnings):
      pages, known = own.hold(ids)
      held.append(pages)
      request, done = group.Request(ids, Settings()), known * self.sizes.page
      prompt = group.Prompt(request, [], pages, [], [[]], len(ids), done, 0, 0)
      unread.append(prompt)
    while any(prompt.unread for prompt in unread):
      chunk = group.Chunk(self.groups, self.sizes.chunks[0], self.sizes)
      for g, prompt in enumerate(unread):
        chunk.add(prompt, g)
      given = chunk.tokens, chunk.spots, chunk.items
      self.memory = programs.read(self.params, self.memory, *given, self.config)
    return held
