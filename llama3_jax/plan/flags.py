"""Compiler flags by accelerator generation, as data (section 3.3.1 for the GPUs' part).

A set is for the generations it names, with the value each of them needs; using it for
another one is an error, because a flag without effect hides that one is missing.
The launcher puts `environment` into the environment of a run; a plan compiles with
`flags`.
"""

from collections.abc import Iterable

from llama3_jax.base.errors import UserError

TPU = ('v5e', 'v5p', 'v6e', 'tpu7x')

# A gather is cut into steps that run inside the matrix products around it.
ASYNC_GATHERS = {
  'xla_tpu_enable_async_collective_fusion': True,
  'xla_tpu_enable_async_collective_fusion_fuse_all_gather': True,
  'xla_tpu_enable_async_collective_fusion_multiple_steps': True,
  'xla_tpu_overlap_compute_collective_tc': True,
  'xla_enable_async_all_gather': True,
}
# The same of the sums of gradients; both flags are needed.
ASYNC_SUMS = {
  'xla_enable_async_all_reduce': True,
  'xla_tpu_enable_async_collective_fusion_fuse_all_reduce': True,
}
# Activations on the host: copies start early and many are under way at a time.
OFFLOAD = {
  'xla_tpu_host_transfer_overlap_limit': 24,
  'xla_max_concurrent_host_send_recv': 100,
  'xla_tpu_scheduler_percent_shared_memory_limit': 100,
  'xla_latency_hiding_scheduler_rerun': 2,
  'xla_tpu_aggressive_opt_barrier_removal': 'ENABLED',
  'xla_lhs_prioritize_async_depth_over_stall': 'ENABLED',
  'xla_should_allow_loop_variant_parameter_in_chain': 'ENABLED',
  'xla_should_add_loop_invariant_op_in_chain': 'ENABLED',
  'xla_tpu_enable_ag_backward_pipelining': True,
}
# Layouts that let an all-reduce whose result is sliced become a reduce-scatter.
REDUCE_LAYOUT = {
  'xla_tpu_use_minor_sharding_for_major_trivial_input': True,
  'xla_tpu_relayout_group_size_threshold_for_reduce_scatter': 1,
  'xla_tpu_assign_all_reduce_scatter_layout': True,
}
# Gradient sums between slices overlap the backward pass.
SLICES = {
  'xla_tpu_enable_data_parallel_all_reduce_opt': True,
  'xla_tpu_data_parallel_opt_different_sized_ops': True,
}
# Tensor-parallel products are not cut into a ring of small ones.
WHOLE_PRODUCTS = {'xla_jf_spmd_threshold_for_windowed_einsum_mib': 1_000_000}
SPARSE_REDUCE = {
  'xla_tpu_enable_sparse_core_collective_offload_all_reduce': True,
  'xla_tpu_enable_async_collective_fusion_fuse_all_reduce': False,
}
SPARSE_ALL = {
  **SPARSE_REDUCE,
  'xla_tpu_enable_sparse_core_collective_offload_all_gather': True,
  'xla_tpu_enable_sparse_core_collective_offload_reduce_scatter': True,
  'xla_tpu_enable_async_collective_fusion_fuse_all_gather': False,
  'xla_tpu_use_single_sparse_core_for_all_gather_offload': True,
}
OVERLAP_GPU = {
  'xla_gpu_enable_latency_hiding_scheduler': True,
  'xla_gpu_enable_pipelined_all_gather': True,
  'xla_gpu_enable_pipelined_reduce_scatter': True,
  'xla_gpu_enable_pipelined_all_reduce': True,
  'xla_gpu_enable_while_loop_double_buffering': True,
}
COMBINE_GPU = {
  'xla_gpu_all_gather_combine_threshold_bytes': 2**30,
  'xla_gpu_reduce_scatter_combine_threshold_bytes': 2**27,
  'xla_gpu_all_reduce_combine_threshold_bytes': 2**27,
}


def _vmem(kib):
  """Limit of fast memory of a kernel; kernels with blocks of 2,048 need more."""
  return {'xla_tpu_scoped_vmem_limit_kib': kib}


# name: {generation: flags}
SETS = {
  'async_gathers': dict.fromkeys(('v5e', 'v5p', 'v6e'), ASYNC_GATHERS),
  'async_sums': {'v5p': ASYNC_SUMS},
  'offload': dict.fromkeys(TPU, OFFLOAD),
  'reduce_layout': dict.fromkeys(TPU, REDUCE_LAYOUT),
  'slices': dict.fromkeys(TPU, SLICES),
  'whole_products': dict.fromkeys(TPU, WHOLE_PRODUCTS),
  'scoped_vmem': {
    'v5e': _vmem(81_920),
    'v5p': _vmem(49_152),
    'v6e': _vmem(98_304),
    'tpu7x': _vmem(65_536),
  },
  'sparse_core': {'v6e': SPARSE_REDUCE, 'tpu7x': SPARSE_ALL},
  'overlap': {'h100': OVERLAP_GPU},
  'combine': {'h100': COMBINE_GPU},
  # Bit-exact results in every run: docs/reliability.md has the price.
  'deterministic': {'h100': {'xla_gpu_deterministic_ops': True}},
}
DEFAULT = {
  'v5e': ('async_gathers',),
  'v5p': ('async_gathers',),
  'v6e': ('async_gathers',),
  'tpu7x': (),
  'h100': ('overlap', 'combine'),
}
# Share of a GPU's memory that JAX takes; a plan's limit is this share of the card.
GPU_MEMORY = {'XLA_PYTHON_CLIENT_MEM_FRACTION': '.92'}


def names(chip: str, text: str) -> tuple[str, ...]:
  """Names of the sets that 'auto', '' or 'a,b' selects for the generation `chip`."""
  if text == 'auto':
    return DEFAULT[chip]
  return tuple(n for n in text.split(',') if n)


def flags(chip: str, chosen: Iterable[str]) -> dict[str, bool | int | str]:
  """{flag: bool, int or str} of the sets named, for the generation `chip`.

  Raises UserError for an unknown set or one of other generations.
  """
  options = {}
  for name in chosen:
    if name not in SETS:
      known = ', '.join(n for n, by in SETS.items() if chip in by)
      raise UserError(
        f'plan.flags (--flags): no set {name!r}; for {chip} there are {known}'
      )
    if chip not in SETS[name]:
      known = ', '.join(n for n, by in SETS.items() if chip in by)
      raise UserError(
        f'plan.flags (--flags)={name} is for {", ".join(SETS[name])}, not for {chip}; '
        f'for {chip} there are {known}'
      )
    options |= SETS[name][chip]
  return options


def environment(chip: str, chosen: Iterable[str]) -> dict[str, str]:
  """Environment variables that give a run on `chip` the sets named."""
  text = ' '.join(f'--{k}={_text(v)}' for k, v in flags(chip, chosen).items())
  if chip in TPU:
    return {'LIBTPU_INIT_ARGS': text} if text else {}
  return {'XLA_FLAGS': text, **GPU_MEMORY} if text else dict(GPU_MEMORY)


def _text(value):
  return str(value).lower() if isinstance(value, bool) else str(value)
