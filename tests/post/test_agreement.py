"""Losses, gradients and optimizer steps are those of TRL and torch (4.1).

LLAMA3_ORACLE=PYTHON, an interpreter with torch, transformers and trl, makes the goldens
again.
"""

import functools
import json
import os
import pathlib
import subprocess

import agreement as a
import jax
import numpy as np
import pytest

from configs import dpo as dpo_config
from llama3_jax import feed
from llama3_jax.model import convert
from llama3_jax.model import files
from llama3_jax.model import formats
from llama3_jax.model import hf
from llama3_jax.post import dpo
from llama3_jax.post import ranked
from llama3_jax.post import reference
from llama3_jax.post import reward
from llama3_jax.post import rows as rows_lib
from llama3_jax.post import sft
from llama3_jax.train import optim
from llama3_jax.train import step

FOLDER = pathlib.Path(__file__).parent / 'goldens'
GOLDENS = json.loads((FOLDER / 'losses.json').read_text('utf-8'))
LENGTH = 24
FAMILY = ('dpo', 'ipo', 'robust', 'simpo', 'orpo', 'kto')


@functools.cache
def model(seed=0):
  """(Params, ModelConfig) of the weights that the libraries had, read as theirs."""
  tensors = {
    n: files.Tensor(x.shape, x.dtype, 'x', lambda x=x: x)
    for n, x in a.weights(seed).items()
  }
  values = a.SIZES | {'model_type': 'llama', 'torch_dtype': 'float32'}
  weights = formats.collect(hf.read_config_json(values, 'x'), tensors, hf.LAYOUT, 'x')
  config = convert.ModelConfig(**{**vars(weights.config), 'dtype': 'float32'})
  return convert.load(weights), config


def theirs(tree, config):
  """{name of Hugging Face: array} of parameters or gradients."""
  found = {}
  for leaf, layer in formats.leaves(config):
    x = functools.reduce(getattr, leaf.split('.'), tree)
    x = np.asarray(x if layer is None else x[layer])
    name = formats.tensor_name(hf.LAYOUT, leaf, layer)
    found[name] = formats.to_file(x, hf.LAYOUT, leaf, config)
  return found


def near(found, golden, tolerance=1e-5):
  """Every number of `found` is the golden's, but for a share of the largest."""
  assert set(found) == set(golden)
  largest = max(norm for norm, _ in golden.values())
  for name in golden:
    np.testing.assert_allclose(
      found[name], golden[name], rtol=0, atol=tolerance * largest, err_msg=name
    )


def compare(name, loss, params, batch, config, rename=lambda tree: tree):
  """Asserts that the mean loss and its gradients are those of a case."""
  mean = lambda p: (lambda total, m: total / m['count'])(*loss(p, batch))
  value, gradients = jax.jit(jax.value_and_grad(mean))(params)
  np.testing.assert_allclose(value, GOLDENS[name]['loss'], rtol=1e-5)
  near(rename(gradients), GOLDENS[name]['gradients'])


def row(prompt, answer, kept=None):
  mask = np.arange(len(prompt) + len(answer)) >= len(prompt)
  return rows_lib.place(prompt + answer, LENGTH, mask if kept is None else kept(mask))


@pytest.mark.parametrize('packed', [False, True])
def test_sft_is_that_of_trl(packed):
  params, config = model()
  name = 'sft_packed' if packed else 'sft_padded'
  rows = rows_lib.stack([row(*dialog) for dialog in a.dialogs()])
  if packed:
    masks = [np.arange(len(p) + len(r)) >= len(p) for p, r in a.dialogs()]
    group = [(p + r, mask) for (p, r), mask in zip(a.dialogs(), masks)]
    rows = rows_lib.stack([sft._row(group, 2 * LENGTH, 'restart')])
  compare(
    name,
    functools.partial(sft.loss, config=config),
    params,
    rows,
    config,
    lambda g: a.said(theirs(g, config)),
  )


def pairs(cut=0):
  """feed.Pairs; cut: tokens at the end of an answer that are not compared."""
  made = []
  for prompt, *answers in a.pairs():
    sides = []
    for answer in answers:
      whole = row(prompt, answer)
      end = np.arange(len(prompt) + len(answer)) < len(prompt) + len(answer) - cut
      contrast = row(prompt, answer, lambda mask, end=end: mask & end).weight
      sides.append(feed.Pairs(**vars(whole), contrast=contrast, ref_logp=np.float32(0)))
    made.append(rows_lib.stack(sides))
  other, config = model(5)
  return reference.compute(other, rows_lib.stack(made), config)


@pytest.mark.parametrize('name', [*FAMILY, 'dpo_masked'])
def test_losses_on_pairs_are_those_of_trl(name):
  params, config = model()
  fields = dpo_config.get_config()
  kind = name.removesuffix('_masked')
  fields.update(dict(loss=kind, target=a.TARGET, flipped=a.FLIPPED))
  how = dict(beta=a.BETA, nll=a.NLL, compare=dpo.contrast(fields))
  compare(
    name,
    functools.partial(dpo.loss, config=config, **how),
    params,
    pairs(int(name == 'dpo_masked')),
    config,
    lambda g: a.said(theirs(g, config)),
  )


@pytest.mark.parametrize('build', [ranked._separate_rows, ranked._branched_row])
@pytest.mark.parametrize('third', [False, True])
def test_reward_model_is_that_of_trl(third, build):
  params, config = model()
  made = []
  for i, (prompt, *answers) in enumerate(a.pairs()):
    answers += [a.pairs()[i - 1][1]] if third and i % 2 else []
    one = build(prompt, answers, np.arange(len(answers)), 2 * LENGTH)
    made.append(feed.Ranked(**one, margin=np.zeros(3, np.float32)))
  whole = reward.Reward(model=params, head=jax.numpy.asarray(a.head()))

  def rename(g):
    said = a.said(theirs(g.model, config) | {'score.weight': g.head})
    del said['lm_head.weight']
    return said

  compare(
    'reward_ranked' if third else 'reward',
    functools.partial(
      reward.loss, config=config, branches=build is ranked._branched_row
    ),
    whole,
    rows_lib.stack(made),
    config,
    rename,
  )


@pytest.mark.parametrize('microbatches', [1, 2, 4])
def test_adamw_is_that_of_torch_with_clipping_and_accumulation(microbatches):
  params, config = model()
  how = a.ADAM
  settings = optim.OptimConfig(
    peak=how['rate'],
    warmup=0,
    decay=0,
    b1=how['betas'][0],
    b2=how['betas'][1],
    eps=how['eps'],
    weight_decay=how['decay'],
    clip=how['clip'],
  )
  loss = functools.partial(sft.loss, config=config)
  train = step.compose(loss, optim.create(settings), microbatches)
  state = train.start(jax.tree.map(jax.numpy.copy, params))
  rows = rows_lib.stack([row(*dialog) for dialog in a.dialogs()])
  losses = []
  for _ in range(how['steps']):
    state, metrics = train(state, rows)
    losses.append(float(metrics['loss']))
  np.testing.assert_allclose(losses, GOLDENS['adamw']['losses'], rtol=1e-5)
  near(a.said(theirs(state.params, config)), GOLDENS['adamw']['weights'])


@pytest.mark.skipif('LLAMA3_ORACLE' not in os.environ, reason='LLAMA3_ORACLE: none')
def test_goldens_are_what_the_libraries_say_now(tmp_path):
  path = tmp_path / 'losses.json'
  command = [os.environ['LLAMA3_ORACLE'], FOLDER / 'make.py', path]
  bare = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
  subprocess.run(command, check=True, capture_output=True, env=bare, timeout=600)
  made = json.loads(path.read_text('utf-8'))
  assert set(made) == set(GOLDENS)
  for name, case in made.items():
    if name != 'made_by':
      key = 'weights' if name == 'adamw' else 'gradients'
      near(case[key], GOLDENS[name][key], 1e-6)
