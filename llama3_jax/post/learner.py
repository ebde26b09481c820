"""A step of reinforcement learning: a rollout, then updates with its answers (4.1).

The loop sees one step. All of it follows from the state, the number of the step, its
prompts and the seed, so a run that was stopped anywhere inside a step makes that step
again, to the same bits, and nothing of a rollout is saved.
"""

import dataclasses
import math
import pathlib
from collections.abc import Callable
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from llama3_jax import axes
from llama3_jax import config as configs
from llama3_jax import feed
from llama3_jax.base import log
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.model import llama
from llama3_jax.post import rollout
from llama3_jax.post import rows as rows_lib
from llama3_jax.post import training
from llama3_jax.post import verdicts
from llama3_jax.reliable import guard
from llama3_jax.text.tokenizer import Tokenizer
from llama3_jax.train import final
from llama3_jax.train import loop
from llama3_jax.train import optim
from llama3_jax.train import part
from llama3_jax.train import step

# play(params, prompts, number of the step) -> (rows, metrics of the rollout)
Play = Callable[
  [object, Sequence[rollout.Prompt], int], tuple[rollout.Answers, dict[str, float]]
]


@dataclasses.dataclass(frozen=True)
class Setting:
  """What every stage with rollouts has: the config with what is 0 chosen, its prompts
  (those that fit, and how many do not), the engine and the judge of the answers."""

  config: ConfigDict
  c: rollout.RolloutConfig
  model: ModelConfig
  tokenizer: Tokenizer
  prompts: list[rollout.Prompt]
  dropped: int
  heldout: list[rollout.Prompt]
  sampler: rollout.Sampler
  judge: verdicts.Judge

  @property
  def size(self) -> int:
    """Answers of an update."""
    return self.c.minibatch or self.config.train.batch


def prepare(config: ConfigDict, tokenizer: Tokenizer, model: ModelConfig) -> Setting:
  """The Setting of a config; the judge has its reward model, if it names one."""
  asked = rollout.prompts(config, tokenizer, 'train')
  config, c = settle(config, model, asked)
  length = config.train.length
  kept = fitting(asked, length, c)
  heldout = fitting(rollout.prompts(config, tokenizer, 'heldout'), length, c)
  sampler = rollout.Sampler(model, tokenizer, c, length)
  judge = verdicts.Judge(tokenizer, c)
  if config.reward_from:
    judge.load(config.reward_from, config.init_from)
  dropped = len(asked) - len(kept)
  return Setting(*(config, c, model, tokenizer, kept, dropped, heldout, sampler, judge))


class Learner:
  """What loop.run takes for its train step: answers of the current weights, then
  updates by minibatches, `epochs` times over the answers in an order by (seed, step).

  update: of step.compose, one minibatch; prompts: all that the batches' numbers mean.
  """

  def __init__(
    self,
    update: step.TrainStep,
    play: Play,
    prompts: Sequence[rollout.Prompt],
    c: rollout.RolloutConfig,
    seed: int,
    most: int,
  ) -> None:
    self.update, self.play, self.prompts, self.c = update, play, prompts, c
    self.seed, self.most, self.empty = seed, most, 0
    self.loss, self.guard, self.start = update.loss, update.guard, update.start
    self.view = self.whole = update.whole

  def __call__(
    self, state: step.State, batch: rollout.Asked
  ) -> tuple[step.State, dict[str, float]]:
    """(State after the updates, metrics of the rollout and means over the updates)."""
    number = int(state.step)
    asked = [self.prompts[i] for i in axes.fetch(batch.number).tolist()]
    rows, found = self.play(self.whole(state), asked, number)
    self._count(rows, number)
    made, sums = 0, {}
    for batch in self._minibatches(rows, number):
      state, metrics = self.update(state, feed.place(batch, (0, 1)))
      made, sums = made + 1, {k: v + sums.get(k, 0) for k, v in metrics.items()}
      if self.c.stop_kl and float(metrics['moved']) > self.c.stop_kl:
        break
    state = state.replace(step=state.step - made + 1)
    means = {k: v / made for k, v in sums.items()} if made else {}
    # What a step without updates has to say to the loop.
    means = {'loss': 0.0, 'grad_norm': 0.0} | means | found | {'updates': made}
    if self.guard:
      health = state.health
      means |= {'bad_steps': health.bad, 'bad_streak': health.streak}
    # Copies, because the buffers of the state are given away in the next step; arrays,
    # of which the loop sees that the step has run.
    return state, {k: jnp.float32(float(v)) for k, v in means.items()}

  def _minibatches(self, rows, number):
    """Parts of the rows that have something to learn; each may have other rows of a
    prompt."""
    size = self.c.minibatch or len(rows.tokens)
    for epoch in range(self.c.epochs):
      order = np.random.default_rng((self.seed, number, epoch))
      order = order.permutation(len(rows.tokens))
      for start in range(0, len(order), size):
        picked = order[start : start + size]
        if rows.weight[picked].any():
          yield jax.tree.map(lambda x, picked=picked: x[picked], rows)

  def _count(self, rows, number):
    """Counts steps without an answer to learn from; UserError after too many."""
    self.empty = 0 if rows.weight.any() else self.empty + 1
    if not self.empty:
      return
    text = f'no answer ended within rollout.max_new={self.c.max_new} tokens'
    if self.empty >= self.most:
      raise UserError(
        f'{text} in {self.empty} steps in a row until step {number + 1}: raise it, or '
        'finetune the model (--config=sft) first'
      )
    logging.warning('step %d: %s: nothing is learnt', number + 1, text)


def settle(
  config: ConfigDict, model: ModelConfig, prompts: Sequence[rollout.Prompt]
) -> tuple[ConfigDict, rollout.RolloutConfig]:
  """(Config with what is 0 chosen, its `rollout`).

  train.length: of the longest prompt (up to rows.LONGEST) and max_new; optim.peak: by
  the size of the model, a tenth of that of finetuning.
  """
  c = configs.fill(rollout.RolloutConfig(), config.rollout, 'rollout')
  t, size = config.train, c.minibatch or config.train.batch
  for name in ('samples', 'minibatch'):
    value = getattr(c, name) or t.batch
    if t.batch % value:
      raise UserError(
        f'train.batch={t.batch} answers are no multiple of rollout.{name}={value}'
      )
  if t.ramp or t.replay_every:
    name = 'ramp' if t.ramp else 'replay_every'
    raise UserError(f'train.{name}: a step with a rollout takes none')
  if size % t.microbatches:
    raise UserError(
      f'train.microbatches={t.microbatches} does not divide the {size} answers of an '
      'update (rollout.minibatch)'
    )
  longest = rows_lib.fitting(max(len(p.ids) for p in prompts))
  given = {'train.length': t.length or -(-(longest + c.max_new) // 64) * 64}
  rate = training.peak(llama.count(model), config) / training.DPO
  given['optim.peak'] = config.optim.peak or rate
  return configs.edit(config, given), c


def fitting(
  prompts: Sequence[rollout.Prompt], length: int, c: rollout.RolloutConfig
) -> list[rollout.Prompt]:
  """The prompts that leave room for an answer in rows of `length`; says how many do
  not."""
  kept = [p for p in prompts if len(p.ids) + c.max_new <= length]
  rows_lib.tell_dropped(len(prompts) - len(kept), len(prompts), length - c.max_new)
  return kept


def schedules(config: ConfigDict, c: rollout.RolloutConfig) -> ConfigDict:
  """The config for the optimizer of updates: optim's steps are of the loop, each with
  several updates."""
  t, o = config.train, config.optim
  each = math.ceil(t.batch / (c.minibatch or t.batch)) * c.epochs
  names = ('warmup', 'decay', 'anneal_start', 'anneal_steps')
  return configs.edit(config, {f'optim.{n}': each * getattr(o, n) for n in names})


def measure(
  sampler: rollout.Sampler,
  judge: verdicts.Judge,
  prompts: Sequence[rollout.Prompt],
  policy: Callable[[object], llama.Params],
) -> Callable[[object], dict[str, float]]:
  """evaluate(params) -> means over the likeliest answers to held-out prompts:
  {'eval/reward', 'eval/exact', ...}, and 'eval/exact_ci', 95% of the mean."""

  def evaluate(params):
    if not prompts:
      return {}
    groups = sampler.answers(policy(params), prompts, 1, 0, temperature=0.0)
    found = judge(prompts, groups).said
    if 'exact' in found:
      p, n = found['exact'], sum(p.example is not None for p in prompts)
      found['exact_ci'] = 1.96 * math.sqrt(max(p * (1 - p), 0) / n)
    return {f'eval/{name}': value for name, value in found.items()}

  return evaluate


def seed_of(seed: int, number: int) -> int:
  """The seed of the answers of a step, below 2**32."""
  return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])


def run(
  setting: Setting,
  folder: pathlib.Path,
  loss: Callable,
  play: Play,
  start: Callable[[], object],
  trained: part.Part,
  policy: Callable[[object], llama.Params] = lambda params: params,
) -> dict[str, object]:
  """Trains, writes the policy to `final/`, and returns held-out measures ('score' is
  the share of right answers, else the mean reward), 'prompts', 'dropped', 'trained'.

  loss: of a minibatch; start: () -> parameters; policy: parameters -> the model.
  """
  s, t = setting, setting.config.train
  optimizer = optim.of(schedules(s.config, s.c))
  update = step.compose(loss, optimizer, t.microbatches, guard.create(t), trained)
  learner = Learner(update, play, s.prompts, s.c, s.config.seed, t.max_bad_steps)
  evaluate = measure(s.sampler, s.judge, s.heldout, policy)
  stream = rollout.Prompts(s.prompts, t.length, s.c.samples, s.config.seed)
  state = loop.run(s.config, folder, s.model, learner, stream, start, evaluate)
  params = learner.whole(state)
  final.save(folder / 'final', policy(params), s.model, s.tokenizer)
  with log.work('measuring what is held out'):
    found = dict(evaluate(params))
  main = found.get('eval/exact', found.get('eval/reward'))
  found |= {} if main is None else {'score': main}
  counts = {'prompts': len(s.prompts), 'dropped': s.dropped}
  return counts | found | {'trained': training.used(s.config)}
