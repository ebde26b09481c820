"""Rejection sampling: argument is the size (tiny, paper)."""

import ml_collections

from configs import pretrain
from llama3_jax import config as configs


def get_config(size='tiny'):
  configs.choose('reject', size, ('tiny', 'paper', *pretrain.PEAK))
  c = ml_collections.ConfigDict()
  c.experiment = 'reject'
  c.seed = 0
  c.init_from = 'runs/herd/average_2'  # the model that answers: the last round's best
  c.candidates = ()  # other models that answer too, each K times
  c.reward_from = 'runs/herd/reward_2'
  c.second_from = ''  # another reward model, to judge the first or for choose=minimum
  c.choose = 'reward'  # minimum (of both) | length (less its part) | votes (too)
  c.mesh = pretrain.base().mesh
  c.samples = 8 if size == 'tiny' else 20  # K, 10 to 30 in the paper (4.2.2)
  c.batch = 8  # prompts decoded together, each with its K samples
  c.wave = 0  # of the K answers at a time; 0: all at once
  c.bar = None  # a prompt whose best reward reaches it gets no further wave
  c.round = 0  # of post-training, written into the preferences; 0: none
  c.verify = False  # True: of tasks, only answers that are right are kept (4.3.3)
  c.system = ''  # steers tone, style or format of the answers
  c.policies = ''  # file {capability: {field of sample, system, language, script: ...}}
  c.part = 256  # prompts of a part, a file: where the same command goes on
  c.engine = 'local'  # this process; 'ray': a cluster
  c.hosts = 1  # that share the workdir
  c.host = 0  # number of this one
  c.weights = ''  # fp8 | fp8_weights | int8 | int8_weights: of few bits (6.2)
  c.sample = ml_collections.ConfigDict(
    dict(temperature=1.0, top_p=1.0, top_k=0, max_new=24 if size == 'tiny' else 2048)
  )
  c.data = ml_collections.ConfigDict(
    dict(
      tokenizer='',  # vocabulary file; '': the one that init_from carries
      tasks=600 if size == 'tiny' else 0,  # generated prompts, with checkable answers
      task_names=('copy', 'sort', 'arithmetic', 'needle', 'format'),  # of tasks/
      files=(),  # JSONL files of preference rows, whose prompts are taken
    )
  )
  return c
