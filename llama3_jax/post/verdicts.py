"""Rewards of rollouts: of a checkable task, a reward model, or both (4.1.2, 5.1)."""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np
from absl import logging

from llama3_jax.base.errors import UserError
from llama3_jax.generate.engine import Completion
from llama3_jax.post import reward
from llama3_jax.post import together
from llama3_jax.post.rollout import Prompt
from llama3_jax.post.rollout import RolloutConfig
from llama3_jax.tasks import suite
from llama3_jax.text import chat
from llama3_jax.text.library import Library
from llama3_jax.text.tokenizer import Tokenizer
from llama3_jax.train import belongs


@dataclasses.dataclass(frozen=True)
class Verdicts:
  """rewards float64 [n]; valid bool [n], whether an answer is learnt from; means of
  what is said of the answers, for metrics."""

  rewards: np.ndarray
  valid: np.ndarray
  said: dict[str, float]


class Judge:
  """Rewards of answers: task score and reward model's score, each with its weight."""

  def __init__(self, tokenizer: Tokenizer | Library, config: RolloutConfig) -> None:
    self.tokenizer, self.config = tokenizer, config
    self.scorer, self.model, self.name = None, None, ''

  def load(self, workdir: str | os.PathLike, stage: str | os.PathLike) -> None:
    """Loads the reward model of `reward_from` for answers of the stage `init_from`;
    UserError where its vocabulary is another."""
    belongs.same('init_from', stage, 'reward_from', workdir)
    self.scorer, self.model = reward.load(workdir)
    self.name = str(workdir)
    if self.model.vocab_size < self.tokenizer.vocab_size:
      raise UserError(
        f'reward_from={workdir} has {self.model.vocab_size} tokens and the vocabulary '
        f'of init_from {self.tokenizer.vocab_size}: name a reward model of the same '
        'vocabulary'
      )

  def __call__(
    self, prompts: Sequence[Prompt], groups: Sequence[Sequence[Completion]]
  ) -> Verdicts:
    """Verdicts on all answers, in order.

    An answer that was cut off has the lowest reward of those that ended, less `cut`.
    One whose reward is not finite is left out, and counted; UserError where all are.
    """
    pairs = [(p, one) for p, group in zip(prompts, groups) for one in group]
    ended = np.array([one.stopped for _, one in pairs])
    said = {'cut': float(1 - ended.mean())}
    lengths = [len(one.sampled) for _, one in pairs]
    said['answer_tokens'] = float(np.mean(lengths))
    total = np.zeros(len(pairs))
    if any(p.example for p, _ in pairs):
      scores = self._checked(pairs)
      known = np.array([p.example is not None for p, _ in pairs])
      said['exact'] = float(scores[known].mean())
      total += self.config.task * scores
    if self.scorer is not None:
      asked = [p.ids for p in prompts]
      answers = [[one.sampled for one in group] for group in groups]
      scores = together.rewards(self.scorer, asked, answers, self.model)
      scores = np.concatenate(scores).astype(np.float64)
      finite = np.isfinite(scores) & ended
      said['model_score'] = float(scores[finite].mean()) if finite.any() else 0.0
      total += self.config.model * scores
    return self._verdicts(total, ended, said)

  def _checked(self, pairs):
    """Scores of answers by their tasks; 0 where there is none, or it was cut off."""
    found = np.zeros(len(pairs))
    asked = [i for i, (p, one) in enumerate(pairs) if p.example and one.stopped]
    text = lambda one: chat.sampled(self.tokenizer, one.sampled).content
    said = [(pairs[i][0].example, text(pairs[i][1])) for i in asked]
    found[asked] = suite.scores(said)
    return found

  def _verdicts(self, total, ended, said):
    good = ended & np.isfinite(total)
    bad = int((ended & ~good).sum())
    if bad and not good.any():
      raise UserError(
        f'reward_from={self.name}: none of {bad} rewards is a finite number: train the '
        'reward model again, or name another'
      )
    if bad:
      logging.warning('%d of %d rewards are not finite: left out', bad, len(total))
    rewards = np.where(good, total, 0.0)
    if good.any():
      rewards[~ended] = rewards[good].min() - self.config.cut
    valid = (good | ~ended) & good.any()
    said['bad_rewards'] = float(bad)
    said['reward'] = float(rewards[valid].mean()) if valid.any() else 0.0
    return Verdicts(rewards, valid, said)
