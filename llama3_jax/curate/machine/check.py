"""Checks of a configuration of curation (3.1.1)."""

from llama3_jax.base.errors import UserError
from llama3_jax.config import nearest
from llama3_jax.curate.duplicates import minhash
from llama3_jax.curate.judging import classifier
from llama3_jax.curate.judging import classify
from llama3_jax.curate.judging import judge
from llama3_jax.curate.judging import knowledge
from llama3_jax.curate.machine import documents
from llama3_jax.curate.machine import engine
from llama3_jax.curate.machine import output
from llama3_jax.curate.machine import stages
from llama3_jax.curate.measures import unigram
from llama3_jax.curate.rules import exclude
from llama3_jax.curate.rules import heuristics
from llama3_jax.curate.rules import urls

CLASSIFIERS = ('quality', 'code', 'reasoning', 'kinds')
POSITIVE = (
  *('read.max_bytes', 'read.batch_bytes', 'url.bucket', 'line.bucket'),
  *('document.bucket', 'document.bands', 'document.rows', 'document.gram'),
  *('repeated.gram', 'unigram.buckets', 'exclude.gram'),
  *(f'{name}.model.{f}' for name in CLASSIFIERS for f in ('words', 'steps', 'batch')),
)


def check(config: stages.Config) -> None:
  """Checks a configuration before a run, and reads every list that it names.

  Args:
    config: stages.Config. What it loads stays in the caches of the modules.

  Raises:
    UserError: a field out of its range, or a list that cannot be read.
  """
  on = {stage.name for stage in stages.stages(config)}
  _run(config)
  for path in POSITIVE:
    value = config
    for name in path.split('.'):
      value = getattr(value, name)
    if value < 1:
      raise UserError(f'curate.{path}={value}: a number above 0 is needed')
  for name in ('url', 'document', 'line'):
    for kind in getattr(config, name).scope:
      _one_of(f'curate.{name}.scope', kind, documents.SCOPES)
  for kind in config.document.prefer:
    _one_of('curate.document.prefer', kind, minhash.PREFER)
  for path in config.urls.host_lists:
    urls.load_list(path, config.urls.cache)
  for path in config.urls.url_lists:
    urls.load_list(path, config.urls.cache, 'urls')
  heuristics.rules(config.heuristics)
  heuristics.vocabulary(config.heuristics)
  if 'unigram' in on:
    unigram.vocabulary(config.unigram)
  if 'benchmark' in on:
    exclude.load(config.exclude)
  for name in CLASSIFIERS:
    _classifier(name, getattr(config, name))
  if 'knowledge_model' in on:
    knowledge.caps(classify.classes(config.kinds), config.knowledge)


def _run(config):
  """Checks the fields that say where a run is executed."""
  _one_of('engine', config.engine, engine.ENGINES)
  _one_of('curate.form', config.form, output.FORMS)
  if config.workers < 0:
    raise UserError(f'workers={config.workers}: 0 (one a core) or more')
  if config.hosts < 1:
    raise UserError(f'hosts={config.hosts}: 1 or more')
  if not 0 <= config.host < config.hosts:
    raise UserError(f'host={config.host}: one of 0 to {config.hosts - 1} (hosts)')


def _classifier(name, config):
  """Checks the judge and the model of a classifier that is on."""
  if not config.judge:
    return
  if not config.judge.startswith('file:'):
    _one_of(f'curate.{name}.judge', config.judge, (*judge.RULES, 'file:PATH'))
  classify.classes(config)
  for category in config.categories:
    _one_of(f'curate.{name}.categories', category, documents.CATEGORIES)
  model = config.model
  _one_of(f'curate.{name}.model.kind', model.kind, classifier.KINDS)
  if model.buckets < 1 or model.buckets & (model.buckets - 1):
    raise UserError(
      f'curate.{name}.model.buckets={model.buckets}: a power of 2 is needed'
    )
  if model.kind == 'encoder' and model.dim % model.heads:
    raise UserError(
      f'curate.{name}.model.dim={model.dim}: not a multiple of heads={model.heads}'
    )


def _one_of(path, value, choices):
  if value not in choices:
    near = nearest(str(value), choices)
    hint = f'; did you mean {" or ".join(near)}?' if near else ''
    raise UserError(f'{path}: {value!r} must be one of {", ".join(choices)}{hint}')
