"""Curation (3.1.1): argument `herd` (text of registry packages) or `files` (inputs)."""

import ml_collections

from llama3_jax import config as configs
from llama3_jax.curate.machine import stages
from llama3_jax.data import sample_pages
from llama3_jax.data import samples

RUN = ('engine', 'workers', 'hosts', 'host')  # how it is run, not what it does


def get_config(arg='herd'):
  configs.choose('curate', arg, ('herd', 'files'))
  c = ml_collections.ConfigDict()
  c.experiment = 'curate'
  c.samples = arg == 'herd'
  c.inputs = ()  # 'path' or 'category=path': WARC, Parquet, JSONL; .gz, .zst; URLs
  if c.samples:
    c.languages = samples.LANGUAGES  # of the translations that are fetched
    c.code_characters = 6_000_000  # of the standard library, at most
    c.offline = False  # True: do not try the package registry
  c.engine = 'local'  # processes here; 'ray': Daft on Ray
  c.workers = 0  # processes; 0: one a core
  c.hosts, c.host = 1, 0  # machines on one folder, and which of them this is
  c.sweep = ()  # (('repetition.top_2gram', 0.1, 0.3), ...): other values of rules
  c.verdicts = ''  # JSONL of url, verdict (good or junk): the report has precision
  c.curate = configs.section(stages.Config())  # every stage and its rules
  for name in RUN:
    del c.curate[name]
  if not c.samples:
    c.curate.form = 'parquet'
  if c.samples:
    c.curate.urls.hosts = (sample_pages.BLOCKED_HOST,)
  return c
