"""Rejection sampling: K answers a prompt, the reward model keeps the best (4.2.2).

  python -m experiment --config=configs/reject.py:tiny --workdir=runs/reject \\
    --config.init_from=runs/herd/sft_2 --config.reward_from=runs/herd/reward_2

Expected at `tiny`: the mean reward of the best of K rises with K, and exact match with
it. Writes sft.jsonl (the kept answers), preferences.jsonl (annotated by checking the
answers, where that can be done), candidates.jsonl and results.json.
"""

import numpy as np

from llama3_jax import config as configs
from llama3_jax import workdir as workdirs
from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.generate import stages
from llama3_jax.generate.settings import Settings
from llama3_jax.model import rowwise
from llama3_jax.post import annotate
from llama3_jax.post import preference
from llama3_jax.post import reject
from llama3_jax.post import reward
from llama3_jax.tasks import suite
from llama3_jax.text import chat
from llama3_jax.train import belongs
from llama3_jax.train import models


@workdirs.stage('sft.jsonl', 'preferences.jsonl', 'candidates.jsonl')
def main(config, folder):
  """Sample and choose; returns {'best_of_k', 'prompts', 'kept', 'annotated', 'cut'}."""
  # Refused before a device is used.
  rowwise.check(config.weights)
  settings = configs.fill(Settings(), config.sample, 'sample')
  tokenizer = belongs.tokenizer(
    config.data.tokenizer, config.init_from, 'data.tokenizer'
  )
  belongs.same('init_from', config.init_from, 'reward_from', config.reward_from)
  params, model = models.load(config.init_from)
  scorer, same = reward.load(config.reward_from)
  if same.vocab_size != model.vocab_size:
    raise UserError(
      f'reward_from={config.reward_from} has {same.vocab_size} tokens and init_from '
      f'{model.vocab_size}: name a reward model of the same vocabulary'
    )
  tasks = []
  if config.data.tasks:
    names = config.data.task_names
    tasks = suite.mixed(config.data.tasks, config.seed + 1, 'train', names)
  prompts = [(chat.Message('user', e.prompt),) for e in tasks]
  for path in config.data.files:
    prompts += [example.prompt for example in preference.read(path)]
  if not prompts:
    raise UserError('no prompts: set data.tasks or data.files')
  found = reject.sample(
    stages.prepared(params, model, config.weights),
    scorer,
    prompts,
    tokenizer,
    model,
    settings,
    config.samples,
    config.seed,
    config.batch,
    config.system,
  )
  kept = reject.sft_rows(found)
  annotated = annotate.preferences(
    found[: len(tasks)],
    [e.answer for e in tasks],
    lambda i, text: suite.score(tasks[i], text) == 1,
  )
  jsonl.write(folder / 'sft.jsonl', kept)
  jsonl.write(folder / 'preferences.jsonl', annotated)
  jsonl.write(folder / 'candidates.jsonl', reject.candidate_rows(found))
  return {
    'best_of_k': _curve(found, tasks),
    'prompts': len(found),
    'kept': len(kept),
    'annotated': len(annotated),
    'cut': float(np.mean([[r == reject.CUT for r in c.rewards] for c in found])),
  }


def _curve(found, tasks):
  """Best-of-K; with exact match when every prompt has a checkable answer."""
  rewards = np.array([c.rewards for c in found])
  exact = None
  if len(tasks) == len(found):
    exact = np.array(
      [[suite.score(e, m.content) for m in c.responses] for e, c in zip(tasks, found)]
    )
  return reject.curve(rewards, exact)
