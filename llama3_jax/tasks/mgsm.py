"""MGSM: problems of GSM8K in eleven languages (arXiv 2210.03057; 5.2).

--config.tasks="('mgsm=FOLDER',)" reads every mgsm_LANGUAGE.tsv of the folder, of lines
with a question, a tab and a number; 'FOLDER,de' is one of them. The paper asks without
solved examples. The summary has each language and the mean over languages.
"""

import pathlib
import random
import re
import unicodedata

from llama3_jax.base.errors import UserError
from llama3_jax.tasks import gsm8k
from llama3_jax.tasks import reading
from llama3_jax.tasks import task

FILE = re.compile(r'mgsm_([a-z]+)\.tsv')
# How a chat is asked for the steps and for the form of the answer.
ASK = {
  'bn': 'ধাপে ধাপে সমাধান করুন। শেষে #### এবং উত্তরের সংখ্যাটি লিখুন।',
  'de': 'Löse die Aufgabe Schritt für Schritt. Ende mit #### und der Zahl als Antwort.',
  'en': 'Solve it step by step. End with #### and the number that is the answer.',
  'es': 'Resuélvelo paso a paso. Termina con #### y el número de la respuesta.',
  'fr': 'Résous le problème pas à pas. Termine par #### et le nombre de la réponse.',
  'ja': '順を追って解いてください。最後に #### と答えの数字を書いてください。',
  'ru': 'Решите задачу шаг за шагом. В конце напишите #### и число — ответ.',
  'sw': 'Tatua hatua kwa hatua. Maliza kwa #### na nambari ya jibu.',
  'te': 'దశలవారీగా సాధించండి. చివరలో #### మరియు సమాధాన సంఖ్యను రాయండి.',
  'th': 'แก้โจทย์ทีละขั้นตอน ลงท้ายด้วย #### และตัวเลขคำตอบ',
  'zh': '请一步一步解答。最后写 #### 和答案的数字。',
}
COMMA = ('de', 'es', 'fr', 'ru')  # languages with a decimal comma
SPACED = re.compile(r'(?<![\d.,])\d{1,3}(?:[ \u00a0\u202f]\d{3})+(?![\d.,]?\d)')
DOTTED = re.compile(r'(?<![\d.,])\d{1,3}(?:\.\d{3})+(?!\d)')
DECIMAL = re.compile(r'(?<=\d),(?=\d+(?!\d))(?!\d{3}(?!\d))')


def create(source: str = '') -> task.Task:
  """The Task of 'FOLDER' or 'FOLDER,LANGUAGE'."""
  place, _, only = source.partition(',')

  def examples(split, n, seed):
    reading.held_out(split, 'mgsm')
    rng, ranked = random.Random(f'{seed}/mgsm'), []
    for path in _files(place, only):  # one of each language in turn
      rows = _read(path)
      ranked += enumerate(rng.sample(rows, len(rows)))
    return [e for _, e in sorted(ranked, key=lambda pair: pair[0])][:n]

  return task.Task(
    *(examples, score, prompt), stop='\nQ:', max_new=512, summary=summary, shots=0
  )


def prompt(e: task.Example) -> str:
  """The question, and in its language in which form the answer is wanted."""
  return f'{e.prompt}\n{ASK.get(e.checks[0], ASK["en"])}'


def score(e: task.Example, response: str) -> float:
  """1.0 when the number of the response is the answer, as the language writes it."""
  return float(number(response, e.checks[0]) == e.answer)


def number(text: str, language: str = 'en') -> str:
  """As gsm8k.number, of digits of any script and separators of the language; a dot or
  a comma before just three digits parts thousands in each."""
  text = ''.join(_digit(c) for c in text)
  if language in COMMA:
    text = SPACED.sub(lambda m: re.sub(r'\D', '', m[0]), text)
    text = DOTTED.sub(lambda m: m[0].replace('.', ''), text)
    text = DECIMAL.sub('.', text)
  return gsm8k.number(text)


def _digit(character):
  value = unicodedata.decimal(character, None)
  return character if value is None else str(value)


summary = task.by_kind(score, 'mean over languages')


def _files(place, only):
  if not place:
    raise UserError('tasks: mgsm needs its folder: write mgsm=FOLDER')
  folder = pathlib.Path(place)
  folder = folder / 'mgsm' if (folder / 'mgsm').is_dir() else folder
  found = [p for p in sorted(folder.glob('mgsm_*.tsv')) if FILE.fullmatch(p.name)]
  kept = [p for p in found if only in ('', FILE.fullmatch(p.name)[1])]
  if not kept:
    there = ', '.join(p.name for p in found) or 'none'
    raise reading.Absent(
      f'tasks: mgsm={place}: no mgsm_{only or "LANGUAGE"}.tsv is there: found {there}'
    )
  return kept


def _read(path):
  """The Examples of a file: one a line, a question, a tab and its answer."""
  found, language = [], FILE.fullmatch(path.name)[1]
  for i, line in enumerate(reading.lines(path), 1):
    if not line.strip():
      continue
    cells = line.rstrip('\r').split('\t')
    answer = gsm8k.number(cells[-1]) if len(cells) == 2 else ''
    if not answer or not cells[0].strip():
      raise UserError(f'{path}, line {i}: not a question, a tab and a number')
    found.append(task.Example(cells[0].strip(), answer, checks=(language,)))
  if not found:
    raise UserError(f'{path}: holds no rows')
  return reading.once(found, path)
