"""Personal data: what counts, and which documents and hosts go."""

import time

import numpy as np
import pytest

from llama3_jax.curate.machine import documents
from llama3_jax.curate.rules import pii

CLEAN = 'A plain sentence about nothing in particular. ' * 10
DIRTY = ' '.join(f'Write to person{i}@mail.example today.' for i in range(10))


@pytest.mark.parametrize(
  'text, hits',
  [
    ('mail jane.doe+x@mail.example.org now', 1),
    ('not@host and @handle and a@b', 0),
    ('from 93.184.216.34 to 10.0.0.1, 127.0.0.1, 192.168.1.1', 1),
    ('version 1.2.3.4.5 and 999.1.1.1', 0),
    ('release 3.8.10.2 after 3.8.10.1', 0),
    ('call +49 30 1234567 or (030) 123-4567 or 555-123-4567', 3),
    ('on 2019-11-18 12:30, pages 123-145, in 1984-1985', 0),
    ('card 4111 1111 1111 1111', 1),
    ('card 4111 1111 1111 1112', 0),
    ('IBAN DE89 3704 0044 0532 0130 00 and GB82WEST12345698765432', 2),
    ('IBAN DE89 3704 0044 0532 0130 01', 0),
    ('0.123456789012345 and 123456789012', 0),
  ],
)
def test_what_counts(text, hits):
  assert pii.count(text) == hits


@pytest.mark.parametrize(
  'unit', ['a@', '1.', '1 ', '+1 ', 'AB12 ', '1-', 'a.', '(1) 1 ']
)
def test_counting_takes_linear_time(unit):
  start = time.process_time()
  pii.count(unit * 200_000)
  assert time.process_time() - start < 3


def test_masking_hides_addresses_and_nothing_else():
  text = 'a jane@mail.example.org b 93.184.216.34 c 10.0.0.1'
  assert pii.mask(text) == 'a email@example.com b 192.0.2.1 c 10.0.0.1'


def batches():
  rows = [dict(host='bad.example', text=DIRTY if i < 6 else CLEAN) for i in range(12)]
  rows += [dict(host='good.example', text=DIRTY if i < 1 else CLEAN) for i in range(12)]
  rows += [dict(host='', text=DIRTY) for _ in range(12)]
  rows = [{**row, 'category': 'general'} for row in rows]
  rows.append(dict(host='bad.example', text=DIRTY, category='code'))
  return [documents.batch(rows[i::2]) for i in range(2)]


def test_documents_above_the_limit_go_and_hosts_where_many_are():
  config = pii.Config()
  tables = [
    pii.emit([pii.measure(batch, config)], config)['keys'] for batch in batches()
  ]
  assert all(table.column_names[0] == 'key' for table in tables)
  import pyarrow as pa

  reduced = pii.reduce(pa.concat_tables(tables), config)
  state = pii.resolve([reduced], iter(()), config)
  assert len(state['hosts']) == 1 and state['documents'].sum() == 36
  assert (np.diff(state['host'].astype(object)) > 0).all()
  found = {}
  for batch in batches():
    batch = pii.step(pii.measure(batch, config), config, state)
    for row in batch.to_pylist():
      key = row['host'], row['category'], row['text'] == DIRTY
      found.setdefault(key, set()).add(row['drop_reason'])
  assert found == {
    ('bad.example', 'general', True): {'pii.rate'},
    ('bad.example', 'general', False): {'pii.host'},
    ('good.example', 'general', True): {'pii.rate'},
    ('good.example', 'general', False): {None},
    ('', 'general', True): {'pii.rate'},
    ('bad.example', 'code', True): {None},
  }


def test_measures_stand_in_columns_and_masking_is_a_choice():
  text = CLEAN + 'Write to a@b.example.'
  row = {'text': text, 'category': 'general', 'host': 'a.example'}
  found = pii.step(pii.measure(documents.batch([row])), pii.Config())
  assert found['pii.count'].to_pylist() == [1] and found['text'][0].as_py() == text
  found = pii.step(pii.measure(documents.batch([row])), pii.Config(mask=True))
  assert 'a@b.example' not in found['text'][0].as_py()


def test_shards_without_documents_give_an_empty_state():
  config = pii.Config()
  state = pii.resolve([pii.emit([], config)['keys']], iter(()), config)
  assert len(state['hosts']) == len(state['host']) == 0


def alone(**fields):
  """Reasons of a document with so many addresses among so many words."""
  hits, size = fields['hits'], fields['size']
  text = ' '.join([*('a@b.example',) * hits, *('word',) * (size - hits)])
  row = {'text': text, 'category': 'general', 'host': 'a.example'}
  found = pii.step(pii.measure(documents.batch([row])), pii.Config())
  return found['drop_reason'][0].as_py()


def test_a_rate_and_a_count_at_the_limit_and_one_beyond():
  config = pii.Config()
  assert (config.max_rate, config.min_count) == (10.0, 3)
  assert alone(hits=3, size=300) is None  # 10 a thousand words, which is allowed
  assert alone(hits=3, size=299) == 'pii.rate'
  assert alone(hits=2, size=10) is None  # too few to count
  assert alone(hits=3, size=10) == 'pii.rate'


@pytest.mark.parametrize(
  'number, flagged, goes', [(10, 3, True), (10, 2, False), (9, 3, False), (9, 9, False)]
)
def test_a_host_at_the_limits_goes_and_one_below_stays(number, flagged, goes):
  config = pii.Config()
  assert (config.host_share, config.host_documents) == (0.3, 10)
  rows = [
    dict(host='a.example', category='general', text=DIRTY if i < flagged else CLEAN)
    for i in range(number)
  ]
  batch = pii.measure(documents.batch(rows), config)
  reduced = pii.reduce(pii.emit([batch], config)['keys'], config)
  assert len(pii.resolve([reduced], iter(()), config)['hosts']) == goes


@pytest.mark.parametrize(
  'text, hits',
  [
    ('+1 234 56 78', 0),  # 8 digits
    ('+1 234 56 789', 1),
    ('+123 4567 8901 2345', 1),  # 15: the most that a number has (E.164)
    ('+123 4567 890 1234 56', 0),
  ],
)
def test_a_phone_number_has_9_to_15_digits(text, hits):
  assert pii.count(f'call {text} now') == hits
