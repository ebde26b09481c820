"""Direct preference optimization: any (rows of yours), or tiny, 8b, 70b, 405b."""

from configs import reward


def get_config(size='any'):
  c = reward.base(size)
  c.experiment = 'dpo'
  reward.preferences(c)
  c.data.newest = 1  # rounds, of rows that have one; 0: all (4.1.4)
  c.init_from = 'runs/herd/sft_2'  # also the reference model
  c.data.mode = 'separate'  # a row an answer; exact: both in one, the prompt once
  c.data.pairs = 'extreme'  # of three responses: best and worst; or 'all', 'adjacent'
  c.beta = 0.1  # how strongly the margin counts against the reference (4.1.4)
  c.nll = 0.2  # weight of the chosen answer's negative log-likelihood
  c.loss = 'dpo'  # or, on the same rows, ipo, simpo, kto, orpo, robust (post/losses)
  c.target = 0.5  # of simpo: by how much the chosen answer should win
  c.flipped = 0.1  # of robust: share of the pairs that are the wrong way round
  c.moving = 0.0  # the reference keeps that share of itself a step; 0: it stays
  if size == 'tiny':
    c.nll = 0.3  # at 0.2 chosen answers lost 0.004 nats
    c.data.mode = 'exact'  # a third of the cost: their prompts are as long as answers
    c.optim.update(dict(peak=3e-5, warmup=10, decay=80, floor=0.1))
    c.train.update(dict(steps=80, batch=16, length=64))
  elif size != 'any':
    # 1e-5, beta 0.1 (4.1.4); batch and steps are not given.
    c.optim.update(dict(peak=1e-5, warmup=50, decay=1000, floor=0.1))
    c.train.update(dict(steps=1000, batch=64, length=4096, save_every=100))
    c.data.update(dict(tasks=0, heldout_tasks=0))
  return c
