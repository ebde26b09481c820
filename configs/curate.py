"""Curation (3.1.1): argument `herd` (text of registry packages) or `files` (inputs)."""

import dataclasses

import ml_collections

from llama3_jax.config import UserError
from llama3_jax.curate import heuristics
from llama3_jax.data import sample_pages
from llama3_jax.data import samples


def get_config(arg='herd'):
  if arg not in ('herd', 'files'):
    raise UserError(f'configs/curate.py:{arg}: the argument is herd or files')
  c = ml_collections.ConfigDict()
  c.experiment = 'curate'
  c.samples = arg == 'herd'
  c.inputs = ()  # 'path' or 'category=path'; .warc[.gz] or .jsonl[.gz]
  if c.samples:
    c.languages = samples.LANGUAGES
    c.code_characters = 6_000_000  # of the standard library, at most
    c.offline = False  # True: do not try the package registry
  c.skip = ()  # names of steps to leave out
  c.blocked_hosts = (sample_pages.BLOCKED_HOST,) if c.samples else ()
  c.dirty_words = heuristics.DIRTY_WORDS  # a stand-in; bring your own list
  c.min_lang_score = 0.3
  # A pair of Jaccard similarity 0.75 is found with probability 0.77.
  c.minhash = ml_collections.ConfigDict(dict(bands=14, rows=8))
  # A line seen more than 6 times in 30M documents of a language goes (3.1.1).
  c.lines = ml_collections.ConfigDict(dict(limit=6, bucket=30_000_000))
  c.limits = ml_collections.ConfigDict(dataclasses.asdict(heuristics.Limits()))
  return c
