"""Makes policy.npz with TRL and torch on random numbers: not run by the tests.

  python -m venv /tmp/oracle
  /tmp/oracle/bin/pip install torch transformers trl numpy
  /tmp/oracle/bin/python tests/post/goldens/make_policy.py

GRPO's losses and gradients are those of trl.GRPOTrainer._compute_loss. PPO is not in
TRL any more: loops and autograd of torch, in float64.
"""

import collections
import pathlib
import types

import numpy as np
import torch
import trl

B, T, LONGEST, LOW, HIGH = 6, 7, 9, 0.2, 0.28
CASES = [(f, kl) for f in ('grpo', 'bnpo', 'dr_grpo') for kl in (0.0, 0.1)]


def given(rng):
  lengths = np.array([7, 5, 1, 3, 6, 2])
  mask = (np.arange(T) < lengths[:, None]).astype(np.float64)
  logp = -rng.exponential(1.0, (B, T))
  near = lambda spread: (logp + spread * rng.standard_normal((B, T))) * mask
  return dict(
    mask=mask,
    logp=logp * mask,
    old=near(0.3),
    start=near(0.5),
    advantage=rng.standard_normal(B),
    rewards=rng.standard_normal((B, T)) * mask,
    value=rng.standard_normal((B, T)) * mask,
    now=rng.standard_normal((B, T)) * mask,
  )


def trl_loss(x, form, kl):
  """(loss, gradient by the log-probabilities) of TRL."""
  logp = torch.tensor(x['logp'], requires_grad=True)
  fake = types.SimpleNamespace(
    aux_loss_enabled=False,
    top_entropy_quantile=1.0,
    off_policy_mask_threshold=None,
    importance_sampling_level='token',
    beta=kl,
    loss_type=form,
    epsilon_low=LOW,
    epsilon_high=HIGH,
    use_vllm=False,
    max_completion_length=LONGEST,
    current_gradient_accumulation_steps=1,
    _entropy_bonus_enabled=False,
    model=types.SimpleNamespace(training=True),
    args=types.SimpleNamespace(delta=None, use_bias_correction_kl=False),
    accelerator=types.SimpleNamespace(
      gather=lambda v: v, reduce=lambda v, reduction: v, num_processes=1
    ),
    _metrics=collections.defaultdict(lambda: collections.defaultdict(list)),
    _get_per_token_logps_and_entropies=lambda *a, **k: (logp, 0 * logp.detach(), None),
  )
  mask = torch.tensor(x['mask'])
  ids = torch.zeros((B, T), dtype=torch.long)
  inputs = dict(
    prompt_ids=ids[:, :1],
    prompt_mask=torch.ones(B, 1),
    completion_ids=ids,
    completion_mask=mask,
    advantages=torch.tensor(x['advantage']),
    old_per_token_logps=torch.tensor(x['old']),
    ref_per_token_logps=torch.tensor(x['start']),
  )
  loss = trl.GRPOTrainer._compute_loss(fake, None, inputs)
  loss.backward()
  return loss.item(), logp.grad.numpy()


def gae(x, gamma, lam):
  """Advantages and returns, one token after the other."""
  made = torch.zeros(B, T, dtype=torch.float64)
  for b in range(B):
    n, later = int(x['mask'][b].sum()), 0.0
    for t in reversed(range(n)):
      after = x['value'][b, t + 1] if t + 1 < n else 0.0
      delta = x['rewards'][b, t] + gamma * after - x['value'][b, t]
      later = delta + gamma * lam * later
      made[b, t] = later
  return made, made + torch.tensor(x['value'])


def whitened(x, mask):
  """By torch's own mean and variance of what the mask keeps."""
  kept = x[mask.bool()]
  return (x - kept.mean()) * torch.rsqrt(kept.var() + 1e-8) * mask


def ppo_loss(x, advantage, returns, clip, value_clip, weight):
  """(loss, gradients by the log-probabilities and by the values), means over tokens."""
  mask = torch.tensor(x['mask'])
  logp = torch.tensor(x['logp'], requires_grad=True)
  now = torch.tensor(x['now'], requires_grad=True)
  old = torch.tensor(x['value'])
  ratio = (logp - torch.tensor(x['old'])).exp()
  first = torch.max(-advantage * ratio, -advantage * ratio.clamp(1 - clip, 1 + clip))
  near = torch.min(torch.max(now, old - value_clip), old + value_clip)
  second = torch.max((now - returns) ** 2, (near - returns) ** 2)
  loss = ((first + 0.5 * weight * second) * mask).sum() / mask.sum()
  loss.backward()
  return loss.item(), logp.grad.numpy(), now.grad.numpy()


def main():
  x = given(np.random.default_rng(0))
  found = dict(x)
  for form, kl in CASES:
    loss, gradient = trl_loss(x, form, kl)
    found[f'{form}_{kl}_loss'], found[f'{form}_{kl}_gradient'] = loss, gradient
  made, returns = gae(x, 0.97, 0.9)
  found['gae'], found['returns'] = made.numpy(), returns.numpy()
  white = whitened(made, torch.tensor(x['mask']))
  found['white'] = white.numpy()
  names = ('ppo_loss', 'ppo_logp_gradient', 'ppo_value_gradient')
  found |= dict(zip(names, ppo_loss(x, white, returns, 0.2, 0.3, 0.7)))
  path = pathlib.Path(__file__).parent / 'policy.npz'
  np.savez_compressed(path, **found)


if __name__ == '__main__':
  main()
