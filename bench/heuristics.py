"""Documents a CPU-second of all heuristics: python bench/heuristics.py TEXTS [PYTHON].

TEXTS are .jsonl files with `text` or plain text files, joined by commas; they are cut
into documents of about 9,000 characters at line ends. PYTHON is an interpreter with
datatrove[processing]; it runs its four quality filters on the same documents, in a
process beside. Ours measures every rule of every document; datatrove stops at the first
that fails. Compilation is not counted: it is kept on disk.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from llama3_jax.curate.machine import documents
from llama3_jax.curate.measures import repetition
from llama3_jax.curate.measures import words
from llama3_jax.curate.rules import c4
from llama3_jax.curate.rules import heuristics

SIZE, COUNT, BATCH = 9000, 1000, 250
PEER = 100  # documents for the other side


def read(paths):
  """Up to COUNT texts of about SIZE characters."""
  lines = []
  for path in paths.split(','):
    text = pathlib.Path(path).read_text('utf-8')
    if path.endswith('.jsonl'):
      text = '\n'.join(json.loads(line)['text'] for line in text.splitlines())
    lines += text.split('\n')
  result, part, size = [], [], 0
  for line in lines:
    part.append(line)
    size += len(line) + 1
    if size >= SIZE:
      result.append('\n'.join(part))
      part, size = [], 0
  while len(result) < COUNT:  # too little text is read again
    result += result[: COUNT - len(result)]
  return result[:COUNT]


def batches(texts):
  rows = [{'text': text, 'lang': 'en', 'category': 'general'} for text in texts]
  parts = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]
  return [documents.batch(part) for part in parts]


def rate(function, parts):
  """Documents a CPU-second, the best of three."""
  function(parts[0])  # compiles
  times = []
  for _ in range(3):
    began = time.process_time()
    for part in parts:
      function(part)
    times.append(time.process_time() - began)
  return sum(part.num_rows for part in parts) / min(times)


def peer(python, texts, kind):
  """{name: documents a CPU-second} of the other side."""
  script = pathlib.Path(__file__).parent / 'sides/datatrove_text.py'
  with tempfile.NamedTemporaryFile('w', suffix='.jsonl', encoding='utf-8') as f:
    f.writelines(json.dumps({'text': text}) + '\n' for text in texts)
    f.flush()
    command = [python, str(script), f.name, kind]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600)
  if run.returncode:
    sys.exit(run.stderr)
  found = json.loads(run.stdout.splitlines()[-1])
  return {name: one['documents'] / one['seconds'] for name, one in found.items()}


def main():
  texts = read(sys.argv[1])
  parts = batches(texts)
  config, repeated, cleaned = (
    heuristics.Config(),
    repetition.LineConfig(),
    c4.Config(),
  )
  size = sum(len(text) for text in texts) / len(texts)
  print(f'{len(texts)} documents of {size:,.0f} characters')

  def everything(batch):
    batch = repetition.step_lines(batch, repeated)
    batch = c4.step_lines(batch, cleaned)
    return heuristics.step(heuristics.measure(batch, config), config)

  for name, function in (
    ('one pass of the text', words.analyse),
    ('measure', lambda batch: heuristics.measure(batch, config)),
    ('lines of logs', lambda batch: repetition.step_lines(batch, repeated)),
    ('lines of C4', lambda batch: c4.step_lines(batch, cleaned)),
    ('all, and thresholds', everything),
  ):
    ours = rate(function, parts)
    print(f'ours, {name}: {ours:,.0f} documents a CPU-second')
  if len(sys.argv) > 2:
    theirs = peer(sys.argv[2], texts[:PEER], 'filters')
    for name, value in theirs.items():
      print(f'datatrove, {name}: {value:,.0f}')
    total = 1 / sum(1 / value for value in theirs.values())
    print(f'datatrove, all four: {total:,.0f}')
    print(f'ours / datatrove: {ours / total:,.0f}')


if __name__ == '__main__':
  main()
