"""A model of ours in a chat under inspect-ai (5.1): its provider `llama3_jax`.

inspect eval task.py --model llama3_jax/MODEL -M window=8192
"""

import asyncio

from inspect_ai import model as api

from llama3_jax.base.errors import UserError
from llama3_jax.generate import engine
from llama3_jax.generate.group import Request
from llama3_jax.generate.settings import Settings
from llama3_jax.serve.worker import Job
from llama3_jax.serve.worker import Worker
from llama3_jax.text import chat
from llama3_jax.train import belongs
from llama3_jax.train import models


@api.modelapi('llama3_jax')
class Provider(api.ModelAPI):
  """A model, whatever `init_from` takes; greedy unless a task names a temperature.

  window: most tokens of a prompt with its answer; rows: answers decoded at a time.
  """

  def __init__(
    self, model_name, base_url=None, api_key=None, config=None, window=4096, rows=16
  ) -> None:
    super().__init__(model_name, base_url, api_key, [], config or api.GenerateConfig())
    self.window, self.rows = int(window), int(rows)
    self.tokenizer = belongs.tokenizer('', model_name, 'model')
    found = models.load(model_name, field='model')
    self.engine = engine.Engine(*found, engine.sizes(self.window, self.rows, 1))
    self.worker, self.loop, self.asked = None, None, 0

  def max_connections(self) -> int:
    """How many requests inspect makes at a time, so that no row idles."""
    return 2 * self.rows

  async def generate(self, input, tools, tool_choice, config) -> api.ModelOutput:
    """The answer to a dialog; UserError for tools, which `serve` offers to inspect."""
    if tools:
      raise UserError('tools: start `serve`, and ask it by openai-api of inspect')
    said = [chat.Message(m.role, m.text) for m in input]
    ids = chat.encode(self.tokenizer, said, prompt=True).ids.tolist()
    most = min(config.max_tokens or 1024, self.window - len(ids))
    if most < 1:
      return api.ModelOutput.from_content(self.model_name, '', 'model_length')
    top = 1.0 if config.top_p is None else config.top_p, config.top_k or 0
    how = Settings(config.temperature or 0, *top, most, self.tokenizer.vocab_size)
    self.asked += 1  # another answer each time, unless the task names a seed
    seed = self.asked if config.seed is None else config.seed % 2**32
    job = Job(Request(ids, how, self.tokenizer.stop_ids, 1, seed), asyncio.Queue())
    sampled, end = await self._answered(job)
    text = chat.sampled(self.tokenizer, sampled).content
    for stop in filter(None, config.stop_seqs or ()):
      text = text.partition(stop)[0]
    end = {'length': 'max_tokens'}.get(end, end)
    return api.ModelOutput.from_content(self.model_name, text, end)

  async def _answered(self, job):
    """(ids, end) of an answer: a thread decodes all that are asked at a time."""
    if (loop := asyncio.get_running_loop()) is not self.loop:
      if self.worker:  # of an earlier evaluation of this process
        self.worker.close()
      self.worker, self.loop = Worker(self.engine, 10**6), loop
      self.worker.start(loop)
    self.worker.submit([job])
    ids, end = [], ''
    while not end:
      piece = await job.pieces.get()
      ids, end = ids + list(piece.ids), piece.end
    if end == 'failed':
      raise RuntimeError('the engine has failed') from self.worker.failure
    return ids, end
