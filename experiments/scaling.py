"""Scaling laws: a ladder of runs, parabolas, power laws, two-step prediction (3.2).

  python -m experiment --config=configs/scaling.py:cpu --workdir=runs/scaling
  python -m experiment --config=configs/scaling.py:isoflop --data=DIR --workdir=runs/iso
  python -m experiment --config=configs/scaling.py:ladder --data=DIR --workdir=runs/two
  python -m experiment --config=configs/scaling.py:mixes --workdir=runs/mixes
  python -m experiment --config=configs/scaling.py:valuation --workdir=runs/valuation

mixes_known and valuation_known are the same with text that is known to be worse.

Writes results.json, tables as .csv and report.html. A study trains its runs one after
the other in WORKDIR/<index> (experiments/pretrain.py), skips those that are finished
and resumes the one that was stopped; --sweep_index=I makes each an array job instead.
Expected at `cpu`: 25 runs in 10 to 15 minutes on two cores; the lowest loss of the
largest budget, which the fit does not see, within 2%.
"""

import csv
import io
import os
import pathlib
import time

import jax
from absl import logging

import experiments
from llama3_jax import config as configs
from llama3_jax import workdir as workdirs
from llama3_jax.base import files
from llama3_jax.base import processes
from llama3_jax.base.errors import UserError
from llama3_jax.data import shards
from llama3_jax.report import page as pages
from llama3_jax.scaling import answers
from llama3_jax.scaling import benchmarks
from llama3_jax.scaling import isoflop
from llama3_jax.scaling import ladder
from llama3_jax.scaling import measured
from llama3_jax.scaling import mixes
from llama3_jax.scaling import predict
from llama3_jax.scaling import report
from llama3_jax.scaling import valuation
from llama3_jax.tasks import corpus as texts
from llama3_jax.text import store
from llama3_jax.train import models

CORPUS = 'corpus'  # folder of the text made here


@workdirs.stage('report.html', free=('scaling.train',))
def main(config, folder):
  """Run the mode of the config; returns the numbers of results.json."""
  modes = dict(live=live, isoflop=fit_isoflop, ladder=fit_ladder)
  modes |= dict(mixes=rank_mixes, valuation=value_data)
  if config.scaling.mode not in modes:
    raise UserError(f'scaling.mode={config.scaling.mode!r}: one of {", ".join(modes)}')
  folder = folder.resolve()
  start = time.perf_counter(), time.process_time()
  results, tables, content = modes[config.scaling.mode](config, folder)
  results['seconds'] = time.perf_counter() - start[0]
  results['cpu_seconds'] = time.process_time() - start[1]  # of this start
  for name, rows in tables.items():
    files.write_text(folder / f'{name}.csv', _csv(rows))
  pages.write(folder / 'report.html', report.page(content))
  for line in content['said']:
    logging.info('%s', line)
  logging.info(
    '%.0f s, %.0f CPU-seconds (of this start)',
    results['seconds'],
    results['cpu_seconds'],
  )
  return results


def _csv(rows):
  out = io.StringIO()
  writer = csv.DictWriter(out, list(rows[0]), lineterminator='\n')
  writer.writeheader()
  writer.writerows(rows)
  return out.getvalue()


def live(config, folder):
  """Train the ladder, fit all but the largest budgets, predict those."""
  s = config.scaling
  plan = ladder.create(s)
  config, tokenizer = corpus(config, folder)
  planned = ladder.runs(plan, configs.model_config(config.model))
  _check_hold_out(s)
  train(config, folder, planned, [ladder.overrides(r, plan) for r in planned])
  rows = ladder.collect(folder, planned, s.convention)
  budgets = sorted(s.budgets)
  fitted = [r for r in rows if r['budget'] in budgets[: len(budgets) - s.hold_out]]
  found = isoflop.study(fitted, s.window, s.samples, config.seed)
  results = {'runs': rows, 'isoflop': isoflop.summary(found)}
  results['extrapolated'] = isoflop.extrapolate(found, s.target)
  results['held_out'] = [
    isoflop.held_out(rows, found, c, s.window)
    for c in budgets[len(budgets) - s.hold_out :]
  ]
  two = None
  if s.questions:
    names = _used(config)
    asked = _questions(config, tokenizer, names, s.questions // len(names))
    asked = [sum(parts, []) for parts in zip(*asked.values())]
    for r, run in zip(rows, planned):
      path = folder / ladder.name(r['index'])
      r |= _answers(config, path, run.model, {'all': asked})['all']
    two, results['two_steps'] = _two_steps(config, rows, fitted, found)
  content = report.study(rows, found, results, two)
  return results, report.tables(results), content


def _check_hold_out(s):
  if not 0 <= s.hold_out <= len(s.budgets) - 2:
    raise UserError(
      f'scaling.hold_out={s.hold_out}: 2 or more of {len(s.budgets)} budgets fit'
    )


def _two_steps(config, rows, fitted, found):
  """The Forecast of the answers with what it was fitted to, and its numbers.

  Step 1 sees the best model of each budget, step 2 all models of the fitted budgets.
  """
  s = config.scaling
  near = [
    min((r for r in fitted if r['budget'] == c), key=lambda r: r['loss'])
    for c in found.kept
  ]
  models, points = mixes.arrays(near), mixes.arrays(fitted)
  two = predict.forecast(models, points, 0.25, s.step, samples=300)
  checks = []
  for budget in sorted(s.budgets)[len(s.budgets) - s.hold_out :]:
    best = min((r for r in rows if r['budget'] == budget), key=lambda r: r['loss'])
    guess = predict.predict(two, *mixes.size(best))
    seen = {'nll': best['answer_nll'], 'accuracy': best['accuracy']}
    row = {'budget': budget, 'flops': best['flops'], 'predicted': guess}
    checks.append(row | {'measured': seen})
  numbers = {'step': s.step, 'questions': s.questions, 'held_out': checks}
  numbers['models'] = [r['index'] for r in near]
  return (two, models, points), numbers


def train(config, folder, planned, changes):
  """Train what is not finished; run i is in folder/i. UserError where
  scaling.train=false and some are missing."""
  _, missing = ladder.finished(folder, len(planned))
  if missing and not config.scaling.train:
    ladder.collect(folder, planned, config.scaling.convention)
  for i in missing:
    run = planned[i]
    logging.info(
      'run %d of %d: %.2g FLOPs, %.3g parameters a token, %d steps of %d x %d',
      *(i + 1, len(planned), run.budget, run.flops_per_token / 6),
      *(run.steps, run.batch, run.length),
    )
    member = configs.edit(config, changes[i])
    clock = time.perf_counter(), time.process_time()
    experiments.run(member, str(folder / ladder.name(i)))
    cost = {'seconds': time.perf_counter() - clock[0]}
    cost['cpu_seconds'] = time.process_time() - clock[1]
    processes.write_json(folder / ladder.name(i) / 'cost.json', cost)
    jax.clear_caches()  # every run has a program of its own


def corpus(config, folder):
  """(config with data.root, Tokenizer): the user's shards, or text made here."""
  s = config.scaling
  if config.data.root:
    path = s.tokenizer or f'{config.data.root}/../tokenizer/tokenizer.model'
    if s.questions and not os.path.exists(path):
      raise UserError(f'scaling.tokenizer: {path} is missing: name that of data.root')
    tokenizer = store.load(path) if s.questions else None
    for name in _used(config):
      _check_source(config, name, path)
  else:
    texts.make(folder / CORPUS, config.data.mix.keys(), s.vocabulary, config.seed)
    tokenizer = store.load(folder / CORPUS / texts.TOKENIZER)
    config = configs.edit(config, {'data.root': str(folder / CORPUS)})
  if tokenizer and tokenizer.vocab_size != config.model.vocab_size:
    raise UserError(
      f'model.vocab_size={config.model.vocab_size}, the tokenizer of data.root has '
      f'{tokenizer.vocab_size}: give --config.model.vocab_size={tokenizer.vocab_size}'
    )
  return config, tokenizer


def _used(config):
  """Names of the mix that have a weight."""
  return sorted(n for n, w in config.data.mix.items() if w > 0)


def _check_source(config, name, tokenizer):
  """UserError where data.root has no token shards of a source or category."""
  folder = pathlib.Path(config.data.root, name)
  if shards.members(folder):
    return
  if not (folder / 'index.json').exists():
    raise UserError(
      f'data.root: {folder} has no token shards, data.mix.{name} names it; they are '
      f'made by: python -m experiment --config=configs/shards.py '
      f'--workdir={config.data.root} --config.documents=DOCUMENTS '
      f'--config.tokenizer={tokenizer}'
    )
  shards.open_source(folder)


def _questions(config, tokenizer, sources, count):
  """{source: answers.questions of its held-out documents}, `count` of each."""
  s = config.scaling
  return answers.of_sources(
    config.data.root,
    sources,
    tokenizer.decode,
    count,
    config.seed,
    prompt=s.prompt,
    answer=s.answer,
  )


def _answers(config, folder, model, asked):
  """{benchmark: {'answer_nll', 'accuracy'}} of a finished run, kept in its folder."""
  path = folder / 'answers.json'
  if not path.exists():
    params, _ = models.load(folder, model)
    length, kept = config.scaling.prompt + config.scaling.answer, {}
    for name, rows in asked.items():
      values = answers.score(params, *rows, model, rows=64, length=length)
      found = answers.choose(values.reshape(-1, 4))
      kept[name] = {'answer_nll': found['nll'], 'accuracy': found['accuracy']}
    processes.write_json(path, kept)
  return files.read_json(path)


def fit_isoflop(config, folder):
  """Laws of measured IsoFLOP runs."""
  del folder
  s = config.scaling
  chosen = s.rows.to_dict()
  rows = measured.isoflop(config.data, chosen)
  found = isoflop.study(rows, s.window, s.samples, config.seed)
  own, others = measured.variants(config.data, chosen)
  results = {'rows': len(rows), 'schedules': own, 'isoflop': isoflop.summary(found)}
  results['other_schedules'] = isoflop.bent(found, others, s.window, s.samples)
  results['extrapolated'] = isoflop.extrapolate(found, s.target)
  content = report.study(rows, found, results, None)
  return results, report.tables(results), content


def fit_ladder(config, folder):
  """Benchmarks of larger models, by the method best on the held-out sizes."""
  del folder
  s = config.scaling
  runs = measured.ladder(config.data, s.last)
  checks = benchmarks.compare(runs, s.hold_out, s.skip)
  chosen = checks[0]
  method = benchmarks.Method(**chosen['method'])
  logging.info('chosen by the held-out sizes: %s', method)
  rows, drawn = benchmarks.table(runs, s.targets, method, s.skip, s.samples)
  largest = benchmarks.held_out(runs, s.hold_out[-1], method, s.skip, s.samples)
  results = {'method': chosen['method'], 'checks': checks, 'predictions': rows}
  results['targets'] = {n: 6 * params * tokens for n, params, tokens in s.targets}
  results['held_out'] = largest
  content = report.benchmarks(results, drawn)
  tables = {'predictions': rows, 'held_out': largest['rows']}
  return results, tables, content


def rank_mixes(config, folder):
  """Small models of every candidate mix; the large model's scores decide (3.1.2)."""
  s = config.scaling
  plan = ladder.create(s)
  weights = mixes.shares(s.judged, s.weights)
  _check_hold_out(s)
  config, tokenizer = corpus(config, folder)
  runs = _mix_runs(config, folder, plan, tokenizer)
  budgets = sorted(s.budgets)
  count = len(budgets) - s.hold_out
  seen = {
    name: [r for r in rows if r['budget'] in budgets[:count]]
    for name, rows in runs.items()
  }
  found = mixes.forecasts(seen, 0.25, weights, s.step, s.samples)
  ranked = mixes.rank(found, seen, s.target, weights)
  results = {'ranking': ranked, 'pick': ranked[0]['mix'], 'weights': weights}
  results |= {'target': s.target, 'step': s.step, 'runs': runs}
  results['held_out'] = []
  for c in budgets[count:]:
    held = {n: [r for r in rows if r['budget'] == c] for n, rows in runs.items()}
    results['held_out'].append(mixes.compare(found, held, weights))
  content = report.mixes(results, found, seen)
  return results, {'ranking': [mixes.flat(r) for r in ranked]}, content


def _mix_runs(config, folder, plan, tokenizer):
  """{mix: rows of ladder.collect with their `answers`}; trains what is missing."""
  s = config.scaling
  planned = ladder.runs(plan, configs.model_config(config.model))
  asked = _questions(config, tokenizer, s.judged, s.questions)
  found = {}
  for name, mix in mixes.check(s.candidates):
    known = {n: 0.0 for n in config.data.mix} | dict(mix)
    changes = [
      ladder.overrides(r, plan) | {f'data.mix.{n}': w for n, w in known.items()}
      for r in planned
    ]
    train(config, folder / name, planned, changes)
    found[name] = ladder.collect(folder / name, planned, s.convention)
    for r, run in zip(found[name], planned):
      path = folder / name / ladder.name(r['index'])
      r['answers'] = _answers(config, path, run.model, asked)
  return found


def value_data(config, folder):
  """Anneal a half-trained model on 30% of a new data set, and on none (3.1.3)."""
  s = config.scaling
  config, _ = corpus(config, folder)
  model = ladder.shape(s.size, ladder.create(s), configs.model_config(config.model))
  base = valuation.base(config, model)
  experiments.run(base, str(folder / 'base'))
  losses = {'control': [], 'treatment': []}
  for seed in range(s.seeds):
    for arm in losses:
      member = valuation.anneal(base, s, arm, seed, str(folder / 'base'))
      name = folder / f'{arm}_{seed}'
      experiments.run(member, str(name))
      losses[arm].append(_row_losses(member, name, model))
      jax.clear_caches()
  start = _row_losses(base, folder / 'base', model)
  rows = valuation.deltas(losses['control'], losses['treatment'], s.samples, start)
  results = {'deltas': rows, 'new': s.new, 'share': s.share, 'seeds': s.seeds}
  return results, {'deltas': rows}, report.valuation(results)


def _row_losses(config, folder, model):
  """{source: (nats of each held-out row, tokens of each)}, kept in the run's folder."""
  path = folder / 'rows.json'
  if not path.exists():
    params, _ = models.load(folder, model)
    found = {}
    for name in config.scaling.judged:
      source = shards.open_source(f'{config.data.root}/{name}', split='heldout')
      found[name] = valuation.row_losses(params, model, source, config)
    processes.write_json(path, found)
  return files.read_json(path)
