"""Files of anybody become documents, or are left out with a reason."""

import csv
import gzip
import json
import os
import pathlib
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from llama3_jax.base.errors import UserError
from llama3_jax.data import gather
from llama3_jax.data import readers
from llama3_jax.data import texts

PAGE = """<html><head><title>Tea</title></head><body><nav><a href="/">Home</a></nav>
<article><h1>Tea</h1><p>Tea is a drink that is made of leaves and hot water, and many
people drink it in the morning, with milk or without.</p></article></body></html>"""


def gathered(given, folder, **more):
  """(result, texts of all documents in order)."""
  result = gather.write([str(p) for p in given], folder, **more)
  paths = texts.categories(folder, 'documents')['general']
  return result, [row['text'] for path in paths for row in texts.read(path, 'x')]


def fill(folder):
  """A file of every kind, each with a word that names it."""
  folder.mkdir()
  (folder / 'sub').mkdir()
  (folder / 'a.txt').write_text('plain text')
  (folder / 'sub/b.md').write_text('# Markdown\r\n\r\ntext')
  (folder / 'c.HTML').write_text(PAGE)
  rows = [{'text': 'row one'}, {'content': 'row two', 'id': 3}, {'text': ' '}]
  (folder / 'd.jsonl').write_text('\n'.join(map(json.dumps, rows)))
  pq.write_table(pa.table({'body': ['parquet row']}), folder / 'e.parquet')
  with open(folder / 'f.csv', 'w', newline='') as file:
    csv.writer(file).writerows([['article', 'n'], ['csv row, quoted', 1]])
  with gzip.open(folder / 'g.txt.gz', 'wt') as file:
    file.write('gzip text')
  packed = zstandard.ZstdCompressor().compress(b'zstd text')
  (folder / 'h.md.zst').write_bytes(packed)
  (folder / 'i.png').write_bytes(b'\x89PNG')
  (folder / '.hidden.txt').write_text('hidden')


def test_every_kind_of_file_gives_its_text(tmp_path):
  fill(tmp_path / 'in')
  result, found = gathered([tmp_path / 'in'], tmp_path / 'out')
  assert found[0] == 'plain text' and '# Markdown\n\ntext' in found
  page = next(t for t in found if t.startswith('Tea'))
  assert 'hot water' in page and 'Home' not in page
  for text in ('row one', 'row two', 'parquet row', 'csv row, quoted'):
    assert text in found
  assert 'gzip text' in found and 'zstd text' in found and 'hidden' not in found
  assert len(found) == 9 == result['documents']
  assert result['left_out'] == [['*.png', '1 of another kind']]
  assert result['kinds']['.jsonl']['documents'] == 2
  assert result['characters'] == sum(map(len, found))


def test_a_second_call_reads_nothing_again(tmp_path):
  (tmp_path / 'a.txt').write_text('before')
  first, _ = gathered([tmp_path / 'a.txt'], tmp_path / 'out')
  (tmp_path / 'a.txt').unlink()
  assert gather.write([str(tmp_path / 'a.txt')], tmp_path / 'out') == first


@pytest.mark.parametrize(
  'data, text',
  [
    ('naïve café, déjà vu, garçon'.encode('cp1252'), 'naïve café, déjà vu, garçon'),
    ('\ufeffmarked'.encode(), 'marked'),
    ('wide ü'.encode('utf-16'), 'wide ü'),
    (b'one\rtwo\r\nthree', 'one\ntwo\nthree'),
  ],
)
def test_text_in_any_encoding_is_read(tmp_path, data, text):
  (tmp_path / 'a.txt').write_bytes(data)
  assert gathered([tmp_path / 'a.txt'], tmp_path / 'out')[1] == [text]


@pytest.mark.parametrize(
  'name, data, reason',
  [
    ('a.txt', b'\0\1\2\xff\0\0', 'binary'),
    ('a.txt', bytes(range(1, 32)) * 9, 'binary'),
    ('a.txt', b'words ' * 500 + b'\0', 'binary'),
    ('a.md', b'', 'empty'),
    ('a.txt.gz', b'no gzip', 'damaged'),
    ('a.html', b'<html><body></body></html>', 'no text in the page'),
    ('a.pdf', b'no PDF', 'the PDF cannot be read'),
  ],
)
def test_what_is_no_text_is_left_out_of_a_folder_and_refused_by_name(
  tmp_path, name, data, reason
):
  (tmp_path / 'in').mkdir()
  (tmp_path / 'in' / name).write_bytes(data)
  (tmp_path / 'in' / 'good.txt').write_text('good')
  result, found = gathered([tmp_path / 'in'], tmp_path / 'out')
  assert found == ['good']
  [[file, why]] = result['left_out']
  assert file.endswith(name) and reason in why
  with pytest.raises(UserError, match=f'text: .*{name}: .*{reason}'):
    gather.write([str(tmp_path / 'in' / name)], tmp_path / 'other')


def test_a_pdf_gives_the_text_of_its_pages(tmp_path):
  content = b'BT /F1 12 Tf 20 50 Td (Hello from a page) Tj ET'
  parts = [
    b'<< /Type /Catalog /Pages 2 0 R >>',
    b'<< /Type /Pages /Kids [3 0 R] /Count 1 >>',
    b'<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 100] /Contents 4 0 R '
    b'/Resources << /Font << /F1 5 0 R >> >> >>',
    b'<< /Length %d >>\nstream\n%s\nendstream' % (len(content), content),
    b'<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>',
  ]
  data, places = b'%PDF-1.4\n', []
  for number, part in enumerate(parts, 1):
    places.append(len(data))
    data += b'%d 0 obj\n%s\nendobj\n' % (number, part)
  table = b''.join(b'%010d 00000 n \n' % place for place in places)
  start = len(data)
  data += b'xref\n0 6\n0000000000 65535 f \n' + table
  data += b'trailer << /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF' % start
  (tmp_path / 'a.pdf').write_bytes(data)
  assert gathered([tmp_path / 'a.pdf'], tmp_path / 'out')[1] == ['Hello from a page']


@pytest.mark.parametrize(
  'make, given, message',
  [
    (lambda p: None, 'nothing', 'no such file or folder'),
    (lambda p: (p / 'e').mkdir(), 'e', 'the folder holds no files; read are .txt'),
    (
      lambda p: ((p / 'e').mkdir(), (p / 'e/x.png').write_bytes(b'x')),
      'e',
      'holds 1 of .png',
    ),
    (lambda p: (p / 'x.docx').write_bytes(b'x'), 'x.docx', 'files are read as .txt'),
    (lambda p: (p / 'x.txt').write_text(' \n'), 'x.txt', 'empty'),
    (
      lambda p: (p / 'x.jsonl').write_text('{"words": "a", "n": 1}'),
      'x.jsonl',
      'line 1: no text, .* among words, n: name the column .*--config.column',
    ),
    (lambda p: (p / 'x.jsonl').write_text('{"text": 3}'), 'x.jsonl', 'line 1'),
  ],
)
def test_bad_input_is_one_line(tmp_path, make, given, message):
  make(tmp_path)
  with pytest.raises(UserError, match=message) as error:
    gather.write([str(tmp_path / given)], tmp_path / 'out')
  assert '\n' not in str(error.value)
  assert not (tmp_path / 'out').exists()


def test_a_column_is_named(tmp_path):
  (tmp_path / 'x.jsonl').write_text('{"words": "mine", "text": "not mine"}')
  _, found = gathered([tmp_path / 'x.jsonl'], tmp_path / 'out', column='words')
  assert found == ['mine']


def test_patterns_name_files(tmp_path):
  for name in ('a.txt', 'b.txt', 'c.md'):
    (tmp_path / name).write_text(name)
  _, found = gathered([tmp_path / '*.txt'], tmp_path / 'out')
  assert found == ['a.txt', 'b.txt']


def test_a_long_document_is_cut_at_paragraphs_and_nothing_is_lost(tmp_path):
  words = [f'word{i}' for i in range(60_000)]
  paragraphs = [' '.join(words[i : i + 40]) for i in range(0, len(words), 40)]
  (tmp_path / 'a.txt').write_text('\n\n'.join(paragraphs))
  _, found = gathered([tmp_path / 'a.txt'], tmp_path / 'out')
  assert len(found) > 150 and ' '.join(found).split() == words
  starts = {p.split()[0] for p in paragraphs}
  assert all(text.split()[0] in starts for text in found)


def test_pieces_are_those_of_the_whole_text_however_it_arrives():
  text = ''.join(f'{i} ' + '\n\n' * (i % 37 == 0) for i in range(5000))
  whole = list(gather.cut(iter([text]), 700))
  parts = [text[i : i + 13] for i in range(0, len(text), 13)]
  assert list(gather.cut(iter(parts), 700)) == whole
  assert max(map(len, whole)) <= 700


def test_memory_does_not_grow_with_a_text(tmp_path):
  """A text is read in parts: no document is more than a part and a piece."""
  path = tmp_path / 'a.txt'
  path.write_text('line of text\n' * 400_000)  # 5.2 MB
  for parts in readers.texts(pathlib.Path(path), '', 'text'):
    assert max(map(len, parts)) <= readers.CHUNK


def test_a_line_end_between_two_reads_is_one(tmp_path):
  body = b'a' * (readers.CHUNK - 1) + b'\r\nb\rc\r\n'
  (tmp_path / 'a.txt').write_bytes(body)
  [text] = (''.join(parts) for parts in readers.texts(tmp_path / 'a.txt', '', 'text'))
  assert text == 'a' * (readers.CHUNK - 1) + '\nb\nc\n'


def test_a_file_under_two_names_is_read_once(tmp_path):
  folder = tmp_path / 'in'
  folder.mkdir()
  (folder / 'a.txt').write_text('text')
  (folder / 'b.txt').write_text('more')
  given = folder, tmp_path / 'in/../in', folder / 'a.txt', folder / '*.txt'
  _, found = gathered(given, tmp_path / 'out')
  assert found == ['text', 'more']


def test_what_is_no_file_is_refused_at_once(tmp_path):
  os.mkfifo(tmp_path / 'a.txt')
  with pytest.raises(UserError, match='neither a file nor a folder'):
    gather.find([str(tmp_path / 'a.txt')], 'text')


def test_folders_that_are_not_read_are_told(tmp_path, monkeypatch):
  folder = tmp_path / 'in'
  (folder / 'shut').mkdir(parents=True)
  (folder / 'a.txt').write_text('text')
  os.symlink(folder, folder / 'loop')
  scandir = os.scandir

  def shut(path):
    if os.path.basename(path) == 'shut':
      raise PermissionError(13, 'Permission denied', os.fspath(path))
    return scandir(path)

  monkeypatch.setattr(os, 'scandir', shut)
  result, found = gathered([folder], tmp_path / 'out')
  assert found == ['text']
  assert dict(result['left_out']) == {
    str(folder / 'loop'): 'a link to a folder: name it beside the others',
    str(folder / 'shut'): 'Permission denied',
  }


def test_a_text_of_one_long_line_is_cut_in_linear_time():
  text = 'word ' * 4_000_000
  begin = time.process_time()
  pieces = list(gather.cut(iter([text]), 2_000))
  assert time.process_time() - begin < 2  # far more where each piece copies the rest
  assert ' '.join(pieces) == text.strip()


def test_a_table_without_text_is_left_out_of_a_folder(tmp_path):
  (tmp_path / 'in').mkdir()
  (tmp_path / 'in/package.json').write_text('{\n "name": "x"\n}')
  (tmp_path / 'in/good.txt').write_text('good')
  result, found = gathered([tmp_path / 'in'], tmp_path / 'out')
  [[file, reason]] = result['left_out']
  assert found == ['good'] and file.endswith('package.json') and 'line 1' in reason


def test_an_empty_cell_is_an_empty_document(tmp_path):
  (tmp_path / 'a.csv').write_text('text,body\none,x\n,y\nthree,z\n')
  assert gathered([tmp_path / 'a.csv'], tmp_path / 'out')[1] == ['one', 'three']


def test_what_is_not_utf8_far_into_a_text_is_told(tmp_path, caplog):
  (tmp_path / 'a.txt').write_bytes(b'word ' * 300_000 + 'déjà'.encode('latin-1'))
  _, found = gathered([tmp_path / 'a.txt'], tmp_path / 'out')
  assert found[-1].endswith('d\ufffdj\ufffd') and '2 characters' in caplog.text
