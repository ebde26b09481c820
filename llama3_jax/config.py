"""Configuration: ConfigDict at the edge, frozen dataclasses inside."""

import dataclasses
import difflib
import math
import typing
from collections.abc import Collection
from collections.abc import Mapping

from ml_collections import ConfigDict

from llama3_jax.base import fields
from llama3_jax.base.errors import UserError

T = typing.TypeVar('T')


@dataclasses.dataclass(frozen=True)
class RopeScaling:
  """Llama 3.1 frequency scaling; `original` is the context before extension, tokens."""

  factor: float = 8.0
  low: float = 1.0
  high: float = 4.0
  original: int = 8192


@dataclasses.dataclass(frozen=True)
class ModelConfig:
  """Sizes and switches of the decoder (paper table 3; released code for the rest)."""

  n_layers: int
  d_model: int
  n_heads: int
  n_kv_heads: int
  d_head: int
  d_ff: int
  vocab_size: int = 128_256
  rope_theta: float = 500_000.0
  rope_scaling: RopeScaling | None = None
  norm_eps: float = 1e-5
  tie_embeddings: bool = False
  dtype: str = 'bfloat16'  # of the computation; parameters stay float32 in training
  attention: str = 'auto'  # dense | blockwise | splash | flash | auto: by chip, length
  block: int = 0  # about how many tokens a block of attention has; 0: by path
  window: int = 0  # last positions that a query sees; 0: the whole document
  remat: str = 'none'  # none | full | preset | names of arrays to keep (model/remat.py)
  unroll: int = 1  # layers in one round of the scan: fewer copies, longer compilation
  reshard: bool = True  # False: weights stay gathered until the backward pass (3.3.2)
  reduce_dtype: str = 'float32'  # in which gradients of weights are computed and summed
  quant: str = ''  # '' | int8 | fp8: the layers' matrix products (quant.py)
  embedding: str = 'gather'  # or 'onehot': a product, no gather from a sharded table

  @property
  def sizes(self) -> dict[str, int]:
    """{letter: size} of the dims of parameters."""
    return dict(
      L=self.n_layers,
      D=self.d_model,
      N=self.n_heads,
      K=self.n_kv_heads,
      H=self.d_head,
      F=self.d_ff,
      V=self.vocab_size,
    )


def model_config(config: ConfigDict | Mapping[str, object]) -> ModelConfig:
  """ModelConfig from the `model` part of a config; UserError for a bad value."""
  values = config.to_dict() if hasattr(config, 'to_dict') else dict(config)
  scaling = values.get('rope_scaling')
  if scaling is not None and not isinstance(scaling, RopeScaling):
    # Factor 1 in a config file means no scaling: a ConfigDict field keeps its type.
    values['rope_scaling'] = RopeScaling(**scaling) if scaling['factor'] != 1 else None
  return checked(ModelConfig(**values))


CHOICES = dict(
  dtype=('bfloat16', 'float32'),
  reduce_dtype=('float32', 'bfloat16'),
  attention=('auto', 'dense', 'blockwise', 'splash', 'flash'),
  embedding=('gather', 'onehot'),
  quant=('', 'int8', 'fp8'),
)


def checked(c: ModelConfig) -> ModelConfig:
  """The ModelConfig `c`; UserError for a value of another type or out of its range.

  All sources are checked: a config, model.json, or a file of another project.
  """
  values = []
  for part, prefix in ((c, 'model.'), (c.rope_scaling, 'model.rope_scaling.')):
    for f in dataclasses.fields(part) if part else ():
      values.append((prefix + f.name, f.type, getattr(part, f.name)))
  for path, kind, value in values:
    kinds = {int: (int,), float: (int, float)}.get(kind, (kind,))
    if isinstance(kind, type) and type(value) not in kinds:
      raise UserError(f'{path}={value!r} is not a {kind.__name__}')
    if fault := fields.find(path).fault(value):
      raise UserError(f'{path}={value}: {fault} ({fields.find(path).text})')
  if not c.vocab_size:
    raise UserError('model.vocab_size=0: only pre-training finds it in its shards')
  if c.n_heads % c.n_kv_heads:
    raise UserError(
      f'model.n_heads={c.n_heads} is not a multiple of '
      f'model.n_kv_heads={c.n_kv_heads}: every KV head serves the same number of heads'
    )
  if c.d_head % 2:
    raise UserError(f'model.d_head={c.d_head} is odd: RoPE rotates pairs of channels')
  if c.rope_scaling and not c.rope_scaling.low < c.rope_scaling.high:
    raise UserError(
      f'model.rope_scaling.high={c.rope_scaling.high} must be above '
      f'model.rope_scaling.low={c.rope_scaling.low}: between them RoPE blends'
    )
  for field, allowed in CHOICES.items():
    if getattr(c, field) not in allowed:
      raise UserError(
        f'model.{field}={getattr(c, field)!r} must be one of {", ".join(allowed)}'
      )
  return c


def model_fields(c: ModelConfig) -> ConfigDict:
  """The `model` part of a ConfigDict that `model_config` turns back into `c`."""
  values = dataclasses.asdict(c)
  if c.rope_scaling is None:
    values['rope_scaling'] = dataclasses.asdict(RopeScaling(factor=1.0))
  return ConfigDict(values)


def section(value: object) -> ConfigDict:
  """The ConfigDict of a dataclass, and of the dataclasses in it."""
  result = ConfigDict()
  for field in dataclasses.fields(value):
    part = getattr(value, field.name)
    if dataclasses.is_dataclass(part):
      part = section(part)
    elif isinstance(part, Mapping):
      part = ConfigDict(part)
    elif type(part) is int and 'float' in str(field.type):
      part = float(part)  # else 2.5 would be refused
    result[field.name] = part
  return result


def fill(default: T, section: ConfigDict | Mapping[str, object] | T, path: str) -> T:
  """The dataclass `default` with the fields of its section of a config.

  It is the one way from a ConfigDict to a dataclass. A number that may be None is None
  also for infinity, which a command line can express.

  Args:
    default: a dataclass, which may contain others.
    section: ConfigDict or other mapping; a dataclass is returned unchanged.
    path: of the section in the config, for errors: 'optim'; '': the whole config.

  Raises:
    UserError: an unknown field, or a value that is not of the field's kind.
  """
  if isinstance(section, type(default)):
    return section
  values, kinds = {}, typing.get_type_hints(type(default))
  for name, value in section.items():
    where = f'{path}.{name}'.lstrip('.')
    if name not in kinds:
      near = nearest(name, kinds)
      hint = f' or name it {" or ".join(near)}' if near else ''
      raise UserError(f'{where}: nothing reads it: remove it{hint}')
    if dataclasses.is_dataclass(getattr(default, name)):
      values[name] = fill(getattr(default, name), value, where)
      continue
    try:
      values[name] = _cast(value, kinds[name])
    except (TypeError, ValueError, OverflowError):
      kind = getattr(kinds[name], '__name__', None)
      kind = str(kinds[name]) if typing.get_args(kinds[name]) else kind
      raise UserError(f'{where}={value!r}: not a value of kind {kind}') from None
  return dataclasses.replace(default, **values)


def _cast(value, kind):
  """A value as `kind`, such as tuple[tuple[str, float | None], ...]; or an error."""
  inside, origin = typing.get_args(kind), typing.get_origin(kind) or kind
  needed = {tuple: (tuple, list), str: str, Mapping: (Mapping, ConfigDict)}
  if not isinstance(value, needed.get(origin, object)):
    raise TypeError
  if origin is tuple:
    if inside[-1:] == (Ellipsis,):
      inside = inside[:1] * len(value)
    pairs = zip(value, inside, strict=True)
    return tuple(_cast(v, k) for v, k in pairs) if inside else tuple(value)
  if origin is Mapping:
    return {name: _cast(v, inside[1]) for name, v in value.items()}
  if inside:  # float | None
    number = math.inf if value is None else float(value)
    if math.isnan(number):
      raise ValueError
    return None if math.isinf(number) else number
  if kind is str:
    return value
  result = kind(value)
  if isinstance(value, bool) != (kind is bool) or result != float(value):
    raise ValueError
  return result


def flatten(config: ConfigDict, prefix: str = '') -> dict[str, object]:
  """{'optim.lr': value, ...} of a ConfigDict, sorted by path."""
  flat = {}
  for name in sorted(config):
    value = config[name]
    if isinstance(value, ConfigDict):
      flat |= flatten(value, f'{prefix}{name}.')
    else:
      flat[prefix + name] = value
  return flat


def edit(config: ConfigDict, changes: Mapping[str, object]) -> ConfigDict:
  """A copy of `config` with {'data.root': value, ...} set; fields may be new."""
  config = config.copy_and_resolve_references()
  for path, value in changes.items():
    *parents, name = path.split('.')
    node = config
    for parent in parents:
      node = node[parent]
    node[name] = value
  return config


def choose(file: str, argument: str, choices: Collection[str]) -> str:
  """`argument` of a config file; UserError that names the valid ones."""
  if argument not in choices:
    near = nearest(argument, choices)
    hint = f'; did you mean {" or ".join(near)}?' if near else ''
    raise UserError(
      f'--config=configs/{file}.py:{argument}: the argument is one of '
      f'{", ".join(choices)}{hint}'
    )
  return argument


def nearest(path: str, paths: Collection[str]) -> list[str]:
  """Up to 4 `paths` that are near to a misspelt one, as a whole or in the last name."""
  last = {}
  for p in paths:
    last.setdefault(p.rsplit('.', 1)[-1], []).append(p)
  near = difflib.get_close_matches(path, paths, n=3, cutoff=0.6)
  for word in difflib.get_close_matches(path.rsplit('.', 1)[-1], last, n=3, cutoff=0.6):
    near += [p for p in last[word] if p not in near]
  return near[:4]


# Sections whose keys the user chooses: a new key there is a change, not a new field.
OPEN = ('data.mix.',)
