"""Curation: what is wrong with a config, and the page of a run."""

import json
import re
import types

import numpy as np
import pytest

from configs import curate as curate_config
from llama3_jax import config as configs
from llama3_jax.base.errors import UserError
from llama3_jax.curate.machine import check
from llama3_jax.curate.machine import documents
from llama3_jax.curate.machine import stages
from llama3_jax.curate.reporting import margins
from llama3_jax.curate.reporting import report
from llama3_jax.curate.reporting import verdicts
from llama3_jax.report import page


@pytest.mark.parametrize(
  'field, value, said',
  [
    ('urls.hosts', (1, 2), 'curate.urls.hosts'),
    ('urls.host_lists', ('none.txt',), 'urls.host_lists'),
    ('heuristics.overrides', ('en', 'min_words', 2), 'heuristics.overrides'),
    ('heuristics.overrides', (('en', 'min_wrds', 2),), 'did you mean min_words'),
    ('document.scope', ('lang',), 'did you mean language'),
    ('document.bands', 0, 'document.bands=0'),
    ('quality.judge', 'referense', 'did you mean reference'),
    ('read.max_bytes', 0, 'read.max_bytes=0'),
    ('skip', ('unigram',), 'skip outlier too'),
    ('unigram.tokenizer', 'none.model', 'none.model'),
    ('exclude.files', ('none.jsonl',), 'none.jsonl'),
    ('heuristics.dirty_path', 'none.txt', 'none.txt'),
  ],
)
def test_mistakes_are_named_before_any_work(tmp_path, field, value, said):
  config = curate_config.get_config('files')
  *parents, name = field.split('.')
  node = config.curate
  for parent in parents:
    node = node[parent]
  with node.ignore_type():
    node[name] = value
  with pytest.raises(UserError, match=re.escape(said)):
    check.check(configs.fill(stages.Config(), config.curate, 'curate'))


def test_an_infinite_limit_switches_a_rule_off():
  config = curate_config.get_config('files')
  config.curate.heuristics.prose.min_words = float('-inf')
  config.curate.heuristics.prose.max_mean_word = 9.5
  found = configs.fill(stages.Config(), config.curate, 'curate').heuristics.prose
  assert found.min_words is None and found.max_mean_word == 9.5


def test_the_page_has_classifiers_personal_data_and_documents_at_a_limit(tmp_path):
  totals = {'steps': [], 'problems': [], 'hosts': {}}
  step = {'documents': 2, 'bytes': 9, 'tokens': 2, 'dropped': {}, 'languages': {}}
  totals['steps'] = [{'step': 'input', **step}, {'step': 'pii', **step}]
  line = margins.Line('prose', 'length.words', 'gopher.words', False, 50.0)
  rows = documents.batch([{'category': 'general', 'text': 't<x>'}] * 2)
  rows = documents.add(rows, 'gopher.words', [0, 1], [50.0, 49.0])
  entry = margins._empty()
  margins._add(entry, line, rows, np.array(['general'] * 2, object))
  assert (entry['below'], entry['above']) == (1, 1)
  shown = report.content(
    {
      'funnel': totals,
      'seconds': {},
      'lines': [line],
      'margins': {line.key: entry},
      'sweeps': [],
      'personal': [('mail.example', 20, 12, 99, True)],
      'models': [
        ('quality', 500.0, 100.0, 0.9, float('nan')),
        ('code', 0, 0, None, None),
      ],
      'verdicts': {'length.words': {'good': 1, 'junk': 7}, '': {'good': 5}},
    }
  )
  text = page.render(shown)
  assert 'below 50, 1 of 2' in text and 'mail.example' in text and 't&lt;x&gt;' in text
  assert '0.875' in text  # 7 of 8 are junk
  assert '0.900' in text and 'too few labels' in text


def test_verdicts_are_read_and_wrong_ones_are_named(tmp_path):
  path = tmp_path / 'known.jsonl'
  path.write_text('{"url": "a", "verdict": "good"}\n{"url": "b", "verdict": "junk"}\n')
  assert verdicts.load(str(path)) == {'a': 'good', 'b': 'junk'} and not verdicts.load(
    ''
  )
  path.write_text('{"url": "a", "verdict": "bad"}\n')
  with pytest.raises(UserError, match='known.jsonl, line 1: .*good or junk'):
    verdicts.load(str(path))


def test_verdicts_that_disagree_or_meet_no_document_are_told(tmp_path):
  path = tmp_path / 'v.jsonl'
  rows = [{'url': 'a', 'verdict': 'good'}, {'url': 'a', 'verdict': 'junk'}]
  path.write_text('\n'.join(map(json.dumps, rows)))
  with pytest.raises(
    UserError, match='v.jsonl, line 2: a has the other verdict before'
  ):
    verdicts.load(str(path))
  empty = types.SimpleNamespace(shards=())
  found = verdicts.count(empty, {'a': 'good'})
  assert found == {verdicts.ABSENT: {'good': 1}}
