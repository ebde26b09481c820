"""URL rules: normal form, host, block lists, words."""

import gzip
import io
import tarfile

import numpy as np
import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.curate.machine import documents
from llama3_jax.curate.rules import urls


def reasons(found, **config):
  batch = documents.batch([{'url': url, 'text': 'x'} for url in found])
  return urls.step(batch, urls.Config(**config))['drop_reason'].to_pylist()


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
    ('https://a.example/%7Eme/%41', 'https://a.example/~me/A', True),
    ('https://a.example/%c3%a9', 'https://a.example/%C3%A9', True),
    ('https://a.example/a%2Fb', 'https://a.example/a/b', False),
    ('https://a.example/x?a=%7E', 'https://a.example/x?a=~', True),
    ('https://a.example/x?UTM_Source=feed', 'https://a.example/x', True),
    ('https://a.example/#!/one', 'https://a.example/#!/two', False),
    ('https://a.example/#!/one', 'http://A.example#!/one', True),
  ],
)
def test_urls_that_name_one_page(one, other, same):
  assert (urls.normalise(one) == urls.normalise(other)) is same


def test_the_host_is_lower_case_without_port_and_never_an_error():
  assert urls.host('https://User@WWW.A.example:8080/x') == 'www.a.example'
  assert [urls.host(url) for url in ('http://[broken', '', None, 'a.jsonl/1')] == [
    ''
  ] * 4


HOSTS = [
  'https://bad.example/x',
  'https://www.BAD.example/x',
  'https://notbad.example/x',
  'https://good.example/bad.example',
  'http://[broken',
  None,
]
BLOCKED = ['urls.host', 'urls.host', None, None, None, None]


def test_blocked_hosts_take_their_subdomains_and_no_others():
  assert reasons(HOSTS, hosts=('bad.example',)) == BLOCKED


def test_lists_are_hashed_once_and_mapped(tmp_path):
  names = [f'host{i}.example' for i in range(2000)]
  text = '\n'.join(['# a comment', 'Bad.example', '', *names]).encode()
  packed = tmp_path / 'hosts.gz'
  packed.write_bytes(gzip.compress(text))
  cache = str(tmp_path / 'cache')
  assert reasons(HOSTS, host_lists=(str(packed),), cache=cache) == BLOCKED
  listed = urls.load_list(str(packed), cache)
  assert isinstance(listed, np.memmap) and listed.dtype == np.uint64
  assert len(listed) == 2001 and (np.diff(listed.astype(object)) > 0).all()
  (file,) = (tmp_path / 'cache').iterdir()
  assert file.stat().st_size < 8 * 2001 + 200
  assert reasons(
    ['http://a.host7.example'], host_lists=(str(packed),), cache=cache
  ) == ['urls.host']


def test_archives_of_lists_and_exact_urls(tmp_path):
  archive = tmp_path / 'lists.tar.gz'
  with tarfile.open(archive, 'w:gz') as f:
    for name, data in (
      ('l/adult/domains', b'bad.example\n'),
      ('l/adult/urls', b'mixed.example/bad/page\n'),
      ('l/README', b'good.example\n'),
    ):
      entry = tarfile.TarInfo(name)
      entry.size = len(data)
      f.addfile(entry, io.BytesIO(data))
  lists = dict(host_lists=(str(archive),), url_lists=(str(archive),))
  found = ['http://x.bad.example', 'https://Mixed.example/bad/page/#top']
  found += ['https://mixed.example/bad', 'https://good.example']
  assert reasons(found, **lists, cache=str(tmp_path / 'c')) == [
    'urls.host',
    'urls.url',
    None,
    None,
  ]


def test_one_hard_word_two_soft_words_or_a_part_of_the_url():
  config = dict(
    hard_words=('casino',), soft_words=('win', 'bonus'), substrings=('xx9',)
  )
  found = [
    'http://a.example/Casino-x',
    'http://a.example/win',
    'http://win.example/bonus',
  ]
  found += [
    'http://a.example/win/win',
    'http://a.example/casinos',
    'http://axx9b.example',
  ]
  assert reasons(found, **config) == [
    'urls.hard_word',
    None,
    'urls.soft_words',
    None,
    None,
    'urls.substring',
  ]


def test_a_missing_list_is_the_users_mistake(tmp_path):
  with pytest.raises(UserError, match='no such block list'):
    reasons(['http://a.example'], host_lists=(str(tmp_path / 'none'),))


def test_dropped_documents_take_no_part():
  row = {'url': 'http://bad.example', 'drop_reason': 'x.y'}
  found = urls.step(documents.batch([row]), urls.Config(hosts=('bad.example',)))
  assert found['drop_reason'].to_pylist() == ['x.y']
