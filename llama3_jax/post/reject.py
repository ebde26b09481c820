"""Rejection sampling (4.2.2): of K answers a prompt, the one with the best reward."""

import dataclasses
import math
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from llama3_jax.config import ModelConfig
from llama3_jax.generate import engine
from llama3_jax.generate.engine import Completion
from llama3_jax.generate.engine import Engine
from llama3_jax.generate.group import Request
from llama3_jax.model import llama
from llama3_jax.post import reward
from llama3_jax.post import together
from llama3_jax.post.policy import Policies
from llama3_jax.text import chat
from llama3_jax.text.tokenizer import Tokenizer

CUT = -math.inf  # reward of an answer that was cut off, or is in another language


@dataclasses.dataclass(frozen=True)
class Candidates:
  """The answers to one prompt, with the sampled ids, and their rewards (CUT: never
  taken).

  models: which model gave each, by name; numbers: of each among the samples of its
  model; others: {name: rewards of another reward model}; capability: of the prompt.
  """

  prompt: tuple[chat.Message, ...]
  responses: tuple[chat.Message, ...]
  rewards: tuple[float, ...]
  models: tuple[str, ...] = ()
  numbers: tuple[int, ...] = ()
  others: Mapping[str, tuple[float, ...]] = dataclasses.field(default_factory=dict)
  capability: str = ''

  @property
  def best(self) -> int | None:
    """Index of the highest reward; None when every answer was cut off."""
    best = int(np.argmax(self.rewards))
    return None if self.rewards[best] == CUT else best


@dataclasses.dataclass(frozen=True)
class Asked:
  """A prompt and its capability, which chooses the Policy."""

  messages: tuple[chat.Message, ...]
  capability: str = ''


class Sampler:
  """Models that answer, reward models that score, and how much is sampled.

  models: {name: (params, ModelConfig)}, params as llama.Params or as stages.prepared
  gives them; scorers: {name: (Reward, ModelConfig)}, the first of which chooses;
  samples: K of each model; wave: of them at a time, after which a prompt whose best
  reward is at least `bar` gets no more (0: all at once); batch: prompts that decode
  together.
  """

  def __init__(
    self,
    models: Mapping[str, tuple[llama.Params, ModelConfig]],
    scorers: Mapping[str, tuple[reward.Reward, ModelConfig]],
    tokenizer: Tokenizer,
    policies: Policies,
    samples: int,
    seed: int = 0,
    batch: int = 8,
    wave: int = 0,
    bar: float = math.inf,
  ) -> None:
    self.models, self.scorers, self.tokenizer = models, scorers, tokenizer
    self.policies, self.samples, self.seed, self.batch = policies, samples, seed, batch
    self.wave, self.bar, self._engines = wave or samples, bar, {}

  def prepare(self, asked: Sequence[Asked]) -> None:
    """Makes the engines, with room for the longest of all prompts of a run: the same
    shapes give the same bits, in whatever parts the prompts come."""
    longest = max(len(self._ids(one, True)) for one in asked) + self.policies.longest
    sizes = engine.sizes(longest, self.batch, min(self.wave, self.samples))
    for name, (params, config) in self.models.items():
      self._engines[name] = Engine(params, config, sizes)

  def __call__(self, asked: Sequence[Asked]) -> list[Candidates]:
    """The answers to each prompt, in waves."""
    found = [
      Candidates(one.messages, (), (), capability=one.capability) for one in asked
    ]
    for first in range(0, self.samples, self.wave):
      count = min(self.wave, self.samples - first)
      going = [
        i for i, c in enumerate(found) if not c.rewards or max(c.rewards) < self.bar
      ]
      for name in self.models if going else ():
        more = self._wave(name, [asked[i] for i in going], first, count)
        for i, new in zip(going, more):
          found[i] = _joined(found[i], new)
    return found

  def _wave(self, name, asked, first, count):
    """`count` answers of a model to each prompt, scored."""
    made, policies = self._engines[name], [self.policies[a.capability] for a in asked]
    stops = tuple(self.tokenizer.stop_ids)
    every = [
      made.submit(
        Request(self._ids(a, True), p.settings, stops, count, self.seed, first=first)
      )
      for a, p in zip(asked, policies)
    ]
    while not made.idle:
      made.step()
    answers = [[Completion.of(answer) for answer in group] for group in every]
    # The reward models score exactly the sampled ids.
    prompts = [self._ids(a, False) for a in asked]
    said = [[c.sampled for c in group] for group in answers]
    scored = {
      n: together.rewards(scorer, prompts, said, config)
      for n, (scorer, config) in self.scorers.items()
    }
    given = zip(asked, policies, answers, zip(*scored.values()))
    return [self._scored(name, first, *each) for each in given]

  def _scored(self, name, first, asked, policy, answers, rewards):
    said = tuple(chat.sampled(self.tokenizer, c.sampled) for c in answers)
    kept = [c.stopped and policy.fits(m.content) for c, m in zip(answers, said)]
    every = [
      tuple(float(r) if k else CUT for r, k in zip(each, kept)) for each in rewards
    ]
    others = dict(zip(list(self.scorers)[1:], every[1:]))
    numbers = tuple(range(first, first + len(said)))
    names, what = (name,) * len(said), asked.capability
    return Candidates(asked.messages, said, every[0], names, numbers, others, what)

  def _ids(self, asked, steered):
    system = self.policies[asked.capability].system if steered else ''
    steer = [chat.Message('system', system)] if system else []
    messages = [*steer, *asked.messages]
    return chat.encode(self.tokenizer, messages, prompt=True).ids.tolist()


def _joined(a, b):
  """Candidates with more answers."""
  others = {n: a.others.get(n, ()) + r for n, r in b.others.items()}
  return dataclasses.replace(
    a,
    responses=a.responses + b.responses,
    rewards=a.rewards + b.rewards,
    models=a.models + b.models,
    numbers=a.numbers + b.numbers,
    others=others,
  )


def sft_rows(candidates: Sequence[Candidates], source: str = 'reject') -> list[dict]:
  """SFT rows (`messages`, `source`, `reward`) of each prompt's best answer, whole
  messages with the sampled ids."""
  rows = []
  for candidate in candidates:
    best = candidate.best
    if best is None:
      continue
    dialog = [*candidate.prompt, candidate.responses[best]]
    messages = [chat.fields(m) for m in dialog]
    rows.append(
      {'messages': messages, 'source': source, 'reward': candidate.rewards[best]}
    )
  return rows


def candidate_rows(candidates: Sequence[Candidates]) -> list[dict]:
  """JSON rows of all answers: `prompt`, `responses`, `rewards` and `others` (null: cut
  off), `models`, `numbers`, `capability`."""
  return [
    {
      'prompt': [chat.fields(m) for m in c.prompt],
      'responses': [chat.fields(m) for m in c.responses],
      'rewards': _plain(c.rewards),
      'models': list(c.models),
      'numbers': list(c.numbers),
      'others': {name: _plain(values) for name, values in c.others.items()},
      'capability': c.capability,
    }
    for c in candidates
  ]


def _plain(rewards):
  return [None if r == CUT else r for r in rewards]


def candidates(row: Mapping) -> Candidates:
  """The Candidates of a row of candidate_rows."""
  values = lambda given: tuple(CUT if r is None else r for r in given)
  read = lambda rows: tuple(chat.message(m, 'candidates.jsonl') for m in rows)
  return Candidates(
    read(row['prompt']),
    read(row['responses']),
    values(row['rewards']),
    tuple(row['models']),
    tuple(row['numbers']),
    {name: values(given) for name, given in row['others'].items()},
    row['capability'],
  )
