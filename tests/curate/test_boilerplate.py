"""Lines that most pages of a host share are its boilerplate, in code too."""

import dataclasses

import global_steps
import pyarrow as pa

from llama3_jax.curate.duplicates import boilerplate
from llama3_jax.curate.machine import documents

SLOGAN = 'Small. Fast. Reliable. Choose any three.'
CONFIG = boilerplate.Config()


def batch(count, host='a.example', category='code', kind='code', first=0):
  def code(i):
    names = [f'{chr(97 + i)}{chr(97 + k)}' for k in range(8)]
    return '\n'.join(f'call {n} of the page\nuse {n} again' for n in names[:2]) + (
      '\nelse do it' * 6 + ''.join(f'\nclose {n} of the page' for n in names[:4])
    )

  rows = [
    {'text': f'{SLOGAN}\nTopic {i} of it\n{code(i)}\nend of page {chr(97 + i)}',
     'host': host, 'category': category}
    for i in range(count)
  ]  # fmt: skip
  found = global_steps.batch(rows, first)
  return found.append_column('extract.kind', pa.array([kind] * count, pa.string()))


def kept(found):
  texts = documents.take(found, 'text', documents.alive(found))
  lines = sum(text.count('else do it') for text in texts)
  return sum(SLOGAN in text for text in texts), lines


def test_a_line_at_the_edge_of_most_pages_of_a_host_goes_and_code_stays():
  assert kept(global_steps.run(boilerplate, batch(12), CONFIG)) == (0, 72)


def test_few_pages_say_nothing():
  assert kept(global_steps.run(boilerplate, batch(9), CONFIG))[0] == 9


def test_hosts_count_apart_and_shards_together():
  shards = [[batch(6)], [batch(6, first=6)], [batch(6, 'b.example', first=12)]]
  state = global_steps.state(boilerplate, shards, CONFIG)
  left = [kept(boilerplate.step(b, CONFIG, state))[0] for (b,) in shards]
  assert left == [0, 0, 6]


def test_a_line_on_less_than_the_share_of_the_pages_stays():
  config = dataclasses.replace(CONFIG, host_share=0.9)
  other = batch(6).set_column(
    batch(6).schema.get_field_index('text'),
    'text',
    pa.array(
      [f'another page {chr(97 + i)} of it' for i in range(6)], pa.large_string()
    ),
  )
  found = pa.concat_batches([batch(12), other])
  assert kept(global_steps.run(boilerplate, found, config))[0] == 12


def test_other_categories_and_files_that_were_not_crawled_are_left_alone():
  for fields in ({'category': 'general'}, {'kind': None}, {'host': None}):
    assert kept(global_steps.run(boilerplate, batch(12, **fields), CONFIG))[0] == 12
