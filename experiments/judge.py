"""Labels for quality classifiers, asked of a chat model (section 3.1.1).

  python -m experiment --config=configs/judge.py --workdir=runs/judge \\
    --config.documents=runs/herd/curate/documents --config.init_from=runs/herd/average_2

Writes labels.jsonl (text_hash, url, label, and answer or margin) for `judge: file:...`
of configs/curate.py, and results.json: how many were asked, and how many got which
label. With how='answer' the model writes, and an answer that names no class gives no
label. With how='likelihood' each class is weighed as the answer, against how likely it
is when the document is empty (Zhao et al. 2021): every document gets a label, also from
a model that was never taught to judge, as that of the toy herd.
"""

import heapq

import numpy as np

from llama3_jax import config as configs
from llama3_jax import workdir as workdirs
from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.curate.judging import classify
from llama3_jax.curate.judging import judge
from llama3_jax.data import texts
from llama3_jax.generate import engine
from llama3_jax.generate import likelihood
from llama3_jax.generate.settings import Settings
from llama3_jax.post.quality import judging
from llama3_jax.text import chat
from llama3_jax.train import belongs
from llama3_jax.train import models

HOW = ('answer', 'likelihood')


@workdirs.stage('labels.jsonl')
def main(config, folder):
  """Ask about a sample of the documents; returns {asked, labels: {class: n}}."""
  if config.asked not in judge.CLASSES:
    raise UserError(f'asked={config.asked!r}: one of {", ".join(judge.CLASSES)}')
  if config.how not in HOW:
    raise UserError(f'how={config.how!r}: one of {", ".join(HOW)}')
  configs.fill(
    Settings(), config.settings, 'settings'
  )  # refused before a device is used
  tokenizer = belongs.tokenizer(config.tokenizer, config.init_from)
  params, model = models.load(config.init_from)
  rows = sample(config.documents, config.sample)
  prompts = [_prompt(tokenizer, config, row['text']) for row in rows]
  ask = {'answer': _answers, 'likelihood': _likelihoods}[config.how]
  counts, lines = {}, []
  for row, (label, more) in zip(
    rows, ask(params, model, tokenizer, prompts, config), strict=True
  ):
    counts[label or 'unclear'] = counts.get(label or 'unclear', 0) + 1
    if label:
      key = f'{classify.text_hash(row["text"]):016x}'
      lines.append({'text_hash': key, 'url': row['url'], 'label': label, **more})
  jsonl.write(folder / 'labels.jsonl', lines)
  return {'asked': len(rows), 'labels': dict(sorted(counts.items()))}


def sample(folder, count):
  """The `count` documents of a folder with the lowest hash of the text."""
  groups = texts.categories(folder, 'documents').values()
  paths = [path for group in groups for path in group]

  def rows():
    for path in paths:
      for number, row in enumerate(texts.read(path, 'documents')):
        yield classify.text_hash(row['text']), str(path), number, row

  found = heapq.nsmallest(count, rows(), key=lambda entry: entry[:3])
  return [row for *_, row in found]


def _answers(params, model, tokenizer, prompts, config):
  """[(class or None, {'answer'})] of what the model writes."""
  own = Settings(vocab_size=tokenizer.vocab_size)
  found = engine.generate(
    params,
    prompts,
    model,
    tokenizer.stop_ids,
    configs.fill(own, config.settings, 'settings'),
    config.seed,
    batch_size=config.batch,
  )
  said = [tokenizer.decode(completion.ids) for (completion,) in found]
  return [(judge.verdict(config.asked, text), {'answer': text}) for text in said]


def _likelihoods(params, model, tokenizer, prompts, config):
  """[(class, {'margin'})]: by how much, in nats, the class beats the next one."""
  names = judge.CLASSES[config.asked]
  answers = [judging.answer(tokenizer, name) for name in names]
  empty = _prompt(tokenizer, config, '')
  asked = [*prompts, empty]
  found = likelihood.of_each(params, asked, answers, model)
  found = found[:-1] - found[-1]
  low, high = np.sort(found, axis=1)[:, -2:].T
  return [
    (names[best], {'margin': round(float(margin), 4)})
    for best, margin in zip(found.argmax(1), high - low)
  ]


def _prompt(tokenizer, config, text):
  said = judge.question(config.asked, text, config.characters)
  message = chat.Message('user', said)
  return chat.encode(tokenizer, [message], prompt=True).ids.tolist()
