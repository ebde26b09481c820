"""What a plan reads and says: checked on programs compiled here and on closed forms."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import plan as plan_config
from experiments import plan as experiment
from llama3_jax import axes
from llama3_jax import config as configs
from llama3_jax.base.errors import UserError
from llama3_jax.model import flops
from llama3_jax.model import llama
from llama3_jax.plan import chips
from llama3_jax.plan import collectives
from llama3_jax.plan import flags
from llama3_jax.plan import hlo
from llama3_jax.plan import memory
from llama3_jax.plan import report
from llama3_jax.plan import roofline
from llama3_jax.plan import search
from llama3_jax.plan import topology
from llama3_jax.report import page as pages

B8 = llama.SIZES['8b']


def compiled(function, *arguments):
  return hlo.parse(jax.jit(function).lower(*arguments).compile().as_text())


def test_a_loop_body_counts_as_often_as_it_runs():
  def program(x, w):
    def inner(x, _):
      return jnp.tanh(x @ w), None

    def outer(x, _):
      return jax.lax.scan(inner, x @ w, None, length=3)[0], None

    return jax.lax.scan(outer, x, None, length=5)[0] @ w

  x = jax.ShapeDtypeStruct((8, 16), jnp.float32)
  module = compiled(program, x, jax.ShapeDtypeStruct((16, 16), jnp.float32))
  found, loops = hlo.visits(module)
  own = hlo.flops(module, found)
  total = sum(own[v.computation] * v.times for v in found)
  assert total == (5 * (1 + 3) + 1) * 2 * 8 * 16 * 16
  assert sorted(x.trips for x in loops.values()) == [3, 5]
  assert [len(x.inside) for x in loops.values() if x.trips == 3] == [1]


def test_known_loops_count_as_often_as_is_said():
  """Loops whose trips the program decides, also those that do not run at all."""

  def program(x, w, n):
    def body(i, x):
      return jnp.tanh(x @ w)

    with jax.named_scope('pages'):
      x = jax.lax.fori_loop(0, n, body, x)
    with jax.named_scope('copies'):
      return jax.lax.fori_loop(0, n, body, x)

  x = jax.ShapeDtypeStruct((8, 16), jnp.float32)
  w = jax.ShapeDtypeStruct((16, 16), jnp.float32)
  module = compiled(program, x, w, jax.ShapeDtypeStruct((), jnp.int32))
  for known, times in (({}, 1 + 1), ({'pages': 9, 'copies': 0}, 9)):
    found, loops = hlo.visits(module, known)
    own = hlo.flops(module, found)
    total = sum(own[v.computation] * v.times for v in found)
    assert total == times * 2 * 8 * 16 * 16
    assert [x.trips for x in loops.values()] == [known.get(n) for n in NAMES]


NAMES = ('pages', 'copies')


def test_pages_are_moved_alone():
  """A gather reads what it gives, a scatter writes what it is given: not the array."""

  def program(memory, index, new):
    memory = memory.at[index].set(new)
    return memory, memory[index * 2] * 3

  shapes = ((4096, 64), jnp.float32), ((2,), jnp.int32), ((2, 64), jnp.float32)
  lower = jax.jit(program, donate_argnums=0).lower
  text = lower(*(jax.ShapeDtypeStruct(*s) for s in shapes)).compile().as_text()
  module = hlo.parse(text)
  found, _ = hlo.visits(module)
  done = roofline.work(module, found, B8, chips.H100)
  assert 0 < done.traffic < 4096 * 64 * 4 / 4


def network(mesh, chip='v5p:2x2x2'):
  target = topology.parse(chip)
  places = np.array([[0, i % 2, i // 2 % 2, i // 4] for i in range(8)])
  sizes = {a: int(n) for a, n in mesh.shape.items()}
  return collectives.Network(sizes, places, target.chip, target.dims, target.wrap)


def test_every_collective_has_its_kind_axes_runs_and_bytes(mesh):
  devices = mesh(fsdp=4, tensor=2)

  def part(w):
    def body(x, _):
      whole = jax.lax.all_gather(w, 'fsdp', tiled=True)  # f32[16,8]
      return jnp.tanh(x + whole), None

    x = jax.lax.scan(body, jnp.zeros((16, 8)), None, length=7)[0]
    x = jax.lax.psum_scatter(x, 'fsdp', tiled=True)  # of f32[16,8]
    x = jax.lax.ppermute(x, 'tensor', [(0, 1), (1, 0)])  # f32[4,8]
    return jax.lax.psum(x, 'tensor')  # f32[4,8]

  with jax.set_mesh(devices):
    rows = axes.spec('D')
    function = jax.shard_map(part, in_specs=rows, out_specs=rows, check_vma=False)
    place = jax.sharding.NamedSharding(devices, rows)
    w = jax.ShapeDtypeStruct((16, 8), jnp.float32, sharding=place)
    module = compiled(function, w)
  found, loops = hlo.visits(module)
  layers = {name for name, loop in loops.items() if loop.trips == 7}
  rows = collectives.table(collectives.find(module, network(devices), layers, found))
  seen = {(r['kind'], r['axes'], r['where'], r['runs'], r['bytes']) for r in rows}
  gathers = {s for s in seen if s[0] == 'all-gather'}
  # A gather that does not change in the loop may be taken out of it.
  assert gathers in (
    {('all-gather', 'fsdp', 'layers', 7, 7 * 512)},
    {('all-gather', 'fsdp', 'once', 1, 512)},
  )
  assert ('reduce-scatter', 'fsdp', 'once', 1, 512) in seen
  assert ('collective-permute', 'tensor', 'once', 1, 128) in seen
  assert ('all-reduce', 'tensor', 'once', 1, 128) in seen


def op(rest, kind='all-gather', shape='bf16[64,8]{1,0}'):
  return hlo.Op('x', shape, kind, ('y',), rest)


@pytest.mark.parametrize(
  'text,members',
  [
    ('replica_groups=[2,4]<=[8]', [0, 1, 2, 3]),
    ('replica_groups=[4,2]<=[2,4]T(1,0)', [0, 4]),
    ('replica_groups={{0,2},{1,3}}', [0, 2]),
    ("replica_groups=mesh['a'=2,'b'=4] {'a'}", [0, 4]),
    ("replica_groups=mesh['a'=2,'b'=4] {'b'}", [0, 1, 2, 3]),
    ("replica_groups=mesh['a'=8] {'a':(1)2}", [0, 4]),
    ("replica_groups=mesh['a'=8] {'a':(4)2}", [0, 1]),
    ('source_target_pairs={{0,4},{4,0}}', [0, 4]),
    ('', list(range(8))),
  ],
)
def test_every_way_to_write_a_group_is_read(text, members):
  assert collectives.group(op(text), 8).tolist() == members


def test_a_matrix_product_written_as_a_convolution_has_its_own_flops():
  """Batch dims become spatial ones in which one place of a window meets an element."""
  ops = {
    'a': hlo.Op('a', 'bf16[8,32,256]{2,1,0}', 'parameter', (), ''),
    'b': hlo.Op('b', 'bf16[8,256,64]{2,1,0}', 'parameter', (), ''),
  }
  window = 'window={size=8 stride=7 lhs_dilate=8}, dim_labels=0bf_0io->0bf'
  product = hlo.Op('c', 'bf16[8,32,64]{2,1,0}', 'convolution', ('a', 'b'), window)
  assert hlo.product(product, ops) == 8 * 2 * 32 * 256 * 64
  plain = hlo.Op('c', 'f32[32,64]', 'convolution', ('a', 'b'), 'dim_labels=bf_io->bf')
  ops['a'] = dataclasses.replace(ops['a'], shape='f32[32,256]')
  ops['b'] = dataclasses.replace(ops['b'], shape='f32[256,64]')
  assert hlo.product(plain, ops) == 2 * 32 * 256 * 64


def test_shapes_with_layouts_memory_spaces_and_tuples_are_read():
  text = '(f32[2,3]{1,0:T(8,128)S(5)}, /*index=1*/bf16[]{:T(256)}, token[])'
  first, second = hlo.arrays(text)
  assert (first.dims, first.bytes, first.space) == ((2, 3), 24, hlo.HOST)
  assert (second.dims, second.bytes, second.space) == ((), 2, 0)


def test_an_instruction_over_several_lines_is_one():
  text = (
    'ENTRY %main (p: f32[2]) -> f32[2] {\n'
    '  %p = f32[2]{0} parameter(0)\n'
    '  %k = f32[2]{0} custom-call(%p), frontend_attributes={a={\n'
    'more\n'
    '}}, metadata={op_name="x/y"}\n'
    '  ROOT %r = f32[2]{0} add(%k, %p)\n'
    '}, execution_thread="sparsecore"\n'
  )
  module = hlo.parse(text)
  assert list(module.computations['main']) == ['p', 'k', 'r']
  assert module.computations['main']['k'].path == 'x/y'


def test_the_buffer_of_an_asynchronous_collective_is_no_traffic_of_its_product():
  module = hlo.parse(
    """HloModule m, is_scheduled=true

%fused (a: f32[8,8]) -> (f32[8,8], f32[1024,8], f32[1024,64]) {
  %a = f32[8,8]{1,0} parameter(0)
  %b = f32[8,8]{1,0} parameter(1)
  %c = f32[1024,8]{1,0} parameter(2)
  %d = f32[1024,64]{1,0} parameter(3)
  %p = f32[8,8]{1,0} add(%a, %b)
  %g = f32[1024,64]{1,0} all-gather(%c), dimensions={1}
  ROOT %t = (f32[8,8], f32[1024,8], f32[1024,64]) tuple(%p, %c, %d)
}

ENTRY %main (a: f32[8,8]) -> (f32[8,8], f32[1024,8], f32[1024,64]) {
  %a = f32[8,8]{1,0} parameter(0)
  %b = f32[8,8]{1,0} parameter(1)
  %c = f32[1024,8]{1,0} parameter(2)
  %d = f32[1024,64]{1,0} parameter(3)
  ROOT %f = (f32[8,8], f32[1024,8], f32[1024,64]) fusion(%a, %b, %c, %d), calls=%fused
}
"""
  )
  found, _ = hlo.visits(module)
  done = roofline.work(module, found, B8, chips.V5P)
  assert done.traffic == 3 * 8 * 8 * 4


UNROLLED = """HloModule m, is_scheduled=true

%begun.1 (a: f32[64]) -> f32[64] {
  %a = f32[64]{0} parameter(0)
  ROOT %r.1 = f32[64]{0} all-reduce(%a), channel_id=1, replica_groups={{0,1}}, to_apply=%add
}

%during.1 (a: f32[64]) -> f32[64] {
  %a = f32[64]{0} parameter(0)
  ROOT %r.2 = f32[64]{0} all-reduce(%a), channel_id=1, replica_groups={{0,1}}, to_apply=%add
}

%ended.1 (a: f32[64]) -> f32[64] {
  %a = f32[64]{0} parameter(0)
  ROOT %r.5 = f32[64]{0} all-reduce(%a), channel_id=1, replica_groups={{0,1}}, to_apply=%add
}

%begun.2 (a: f32[64]) -> f32[64] {
  %a = f32[64]{0} parameter(0)
  ROOT %r.3 = f32[64]{0} all-reduce(%a), channel_id=1, replica_groups={{0,1}}, to_apply=%add
}

%async_collective_fusion.2 (a: f32[64]) -> f32[64] {
  %a = f32[64]{0} parameter(0)
  ROOT %r.4 = f32[64]{0} all-reduce(%a), channel_id=1, replica_groups={{0,1}}, to_apply=%add
}

ENTRY %main (a: f32[64]) -> f32[64] {
  %a = f32[64]{0} parameter(0)
  %async-collective-start.1 = f32[64]{0} fusion(%a), calls=%begun.1
  %fusion.1 = f32[64]{0} fusion(%async-collective-start.1), calls=%during.1
  %async-collective-done.1 = f32[64]{0} fusion(%fusion.1), calls=%ended.1
  %async-collective-start.2 = f32[64]{0} fusion(%async-collective-done.1), calls=%begun.2
  %fusion.2 = f32[64]{0} fusion(%async-collective-start.2), calls=%async_collective_fusion.2
  %s.1 = f32[32]{0} all-reduce(%fusion.2), channel_id=2, replica_groups={{0,1}}, to_apply=%add
  %s.2 = f32[32]{0} all-reduce(%s.1), channel_id=2, replica_groups={{0,1}}, to_apply=%add
  ROOT %t = f32[64]{0} copy(%fusion.2)
}
"""  # noqa: E501


def test_each_collective_of_an_unrolled_loop_counts(mesh):
  """They have one channel, as have the start and the steps of an asynchronous one."""
  module = hlo.parse(UNROLLED)
  found, _ = hlo.visits(module)
  rows = collectives.table(
    collectives.find(module, network(mesh(fsdp=8)), set(), found)
  )
  assert {(r['asynchronous'], r['count'], r['bytes']) for r in rows} == {
    (True, 2, 2 * 64 * 4),
    (False, 2, 2 * 32 * 4),
  }


@pytest.mark.parametrize(
  'dtype, chip, times',
  [
    *(('s8', chips.V5P, 2), ('s8', chips.V6E, 2), ('s8', chips.TPU7X, 1)),
    *(
      ('f8e4m3fn', chips.TPU7X, 2),
      ('f8e4m3fn', chips.V5P, 1),
      ('bf16', chips.H100, 1),
    ),
  ],
)
def test_products_of_small_types_have_a_peak_of_their_own(dtype, chip, times):
  text = """HloModule m, is_scheduled=true

ENTRY %main (a: TYPE[4096,8192], b: TYPE[8192,4096]) -> f32[4096,4096] {
  %a = TYPE[4096,8192]{1,0} parameter(0)
  %b = TYPE[8192,4096]{1,0} parameter(1)
  ROOT %d = f32[4096,4096]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
"""  # noqa: E501
  module = hlo.parse(text.replace('TYPE', dtype))
  done = roofline.work(module, hlo.visits(module)[0], B8, chip)
  flops = 2 * 4096 * 8192 * 4096
  assert done.seconds == pytest.approx(flops / chip.peak / times)


def test_the_tables_of_an_attention_kernel_make_no_products_of_int8():
  text = """HloModule m, is_scheduled=true

ENTRY %main (a: s8[1,4,4], q: bf16[32,8192,128]) -> bf16[32,8192,128] {
  %a = s8[1,4,4]{2,1,0} parameter(0)
  %q = bf16[32,8192,128]{2,1,0} parameter(1)
  ROOT %splash_mha = bf16[32,8192,128]{2,1,0} custom-call(%a, %a, %q, %q, %q), custom_call_target="tpu_custom_call", operand_layout_constraints={s8[1,4,4]{2,1,0}, s8[1,4,4]{2,1,0}, bf16[32,8192,128]{2,1,0}, bf16[32,8192,128]{2,1,0}, bf16[32,8192,128]{2,1,0}}, metadata={op_name="splash_mha_fwd"}
}
"""  # noqa: E501
  module = hlo.parse(text)
  done = roofline.work(module, hlo.visits(module)[0], B8, chips.V5P)
  assert done.kernels and done.seconds == done.kernels / chips.V5P.peak


HOST = """HloModule m, is_scheduled=true

%body (t: (s32[], f32[9,1024]{1,0:S(5)}, f32[1,1024])) -> (s32[], f32[9,1024]{1,0:S(5)}, f32[1,1024]) {
  %t = (s32[], f32[9,1024]{1,0:S(5)}, f32[1,1024]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %h = f32[9,1024]{1,0:S(5)} get-tuple-element(%t), index=1
  %x = f32[1,1024]{1,0} get-tuple-element(%t), index=2
  %y = f32[1,1024]{1,0} add(%x, %x)
  %part = f32[1,512]{1,0} dynamic-slice(%y, %i, %i), dynamic_slice_sizes={1,512}
  %n = f32[9,1024]{1,0:S(5)} dynamic-update-slice(%h, %y, %i, %i)
  ROOT %r = (s32[], f32[9,1024]{1,0:S(5)}, f32[1,1024]{1,0}) tuple(%i, %n, %y)
}

%cond (t: (s32[], f32[9,1024]{1,0:S(5)}, f32[1,1024])) -> pred[] {
  %t = (s32[], f32[9,1024]{1,0:S(5)}, f32[1,1024]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %c = s32[] constant(9)
  ROOT %less = pred[] compare(%i, %c), direction=LT
}

ENTRY %main (t: (s32[], f32[9,1024]{1,0:S(5)}, f32[1,1024])) -> f32[1,1024] {
  %t = (s32[], f32[9,1024]{1,0:S(5)}, f32[1,1024]{1,0}) parameter(0)
  %w = (s32[], f32[9,1024]{1,0:S(5)}, f32[1,1024]{1,0}) while(%t), condition=%cond, body=%body
  %h = f32[9,1024]{1,0:S(5)} get-tuple-element(%w), index=1
  %i = s32[] get-tuple-element(%w), index=0
  ROOT %o = f32[1,1024]{1,0} dynamic-slice(%h, %i, %i), dynamic_slice_sizes={1,1024}
}
"""  # noqa: E501


def test_a_loop_waits_for_what_it_copies_to_the_host():
  module = hlo.parse(HOST)
  found, _ = hlo.visits(module)
  done = roofline.work(module, found, B8, chips.V6E)
  copied, chip = 4096, chips.V6E
  assert done.host == (9 + 1) * copied
  # An addition, a slice of half, and the update in the chip's memory.
  loop = 3 * copied + copied + 2 * copied
  once = 2 * copied
  expected = 10 * copied / chip.host - (9 * loop + once) / chip.bandwidth
  assert done.waits == pytest.approx(expected)
  assert chips.V5P.host < chip.host


def test_collective_time_is_the_wire_bytes_over_the_links():
  """A ring of four in each of three wrapped dims: six links of 90 GB/s one way."""
  places = np.array([[0, *i] for i in np.ndindex(4, 4, 4)])
  target = topology.parse('v5p:4x4x4')
  sizes = {a: 64 if a == 'fsdp' else 1 for a in axes.AXES}
  net = collectives.Network(sizes, places, target.chip, target.dims, target.wrap)
  assert net.speed(np.arange(64)) == 6 * 90e9
  assert net.speed(np.arange(4)) == 2 * 90e9  # one dim
  # A reduce-scatter uses all links of a square of whole dims, else those of one ring.
  plane, half = np.arange(16), np.arange(32)
  assert net.speed(plane) == net.speed(plane, 'reduce-scatter') == 4 * 90e9
  assert net.speed(half) > net.speed(half, 'reduce-scatter') == 2 * 90e9
  assert net.spanned(np.arange(64)) == ('fsdp',)


def test_estimate_is_state_plus_layer_inputs_plus_head_and_one_layer():
  sizes = dict(zip(axes.AXES, (1, 64, 1, 1, 1)))
  d, f, v, layers, t = 4096, 14336, 128256, 32, 8192
  count = llama.count(B8) - (2 * layers + 1) * d  # norms are not counted
  head = 2 * v * d
  layer = 2 * d * (3 * f + 2 * d + 2 * 1024)
  whole = math.ceil(count * 12 / 64) + 2 * layers * t * d + min(layer, head) + head
  assert memory.estimate(B8, sizes, 64, t) == whole
  kept = 2 * layers * t * (d + 2 * 1024 + d)
  more = memory.estimate(B8, sizes, 64, t, 'q,k,v,attention')
  assert more - whole == kept
  assert memory.estimate(B8, sizes, 128, t) - whole == 2 * layers * t * d


def test_model_flops_of_each_step():
  token = flops.per_token(B8, 8192)
  assert roofline.model_flops(B8, 'train', 64, 8192) == (token * 64 * 8192, 64 * 8192)
  assert roofline.model_flops(B8, 'dpo', 64, 8192)[1] == 2 * 64 * 8192
  one, tokens = roofline.model_flops(B8, 'decode', 64, 8192)
  weights = 2 * (llama.count(B8) - B8.vocab_size * B8.d_model)
  assert tokens == 64
  assert one == pytest.approx(64 * (weights + 4 * 32 * 4096 * 8192))


@pytest.mark.parametrize(
  'shape,path,word,knob',
  [
    ('bf16[32,1,8192,4096]', '', 'layer inputs', 'model.remat'),
    ('f32[4096,128256]', '', 'whole gradient', 'model.reduce_dtype'),
    ('bf16[4096,128256]', '', 'head, gathered', 'mesh.tensor'),
    ('f32[1024,128256]', '', 'logits', 'loss_chunk'),
    ('bf16[4096,14336]', '', 'gathered', 'mesh.tensor'),
    ('bf16[32,64,14336]', '', "chip's part", 'mesh.fsdp'),
    ('bf16[8,32,8192,128]', 'x/attention/y', '8 copies', 'model.block'),
    ('bf16[1,8192,14336]', '', 'feed-forward', 'mesh.tensor'),
    ('bf16[32,1,8192,32,128]', '', 'layer inputs', 'model.remat'),
  ],
)
def test_a_large_buffer_is_named_with_the_field_that_shrinks_it(
  shape, path, word, knob
):
  sizes = dict(zip(axes.AXES, (1, 64, 1, 1, 1)))
  s = memory.sizes(B8, sizes, 64, 8192, 1, 1024)
  what, field = memory.explain(hlo.arrays(shape)[0], path, s)
  assert word in what and knob in field


def test_the_fullest_moment_has_what_is_alive_together():
  """a and b share a place one after another; c, kept through the loop, meets b."""
  buffers = (
    'allocation 7: size 4000000, preallocated-temp:\n'
    ' value: <1 a @0> (size=2000000,offset=0): f32[500000]{0}\n'
    ' value: <2 b{1} @0> (size=1500000,offset=100): f32[375000]{0}\n'
    ' value: <3 c (phi) @0> (size=1000000,offset=2500000): f32[250000]{0}\n'
    'allocation 8: size 99, color 1, preallocated-temp:\n'
    ' value: <4 d @1> (size=9000000,offset=0): f32[2250000]{0}\n'
  )
  live = (
    '  InstructionSequence:\n    0:a\n    4:x\n    6:y\n  BufferLiveRange:\n'
    '    a{}:0-2\n    b{1}:3-8\n    c{}:3-9\n  Live ranges at 4 (peak):\n'
  )
  body = {n: hlo.Op(n, 'f32[]', 'add', (), '') for n in ('x', 'y')}
  module = hlo.Module({'main': {}, 'body': body}, 'main', {})
  loops = {'w': hlo.Loop('w', 5, (), 'transpose(jvp())/while', 'llama.py:1', 'body')}
  made = type('Compiled', (), {'buffers': buffers, 'live': live})
  sizes = memory.sizes(B8, dict(zip(axes.AXES, (1, 64, 1, 1, 1))), 64, 8192)
  found, peak = memory.fullest(module, made, loops, sizes)
  assert peak == 2_500_000
  assert [b.name for b in found] == ['b{1}', 'c']
  assert found[1].held == 'llama.py:1 (backward, 5)'


def test_memory_of_the_host_is_told_from_the_devices():
  text = (
    'Memory Space: default (color=0)\nTotal bytes: 7821 (7.6KiB)\n  rows\n'
    'Memory Space: cmem (color=5)\nTotal bytes: 10 (10B)\n'
  )
  assert memory.total(text) == {0: 7821, hlo.HOST: 10}


def test_targets_are_read_with_their_torus():
  target = topology.parse('v5p:8x8x16')
  assert (target.n_chips, target.n_devices, target.wrap) == (1024, 1024, (True,) * 3)
  assert topology.parse('v5p:2x2x4').wrap == (False,) * 3
  assert topology.parse('v5e:16x16').wrap == (True, True, False)
  assert topology.parse('v6e:8x16').wrap == (False, True, False)
  assert topology.parse('tpu7x:4x4x4').n_devices == 128
  two = topology.parse('v5e:16x16,2slices')
  assert two == topology.parse('v5e:16x16x2') and two.n_chips == 512
  assert topology.parse('h100:128').n_devices == 128


BAD = [
  ('plan.target', 'v9:4x4', ('v5e', 'h100')),
  ('plan.target', 'v5p:4x4', ('v5p:4x4x4',)),
  ('plan.target', 'v5p:3x4x4', ('v5p:4x4x4',)),
  ('plan.target', 'v5p:16x16x32', ('v5p:16x16x24',)),
  ('plan.target', 'v5e:4x5', ('v5e:4x4',)),
  ('plan.target', 'v5e:many', ('v5e:16x16',)),
  ('plan.target', 'h100:12', ('h100:8', 'h100:16')),
  ('plan.step', 'trian', ('train', 'decode')),
  ('plan.flags', 'scoped', ('scoped_vmem',)),
  ('plan.flags', 'sparse_core', ('v6e', 'tpu7x', 'async_gathers')),
  ('mesh.fsdp', 48, ('48', '64 devices')),
  ('mesh.tensor', 16, ('K=8', 'tensor=16')),
  ('train.batch', 65, ('train.batch=65', '64')),
  ('model.attention', 'fast', ('model.attention',)),
]


@pytest.mark.parametrize('field,value,words', BAD)
def test_what_cannot_be_is_one_line_before_any_compilation(
  tmp_path, monkeypatch, field, value, words
):
  monkeypatch.setattr('llama3_jax.plan.compile.run', None)
  c = configs.edit(plan_config.get_config('8b,v5p:4x4x4'), {field: value})
  with pytest.raises(UserError) as e:
    experiment.main(c, tmp_path / 'run')
  line = str(e.value)
  assert '\n' not in line and all(w in line for w in words), line
  assert not (tmp_path / 'run').exists()


def test_two_slices_need_a_replica_each():
  c = plan_config.get_config('8b,v5e:16x16,2slices')
  assert c.mesh.replica == 2
  c.mesh.replica = 1
  with pytest.raises(UserError, match='mesh.replica'):
    experiment.check(c)


@pytest.mark.parametrize('argument', ['9b,v5p:4x4x4', '8b', '8b,v7:2x2'])
def test_bad_argument_of_the_config_is_one_line(argument):
  with pytest.raises(UserError) as e:
    plan_config.get_config(argument)
  assert '\n' not in str(e.value)


def test_flag_sets_become_the_environment_of_a_run():
  text = flags.environment('v5p', ('async_gathers', 'scoped_vmem'))['LIBTPU_INIT_ARGS']
  assert '--xla_tpu_enable_async_collective_fusion=true' in text
  assert '--xla_tpu_scoped_vmem_limit_kib=49152' in text
  assert 'XLA_FLAGS' in flags.environment('h100', ('overlap',))
  assert flags.environment('tpu7x', flags.names('tpu7x', 'auto')) == {}
  for chip in chips.CHIPS:
    assert flags.flags(chip, flags.DEFAULT[chip]) is not None


def test_search_knows_that_context_cuts_rows_and_state():
  """Whatever the order of the mesh's fields is: a config sorts them by name."""
  target = topology.parse('v5p:4x4x4')
  sizes = dict(context=1, fsdp=-1, replica=1, stage=1, tensor=1)
  space = search.Space((1, 16), (1,), (1,), ('qkvo', 'offload'))
  arguments = (B8, sizes, target, 131_072, space)
  whole, _ = search.candidates(*arguments, 2**50)
  floors = {(c.context, c.remat): c.floor for c in whole}
  assert floors[16, 'qkvo'] < floors[1, 'qkvo'] / 8
  assert floors[16, 'offload'] < floors[16, 'qkvo'] / 2
  small, _ = search.candidates(*arguments, 2**50, state=6)
  assert {c.floor for c in small} != {c.floor for c in whole}
  fit, left = search.candidates(*arguments, 95 * 2**30)
  assert {(c.context, c.remat) for c in fit} == {
    (16, 'qkvo'),
    (16, 'offload'),
    (1, 'offload'),
  }
  assert len(left) == 1 and 'GiB' in left[0][1]


def test_search_leaves_out_what_cannot_be():
  target = topology.parse('v5p:4x4x4')
  space = search.Space((1, 3), (1, 16), (1, 64), ('full', 'none'))
  sizes = {a: -1 if a == 'fsdp' else 1 for a in axes.AXES}
  possible, left = search.candidates(B8, sizes, target, 8192, space, 95 * 2**30)
  assert {(c.context, c.tensor) for c in possible} == {(1, 1)}
  assert all(c.floor <= 95 * 2**30 for c in possible)
  reasons = ' '.join(reason for _, reason in left)
  assert 'needs at least' in reasons and 'does not divide' in reasons
  assert len(possible) + len(left) == 16


def test_ranking_puts_the_fastest_that_fits_first():
  rows = [
    dict(candidate='a', fits=False, used=9, tokens_per_s_chip=9.0, mfu_bound=0.9),
    dict(candidate='b', fits=True, used=5, tokens_per_s_chip=1.0, mfu_bound=0.1),
    dict(candidate='c', fits=True, used=6, tokens_per_s_chip=2.0, mfu_bound=0.2),
  ]
  assert [r['candidate'] for r in search.ranked(rows)] == ['c', 'b', 'a']
  assert 'no room' in search.text(search.ranked(rows), [('d', 'why')])


RESULT = dict(
  model='8b',
  step='train',
  target='v5p:4x4x4',
  devices=64,
  chips=64,
  mesh={'fsdp': 64},
  batch=64,
  length=8192,
  memory=dict(
    kinds={'parameters': 2**30, 'temporaries': 3 * 2**30},
    used=4 * 2**30,
    limit=2 * 2**30,
    fits=False,
    host=0,
    knob='model.remat',
  ),
  buffers=[
    dict(
      bytes=2**30,
      name='x',
      array='f32[1]',
      path='a/b',
      source='',
      what='<w>',
      knob='k',
      held='',
    )
  ],
  collectives=[
    dict(
      kind='all-gather',
      axes='fsdp',
      where='layers',
      asynchronous=True,
      count=1,
      runs=32,
      bytes=2**30,
      seconds=0.1,
    )
  ],
  time=dict(
    flops=1e12,
    flops_needed=9e11,
    step_s=1.0,
    compute_s=0.9,
    ideal_s=0.8,
    synchronous_s=0.1,
    host_wait_s=0.0,
    collectives_s=0.2,
    estimate='roofline',
    mfu_bound=0.8,
    tokens_per_s_chip=8192.0,
  ),
  notes=['a note'],
  seconds=3.0,
  compiler_memory=2**30,
)


def test_report_says_what_to_change_and_needs_no_network():
  assert 'change model.remat' in report.verdict(RESULT)
  text = report.text(RESULT)
  assert 'all-gather' in text and 'MFU' in text and '6 L N H T' in text
  page = pages.render(report.page(RESULT))
  assert '&lt;w&gt;' in page and ' src="' not in page and '<link' not in page
  data = page.split('id="figures">')[1].split('</script>')[0]
  assert set(json.loads(data)) == {'memory', 'time', 'moved'}
