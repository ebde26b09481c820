"""The engine's programs for TPUs that are not here; skipped without their compiler."""

import importlib.util

import absent_engine
import pytest

from llama3_jax.plan import compile as compiler

CONFIG, SIZES = absent_engine.CONFIG, absent_engine.SIZES


pytestmark = pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None,
  reason="libtpu is not installed: pip install -e '.[plan-tpu]'",
)


def compiled(folder, target, kind, rows=4, kernel=True, **sizes):
  given = 'absent_engine:build', (target, sizes, kind, rows, kernel), folder, {}
  return compiler.run(*given, full=True, timeout=600)


# Bytes of a chip's pages.
HELD = CONFIG.n_layers * (SIZES.count + 1) * SIZES.page
HELD *= 2 * CONFIG.n_kv_heads // 4 * CONFIG.d_head * 2


@pytest.mark.parametrize('target', ['v5p:2x2x1', 'v6e:2x2'])
@pytest.mark.parametrize('kind', ['prefill', 'decode'])
def test_the_kernel_reads_pages_where_they_are(tmp_path, target, kind):
  """It is in the program, and no memory of pages is copied for it."""
  made = compiled(tmp_path, target, kind, tensor=4)
  assert 'ragged_paged_attention' in made.hlo and 'tpu_custom_call' in made.hlo
  assert made.stats['alias_size_in_bytes'] >= HELD  # it is written in place
  assert made.stats['temp_size_in_bytes'] < HELD / 20


@pytest.mark.parametrize('rows, kernel', [(1, True), (1, False), (4, False)])
def test_no_step_copies_the_pages(tmp_path, rows, kernel):
  """For a single row neither, and not where the kernel does not take the sizes."""
  made = compiled(tmp_path, 'v6e:2x2', 'decode', rows, kernel, tensor=4)
  assert ('ragged_paged_attention' in made.hlo) == kernel
  assert made.stats['alias_size_in_bytes'] >= HELD
  assert made.stats['temp_size_in_bytes'] < HELD / 20


@pytest.mark.parametrize('kind', ['prefill', 'decode'])
def test_stages_send_to_the_next(tmp_path, kind):
  made = compiled(tmp_path, 'v5p:2x2x1', kind, stage=2, tensor=2)
  assert 'collective-permute' in made.hlo
  assert ('ragged_paged_attention' in made.hlo) == (kind == 'decode')
