"""The routes of the OpenAI API."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.responses import Response
from starlette.responses import StreamingResponse

from llama3_jax.generate import embed
from llama3_jax.serve import choices
from llama3_jax.serve import messages
from llama3_jax.serve import read
from llama3_jax.serve.choices import Delta
from llama3_jax.serve.choices import Written
from llama3_jax.serve.faults import Fault
from llama3_jax.serve.faults import wrong
from llama3_jax.serve.gate import Limits
from llama3_jax.serve.gate import body_of
from llama3_jax.serve.generation import Generation
from llama3_jax.serve.generation import Served

TEXTS = 2_048  # of a request for embeddings
STREAM = {'Cache-Control': 'no-cache', 'X-Accel-Buffering': 'no'}


class Api:
  """Answers requests of the routes below /v1."""

  def __init__(self, served: Served, limits: Limits) -> None:
    self.served, self._limits = served, limits
    self._written = Written(served.tokenizer)
    self._began = int(time.time())

  async def models(self, request: Request) -> Response:
    """The model, or the list of it."""
    name = request.path_params.get('name')
    row = {'id': self.served.name, 'object': 'model', 'created': self._began}
    row |= {'owned_by': 'llama3_jax'}
    if name is None:
      return JSONResponse({'object': 'list', 'data': [row]})
    read.model({'model': name}, self.served.name)
    return JSONResponse(row)

  async def chat(self, request: Request) -> Response:
    """An answer in a dialog."""
    body = await self._body(request)
    served, size = self.served, self.served.tokenizer.vocab_size
    asked = read.asked(body, True, size)
    dialog, tools = messages.messages(body), messages.tools(body)
    choice = messages.choice(body, tools)
    schema = messages.schema(body, tools, choice)
    shown = [] if choice == 'none' else tools
    several = messages.parallel(body)
    # Both may take long, and others are being answered.
    ids = await asyncio.to_thread(messages.prompt, served.tokenizer, dialog, shown)
    name = 'response_format' if choice in ('none', 'auto') else 'tools'
    grammar = schema and await asyncio.to_thread(served.grammar, schema, name)
    how = (grammar, shown, several)
    made = Generation(served, [ids], asked, 'messages', *how)
    return await self._answer(request, made, asked, _Chat(self._written, asked))

  async def completions(self, request: Request) -> Response:
    """What follows a text."""
    body = await self._body(request)
    served, size = self.served, self.served.tokenizer.vocab_size
    asked = read.asked(body, False, size)
    for name in ('echo', 'suffix'):
      if body.get(name):
        raise wrong(name, 'it is not supported')
    if read.whole(body, 'best_of', asked.samples, 1) != asked.samples:
      raise wrong('best_of', "it must be as 'n'")
    given = read.inputs(body, 'prompt', size, served.worker.most)
    prompts = await asyncio.to_thread(self._encoded, given)
    made = Generation(served, prompts, asked, 'prompt')
    form = _Completion(self._written, asked)
    return await self._answer(request, made, asked, form)

  async def embeddings(self, request: Request) -> Response:
    """Vectors of texts."""
    body = await self._body(request)
    served = self.served
    engine, form = served.worker.engine, read.encoding(body)
    if engine.stages > 1:
      raise Fault(400, 'a server over mesh.stage gives no embeddings')
    given = read.inputs(body, 'input', served.tokenizer.vocab_size, TEXTS)
    if read.whole(body, 'dimensions', served.model.d_model, 1) != served.model.d_model:
      raise wrong('dimensions', f'it must be {served.model.d_model}')
    prompts = await asyncio.to_thread(self._encoded, given)
    longest = max(map(len, prompts))
    if longest > engine.sizes.length or not min(map(len, prompts)):
      said = f'a text has {longest} tokens: from 1 to {engine.sizes.length} are read'
      raise Fault(400, said, 'input', 'context_length_exceeded')
    rows, some = [], embed.rows(embed.width(longest, engine.sizes.length))
    for i in range(0, len(prompts), some):
      part = prompts[i : i + some]
      rows += list(await served.worker.call(lambda p=part: embed.texts(engine, p)))
    data = [
      {'object': 'embedding', 'index': i, 'embedding': read.written(row, form)}
      for i, row in enumerate(rows)
    ]
    count = sum(map(len, prompts))
    request.scope['record'] |= {'prompt_tokens': count}
    used = {'prompt_tokens': count, 'total_tokens': count}
    said = {'object': 'list', 'data': data, 'model': served.name, 'usage': used}
    return JSONResponse(said)

  async def _body(self, request):
    body = read.parse(await body_of(request, self._limits))
    read.model(body, self.served.name)
    return body

  def _encoded(self, given):
    encode = self.served.tokenizer.encode
    return [encode(x, bos=True) if isinstance(x, str) else x for x in given]

  async def _answer(self, request, made, asked, form):
    form.begin(self.served.name, made)
    if asked.stream:
      return _Stream(self._events(made, asked, form), request, made)
    whole = asyncio.create_task(_collected(made, form))
    gone = asyncio.create_task(_gone(request))
    try:
      await asyncio.wait([whole, gone], return_when=asyncio.FIRST_COMPLETED)
      if not whole.done():
        raise Fault(499, 'the client has gone')
      return JSONResponse(whole.result())
    finally:
      for task in (whole, gone):
        task.cancel()
      made.cancel()
      _record(request, made)

  async def _events(self, made, asked, form) -> AsyncIterator[str]:
    """Server-sent events; an error after the first is one of them."""
    try:
      for chunk in form.opening():
        yield _event(chunk)
      async for index, delta in made.deltas():
        yield _event(form.chunk(index, delta))
      if asked.usage:
        used = choices.usage(made.tokens, made.count)
        yield _event(form.envelope(True) | {'choices': [], 'usage': used})
      yield 'data: [DONE]\n\n'
    except Fault as fault:
      yield _event(fault.body())


class _Stream(StreamingResponse):
  """Events of a generation, which is cancelled when nobody reads them any more."""

  def __init__(self, events, request, made):
    super().__init__(events, media_type='text/event-stream', headers=STREAM)
    self._request, self._made = request, made

  async def __call__(self, scope, receive, send):
    """Sends them."""
    try:
      await super().__call__(scope, receive, send)
    finally:
      self._made.cancel()
      _record(self._request, self._made)


def _event(value):
  return f'data: {json.dumps(value)}\n\n'


def _record(request, made):
  counts = {'prompt_tokens': made.tokens, 'completion_tokens': made.count}
  request.scope['record'] |= counts


async def _collected(made, form):
  """The whole answer of a generation."""
  gained = [[] for _ in made.choices]
  async for index, delta in made.deltas():
    gained[index].append(delta)
  rows = [form.whole(i, _joined(deltas)) for i, deltas in enumerate(gained)]
  used = choices.usage(made.tokens, made.count)
  return form.envelope(False) | {'choices': rows, 'usage': used}


def _joined(deltas):
  tokens = tuple(token for delta in deltas for token in delta.tokens)
  last = deltas[-1]
  return Delta(''.join(d.text for d in deltas), tokens, last.calls, last.finish)


async def _gone(request):
  """Returns when the client has gone."""
  while (await request.receive())['type'] != 'http.disconnect':
    pass


class _Form:
  """How answers of one request are written."""

  def __init__(self, written, asked):
    self._written, self._asked, self._envelope = written, asked, {}

  def begin(self, name, made):
    """Before the first answer."""
    self._envelope = {
      'id': f'{self.KEY}-{secrets.token_hex(12)}',
      'object': '',
      'created': int(time.time()),
      'model': name,
    }
    self._offsets = [0] * len(made.choices)
    self._count = len(made.choices)

  def envelope(self, streamed: bool) -> Mapping[str, object]:
    """The fields around choices."""
    form = {'object': self.STREAMED if streamed else self.WHOLE}
    null = {'usage': None} if streamed and self._asked.usage else {}
    return self._envelope | form | null


class _Chat(_Form):
  KEY, WHOLE, STREAMED = 'chatcmpl', 'chat.completion', 'chat.completion.chunk'

  def opening(self):
    """The role comes first."""
    for i in range(self._count):
      delta = {'role': 'assistant', 'content': ''}
      yield self._choice({'index': i, 'delta': delta}, Delta())

  def chunk(self, index, delta):
    """A piece of a choice."""
    calls = [{'index': i} | call for i, call in enumerate(delta.calls or ())]
    said = {'content': delta.text} if delta.text else {}
    said |= {'tool_calls': calls} if calls else {}
    return self._choice({'index': index, 'delta': said}, delta)

  def _choice(self, row, delta):
    return self.envelope(True) | {'choices': [row | self._end(delta)]}

  def _end(self, delta):
    known = self._asked.logprobs and delta.tokens
    logprobs = self._written.chat(delta.tokens) if known else None
    return {'logprobs': logprobs, 'finish_reason': delta.finish}

  def whole(self, index, delta):
    """A whole choice."""
    said = {'role': 'assistant', 'content': delta.text, 'refusal': None}
    if delta.calls:
      said |= {'content': delta.text or None, 'tool_calls': delta.calls}
    return {'index': index, 'message': said} | self._end(delta)


class _Completion(_Form):
  KEY, WHOLE, STREAMED = 'cmpl', 'text_completion', 'text_completion'

  def opening(self):
    """Nothing comes first."""
    return ()

  def chunk(self, index, delta):
    """A piece of a choice."""
    return self.envelope(True) | {'choices': [self.whole(index, delta)]}

  def whole(self, index, delta):
    """A choice, or a piece of one."""
    logprobs = None
    if self._asked.logprobs:
      logprobs = self._written.completion(delta.tokens, self._offsets[index])
      self._offsets[index] += sum(map(len, logprobs['tokens']))
    end = {'logprobs': logprobs, 'finish_reason': delta.finish}
    return {'index': index, 'text': delta.text} | end
