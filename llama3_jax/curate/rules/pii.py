"""Personal data: counted per document and per host; too much of it drops both (3.1.1).

E-mail addresses, public IPv4 addresses, phone numbers, credit cards and IBANs (both
with valid check digits).
"""

import dataclasses
import ipaddress
import re
from collections.abc import Iterable
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from llama3_jax.curate.machine import documents

# Each pattern begins where a token begins and repeats possessively: linear time.
EMAIL = re.compile(
  r'(?<![\w.%+-])[\w.%+-]{1,64}+@[A-Za-z0-9-]{1,63}+(?:\.[A-Za-z0-9-]{1,63}+){1,8}+',
  re.ASCII,
)
IP = re.compile(r'(?<![\w.])(?:\d{1,3}+\.){3}\d{1,3}+(?![\w]|\.\d)', re.ASCII)
PHONE = re.compile(
  r'(?<![\w.+-])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){2,4}'
  r'|\(\d{2,5}\) ?\d{2,4}(?:[ .-]\d{2,4}){1,3}|\d{3}[ .-]\d{3}[ .-]\d{4})(?![\w-])',
  re.ASCII,
)
CARD = re.compile(r'(?<![\w.-])[3-6]\d{3}(?:[ -]?\d{2,6}){2,4}(?![\w-])', re.ASCII)
IBAN = re.compile(
  r'\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b', re.ASCII
)
DIGITS = re.compile(r'\d{2}', re.ASCII)
HOSTS = pa.schema(
  [
    ('key', pa.uint64()),
    ('documents', pa.int64()),
    ('flagged', pa.int64()),
    ('count', pa.int64()),
  ]
)


@dataclasses.dataclass(frozen=True)
class Config:
  """How much personal data is too much.

  Fields:
    max_rate: hits a thousand words; a document above it is dropped ...
    min_count: ... if it has so many hits.
    host_share: a host is dropped when this share of its documents is above max_rate ...
    host_documents: ... and it has so many documents.
    mask: replace e-mail and IP addresses in the documents that stay.
    categories: where personal data is searched; logs of code are full of addresses.
  """

  max_rate: float = 10.0
  min_count: int = 3
  host_share: float = 0.3
  host_documents: int = 10
  mask: bool = False
  categories: tuple[str, ...] = documents.WEB


def count(text: str) -> int:
  """Number of addresses and numbers of persons in a text."""
  hits = sum(1 for _ in EMAIL.finditer(text)) if '@' in text else 0
  if DIGITS.search(text) is None:
    return hits
  hits += sum(_public(m[0]) for m in IP.finditer(text)) if '.' in text else 0
  ibans = [m.span() for m in IBAN.finditer(text) if _iban(m[0])]
  cards = [m.span() for m in CARD.finditer(text) if _luhn(m[0])]
  taken = ibans + cards
  for phone in PHONE.finditer(text):
    digits = sum(map(str.isdigit, phone[0]))
    if 9 <= digits <= 15 and not any(a <= phone.start() < b for a, b in taken):
      hits += 1
  return hits + len(taken)


def mask(text: str) -> str:
  """The text with placeholders for e-mail and public IP addresses."""
  text = EMAIL.sub('email@example.com', text)
  return IP.sub(lambda m: '192.0.2.1' if _public(m[0]) else m[0], text)


def measure(
  batch: pa.RecordBatch,
  config: Config = Config(),
  state: Mapping[str, np.ndarray] | None = None,
) -> pa.RecordBatch:
  """Adds pii.count (hits) and pii.rate (a thousand words) to config.categories."""
  categories = batch['category'].to_pylist()
  rows = [row for row in documents.alive(batch) if categories[row] in config.categories]
  texts = [text or '' for text in documents.take(batch, 'text', rows)]
  counts = [count(text) for text in texts]
  rates = [1000 * n / (text.count(' ') + 1) for n, text in zip(counts, texts)]
  batch = documents.add(batch, 'pii.count', rows, counts, pa.int32())
  return documents.add(batch, 'pii.rate', rows, rates)


def emit(batches: Iterable[pa.RecordBatch], config: Config) -> dict[str, pa.Table]:
  """{'keys': hosts of a shard}: documents, those above the limits, hits."""
  parts = []
  for batch in batches:
    rows, counts, rates, keys = _measured(batch)
    parts.append(
      pa.table(
        [
          pa.array(keys, pa.uint64()),
          pa.array(np.ones(len(rows), np.int64)),
          pa.array(_flagged(counts, rates, config).astype(np.int64)),
          pa.array(counts),
        ],
        schema=HOSTS,
      )
    )
  rows = pa.concat_tables(parts) if parts else HOSTS.empty_table()
  return {'keys': reduce(rows, config)}


def reduce(rows: pa.Table, config: Config) -> pa.Table:
  """Sums of each host over all shards, by key."""
  names = HOSTS.names[1:]
  sums = rows.group_by('key').aggregate([(name, 'sum') for name in names])
  sums = sums.rename_columns({f'{name}_sum': name for name in names})
  return sums.select(HOSTS.names).cast(HOSTS).sort_by('key')


def resolve(
  reduced: Iterable[pa.Table], sides: Iterable[pa.Table], config: Config
) -> dict[str, np.ndarray]:
  """State: hashes of hosts, sorted uint64, and the sums of each host with hits.

  `hosts` are to be dropped; `host` are those with hits, with `documents`, `flagged` and
  `count`.
  """
  parts = [table.filter(pc.greater(table['count'], 0)) for table in reduced]
  hosts = pa.concat_tables(parts) if parts else HOSTS.empty_table()
  columns = [np.asarray(hosts[name]) for name in HOSTS.names]
  order = np.argsort(columns[0], kind='stable')
  key, total, flagged, hits = (column[order] for column in columns)
  no_host = np.uint64(xxhash.xxh3_64_intdigest(b''))
  bad = (total >= config.host_documents) & (flagged >= config.host_share * total)
  bad &= (flagged > 0) & (key != no_host)
  return dict(hosts=key[bad], host=key, documents=total, flagged=flagged, count=hits)


def step(
  batch: pa.RecordBatch,
  config: Config = Config(),
  state: Mapping[str, np.ndarray] | None = None,
) -> pa.RecordBatch:
  """Drops documents and hosts with too much, by the columns of measure()."""
  rows, counts, rates, keys = _measured(batch)
  hosts = state['hosts'] if state is not None else np.zeros(0, np.uint64)
  blocked = np.isin(keys, hosts)
  drops = {}
  for row, rate, bad, flag in zip(
    rows, rates, blocked, _flagged(counts, rates, config)
  ):
    if flag:
      drops[row] = ('pii.rate', float(rate))
    elif bad:
      drops[row] = ('pii.host', float(rate))
  if config.mask:
    hits = [row for row, n in zip(rows, counts) if n and row not in drops]
    texts = [mask(text) for text in documents.take(batch, 'text', hits)]
    batch = documents.put(batch, 'text', hits, texts)
  return documents.drop(batch, drops)


def _measured(batch):
  """(rows, hits int64, hits a thousand words, hashes of hosts), where measured."""
  if 'pii.count' not in batch.schema.names:
    rows = []
  else:
    known = np.asarray(batch['pii.count'].is_valid())
    rows = [row for row in documents.alive(batch) if known[row]]
  take = lambda name: documents.take(batch, name, rows) if rows else []
  keys = [xxhash.xxh3_64_intdigest((name or '').encode()) for name in take('host')]
  counts = np.array(take('pii.count'), np.int64)
  rates = np.array(take('pii.rate'), np.float64)
  return rows, counts, rates, np.array(keys, np.uint64)


def _flagged(counts, rates, config):
  return (counts >= config.min_count) & (rates > config.max_rate)


def _public(address):
  """Whether an address is public.

  Without a number of three digits (3% of all) it is rather the version of a program.
  """
  try:
    large = any(len(part) == 3 for part in address.split('.'))
    return large and ipaddress.ip_address(address).is_global
  except ValueError:
    return False


def _luhn(number):
  """Whether the check digit of a card number is right."""
  digits = [int(c) for c in number if c.isdigit()]
  if len(digits) not in (15, 16):
    return False
  double = [2 * d - 9 * (d > 4) for d in digits[-2::-2]]
  return (sum(digits[-1::-2]) + sum(double)) % 10 == 0


def _iban(number):
  """Whether the check digits of an account number are right (ISO 13616)."""
  number = number.replace(' ', '')
  if not 15 <= len(number) <= 34:
    return False
  return int(''.join(str(int(c, 36)) for c in number[4:] + number[:4])) % 97 == 1
