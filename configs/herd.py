"""The whole recipe in one run: tiny, from web pages; or the rounds of smollm2."""

import ml_collections

from configs import anneal
from configs import assets
from configs import average
from configs import curate
from configs import dpo
from configs import evaluate
from configs import long_context
from configs import pretrain
from configs import reject
from configs import reward
from configs import rounds
from configs import sft
from configs import shards
from configs import tokenizer


def get_config(size='tiny'):
  if size == 'smollm2':
    return rounds.get_config(size)
  c = ml_collections.ConfigDict()
  c.experiment = 'herd'
  c.seed = 0
  c.mesh = pretrain.base().mesh
  c.data = ''  # folder of real preference data, maths and code (see data/assets.py)
  # The reward model's rows with it: three answers by people take 300 to 1,000 tokens.
  c.data_rows = ml_collections.ConfigDict(dict(length=768, batch=6))
  c.task_names = ('copy', 'sort', 'arithmetic', 'needle', 'format')  # that train it
  c.rounds = 2  # of post-training; six in the paper (4)
  c.members = 2  # DPO runs of a round that are averaged (4.1.5)
  c.shots = 4  # solved examples before a question to the base model
  c.curate = curate.get_config('herd')
  c.assets = assets.get_config()
  c.tokenizer = tokenizer.get_config('tiny')
  c.shards = shards.get_config(size)
  c.pretrain = pretrain.get_config(size)
  c.long_context = long_context.get_config(size)
  c.anneal = anneal.get_config(size)
  c.control = anneal.get_config(size)  # keeps the learning rate, averages nothing
  c.control.experiment = 'pretrain'
  del c.control.train.average
  c.control.optim.anneal_steps = 0
  c.control.train.save_every = c.control.train.steps
  c.seed_sft = sft.get_config(size)  # demonstrations: the first model that chats
  c.seed_sft.data.tasks = 1000
  c.seed_sft.train.steps = c.seed_sft.optim.decay = 90
  c.seed_sft.optim.peak = 3e-3
  c.reward = reward.get_config(size)
  c.reject = reject.get_config(size)
  # The reward alone is exploited from K=4 on: its best answers are less often right.
  c.reject.choose = 'votes'
  c.sft = sft.get_config(size)
  c.dpo = dpo.get_config(size)
  c.dpo.data.tasks = 200  # annotations of the round; constructed pairs fill it up
  c.average = average.get_config()
  c.evaluate = evaluate.get_config('chat')
  c.evaluate.examples = 150
  c.evaluate.batch = 64  # the programs of rejection sampling
  rounds.unwire(c)
  return c
