"""Rejection sampling: K answers a prompt, the reward model keeps the best (4.2.2).

  python -m experiment --config=configs/reject.py:tiny --workdir=runs/reject \\
    --config.init_from=runs/herd/sft_2 --config.reward_from=runs/herd/reward_2

Expected at `tiny`: the mean reward of the best of K rises with K, and exact match with
it. Writes sft.jsonl (the kept answers), preferences.jsonl (annotated by checking the
answers, where that can be done), candidates.jsonl, report.html and results.json.

The same command resumes after the parts of prompts that are done. Several machines with
one folder: --config.hosts=4 --config.host=0..3; a Ray cluster: --config.engine=ray.
"""

import dataclasses

import numpy as np

from llama3_jax import workdir as workdirs
from llama3_jax.base import jsonl
from llama3_jax.post import annotate
from llama3_jax.post import best_of_k
from llama3_jax.post import choice
from llama3_jax.post import parts
from llama3_jax.post import reject
from llama3_jax.post import sampling
from llama3_jax.post import sampling_report
from llama3_jax.tasks import suite

OUTPUTS = ('sft.jsonl', 'preferences.jsonl', 'candidates.jsonl')
FREE = ('engine', 'hosts', 'host')


@workdirs.stage(*OUTPUTS, free=FREE, report=sampling_report.write)
def main(config, folder):
  """Sample and choose; returns {'best_of_k', 'prompts', 'kept', 'annotated', 'cut'}."""
  job = sampling.Job(config, folder)  # refused before a device is used
  parts.run(folder, job, job.count, config.engine, config.hosts, config.host)
  found = [reject.candidates(row) for row in parts.rows(folder, job.count)]
  tasks = job.tasks
  by = choice.chosen(found, config.choose)
  known = _checked(found, tasks)
  right = lambda i, text: known[i, text] == 1
  by = _verified(by, right, len(tasks)) if config.verify else by
  kept = reject.sft_rows(by)
  annotated = annotate.preferences(
    found[: len(tasks)],
    [e.worked or e.answer for e in tasks],
    right,
    number=config.round,
  )
  jsonl.write(folder / 'sft.jsonl', kept)
  jsonl.write(folder / 'preferences.jsonl', annotated)
  jsonl.write(folder / 'candidates.jsonl', reject.candidate_rows(found))
  return {
    **_curves(found, tasks, known, config),
    'prompts': len(found),
    'kept': len(kept),
    'annotated': len(annotated),
    'answers': sum(len(c.rewards) for c in found),
    'cut': float(np.mean([r == reject.CUT for c in found for r in c.rewards])),
    'models': _models(by),
  }


def _checked(found, tasks):
  """{(number of the prompt, answer): score} of all answers to tasks, at once."""
  every = dict.fromkeys(
    (i, m.content) for i, c in enumerate(found[: len(tasks)]) for m in c.responses
  )
  scores = suite.scores([(tasks[i], text) for i, text in every])
  return dict(zip(every, scores, strict=True))


def _verified(found, right, count):
  """Candidates of which only right answers may be taken, for the first `count`, those
  of tasks (4.3.3); the others as they are."""
  checked = []
  for i, c in enumerate(found[:count]):
    marks = [right(i, m.content) for m in c.responses]
    rewards = tuple(r if m else reject.CUT for r, m in zip(c.rewards, marks))
    checked.append(dataclasses.replace(c, rewards=rewards))
  return [*checked, *found[count:]]


def _curves(found, tasks, known, config):
  """{'best_of_k', 'choices'}: the curve of the reward, and where answers can be checked
  or are scored twice, what the best by each way to choose is worth."""
  most = max(len(c.rewards) for c in found)
  whole = [i for i, c in enumerate(found) if len(c.rewards) == most]
  others = {
    name: np.array([found[i].others[name] for i in whole]) for name in found[0].others
  }
  if len(tasks) == len(found):
    others['exact'] = np.array(
      [[known[i, m.content] for m in found[i].responses] for i in whole]
    )
  curves = {}
  for how in choice.CHOICES:
    if how != 'minimum' or found[0].others:
      curves[how] = choice.curve([found[i] for i in whole], how, others)
  peaks = {
    how: {n: best_of_k.peak(points, n) for n in others}
    for how, points in curves.items()
  }
  return {'best_of_k': curves[config.choose], 'choices': curves, 'peaks': peaks}


def _models(found):
  """{model: how many of the kept answers it gave}."""
  names = [c.models[c.best] for c in found if c.best is not None]
  return {name: names.count(name) for name in sorted(set(names))}
