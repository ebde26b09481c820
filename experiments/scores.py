"""FP8 beside the whole weights: the distributions of reward scores (6.2).

  python -m experiment --config=scores --workdir=runs/scores \\
    --init_from=runs/herd/sft_2 --config.reward_from=runs/herd/reward_2

The model answers three times: as it is, with another seed, and with weights of few bits
and the first seed; the reward model scores all answers. Expected: a line with the
Kolmogorov-Smirnov distance, the 95th percentile of that of two seeds, and `within` or
`beyond`. Writes results.json and report.html; with --config.require=true `beyond` ends
with status 2.
"""

import numpy as np
from absl import logging

from llama3_jax import config as configs
from llama3_jax import workdir as workdirs
from llama3_jax.base import log
from llama3_jax.base.errors import UserError
from llama3_jax.eval import answering
from llama3_jax.generate import programs
from llama3_jax.generate import prompts
from llama3_jax.generate.settings import Settings
from llama3_jax.model import rowwise
from llama3_jax.post import reward
from llama3_jax.post import scores
from llama3_jax.report import page as pages
from llama3_jax.tasks import suite
from llama3_jax.tasks import task
from llama3_jax.text import chat
from llama3_jax.train import belongs
from llama3_jax.train import models


def main(config, workdir):
  """Answer, score and compare; returns what `measure` does. UserError where the scores
  are beyond the limit and `require` is set."""
  if not config.weights:
    raise UserError(
      'weights is empty: name what is compared, such as --config.weights=fp8'
    )
  rowwise.check(config.weights)
  found = measure(config, workdir)
  logging.info('%s', scores.said(found))
  if config.require and found['verdict'] == 'beyond':
    raise UserError(f'require: {scores.said(found)}')
  return found


@workdirs.stage(
  report=lambda folder, found: pages.write(folder / 'report.html', scores.page(found))
)
def measure(config, folder):
  """Returns scores.judge and {'weights', 'prompts', 'answers', 'scores': {name: summary
  with the share 'cut' off and, where it can be checked, 'exact' match}, 'curves'}."""
  del folder
  # Refused before a device is used.
  settings = configs.fill(Settings(), config.sample, 'sample')
  c, d = config, config.data
  tokenizer = belongs.tokenizer(d.tokenizer, c.init_from, 'data.tokenizer')
  belongs.same('init_from', c.init_from, 'reward_from', c.reward_from)
  tasks = suite.mixed(d.tasks, c.seed + 1, 'heldout', d.task_names) if d.tasks else []
  asked = [answering.chat_prompt(tokenizer, task.load(e.task), e) for e in tasks]
  for path in d.files:
    asked += [ids for _, ids in prompts.read(path, 'data.files', tokenizer)]
  if len(asked) < 2:
    raise UserError('scores of less than two prompts: set data.tasks or data.files')
  params, model = models.load(c.init_from)
  scorer = reward.load(c.reward_from)
  few = rowwise.capped(programs.prepared(params, model, c.weights), c.cap)
  runs = {
    'whole weights': (params, c.seed),
    'another seed': (params, c.seed + 1 if c.seed < 2**32 - 1 else 0),
    c.weights: (few, c.seed),
  }
  found = {}
  for name, (weights, seed) in runs.items():
    with log.work(f'{name}: {len(asked) * c.samples:,} answers'):
      how = tokenizer, model, settings, c.samples, seed, c.batch
      found[name] = scores.sample(weights, scorer, asked, *how)
  return {
    **scores.judge(*(each.rewards for each in found.values()), c.seed),
    'weights': c.weights,
    'prompts': len(asked),
    'answers': len(asked) * c.samples,
    'scores': {n: _about(each, tokenizer, tasks) for n, each in found.items()},
    'curves': {n: scores.curve(each.rewards) for n, each in found.items()},
  }


def _about(found, tokenizer, tasks):
  """Summary of the scores, the share that was cut off, and exact match."""
  about = scores.summary(found.rewards) | {'cut': float(1 - found.stopped.mean())}
  said = suite.scores(
    [
      (e, chat.sampled(tokenizer, ids).content)
      for e, answers in zip(tasks, found.sampled)
      for ids in answers
    ]
  )
  return about | ({'exact': float(np.mean(said))} if said else {})
