"""What is known of dialogs, by a reward model, a judge and an embedder (4.2.3)."""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from llama3_jax.base import log
from llama3_jax.base.errors import UserError
from llama3_jax.generate import stages
from llama3_jax.post import reward
from llama3_jax.post.quality import judging
from llama3_jax.post.quality import semantic
from llama3_jax.post.quality.prune import Pruned
from llama3_jax.post.quality.prune import Signals
from llama3_jax.text import chat
from llama3_jax.text.tokenizer import Tokenizer
from llama3_jax.train import belongs
from llama3_jax.train import models

ASKED = ('quality', 'code', 'difficulty', 'topic')


def check(config: ConfigDict) -> None:
  """UserError for questions that are unknown."""
  if wrong := [name for name in config.judge if name not in ASKED]:
    raise UserError(f'judge: {wrong[0]!r} is not one of {", ".join(ASKED)}')
  judging.topic(config.topics)


def of(config: ConfigDict, tokenizer: Tokenizer, rows: Sequence[Mapping]) -> Signals:
  """Signals of SFT rows, by the models of the config."""
  messages = [[chat.message(m, 'files') for m in row['messages']] for row in rows]
  ids = [chat.encode(tokenizer, dialog).ids.tolist() for dialog in messages]
  params, model = models.load(config.init_from)
  params = stages.prepared(params, model)
  given = {}
  if config.reward_from:
    belongs.same('init_from', config.init_from, 'reward_from', config.reward_from)
    scorer, scored = reward.load(config.reward_from)
    given['rewards'] = reward.score(scorer, ids, scored, config.batch)
  elif all('reward' in row for row in rows):
    given['rewards'] = np.array([row['reward'] for row in rows])
  for name in config.judge:
    question = _question(config, name)
    with log.work(f'asking of {len(rows):,} dialogs: {name}'):
      found = judging.ask(params, model, tokenizer, messages, question)
    if name == 'topic':
      given['topics'] = [question.labels[i] for i in found.numbers]
    elif name == 'difficulty':
      given['difficulty'] = found.numbers
    else:
      best = len(question.labels) - 1
      given |= dict(judged=found.numbers, scores=found.scores, best=best)
  if config.limits.cosine <= 1:
    with log.work(f'embedding {len(rows):,} dialogs'):
      given['vectors'] = semantic.by_model(params, model, config.length)(ids)
  return Signals(**given)


def _question(config, name):
  if name == 'topic':
    return judging.topic(config.topics)
  return judging.QUESTIONS[name]


def labels(signals: Signals, found: Pruned) -> Iterator[dict]:
  """What is known of every row, as rows of JSON."""
  names = ('rewards', 'judged', 'scores', 'difficulty', 'topics')
  known = {n: getattr(signals, n) for n in names if getattr(signals, n) is not None}
  plain = lambda x: x.item() if isinstance(x, np.generic) else x
  for i, reason in enumerate(found.reasons):
    own = {name: plain(values[i]) for name, values in known.items()}
    yield {
      'reason': reason,
      **own,
      'value': float(found.value[i]),
      'near': int(found.near[i]),
      'cosine': float(found.cosine[i]),
    }
