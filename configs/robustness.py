"""Scores where labels, order and form change: argument says how to ask (base, chat)."""

import ml_collections

from configs import pretrain
from llama3_jax import config as configs


def get_config(arg='base'):
  configs.choose('robustness', arg, ('base', 'chat'))
  c = ml_collections.ConfigDict()
  c.experiment = 'robustness'
  c.seed = 0
  c.init_from = 'runs/herd/average_2'
  c.mesh = pretrain.base().mesh
  c.tokenizer = ''  # vocabulary file; '': the one that init_from carries
  c.task = 'mmlu='  # answered by letters: mmlu, arc_letters, each with =FILE; '': none
  c.data = ''  # folder of benchmarks, of a task whose name ends with =
  c.examples = 1000  # questions, the same in every variant
  # Solved examples before a question; -1: ask in a chat; -2: the paper's number, four,
  # and of `pairs` each task's own.
  c.shots = -1 if arg == 'chat' else -2
  # Letters of the right answers of the solved examples, in turn.
  c.biases = () if arg == 'chat' else ('AAAA', 'ABCD', 'AABB', 'CCDD')
  c.labels = (
    *('A. B. C. D.', 'A) B) C) D)', '(A) (B) (C) (D)', '1. 2. 3. 4.'),
    *('$. &. #. @.', 'œ. §. з. ü.'),  # common tokens, rare ones
  )
  # Choices by their letters, in the order in which they are listed: four rotations, in
  # which each choice has each label once, and the reverse.
  c.orders = ('ABCD', 'BCDA', 'CDAB', 'DABC', 'DCBA')
  c.formats = ('bare', 'named', 'topic', 'rules', 'examination')
  c.pairs = ()  # (('squad=dev.json', 'squad=adversarial.json'), ...)
  c.against = ()  # workdirs of other models on the same questions
  c.max_new = 24  # tokens of an answer of `pairs`, or what its task needs
  c.batch = 16  # prompts of `pairs` decoded together
  return c
