"""Were the questions of an evaluation in the training data, and what did it give?

  python -m experiment --config=contamination --workdir=runs/contamination \\
    --config.evaluations="('runs/eval_8b', 'runs/eval_70b')" \\
    --documents=runs/curate/documents

Finds the questions whose words lie in 8-grams of the documents (5.1.4), and estimates
by how much each model gains from them. Expected: of a clean benchmark 0% at a high
threshold and no gain. Writes shares.jsonl (of every question), report.html, results.
"""

import pathlib

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
  scores = _scores(config.evaluations)
  asked = [(task, question) for task, rows in scores.items() for question in rows]
  count = [0]
  shared = contamination.shares(
    [question for _, question in asked],
    _texts(config.documents, count),
    config.gram,
    config.language,
  )
  rows = [
    {'task': task, 'question': question, 'share': float(share)}
    for (task, question), share in zip(asked, shared)
  ]
  jsonl.write(folder / 'shares.jsonl', rows)
  results = {}
  for task, questions in scores.items():
    own = [share for (name, _), share in zip(asked, shared) if name == task]
    models = {
      model: [row[model] for row in questions.values()] for model in config.evaluations
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


def _scores(evaluations):
  """{task: {question: {evaluation: score}}} of the questions that all were asked."""
  found = {}
  for workdir in evaluations:
    path = pathlib.Path(workdir) / paired.FILE
    for _, row in jsonl.read(path, 'evaluations'):
      of_task = found.setdefault(row['task'], {})
      of_task.setdefault(row['question'], {})[workdir] = row['score']
  for task, questions in found.items():
    missing = [q for q, row in questions.items() if len(row) < len(evaluations)]
    if missing:
      raise UserError(
        f'evaluations: {task}: {len(missing)} questions are not in all of them: '
        'evaluate all with the same tasks, examples and seed'
      )
  return found
