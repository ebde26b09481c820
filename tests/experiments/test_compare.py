"""Two layouts of one run: equal curves pass, a difference is one line."""

import json

import numpy as np
import pytest

from configs import compare as recipe
from experiments import compare
from llama3_jax.base.errors import UserError


def small(**changes):
  c = recipe.get_config()
  c.update(dict(steps=3, batch=8, length=16))
  sizes = dict(n_layers=2, d_model=32, n_heads=4, n_kv_heads=2, d_head=8, d_ff=48)
  c.model.update(dict(sizes, vocab_size=512, attention='dense'))
  c.b.mesh.update(dict(fsdp=2, stage=2, tensor=1))
  c.b.microbatches = 2
  c.update(changes)
  return c


def test_pipeline_and_one_device_draw_the_same_curve(tmp_path):
  c = small()
  found = compare.main(c, tmp_path)
  assert found['loss'] < 1e-5 and found['grad_norm'] < 1e-5
  losses = found['a']['loss']
  assert len(losses) == 3 and len(set(losses)) == 3
  page = (tmp_path / 'report.html').read_text()
  assert 'fsdp 2, stage 2, aligned, chunks 1, 2 microbatches, float32' in page
  assert json.loads((tmp_path / 'results.json').read_text()) == found
  assert compare.main(c, tmp_path) == found  # a second start does no work


@pytest.mark.parametrize('wrong', [1.001, float('nan'), float('inf')])
def test_difference_is_found_and_named(wrong):
  curve = dict(loss=[2.0, 1.5, 1.2], grad_norm=[1.0, 1.0, 1.0])
  other = dict(curve, loss=[2.0, 1.5 * wrong, 1.2])
  compare.judge(small(), dict(a=curve, b=curve))
  with pytest.raises(
    UserError, match='loss of b .* at step 2 .* tolerance=0.0001'
  ) as e:
    compare.judge(small(), dict(a=curve, b=other))
  assert '\n' not in str(e.value)


def test_gradient_norm_has_its_own_tolerance():
  a = dict(loss=[1.0], grad_norm=[1.0])
  b = dict(loss=[1.0], grad_norm=[1.0005])
  compare.judge(small(), dict(a=a, b=b))
  with pytest.raises(UserError, match='grad_norm of b'):
    compare.judge(small(norm_tolerance=1e-4), dict(a=a, b=b))


def test_difference_is_relative_and_symmetric():
  a, b = np.array([1.0, 0.0, -2.0]), np.array([1.1, 0.0, -2.0])
  np.testing.assert_allclose(compare.difference(a, b), [0.1 / 1.1, 0, 0])
  np.testing.assert_array_equal(compare.difference(a, b), compare.difference(b, a))


def test_synthetic_rows_are_the_same_every_time():
  first, second = (list(compare.data(small())) for _ in range(2))
  for a, b in zip(first, second, strict=True):
    for name in vars(a):
      np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
  assert (first[0].tokens != first[1].tokens).any()


def test_synthetic_rows_are_packed_documents():
  batch = next(compare.data(small(length=64)))
  inside = batch.segment[:, 1:] == batch.segment[:, :-1]
  assert 0.5 < inside.mean() < 1
  np.testing.assert_array_equal(batch.weight[:, :-1], inside)
  np.testing.assert_array_equal(
    batch.targets[:, :-1][inside], batch.tokens[:, 1:][inside]
  )


def test_rows_of_shards_are_used(toy):
  c = small()
  c.data.root = str(toy / 'only')
  (toy / 'only').mkdir(exist_ok=True)
  if not (toy / 'only/web').exists():
    (toy / 'only/web').symlink_to(toy / 'web')
  batch = next(compare.data(c))
  assert batch.tokens.shape == (8, 16)


BAD = [
  ('a.mesh.fsdp', 512, 'a layout of 512 devices'),
  ('b.mesh.stage', 4, 'model.n_layers=2'),
  ('b.microbatches', 3, 'train.microbatches=3'),
  ('b.pipeline.form', 'zigzag', 'pipeline.form='),
  ('data.root', 'nowhere', 'data.root=nowhere'),
]


@pytest.mark.parametrize('field,value,words', BAD)
def test_impossible_layout_is_one_line(tmp_path, field, value, words):
  c = small()
  *parents, name = field.split('.')
  node = c
  for parent in parents:
    node = node[parent]
  node[name] = value
  side = c.a if field.startswith('a') else c.b
  with pytest.raises(UserError, match=words):
    if field.startswith('data'):
      next(compare.data(c))
    compare.train(c, side)
