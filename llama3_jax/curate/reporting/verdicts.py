"""Precision of the reasons to drop, where the user has said what a document is."""

import collections

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.curate.machine import store as stores

VERDICTS = ('good', 'junk')
ABSENT = 'not in the inputs'


def load(path: str) -> dict[str, str]:
  """{url: verdict} of a JSONL file of {'url', 'verdict'}; {} without a path.

  Raises:
    UserError: a row without them, another verdict than VERDICTS, or two of one url.
  """
  result = {}
  for where, row in jsonl.read(path, 'verdicts') if path else ():
    if not isinstance(row.get('url'), str) or row.get('verdict') not in VERDICTS:
      raise UserError(f"{where}: give 'url' and a 'verdict', {' or '.join(VERDICTS)}")
    if result.setdefault(row['url'], row['verdict']) != row['verdict']:
      raise UserError(f'{where}: {row["url"]} has the other verdict before')
  return result


def count(store: stores.Store, known: dict[str, str]) -> dict[str, dict[str, int]]:
  """{reason: {verdict: documents}} of a finished run; '' is what is left, ABSENT what
  has a verdict and is in no input."""
  seen = set()
  result = collections.defaultdict(collections.Counter)
  for shard in range(len(store.shards)) if known else ():
    for batch in stores.batches(
      store, len(store.stages), shard, ('url', 'drop_reason')
    ):
      pairs = zip(batch['url'].to_pylist(), batch['drop_reason'].to_pylist())
      for url, reason in pairs:
        if url in known:
          result[reason or ''][known[url]] += 1
          seen.add(url)
  if absent := [verdict for url, verdict in known.items() if url not in seen]:
    result[ABSENT].update(absent)
  return {reason: dict(verdicts) for reason, verdicts in result.items()}
