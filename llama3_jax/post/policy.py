"""How prompts of a capability are answered (4.2.2, 4.3): settings, system, language.

The paper steers tone, style and format with system prompts that differ by capability,
samples several languages at other temperatures, and drops answers in another language
or script than the prompt asks for.
"""

import dataclasses
import json
import os
import pathlib
import unicodedata
from collections.abc import Mapping

from ml_collections import ConfigDict

from llama3_jax import config as configs
from llama3_jax.base.errors import UserError
from llama3_jax.curate.measures import language
from llama3_jax.generate.settings import Settings

ENOUGH = 0.5  # of the letters of an answer are of its script


@dataclasses.dataclass(frozen=True)
class Policy:
  """How prompts are answered.

  Attributes:
    settings: of sampling.
    system: a system prompt while sampling; no dialog that is kept contains it.
    language: code of the language that answers must be in; '': any.
    script: first word of the Unicode names of their letters, such as latin or cyrillic;
      '': any.
  """

  settings: Settings = Settings()
  system: str = ''
  language: str = ''
  script: str = ''

  def fits(self, text: str) -> bool:
    """Whether an answer is in the language and the script that are asked for; one
    without letters is."""
    letters = [c for c in text if c.isalpha()]
    if not letters:
      return True
    if self.script:
      names = (unicodedata.name(c, '').partition(' ')[0] for c in letters)
      if sum(n == self.script.upper() for n in names) < ENOUGH * len(letters):
        return False
    return not self.language or language.detect(text)[0] == self.language


class Policies:
  """The Policy of each capability; of those without one, the one of the config."""

  def __init__(self, default: Policy, named: Mapping[str, Policy]) -> None:
    self.default, self.named = default, dict(named)

  def __getitem__(self, capability: str) -> Policy:
    return self.named.get(capability, self.default)

  @property
  def longest(self) -> int:
    """Tokens of the longest answer."""
    return max(p.settings.max_new for p in (self.default, *self.named.values()))


def of(config: ConfigDict, vocab_size: int) -> Policies:
  """The Policies of a config's `sample`, `system` and `policies`, the path of a file
  {capability: {field of sample, system, language or script: value}}."""
  own = configs.fill(Settings(vocab_size=vocab_size), config.sample, 'sample')
  default = Policy(own, config.system)
  named = _read(config.policies) if config.policies else {}
  return Policies(default, {n: _policy(default, row, n) for n, row in named.items()})


def _read(path: str | os.PathLike) -> dict:
  try:
    rows = json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
  except OSError as error:
    raise UserError(f'policies={path}: {error.strerror}') from None
  except ValueError as error:
    raise UserError(f'policies={path}: no JSON ({error})') from None
  if not isinstance(rows, dict) or not all(isinstance(r, dict) for r in rows.values()):
    raise UserError(f'policies={path}: it must be {{"capability": {{"field": value}}}}')
  return rows


def _policy(default, row, name):
  texts = {k: row[k] for k in ('system', 'language', 'script') if k in row}
  if wrong := [k for k, value in texts.items() if not isinstance(value, str)]:
    raise UserError(f'policies: {name}.{wrong[0]} must be a text')
  rest = {k: value for k, value in row.items() if k not in texts}
  settings = configs.fill(default.settings, rest, f'policies: {name}')
  if settings.vocab_size != default.settings.vocab_size:
    raise UserError(f'policies: {name}.vocab_size is that of the tokenizer: remove it')
  return dataclasses.replace(default, settings=settings, **texts)
