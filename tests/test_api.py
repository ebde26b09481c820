"""`import llama3_jax as l3`: what a notebook calls, and NNX."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import post_examples as toy
import pytest
import toy_chat
from flax import nnx

import llama3_jax as l3
from llama3_jax import feed
from llama3_jax.base.errors import UserError
from llama3_jax.model import llama
from llama3_jax.text.chat import Message
from llama3_jax.train import final

GREEDY = dict(temperature=0.0, max_new=6)


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('run')
  final.save(folder / 'final', toy.model(), toy.CONFIG, toy.tokenizer(folder))
  return folder


@pytest.fixture(scope='module')
def m(workdir):
  return l3.load(workdir)


@pytest.fixture(scope='module')
def ids():
  return np.random.default_rng(0).integers(0, 512, (4, 12)).astype(np.int32)


def test_import_is_cheap_and_names_are_listed(root):
  code = 'import sys, llama3_jax as l3; l3.__version__; print(sorted(sys.modules)); '
  code += 'print(dir(l3), hasattr(l3, "nothing"))'
  found = subprocess.run(
    [sys.executable, '-c', code], cwd=root, capture_output=True, text=True, check=True
  )
  modules, names = found.stdout.strip().split('\n')
  assert "'jax'" not in modules and "'numpy'" not in modules
  assert all(f"'{name}'" in names for name in l3.API) and names.endswith('False')
  assert all(hasattr(l3, name) for name in l3.API)


def test_model_is_loaded_by_what_init_from_takes(m, workdir):
  jax.tree.map(np.testing.assert_array_equal, m.params, toy.model())
  assert m.config == toy.CONFIG and m.tokenizer.vocab_size == 512
  assert '51,360 parameters' in repr(m) and str(workdir) in repr(m)
  small = l3.load(workdir / 'final', dtype='bfloat16')
  assert small.config.dtype == 'bfloat16'
  assert {x.dtype.name for x in jax.tree.leaves(small.params)} == {'bfloat16'}


@pytest.mark.parametrize(
  'call,reason',
  [
    (lambda m: l3.load('nowhere'), 'nowhere'),
    (lambda m: l3.load(m.name, dtype='float7'), 'model.dtype'),
    (lambda m: m.chat([]), 'must be a question'),
    (lambda m: m.chat([Message('assistant', 'a')]), 'must be a question'),
    (lambda m: m.chat([{'role': 'user'}]), "message 0: field 'content' is missing"),
    (lambda m: m.chat('a', temperature=-1.0), 'sample.temperature=-1.0'),
    (lambda m: m.generate(['a', 3]), 'prompt 1 is a int'),
    (lambda m: m.generate('a', samples=0), 'samples=0'),
    (lambda m: m.logits([[1], [1, 2]]), 'different lengths'),
    (lambda m: m.logits([0.5]), 'whole numbers'),
    (lambda m: m.logits([1, 512]), '512 is outside the 512 rows'),
    (lambda m: m.logits([-1]), '-1 is outside'),
    (lambda m: m.replace(tokenizer=None).chat('a'), 'carries no tokenizer'),
    (
      lambda m: l3.from_nnx(nnx.Linear(1, 1, rngs=nnx.Rngs(0))),
      'a Linear is no module',
    ),
  ],
)
def test_what_cannot_be_is_one_line(m, call, reason):
  with pytest.raises(UserError, match=reason) as error:
    call(m)
  assert '\n' not in str(error.value)


def test_model_without_a_tokenizer_has_logits_and_takes_one(workdir, tmp_path):
  final.save(tmp_path / 'final', toy.model(), toy.CONFIG)
  bare = l3.load(tmp_path)
  assert bare.tokenizer is None and bare.logits([1, 2]).shape == (2, 512)
  assert 'no tokenizer' in repr(bare)
  given = l3.load(tmp_path, tokenizer=workdir / 'bytes.model')
  assert given.tokenizer.vocab_size == 512


def test_logits_are_those_of_forward(m, ids):
  found = m.logits(ids)
  assert found.shape == (4, 12, 512) and found.dtype == jnp.float32
  np.testing.assert_array_equal(found, l3.forward(m.params, ids, m.config))
  np.testing.assert_allclose(m.logits(ids[1].tolist()), found[1], atol=1e-5)


def test_generate_gives_a_text_or_lists(m):
  one = m.generate('ab', **GREEDY)
  assert isinstance(one, str) and m.generate(['ab'], **GREEDY) == [one]
  drawn = m.generate(['ab', 'cd'], max_new=6, samples=3)
  assert [len(x) for x in drawn] == [3, 3] and len({*drawn[0], *drawn[1]}) > 3
  assert m.generate([]) == []


def test_greedy_completion_follows_the_logits(m):
  ids = m.tokenizer.encode('ab', bos=True)
  for _ in range(6):
    padded = np.array(ids + [0] * (9 - len(ids)))  # one shape: one compilation
    ids.append(int(m.logits(padded)[len(ids) - 1].argmax()))
  expected = m.tokenizer.decode(ids[3:])
  assert m.generate('ab', **GREEDY) == expected


@pytest.mark.parametrize('whose', ['own', 'other'])
def test_talk_is_a_value(m, whose):
  if whose == 'other':
    m = m.replace(tokenizer=toy_chat.byte_level())
  start = m.talk(system='Be short.', **GREEDY)
  talk, reply = start.say('hi')
  assert start.say('hi')[1] == reply and not start.dialog.messages
  assert [x.role for x in talk.messages] == ['system', 'user', 'assistant']
  assert reply in repr(talk)
  again, _ = talk.say('on')
  assert again.messages[:2] == talk.messages[:2] and len(again.messages) == 5
  messages = [{'role': 'system', 'content': 'Be short.'}]
  messages.append({'role': 'user', 'content': 'hi'})
  assert m.chat(messages, **GREEDY) == reply
  assert m.chat('hi', **GREEDY) == m.chat([Message('user', 'hi')], **GREEDY)


def test_losses_make_a_training_step(m, ids):
  rows = feed.empty(feed.Tokens, dict(B=4, T=12))
  rows.tokens[:], rows.targets[:, :-1] = ids, ids[:, 1:]
  rows.segment[:], rows.weight[:, :-1], rows.position[:] = 1, 1, np.arange(12)
  loss = lambda params, batch: l3.losses.next_token(params, batch, m.config)
  train = l3.train_step(loss, optax.adam(1e-2))
  state, found = train.start(m.params), []
  for _ in range(3):
    state, metrics = train(state, rows)
    found.append(float(metrics['loss']))
  assert found[2] < found[1] < found[0]
  assert not np.array_equal(m.replace(params=state.params).logits(ids), m.logits(ids))
  assert {'next_token', 'sft', 'dpo', 'reward'} == set(vars(l3.losses))


def addresses(tree):
  return [x.unsafe_buffer_pointer() for x in jax.tree.leaves(tree)]


@pytest.mark.parametrize('tied', [False, True])
def test_module_of_nnx_has_the_same_arrays_and_logits(m, ids, tied):
  if tied:
    config = dataclasses.replace(m.config, tie_embeddings=True)
    m = m.replace(params=m.params.replace(head=None), config=config)
  module = l3.as_nnx(m)
  state = nnx.state(module, nnx.Param)
  assert sorted(addresses(state)) == sorted(addresses(m.params))
  expected = np.asarray(m.logits(ids))
  np.testing.assert_array_equal(module(ids), expected)
  graph, state = nnx.split(module)
  merged = nnx.merge(graph, state)
  np.testing.assert_array_equal(merged(ids), expected)
  back = l3.from_nnx(merged)
  assert addresses(back.params) == addresses(m.params)
  assert (back.config, back.tokenizer, back.name) == (m.config, m.tokenizer, m.name)
  np.testing.assert_array_equal(back.logits(ids), expected)
  np.testing.assert_array_equal(nnx.jit(lambda f, x: f(x))(module, ids), expected)


def test_module_is_trained_by_an_optimizer_of_nnx(m, ids):
  module = l3.as_nnx(m)
  optimizer = nnx.Optimizer(module, optax.adam(1e-2), wrt=nnx.Param)

  def loss(module, x):
    logits = module(x)[:, :-1]
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, x[:, 1:]))

  @nnx.jit
  def train(module, optimizer, x):
    value, grads = nnx.value_and_grad(loss)(module, x)
    optimizer.update(module, grads)
    return value

  found = [float(train(module, optimizer, ids)) for _ in range(5)]
  assert found == sorted(found, reverse=True) and found[-1] < found[0] - 0.5
  after = l3.from_nnx(module)
  np.testing.assert_array_equal(after.logits(ids), module(ids))
  assert not np.array_equal(after.params.layers.wq, m.params.layers.wq)
  jax.tree.map(np.testing.assert_array_equal, m.params, toy.model())  # as it was


def test_qwix_quantises_a_module_and_what_it_adds_is_not_lost(m, ids):
  qwix = pytest.importorskip('qwix')
  rules = dict(module_path='.*', weight_qtype='int8')
  rule = qwix.QuantizationRule(**rules)
  small = qwix.quantize_model(l3.as_nnx(m), qwix.QtProvider([rule]), ids)
  difference = np.abs(np.asarray(small(ids)) - m.logits(ids)).max()
  assert 1e-4 < difference < 0.5
  with pytest.raises(UserError, match='QtProvider'):
    qwix.quantize_model(l3.as_nnx(m), qwix.PtqProvider([rule]), ids)(ids)
  lora = qwix.LoraProvider([qwix.LoraRule(module_path='.*', rank=2, alpha=2.0)])
  adapted = qwix.apply_lora_to_model(l3.as_nnx(m), lora, ids)
  with pytest.raises(UserError, match='lora'):
    l3.from_nnx(adapted)


def test_forward_is_plain_jax(m, ids):
  total = lambda params: l3.forward(params, ids, m.config).sum()
  grads = jax.grad(total)(m.params)
  assert isinstance(grads, llama.Params) and float(jnp.abs(grads.embed).sum()) > 0


@pytest.mark.parametrize('given', [None, 5, b'a', {'role': 'user', 'content': 'x'}])
def test_what_is_no_text_and_no_list_is_refused(m, given):
  with pytest.raises(UserError, match='give a text or a list'):
    m.generate(given, **GREEDY)
  with pytest.raises(UserError, match='give a text or a list'):
    m.chat(given, **GREEDY)


@pytest.mark.parametrize('seed', [-1, 2**32, 1.5, None])
def test_a_seed_that_is_none_is_refused(m, seed):
  with pytest.raises(UserError, match='seed='):
    m.generate('a', seed=seed, **GREEDY)


@pytest.mark.parametrize(
  'changes', [dict(n_layers=1), dict(vocab_size=1024), dict(n_heads=2, d_head=32)]
)
def test_a_config_of_other_parameters_is_refused(m, changes):
  with pytest.raises(UserError, match='by the config'):
    m.replace(config=dataclasses.replace(m.config, **changes))


def test_a_module_with_other_arrays_is_refused(m):
  module = l3.as_nnx(m)
  module.embed.set_value(jnp.zeros((5, 5)))
  with pytest.raises(UserError, match='embed is'):
    l3.from_nnx(module)
