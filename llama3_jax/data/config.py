"""The data of pre-training: the `data` part of a config."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Token shards, their mix over time, and their packing in rows (3.1.2, 3.4.1)."""

  root: str = 'runs/herd/shards'  # folder of token shards, one folder a source
  mix: Mapping[str, float] = dataclasses.field(default_factory=dict)  # source: weight
  changes: tuple = ()  # ((tokens, source, weight), ...): the mix from then on (3.4.1)
  positions: str = 'row'  # or 'document': RoPE positions restart in each document
  lanes: int = 64  # documents open at a time
  eval_batches: int = 4  # held-out batches of a source
