"""Counters of a server, in the text format of Prometheus."""

import collections

from llama3_jax.serve.worker import Worker

# Upper edges in seconds.
EDGES = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
  """What was counted since the start; only the event loop changes it."""

  def __init__(self, worker: Worker) -> None:
    self._worker = worker
    self._status = collections.Counter()
    self._first = [0] * (len(EDGES) + 1)
    self._seconds = 0.0

  def request(self, path: str, status: int) -> None:
    """A request ended."""
    self._status[path, status] += 1

  def first_token(self, seconds: float) -> None:
    """The first token of a request came after so long."""
    at = next((i for i, edge in enumerate(EDGES) if seconds <= edge), len(EDGES))
    self._first[at] += 1
    self._seconds += seconds

  def text(self) -> str:
    """All of them."""
    engine, lines = self._worker.engine, []
    used, pages = engine.pages

    def add(name, kind, text, *rows):
      lines.append(f'# HELP llama3_{name} {text}')
      lines.append(f'# TYPE llama3_{name} {kind}')
      lines.extend(f'llama3_{name}{labels} {value}' for labels, value in rows)

    counted = [
      (f'{{path="{path}",status="{status}"}}', n)
      for (path, status), n in sorted(self._status.items())
    ]
    add('requests_total', 'counter', 'requests that ended', *counted)
    add('read_tokens_total', 'counter', 'tokens of prompts read', ('', engine.read))
    add('padded_tokens_total', 'counter', 'idle tokens beside', ('', engine.padded))
    add('decoded_tokens_total', 'counter', 'tokens sampled', ('', engine.decoded))
    add('pages_used', 'gauge', 'pages with an owner', ('', used))
    add('pages', 'gauge', 'pages', ('', pages))
    add('waiting', 'gauge', 'requests that wait', ('', self._worker.waiting))
    add('running', 'gauge', 'answers that decode', ('', self._worker.running))
    name = 'first_token_seconds'
    add(name, 'histogram', 'time to the first token', *self._histogram())
    return '\n'.join(lines) + '\n'

  def _histogram(self):
    total = 0
    for edge, n in zip((*EDGES, '+Inf'), self._first):
      total += n
      yield f'_bucket{{le="{edge}"}}', total
    yield '_sum', round(self._seconds, 6)
    yield '_count', total
