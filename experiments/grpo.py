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
from llama3_jax.train import models
from llama3_jax.train import part
from llama3_jax.train import report


@workdirs.stage('final', report=report.write)
def main(config, folder):
  """Train; returns held-out {'score', 'eval/exact', 'eval/reward', ...}, 'prompts'."""
  tokenizer, model = training.prepare(config)
  c = configs.fill(grpo.GRPOConfig(), config.grpo, 'grpo')
  grpo.check(c, config.rollout.samples)
  s = learner.prepare(config, tokenizer, model)
  t, r = s.config.train, s.c
  before = models.load(config.init_from, model)[0] if c.kl else None

  def play(params, prompts, number):
    seed = learner.seed_of(config.seed, number)
    groups = s.sampler.answers(params, prompts, r.samples, seed)
    rows = rollout.rows(prompts, groups, t.length)
    logp = rollout.logps(params, rows, model, s.size, t.loss_chunk)
    found = {'engine_gap': rollout.gap(rows, logp)}
    rows = rows.replace(old=logp)
    if c.kl:
      start = rollout.logps(before, rows, model, s.size, t.loss_chunk)
      rows = rows.replace(start=start)
    told = s.judge(prompts, groups)
    rows, more = grpo.filled(rows, told.rewards, told.valid, r.samples, c)
    return rows, found | told.said | more

  loss = functools.partial(
    grpo.loss, config=model, c=c, longest=r.max_new, chunk=t.loss_chunk
  )
  first = lambda: models.load(config.init_from, model)[0]
  trained = part.of(s.config, llama.dims(model))
  return learner.run(s, folder, loss, play, first, trained)
