"""Fields of requests: their types and ranges, with errors that name the field."""

import base64
import dataclasses
import json
import math
from collections.abc import Mapping
from collections.abc import Sequence

from llama3_jax.base import jsonl
from llama3_jax.generate import draw
from llama3_jax.generate.settings import COLDEST
from llama3_jax.generate.settings import Settings
from llama3_jax.serve.faults import Fault
from llama3_jax.serve.faults import wrong

STOPS = 4  # stop strings of a request
STOP = 1_000  # characters of one
SAMPLES = 128  # choices of a request
WHOLE = 2**63  # least number that is too large for a field
# Of completions without max_tokens, as in the OpenAI API; a chat may fill the room.
COMPLETION = 16


@dataclasses.dataclass(frozen=True)
class Asked:
  """How a request is to be answered.

  Attributes:
    settings: of sampling; its max_new counts only where `most` is None.
    most: longest answer, tokens; None: all the room that is left.
    samples: answers of each prompt.
    seed: None: any.
    stops: stop strings.
    stream, usage: whether the answer comes in pieces, and with a last one that counts.
    logprobs: whether they are told.
  """

  settings: Settings
  most: int | None
  samples: int
  seed: int | None
  stops: tuple[str, ...]
  stream: bool
  usage: bool
  logprobs: bool


def parse(data: bytes) -> dict[str, object]:
  """The JSON object of a body; Fault for anything else."""
  try:
    body = json.loads(data, parse_constant=_no_constant)
  except (ValueError, RecursionError) as error:
    reason = ' '.join(str(error).split())[:200]
    raise Fault(400, f'the body is not JSON: {reason}', code='invalid_json') from None
  if not isinstance(body, dict):
    kind = jsonl.kind(body)
    raise Fault(400, f'the body is a {kind}, not an object', code='invalid_json')
  return body


def _no_constant(name):
  raise ValueError(f'{name} is not a number of JSON')


def number(body: Mapping, name: str, default: float, low: float, high: float) -> float:
  """A number of a field in [low, high]; null is `default`."""
  value = body.get(name)
  if value is None:
    return default
  if isinstance(value, bool) or not isinstance(value, (int, float)):
    raise wrong(name, f'it must be a number, not a {jsonl.kind(value)}')
  if not low <= value <= high:
    raise wrong(name, f'it must be from {low} to {high}')
  return float(value)


def whole(
  body: Mapping, name: str, default: int | None, low: int, high: int = WHOLE - 1
) -> int | None:
  """A whole number of a field in [low, high]; null is `default`."""
  value = body.get(name)
  if value is None:
    return default
  if isinstance(value, float) and math.isfinite(value) and value == int(value):
    value = int(value)
  if isinstance(value, bool) or not isinstance(value, int):
    raise wrong(name, f'it must be a whole number, not a {jsonl.kind(value)}')
  if not low <= value <= high:
    raise wrong(name, f'it must be from {low} to {high}')
  return value


def flag(body: Mapping, name: str, default: bool = False) -> bool:
  """true or false of a field."""
  value = body.get(name)
  if value is None:
    return default
  if not isinstance(value, bool):
    raise wrong(name, f'it must be true or false, not a {jsonl.kind(value)}')
  return value


def text(body: Mapping, name: str, default: str | None = None) -> str | None:
  """The text of a field."""
  value = body.get(name)
  if value is None:
    return default
  if not isinstance(value, str):
    raise wrong(name, f'it must be a text, not a {jsonl.kind(value)}')
  return value


def nested(body: Mapping, name: str) -> Mapping:
  """The object of a field; {} where there is none."""
  value = body.get(name)
  if value is None:
    return {}
  if not isinstance(value, Mapping):
    raise wrong(name, f'it must be an object, not a {jsonl.kind(value)}')
  return value


def model(body: Mapping, known: str) -> None:
  """Fault unless the body names the model that is served."""
  name = text(body, 'model')
  if name is None:
    raise Fault(400, "'model' is missing", 'model', 'missing_field')
  if name != known:
    said = f'the model {name[:200]!r} is not served: {known!r} is'
    raise Fault(404, said, 'model', 'model_not_found')


def stops(body: Mapping) -> tuple[str, ...]:
  """Stop strings: a text, or up to four."""
  value = body.get('stop')
  if value is None:
    return ()
  found = [value] if isinstance(value, str) else value
  if not isinstance(found, list) or not all(isinstance(s, str) for s in found):
    raise wrong('stop', 'it must be a text, or a list of texts')
  if len(found) > STOPS:
    raise wrong('stop', f'there are {len(found)}: at most {STOPS}')
  if any(len(s) > STOP for s in found):
    raise wrong('stop', f'each may have at most {STOP:,} characters')
  return tuple(s for s in found if s)


def bias(body: Mapping, size: int) -> tuple[tuple[int, float], ...]:
  """((token, what is added to its logit), ...) of logit_bias; size: of vocabulary."""
  given = nested(body, 'logit_bias')
  if len(given) > draw.BIASED:
    raise wrong('logit_bias', f'it names {len(given)} tokens: at most {draw.BIASED}')
  found = {}
  for name in given:
    if not (name.isascii() and name.isdigit() and len(name) < 10 and int(name) < size):
      raise wrong('logit_bias', f'{name[:40]!r} is not a token id below {size}')
    value = number({'logit_bias': given[name]}, 'logit_bias', 0.0, -100, 100)
    found[int(name)] = value
  return tuple(sorted(found.items()))


def asked(body: Mapping, chat: bool, size: int) -> Asked:
  """How a body wants to be answered; Fault for a field that is wrong.

  chat: of chats, where logprobs is a switch. size: tokens of the vocabulary.
  """
  stream, likeliest = flag(body, 'stream'), draw.ALTERNATIVES
  options = nested(body, 'stream_options')
  if options and not stream:
    raise wrong('stream_options', "it is for 'stream': true")
  if chat:
    logprobs = flag(body, 'logprobs')
    count = whole(body, 'top_logprobs', 0, 0, likeliest)
    if count and not logprobs:
      raise wrong('top_logprobs', "it is for 'logprobs': true")
  else:
    wanted = whole(body, 'logprobs', None, 0, likeliest)
    logprobs, count = wanted is not None, wanted or 0
  most = whole(body, 'max_tokens', None if chat else COMPLETION, 1)
  most = whole(body, 'max_completion_tokens', most, 1) if chat else most
  return Asked(
    settings=_settings(body, size, count),
    most=most,
    samples=whole(body, 'n', 1, 1, SAMPLES),
    seed=whole(body, 'seed', None, -WHOLE),
    stops=stops(body),
    stream=stream,
    usage=flag(options, 'include_usage'),
    logprobs=logprobs,
  )


def _settings(body, size, alternatives):
  """Without a field, as in the OpenAI API: temperature 1, and every token."""
  temperature = number(body, 'temperature', 1.0, 0, 100)
  top_p = number(body, 'top_p', 1.0, 0, 1)
  return Settings(
    temperature=temperature if temperature >= COLDEST else 0.0,
    top_p=max(top_p, 1e-6),
    # Clients of other servers write -1 for every token.
    top_k=max(whole(body, 'top_k', 0, -1, 2**31 - 1), 0),
    vocab_size=size,
    min_p=number(body, 'min_p', 0.0, 0, 1),
    repetition=number(body, 'repetition_penalty', 1.0, 0.01, 100),
    presence=number(body, 'presence_penalty', 0.0, -100, 100),
    frequency=number(body, 'frequency_penalty', 0.0, -100, 100),
    bias=bias(body, size),
    alternatives=alternatives,
  )


def inputs(body: Mapping, name: str, size: int, most: int) -> list[str | list[int]]:
  """Texts or lists of token ids of a field that holds one or several, at most `most`.

  size: tokens of the vocabulary."""
  value = body.get(name)
  if value is None:
    raise Fault(400, f"'{name}' is missing", name, 'missing_field')
  if isinstance(value, str):
    return [value]
  due = 'it must be a text, a list of texts, a list of token ids or a list of those'
  if not isinstance(value, list) or not value:
    raise wrong(name, due)
  if all(type(x) is int for x in value):
    value = [value]
  if len(value) > most:
    raise wrong(name, f'there are {len(value)}: at most {most}')
  for each in value:
    ids = isinstance(each, list) and each and all(type(x) is int for x in each)
    if not (isinstance(each, str) or ids):
      raise wrong(name, due)
    if ids and not all(0 <= x < size for x in each):
      raise wrong(name, f'token ids must be from 0 to {size - 1}')
  return value


def encoding(body: Mapping) -> str:
  """How embeddings are written: float or base64."""
  name = text(body, 'encoding_format', 'float')
  if name not in ('float', 'base64'):
    raise wrong('encoding_format', 'it must be float or base64')
  return name


def written(values: Sequence[float], form: str) -> str | list[float]:
  """A float32 array as `encoding` says."""
  if form == 'base64':
    return base64.b64encode(values.astype('<f4').tobytes()).decode()
  return values.tolist()
