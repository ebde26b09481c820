"""Content of the page and the tables of each kind of study (3.2)."""

from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax.report.blocks import Card
from llama3_jax.report.blocks import Interval
from llama3_jax.report.blocks import Page
from llama3_jax.report.blocks import Plot
from llama3_jax.report.blocks import Row
from llama3_jax.report.blocks import Section
from llama3_jax.report.blocks import Table
from llama3_jax.scaling import figures
from llama3_jax.scaling import isoflop
from llama3_jax.scaling import mixes as candidates
from llama3_jax.scaling import predict


def study(
  rows: Sequence[Mapping], found: isoflop.Study, results: Mapping, two: tuple | None
) -> dict:
  """Content of the page of IsoFLOP runs, for `page`.

  two: (Forecast, arrays of step 1, arrays of step 2), or None.
  """
  held = results.get('held_out', [])
  far, iso = results['extrapolated'], results['isoflop']
  lines = [_law(iso, far), *map(_held_said, held)]
  problems = [b for b in iso['budgets'] if b['problem']]
  lines += [
    f'The budget of {b["budget"]:.3g} FLOPs is left out of the law: {b["problem"]}.'
    for b in problems
  ]
  lines += _schedules_said(results)
  plots = [
    (
      'curves',
      'IsoFLOP curves',
      'A point is a run, a line its budget’s parabola in log tokens, a diamond the '
      'optimum. Open circles and dotted lines were kept out of every fit.',
      figures.curves(rows, found),
    ),
    (
      'optimum',
      'Compute-optimal tokens',
      'Band: 95% of bootstrap samples of runs and budgets. Star: extrapolated.',
      figures.optimum(found, far, held),
    ),
  ]
  if two:
    forecast, models, points = two
    plots.append(
      (
        'steps',
        'From FLOPs to accuracy',
        'Left: NLL a character of the right answer at the best model of a budget. '
        'Right: accuracy of the choice among four, all fitted models.',
        figures.two_steps(
          forecast,
          models,
          points,
          [
            (
              f'held out, {h["budget"]:.3g}',
              h['flops'],
              h['measured']['nll'],
              h['measured']['accuracy'],
            )
            for h in results['two_steps']['held_out']
          ],
          ('NLL a character, nats', 'accuracy'),
        ),
      )
    )
    lines += [_steps_said(h) for h in results['two_steps']['held_out']]
  optima = [('Optima', 'Of every budget in the fit.', _optima(iso))]
  return {'title': 'Scaling laws', 'said': lines, 'figures': plots, 'tables': optima}


def _schedules_said(results):
  """Rows of several schedules in one law, and schedules whose exponent is another."""
  own, lines = results.get('schedules', []), []
  if len(own) > 1:
    lines.append(
      f'Rows of {len(own)} schedules are in one law ({"; ".join(own)}): '
      'scaling.rows chooses one.'
    )
  for r in results.get('other_schedules', []):
    if r['bends']:
      (low, high), (near, far) = r['alpha_interval'], r['difference_interval']
      lines.append(
        f'The schedule bends the exponent: {r["runs"]} rows with {r["name"]} give '
        f'parameters as C^{r["alpha"]:.3f} [{low:.3f}, {high:.3f}], '
        f'{r["difference"]:+.3f} [{near:+.3f}, {far:+.3f}] from these.'
      )
  return lines


def _law(iso, far):
  t, p = iso['tokens'], iso['parameters']
  low, high = t['alpha_interval']
  also = p['alpha_interval']
  tokens, size = far['tokens'], far['parameters']
  return (
    f'Optimal tokens grow as C^{t["alpha"]:.3f} [{low:.3f}, {high:.3f}], parameters as '
    f'C^{p["alpha"]:.3f} [{also[0]:.3f}, {also[1]:.3f}]. At {far["flops"]:.3g} FLOPs: '
    f'{tokens[0]:.3g} [{tokens[1]:.3g}, {tokens[2]:.3g}] tokens, {size[0]:.3g} '
    f'[{size[1]:.3g}, {size[2]:.3g}] parameters (C / 6N*).'
  )


def _held_said(h):
  loss = h['predicted']['loss']
  return (
    f'Held out, {h["budget"]:.3g} FLOPs: lowest loss predicted {loss[0]:.4f} '
    f'[{loss[1]:.4f}, {loss[2]:.4f}], parabola {h["vertex"]["loss"]:.4f} '
    f'({h["loss_error"]:+.2%}), best run {h["lowest_run"]["loss"]:.4f} '
    f'({h["lowest_run_error"]:+.2%}); optimal tokens predicted '
    f'{h["predicted"]["tokens"][0]:.3g}, found {h["vertex"]["tokens"]:.3g}.'
  )


def _steps_said(h):
  nll, accuracy = h['predicted']['nll'], h['predicted']['accuracy']
  return (
    f'Best model of {h["budget"]:.3g} FLOPs: NLL a character predicted {nll[0]:.4f} '
    f'[{nll[1]:.4f}, {nll[2]:.4f}], measured {h["measured"]["nll"]:.4f}; accuracy '
    f'predicted {accuracy[0]:.1%} [{accuracy[1]:.1%}, {accuracy[2]:.1%}], measured '
    f'{h["measured"]["accuracy"]:.1%}.'
  )


def _optima(iso):
  rows = []
  for b in iso['budgets']:
    interval = b['tokens_interval'] or (float('nan'), float('nan'))
    row = {'FLOPs': b['budget'], 'tokens': (b['tokens'], *interval)}
    row |= {'parameters': b['parameters'], 'loss': b['loss']}
    rows.append(row | {'curvature': b['curvature'], 'problem': b['problem'] or '-'})
  return rows


def tables(results: Mapping) -> dict[str, list[dict]]:
  """{file name: rows} of a study."""
  optima = []
  for b in results['isoflop']['budgets']:
    low, high = b['tokens_interval'] or ('', '')
    row = {k: v for k, v in b.items() if k != 'tokens_interval'}
    optima.append(row | {'tokens_low': low, 'tokens_high': high})
  files = {'optima': optima}
  if 'runs' in results:
    fields = ('index', 'budget', 'flops', 'parameters', 'non_embedding', 'tokens')
    fields += ('steps', 'batch', 'peak', 'loss', 'answer_nll', 'accuracy')
    rows = results['runs']
    files['runs'] = [{k: r[k] for k in fields if k in r} for r in rows]
  return files


def benchmarks(results: Mapping, drawn: Mapping[str, tuple]) -> dict:
  """Content of the page of a measured ladder's predictions, for `page`."""
  held, method = results['held_out'], results['method']
  lines = [
    f'Method, chosen by the held-out sizes: {", ".join(method.values())}.',
    f'{held["run"]} from the smaller sizes: mean error of accuracy '
    f'{100 * held["accuracy_error"]:.1f} points, of NLL {held["nll_error"]:.1%}; '
    f'{held["accuracy_covered"]:.0%} and {held["nll_covered"]:.0%} of the 95% '
    'intervals hold what was measured.',
  ]
  plots = []
  for name, (forecast, points) in drawn.items():
    if name.split('_')[0] in ('mmlu',) and name.count('_') > 1:
      continue  # parts of the mean
    guesses = [
      (r['target'], results['targets'][r['target']], r['nll'], r['accuracy'])
      for r in results['predictions']
      if r['benchmark'] == name
    ]
    figure = figures.two_steps(
      forecast, points, points, guesses, ('NLL a byte of the right answer', 'accuracy')
    )
    note = 'Stars are predictions. Bands: 95% of bootstrap samples of the fits.'
    plots.append((f'steps_{name}', name, note, figure))
  tables = [
    ('Predictions', 'Intervals of 95%.', _columns(results['predictions'])),
    (f'{held["run"]}, held out', 'Not used in this fit.', _columns(held['rows'])),
    ('Methods', 'Mean errors on the held-out sizes.', _methods(results['checks'])),
  ]
  return {'title': 'Benchmarks', 'said': lines, 'figures': plots, 'tables': tables}


def _columns(rows):
  table = []
  for r in rows:
    row = {'benchmark': r['benchmark']}
    if 'target' in r:
      row['target'] = r['target']
    for field in ('accuracy', 'nll'):
      row[field] = (r[field], r[f'{field}_low'], r[f'{field}_high'])
      if f'measured_{field}' in r:
        row[f'measured {field}'] = r[f'measured_{field}']
    table.append(row)
  return table


def _methods(checks):
  return [
    {**c['method'], 'accuracy error': c['accuracy_error'], 'NLL error': c['nll_error']}
    for c in checks
  ]


def mixes(
  results: Mapping,
  found: Mapping[str, Mapping[str, predict.Forecast]],
  runs: Mapping[str, Sequence[Mapping]],
) -> dict:
  """Content of the page of the ranking of candidate mixes, for `page`.

  found: of mixes.forecasts; runs: the fitted runs of every mix.
  """
  weights, target = results['weights'], results['target']
  lines = [f'Pick: {results["pick"]}.']
  for r in results['ranking']:
    value, low, high = r['accuracy']
    lines.append(
      f'{r["mix"]}: mean accuracy {value:.1%} [{low:.1%}, {high:.1%}] at {target:.3g} '
      f'FLOPs, best in {r["best_share"]:.0%} of samples.'
    )
  for h in results['held_out']:
    order = ', '.join(f'{r["mix"]} {r["accuracy"]:.1%}' for r in h['mixes'])
    lines.append(
      f'Held out, {h["budget"]:.3g} FLOPs: measured {order}; predicted best: '
      f'{h["pick"]}.'
    )
  plots = [
    (
      f'mix_{i}',
      benchmark,
      f'Share of the mean: {weight:.0%}. Left: best run of every budget of a mix; '
      'right: all runs. Open circles were held out, stars are predictions.',
      figures.candidates(
        {n: f[benchmark] for n, f in found.items()},
        {
          n: candidates.on(candidates.best(r, weights), benchmark)
          for n, r in runs.items()
        },
        {n: candidates.on(r, benchmark) for n, r in runs.items()},
        _held_points(results['held_out'], benchmark),
        {r['mix']: (target, r['benchmarks'][benchmark]) for r in results['ranking']},
      ),
    )
    for i, (benchmark, weight) in enumerate(weights.items())
  ]
  tables = [('Ranking', f'At {target:.3g} FLOPs; intervals of 95%.', _ranking(results))]
  tables += [
    (
      f'{h["budget"]:.3g} FLOPs, held out',
      'Accuracy of the best run of every mix, which no fit saw.',
      [_held_mix(r) for r in h['mixes']],
    )
    for h in results['held_out']
  ]
  return {'title': 'Data mixes', 'said': lines, 'figures': plots, 'tables': tables}


def _ranking(results):
  rows = []
  for r in results['ranking']:
    row = {'mix': r['mix'], 'mean accuracy': r['accuracy']}
    row['best in samples'] = r['best_share']
    for benchmark, v in r['benchmarks'].items():
      row[f'{benchmark}: accuracy'], row[f'{benchmark}: NLL'] = v['accuracy'], v['nll']
    rows.append(row)
  return rows


def _held_mix(r):
  row = {
    'mix': r['mix'],
    'mean': r['accuracy'],
    'predicted': r['predicted']['accuracy'],
  }
  for benchmark, v in r['measured'].items():
    row[benchmark] = v['accuracy']
    row[f'{benchmark}: predicted'] = r['predicted']['benchmarks'][benchmark]['accuracy']
  return row


def _held_points(held, benchmark):
  """[(mix, flops, nll, accuracy)] of runs that were not fitted."""
  return [
    (
      r['mix'],
      r['flops'],
      *(r['measured'][benchmark][k] for k in ('answer_nll', 'accuracy')),
    )
    for h in held
    for r in h['mixes']
  ]


def valuation(results: Mapping) -> dict:
  """Content of the page of a data set's value, for `page`."""
  lines = [
    f'{results["share"]:.0%} of {results["new"]} in the anneal, '
    f'{results["seeds"]} seeds.'
  ]
  for r in results['deltas']:
    lines.append(
      f'{r["source"]}: {r["delta"]:+.4f} [{r["low"]:+.4f}, {r["high"]:+.4f}] nats a '
      f'token: {r["verdict"]}; lower in {r["helps"]:.0%} of samples.'
    )
  note = 'Held-out loss, nats a token; delta is treatment minus control, 95%.'
  tables = [('Deltas', note, results['deltas'])]
  return {
    'title': 'Value of a data set',
    'said': lines,
    'figures': [],
    'tables': tables,
  }


def page(content: Mapping) -> Page:
  """The page of a content that a function above returns.

  content: title, said [str], figures [(name, heading, note, figure or a pair of
  them)], tables [(heading, note, list of dicts)].
  """
  sections = []
  for name, heading, note, figure in content['figures']:
    if isinstance(figure, tuple):  # side by side, on a phone one below the other
      cards = [Card([Plot(f'{name}_{i}', part)]) for i, part in enumerate(figure)]
      sections.append(Section(heading, [Row(cards)], note))
    else:
      sections.append(Section(heading, [Card([Plot(name, figure)])], note))
  for heading, note, rows in content['tables']:
    cells = [[_cell(value) for value in row.values()] for row in rows]
    table = Table(list(rows[0]), cells, wide=True)
    sections.append(Section(heading, [Card([table])], note))
  return Page(content['title'], sections, content['said'])


def _cell(value):
  """A cell of the table: (value, low, high) is a value with its interval."""
  if isinstance(value, (tuple, list)) and len(value) == 3:
    low, high = (f'{x:.4g}' if isinstance(x, float) else str(x) for x in value[1:])
    return Interval(value[0], f'[{low}, {high}]')
  return value
