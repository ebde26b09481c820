"""The stages of curation in the paper's order, and the config of each (3.1.1)."""

from __future__ import annotations  # fields are named as their modules

import dataclasses
from collections.abc import Callable

from llama3_jax.base.errors import UserError
from llama3_jax.curate.duplicates import boilerplate
from llama3_jax.curate.duplicates import lines
from llama3_jax.curate.duplicates import minhash
from llama3_jax.curate.duplicates import newest
from llama3_jax.curate.extraction import extract
from llama3_jax.curate.judging import classify
from llama3_jax.curate.judging import knowledge
from llama3_jax.curate.judging import rank
from llama3_jax.curate.machine import documents
from llama3_jax.curate.measures import language
from llama3_jax.curate.measures import repetition
from llama3_jax.curate.measures import unigram
from llama3_jax.curate.reading import read
from llama3_jax.curate.reporting import margins
from llama3_jax.curate.rules import c4
from llama3_jax.curate.rules import domains
from llama3_jax.curate.rules import exclude
from llama3_jax.curate.rules import heuristics
from llama3_jax.curate.rules import normal
from llama3_jax.curate.rules import outliers
from llama3_jax.curate.rules import pii
from llama3_jax.curate.rules import urls

DROPS = ('drop_reason', 'drop_value')
ABOUT = ('id', 'host', 'lang', 'category', 'bytes', *DROPS)  # that statistics need
PII = (*ABOUT, 'pii.count', 'pii.rate')
OUTLIER = (*ABOUT, unigram.DIVERGENCE, unigram.TOKENS, *outliers.MEASURED)
MEASURED = (*ABOUT, *sorted({column for _, _, column in heuristics.RULES}))
NEEDS = {'heuristics': 'measure', 'outlier': 'unigram'}


@dataclasses.dataclass(frozen=True)
class Config:
  """Config of every step, described in its module, and how a run is executed."""

  skip: tuple[str, ...] = ()  # names of stages to leave out
  read: read.Limits = read.Limits()
  urls: urls.Config = urls.Config()
  extract: extract.Config = extract.Config()
  domains: domains.Config = domains.Config()
  language: language.Config = language.Config()
  pii: pii.Config = pii.Config()
  url: newest.Config = newest.Config()
  document: minhash.Config = minhash.Config()
  boilerplate: boilerplate.Config = boilerplate.Config()
  line: lines.Config = lines.Config()
  repeated: repetition.LineConfig = repetition.LineConfig()
  c4: c4.Config = c4.Config()
  heuristics: heuristics.Config = heuristics.Config()
  unigram: unigram.Config = unigram.Config()
  outliers: outliers.Config = outliers.Config()
  quality: classify.Config = classify.Config()
  quality_rank: rank.Config = rank.Config()
  code: classify.Config = classify.Config(name='code_quality', categories=('code',))
  code_rank: rank.Config = rank.Config(column='code_quality.keep')
  reasoning: classify.Config = classify.Config(name='reasoning', categories=('math',))
  reasoning_rank: rank.Config = rank.Config(column='reasoning.keep')
  kinds: classify.Config = classify.Config(name='knowledge', categories=documents.WEB)
  knowledge: knowledge.Config = knowledge.Config()
  exclude: exclude.Config = exclude.Config()
  # How a run is executed; none of these changes a byte of the result.
  engine: str = 'local'  # or 'ray'
  workers: int = 0  # processes; 0: one a core
  hosts: int = 1  # machines that see the folder, of which this is number `host`
  host: int = 0
  memory_bytes: int = 1 << 30  # of the keys of one partition
  keep_dropped: float = 1.0  # share of the dropped documents that is written
  form: str = 'jsonl'  # of documents/: a file a category; parquet: a file an input


@dataclasses.dataclass(frozen=True)
class Stage:
  """One stage: possibly a pass over the whole corpus, then a map over its shards.

  Attributes:
    steps: (function (batch, config, state) -> batch, its config), in order. The config
      of the first is that of emit, reduce and resolve.
    writes: columns of documents.SCHEMA that it may change, beside drop_reason.
    columns: columns that it reads; None is all.
    files: paths that its configs name; their content is part of its fingerprint.
  """

  name: str
  steps: tuple[tuple[Callable, object], ...]
  emit: Callable | None = None
  reduce: Callable | None = None
  resolve: Callable | None = None
  writes: tuple[str, ...] = ()
  columns: tuple[str, ...] | None = None
  limits: read.Limits | None = None  # of the first stage
  files: tuple[str, ...] = ()


def stages(config: Config) -> list[Stage]:
  """Stages in order, without the skipped ones; UserError for an unknown name."""
  c = config
  result = [
    Stage(
      'extract',
      (
        (urls.step, c.urls),
        (extract.step, c.extract),
        (domains.step, c.domains),
        (normal.step, None),
      ),
      limits=c.read,
      files=(*c.urls.host_lists, *c.urls.url_lists),
    ),
    Stage(
      'language',
      ((language.step, c.language),),
      writes=('lang', 'lang_score', 'category'),
    ),
    Stage('pii_measure', ((pii.measure, c.pii),)),
    _global(
      'pii',
      pii,
      c.pii,
      writes=('text',) if c.pii.mask else (),
      columns=None if c.pii.mask else PII,
    ),
    _global('url', newest, c.url, columns=(*ABOUT, 'url', 'date')),
    _global('document', minhash, c.document),
    _global('boilerplate', boilerplate, c.boilerplate, writes=('text',)),
    _global('line', lines, c.line, writes=('text',)),
    Stage('repeated_lines', ((repetition.step_lines, c.repeated),), writes=('text',)),
    Stage('c4_lines', ((c4.step_lines, c.c4),), writes=('text',)),
    Stage(
      'measure',
      ((heuristics.measure, _measured(c.heuristics)),),
      files=_named(c.heuristics.dirty_path),
    ),
    Stage('heuristics', ((heuristics.step, c.heuristics),), columns=MEASURED),
    _global('unigram', unigram, c.unigram, files=_named(c.unigram.tokenizer)),
    _global('outlier', outliers, c.outliers, columns=OUTLIER),
  ]
  for name, model, order in (
    ('quality', c.quality, c.quality_rank),
    ('code', c.code, c.code_rank),
    ('reasoning', c.reasoning, c.reasoning_rank),
  ):
    result.append(_global(f'{name}_model', classify, model, files=_labels(model)))
    result.append(_global(name, rank, order))
  result += [
    _global('knowledge_model', classify, c.kinds, files=_labels(c.kinds)),
    _global('knowledge', knowledge, c.knowledge),
    Stage('benchmark', ((exclude.step, c.exclude),), files=c.exclude.files),
  ]
  _check_skip(c.skip, [stage.name for stage in result])
  off = {f'{n}{end}' for n in _without_judge(c) for end in ('_model', '')} | set(c.skip)
  off |= set() if c.exclude.files else {'benchmark'}
  return [stage for stage in result if stage.name not in off]


def _check_skip(skip, names):
  """Raises UserError for stages that do not exist or cannot be left out."""
  unknown = sorted(set(skip) - set(names))
  if unknown:
    raise UserError(f'skip: no stage {unknown[0]!r}; stages are {", ".join(names)}')
  if 'extract' in skip:
    raise UserError('skip: extract reads the inputs and cannot be left out')
  for name, needed in NEEDS.items():
    if needed in skip and name not in skip:
      raise UserError(f'skip: {name} needs what {needed} measures; skip {name} too')


def thresholds(config: Config) -> list[margins.Line]:
  """Thresholds of all rules, which the report draws and a sweep can vary."""
  result = [
    margins.Line(group, rule.reason, rule.column, rule.high, rule.limit)
    for group in ('math', 'code')
    for rule in heuristics.rules(config.heuristics, group)
  ]
  result = _prose(config.heuristics) + result
  low = language.rule(config.language)
  result.insert(0, margins.Line('all', *low))
  for order in (config.quality_rank, config.code_rank, config.reasoning_rank):
    result.append(margins.Line('all', order.rule, order.column, False, order.min_score))
  return result


def _prose(config):
  """Lines of prose: the limits of all languages, and those of one."""
  langs = sorted({lang for lang, _, _ in config.overrides})
  every = {rule.reason: rule for rule in heuristics.rules(config)}
  own = {
    lang: {rule.reason: rule for rule in heuristics.rules(config, lang=lang)}
    for lang in langs
  }
  result = []
  for reason, rule in every.items():
    others = tuple(lang for lang in langs if own[lang].get(reason) != rule)
    values = (rule.reason, rule.column, rule.high, rule.limit)
    result.append(margins.Line('prose', *values, others=others))
  for lang in langs:
    for reason, rule in own[lang].items():
      if every.get(reason) != rule:
        values = (rule.reason, rule.column, rule.high, rule.limit)
        result.append(margins.Line('prose', *values, lang=lang))
  return result


def _without_judge(c):
  """Names of the classifiers without a judge: nothing would train them."""
  models = dict(
    quality=c.quality, code=c.code, reasoning=c.reasoning, knowledge=c.kinds
  )
  return [name for name, model in models.items() if not model.judge]


def _measured(config):
  """A heuristics config without thresholds: the part that measuring depends on."""
  off = heuristics.OFF
  return dataclasses.replace(config, prose=off, math=off, code=off, overrides=())


def _named(path):
  """A tuple of the path in an optional field; empty without a path."""
  return (path,) if path else ()


def _labels(model):
  """The file of labels of a classifier, as a tuple; empty without one."""
  return _named(model.judge.removeprefix('file:') if 'file:' in model.judge else '')


def _global(name, module, config, writes=(), columns=None, files=()):
  """A stage whose four functions are those of one module."""
  return Stage(
    name,
    ((module.step, config),),
    module.emit,
    getattr(module, 'reduce', None),
    module.resolve,
    writes,
    columns,
    files=files,
  )
