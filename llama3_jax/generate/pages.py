"""Pages of the key/value memory: who has which, and which hold a known beginning.

All of it is on the host. A page is a number from 1 on; page 0 takes what idle rows
write and is nobody's. Full pages of prompts and answers are remembered by the tokens up
to their end, so that a later request with the same beginning uses them; the one that
was used longest ago is forgotten first.
"""

import collections
import hashlib
from collections.abc import Sequence

import numpy as np


class Pages:
  """The allocator of `count` pages of `size` tokens.

  A page is free, or used by at least one owner, or unused and remembered; the last are
  taken when no page is free.
  """

  def __init__(self, count: int, size: int) -> None:
    self.size, self.count = size, count
    self._free = list(range(count, 0, -1))
    self._owners = collections.Counter()
    self._page = {}  # {digest of all tokens up to its end: page}
    self._digest = {}  # the reverse
    self._unused = collections.OrderedDict()  # remembered pages, longest unused first
    self.version = 0  # of the weights: how often all was forgotten

  @property
  def free(self) -> int:
    """How many pages `take` can give."""
    return len(self._free) + len(self._unused)

  @property
  def used(self) -> int:
    """Pages with an owner."""
    return len(self._owners)

  def digests(self, ids: Sequence[int]) -> list[bytes]:
    """A digest for every full page of `ids`: each depends on all tokens before it."""
    data, parent, found = np.asarray(ids, np.int32), b'', []
    for end in range(self.size, len(data) + 1, self.size):
      block = data[end - self.size : end].tobytes()
      parent = hashlib.blake2b(parent + block, digest_size=16).digest()
      found.append(parent)
    return found

  def known(self, digests: Sequence[bytes]) -> list[int]:
    """The remembered pages of a beginning, as many as there are."""
    pages = []
    for digest in digests:
      if digest not in self._page:
        break
      pages.append(self._page[digest])
    return pages

  def hold(self, ids: Sequence[int], more: int = 0) -> tuple[list[int], int] | None:
    """(pages of all full blocks of `ids`, how many of them are known) for one owner
    more; None where there are not so many, and `more` besides.

    New ones are known at once: who finds them must not read before they are written.
    """
    digests = self.digests(ids)
    known = self.known(digests)
    for page in known:
      self._unused.pop(page, None)  # now it is not free
      self._owners[page] += 1
    if self.free < len(digests) - len(known) + more:
      self.release(known)
      return None
    pages = known + self.take(len(digests) - len(known))
    self.remember(digests, pages)
    return pages, len(known)

  def take(self, count: int) -> list[int]:
    """`count` pages for one owner; the caller has looked at `free`."""
    taken = []
    for _ in range(count):
      if self._free:
        page = self._free.pop()
      else:
        page, _ = self._unused.popitem(last=False)
        del self._page[self._digest.pop(page)]
      self._owners[page] = 1
      taken.append(page)
    return taken

  def remember(self, digests: Sequence[bytes], pages: Sequence[int]) -> None:
    """Full pages hold the tokens of the digests; a beginning that is known stays."""
    for digest, page in zip(digests, pages):
      if digest not in self._page and page not in self._digest:
        self._page[digest], self._digest[page] = page, digest

  def release(self, pages: Sequence[int]) -> None:
    """One owner less; the last page of a beginning is forgotten before the first."""
    for page in reversed(pages):
      self._owners[page] -= 1
      if self._owners[page]:
        continue
      del self._owners[page]
      if page in self._digest:
        self._unused[page] = None
      else:
        self._free.append(page)

  def forget(self) -> None:
    """No beginning is known any more: the weights have changed."""
    self.version += 1
    self._free += self._unused
    self._unused.clear()
    self._page.clear()
    self._digest.clear()
