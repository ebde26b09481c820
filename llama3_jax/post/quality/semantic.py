"""Dialogs that mean the same as a better one (4.2.3, semantic de-duplication).

Dialogs are embedded, clustered, and kept in each cluster from the best on, as long as
none that is kept already is nearer than a limit. Any embedder will do: a function from
texts to vectors.
"""

from collections.abc import Callable
from collections.abc import Sequence

import numpy as np

from llama3_jax.config import ModelConfig
from llama3_jax.generate import embed
from llama3_jax.generate.engine import Engine
from llama3_jax.generate.group import Sizes
from llama3_jax.model import llama

# Token ids of texts -> float32 [N,D].
Embedder = Callable[[Sequence[Sequence[int]]], np.ndarray]
ROUNDS = 20  # of k-means, at most
SIZE = 200  # dialogs of a cluster, about: the cost grows with its square


def by_model(params: llama.Params, config: ModelConfig, length: int) -> Embedder:
  """The embedder of a model's own mean states, without what all texts share; of each
  text the first `length` tokens are read."""
  engine = Engine(params, config, Sizes((1,), (64,), length, pages=1))

  def embedded(texts):
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    found, i = np.zeros((len(texts), config.d_model), np.float32), 0
    while i < len(order):
      longest = len(texts[order[min(i + embed.ROWS, len(order)) - 1]][:length])
      part = order[i : i + embed.rows(embed.width(longest, length))]
      found[part] = embed.texts(engine, [texts[j][:length] for j in part])
      i += len(part)
    return found - found.mean(0)

  return embedded


def unit(vectors: np.ndarray) -> np.ndarray:
  """float32 [N,D] of length 1; vectors of zeros stay."""
  size = np.linalg.norm(vectors, axis=1, keepdims=True)
  return (vectors / np.maximum(size, 1e-9)).astype(np.float32)


def clusters(vectors: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
  """Number of the cluster of each vector [N,D] of length 1, int [N], by k-means over
  cosines."""
  rng = np.random.default_rng(seed)
  count = max(1, min(count, len(vectors)))
  centers = vectors[rng.choice(len(vectors), count, replace=False)]
  labels = np.full(len(vectors), -1)
  for _ in range(ROUNDS):
    new = np.argmax(vectors @ centers.T, axis=1)
    if (new == labels).all():
      break
    labels = new
    sums = np.zeros_like(centers)
    np.add.at(sums, labels, vectors)
    filled = np.bincount(labels, minlength=count) > 0
    centers = np.where(filled[:, None], unit(sums), centers)
  return labels


def nearest(
  vectors: np.ndarray, value: np.ndarray, limit: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
  """(index of the nearest better one that is kept, -1 for none; its cosine), [N] each.

  vectors [N,D]; value [N]: quality x difficulty, the best are kept first. A dialog is
  dropped where the cosine is at least `limit`.
  """
  vectors = unit(vectors)
  labels = clusters(vectors, -(-len(vectors) // SIZE), seed)
  near, cosine = np.full(len(vectors), -1), np.full(len(vectors), -1.0)
  for label in np.unique(labels):
    members = np.flatnonzero(labels == label)
    members = members[np.argsort(-value[members], kind='stable')]
    kept = []
    for i in members:
      if kept:
        found = vectors[kept] @ vectors[i]
        best = int(np.argmax(found))
        near[i], cosine[i] = kept[best], found[best]
      if cosine[i] < limit:
        kept.append(i)
  return near, cosine
