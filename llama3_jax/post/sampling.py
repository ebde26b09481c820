"""What a run of rejection sampling is asked, and one part of it (4.2.2)."""

import contextlib
import functools
import math
import pathlib

import jax
from ml_collections import ConfigDict

from llama3_jax import config as configs
from llama3_jax import mesh as meshes
from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.generate import stages
from llama3_jax.model import rowwise
from llama3_jax.post import choice
from llama3_jax.post import parts
from llama3_jax.post import policy
from llama3_jax.post import preference
from llama3_jax.post import reject
from llama3_jax.post import reward
from llama3_jax.post.reject import Asked
from llama3_jax.tasks import suite
from llama3_jax.text import chat
from llama3_jax.train import belongs
from llama3_jax.train import models


class Job:
  """Prompts in parts: job(number) answers one and writes its file; `count` parts.

  Pickled without its models, which a process loads when its first part comes.
  """

  def __init__(self, config: ConfigDict, folder: pathlib.Path) -> None:
    self.config, self.folder = config, folder
    self._meshed = not jax.sharding.get_mesh().empty
    rowwise.check(config.weights)
    parts.check(config.hosts, config.host)
    if config.choose not in choice.CHOICES:
      known = ', '.join(choice.CHOICES)
      raise UserError(f'choose={config.choose!r}: it must be one of {known}')
    if config.choose == 'minimum' and not config.second_from:
      raise UserError('choose=minimum needs another reward model: set second_from')
    self.tokenizer = belongs.tokenizer(
      config.data.tokenizer, config.init_from, 'data.tokenizer'
    )
    self.policies = policy.of(config, self.tokenizer.vocab_size)
    for field, path in self._folders()[1:]:
      belongs.same('init_from', config.init_from, field, path)
    self.tasks = []
    if config.data.tasks:
      names = config.data.task_names
      self.tasks = suite.mixed(config.data.tasks, config.seed + 1, 'train', names)
    self.asked = [
      Asked((chat.Message('user', suite.asked(e)),), e.task) for e in self.tasks
    ]
    for path in config.data.files:
      self.asked += [Asked(e.prompt, e.source) for e in preference.read(path)]
    if not self.asked:
      raise UserError('no prompts: set data.tasks or data.files')
    self._check_policies()
    self.count = -(-len(self.asked) // config.part)

  def _check_policies(self):
    """UserError for policies of capabilities that no prompt has."""
    there = sorted({one.capability for one in self.asked})
    for name in self.policies.named:
      if name not in there:
        near = configs.nearest(name, there) or there[:5]
        raise UserError(
          f'policies={self.config.policies}: no prompt is of {name!r}: its tasks and '
          f'sources are {", ".join(map(repr, near))}'
        )

  def _folders(self):
    """[(field, folder)] of all models, those that answer first."""
    c = self.config
    given = [('init_from', c.init_from)]
    given += [('candidates', path) for path in c.candidates]
    given += [('reward_from', c.reward_from)]
    return given + ([('second_from', c.second_from)] if c.second_from else [])

  def __call__(self, number: int) -> int:
    """Answers the prompts of a part and writes them; returns how many there are."""
    size = self.config.part
    asked = self.asked[number * size : (number + 1) * size]
    with self._mesh():
      found = self._sampler(asked)
    jsonl.write(parts.path(self.folder, number), reject.candidate_rows(found))
    return len(found)

  @functools.cached_property
  def _sampler(self):
    c = self.config
    answering, scorers, sizes = {}, {}, {}
    for field, path in self._folders():
      if field in ('reward_from', 'second_from'):
        made = reward.load(path, field)
        scorers[field.removesuffix('_from')], model = made, made[1]
      else:
        params, model = models.load(path, field=field)
        answering[path] = stages.prepared(params, model, c.weights), model
      sizes[field] = model.vocab_size
      if model.vocab_size != sizes['init_from']:
        raise UserError(
          f'{field}={path} has {model.vocab_size} tokens and init_from '
          f'{sizes["init_from"]}: name a model of the same vocabulary'
        )
    made = reject.Sampler(
      *(answering, scorers, self.tokenizer, self.policies),
      *(c.samples, c.seed, c.batch, c.wave, math.inf if c.bar is None else c.bar),
    )
    made.prepare(self.asked)
    return made

  def __getstate__(self) -> dict:
    return {k: v for k, v in self.__dict__.items() if k != '_sampler'}

  def _mesh(self):
    """The mesh of the config, in a process of a cluster that has none."""
    if not self._meshed or not jax.sharding.get_mesh().empty:
      return contextlib.nullcontext()
    return jax.set_mesh(meshes.create(self.config.mesh))
