"""Do scores depend on what should not matter? Labels, order, examples, form (5.1.2).

  python -m experiment --config=robustness --init_from=MODEL --data=DIR \\
    --workdir=runs/robustness

asks the same questions of MMLU in all variants of each kind; --config.pairs compares
tasks with adversarial ones of the same kind (5.1.3), --config.against other models.
`:chat` asks in a chat. Expected: of a good model a spread that chance makes as well,
and the same choice in nearly all variants. Writes choices.jsonl (of every question what
was chosen in each variant), answers.jsonl of pairs, results.json and report.html.
"""

from absl import logging

from llama3_jax import workdir as workdirs
from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.eval import run
from llama3_jax.eval import suites
from llama3_jax.eval.robustness import adversarial as pairs
from llama3_jax.eval.robustness import measure
from llama3_jax.eval.robustness import page
from llama3_jax.eval.robustness import variants
from llama3_jax.generate.settings import Settings
from llama3_jax.train import belongs
from llama3_jax.train import models

ANSWERS = 'answers.jsonl'


def _made(config, results):
  """Files of a finished run."""
  return [page.FILE] * bool(config.task) + [ANSWERS] * bool(config.pairs)


@workdirs.stage(made=_made, report=page.write)
def main(config, folder):
  """Measure; returns {'kinds', ...} of measure.measure, {'pairs', 'tasks'} of
  adversarial.compare, and 'against': the same of other runs."""
  if not (config.task or config.pairs):
    raise UserError('task and pairs are empty: there is nothing to ask')
  pairs.check(config.pairs)
  before = [page.finished(path) for path in config.against]
  tokenizer = belongs.tokenizer(config.tokenizer, config.init_from)
  plan = _plan(config, tokenizer) if config.task else None
  if plan:
    page.same(before, measure.records(plan))
  params, model = models.load(config.init_from)
  results = {}
  if plan:
    results, rows = measure.measure(params, model, tokenizer, plan)
    jsonl.write(folder / page.FILE, rows)
  if config.pairs:
    said, settings = [], Settings(temperature=0.0, max_new=config.max_new)
    how = run.How(config.shots, settings=settings, batch=config.batch)
    how = config.pairs, config.examples, config.seed, how
    found = pairs.compare(params, model, tokenizer, *how, said.append)
    jsonl.write(folder / ANSWERS, said)
    results |= found
  for line in page.lines(results):
    logging.info('%s', line)
  return results | {'against': before}


def _plan(config, tokenizer):
  """What is asked, made before a model is loaded."""
  varied = config.biases, config.labels, config.orders, config.formats
  kinds = variants.variants(*varied)
  how = config.examples, config.shots, config.seed
  [task] = suites.filled((config.task,), config.data)
  return measure.Plan.of(tokenizer, task, kinds, *how)
