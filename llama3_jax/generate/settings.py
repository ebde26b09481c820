"""How an answer is sampled, and when it ends (4.2.2)."""

import dataclasses
import math
import numbers
from collections.abc import Sequence

from llama3_jax.base.errors import UserError
from llama3_jax.generate import draw

COLDEST = 1e-3  # below it, logits / temperature may overflow float32
KINDS = {
  'temperature': numbers.Real,
  'top_p': numbers.Real,
  'top_k': numbers.Integral,
  'max_new': numbers.Integral,
  'vocab_size': numbers.Integral,
  'min_p': numbers.Real,
  'repetition': numbers.Real,
  'presence': numbers.Real,
  'frequency': numbers.Real,
  'alternatives': numbers.Integral,
}


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings of sampling; the defaults are those of the release code.

  Attributes:
    temperature: 0 is greedy.
    top_p: share of the probability that is sampled from; 1 keeps every token.
    top_k: number of tokens that are sampled from; 0 keeps every one.
    max_new: longest answer, tokens.
    vocab_size: that of the tokenizer, where the model may have more rows, which are
      then never sampled; 0: sample from all rows.
    min_p: least probability, as a share of the likeliest's; 0 keeps every token.
    repetition: by which logits of tokens that were seen, in the prompt too, are divided
      where they are positive, and multiplied where not.
    presence, frequency: taken from the logit of a sampled token, once and each time.
    bias: ((token, what is added to its logit), ...).
    alternatives: likeliest tokens whose log-probabilities are kept at each step.

  Raises UserError for a value without a meaning.
  """

  temperature: float = 0.6
  top_p: float = 0.9
  top_k: int = 0
  max_new: int = 256
  vocab_size: int = 0
  min_p: float = 0.0
  repetition: float = 1.0
  presence: float = 0.0
  frequency: float = 0.0
  bias: tuple[tuple[int, float], ...] = ()
  alternatives: int = 0

  def __post_init__(self) -> None:
    for name, kind in KINDS.items():
      value = getattr(self, name)
      if not isinstance(value, kind) or isinstance(value, bool):
        due = 'a whole number' if kind is numbers.Integral else 'a number'
        self._refuse(name, repr(value), due)
    most = draw.ALTERNATIVES
    warm = COLDEST <= self.temperature < math.inf
    rules = {
      'temperature': (warm or self.temperature == 0, f'0 or at least {COLDEST}'),
      'top_p': (0 < self.top_p <= 1, 'above 0 and at most 1'),
      'top_k': (0 <= self.top_k < 2**31, 'at least 0 (0 keeps every token)'),
      'max_new': (self.max_new >= 1, 'at least 1'),
      'vocab_size': (0 <= self.vocab_size < 2**31, 'at least 0'),
      'min_p': (0 <= self.min_p <= 1, 'from 0 to 1'),
      'repetition': (0.01 <= self.repetition <= 100, 'from 0.01 to 100'),
      'presence': (abs(self.presence) <= 100, 'from -100 to 100'),
      'frequency': (abs(self.frequency) <= 100, 'from -100 to 100'),
      'alternatives': (0 <= self.alternatives <= most, f'from 0 to {most}'),
    }
    for name, (right, limits) in rules.items():
      if not right:
        self._refuse(name, getattr(self, name), limits)
    if len(self.bias) > draw.BIASED:
      self._refuse('bias', f'{len(self.bias)} tokens', f'at most {draw.BIASED} tokens')
    for token, value in self.bias:
      whole = isinstance(token, numbers.Integral) and token >= 0
      if not whole or not abs(value) <= 100:
        self._refuse('bias', f'{token}: {value}', 'a token and -100 to 100')

  def _refuse(self, name, value, due):
    raise UserError(f'sample.{name}={value}: it must be {due}')

  @property
  def penalised(self) -> bool:
    """Whether what was said before counts."""
    return self.repetition != 1 or self.presence != 0 or self.frequency != 0

  def write(self, rules: draw.Rules, at: tuple[int, int], stops: Sequence[int]) -> None:
    """Writes the settings of the row `at` into numpy arrays."""
    for name in KINDS:
      if name != 'max_new':
        getattr(rules, name)[at] = getattr(self, name)
    rules.stops[at][: len(stops)] = stops
    for j, (token, value) in enumerate(self.bias):
      rules.bias_ids[at][j], rules.bias[at][j] = token, value
