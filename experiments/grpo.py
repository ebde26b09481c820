"""GRPO: a prompt's answers compete, and their rewards can be checked (after 4.1).

  python -m experiment --config=grpo:tiny --init_from=runs/herd/sft_2 \\
    --workdir=runs/grpo

Expected at `tiny`: exact match on held-out questions rises, the distance from the start
(kl) stays small. Writes checkpoints/, metrics.jsonl, final/ and results.json.
"""

import functools

from llama3_jax import config as configs
from llama3_jax import workdir as workdirs
from llama3_jax.model import llama
from llama3_jax.post import grpo
from llama3_jax.post import learner
from llama3_jax.post import rollout
from llama3_jax.post import training
from llama3_jax.post import verdicts
from llama3_jax.reliable import guard
from llama3_jax.train import models
from llama3_jax.train import optim
from llama3_jax.train import part
from llama3_jax.train import report
from llama3_jax.train import step


@workdirs.stage('final', report=report.write)
def main(config, folder):
  """Train; returns held-out {'score', 'eval/exact', 'eval/reward', ...}, 'prompts'."""
  tokenizer, model = training.prepare(config)
  c = configs.fill(grpo.GRPOConfig(), config.grpo, 'grpo')
  grpo.check(c, config.rollout.samples)
  asked = rollout.prompts(config, tokenizer, 'train')
  config, r = learner.settle(config, model, asked)
  t = config.train
  kept = learner.fitting(asked, t.length, r)
  heldout = rollout.prompts(config, tokenizer, 'heldout')
  heldout = learner.fitting(heldout, t.length, r)
  sampler = rollout.Sampler(model, tokenizer, r, t.length)
  judge = verdicts.Judge(tokenizer, r, r.minibatch or t.batch)
  if config.reward_from:
    judge.load(config.reward_from, config.init_from)
  before = models.load(config.init_from, model)[0] if c.kl else None
  size = r.minibatch or t.batch

  def play(params, prompts, number):
    seed = learner.seed_of(config.seed, number)
    groups = sampler.answers(params, prompts, r.samples, seed)
    rows = rollout.rows(prompts, groups, t.length)
    logp = rollout.logps(params, rows, model, size, t.loss_chunk)
    found = {'engine_gap': rollout.gap(rows, logp)}
    rows = rows.replace(old=logp)
    if c.kl:
      start = rollout.logps(before, rows, model, size, t.loss_chunk)
      rows = rows.replace(start=start)
    told = judge(prompts, groups)
    rows, more = grpo.filled(rows, told.rewards, told.valid, r.samples, c)
    return rows, found | told.said | more

  loss = functools.partial(
    grpo.loss, config=model, c=c, longest=r.max_new, chunk=t.loss_chunk
  )
  update = step.compose(
    loss,
    optim.of(learner.schedules(config, r)),
    t.microbatches,
    guard.create(t),
    part.of(config, llama.dims(model)),
  )
  made = learner.Learner(update, play, kept, r, config.seed, t.max_bad_steps)
  policy = lambda params: params
  evaluate = learner.measure(sampler, judge, heldout, policy)
  first = lambda: models.load(config.init_from, model)[0]
  found = learner.run(config, folder, model, tokenizer, made, first, evaluate, policy)
  dropped = len(asked) - len(kept)
  return {'prompts': len(kept), 'dropped': dropped, **found} | {
    'trained': training.used(config)
  }
