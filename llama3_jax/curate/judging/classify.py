"""Model-based filters: a sample is judged, a classifier learns it (3.1.1).

The paper asks Llama 2 whether documents meet written requirements and trains a small
model on the answers. Here the judge is a rule (judge.RULES), or a file of labels, which
`experiments/judge.py` makes with a chat model. Code pages and reasoning pages have
classifiers of their own, with their own judges.
"""

import dataclasses
import functools
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import xxhash
from absl import logging

from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.curate.judging import classifier
from llama3_jax.curate.judging import judge
from llama3_jax.curate.machine import documents
from llama3_jax.curate.measures import words

NEVER = np.float32(-1e9)  # log-odds of a class without labels
HELD_OUT = 5  # every fifth labelled document measures the classifier


@dataclasses.dataclass(frozen=True)
class Config:
  """One classifier; its columns are <name>.<class> for every class but the first."""

  name: str = 'quality'
  categories: tuple[str, ...] = documents.WEB  # that it judges
  judge: str = ''  # '' = off; a name of judge.RULES; or file:PATH
  sample: int = 20_000  # documents a judge sees, at most
  min_labels: int = 20  # of a class; with fewer it is left out, never predicted
  model: classifier.Config = classifier.Config()


def classes(config: Config) -> Sequence[str]:
  """Names of the classes; the first is that of all other documents."""
  if config.judge.startswith('file:'):
    return _labels(config.judge[5:])[1]
  return judge.CLASSES[config.judge]


def emit(batches: Iterable[pa.RecordBatch], config: Config) -> dict[str, pa.Table]:
  """Labelled documents of a shard.

  Returns:
    {'side': (hash of the text uint64, label int32, ids of the features: list of int32)}
    of at most config.sample documents; {} without a judge.
  """
  if not config.judge:
    return {}
  known = _labels(config.judge[5:])[0] if config.judge.startswith('file:') else None
  hashes, labels, lists = [], [], []
  for batch in batches:
    rows, texts = _candidates(batch, config)
    keys = [text_hash(text) for text in texts]
    if known is None:
      numbers = judge.RULES[config.judge](batch.take(pa.array(rows, pa.int64())))
    else:
      numbers = np.array([known.get(key, -1) for key in keys], np.int64)
    picked = np.flatnonzero(numbers >= 0)
    analysed = words.analyse(batch)
    ids, offsets = classifier.features(analysed, rows[picked], config.model)
    hashes += [keys[i] for i in picked]
    labels += numbers[picked].tolist()
    lists += [ids[a:b] for a, b in zip(offsets[:-1], offsets[1:])]
  order = np.argsort(np.array(hashes, np.uint64), kind='stable')[: config.sample]
  side = pa.table(
    {
      'hash': pa.array([hashes[i] for i in order], pa.uint64()),
      'label': pa.array([labels[i] for i in order], pa.int32()),
      'ids': pa.array([lists[i] for i in order], pa.list_(pa.int32())),
    }
  )
  return {'side': side}


def resolve(
  reduced: Iterable[pa.Table], sides: Iterable[pa.Table], config: Config
) -> dict[str, np.ndarray]:
  """Trains on the labelled documents; the state holds parameters and `report`.

  report: float64 [labelled, held out, accuracy, AUC of the last class].
  """
  from llama3_jax.curate.judging import train_classifier  # JAX only where it trains

  del reduced
  table = pa.concat_tables(sides) if config.judge else None
  if table is None or not table.num_rows:
    return {}
  order = np.argsort(np.asarray(table['hash']), kind='stable')[: config.sample]
  table = table.take(pa.array(order)).combine_chunks()
  labels = np.asarray(table['label'])
  names = classes(config)
  counts = np.bincount(labels, minlength=len(names))
  enough = counts >= config.min_labels
  if not enough.all():
    counted = ', '.join(f'{c} {name}' for name, c in zip(names, counts))
    effect = 'rare classes are left out' if enough.sum() > 1 else 'no classifier'
    logging.warning('%s: %s: labels %s', config.name, effect, counted)
  if enough.sum() < 2:
    return {}
  table = table.filter(pa.array(enough[labels])).combine_chunks()
  labels = labels[enough[labels]]
  lists = table['ids'].to_pylist()
  rows = classifier.padded(*_ragged(lists), config.model)
  held = np.arange(len(rows)) % HELD_OUT == 0
  params = train_classifier.fit(rows[~held], labels[~held], len(names), config.model)
  params = {**params, 'bias': np.where(enough, params['bias'], NEVER)}
  scores = _score(params, *_ragged(lists[::HELD_OUT]), config.model)
  accuracy = float((scores.argmax(1) == labels[held]).mean())
  area = classifier.auc(scores[:, -1], labels[held] == len(names) - 1)
  logging.info(
    '%s: %d labels, held-out accuracy %.3f, AUC %.3f',
    config.name,
    len(labels),
    accuracy,
    area,
  )
  params = {name.replace('/', '.'): value for name, value in params.items()}
  return {**params, 'report': np.array([len(labels), held.sum(), accuracy, area])}


def step(
  batch: pa.RecordBatch, config: Config, state: Mapping[str, np.ndarray] | None = None
) -> pa.RecordBatch:
  """Adds the probability of every class but the first; without a state, nulls."""
  if not config.judge:
    return batch
  rows, _ = _candidates(batch, config)
  names = classes(config)[1:]
  scores = np.zeros((0, len(names) + 1))
  if state:
    params = {n.replace('.', '/'): v for n, v in state.items() if n != 'report'}
    analysed = words.analyse(batch)
    ids, offsets = classifier.features(analysed, rows, config.model)
    scores = _score(params, ids, offsets, config.model)
  else:
    rows = rows[:0]
  for i, name in enumerate(names, 1):
    batch = documents.add(batch, f'{config.name}.{name}', rows, scores[:, i].tolist())
  return batch


def text_hash(text: str) -> int:
  """int, the 64-bit xxh3 of a text: identifies a document in a file of labels."""
  return xxhash.xxh3_64_intdigest(text.encode('utf-8', 'replace'))


def _ragged(lists):
  """(ids int32 [total], offsets int64 [n + 1]) of lists of ids."""
  offsets = np.concatenate([[0], np.cumsum([len(x) for x in lists])])
  return np.concatenate([np.array(x, np.int32) for x in lists]), offsets


def _score(params, ids, offsets, model):
  """np.float32 [n, classes]: probabilities; ragged features as features() gives."""
  if model.kind == 'linear':
    return classifier.score(params, ids, offsets)
  from llama3_jax.curate.judging import train_classifier  # JAX, for the encoder only

  return train_classifier.score(params, classifier.padded(ids, offsets, model), model)


def _candidates(batch, config):
  """(positions, texts) of the documents that the classifier is for."""
  rows = documents.alive(batch)
  categories = documents.take(batch, 'category', rows)
  keep = [c in config.categories for c in categories]
  rows = rows[np.array(keep, bool)] if len(rows) else rows
  return rows, documents.take(batch, 'text', rows)


@functools.lru_cache(maxsize=4)
def _labels(path):
  """({text hash: class number}, class names) of a JSONL file of labels."""
  labels, names = {}, []
  for where, row in jsonl.read(path, 'judge=file'):
    label, digest = (jsonl.text(row, name, where) for name in ('label', 'text_hash'))
    try:
      labels[int(digest, 16)] = label
    except ValueError:
      raise UserError(
        f"{where}: field 'text_hash' is no number of base 16: make the file with "
        'experiments/judge'
      ) from None
    if label not in names:
      names.append(label)
  if len(names) < 2:
    raise UserError(f'judge=file:{path}: labels of {len(names)} classes; 2 are needed')
  # 'no' or 'reject' come first: the columns are those of the other classes.
  names.sort(key=lambda name: (name not in ('no', 'reject', 'other'), name))
  return {key: names.index(label) for key, label in labels.items()}, names
