"""MMLU after reasoning: the letter is written, not weighed (5.2).

--config.tasks="('mmlu_cot=DIR',)": the folder or zip of MMLU, or 'DIR,SUBJECT'. In the
paper a chat model thinks first, in up to 1,024 tokens, with no solved example.
"""

import dataclasses

from llama3_jax.tasks import mmlu
from llama3_jax.tasks import mmlu_pro
from llama3_jax.tasks import reading
from llama3_jax.tasks import task


def create(source: str = '') -> task.Task:
  """The Task of 'DIR' or 'DIR,SUBJECT'."""
  made = mmlu.create(source)

  def examples(split, n, seed):
    reading.held_out(split, 'mmlu_cot')
    found = made.examples(split, n, seed)
    return [dataclasses.replace(e, choices=()) for e in found]

  return task.Task(
    *(examples, mmlu_pro.score, mmlu_pro.prompt, mmlu_pro.page),
    stop='\nQuestion:',
    max_new=1024,
    summary=task.by_kind(mmlu_pro.score, 'mean over subjects'),
    shots=0,
  )
