"""URL rules: normal form, newest copy, blocked hosts."""

import itertools

import pytest

from llama3_jax.curate import documents
from llama3_jax.curate import urls


def table(*rows):
  return documents.table(
    [{'url': url, 'date': date, 'text': 'x'} for url, date in rows]
  )


def alive(found):
  return list(documents.alive(found))


@pytest.mark.parametrize('order', list(itertools.permutations(range(3))))
def test_the_newest_of_three_dated_copies_stays(order):
  dates = ['2021-01-01', '2023-05-01', '2022-09-09']
  found = urls.step_newest(table(*[('http://a.example/p', dates[i]) for i in order]))
  assert [order[row] for row in alive(found)] == [1]
  assert found['drop_reason'].to_pylist().count('url.older') == 2


def test_of_equal_dates_the_first_stays_and_no_date_is_oldest():
  found = urls.step_newest(table(*[('http://a.example/p', '2021')] * 2))
  assert alive(found) == [0]
  found = urls.step_newest(
    table(('http://a.example', ''), ('http://a.example', '2020'))
  )
  assert alive(found) == [1]


@pytest.mark.parametrize(
  'one, other, same',
  [
    ('http://A.example/x', 'https://a.example/x', True),
    ('https://a.example:443/x/', 'https://a.example/x', True),
    ('https://a.example/x#part', 'https://a.example/x', True),
    ('https://a.example/x?utm_source=feed', 'https://a.example/x', True),
    ('https://a.example/x?b=1&a=2', 'https://a.example/x?a=2&b=1', True),
    ('https://a.example/X', 'https://a.example/x', False),
    ('https://a.example/x?a=1', 'https://a.example/x?a=2', False),
    ('https://b.example/x', 'https://a.example/x', False),
    ('python:json/decoder.py', 'python:json/encoder.py', False),
    ('a.jsonl/1', 'a.jsonl/2', False),
    ('http://[broken', 'http://[other', False),
  ],
)
def test_urls_that_name_one_page(one, other, same):
  assert (urls.normalise(one) == urls.normalise(other)) is same


def test_blocked_hosts_take_their_subdomains_and_no_others():
  found = urls.step_block(
    table(
      ('https://bad.example/x', ''),
      ('https://www.BAD.example/x', ''),
      ('https://notbad.example/x', ''),
      ('https://good.example/bad.example', ''),
      ('http://[broken', ''),
    ),
    ('bad.example',),
  )
  assert alive(found) == [2, 3, 4]


def test_dropped_documents_take_no_part():
  rows = table(('http://a.example/p', '2023'), ('http://a.example/p', '2021'))
  rows = documents.drop(rows, {0: ('x.y', 1.0)})
  assert alive(urls.step_newest(rows)) == [1]
