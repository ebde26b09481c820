"""Which model is better? Ratings of pairs of answers on seven points (5.3).

  python -m experiment --config=pairwise --files=runs/annotate/ratings.jsonl \\
    --workdir=runs/pairwise

Files of several raters and models are read together. Expected: a table of win rates
with 95% intervals, a strength of each model, and how far raters agree. What `annotate`
writes with --config.scale=7 are such rows. Writes results.json and report.html.
"""

from absl import logging

from llama3_jax import workdir as workdirs
from llama3_jax.base.errors import UserError
from llama3_jax.eval.pairwise import agreement
from llama3_jax.eval.pairwise import page
from llama3_jax.eval.pairwise import rates
from llama3_jax.eval.pairwise import rows
from llama3_jax.eval.pairwise import strength

ALONE = True  # one process reads the ratings


@workdirs.stage(report=page.write)
def main(config, folder):
  """Measure; returns {'ratings', 'prompts', 'models', 'pairs', 'strengths', 'raters',
  'agreement', 'left', 'samples'}: see the functions of eval/pairwise/."""
  if not config.files:
    raise UserError('files is empty: rows of models and rating, --files=FILE')
  rated, left = rows.read(config.files, config.models)
  for line in page.left(left):
    logging.warning('left out: %s', line)
  results = {
    'ratings': len(rated),
    'prompts': len({one.prompt for one in rated}),
    'models': sorted({name for one in rated for name in one.models}),
    'pairs': rates.pairs(rated, config.seed),
    'strengths': strength.strengths(rated, config.seed),
    'raters': rates.raters(rated, config.seed),
    'agreement': agreement.agreement(rated, config.seed),
    'left': left.counts() | {'named': page.left(left)},
    'samples': page.samples(rated, config.seed),
  }
  for line in page.lines(results):
    logging.info('%s', line)
  return results
