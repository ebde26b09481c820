"""Draw a pipeline schedule (section 3.3.2, figure 6).

  python -m experiment --config=configs/schedule.py --workdir=runs/schedule \\
    --config.stages=4 --config.chunks=2 --config.microbatches=10 --config.group=5

Expected: report.html with the table of ticks, its bubble (0.15 for figure 6) and the
chunk inputs that each stage keeps.
"""

from absl import logging

from llama3_jax import workdir as workdirs
from llama3_jax.pipeline import picture
from llama3_jax.pipeline import schedule as schedules


def main(config, workdir):
  """Write report.html; returns {'ticks': int, 'bubble': float}."""
  folder = workdirs.claim(config, workdir)
  c = config
  s = schedules.build(c.stages, c.chunks, c.microbatches, c.group, c.form)
  logging.info('a3: forward of microbatch 3, A3: backward\n%s', picture.text(s))
  for name, value in picture.facts(s):
    logging.info('%s: %s', name, value)
  title = f'{c.stages} stages, {c.chunks} chunks each, {c.microbatches} microbatches'
  picture.write(folder / 'report.html', {title: s})
  return {'ticks': s.ticks, 'bubble': float(schedules.bubble(s))}
