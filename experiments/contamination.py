"""Were the questions of an evaluation in the training data, and what did it give?

  python -m experiment --config=contamination --workdir=runs/contamination \\
    --config.evaluations="('runs/eval_8b', 'runs/eval_70b')" \\
    --documents=runs/curate/documents

Finds the questions whose words lie in 8-grams of the documents (5.1.4), and estimates
by how much each model gains from them. Expected: of a clean benchmark 0% at a high
threshold and no gain. Writes shares.jsonl (of every question), report.html, results.
"""

import numpy as np
from absl import logging

from llama3_jax import workdir as workdirs
from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.data import texts
from llama3_jax.eval import contamination
from llama3_jax.eval import contamination_page
from llama3_jax.eval import paired

ALONE = True  # one process reads the documents


@workdirs.stage('shares.jsonl', report=contamination_page.write)
def main(config, folder):
  """Measure; returns {'tasks': {task: of contamination.sweep, 'n'}, 'documents'}."""
  if not config.evaluations:
    raise UserError('evaluations is empty: name workdirs of evaluate')
  if not config.documents:
    raise UserError('documents is empty: name the folder of the training data')
  said = [paired.read(workdir) for workdir in config.evaluations]
  for workdir, others in zip(config.evaluations[1:], said[1:]):
    paired.same(config.evaluations[0], said[0], workdir, others)
  asked = [(task, row['question']) for task, rows in said[0].items() for row in rows]
  count = [0]
  shared = contamination.shares(
    [question for _, question in asked],
    _texts(config.documents, count),
    config.gram,
  )
  rows = [
    {'task': task, 'question': question, 'share': float(share)}
    for (task, question), share in zip(asked, shared)
  ]
  jsonl.write(folder / 'shares.jsonl', rows)
  results = {}
  for task in said[0]:
    own = [share for (name, _), share in zip(asked, shared) if name == task]
    models = {
      workdir: [row['score'] for row in found[task]]
      for workdir, found in zip(config.evaluations, said)
    }
    found = contamination.sweep(np.asarray(own), models)
    results[task] = found | {'n': len(own)}
    logging.info('%s: %s', task.partition('=')[0], contamination_page.sentence(found))
  return {'tasks': results, 'documents': count[0]}


def _texts(folder, count):
  """The texts of all documents, counted."""
  for paths in texts.categories(folder, 'documents').values():
    for path in paths:
      for row in texts.read(path, 'documents'):
        count[0] += 1
        yield row['text']
