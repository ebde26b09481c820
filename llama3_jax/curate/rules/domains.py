"""Web pages of code and of mathematics go to their own pipelines (3.1.1).

Extraction measures how much of a page is code or formulas. Such a page changes its
category, so that the rules, classifiers and mix of code or mathematics apply to it.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from llama3_jax.curate.machine import documents

KIND = 'extract.kind'


@dataclasses.dataclass(frozen=True)
class Config:
  # Kinds whose pages change their category; () leaves all as they are.
  kinds: tuple[str, ...] = ('code', 'math')


def step(
  batch: pa.RecordBatch, config: Config, state: Mapping[str, np.ndarray] | None = None
) -> pa.RecordBatch:
  """Gives a page the category of its kind."""
  if KIND not in batch.schema.names:
    return batch
  rows = documents.alive(batch)
  kinds = documents.take(batch, KIND, rows)
  categories = documents.take(batch, 'category', rows)
  moved = [
    (row, kind)
    for row, kind, category in zip(rows, kinds, categories)
    if kind in config.kinds and category in documents.WEB
  ]
  if not moved:
    return batch
  return documents.put(batch, 'category', *zip(*moved))
