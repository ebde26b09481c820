"""The tools themselves: programs, mathematics, search, files."""

import json
import math

import attacks
import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.text.tool_calls import Call
from llama3_jax.tools import agent
from llama3_jax.tools import registry
from llama3_jax.tools.sandbox import packages


@pytest.fixture(scope='module')
def way():
  return attacks.way()


def said(tools, called, /, **given):
  return agent.execute(tools, Call(called, given)).text


@pytest.mark.parametrize(
  'code,shown',
  [
    ('6 * 7', '42'),
    ('print(1)\nx = 2\nx + 1', '1\n3'),
    ('x = 1', 'done; nothing was printed'),
    ('None', 'done; nothing was printed'),
    ('import dataclasses as d\n@d.dataclass\nclass A:\n  x: int\nA(1)', 'A(x=1)'),
    ('print("a")\n1 / 0', 'ZeroDivisionError: division by zero'),
    ('1 / 0', 'line 1, in <module>'),
    ('def f(:', 'SyntaxError'),
    ('open("/etc/passwd")', 'Error'),
    ('import os; os.fork()', 'Error'),
    ('raise SystemExit("bye")', 'bye'),
    ('x = bytearray(1 << 40)', 'MemoryError'),
    ('__name__', "'__main__'"),
  ],
)
def test_program_shows_what_it_prints_and_its_last_value(way, code, shown):
  text = said(registry.load(['python']), 'code_interpreter', code=code)
  assert shown in text and 'llama3_jax' not in text and '/lib/python' not in text
  assert text.count('File "') <= 1


def test_programs_start_afresh(way):
  tools = registry.load(['python'])
  said(tools, 'python', code='x = 1')
  assert 'NameError' in said(tools, 'python', code='x')


def test_programs_read_the_files_of_a_folder(way, tmp_path):
  (tmp_path / 'in').mkdir()
  (tmp_path / 'in/a.csv').write_text('1,2\n')
  (tmp_path / 'link').symlink_to('/etc/passwd')
  tools = registry.load([f'python={tmp_path}'])
  assert 'in/a.csv' in tools[0].description and 'link' not in tools[0].description
  assert said(tools, 'python', code='open("in/a.csv").read()') == "'1,2\\n'"
  (tmp_path / 'large').write_bytes(bytes(20 << 20))
  with pytest.raises(UserError, match='name a smaller folder'):
    registry.load([f'python={tmp_path}'])


@pytest.fixture(scope='module')
def mathematics(way):
  pytest.importorskip('sympy', reason="pip install -e '.[tools]'")
  return registry.load(['math'])


@pytest.mark.parametrize(
  'query,answer',
  [
    ('12 * 7 + 3', '87'),
    ('What is 15% of 240?', '36'),
    ('1,234 * 2', '2468'),
    ('7/3', '7/3 (about 2.33333333333)'),
    ('solve x^2 = 4', 'x = -2 or x = 2'),
    ('2x + 3 = 7', 'x = 2'),
    ('solve x + y = 3, x - y = 1', 'x = 2, y = 1'),
    ('solve a*t = b for t', 't = b/a'),
    ('integrate x^2 from 0 to 1', '1/3 (about 0.333333333333)'),
    ('integral of 2x dx', 'x^2'),
    ('derivative of sin(x)', 'cos(x)'),
    ('limit of sin(x)/x as x -> 0', '1'),
    ('sum of n^2 for n from 1 to 10', '385'),
    ('factor 360', '2^3 * 3^2 * 5'),
    ('expand (x+1)^2', 'x^2 + 2*x + 1'),
    ('5 miles in km', '8.04672 km'),
    ('convert 100 celsius to fahrenheit', '212 fahrenheit'),
    ('2 + 2 = 5', 'false'),
  ],
)
def test_questions_of_mathematics_are_answered(mathematics, query, answer):
  assert said(mathematics, 'wolfram_alpha', query=query) == answer


@pytest.mark.parametrize(
  'query', ['foo bar (', '', '3 kg to miles', 'solve', '1' * 5000]
)
def test_question_that_is_none_is_a_message(mathematics, query):
  text = said(mathematics, 'math', query=query)
  assert text and 'Traceback' not in text


def test_question_that_is_a_program_is_held(mathematics, tmp_path):
  file = tmp_path / 'secret'
  file.write_text('told')
  for query in (f'open("{file}").read()', '__import__("os").listdir("/home")'):
    assert 'told' not in said(mathematics, 'math', query=query)
  query = f'open("{tmp_path}/new", "w").write("x")'
  said(mathematics, 'math', query=query)
  assert not (tmp_path / 'new').exists()


def test_without_sympy_the_extra_is_named(monkeypatch):
  def absent(names):
    raise UserError('sandbox: packages: sympy is not installed')

  monkeypatch.setattr(packages, 'find', absent)
  with pytest.raises(UserError, match=r"pip install -e '\.\[tools\]'"):
    registry.load(['math'])


@pytest.fixture(scope='module')
def library(tmp_path_factory):
  """A folder of every kind of document."""
  pytest.importorskip('bm25s', reason="pip install -e '.[tools]'")
  folder = tmp_path_factory.mktemp('library')
  (folder / 'a.txt').write_text('The zorv is blue. ' * 3)
  (folder / 'b.md').write_text('# Birds\n\nA quail eats seeds.\n')
  (folder / 'page.html').write_text(
    '<html><body><article><p>Der Fluss ist die Donau, lang und breit.</p>'
    '</article></body></html>'
  )
  rows = [{'text': 'Rust is a metal disease.'}, {'text': '東京は日本の首都です。'}]
  (folder / 'rows.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  (folder / 'skip.png').write_bytes(b'\x89PNG')
  return folder


@pytest.mark.parametrize(
  'query,where',
  [
    ('which colour is a ZORV?', 'a.txt'),
    ('quail', 'b.md'),
    ('Donau', 'page.html'),
    ('metal disease', 'rows.jsonl, document 1'),
    ('日本', 'rows.jsonl, document 2'),
  ],
)
def test_search_finds_the_passage(library, query, where):
  text = said(registry.load([f'search={library}']), 'brave_search', query=query)
  assert text.startswith(f'[1] {where}\n')


def test_search_without_a_result_says_so(library):
  tools = registry.load([f'search={library}'])
  for query in ('', 'xyzzy', '!!!'):
    assert said(tools, 'search', query=query).startswith('nothing was found')


def test_search_ranks_as_bm25_does(library):
  """Against the formula: idf ln(1 + (N - n + .5) / (n + .5)), k1 1.5, b 0.75."""
  from llama3_jax.tools import search

  texts = ['a a b', 'b c', 'a c c c d', 'd', 'b b b a']
  index = search.Index([search.Passage(str(i), t) for i, t in enumerate(texts)])
  rows = [t.split() for t in texts]
  mean = sum(map(len, rows)) / len(rows)

  def score(row, words):
    total = 0
    for word in words:
      n, f = sum(word in r for r in rows), row.count(word)
      rare = math.log(1 + (len(rows) - n + 0.5) / (n + 0.5))
      total += rare * f / (f + 1.5 * (0.25 + 0.75 * len(row) / mean))
    return total

  for words in (['a'], ['a', 'c'], ['b', 'd']):
    expected = sorted(range(5), key=lambda i: -score(rows[i], words))
    expected = [i for i in expected if score(rows[i], words) > 0]
    found = search.ranked(index, ' '.join(words), 5)
    assert [int(p.where) for p in found] == expected


def test_long_documents_are_cut_into_passages(tmp_path):
  from llama3_jax.tools import search

  (tmp_path / 'a.txt').write_text(
    '\n\n'.join(f'Paragraph {i}. ' * 20 for i in range(50))
  )
  found = search.passages(str(tmp_path))
  assert len(found) > 10 and all(len(p.text) <= search.SIZE for p in found)


def test_folder_without_text_is_refused(tmp_path):
  (tmp_path / 'a.txt').write_text('')
  with pytest.raises(UserError, match='no file there has any text'):
    registry.load([f'search={tmp_path}'])


@pytest.fixture
def desk(tmp_path):
  """A folder of files beside a secret one."""
  (tmp_path / 'secret.txt').write_text('told')
  folder = tmp_path / 'desk'
  (folder / 'in').mkdir(parents=True)
  (folder / 'notes.txt').write_text('für dich')
  (folder / 'in/t.csv').write_text('a,b\n1,2\n')
  (folder / 'page.html').write_text('<html><body><p>Only words here.</p></body></html>')
  (folder / 'long.txt').write_text('x' * 7000)
  (folder / 'link.txt').symlink_to(tmp_path / 'secret.txt')
  (folder / 'bad.docx').write_bytes(b'PK\x03\x04 no zip')
  (folder / '.hidden.txt').write_text('told')
  return folder


def test_files_are_listed_and_read_part_by_part(desk):
  tools = registry.load([f'files={desk}'])
  listed = said(tools, 'list_files')
  assert 'in/t.csv (8 bytes)' in listed
  assert 'link' not in listed and 'hidden' not in listed
  assert said(tools, 'read_file', name='notes.txt') == 'für dich'
  assert said(tools, 'read_file', name='in/t.csv') == 'a,b\n1,2\n'
  assert said(tools, 'read_file', name='page.html').strip() == 'Only words here.'
  parts = [said(tools, 'read_file', name='long.txt', part=i) for i in (1, 2, 3)]
  assert [p.count('x') for p in parts] == [3000, 3000, 1000]
  assert parts[0].startswith('[part 1 of 3]\n')
  assert 'has parts 1 to 3' in said(tools, 'read_file', name='long.txt', part=4)


@pytest.mark.parametrize(
  'name',
  ['../secret.txt', 'link.txt', '/etc/passwd', 'no', '', 'a\0b', 'x' * 5000, 'in'],
)
def test_files_outside_the_folder_are_not_read(desk, name):
  text = said(registry.load([f'files={desk}']), 'read_file', name=name)
  assert text.startswith('error: there is no file')


def test_office_files_are_read(desk):
  docx = pytest.importorskip('docx', reason="pip install -e '.[tools]'")
  openpyxl = pytest.importorskip('openpyxl')
  pptx = pytest.importorskip('pptx')
  document = docx.Document()
  document.add_paragraph('First paragraph')
  table = document.add_table(1, 2)
  table.cell(0, 0).text, table.cell(0, 1).text = 'left', 'right'
  document.save(desk / 'a.docx')
  book = openpyxl.Workbook()
  book.active.title = 'Sales'
  book.active.append(['north', 12])
  book.save(desk / 'a.xlsx')
  slides = pptx.Presentation()
  slide = slides.slides.add_slide(slides.slide_layouts[0])
  slide.shapes.title.text = 'Title of it'
  slides.save(desk / 'a.pptx')
  tools = registry.load([f'files={desk}'])
  read = lambda name: said(tools, 'read_file', name=name)
  assert read('a.docx') == 'First paragraph\nleft | right'
  assert read('a.xlsx') == '# Sales\nnorth | 12'
  assert read('a.pptx') == '# slide 1\nTitle of it'
  assert read('bad.docx').startswith('error: bad.docx cannot be read: it is damaged')
