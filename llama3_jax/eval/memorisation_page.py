"""The page of memorisation: inclusion rates by frequency and language (5.4.2)."""

import pathlib
from collections.abc import Mapping

from llama3_jax.report import page as pages
from llama3_jax.report.blocks import Card
from llama3_jax.report.blocks import Interval
from llama3_jax.report.blocks import Note
from llama3_jax.report.blocks import Page
from llama3_jax.report.blocks import Section
from llama3_jax.report.blocks import Table
from llama3_jax.report.blocks import Turn

NOTE = (
  'The model is given {before} tokens of a training document and continues greedily. '
  'The inclusion rate is how often what it writes holds the {gram} tokens that follow '
  'in the document. Rates are weighed by prevalence: how often each n-gram occurs. '
  'Intervals are 95%; equal prompts count once in them.'
)
SHOWN = 10  # continuations that were written


def write(folder: pathlib.Path, results: Mapping) -> None:
  """Writes <folder>/report.html of a finished run of experiments/memorisation.py."""
  pages.write(folder / 'report.html', page(results))


def sentence(results: Mapping) -> str:
  """What a run says, in a line."""
  rate = results['rates']['all']
  low, high = (100 * end for end in rate['interval'])
  return (
    f'inclusion rate of {results["gram"]}-grams {100 * rate["score"]:.2f}% '
    f'[{low:.2f}, {high:.2f}], by {rate["prompts"]:,} prompts'
  )


def page(results: Mapping) -> Page:
  """The report: the rate, by how often an n-gram occurs, by language, and examples."""
  rates, note = results['rates'], Note(NOTE.format(**results))
  sections = [
    Section('By occurrences', [note, Card([_table(rates['buckets'], 'occurs')])]),
    Section('By language', [Card([_table(rates['languages'], 'language')])]),
    Section('Written word for word', [_example(e) for e in results['examples']]),
  ]
  rate = rates['all']
  tiles = [(f'{100 * rate["score"]:.2f}%', f'of {results["gram"]}-grams are written')]
  tiles.append((f'{results["tokens"]:,}', 'tokens read'))
  return Page('Memorisation', sections, (sentence(results),), tiles)


def _table(rates, what):
  rows = []
  for name, rate in rates.items():
    low, high = (100 * end for end in rate['interval'])
    cell = Interval(f'{100 * rate["score"]:.2f}%', f'[{low:.2f}, {high:.2f}]')
    share = f'{rate["share"]:.1%}'
    rows.append((name, cell, share, f'{rate["prompts"]:,}', f'{rate["different"]:,}'))
  return Table((what, 'inclusion rate', 'of all', 'prompts', 'different'), rows)


def _example(row):
  head = f'{row["document"]}, token {row["start"]}, occurs {row["count"]} times'
  turns = [Turn(row['prompt'], 'prompt', 'user')]
  turns.append(Turn(row['truth'], 'continued as in the document', 'assistant'))
  return Card(turns, head)
