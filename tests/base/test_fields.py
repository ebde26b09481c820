"""Every field of every config has a range, and what is outside of it is refused."""

import functools
import importlib
import math
import pathlib
import re

import bad_values
import pytest

from llama3_jax import config as configs
from llama3_jax import override
from llama3_jax.base import fields
from llama3_jax.base.errors import UserError
from llama3_jax.base.field import Field
from llama3_jax.data import mix

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAMES = sorted(p.stem for p in (ROOT / 'configs').glob('*.py') if p.stem[0] != '_')


def config_of(name):
  return importlib.import_module(f'configs.{name}').get_config()


@pytest.mark.parametrize('name', NAMES)
def test_config_as_written_is_in_range(name):
  fields.check(configs.flatten(config_of(name)))


@pytest.mark.parametrize('name', NAMES)
def test_any_value_of_any_field_is_a_value_or_one_line(name):
  config = config_of(name)
  flat = configs.flatten(config)
  names = [path for path in flat if 'experiment' in path]
  for path, value in flat.items():
    *sections, last = path.split('.')
    section = functools.reduce(getattr, sections, config)
    for text in bad_values.BAD:
      try:
        override.apply(config, {path: text})
        found = section[last]
        fields.check({path: found} | {k: flat[k] for k in names})
      except UserError as error:
        assert path in str(error) and '\n' not in str(error)
        continue
      finally:
        if section[last] is not value:
          with section.ignore_type():
            section[last] = value
      if isinstance(found, float) and not path.startswith(('curate.', 'herd')):
        assert math.isfinite(found) or 'curate' in path, (path, text)
      assert type(found) is type(value) or value is None, (path, text)
  assert configs.flatten(config) == flat


@pytest.mark.parametrize(
  'path, text',
  [
    *(('optim.peak', v) for v in ('-1e-2', 'nan', 'inf')),
    *(('optim.b1', v) for v in ('2', '1', '-0.1')),
    *(('optim.clip', v) for v in ('-1', '0', 'nan')),
    *(('optim.eps', '-1'), ('optim.weight_decay', '-50'), ('optim.warmup', '-10')),
    *(('train.steps', '-5'), ('train.loss_chunk', '-3'), ('train.z_loss', 'nan')),
    *(('train.ramp', '5'), ('data.changes', '5'), ('data.eval_batches', '-1')),
    *((f'model.{n}', '0') for n in ('d_ff', 'd_model', 'n_layers', 'n_kv_heads')),
    *(('model.d_ff', '2147483648'), ('seed', '-1'), ('data.lanes', '0')),
    *(('data.mix.code', '-1'), ('data.mix.code', 'nan')),
  ],
)
def test_nonsense_is_refused_by_name(path, text):
  config = config_of('pretrain')
  with pytest.raises(UserError, match=re.escape(path)):
    override.apply(config, {path: text})
    fields.check(configs.flatten(config))


def test_evaluation_of_no_example_is_refused():
  config = config_of('evaluate')
  config.examples = 0
  with pytest.raises(UserError, match='examples=0'):
    fields.check(configs.flatten(config))


@pytest.mark.parametrize(
  'value,good',
  [
    (((0, 8, 16), (10, 8, 32)), True),
    (((0, 8),), False),
    (((0, 8, 16, 1),), False),
    (((0, 8, 1.5),), False),
    (((0, 8, 16), (-1, 8, 16)), False),
    ((0, 8, 16), False),
  ],
)
def test_rows_of_a_list_have_their_length_kinds_and_range(value, good):
  found = Field('[0, 100]', rows='iii').fault(value)
  assert (found == '') == good


@pytest.mark.parametrize('interval', ['[0, 1]', '(0, 1]', '[0, 1)', '(0, 1)'])
def test_ends_belong_to_an_interval_as_its_brackets_say(interval):
  inside = [v for v in (-0.1, 0, 0.5, 1, 1.1) if not Field(interval).fault(v)]
  wanted = [0] * (interval[0] == '[') + [0.5] + [1] * (interval[-1] == ']')
  assert inside == wanted


def test_every_number_has_a_description():
  bare = set()
  for name in NAMES:
    for path, value in configs.flatten(config_of(name)).items():
      if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not path.startswith(('curate.', 'control.')) and fields.find(path) is None:
          bare.add(path)
  assert not bare


def test_mix_is_replaced_as_a_whole():
  config = config_of('pretrain')
  override.apply(config, {'data.mix': "{'general': 1}"})
  assert config.data.mix.to_dict() == {'general': 1.0}
  with pytest.raises(UserError, match='data.mix'):
    override.apply(config, {'data.mix': '{1'})
  with pytest.raises(UserError, match='data.mix: no such field'):
    override.apply(config_of('chat'), {'data.mix': "{'general': 1}"})


def test_blend_of_the_rope_lies_between_its_ends():
  config = config_of('pretrain')
  config.model.rope_scaling.update(dict(factor=8.0, high=1.0))
  with pytest.raises(UserError, match='model.rope_scaling.high=1.0 must be above'):
    configs.model_config(config.model)
  config.model.rope_scaling.factor = 1.0  # none
  configs.model_config(config.model)


def test_one_file_is_a_list_of_one():
  config = config_of('curate')
  override.apply(config, {'inputs': 'one.jsonl'})
  assert config.inputs == ('one.jsonl',)


def lists():
  """{path: default} of every list of every config."""
  found = {}
  for name in set(NAMES) - {'herd', 'rounds', 'own'}:  # made of others
    flat = configs.flatten(config_of(name))
    found |= {k: v for k, v in flat.items() if isinstance(v, (tuple, list))}
  return found


def test_every_list_says_what_it_holds():
  # sweep's entries are whole configs; what is empty by default shows no kind.
  silent = {k for k, v in lists().items() if not (v or fields.find(k).rows)}
  assert silent <= {'sweep', 'curate.code_rank.shares', *RANKS, 'scaling.weights'}


RANKS = ('curate.quality_rank.shares', 'curate.reasoning_rank.shares')


@pytest.mark.parametrize('value', ['5', '(None,)', '((1, 2),)', "('',)", '', "' '"])
def test_a_list_of_names_holds_names(value):
  paths = {k for k in lists() if fields.find(k).rows == 'p'}
  assert {'data.files', 'data.heldout_files', 'inputs', 'members'} <= paths
  for name in NAMES:
    flat = configs.flatten(config_of(name))
    for path in sorted(paths & flat.keys()):
      if not isinstance(flat[path], tuple):
        continue
      if path == 'files' and value not in ("('',)", '', "' '"):
        continue  # names of files may be numbers, or begin with a bracket
      config = config_of(name)
      with pytest.raises(UserError, match=f'--config.{path}'):
        override.apply(config, {path: value})
        fields.check(configs.flatten(config))


def test_mix_without_weight_and_with_a_dot_is_one_line():
  with pytest.raises(UserError, match="data.mix: 'v1.0' has a dot"):
    override.apply(config_of('pretrain'), {'data.mix': "{'v1.0': 1}"})
  with pytest.raises(UserError, match='not all 0, got none above 0'):
    mix.schedule([(0, {})], ['general'])
