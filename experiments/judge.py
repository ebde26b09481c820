"""Labels for quality classifiers, asked of a chat model (section 3.1.1).

  python -m experiment --config=configs/judge.py --workdir=runs/judge \\
    --config.documents=runs/herd/curate/documents --config.init_from=runs/herd/average/2

Writes labels.jsonl (text_hash, url, label, answer) for `judge: file:...` of
configs/curate.py, and results.json: how many were asked and how many answers name a
class; others give no label. The toy herd's model was never taught to judge: expect few.
"""

import gzip
import heapq
import json
import os
import pathlib

from llama3_jax import chat
from llama3_jax import config as configs
from llama3_jax import tokenizer as tokenizers
from llama3_jax.config import UserError
from llama3_jax.curate import classify
from llama3_jax.curate import judge
from llama3_jax.generate import engine
from llama3_jax.generate.sample import Settings
from llama3_jax.train import checkpoint


def main(config, workdir):
  """Ask about a sample of the documents; returns {asked, labels: {class: n}}."""
  folder = configs.open_workdir(config, workdir, ('documents', 'init_from'))
  if (folder / 'results.json').exists():
    return configs.read_json(folder / 'results.json')
  if config.asked not in judge.CLASSES:
    raise UserError(f'asked={config.asked!r}: one of {", ".join(judge.CLASSES)}')
  tokenizer = tokenizers.Tokenizer.load(config.tokenizer)
  params, model = checkpoint.load(config.init_from)
  rows = sample(config.documents, config.sample)
  prompts = [_prompt(tokenizer, config, row['text']) for row in rows]
  found = engine.generate(
    params,
    prompts,
    model,
    tokenizer.stop_ids,
    Settings(**config.settings),
    config.seed,
    batch_size=config.batch,
  )
  counts, lines = {}, []
  for row, (completion,) in zip(rows, found):
    answer = tokenizer.decode(completion.ids)
    label = judge.verdict(config.asked, answer)
    counts[label or 'unclear'] = counts.get(label or 'unclear', 0) + 1
    if label:
      key = f'{classify.text_hash(row["text"]):016x}'
      lines.append({'text_hash': key, 'url': row['url'], 'label': label})
      lines[-1]['answer'] = answer
  temporary = folder / 'labels.jsonl.tmp'
  text = ''.join(json.dumps(line, ensure_ascii=False) + '\n' for line in lines)
  temporary.write_text(text, encoding='utf-8')
  os.replace(temporary, folder / 'labels.jsonl')
  results = {'asked': len(rows), 'labels': dict(sorted(counts.items()))}
  configs.write_json(folder / 'results.json', results)
  return results


def sample(folder, count):
  """The `count` documents of a folder of .jsonl.gz with the lowest hash of the text."""
  paths = sorted(pathlib.Path(folder).glob('*.jsonl.gz'))
  if not paths:
    raise UserError(f'documents={folder}: no *.jsonl.gz there; curate first')

  def rows():
    for path in paths:
      with gzip.open(path, 'rt', encoding='utf-8', newline='\n') as f:
        for number, line in enumerate(f):
          row = json.loads(line)
          yield classify.text_hash(row['text']), path.name, number, row

  found = heapq.nsmallest(count, rows(), key=lambda entry: entry[:3])
  return [row for *_, row in found]


def _prompt(tokenizer, config, text):
  said = judge.question(config.asked, text, config.characters)
  message = chat.Message('user', said)
  return chat.encode(tokenizer, [message], prompt=True).ids.tolist()
