"""Activations that a layer keeps for its backward pass, by name (3.3.2, memory).

A policy is a list of names; `name@host` moves that array to the host's memory and back.
The paper trains its 8K stage without recomputation (`none`).
"""

from collections.abc import Callable

import jax

from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig

# Sizes of one token in one layer: input D, q N*H, k and v K*H, attention N*H, out D,
# gate and up F; keys and values are k and v gathered over `context` (TPU).
NAMES = ('input', 'q', 'k', 'v', 'keys', 'values', 'attention', 'out', 'gate', 'up')
PRESETS = {
  'none': '',  # no recomputation: `remat` returns the function unchanged
  'full': '',  # everything is recomputed; the scan keeps the layer's input
  'attention': 'attention',
  'qkvo': 'q,k,v,attention,out',
  'dots': 'q,k,v,attention,out,gate,up',
  'offload': 'input@host',
  'offload_qkvo': 'input@host,q@host,k@host,v@host,out@host',
}


def names(remat: str) -> tuple[list[str], list[str]]:
  """(names kept on the device, names moved to the host) of `model.remat`.

  Raises UserError for a name that no layer has.
  """
  listed = [n.strip() for n in PRESETS.get(remat, remat).split(',') if n.strip()]
  if wrong := [n for n in listed if n.removesuffix('@host') not in NAMES]:
    raise UserError(
      f'model.remat={remat!r}: {wrong[0]!r} must be one of {", ".join(PRESETS)} or a '
      f'list of {", ".join(NAMES)} (each also as NAME@host)'
    )
  host = [n.removesuffix('@host') for n in listed if n.endswith('@host')]
  return [n for n in listed if not n.endswith('@host')], host


def remat(function: Callable, config: ModelConfig) -> Callable:
  """`function`, the body of a scan, keeping only the arrays named by `config.remat`."""
  if config.remat == 'none':
    return function
  device, host = names(config.remat)
  if not config.reshard:
    device = [*device, 'weight']
  policy = jax.checkpoint_policies.save_only_these_names(*device)
  if host:
    policy = jax.checkpoint_policies.save_and_offload_only_these_names(
      names_which_can_be_saved=device,
      names_which_can_be_offloaded=host,
      offload_src='device',
      offload_dst='pinned_host',
    )
  # Inside a scan nothing can be shared with the forward pass, so CSE is harmless.
  return jax.checkpoint(function, policy=policy, prevent_cse=False)
