"""Answers of an evaluation in a file, as they come: an end in the middle loses none."""

import contextlib
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Sequence

from absl import logging

from llama3_jax.base import processes

FILE = 'answered.jsonl'  # of a run that goes on; a finished one has none
EVERY_S = 20.0  # seconds between two lines about the progress


def key(*parts: object) -> str:
  """The name of a question: a hash of all that its answer depends on."""
  whole = json.dumps(parts, separators=(',', ':'))
  return hashlib.blake2b(whole.encode(), digest_size=16).hexdigest()


class Kept:
  """{key of a question: [text of its answer, its log-probability]}, and the progress;
  of several answers to a question the text is a list.

  path: the file; None: the answers are kept in memory. All processes read it, the first
  one writes.
  """

  def __init__(self, path: str | os.PathLike | None = None):
    self.path = path and pathlib.Path(path)
    self.answers, self._file = {}, None
    self._total = self._done = 0.0
    self._asked = self._counted = 0
    if self.path and self.path.exists():
      self._read()
    processes.meet('answers')
    if self.path and processes.first():
      self._file = open(self.path, 'a', encoding='utf-8')

  def _read(self):
    """Reads the file; a line that was not written to its end is cut off."""
    whole = self.path.read_bytes()
    end = whole.rfind(b'\n') + 1
    for line in whole[:end].split(b'\n')[:-1]:
      # A damaged line is a question that is asked again.
      with contextlib.suppress(ValueError, TypeError):
        name, text, logp = json.loads(line)
        text = list(map(str, text)) if isinstance(text, list) else str(text)
        self.answers[str(name)] = [text, float(logp)]
    logging.info('%s: %d answers are there', self.path, len(self.answers))
    if end < len(whole) and processes.first():
      with open(self.path, 'r+b') as file:
        file.truncate(end)

  def expect(self, costs: Sequence[float]) -> None:
    """Says that so many more questions are asked; their costs are relative."""
    self._total += sum(costs)
    self._asked += len(costs)
    self._began = self._said = time.monotonic()

  def add(self, name: str, text: str | list[str], logp: float, cost: float) -> None:
    """Keeps an answer."""
    self.answers[name] = [text, logp]
    if self._file:
      self._file.write(json.dumps([name, text, logp]) + '\n')
      self._file.flush()
    self._done += cost
    self._counted += 1
    now = time.monotonic()
    if now - self._said >= EVERY_S:
      self._said = now
      left = (now - self._began) * (self._total / self._done - 1) / 60
      counts = self._counted, self._asked
      logging.info('%d of %d questions; about %.0f min left', *counts, max(left, 1))

  def close(self) -> None:
    """Removes the file, once what it holds is written elsewhere."""
    if self._file:
      self._file.close()
      self.path.unlink(missing_ok=True)
