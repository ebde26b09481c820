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


def compiled(folder, target, kind, **sizes):
  given = 'absent_engine:build', (target, sizes, kind), folder, {}
  return compiler.run(*given, full=True, timeout=600)


@pytest.mark.parametrize('target', ['v5p:2x2x1', 'v6e:2x2'])
@pytest.mark.parametrize('kind', ['prefill', 'decode'])
def test_the_kernel_reads_pages_where_they_are(tmp_path, target, kind):
  """It is in the program, and no memory of pages is copied for it."""
  made = compiled(tmp_path, target, kind, tensor=4)
  assert 'ragged_paged_attention' in made.hlo and 'tpu_custom_call' in made.hlo
  pages = CONFIG.n_layers * (SIZES.count + 1) * SIZES.page
  held = pages * 2 * CONFIG.n_kv_heads // 4 * CONFIG.d_head * 2  # bytes of a chip
  assert made.stats['alias_size_in_bytes'] >= held  # it is written in place
  assert made.stats['temp_size_in_bytes'] < held / 20


@pytest.mark.parametrize('kind', ['prefill', 'decode'])
def test_stages_send_to_the_next(tmp_path, kind):
  made = compiled(tmp_path, 'v5p:2x2x1', kind, stage=2, tensor=2)
  assert 'collective-permute' in made.hlo
  assert ('ragged_paged_attention' in made.hlo) == (kind == 'decode')
