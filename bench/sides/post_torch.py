"""TRL's training steps, by a job on standard input; see post.py."""

import contextlib
import json
import os
import resource
import sys
import tempfile
from time import process_time as cpu  # user and system

os.environ['OMP_NUM_THREADS'] = '1'

import torch
import transformers
import trl
from datasets import Dataset
from trl.trainer import dpo_trainer
from trl.trainer import reward_trainer
from trl.trainer import sft_trainer

torch.set_num_threads(1)
PAD = 0
TINY = dict(
  sft={'prompt': 'a', 'completion': 'b'},
  dpo={'prompt': 'a', 'chosen': 'b', 'rejected': 'c'},
  reward={'chosen': 'b', 'rejected': 'c'},
)


def trainer(job):
  """(a trainer of the stage, its model)."""
  kinds = dict(
    sft=(trl.SFTTrainer, trl.SFTConfig),
    dpo=(trl.DPOTrainer, trl.DPOConfig),
    reward=(trl.RewardTrainer, trl.RewardConfig),
  )
  kind, settings = kinds[job['stage']]
  auto = transformers.AutoModelForCausalLM
  more = {}
  if job['stage'] == 'reward':
    auto, more = transformers.AutoModelForSequenceClassification, {'num_labels': 1}
  made = auto.from_pretrained(job['folder'], dtype=torch.float32, **more)
  made.config.pad_token_id = PAD
  how = dict(output_dir=tempfile.mkdtemp(), report_to=[], use_cpu=True, bf16=False)
  how['gradient_checkpointing'] = job['remat'] == 'full'
  if job['stage'] == 'dpo':
    how |= dict(loss_type=['sigmoid', 'sft'], loss_weights=[1.0, 0.2], beta=0.1)
    how['precompute_ref_log_probs'] = True  # their values are in the batch
  data = Dataset.from_list([TINY[job['stage']]])
  words = transformers.AutoTokenizer.from_pretrained(job['folder'])
  words.pad_token = words.pad_token or words.eos_token
  settings = settings(**how, max_length=None)
  with contextlib.redirect_stdout(sys.stderr):
    found = kind(made, args=settings, train_dataset=data, processing_class=words)
  return found, made


def batch(job):
  """The batch of a job, by TRL's collators."""
  if job['stage'] == 'sft':
    rows = [
      {'input_ids': p + c, 'labels': [-100] * len(p) + c} for p, c, _ in job['rows']
    ]
    return sft_trainer.DataCollatorForLanguageModeling(PAD)(rows)
  if job['stage'] == 'dpo':
    rows = [
      {
        'prompt_ids': p,
        'chosen_ids': c,
        'rejected_ids': r,
        'ref_chosen_logps': -500.0,
        'ref_rejected_logps': -500.0,
      }
      for p, c, r in job['rows']
    ]
    return dpo_trainer.DataCollatorForPreference(PAD)(rows)
  rows = [dict(chosen_ids=p + c, rejected_ids=p + r) for p, c, r in job['rows']]
  return reward_trainer.DataCollatorForPreference(PAD)(rows)


def main():
  job = json.load(sys.stdin)
  job['stage'] = dict(joined='dpo').get(job['stage'], job['stage'])
  made, model = trainer(job)
  model.train()
  adam = torch.optim.AdamW(
    model.parameters(), 1e-6, (0.9, 0.95), 1e-5, weight_decay=0.1, fused=True
  )
  times, losses = [], []
  for _ in range(job['steps'] + 1):
    given = batch(job)
    start = cpu()
    loss = made.compute_loss(model, given)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    adam.step()
    adam.zero_grad()
    losses.append(loss.item())
    times.append(cpu() - start)
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  found = {'seconds': min(times[1:]), 'memory': peak * 1024, 'losses': losses}
  print(json.dumps(found))


if __name__ == '__main__':
  main()
