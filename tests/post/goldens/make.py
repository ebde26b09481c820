"""Losses and gradients by TRL and torch: not run by the tests of a plain clone.

  python -m venv /tmp/oracle
  /tmp/oracle/bin/pip install torch transformers trl numpy
  /tmp/oracle/bin/python tests/post/goldens/make.py [FILE]

Writes FILE, losses.json beside this file unless it is given: of each case of
tests/post/test_agreement.py the loss and, of each gradient, what helpers/agreement.py
says of an array.
"""

import json
import pathlib
import sys
import tempfile
import types

import numpy as np
import torch
import torch.nn.functional as F
import transformers
import trl
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers import models
from tokenizers import pre_tokenizers
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer
from trl.trainer import dpo_trainer
from trl.trainer import reward_trainer
from trl.trainer import sft_trainer

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / 'helpers'))
import agreement as a  # noqa: E402

PAD = 0
FOLDER = tempfile.mkdtemp()
PLAIN = dict(output_dir=FOLDER, report_to=[], use_cpu=True, bf16=False, fp16=False)
PLAIN |= dict(gradient_checkpointing=False, per_device_train_batch_size=4)


def config():
  made = transformers.LlamaConfig(**a.SIZES, pad_token_id=PAD, num_labels=1)
  made._attn_implementation = 'eager'
  return made


def model(seed=0):
  made = transformers.LlamaForCausalLM(config())
  made.load_state_dict({n: torch.tensor(x) for n, x in a.weights(seed).items()})
  return made.train()


def tokenizer():
  words = {f't{i}': i for i in range(a.SIZES['vocab_size'])}
  made = Tokenizer(models.WordLevel(words, unk_token='t1'))
  made.pre_tokenizer = pre_tokenizers.Whitespace()
  return transformers.PreTrainedTokenizerFast(
    tokenizer_object=made, pad_token='t0', eos_token='t2', unk_token='t1'
  )


def text(ids):
  return ' '.join(f't{i}' for i in ids)


def result(loss, made):
  """The loss, and what is said of the gradients."""
  made.zero_grad()
  loss.backward()
  grads = {n: p.grad.numpy() for n, p in made.named_parameters() if p.grad is not None}
  return {'loss': loss.item(), 'gradients': a.said(grads)}


def sft():
  """TRL's trainer on a padded and on a packed batch."""
  rows = [{'input_ids': p + r, 'labels': [-100] * len(p) + r} for p, r in a.dialogs()]
  found = {}
  for name, packed in (('sft_padded', False), ('sft_packed', True)):
    made = model()
    args = trl.SFTConfig(**PLAIN, max_length=64, loss_type='nll')
    data = Dataset.from_list([{'prompt': 't3 t4', 'completion': 't5 t6'}])
    trainer = trl.SFTTrainer(
      made, args=args, train_dataset=data, processing_class=tokenizer()
    )
    collate = sft_trainer.DataCollatorForLanguageModeling(PAD, padding_free=packed)
    batch = collate([dict(row) for row in rows])
    assert ('position_ids' in batch) == packed
    found[name] = result(trainer.compute_loss(made, batch), made)
  return found


def logps(made, prompt, answer):
  """Log-probabilities of an answer's tokens, [n]."""
  logits = made(torch.tensor([prompt + answer]), use_cache=False).logits[0]
  each = F.log_softmax(logits, -1)[len(prompt) - 1 : -1]
  return each[torch.arange(len(answer)), torch.tensor(answer)]


def dpo():
  """TRL's trainer: sigmoid with NLL, IPO, robust."""
  rows = [dict(prompt_ids=p, chosen_ids=c, rejected_ids=r) for p, c, r in a.pairs()]
  found = {}
  for name, kind in (('dpo', 'sigmoid'), ('ipo', 'ipo'), ('robust', 'robust')):
    made = model()
    args = trl.DPOConfig(
      **PLAIN,
      beta=a.BETA,
      label_smoothing=a.FLIPPED if name == 'robust' else 0.0,
      loss_type=[kind, 'sft'],
      loss_weights=[1.0, a.NLL],
    )
    data = Dataset.from_list([{'prompt': 't3', 'chosen': 't4', 'rejected': 't5'}])
    trainer = trl.DPOTrainer(
      made,
      ref_model=model(5).eval(),
      args=args,
      train_dataset=data,
      processing_class=tokenizer(),
    )
    batch = dpo_trainer.DataCollatorForPreference(PAD)(rows)
    found[name] = result(trainer.compute_loss(made, batch), made)
  return found


def apart(made, name):
  """Losses that TRL has no trainer of on these rows: its functions on log-probabilities
  (simpo, orpo), or the formulas in torch: KTO on pairs, and DPO without the last token
  of each answer, whose NLL has it."""
  reference, cut = model(5).eval(), int(name == 'dpo_masked')
  sums = lambda m, p, r: logps(m, p, r)[: len(r) - cut].sum()
  with torch.no_grad():
    old = torch.stack(
      [torch.stack([sums(reference, p, x) for x in (c, r)]) for p, c, r in a.pairs()]
    )
  each = [[logps(made, p, x) for x in (c, r)] for p, c, r in a.pairs()]
  new = torch.stack(
    [torch.stack([x[: len(x) - cut].sum() for x in two]) for two in each]
  )
  mean = torch.stack([torch.stack([x.mean() for x in two]) for two in each])
  nll = -mean[:, 0].mean()
  here = types.SimpleNamespace(device=torch.device('cpu'))
  fake = types.SimpleNamespace(
    beta=a.BETA,
    simpo_gamma=a.TARGET,
    loss_type='simpo',
    label_smoothing=0.0,
    alpha=0.0,
    accelerator=here,
  )
  change = new - old
  if name == 'simpo':
    loss = CPOTrainer.cpo_loss(fake, mean[:, 0], mean[:, 1])[0].mean()
  elif name == 'orpo':
    loss = -ORPOTrainer.odds_ratio_loss(fake, mean[:, 0], mean[:, 1])[0].mean()
  elif name == 'kto':
    z = change.mean(0).clamp(min=0).detach()
    first = 1 - torch.sigmoid(a.BETA * (change[:, 0] - z[1]))
    second = 1 - torch.sigmoid(a.BETA * (z[0] - change[:, 1]))
    loss = torch.cat([first, second]).mean()
  else:
    loss = -F.logsigmoid(a.BETA * (change[:, 0] - change[:, 1])).mean()
  return result(loss + a.NLL * nll, made)


def reward():
  """TRL's trainer on pairs; all ordered pairs of three answers in torch."""
  made = transformers.LlamaForSequenceClassification(config()).train()
  state = {n: torch.tensor(x) for n, x in a.weights().items() if n != 'lm_head.weight'}
  made.load_state_dict(state | {'score.weight': torch.tensor(a.head())[None]})
  args = trl.RewardConfig(**PLAIN, disable_dropout=True)
  data = Dataset.from_list([{'chosen': 't4', 'rejected': 't5'}])
  trainer = trl.RewardTrainer(
    made, args=args, train_dataset=data, processing_class=tokenizer()
  )
  rows = [dict(chosen_ids=p + c, rejected_ids=p + r) for p, c, r in a.pairs()]
  batch = reward_trainer.DataCollatorForPreference(PAD)(rows)
  found = {'reward': result(trainer.compute_loss(made, batch), made)}
  each = lambda ids: made.score(
    made.model(torch.tensor([ids]), use_cache=False).last_hidden_state
  )[0, -1, 0]
  total, count = 0.0, 0
  for i, (p, c, r) in enumerate(a.pairs()):
    third = [a.pairs()[i - 1][1]] if i % 2 else []
    values = [each(p + x) for x in (c, r, *third)]
    for better in range(len(values)):
      for worse in range(better + 1, len(values)):
        total -= F.logsigmoid(values[better] - values[worse])
        count += 1
  found['reward_ranked'] = result(total / count, made)
  return found


def adamw():
  """torch's AdamW on dialogs one by one, gradients summed over all tokens."""
  made, how = model(), a.ADAM
  named = dict(made.named_parameters())
  norms = [p for n, p in named.items() if 'norm' in n]
  rest = [p for n, p in named.items() if 'norm' not in n]
  groups = [dict(params=rest, weight_decay=how['decay'])]
  groups += [dict(params=norms, weight_decay=0.0)]
  optimizer = torch.optim.AdamW(groups, how['rate'], how['betas'], how['eps'])
  losses, count = [], sum(len(r) for _, r in a.dialogs())
  for _ in range(how['steps']):
    optimizer.zero_grad()
    total = 0.0
    for p, r in a.dialogs():
      loss = -logps(made, p, r).sum() / count
      loss.backward()
      total += loss.item()
    torch.nn.utils.clip_grad_norm_(made.parameters(), how['clip'])
    optimizer.step()
    losses.append(total)
  weights = {n: p.detach().numpy() for n, p in named.items()}
  return {'adamw': {'losses': losses, 'weights': a.said(weights)}}


def main():
  torch.manual_seed(0)
  found = sft() | dpo() | reward() | adamw()
  for name in ('simpo', 'orpo', 'kto', 'dpo_masked'):
    found[name] = apart(model(), name)
  found['made_by'] = {x.__name__: x.__version__ for x in (torch, transformers, trl, np)}
  beside = pathlib.Path(__file__).parent / 'losses.json'
  path = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else beside
  rounded = json.loads(
    json.dumps(found), parse_float=lambda x: float(f'{float(x):.8g}')
  )
  lines = (f'{json.dumps(name)}: {json.dumps(x)}' for name, x in rounded.items())
  path.write_text('{\n' + ',\n'.join(lines) + '\n}\n')


if __name__ == '__main__':
  main()
