"""The data mix and its schedule: the source of the next document (3.1.2, 3.4.1).

The rule is deterministic: the next document comes from the source whose drawn tokens
are furthest below its target. The target of a source after T tokens is the integral
of its weight over the schedule, so that no source is ever above its share by more than
one document, whatever the documents' lengths (nor below it, with the paper's mix; with
many small sources by two), and a change of weights takes effect at its token.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax.base.errors import UserError


@dataclasses.dataclass(frozen=True)
class Phase:
  """From token `start` on, source names[i] has share weights[i] (they sum to 1)."""

  start: int
  names: tuple[str, ...]
  weights: tuple[float, ...]


def expand(
  phases: Sequence[tuple[int, Mapping[str, float]]],
  members: Mapping[str, Mapping[str, int]],
) -> list[tuple[int, dict[str, float]]]:
  """Weights of sources from those of categories.

  A category has a share of the tokens, and so may a source in it ('code/stack' beside
  'code'); the category's other sources divide the rest by their tokens.

  Args:
    phases: list of (start_tokens, {category or source: weight}).
    members: dict category -> {source 'category/name': tokens}.

  Returns:
    list of (start_tokens, {source: weight}).
  """
  result = []
  for i, (start, weights) in enumerate(phases):
    shares = {name: w for name, w in weights.items() if name not in members}
    for category in weights.keys() & members.keys():
      sources = members[category]
      own = sum(weights.get(source, 0.0) for source in sources)
      rest = weights[category] - own
      others = {n: tokens for n, tokens in sources.items() if n not in weights}
      if rest < -1e-9 or (rest > 1e-9 and not sum(others.values())):
        raise UserError(
          f'{_field(i)}: {category!r} has weight {weights[category]:g} and its '
          f'sources {own:g} together; give it more, or none of them'
        )
      total = sum(others.values())
      shares |= {n: max(rest, 0.0) * tokens / total for n, tokens in others.items()}
    result.append((start, dict(sorted(shares.items()))))
  return result


def schedule(
  phases: Sequence[tuple[int, Mapping[str, float]]], names: Collection[str]
) -> tuple[Phase, ...]:
  """Checks and normalises a schedule.

  Args:
    phases: list of (start_tokens, {source: weight}), ascending, the first at 0.
    names: the known sources.

  Returns:
    tuple of Phase; sources without weight are absent from their phase.
  """
  result = []
  for i, (start, weights) in enumerate(phases):
    field = _field(i)
    unknown = sorted(set(weights) - set(names))
    if unknown:
      raise UserError(
        f'{field}: unknown source {unknown[0]!r}; there are {", ".join(names)}'
      )
    if start != int(start) or (start != 0 if i == 0 else start <= result[-1].start):
      rule = 'the first phase starts at 0' if i == 0 else 'starts must ascend'
      raise UserError(f'{field}: start {start} tokens; {rule}')
    bad = [n for n, w in weights.items() if not (math.isfinite(w) and w >= 0)]
    if bad or not sum(weights.values()) > 0:
      given = weights or 'none above 0'
      raise UserError(f'{field}: weights must be >= 0 and not all 0, got {given}')
    total = math.fsum(weights.values())
    used = sorted(name for name, weight in weights.items() if weight > 0)
    result.append(
      Phase(int(start), tuple(used), tuple(weights[name] / total for name in used))
    )
  if not result:
    raise UserError('data.mix: empty; give [(0, {source: weight})]')
  return tuple(result)


def phase_at(phases: Sequence[Phase], tokens: int) -> Phase:
  """The Phase in force once `tokens` were drawn."""
  current = phases[0]
  for phase in phases[1:]:
    if phase.start <= tokens:
      current = phase
  return current


def targets(phases: Sequence[Phase], tokens: int) -> dict[str, float]:
  """{source: its target of tokens} once `tokens` were drawn in all."""
  result = {}
  for i, phase in enumerate(phases):
    end = phases[i + 1].start if i + 1 < len(phases) else tokens
    span = min(end, tokens) - phase.start
    if span < 0:
      break
    for name, weight in zip(phase.names, phase.weights):
      result[name] = result.get(name, 0.0) + weight * span
  return result


def choose(phases: Sequence[Phase], drawn: Mapping[str, int]) -> str:
  """The source of the next document.

  Args:
    phases: from schedule().
    drawn: dict source -> tokens drawn so far.

  Returns:
    Of the sources with a weight in this phase, the one furthest below its target; on a
    tie the heaviest, then the first by name.
  """
  tokens = sum(drawn.values())
  phase = phase_at(phases, tokens)
  target = targets(phases, tokens)
  best = max(
    zip(phase.names, phase.weights),
    key=lambda pair: (target[pair[0]] - drawn.get(pair[0], 0), pair[1]),
  )
  return best[0]


def past(phases: Sequence[Phase], tokens: int, identities: Mapping[str, str]) -> str:
  """Fingerprint of the part of the schedule that is in the past.

  It covers the phases that have begun and the content of the sources they use; later
  phases may be edited.

  Args:
    phases: from schedule().
    tokens: drawn so far.
    identities: dict source -> fingerprint of its documents.
  """
  begun = [p for p in phases if p.start < tokens or p.start == 0]
  used = sorted({name for phase in begun for name in phase.names})
  record = [
    [dataclasses.astuple(phase) for phase in begun],
    [[name, identities[name]] for name in used],
  ]
  return hashlib.sha256(json.dumps(record).encode()).hexdigest()[:16]


def _field(phase):
  """The config field of a phase."""
  return f'data.changes, phase {phase}' if phase else 'data.mix'
