"""De-duplicates a generated corpus in little memory: python bench/dedup_5m.py.

Usage: python bench/dedup_5m.py [DOCUMENTS] [SHARDS] [KEY_MEMORY_MB]   (5000000 50 128)

Documents of 20 to 60 words are made again from their number whenever they are read;
hashes, signatures and files are those of a real run: emit, files of keys, reduce by
range of keys, resolve, step, one after the other in one process. Of 100 documents 5 are
exact copies, 5 copies with one word changed, 5 older copies of a URL, one has a line
seen 6 or 7 times and one a line seen very often. Printed: what was found of them, what
was dropped without being planted, documents a second, and the highest memory in use.
"""

import pathlib
import resource
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from llama3_jax.curate.duplicates import lines
from llama3_jax.curate.duplicates import minhash
from llama3_jax.curate.duplicates import newest
from llama3_jax.curate.machine import keys
from llama3_jax.curate.measures.words import mixed

BATCH = 2000
VOCABULARY, LETTERS = 100_000, 6
# Of 100 documents, by number: copies, what they are copies of, lines.
EXACT, EDITED, OLDER = range(0, 5), range(5, 10), range(10, 15)
SHIFT = 20  # a copy n of class c is made from class c + SHIFT of another hundred
RARE, HOT = 50, 51
HOT_LINES = 2


class Corpus:
  """Documents by number; `count` is a multiple of 1,000."""

  def __init__(self, count, shards):
    self.count, self.shards, self.bucket = count, shards, count // 2
    codes = np.arange(VOCABULARY)
    letters = [codes // 26**i % 26 + 97 for i in range(LETTERS)]
    self.words = np.stack(letters, axis=1).astype(np.uint8)

  def source(self, i):
    """Number of the document that document i copies, or i."""
    hundred, kind = i // 100, i % 100
    other = (hundred * 7919 + 13) % (self.count // 100)  # 7919: prime, so one to one
    return np.where(kind < 15, other * 100 + kind + SHIFT, i)

  def batches(self, shard, url=False):
    """Yields the batches of a shard."""
    numbers = np.array_split(np.arange(self.count), self.shards)[shard]
    for start in range(0, len(numbers), BATCH):
      yield self.batch(numbers[start : start + BATCH], url)

  def batch(self, i, url):
    kind = i % 100
    content = np.where(kind < 10, self.source(i), i).astype(np.uint64)
    length = _length(content)
    document = np.repeat(np.arange(len(i)), length)
    place = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
    word = mixed(content[document] * np.uint64(64) + place.astype(np.uint64))
    # one word of an edited copy is another
    edit = (mixed(i.astype(np.uint64)) % length.astype(np.uint64)).astype(np.int64)
    edited = np.isin(kind, EDITED)[document] & (place == edit[document])
    word = np.where(edited, mixed(word), word) % np.uint64(VOCABULARY)
    cells = np.full((len(word), LETTERS + 1), 32, np.uint8)
    cells[:, :LETTERS] = self.words[word.astype(np.int64)]
    cells[place % 10 == 9, LETTERS] = 10  # ten words a line
    texts = _split(cells.tobytes(), np.cumsum(length) * (LETTERS + 1))
    for k in np.flatnonzero((kind == RARE) | (kind == HOT)).tolist():
      texts[k] += f'\n{self.line(int(i[k]))}'.encode()
    day = mixed(i.astype(np.uint64)) % np.uint64(300)
    columns = {
      'id': i.astype(np.uint64),
      'ordinal': i.astype(np.uint64),
      'date': [f'2020-{100 + d}' for d in day.tolist()],
      'lang': ['en'] * len(i),
      'category': ['general'] * len(i),
      'text': pa.array(texts, pa.large_binary()).cast(pa.large_string()),
      'drop_reason': pa.nulls(len(i), pa.string()),
      'drop_value': pa.nulls(len(i), pa.float64()),
    }
    if url:
      page = np.where(np.isin(kind, OLDER), self.source(i), i)
      columns['url'] = [f'https://s{p % 977}.example/page/{p}' for p in page.tolist()]
    return pa.record_batch(columns)

  def line(self, i):
    """The planted line of a document: of 7 copies in the first half, of 6 after it."""
    number, half = i // 100, self.count // 200
    if i % 100 == HOT:
      return f'Subscribe to letter {_name(number % HOT_LINES)} today'
    if number < half:
      return f'Seven of {_name(number // 7)} here'
    return f'Six of {_name((number - half) // 6)} here'


def _length(numbers):
  """Words of documents; never is one left for a line, as words are not unique."""
  length = 20 + (mixed(numbers.astype(np.uint64)) % np.uint64(41)).astype(np.int64)
  return length + (length % 10 == 1)


def _split(data, ends):
  starts = [0, *ends[:-1].tolist()]
  return [data[a : b - 1] for a, b in zip(starts, ends.tolist())]


def _name(number):
  """Letters, as digits are all alike in the key of a line."""
  return ''.join(chr(97 + int(digit)) for digit in str(number))


def run(corpus, folder, key_memory, log=print):
  """dict of results of all three de-duplications."""
  steps = []
  for module, config in (
    (newest, newest.Config()),
    (minhash, minhash.Config()),
    (lines, lines.Config(bucket=corpus.bucket)),
  ):
    name = module.__name__.split('.')[-1]
    cpu = time.process_time()
    state, parts = _state(module, config, corpus, steps, folder / name, key_memory)
    steps.append((module, config, state))
    seconds = time.process_time() - cpu
    log(
      f'{name}: {corpus.count / seconds:,.0f} documents a CPU-second '
      f'(making them again included), {parts} partitions, '
      f'{sum(a.nbytes for a in state.values()) / 1e6:.1f} MB of state, '
      f'peak {peak_mb():.0f} MB'
    )
  return _check(corpus, steps)


def _state(module, config, corpus, before, folder, key_memory):
  folder.mkdir()
  paths, sides, row_bytes = [], [], 1
  for shard in range(corpus.shards):
    batches = _after(corpus.batches(shard, url=not before), before)
    found = module.emit(batches, config)
    paths.append(folder / f'{shard}.keys')
    keys.write(paths[-1], found['keys'])
    row_bytes = max(row_bytes, found['keys'].nbytes // max(len(found['keys']), 1))
    if 'side' in found:
      sides.append(folder / f'{shard}.side')
      with pa.OSFile(str(sides[-1]), 'wb') as f:
        with pa.ipc.new_file(f, found['side'].schema) as out:
          out.write_table(found['side'])
    del found
  parts = keys.partitions(keys.rows(paths), row_bytes, key_memory)
  reduced = (module.reduce(keys.read(paths, p, parts), config) for p in range(parts))
  state = module.resolve(reduced, map(_table, sides), config)
  for path in folder.iterdir():
    path.unlink()
  return state, parts


def _table(path):
  with pa.OSFile(str(path)) as f:
    return pa.ipc.open_file(f).read_all()


def _after(batches, steps):
  for batch in batches:
    for module, config, state in steps:
      batch = module.step(batch, config, state)
    yield batch


def _check(corpus, steps):
  """dict name -> (found, planted, expected by theory); and false drops."""
  count = corpus.count
  urls, copies = np.zeros(count, bool), np.zeros(count, bool)
  lost = kept_seven = kept_hot = gone_six = other = 0
  for shard in range(corpus.shards):
    for batch in _after(corpus.batches(shard, url=True), steps):
      i = np.asarray(batch['id']).astype(np.int64)
      reason = batch['drop_reason']
      urls[i] = np.asarray(pc.fill_null(pc.equal(reason, 'url.older'), False))
      same = pc.equal(reason, 'document.duplicate')
      copies[i] = np.asarray(pc.fill_null(same, False))
      other += len(i) - reason.null_count - int(urls[i].sum() + copies[i].sum())
      marked = np.flatnonzero((i % 100 == RARE) | (i % 100 == HOT))
      plain = np.flatnonzero(i % 100 > HOT)
      texts = batch['text'].take(pa.array(marked)).to_pylist()
      for k, text in zip(i[marked].tolist(), texts):
        there = corpus.line(k) in text
        if k % 100 == HOT:
          kept_hot += there
        elif k // 100 < count // 200:
          kept_seven += there
        else:
          gone_six += not there
      # A text without planted lines must be whole.
      size = pc.binary_length(batch['text'].take(pa.array(plain))).to_numpy()
      lost += int((size != _length(i[plain]) * (LETTERS + 1) - 1).sum())
  i = np.arange(count)
  result, source = {}, corpus.source(i)
  false = other
  for name, kinds, dropped in (
    ('exact copies', EXACT, copies),
    ('one-word edits', EDITED, copies),
    ('older copies of a URL', OLDER, urls),
  ):
    members = i[np.isin(i % 100, kinds)]
    pairs = dropped[members].astype(int) + dropped[source[members]]
    result[name] = (int((pairs == 1).sum()), len(members))
    false += int((pairs == 2).sum())
  planted = np.zeros(count, bool)
  planted[source[i % 100 < 15]] = True
  planted |= i % 100 < 15
  false += int(((urls | copies) & ~planted).sum())
  rare = count // 200
  # The last lines may be short of seven copies.
  result['lines seen 7 times'] = (rare // 7 * 7 - kept_seven + rare % 7, rare // 7 * 7)
  result['lines seen very often'] = (count // 100 - kept_hot, count // 100)
  result['lines seen 6 times, kept'] = (rare - gone_six, rare)
  result['texts changed wrongly'] = (lost, 0)
  result['documents dropped wrongly'] = (false, 0)
  result['edits on the S-curve'] = (
    round(_expected(corpus)),
    result['one-word edits'][1],
  )
  return result


def _expected(corpus):
  """Edited copies that share a band and pass the check, by theory."""
  config = minhash.Config()
  i = np.arange(corpus.count)
  i = i[np.isin(i % 100, EDITED)]
  length = _length(corpus.source(i))
  place = (mixed(i.astype(np.uint64)) % length.astype(np.uint64)).astype(int)
  grams = length - config.gram + 1
  touched = np.minimum(place, grams - 1) - np.maximum(place - config.gram + 1, 0) + 1
  similarity = (grams - touched) / (grams + touched)
  return float((1 - (1 - similarity**config.rows) ** config.bands).sum())


def peak_mb():
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main():
  count, shards, memory = ([int(x) for x in sys.argv[1:]] + [0, 0, 0])[:3]
  corpus = Corpus(count or 5_000_000, shards or 50)
  began, cpu = time.monotonic(), time.process_time()
  with tempfile.TemporaryDirectory() as folder:
    found = run(corpus, pathlib.Path(folder), (memory or 128) << 20)
  for name, (number, planted) in found.items():
    print(f'{name}: {number:,} of {planted:,}')
  cpu, wall = time.process_time() - cpu, time.monotonic() - began
  print(
    f'all: {corpus.count:,} documents, {corpus.count / cpu:,.0f} a CPU-second, '
    f'{wall:.0f} s, peak {peak_mb():.0f} MB'
  )


if __name__ == '__main__':
  main()
