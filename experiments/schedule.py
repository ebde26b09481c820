"""Draw a pipeline schedule (section 3.3.2, figure 6), or compare microbatches when
answers are generated over stages (6.1).

  python -m experiment --config=configs/schedule.py --workdir=runs/schedule \\
    --config.stages=4 --config.chunks=2 --config.microbatches=10 --config.group=5
  python -m experiment --config=schedule:inference --workdir=runs/stages

Expected: report.html with the table of ticks, its bubble (0.15 for figure 6) and the
chunk inputs that each stage keeps; of `inference` a table of throughput and latency,
from the time of one stage, which is measured on the chips at hand unless it is given.
"""

import sys

from absl import logging

from llama3_jax import config as configs
from llama3_jax import workdir as workdirs
from llama3_jax.base.errors import UserError
from llama3_jax.generate import stage_time
from llama3_jax.pipeline import inference
from llama3_jax.pipeline import picture
from llama3_jax.pipeline import schedule as schedules
from llama3_jax.report import page as pages
from llama3_jax.report.blocks import Card
from llama3_jax.report.blocks import Page
from llama3_jax.report.blocks import Section
from llama3_jax.report.blocks import Table


def main(config, workdir):
  """Write report.html; returns {'ticks': int, 'bubble': float}, or the rows of the
  table of inference."""
  if config.form == 'inference':
    check(config)
    return compare(config, workdirs.claim(config, workdir))
  folder = workdirs.claim(config, workdir)
  c = config
  s = schedules.build(c.stages, c.chunks, c.microbatches, c.group, c.form)
  logging.info('a3: forward of microbatch 3, A3: backward\n%s', picture.text(s))
  for name, value in picture.facts(s):
    logging.info('%s: %s', name, value)
  title = f'{c.stages} stages, {c.chunks} chunks each, {c.microbatches} microbatches'
  picture.write(folder / 'report.html', {title: s})
  return {'ticks': s.ticks, 'bubble': float(schedules.bubble(s))}


def check(c):
  """UserError before anything is measured."""
  for parts in c.microbatches:
    if parts < 1 or c.rows % parts:
      raise UserError(f'rows={c.rows} do not divide into microbatches={parts}')
  for name in ('prefill_s', 'decode_s'):
    if len(c[name]) not in (0, len(c.microbatches)) or (c.prefill_s and not c[name]):
      raise UserError(f'{name}={tuple(c[name])}: a number for each of microbatches')
  if len(c.decode_s) != len(c.prefill_s):
    raise UserError('give both prefill_s and decode_s, or none: then they are measured')
  if c.answer < 2:
    raise UserError(f'answer={c.answer}: it must be 2 tokens or more')


def compare(c, folder):
  """Simulate each number of microbatches; returns {'rows': [...]}."""
  load = inference.Load(c.rows, c.prompt, c.answer)
  rows = []
  for i, parts in enumerate(c.microbatches):
    if c.prefill_s:
      stage = inference.Stage(c.prefill_s[i], c.decode_s[i], c.message_s)
    else:
      model = configs.model_config(c.model)
      stage = stage_time.measure(model, c.stages, parts, load)
      stage = inference.Stage(stage.prefill, stage.decode, c.message_s)
    found = inference.run(stage, c.stages, parts, load)
    rows.append((parts, stage, found))
  table = [tuple(f'{x:.4g}' for x in (m, *_cells(s, f))) for m, s, f in rows]
  sys.stdout.write(_text((HEADER, *table)))
  title = f'{c.rows} requests over {c.stages} stages, {c.prompt} + {c.answer} tokens'
  section = Section('Microbatches', [Card([Table(HEADER, table)])])
  pages.write(folder / 'report.html', Page(title, [section]))
  names = ('prefill_s', 'decode_s', 'first_s', 'last_s', 'read', 'decoded', 'total')
  return {'rows': [{'m': m} | dict(zip(names, _cells(s, f))) for m, s, f in rows]}


HEADER = ('m', 'stage: prompts, s', 'stage: a token, s', 'first token, s', 'last, s')
HEADER += ('prompts, tokens/s', 'answers, tokens/s', 'in all, tokens/s')


def _cells(stage, f):
  return stage.prefill, stage.decode, f.first, f.last, f.read, f.decoded, f.total


def _text(rows):
  widths = [max(map(len, column)) for column in zip(*rows)]
  lines = ('  '.join(x.rjust(w) for x, w in zip(r, widths)) for r in rows)
  return ''.join(f'{line}\n' for line in lines)
