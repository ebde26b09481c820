"""Properties of the report page."""

import json
import re

import numpy as np

from llama3_jax.eval import report
from llama3_jax.report import figures
from llama3_jax.report import page
from llama3_jax.report.blocks import Best
from llama3_jax.report.blocks import Interval
from llama3_jax.report.blocks import Page
from llama3_jax.report.blocks import Plot
from llama3_jax.report.blocks import Section
from llama3_jax.report.blocks import Table


def stage(name, low, high, steps=60, seed=0):
  rng = np.random.default_rng(seed)
  metrics = []
  for step in range(steps):
    loss = low + (high - low) * np.exp(-step / 15) + 0.05 * rng.standard_normal()
    metric = {'step': step, 'tokens': 4096 * (step + 1), 'loss': float(loss)}
    metric['lr'] = 3e-4 * (1 - 0.9 * step / steps)
    if step % 20 == 19:
      metric['eval_loss'] = float(loss) + 0.1
    metrics.append(metric)
  return {
    'name': name,
    'seconds': 20.0 + 3 * steps / 10,
    'memory_bytes': 900_000_000,
    'user_s': 30.0,
    'system_s': 2.25,
    'compile_s': 1.5,
    'compiled': 1200,
    'recalled': 7,
    'metrics': metrics,
  }


def example():
  """Fabricated results of a whole run, with every part."""
  rng = np.random.default_rng(0)
  lengths, depths = [128, 256, 512, 1024], [0.0, 0.25, 0.5, 0.75, 1.0]
  tasks = ['copy', 'sort', 'arithmetic', 'needle', 'format']
  stages = ['pretrain', 'long_context', 'anneal', 'sft/1', 'dpo/1', 'average/1']
  return {
    'title': 'The herd, tiny',
    'summary': 'Whole recipe on one laptop: fabricated figures for a test.',
    'notes': ['Generated text stood in for registry packages.'],
    'seconds': 812.0,
    'memory_bytes': 2_310_000_000,
    'stages': [
      stage('pretrain', 3.1, 6.2, 120),
      stage('long_context', 2.9, 3.2, 40, 1),
      stage('anneal', 2.6, 2.9, 40, 2),
      stage('reward/1', 0.15, 0.7, 50, 3),
      stage('sft/1', 0.6, 2.4, 60, 4),
      stage('dpo/1', 0.3, 0.8, 50, 5),
      stage('reward/2', 0.12, 0.7, 50, 6),
      stage('sft/2', 0.4, 2.4, 60, 7),
      stage('dpo/2', 0.25, 0.8, 50, 8),
    ],
    'curation': [
      {'name': 'fetched', 'documents': 12840},
      {'name': 'text extracted', 'documents': 12102},
      {'name': 'URL de-duplication', 'documents': 10900},
      {'name': 'document de-duplication (MinHash)', 'documents': 9012},
      {'name': 'line de-duplication', 'documents': 8870},
      {'name': 'heuristics', 'documents': 7431},
      {'name': 'quality', 'documents': 5120},
    ],
    'needle': {
      'lengths': lengths,
      'depths': depths,
      'before': (rng.random((5, 4)) * [1, 0.3, 0.05, 0.02]).tolist(),
      'after': (0.9 + 0.1 * rng.random((5, 4))).tolist(),
    },
    'reward': {
      'accuracy': 0.953,
      'n': 640,
      'real_accuracy': 0.612,
      'real_n': 295,
      'margins': (2.1 + 1.6 * rng.standard_normal(640)).tolist(),
    },
    'best_of_k': [
      {'k': k, 'reward': 0.2 + 0.6 * np.log2(k), 'ci': 0.15, 'exact': 0.3 + 0.08 * i}
      for i, k in enumerate([1, 2, 4, 8, 16])
    ],
    'evaluation': {
      name: {
        task: {'score': 0.1 + 0.13 * i + 0.02 * j, 'n': 200, 'ci': 0.06}
        for j, task in enumerate(tasks)
      }
      for i, name in enumerate(stages)
    },
    'dialogs': [
      {
        'title': 'Sort',
        'messages': [
          {'role': 'user', 'content': 'Sort these numbers: 4 19 2 7'},
          {'role': 'assistant', 'content': '2 4 7 19'},
          {'role': 'user', 'content': 'And backwards?'},
          {'role': 'assistant', 'content': '19 7 4 2'},
        ],
      },
      {
        'title': 'Format',
        'messages': [
          {'role': 'user', 'content': 'Answer with <b>yes</b></script><script>bad()'},
          {'role': 'assistant', 'content': 'x' * 120},
        ],
      },
    ],
    'checks': [
      {
        'name': 'Held-out loss falls in pre-training',
        'value': 2.71,
        'bar': '< 6.2',
        'pass': True,
      },
      {
        'name': 'Needle recall at 4x the initial length',
        'value': 0.94,
        'bar': '>= 0.90',
        'pass': True,
      },
      {
        'name': 'DPO does not lower the chosen log-probability',
        'value': -0.12,
        'bar': '>= 0',
        'pass': False,
      },
    ],
  }


def build(results):
  return page.render(report.content(results))


def specs(text):
  found = re.search(r'id="figures">(.*?)</script>', text, re.DOTALL)
  return json.loads(found.group(1))


def test_page_has_every_part_and_needs_no_network():
  text = build(example())
  assert set(specs(text)) == {
    'funnel',
    'loss',
    'preference',
    'rate',
    'needle_before',
    'needle_after',
    'margins',
    'best',
    'seconds',
    'memory',
  }
  assert not re.search(r'<(script|link|img|iframe)[^>]*\s(src|href)=', text)
  assert text.count('* plotly.js v') == 1


def test_every_element_has_an_id_of_its_own():
  named = [
    Section('Memory', [Plot('memory', figures.shares([('a', 'b', 1)], 's', 90))])
  ]
  for text in (build(example()), page.render(Page('two', named))):
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert all(f'figure-{name}' in ids for name in specs(text))


def test_cells_show_intervals_verdicts_and_the_best():
  row = [Interval(1.23456, '±3'), Best('<9>'), True, False, 0.000123456]
  text = page.render(Page('t', [Section('s', [Table('abcde', [row])])]))
  assert '<td>1.235 <small>±3</small></td>' in text
  assert '<td class="best">&lt;9&gt;</td>' in text
  assert text.count('class="pass"') == text.count('class="fail"') == 1
  assert '<td>0.0001235</td>' in text


def test_text_of_a_model_cannot_become_markup():
  text = build(example())
  assert '<script>bad()' not in text
  assert '&lt;b&gt;yes&lt;/b&gt;&lt;/script&gt;' in text


def test_absent_parts_are_left_out():
  text = build({'title': 'only checks', 'checks': example()['checks']})
  assert 'id="checks"' in text and 'id="needle"' not in text
  assert specs(text) == {}
  assert specs(build({})) == {}


def test_stages_lie_end_to_end_with_a_line_at_each_boundary():
  results = example()
  spec = specs(build(results))['loss']
  shown = [
    s for s in results['stages'] if 'reward' not in s['name'] and 'dpo' not in s['name']
  ]
  assert len(spec['layout']['shapes']) == len(shown) - 1
  solid = [trace for trace in spec['data'] if trace['mode'] == 'lines']
  starts = [trace['x'][0] for trace in solid]
  ends = [trace['x'][-1] for trace in solid]
  assert all(end < start for end, start in zip(ends, starts[1:]))


def test_rows_of_metrics_jsonl_are_taken_as_they_are():
  """Rows of held-out losses have no training loss; a loss may not be finite."""
  metrics = [
    {'step': 0, 'tokens': 0, 'eval_loss': 5.0},
    {'step': 1, 'tokens': 64, 'loss': float('nan'), 'lr': 0.0},
    {'step': 2, 'tokens': 128, 'loss': 4.0, 'lr': 1e-3},
  ]
  stages = [{'name': n, 'seconds': 1.0, 'metrics': metrics} for n in ('a', 'dpo/1')]
  drawn = specs(build({'stages': stages}))
  assert drawn['loss']['data'][0]['y'] == [None, 4.0]
  assert drawn['preference']['data'][0]['x'] == [1, 2]


def test_report_is_written_whole(tmp_path):
  report.write(example(), tmp_path / 'run' / 'report.html')
  files = [path.name for path in (tmp_path / 'run').iterdir()]
  assert files == ['report.html']


def test_time_lost_to_restarts_is_shown_where_there_was_any():
  account = {
    'goodput': 0.87,
    'starts': 3,
    'step_s': 87.0,
    'down_s': 12.5,
    'lost_s': 0.0,
  }
  stage = {'name': 'pretrain', 'seconds': 100.0, 'goodput': account}
  text = build({'stages': [stage]})
  assert '87%' in text and '12.5 s' in text and '>down<' in text
  assert 'undone steps' not in text
  assert 'Goodput' not in build({'stages': [{'name': 'a', 'seconds': 1.0}]})


def test_what_the_stages_took_of_the_processor_is_shown():
  text = build({'stages': [stage('pretrain', 3, 6, 20), {'name': 'b', 'seconds': 1.0}]})
  shown = ('>pretrain<', '30.0 s', '2.2 s', '1.5 s', '1,200', '>7<')
  assert all(part in text for part in shown)
  assert 'CPU-minutes of all stages: 0.5 and 0.0 of system' in text
  assert 'Processor' not in build({'stages': [{'name': 'b', 'seconds': 1.0}]})
