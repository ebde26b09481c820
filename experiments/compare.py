"""Compare the loss curves of two parallel layouts, the paper's debugging of numerics.

  python -m experiment --config=configs/compare.py --workdir=runs/compare --devices=8 \\
    --config.a.mesh.fsdp=8 --config.b.mesh.stage=4 --config.b.microbatches=8

Trains the same model on the same rows under layout a, then under layout b (section
3.3.2), on the first devices that each needs. Expected in float32: relative differences
below 1e-5 after 20 steps. Writes results.json and report.html; ends with status 2 when
the curves differ by more than the tolerance.
"""

import functools
import math
import pathlib

import jax
import numpy as np
from absl import logging
from plotly import graph_objects

from llama3_jax import axes
from llama3_jax import config as configs
from llama3_jax import feed
from llama3_jax import mesh as meshes
from llama3_jax import workdir as workdirs
from llama3_jax.base import files
from llama3_jax.base import processes
from llama3_jax.base.errors import UserError
from llama3_jax.data import pipeline as rows
from llama3_jax.data import shards
from llama3_jax.model import llama
from llama3_jax.pipeline import layout as layouts
from llama3_jax.pipeline import plans
from llama3_jax.report import figures
from llama3_jax.report import page as pages
from llama3_jax.report.blocks import Card
from llama3_jax.report.blocks import Page
from llama3_jax.report.blocks import Plot
from llama3_jax.report.blocks import Row
from llama3_jax.report.blocks import Section
from llama3_jax.train import loss as losses
from llama3_jax.train import optim
from llama3_jax.train import step as steps


def main(config, workdir):
  """Both runs; returns {'a': curves, 'b': curves, 'loss', 'grad_norm': largest
  relative difference}. Raises UserError when one is beyond its tolerance."""
  folder = workdirs.claim(config, workdir, free=TOLERANCES)
  path = folder / 'results.json'
  if path.exists():
    results = files.read_json(path)
  else:
    results = {name: train(config, config[name]) for name in ('a', 'b')}
    for name in CURVES:
      a, b = (np.asarray(results[side][name]) for side in ('a', 'b'))
      results[name] = float(difference(a, b).max())
    processes.write_json(path, results)
  pages.write(folder / 'report.html', page(config, results))
  logging.info('step  loss a, b, difference; gradient norm a, b, difference')
  for i in range(config.steps):
    logging.info('%4d  %s', i + 1, '   '.join(_row(results, n, i) for n in CURVES))
  judge(config, results)
  return results


CURVES = ('loss', 'grad_norm')
LEAST = 1e-9  # difference that is drawn
TOLERANCES = ('tolerance', 'norm_tolerance', 'data.root')


def difference(a, b):
  """|a - b| relative to the larger size; infinite where one is not finite."""
  scale = np.maximum(np.maximum(np.abs(a), np.abs(b)), 1e-30)
  with np.errstate(invalid='ignore'):
    return np.nan_to_num(np.abs(a - b) / scale, nan=np.inf, posinf=np.inf)


def judge(config, results):
  """UserError when the curves differ by more than the tolerance."""
  for name, field in zip(CURVES, TOLERANCES):
    a, b = (np.asarray(results[side][name]) for side in ('a', 'b'))
    found = difference(a, b)
    worst = int(found.argmax())
    logging.info('%s: largest relative difference %.3g', name, found[worst])
    if not found[worst] <= config[field]:
      raise UserError(
        f'{name} of b differs from a by {found[worst]:.2g} at step {worst + 1} '
        f'({a[worst]:.7g}, {b[worst]:.7g}), more than {field}={config[field]:g}: '
        'one of the two layouts is wrong or less exact'
      )


def train(config, side):
  """{'loss': [float], 'grad_norm': [float]} of a run under one layout."""
  model = configs.model_config({**config.model.to_dict(), **_own(side)})
  sizes = _sizes(side.mesh)
  how = dict(config=model, z_loss=config.z_loss)
  loss, layout = functools.partial(losses.next_token, **how), None
  if axes.parts('C', sizes) > 1:
    c = plans.PipelineConfig(**side.pipeline)
    tail = functools.partial(losses.head_loss, **how)
    loss = plans.create(model, axes.parts('C', sizes), side.microbatches, c, tail)
    layout = loss.layout
  sizes = tuple(sizes.values())
  meshes.check(sizes, model, layout is not None)
  meshes.check_batch(sizes, config.batch, config.length, side.microbatches)
  optimizer = optim.of(config)
  train_step = steps.compose(loss, optimizer, side.microbatches)
  devices = jax.devices()[: math.prod(sizes)]
  curves = {name: [] for name in CURVES}
  with jax.set_mesh(meshes.create(side.mesh, devices)):
    start = jax.jit(_start, static_argnums=(1, 2))
    state = train_step.start(start(jax.random.key(config.seed), model, layout))
    for arrays in data(config):
      state, found = train_step(state, feed.place(arrays))
      for name in CURVES:
        curves[name].append(float(found[name]))
  return curves


def _own(side):
  return {name: side[name] for name in ('dtype', 'attention', 'remat')}


def _sizes(mesh):
  """Sizes of the axes; a -1 takes the rest of all devices."""
  product = math.prod(mesh[a] for a in axes.AXES)
  n = product if product > 0 else jax.device_count()
  if n > jax.device_count():
    raise UserError(
      f'a layout of {n} devices and there are {jax.device_count()}: change a.mesh or '
      f'b.mesh, or try --devices={n}'
    )
  return dict(zip(axes.AXES, meshes.shape(mesh, n)))


def _start(key, model, layout):
  params = llama.init(key, model)
  return params if layout is None else layouts.arrange(params, layout)


def data(config):
  """The batches of a run, the same every time: feed.Tokens of numpy arrays."""
  if config.data.root:
    root = pathlib.Path(config.data.root)
    names = sorted(p.name for p in root.iterdir()) if root.is_dir() else []
    sources = {n: shards.open_source(root / n, split='train') for n in names}
    if not sources:
      raise UserError(f'data.root={root}: no folders of token shards there')
    mix = [(0, dict.fromkeys(sources, 1.0))]
    stream = rows.Rows(sources, mix, config.seed, config.data.positions)
    for _ in range(config.steps):
      yield stream.batch(config.batch, config.length)
    return
  for i in range(config.steps):
    yield synthetic(config, np.random.default_rng((config.seed, i)))


def synthetic(config, rng):
  """Packed documents, each an arithmetic progression, so that the loss falls."""
  shape, n = (config.batch, config.length), config.model.vocab_size
  segment = 1 + np.cumsum(rng.random(shape) < 4 / config.length, axis=1)
  document = segment + 1000 * np.arange(config.batch)[:, None]
  begin, stride = (document * 7919) % n, 1 + document % 3
  column = np.arange(config.length + 1)
  line = (begin[..., None] + stride[..., None] * column) % n
  take = lambda c: np.take_along_axis(line, c[None, :, None], 2)[..., 0]
  weight = np.append(segment[:, 1:] == segment[:, :-1], np.zeros((shape[0], 1)), 1)
  return feed.Tokens(
    tokens=take(column[:-1]).astype(np.int32),
    targets=take(column[1:]).astype(np.int32),
    segment=segment.astype(np.int32),
    position=np.broadcast_to(column[:-1], shape).astype(np.int32),
    weight=weight.astype(np.float32),
  )


def _row(results, name, i):
  a, b = results['a'][name][i], results['b'][name][i]
  return f'{a:.7f} {b:.7f} {difference(a, b):.1e}'


def page(config, results):
  """Both curves of the loss and of the gradient norm, and their relative difference."""
  steps = list(range(1, config.steps + 1))
  sections = []
  for name, title in zip(CURVES, ('Loss', 'Gradient norm'), strict=True):
    both = graph_objects.Figure()
    for side, dash in (('a', 'solid'), ('b', 'dot')):
      both.add_scatter(x=steps, y=results[side][name], name=side, line_dash=dash)
    a, b = (np.asarray(results[side][name]) for side in ('a', 'b'))
    gap = graph_objects.Figure()
    gap.add_scatter(x=steps, y=np.maximum(difference(a, b), LEAST), mode='markers')
    gap.update_yaxes(type='log', exponentformat='power')
    sections.append(
      Section(
        title,
        [
          Row(
            [
              _card(f'{name}_curves', title, both, ('role:0', 'role:1')),
              _card(f'{name}_gap', f'Relative difference, at least {LEAST:g}', gap),
            ]
          )
        ],
      )
    )
  lines = [f'{side}: {", ".join(_describe(config[side]))}' for side in ('a', 'b')]
  return Page('Two layouts', sections, lines)


def _card(name, title, drawn, roles=('role:5',)):
  axis = {'title': {'text': 'step'}}
  figure = figures.figure(drawn, 300, xaxis=axis)
  return Card([Plot(name, figures.paint(figure, roles))], title)


def _describe(side):
  """What a layout says that is not 1, ['fsdp 2', 'microbatches 4', 'float32']."""
  parts = [f'{a} {n}' for a, n in side.mesh.items() if n != 1] or ['one device']
  if side.mesh.stage > 1:
    p = side.pipeline
    parts.append(f'{p.form}, chunks {p.chunks}')
  if side.microbatches > 1:
    parts.append(f'{side.microbatches} microbatches')
  return [*parts, side.dtype]
