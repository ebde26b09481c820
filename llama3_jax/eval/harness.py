"""A model of ours under lm-evaluation-harness (5.1): its three methods.

  python -m llama3_jax.eval.harness run --model llama3_jax \\
    --model_args pretrained=smollm2 --include_path bench/harness --tasks l3_piqa \\
    --metadata '{"folder": "DATA"}'

What follows the module is the command line of lm_eval 0.4 (extra `harness`).
"""

import itertools
from collections.abc import Sequence

from lm_eval import utils
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from llama3_jax.base import log
from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.generate import engine
from llama3_jax.generate import likelihood
from llama3_jax.generate.group import Request
from llama3_jax.generate.settings import Settings
from llama3_jax.model import llama
from llama3_jax.text.library import Library
from llama3_jax.text.tokenizer import Tokenizer
from llama3_jax.train import belongs
from llama3_jax.train import models

ROWS = 16  # answers written at a time
ANSWER = 256  # tokens of an answer for which a task names no number


@register_model('llama3_jax')
class Harness(LM):
  """A model as lm_eval asks it.

  pretrained: whatever `init_from` takes, or (params, config, tokenizer); tokenizer: a
  vocabulary file, '' for the model's. window: tokens of a window of rolling
  likelihoods, and the most of a prompt, whose beginning is left out where it is longer.
  batch_size: answers written at a time; 1, as lm_eval has it unless told, is 16.
  """

  def __init__(
    self,
    pretrained: str | tuple[llama.Params, ModelConfig, Tokenizer | Library],
    tokenizer: str = '',
    window: int = 2048,
    batch_size: int | str = 1,
    max_batch_size: object = None,
    device: object = None,
  ) -> None:
    super().__init__()
    del max_batch_size, device  # lm_eval gives them to every model
    if isinstance(pretrained, str):
      found = belongs.tokenizer(tokenizer, pretrained, 'model_args')
      pretrained = *models.load(pretrained), found
    self.params, self.config, self.tokenizer = pretrained
    self.window, size = int(window), str(batch_size)
    self.batch_size = int(size) if size.isdecimal() and int(size) > 1 else ROWS

  def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
    """(log-probability of a continuation after its context, whether it is greedy)."""
    return self._weighed([self._pair(*request.args) for request in requests])

  def loglikelihood_rolling(self, requests: Sequence[Instance]) -> list[float]:
    """Log-probability of whole texts, window by window, each token once."""
    pairs, counts = [], []
    for request in requests:
      ids = self.tokenizer.encode(request.args[0])
      cut = utils.get_rolling_token_windows(ids, self._first, self.window, 1)
      windows = [utils.make_disjoint_window(pair) for pair in cut]
      pairs += windows
      counts.append(len(windows))
    logps = iter(logp for logp, _ in self._weighed(pairs))
    return [sum(itertools.islice(logps, count)) for count in counts]

  def generate_until(self, requests: Sequence[Instance]) -> list[str]:
    """What follows each context, up to the first of its stop texts."""
    asked = [self._asked(*request.args) for request in requests]
    longest = max((len(a.prompt) + a.settings.max_new for a, _ in asked), default=0)
    if not longest:
      return []
    sizes = engine.sizes(longest, self.batch_size, 1)
    runner, texts = engine.Engine(self.params, self.config, sizes), {}
    answers = [runner.submit(request)[0] for request, _ in asked]
    ends = {answer: stops for answer, (_, stops) in zip(answers, asked)}
    with log.work(f'writing {len(answers):,} answers'):
      while not runner.idle:
        for answer in runner.step():
          texts[answer] = self._text(answer)
          if any(stop in texts[answer] for stop in ends[answer]):
            runner.cancel(answer)
    return [_cut(texts.get(answer, ''), ends[answer]) for answer in answers]

  @property
  def _first(self):
    """The id before a text without a context."""
    t = self.tokenizer
    if t.bos is None and 'bos_token' in t.tokens:  # known, but not put before texts
      return t.special(t.tokens['bos_token'])
    return t.stop_ids[0] if t.bos is None else t.bos

  def _pair(self, context, continuation):
    """(ids, ids): space at the end of the context belongs to the continuation."""
    end = len(context.rstrip())
    context, continuation = context[:end], context[end:] + continuation
    if not context:
      return [self._first], self.tokenizer.encode(continuation)
    before = self.tokenizer.encode(context, bos=True)
    whole = self.tokenizer.encode(context + continuation, bos=True)
    return before, whole[len(before) :]

  def _weighed(self, pairs):
    prompts = [prompt[-self.window :] for prompt, _ in pairs]
    answers = [answer for _, answer in pairs]
    if not all(answers):
      raise UserError(f'request {answers.index([])}: the continuation is empty')
    with log.work(f'weighing {len(pairs):,} continuations'):
      found = likelihood.weighed(self.params, prompts, answers, self.config)
    return [(float(logp), bool(greedy)) for logp, greedy in zip(*found)]

  def _asked(self, context, given):
    """(Request, stop texts) of a context and lm_eval's settings of generation."""
    until = given.get('until') or []
    until = [until] if isinstance(until, str) else until
    most = given.get('max_gen_toks') or given.get('max_new_tokens') or ANSWER
    drawn = given.get('do_sample', float(given.get('temperature', 0)) > 0)
    warmth = float(given.get('temperature', 1.0)) if drawn else 0.0
    top = float(given.get('top_p', 1.0)), int(given.get('top_k', 0))
    how = Settings(warmth, *top, int(most), self.tokenizer.vocab_size)
    ids = self.tokenizer.encode(context, bos=True)[-self.window :] or [self._first]
    return Request(ids, how, self.tokenizer.stop_ids), [s for s in until if s]

  def _text(self, answer):
    ids = answer.ids[:-1] if answer.end == 'stop' else answer.ids
    return self.tokenizer.decode(ids)


def _cut(text, stops):
  """The text before the first of the stops."""
  return text[: min((text.find(s) for s in stops if s in text), default=len(text))]


if __name__ == '__main__':
  from lm_eval.__main__ import cli_evaluate

  cli_evaluate()
