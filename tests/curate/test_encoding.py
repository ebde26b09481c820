"""Encoding: every page is read as a browser reads it, and damage stays small."""

import codecs

import pytest

from llama3_jax.curate.reading import encoding
from llama3_jax.curate.reading import encoding_labels
from llama3_jax.curate.reading import read
from llama3_jax.curate.reading import warc

RUSSIAN = 'Быстрая лиса прыгает через ленивую собаку, а потом спит до утра в саду.'
GREEK = 'Η γρήγορη αλεπού πηδάει πάνω από τον τεμπέλη σκύλο και μετά κοιμάται.'
POLISH = 'Zażółć gęślą jaźń, a potem śpij spokojnie aż do samego rana w ogrodzie.'
TURKISH = 'Hızlı kahverengi tilki tembel köpeğin üzerinden atlar ve şarkı söyler.'
HEBREW = 'השועל החום המהיר קופץ מעל הכלב העצלן ואז ישן בגינה עד הבוקר.'
ARABIC = 'الثعلب البني السريع يقفز فوق الكلب الكسول ثم ينام في الحديقة حتى الصباح.'
BALTIC = 'Įlinkdama fechtuotojo špaga sublykčiojusi pragręžė apvalų arbūzą sode.'
FRENCH = 'Le garçon très fatigué a déjà mangé la crème brûlée près de la fenêtre.'
THAI = 'สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจแล้วนอนหลับในสวน'
JAPANESE = '素早い茶色の狐はのろまな犬を飛び越えて、それから庭で朝まで眠ります。'
SIMPLIFIED = '敏捷的棕色狐狸跳过了懒惰的狗，然后在花园里一直睡到早晨。'
TRADITIONAL = '敏捷的棕色狐狸跳過了懶惰的狗，然後在花園裡一直睡到早晨。'
KOREAN = '날쌘 갈색 여우가 게으른 개를 뛰어넘고 정원에서 아침까지 잠을 잡니다.'
LEGACY = [
  ('windows-1250', 'cp1250', POLISH),
  ('iso-8859-2', 'iso8859-2', POLISH),
  ('windows-1251', 'cp1251', RUSSIAN),
  ('koi8-r', 'koi8_r', RUSSIAN),
  ('koi8-u', 'koi8_u', RUSSIAN),
  ('iso-8859-5', 'iso8859-5', RUSSIAN),
  ('ibm866', 'cp866', RUSSIAN),
  ('x-mac-cyrillic', 'mac_cyrillic', RUSSIAN),
  ('windows-1253', 'cp1253', GREEK),
  ('iso-8859-7', 'iso8859-7', GREEK),
  ('iso-8859-9', 'cp1254', TURKISH),
  ('windows-1255', 'cp1255', HEBREW),
  ('windows-1256', 'cp1256', ARABIC),
  ('windows-1257', 'cp1257', BALTIC),
  ('iso-8859-1', 'cp1252', f'{FRENCH} “€5”'),
  ('macintosh', 'mac_roman', FRENCH),
  ('windows-874', 'cp874', THAI),
  ('shift_jis', 'cp932', f'{JAPANESE} ①'),
  ('euc-jp', 'euc_jp', JAPANESE),
  ('iso-2022-jp', 'iso2022_jp', JAPANESE),
  ('gb2312', 'gb18030', f'{SIMPLIFIED} 镕'),
  ('big5', 'big5', TRADITIONAL),
  ('ks_c_5601-1987', 'cp949', f'{KOREAN} 뷁'),
  ('euc-kr', 'euc_kr', KOREAN),
]
# What a detector cannot know of one sentence: encodings that are alike.
UNSURE = {'macintosh', 'iso-8859-2'}
ACCENTS = """Zoë café perché Financiële groß niño coração à mañana ça gård blå smörgås
żal čas hüt çok şu ñandú ő ţară ģimene""".split()


def page(text, head='', repeat=8):
  return f'<html><head>{head}<title>x</title></head><body><p>{text * repeat}</p></body>'


@pytest.mark.parametrize('label, codec, text', LEGACY)
def test_legacy_pages_are_right_by_header_and_by_meta(label, codec, text):
  plain = page(text)
  assert encoding.decode(plain.encode(codec), f'text/html; charset={label}') == plain
  for meta in (
    f'<meta charset="{label}">',
    f'<META CHARSET={label.upper()} />',
    f"<meta content='text/html; charset={label}' http-equiv='Content-Type'>",
    f'<!-- <meta charset=utf-8> --><meta name=a content=b><meta charset={label}>',
  ):
    said = page(text, meta)
    assert encoding.decode(said.encode(codec)) == said, meta
  late = page(text, f'<style>{"a " * 3000}</style><meta charset="{label}">')
  assert encoding.decode(late.encode(codec)) == late


@pytest.mark.parametrize('label, codec, text', LEGACY)
def test_legacy_pages_without_a_word_are_detected(label, codec, text):
  if label in UNSURE:
    pytest.skip('too like another encoding')
  plain = page(text)
  assert encoding.decode(plain.encode(codec)) == plain


@pytest.mark.parametrize('word', ACCENTS)
@pytest.mark.parametrize('head', ['', '<meta charset="utf-8">'])
def test_one_accented_letter_in_utf8_stays(word, head):
  text = page(f'They met there, said {word}, and went home. ', head, 1)
  assert encoding.decode(text.encode()) == text
  assert encoding.decode(text.encode(), 'text/html') == text


@pytest.mark.parametrize('codec', ['utf-8', 'utf-16-le', 'utf-16-be'])
def test_a_byte_order_mark_wins_over_header_and_meta(codec):
  text = page(FRENCH, '<meta charset="windows-1251">')
  marked = f'\ufeff{text}'.encode(codec)
  assert encoding.decode(marked, 'text/html; charset=iso-8859-1') == text
  assert encoding.decode(marked) == text


def test_the_header_wins_over_meta_and_an_unknown_label_is_ignored():
  text = page(RUSSIAN, '<meta charset="koi8-r">')
  said = text.encode('cp1251')
  assert encoding.decode(said, 'text/html; charset="Windows-1251"') == text
  text = page(RUSSIAN, '<meta charset="windows-1251">')
  assert encoding.decode(text.encode('cp1251'), 'text/html; charset=none') == text
  text = page(RUSSIAN, '<meta charset="nonsense"><meta charset="koi8-r">')
  assert encoding.decode(text.encode('koi8-r')) == text


def test_a_header_that_breaks_the_page_yields_to_its_meta():
  text = page(RUSSIAN, '<meta charset="windows-1251">')
  assert encoding.decode(text.encode('cp1251'), 'text/html; charset=utf-8') == text
  # One bad byte in a page of UTF-8 does not make it a page of Latin-1.
  text = page(FRENCH, '<meta charset="iso-8859-1">')
  body = text.encode() + b'\xe9'
  assert encoding.decode(body, 'text/html; charset=utf-8') == f'{text}\ufffd'


def test_labels_that_a_meta_cannot_mean():
  text = page(FRENCH, '<meta charset="utf-16">')
  assert encoding.decode(text.encode()) == text
  text = page(FRENCH, '<meta charset="x-user-defined">')
  assert encoding.decode(text.encode('cp1252')) == text
  xml = f'<?xml version="1.0" encoding="windows-1251"?>{page(RUSSIAN)}'
  assert encoding.decode(xml.encode('cp1251')) == xml


@pytest.mark.parametrize('name', sorted(set(encoding_labels.LABELS.values())))
def test_no_bytes_raise(name):
  every = bytes(range(256)) * 3
  label = next(k for k, v in encoding_labels.LABELS.items() if v == name)
  assert isinstance(encoding.decode(every, f'text/html; charset={label}'), str)
  assert name == 'x-user-defined' or codecs.lookup(name)


def test_open_bytes_of_windows_are_control_characters_and_others_broken():
  assert encoding.decode(b'a\x81', 'text/html; charset=latin1') == 'a\x81'
  assert encoding.decode(b'a\xff', 'text/html; charset=windows-874') == 'a\ufffd'


def test_pages_of_a_crawl_are_decoded(tmp_path):
  body = page(KOREAN, '<meta charset="euc-kr">')
  record = warc._record({'url': 'https://a.example/', 'date': '2024-01-01', 'html': ''})
  head, _, _ = record.partition(b'Content-Length')
  payload = b'HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n' + body.encode(
    'euc-kr'
  )
  path = tmp_path / 'a.warc'
  path.write_bytes(head + b'Content-Length: %d\r\n\r\n' % len(payload) + payload)
  (row,), problems = read.rows(path)
  assert row['html'] == body and problems == []
