"""Junk that is derived from good pages, for bench/rules.py: no text is committed."""

import random
import re
import zlib

WORD = re.compile(r'[^\W\d_]{3,}')
PLACES = 'north south east west hill lake port bridge field wood mill dale'.split()
FRAMES = {
  'en': 'Looking for {0}? {1} has the best {0} near {2}. Call us for {0} today.',
  'de': 'Sie suchen {0}? Bei {1} gibt es {0} in {2}. Rufen Sie wegen {0} heute an.',
  'fr': 'Vous cherchez {0} ? {1} a le meilleur {0} de {2}. Appelez pour {0} vite.',
  'es': '¿Busca {0}? {1} tiene el mejor {0} de {2}. Llame por {0} hoy mismo.',
  'it': 'Cerchi {0}? {1} ha il miglior {0} di {2}. Chiama per {0} oggi stesso.',
  'pt': 'Procura {0}? {1} tem o melhor {0} de {2}. Ligue para {0} hoje mesmo.',
}


def junk(kind: str, name: str, text: str) -> str:
  """The junk of a kind that is made of the text of the page `name`."""
  rng = random.Random(zlib.crc32(f'{kind} {name}'.encode()))
  words = WORD.findall(text)
  return KINDS[kind](rng, words, text, language(name))


def language(name: str) -> str:
  """The language of a package, by its name."""
  ends = re.split('[-/]', name.split('/')[0])
  return next((end for end in ends if end in FRAMES), 'en')


def _menu(rng, words, text, lang):
  lines = (' '.join(rng.sample(words, rng.randint(1, 3))) for _ in range(80))
  return '\n'.join(line.capitalize() for line in lines)


def _links(rng, words, text, lang):
  titles = [' '.join(rng.sample(words, rng.randint(3, 7))) for _ in range(45)]
  return '\n\n'.join(f'{title.capitalize()} »' for title in titles)


def _keywords(rng, words, text, lang):
  few = rng.sample(sorted(set(words)), 9)
  return ', '.join(f'{rng.choice(few)} {rng.choice(few)}' for _ in range(150))


def _template(rng, words, text, lang):
  subject, firm = rng.sample(sorted(set(words)), 2)
  return '\n'.join(
    FRAMES[lang].format(subject, firm, rng.choice(PLACES)) for _ in range(25)
  )


def _copies(rng, words, text, lang):
  part = text[:3000]
  return '\n\n'.join([part] * 4)


def _spun(rng, words, text, lang):
  sentences = [' '.join(rng.sample(words, rng.randint(7, 12))) for _ in range(9)]
  order = rng.choices(sentences, k=45)
  return ' '.join(f'{sentence.capitalize()}.' for sentence in order)


def _log(rng, words, text, lang):
  event = ' '.join(words[:7])
  return '\n'.join(
    f'2024-03-{1 + i // 24:02d} {i % 24:02d}:{rng.randint(10, 59)} {event} '
    f'{rng.randint(1, 9999)} in {rng.randint(1, 900)} ms'
    for i in range(60)
  )


def _numbers(rng, words, text, lang):
  head = ' '.join(words[:8])
  rows = (' '.join(f'{rng.random() * 99:.2f}' for _ in range(9)) for _ in range(40))
  return '\n'.join([head, *rows])


def _signs(rng, words, text, lang):
  lines = (rng.choice(('=', '-', '*', '~', '|', '#')) * 3 for _ in range(90))
  return '\n'.join(f'{line} {rng.choice(words)} {line} {line}' for line in lines)


def _teasers(rng, words, text, lang):
  parts = (' '.join(rng.sample(words, 9)) for _ in range(30))
  return '\n'.join(f'{part} ...' for part in parts)


def _mojibake(rng, words, text, lang):
  return text.encode('utf-8').decode('latin-1').encode('utf-8').decode('latin-1')


KINDS = {
  'menu': _menu,
  'links': _links,
  'keywords': _keywords,
  'template': _template,
  'copies': _copies,
  'spun': _spun,
  'log': _log,
  'numbers': _numbers,
  'signs': _signs,
  'teasers': _teasers,
  'mojibake': _mojibake,
}
