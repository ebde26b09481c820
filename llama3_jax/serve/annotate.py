"""A page on which people say which of two answers is better (4.2.1).

Rows are appended as they come, each on the disk before the page is told so, and the
same command goes on where it stopped. A row is never written twice: a second tab or a
second press of a key is told that its row is done.
"""

import asyncio
import hashlib
import json
import os
import pathlib
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.responses import HTMLResponse
from starlette.responses import JSONResponse
from starlette.routing import Route

from llama3_jax.base import jsonl
from llama3_jax.post import annotators
from llama3_jax.post import ratings
from llama3_jax.post.annotators import Question
from llama3_jax.post.annotators import Verdict
from llama3_jax.post.preference import STRENGTHS
from llama3_jax.serve import server
from llama3_jax.text.chat import Message

PAGE = pathlib.Path(__file__).with_name('annotate.html')
BODY = 1_000_000  # bytes of a request: an edited answer
REASONS = ('equal', 'both bad', 'cannot judge', 'harmful', 'broken')
LOOPBACK = ('127.0.0.1', 'localhost', '::1')


class Refused(Exception):
  """A request that is not written; its text is shown on the page."""

  def __init__(self, status: int, text: str) -> None:
    super().__init__(text)
    self.status = status


class Desk:
  """The questions, and what was said of them in files of a folder: preferences.jsonl,
  the rows that `reward` and `dpo` read, and skipped.jsonl.

  rater: who rates on the seven points, also in ratings.jsonl; '': four strengths of
  either side, and nobody is named.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    questions: Sequence[Question],
    seed: int,
    source: str,
    rater: str = '',
  ) -> None:
    self._seed, self._source, self._rater = seed, source, rater
    self._known = {q.id: q for q in questions}
    self._preferences = folder / 'preferences.jsonl'
    kept = folder / 'ratings.jsonl' if rater else self._preferences
    self._files = kept, folder / 'skipped.jsonl'
    self._said = [_ids(path) for path in self._files]
    if rater and not _ids(self._preferences) <= self._said[0]:
      # Killed between its two rows: the question is open, and is asked again.
      rows = jsonl.read(self._preferences, '--workdir')
      jsonl.write(self._preferences, [r for _, r in rows if r['id'] in self._said[0]])

  @property
  def left(self) -> list[Question]:
    """What nobody has judged or skipped yet, in order."""
    done = set().union(*self._said)
    return [q for name, q in self._known.items() if name not in done]

  def counts(self) -> dict[str, int]:
    """{'judged', 'skipped', 'total'} of the questions."""
    judged, skipped = (sum(i in self._known for i in ids) for ids in self._said)
    return {'judged': judged, 'skipped': skipped, 'total': len(self._known)}

  def swapped(self, question: Question) -> bool:
    """Whether the second answer is on the left: by seed and row, not by model."""
    text = f'{self._seed} {question.id}'.encode('utf-8', 'replace')
    return bool(hashlib.blake2b(text, digest_size=1).digest()[0] % 2)

  def state(self) -> dict:
    """What the page shows: counts, and the next row without names of models."""
    left = self.left
    whole = self.counts() | {'points': len(ratings.SCALE) if self._rater else 0}
    if not left:
      return {**whole, 'item': None}
    question = left[0]
    answers = question.answers[:: -1 if self.swapped(question) else 1]
    item = {
      'id': question.id,
      'prompt': [{'role': m.role, 'text': _text(m)} for m in question.prompt],
      'answers': [_text(m) for m in answers],
      'editable': [not m.calls for m in answers],
    }
    return {**whole, 'item': item}

  def judge(self, said: object) -> None:
    """Writes {'id', 'side': 0 left or 1 right, 'strength': 1 to 4, 'edited'?}, of the
    seven points {'id', 'point': 1 to 7 of the left one, 'edited'?}."""
    question = self._open(said)
    if self._rater:
      return self._rate(question, said)
    side, strength = said.get('side'), said.get('strength')
    if side not in (0, 1) or type(side) is not int:
      raise Refused(400, 'side must be 0 or 1')
    if type(strength) is not int or not 1 <= strength <= len(STRENGTHS):
      raise Refused(400, 'strength must be 1 to 4')
    swapped = self.swapped(question)
    edited = self._edited(said.get('edited'), question)
    verdict = Verdict(side ^ swapped, strength, edited)
    self._append(self._files[0], self._preference(question, verdict))
    self._said[0].add(question.id)

  def _rate(self, question, said):
    point = said.get('point')
    if type(point) is not int or not 1 <= point <= len(ratings.SCALE):
      raise Refused(400, f'point must be 1 to {len(ratings.SCALE)}')
    edited = self._edited(said.get('edited'), question)
    if edited and point == ratings.SAME:
      raise Refused(400, 'Say which one is better: an edited answer is of that one.')
    swapped = self.swapped(question)
    rating = ratings.Rating(ratings.turned(point) if swapped else point, edited=edited)
    # The rating is last: what has one is done, and has all its rows.
    if verdict := ratings.verdict(rating):
      self._append(self._preferences, self._preference(question, verdict))
    row = ratings.row(question, rating, self._rater, swapped)
    self._append(self._files[0], row)
    self._said[0].add(question.id)

  def _preference(self, question, verdict):
    row = annotators.row(question, verdict, self._source)
    return {**row, 'metadata': {'swapped': self.swapped(question)}}

  def skip(self, said: object) -> None:
    """Writes {'id', 'reason'} of a row that has no better answer."""
    question = self._open(said)
    if said.get('reason') not in REASONS:
      raise Refused(400, f'reason must be one of {", ".join(REASONS)}')
    if self._rater and said['reason'] == REASONS[0]:
      raise Refused(400, f'equal answers are rated {ratings.SAME}')
    self._append(self._files[1], {'id': question.id, 'reason': said['reason']})
    self._said[1].add(question.id)

  def _open(self, said):
    name = said.get('id') if isinstance(said, dict) else None
    if not isinstance(name, str) or name not in self._known:
      raise Refused(400, 'no row has this id')
    if any(name in ids for ids in self._said):
      raise Refused(409, 'This row was done already: here is the next one.')
    return self._known[name]

  @staticmethod
  def _edited(text, question):
    if text is None:
      return None
    if not isinstance(text, str) or not text.strip():
      raise Refused(400, 'The edited answer is empty.')
    if any(text == m.content for m in question.answers):
      raise Refused(400, 'The edited answer is one of the two: change it.')
    return Message('assistant', text)

  @staticmethod
  def _append(path, row):
    """One line, on the disk when this returns."""
    line = json.dumps(row, ensure_ascii=False) + '\n'
    with open(path, 'ab') as file:
      file.write(line.encode('utf-8', 'backslashreplace'))
      file.flush()
      os.fsync(file.fileno())


def _ids(path):
  """Ids of the rows of a file; a last line that a crash has cut is removed."""
  if not path.exists():
    return set()
  whole = path.read_bytes()
  end = whole.rfind(b'\n') + 1
  if end < len(whole):
    with open(path, 'r+b') as file:
      file.truncate(end)
  return {row['id'] for _, row in jsonl.read(path, '--workdir', empty=True)}


def _text(message):
  calls = [f'{c.name}({json.dumps(dict(c.arguments))})' for c in message.calls]
  return '\n'.join([message.content] * bool(message.content) + calls)


def application(desk: Desk, names: Sequence[str]) -> Starlette:
  """The ASGI application; names: hosts by which it may be asked, () for any."""
  page, policy = server.sealed(PAGE)

  async def shown(request):
    return HTMLResponse(page, headers={'Content-Security-Policy': policy})

  async def state(request):
    return JSONResponse(desk.state())

  def taking(write):
    async def route(request):
      write(await _body(request))  # nothing else runs between its check and its row
      return JSONResponse(desk.state())

    return route

  async def refused(request, error):
    return JSONResponse({'error': str(error), **desk.state()}, error.status)

  app = Starlette(
    routes=[
      Route('/', shown),
      Route('/state', state),
      Route('/judge', taking(desk.judge), methods=['POST']),
      Route('/skip', taking(desk.skip), methods=['POST']),
    ],
    exception_handlers={Refused: refused},
  )
  return _Guard(app, names)


async def _body(request):
  """The JSON of a request. A page of another site cannot send this type unasked."""
  if request.headers.get('content-type', '').split(';')[0] != 'application/json':
    raise Refused(415, 'the content must be application/json')
  body = bytearray()
  async for part in request.stream():
    body += part
    if len(body) > BODY:
      raise Refused(413, f'The edited answer is longer than {BODY:,} bytes.')
  try:
    return json.loads(body)
  except (ValueError, RecursionError):
    raise Refused(400, 'not JSON') from None


class _Guard:
  """Refuses hosts by other names: a site could point its own name to this machine."""

  def __init__(self, app, names):
    self._app, self._names = app, names

  async def __call__(self, scope, receive, send):
    if self._names and scope['type'] == 'http':
      host = dict(scope['headers']).get(b'host', b'').decode('latin-1')
      if host.rsplit(':', 1)[0].strip('[]') not in self._names:
        answer = JSONResponse({'error': 'unknown host'}, 421)
        return await answer(scope, receive, send)
    return await self._app(scope, receive, send)


def run(desk: Desk, host: str, port: int) -> None:
  """Serves the page until every row is done, or SIGTERM or Ctrl-C."""
  door = server.bound(host, port)
  names = LOOPBACK if host in LOOPBACK else ()
  config = server.settings(application(desk, names))
  asyncio.run(_Server(config, desk).serve([door]))


class _Server(server.Announced):
  """Ends when nothing is left, and at a signal, without an error."""

  words = 'the page is at %s'

  def __init__(self, config, desk):
    super().__init__(config)
    self._desk = desk

  def handle_exit(self, sig, frame):
    """The second signal does not wait."""
    self.force_exit, self.should_exit = self.should_exit, True

  async def on_tick(self, counter):
    """Whether to end now: asked ten times a second, looked at once a second."""
    self.should_exit |= not counter % 10 and not self._desk.left
    return await super().on_tick(counter)
