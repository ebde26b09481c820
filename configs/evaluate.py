"""Evaluation: argument says how the model is asked (chat, base)."""

import ml_collections

from configs import pretrain
from llama3_jax import config as configs


def get_config(arg='chat'):
  configs.choose('evaluate', arg, ('chat', 'base'))
  c = ml_collections.ConfigDict()
  c.experiment = 'evaluate'
  c.seed = 0
  c.init_from = 'runs/herd/average_2'
  c.mesh = pretrain.base().mesh
  c.tokenizer = ''  # vocabulary file; '': the one that init_from carries
  # Solved examples before a question; -1: ask in a chat; -2: each task's own number.
  c.shots = -1 if arg == 'chat' else -2
  # base, chat, long, tools or multilingual: its tasks, asked as the paper asks them,
  # in place of the tasks below; shots of 0 or more are those of each.
  c.suite = ''
  c.data = ''  # folder of benchmarks, of the suite and of tasks whose name ends with =
  c.longest_question = 8192  # tokens of the longest question of the suite long
  c.turns = 0  # in a chat: solved examples, as its earlier turns; -2: the task's own
  c.tasks = ('copy', 'sort', 'arithmetic', 'needle', 'format')
  c.against = ()  # workdirs of evaluations of the same questions, to compare with
  c.text = ()  # files or folders of your own text, for the loss on it
  c.examples = 100  # held-out examples of each task
  c.fewer = ()  # (('ifeval', 60), ...): of some tasks another number
  c.samples = 1  # answers to each question that is answered by writing: pass@k
  c.temperature = 0.0  # of their sampling; 0: greedy, which gives one answer
  c.dialogs = 2  # of each task, kept for the reader
  c.max_new = 24  # tokens of an answer, or what its task needs
  c.longest_answer = 0  # tokens, at most, whatever a task needs; 0: no limit
  c.batch = 16  # prompts decoded together, of up to 2,048 tokens; of longer ones fewer
  c.weights = ''  # fp8 | fp8_weights | int8 | int8_weights: of few bits (6.2)
  c.shards = ml_collections.ConfigDict(
    dict(root='', batch=16, length=256, batches=4, positions='row')
  )  # root: folder of token shards, for the held-out loss of each source
  return c
