"""Completions of many prompts: buckets, batches, shared prefills (4.2.2)."""

import dataclasses
import functools
import numbers
import zlib
from collections.abc import Iterator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from llama3_jax import axes
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.generate import sample
from llama3_jax.generate.sample import LLAMA
from llama3_jax.generate.sample import Decoder
from llama3_jax.generate.sample import Settings
from llama3_jax.model import llama

SHORTEST = 32  # tokens of the smallest bucket of prompts


@dataclasses.dataclass(frozen=True)
class Completion:
  """Generated ids without the stop token, their log-probabilities (that of the stop
  token last, where there is one), whether the model stopped by itself, and the stop
  token."""

  ids: tuple[int, ...]
  logps: tuple[float, ...]
  stopped: bool
  stop: int | None = None

  @property
  def sampled(self) -> tuple[int, ...]:
    """All sampled ids: `ids` and, where there is one, the stop token."""
    return self.ids if self.stop is None else (*self.ids, self.stop)


def bucket(length: int) -> int:
  """Padded length of a prompt: the next power of two, so that few shapes compile."""
  return max(SHORTEST, 1 << (length - 1).bit_length())


@functools.partial(jax.jit, static_argnames='samples')
def _keys(seed, hashes, samples):
  key = jax.random.key(seed)

  def one(value):
    own = jax.random.fold_in(key, value)
    return jax.vmap(jax.random.fold_in, (None, 0))(own, jnp.arange(samples))

  return jax.vmap(one)(hashes).reshape(-1)


def request_keys(
  seed: int, prompts: Sequence[Sequence[int]], samples: int
) -> jax.Array:
  """Random keys [prompts*samples], from the seed and the prompt alone: the samples of a
  prompt depend neither on other prompts nor on the order of the list.

  Raises UserError for a seed that is not a whole number of 32 bits.
  """
  if not isinstance(seed, numbers.Integral) or not 0 <= seed < 2**32:
    raise UserError(f'seed={seed}: it must be a whole number from 0 to {2**32 - 1}')
  hashes = [zlib.crc32(np.asarray(prompt, np.int32).tobytes()) for prompt in prompts]
  return _keys(np.uint32(seed), np.asarray(hashes, np.uint32), samples)


def generate(
  params: llama.Params,
  prompts: Sequence[Sequence[int]],
  config: ModelConfig,
  stop_ids: Sequence[int],
  settings: Settings = Settings(),
  seed: int = 0,
  samples: int = 1,
  batch_size: int = 16,
  decoder: Decoder = LLAMA,
  contexts: Sequence[object] | None = None,
) -> list[list[Completion]]:
  """`samples` completions of each prompt (token ids), in the order of `prompts`.

  batch_size: prompts decoded together; each takes `samples` rows of the cache. Equal
  prompts get equal samples. Raises UserError for an empty prompt.
  decoder: forward and logits of a model other than the text decoder.
  contexts: inputs of `decoder.forward` besides tokens, a tree of arrays for each
  prompt, all of the same shapes.
  """
  for i, prompt in enumerate(prompts):
    if not len(prompt):
      raise UserError(f'prompt {i} is empty: it needs at least begin_of_text')
  params = cast(params, config)
  groups: dict[int, list[int]] = {}
  for i, prompt in enumerate(prompts):
    groups.setdefault(bucket(len(prompt)), []).append(i)
  outputs: list[list[Completion]] = [[] for _ in prompts]
  for size, members in sorted(groups.items()):
    for start in range(0, len(members), batch_size):
      picked = members[start : start + batch_size]
      batch = _Batch.make([prompts[i] for i in picked], batch_size, size, seed, samples)
      context = _stack(contexts and [contexts[i] for i in picked], batch_size)
      results = _run(
        *(params, batch, config, tuple(stop_ids), settings, samples, decoder, context)
      )
      for i, completions in zip(picked, results):
        outputs[i] = completions
  return outputs


def _stack(contexts, rows):
  """Trees of arrays as one tree of arrays [rows,...]; padding repeats the first."""
  if contexts is None:
    return None
  padded = [*contexts, *contexts[:1] * (rows - len(contexts))]
  return jax.tree.map(lambda *x: np.stack(x), *padded)


def _place(context, samples):
  """A context on the mesh, each row repeated for its samples."""

  def one(x):
    x = jnp.repeat(jnp.asarray(x), samples, 0) if samples > 1 else jnp.asarray(x)
    return axes.shard(x, 'B' + '_' * (x.ndim - 1))

  return jax.tree.map(one, context)


def cast(params: llama.Params, config: ModelConfig) -> llama.Params:
  """Parameters in the compute dtype, cast once instead of at every token."""
  dtype = jnp.dtype(config.dtype)
  if all(x.dtype == dtype for x in jax.tree.leaves(params)):
    return params
  return jax.jit(lambda tree: jax.tree.map(lambda x: x.astype(dtype), tree))(params)


@dataclasses.dataclass(frozen=True)
class _Batch:
  tokens: np.ndarray  # int32 [B,T]
  length: np.ndarray  # int32 [B]
  keys: jax.Array  # [B*samples]
  active: np.ndarray  # bool [B*samples]

  @classmethod
  def make(cls, prompts, rows, size, seed, samples):
    """Always `rows` rows: one shape a bucket, whatever the number of prompts."""
    tokens = np.zeros((rows, size), np.int32)
    length = np.ones(rows, np.int32)
    for row, prompt in enumerate(prompts):
      tokens[row, : len(prompt)] = prompt
      length[row] = len(prompt)
    padded = [*prompts, *[[0]] * (rows - len(prompts))]
    keys = request_keys(seed, padded, samples)
    active = np.arange(rows * samples) < len(prompts) * samples
    return cls(tokens, length, keys, active)


def _run(params, batch, config, stop_ids, settings, samples, decoder, context):
  """Completions of one batch, by prompt; rows of padding are last and are cut off."""
  size = batch.tokens.shape[1] + settings.max_new
  read = batch.tokens, batch.length, config, size, samples
  logits, cache = sample.prefill(params, *read, decoder, _place(context, 1))
  how = batch.keys, batch.active, config, settings, stop_ids, decoder
  decoded = sample.decode(params, cache, logits, *how, _place(context, samples))
  tokens, logps, lengths = axes.fetch(decoded[:3])
  rows = []
  for ids, logp, n in zip(tokens, logps, lengths):
    stopped = bool(n) and int(ids[n - 1]) in stop_ids
    kept = tuple(map(int, ids[: n - 1] if stopped else ids[:n]))
    stop = int(ids[n - 1]) if stopped else None
    rows.append(Completion(kept, tuple(map(float, logp[:n])), stopped, stop))
  count = int(np.sum(batch.active)) // samples
  return [rows[i * samples : (i + 1) * samples] for i in range(count)]


def stream(
  params: llama.Params,
  prompt: Sequence[int],
  config: ModelConfig,
  stop_ids: Sequence[int],
  settings: Settings = Settings(),
  seed: int = 0,
) -> Iterator[int]:
  """Yields the tokens of one completion as they are sampled, the stop token last.

  They are the tokens that `generate` returns for this prompt and seed, up to rounding.
  """
  batch = _Batch.make([prompt], 1, bucket(len(prompt)), seed, 1)
  size = batch.tokens.shape[1] + settings.max_new
  logits, cache = sample.prefill(params, batch.tokens, batch.length, config, size)
  for step in range(settings.max_new):
    token, logits, cache = sample.one(
      params, cache, logits, batch.keys, jnp.int32(step), config, settings
    )
    yield int(token[0])
    if int(token[0]) in stop_ids:
      return
