"""The totals of a curation run, from the statistics of its shards."""

import collections

import numpy as np
import xxhash

from llama3_jax.curate.machine import store as stores

MAX_PROBLEMS = 1000  # lines of problems that are kept
BYTES_A_TOKEN = 4.0  # rough; the exact number is known after tokenisation


def total(store: stores.Store) -> dict[str, object]:
  """Content of funnel.json, which does not depend on interruptions of the run.

  Returns:
    dict: steps, of which the first is the input: step, documents, bytes, tokens (an
    estimate), dropped {reason: {documents, bytes}}, languages; problems (lines); and
    of the documents that are left, categories {name: {documents}}, languages and the
    largest hosts {name: documents}.
  """
  shards = range(len(store.shards))
  first = [store.map_done(0, i) for i in shards]
  rows = {k: sum(f['read'][k] for f in first) for k in ('documents', 'bytes')}
  steps = [_entry('input', rows, {}, {})]
  for number, (name, _) in enumerate(store.stages):
    facts = [store.map_done(number, i) for i in shards]
    steps.append(_stage(name, facts))
  last = [store.map_done(len(store.stages) - 1, i) for i in shards]
  problems = [line for f in first for line in f['problems']]
  more = sum(f['more_problems'] for f in first) + max(len(problems) - MAX_PROBLEMS, 0)
  problems = problems[:MAX_PROBLEMS] + ([f'and {more:,} more'] if more else [])
  return {
    'steps': steps,
    'problems': problems,
    'categories': {
      name: {'documents': count} for name, count in _sum(last, 'categories').items()
    },
    'languages': _sum(last, 'languages'),
    'hosts': dict(collections.Counter(_sum(last, 'hosts')).most_common(200)),
  }


def seconds(store: stores.Store) -> dict[str, float]:
  """{stage: CPU seconds} of all its tasks; they differ from run to run."""
  result = {}
  for number, (name, _) in enumerate(store.stages):
    facts = [store.map_done(number, i) for i in range(len(store.shards))]
    facts += [store.emit_done(number, i) for i in range(len(store.shards))]
    facts.append(store.state_done(number))
    result[name] = sum(f['seconds'] for f in facts if f)
  return result


def personal(
  store: stores.Store, most: int = 25
) -> list[tuple[str, int, int, int, bool]]:
  """Hosts with the most personal data: [(host, documents, too much, hits, dropped)].

  Documents with `too much` are above the limits of the stage pii; `dropped` is whether
  the whole host is dropped. Hosts that no shard named are given by their hash.
  """
  names = [name for name, _ in store.stages]
  state = stores.state(store, names.index('pii')) if 'pii' in names else None
  if state is None or not len(state['host']):
    return []
  first = (store.map_done(0, i)['hosts'] for i in range(len(store.shards)))
  known = {xxhash.xxh3_64_intdigest(h.encode()): h for hosts in first for h in hosts}
  known[xxhash.xxh3_64_intdigest(b'')] = 'without a host'
  gone = set(state['hosts'].tolist())
  order = np.lexsort((state['host'], -state['count']))[:most]
  return [
    (known.get(key, f'#{key:016x}'), *sums, key in gone)
    for key, *sums in zip(
      *(state[n][order].tolist() for n in ('host', 'documents', 'flagged', 'count'))
    )
  ]


def models(
  store: stores.Store,
) -> list[tuple[str, float, float, float | None, float | None]]:
  """[(classifier, labels, held out, accuracy, AUC)]; 0 labels where none is trained."""
  result = []
  for number, (name, _) in enumerate(store.stages):
    if name.endswith('_model'):
      state = stores.state(store, number) or {}
      facts = state['report'].tolist() if 'report' in state else [0, 0, None, None]
      result.append((name.removesuffix('_model'), *facts))
  return result


def _stage(name, facts):
  left = {k: sum(f[k] for f in facts) for k in ('documents', 'bytes')}
  dropped = {}
  for f in facts:
    for reason, count in f['dropped'].items():
      entry = dropped.setdefault(reason, {'documents': 0, 'bytes': 0})
      for k in entry:
        entry[k] += count[k]
  return _entry(name, left, dict(sorted(dropped.items())), _sum(facts, 'languages'))


def _entry(name, left, dropped, languages):
  return {
    'step': name,
    **left,
    'tokens': round(left['bytes'] / BYTES_A_TOKEN),
    'dropped': dropped,
    'languages': languages,
  }


def _sum(facts, field):
  """{name: documents} over all shards, sorted by name."""
  counts = collections.Counter()
  for f in facts:
    counts.update(f[field])
  return dict(sorted(counts.items()))
