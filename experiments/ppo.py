"""PPO against a reward model, as Llama 2 had it (blog of Llama 3).

  python -m experiment --config=ppo:tiny --init_from=runs/herd/sft_2 \\
    --reward_from=runs/herd/reward_2 --workdir=runs/ppo

Expected at `tiny`: the reward on held-out questions rises, the distance from the start
(kl) stays small. Writes checkpoints/, metrics.jsonl, final/ and results.json.
"""

import functools

import jax

from llama3_jax import config as configs
from llama3_jax import workdir as workdirs
from llama3_jax.model import llama
from llama3_jax.post import learner
from llama3_jax.post import ppo
from llama3_jax.post import reward
from llama3_jax.post import rollout
from llama3_jax.post import training
from llama3_jax.train import models
from llama3_jax.train import part
from llama3_jax.train import report


@workdirs.stage('final', report=report.write)
def main(config, folder):
  """Train; returns held-out {'score', 'eval/exact', 'eval/reward', ...}, 'prompts'."""
  tokenizer, model = training.prepare(config)
  c = configs.fill(ppo.PPOConfig(), config.ppo, 'ppo')
  s = learner.prepare(config, tokenizer, model)
  t, critic = s.config.train, s.judge.model or model
  before, _ = models.load(config.init_from, model)

  def play(params, prompts, number):
    seed = learner.seed_of(config.seed, number)
    groups = s.sampler.answers(params.policy, prompts, s.c.samples, seed)
    rows = rollout.rows(prompts, groups, t.length, ppo.Valued)
    logp = rollout.logps(params.policy, rows, model, s.size, t.loss_chunk)
    found = {'engine_gap': rollout.gap(rows, logp)}
    start = rollout.logps(before, rows, model, s.size, t.loss_chunk)
    value = ppo.values(params.value, rows, critic, s.size)
    rows = rows.replace(old=logp, start=start, value=value)
    told = s.judge(prompts, groups)
    rows, more = ppo.filled(rows, told.rewards, told.valid, c)
    return rows, found | told.said | more

  def first():
    policy, _ = models.load(config.init_from, model)
    if config.reward_from:
      return ppo.Learned(policy, reward.load(config.reward_from)[0])
    again, _ = models.load(config.init_from, model)
    key = jax.random.key(config.seed)
    return ppo.Learned(policy, jax.jit(ppo.critic, static_argnums=2)(key, again, model))

  loss = functools.partial(
    ppo.loss, config=model, critic=critic, c=c, chunk=t.loss_chunk
  )
  letters = ppo.Learned(llama.dims(model), reward.dims(critic))
  trained = part.of(s.config, letters, new=('value.head',))
  policy = lambda params: params.policy
  return learner.run(s, folder, loss, play, first, trained, policy)
