"""Whether weights of few bits change what a reward model says of the answers (6.2).

Benchmarks hide the damage; the distribution of the scores of many answers shows it. Two
seeds of the same weights say how far two distributions are apart by chance.
"""

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from llama3_jax.config import ModelConfig
from llama3_jax.generate import engine
from llama3_jax.generate.settings import Settings
from llama3_jax.model import llama
from llama3_jax.post import reward
from llama3_jax.post import together
from llama3_jax.report import figures
from llama3_jax.report.blocks import Card
from llama3_jax.report.blocks import Note
from llama3_jax.report.blocks import Page
from llama3_jax.report.blocks import Plot
from llama3_jax.report.blocks import Section
from llama3_jax.report.blocks import Table
from llama3_jax.text.tokenizer import Tokenizer

RESAMPLES = 1000
CHANCE = 0.95  # of the distances of two seeds lie below the limit
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
POINTS = 201  # of a curve


@dataclasses.dataclass(frozen=True)
class Scored:
  """Answers of one model: rewards float64 [prompts, samples]; stopped bool likewise,
  False where an answer was cut off; sampled: their token ids."""

  rewards: np.ndarray
  stopped: np.ndarray
  sampled: Sequence[Sequence[tuple[int, ...]]]


def sample(
  params: llama.Params,
  scorer: tuple[reward.Reward, ModelConfig],
  prompts: Sequence[Sequence[int]],
  tokenizer: Tokenizer,
  config: ModelConfig,
  settings: Settings,
  samples: int,
  seed: int = 0,
  batch_size: int = 8,
) -> Scored:
  """`samples` answers to each prompt (token ids) and their rewards, also of those that
  were cut off. params: as llama.Params, or as programs.prepared gives them;
  scorer: a reward model and its config."""
  settings = dataclasses.replace(settings, vocab_size=tokenizer.vocab_size)
  groups = engine.generate(
    *(params, prompts, config, tokenizer.stop_ids, settings),
    *(seed, samples, batch_size),
  )
  said = [[one.sampled for one in group] for group in groups]
  rewards = together.rewards(scorer[0], prompts, said, scorer[1])
  stopped = np.array([[one.stopped for one in group] for group in groups])
  return Scored(np.stack(rewards).astype(np.float64), stopped, said)


def distance(a: np.ndarray, b: np.ndarray) -> float:
  """Kolmogorov-Smirnov distance of two samples of any shape: the largest difference of
  their cumulative distributions, 0 to 1."""
  a, b = np.sort(a, axis=None), np.sort(b, axis=None)
  at = np.concatenate([a, b])
  below = lambda x: np.searchsorted(x, at, 'right') / len(x)
  return float(np.abs(below(a) - below(b)).max())


def by_chance(
  a: np.ndarray, b: np.ndarray, seed: int = 0, count: int = RESAMPLES
) -> np.ndarray:
  """Distances of two seeds, float64 [count], ascending: bootstrap over prompts.

  a, b [prompts, samples]: rewards of the same prompts. Prompts are drawn with
  replacement, each with all its answers, because those are alike.
  """
  rng = np.random.default_rng(seed)
  drawn = rng.integers(0, len(a), (count, len(a)))
  return np.sort([distance(a[i], b[i]) for i in drawn])


def summary(rewards: np.ndarray) -> dict[str, object]:
  """{'mean', 'std', 'quantiles': {share: reward}} of rewards of any shape."""
  at = np.quantile(rewards, QUANTILES)
  return {
    'mean': float(rewards.mean()),
    'std': float(rewards.std()),
    'quantiles': {f'{q:g}': float(x) for q, x in zip(QUANTILES, at)},
  }


def judge(a: np.ndarray, b: np.ndarray, few: np.ndarray, seed: int = 0) -> dict:
  """Whether `few` is as near to `a` as another seed is, rewards [prompts, samples].

  a, few: of one seed; b: as a, of another. Returns {'distance' of few to a,
  'other_seed' of few to b, 'seeds' of b to a, 'chance': bootstrap quantiles of seeds,
  'limit': its 95th percentile, 'verdict': 'within' or 'beyond'}. The draws of one seed
  are the same random numbers, so that `distance` has less noise than `other_seed`,
  which has as much as `seeds`.
  """
  chance = by_chance(a, b, seed)
  limit, found = float(np.quantile(chance, CHANCE)), distance(few, a)
  shares = (0.05, 0.25, 0.5, 0.75, CHANCE)
  return {
    'distance': found,
    'other_seed': distance(few, b),
    'seeds': distance(a, b),
    'chance': {f'{q:g}': float(np.quantile(chance, q)) for q in shares},
    'limit': limit,
    'verdict': 'within' if found <= limit else 'beyond',
  }


def curve(rewards: np.ndarray) -> list[float]:
  """The rewards below which equal shares of all lie, POINTS of them from 0 to 1."""
  return np.quantile(rewards, np.linspace(0, 1, POINTS)).tolist()


def figure(curves: Mapping[str, Sequence[float]]) -> dict:
  """Figure of the cumulative distributions of {name: curve}."""
  drawn, shares = go.Figure(), np.linspace(0, 1, POINTS).tolist()
  for (name, at), dash in zip(curves.items(), ('solid', 'dot', 'dash'), strict=True):
    drawn.add_scatter(x=at, y=shares, name=name, line_dash=dash)
  axis = lambda text: {'title': {'text': text}}
  spec = figures.figure(drawn, 360, xaxis=axis('reward'), yaxis=axis('share below'))
  return figures.paint(spec, [f'role:{i}' for i in range(len(curves))])


DISTANCES = {
  'distance': 'few bits to the whole weights, same seed',
  'other_seed': 'few bits to the whole weights, other seed',
  'seeds': 'two seeds of the whole weights',
  'limit': 'two seeds, 95th percentile of the bootstrap',
}


def said(results: Mapping) -> str:
  """The verdict of results in a sentence."""
  far, limit = (f'{results[name]:.4f}' for name in ('distance', 'limit'))
  return (
    f'{results["weights"]}: the scores are {far} from those of the whole weights, '
    f'{results["verdict"]} {limit}, the 95th percentile of two seeds'
  )


def page(results: Mapping) -> Page:
  """The report: verdict, cumulative distributions, distances, moments and quantiles."""
  header = ('answers', 'mean', 'deviation', *(f'{q:.0%}' for q in QUANTILES))
  rows = [
    (name, s['mean'], s['std'], *s['quantiles'].values(), s['cut'], s.get('exact', ''))
    for name, s in results['scores'].items()
  ]
  far = [(words, results[name]) for name, words in DISTANCES.items()]
  lines = [f'{results["prompts"]:,} prompts, {results["answers"]:,} answers each time']
  blocks = [
    Card([Plot('scores', figure(results['curves']))], 'Share of answers below a score'),
    Card([Table((*header, 'cut off', 'exact match'), rows, wide=True)], 'Scores'),
    Card([Table(('Kolmogorov-Smirnov distance', ''), far)]),
  ]
  section = Section('Reward scores', [Note(said(results)), *blocks])
  return Page('Weights of few bits', [section], lines)
