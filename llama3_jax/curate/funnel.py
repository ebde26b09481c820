"""The totals of a curation run, from the statistics of its shards."""

import collections

BYTES_A_TOKEN = 4.0  # rough; the exact number is known after tokenisation


def total(store):
  """What funnel.json holds; the same after any number of interruptions.

  Returns:
    dict: steps, of which the first is the input: step, documents, bytes, tokens (an
    estimate), dropped {reason: {documents, bytes}}, languages; problems (lines);
    categories {name: {documents}}; hosts {host: {documents, kept}} of the largest;
    the last two of what is left.
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
  if more := sum(f['more_problems'] for f in first):
    problems.append(f'and {more} more')
  return {
    'steps': steps,
    'problems': problems,
    'categories': {
      name: {'documents': count} for name, count in _sum(last, 'categories').items()
    },
    'languages': _sum(last, 'languages'),
    'hosts': dict(collections.Counter(_sum(last, 'hosts')).most_common(200)),
  }


def seconds(store):
  """{stage: CPU seconds} of all its tasks; this differs from run to run."""
  result = {}
  for number, (name, _) in enumerate(store.stages):
    facts = [store.map_done(number, i) for i in range(len(store.shards))]
    facts += [store.emit_done(number, i) for i in range(len(store.shards))]
    facts.append(store.state_done(number))
    result[name] = sum(f['seconds'] for f in facts if f)
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
