"""The command line: every mistake is one line with the way out, never a traceback."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import types

import pytest
import refusals

from configs import evaluate as evaluate_config
from configs import sft as sft_config
from configs import shards as shards_config
from llama3_jax import commandline
from llama3_jax import override
from llama3_jax import sweep
from llama3_jax.base.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]

TINY = '--config=configs/pretrain.py:tiny'
BLIND = {'JAX_PLATFORMS': 'nonsense'}  # touching a device would fail loudly

told = refusals.told  # fixture


def refused(launcher, *arguments, status=2, env=()):
  """The one line that the launcher ends with."""
  return refusals.last_line(*launcher.run(*arguments, env=env), status)


@pytest.fixture
def workdir(tmp_path):
  return f'--workdir={tmp_path / "run"}'


def test_misspelt_key_has_its_full_path_and_the_nearest_names(launcher, workdir):
  wrong = '--config.optim.paek=1e-3'
  line = refused(launcher, TINY, wrong, workdir, env=BLIND)
  assert 'config.optim.paek' in line and 'optim.peak' in line


def test_key_in_the_wrong_section_is_found(told, workdir):
  line = told(TINY, '--config.train.peak=1', workdir)
  assert 'train.peak' in line and 'optim.peak' in line


def test_nothing_is_written_for_a_misspelt_key(told, tmp_path):
  folder = tmp_path / 'run'
  assert 'config.oops' in told(TINY, '--config.oops=1', f'--workdir={folder}')
  assert not folder.exists()


BAD = [
  ('--config.train.steps=many', 'train.steps'),
  ('--config.train.steps=1.5', 'train.steps'),
  ('--config.optim.peak=fast', 'optim.peak'),
  ('--config.model.tie_embeddings=maybe', 'model.tie_embeddings'),
  ('--config.train.ramp=((0,', 'train.ramp'),
  ('--config.optim=3', 'optim'),
  ('--confg=x', '--confg'),
  ('oops', 'oops'),
  ('--config.seed', 'config.seed'),
  ('--config.experiment=abc', "experiment='abc' must be one of"),
]


@pytest.mark.parametrize('argument,word', BAD)
def test_value_that_cannot_be_is_named_before_any_device_is_touched(
  told, workdir, argument, word
):
  assert word in told(TINY, argument, workdir)


@pytest.mark.parametrize('count', ['0', '-3', 'two'])
def test_count_of_devices_is_one_or_more(told, workdir, count):
  assert f'--devices={count}' in told(TINY, f'--devices={count}', workdir)


@pytest.mark.parametrize('missing', ['config', 'workdir'])
def test_missing_flag_is_named(told, workdir, missing):
  given = {'config': TINY, 'workdir': workdir}
  del given[missing]
  assert f'--{missing}' in told(*given.values())


def test_recipe_that_leaves_nothing_needs_no_workdir(told):
  line = told('--config=chat', '--init_from=nowhere', blind=False)
  assert 'init_from=nowhere' in line and 'workdir is missing' not in line
  assert '--workdir is missing' in told('--config=chat', '--sweep')
  assert 'must be one of' in told('--config=chat', '--config.experiment=oops')


def test_slurm_tasks_without_srun_are_one_line(told, workdir, monkeypatch):
  monkeypatch.setenv('SLURM_NTASKS', '4')
  line = told(TINY, workdir)
  assert 'srun' in line and '--coordinator=none' in line
  missing = '--config=configs/convert.py', '--config.source=nowhere', workdir
  line = told(*missing, blind=False)  # one process is all it needs
  assert 'target is empty' in line and 'srun' not in line
  alone = TINY, workdir, '--coordinator=none', '--config.data.root=nowhere'
  line = told(*alone, blind=False)
  assert 'nowhere' in line and 'srun' not in line


@pytest.mark.parametrize('config', ['reject:papr', 'evaluate:chta', 'tokenizer:trian'])
def test_misspelt_argument_of_a_config_names_the_valid_ones(told, workdir, config):
  file, _, word = config.partition(':')
  flag = f'--config=configs/{file}.py:{word}'
  line = told(flag, workdir)
  right = {'papr': 'paper', 'chta': 'chat', 'trian': 'train'}[word]
  assert word in line and right in line


@pytest.mark.parametrize(
  'text,value',
  [('9007199254740993', 2**53 + 1), ('1e6', 10**6), ('-3', -3), ('2.50e2', 250)],
)
def test_whole_numbers_keep_every_digit(text, value):
  assert override._parse('train.steps', text, 1) == value


def test_missing_config_file_lists_those_there_are(told, workdir):
  line = told('--config=configs/pretrian.py', workdir)
  assert 'configs/pretrian.py' in line and 'configs/pretrain.py' in line


MISTAKES = [
  ('--config=configs/pretrain.py:9b',),
  ('--config=README.md',),
  (TINY, '--sweep_index=x'),
  (TINY, '--devices=x'),
  (TINY, '--processes=2', '--process=0'),
]


@pytest.mark.parametrize('arguments', MISTAKES)
def test_mistake_in_a_flag_is_one_line(told, workdir, arguments):
  told(*arguments, workdir, blind=False)


def test_help_lists_experiments_and_configs(launcher, root):
  status, text = launcher.run('--help', env=BLIND)
  assert status == 0 and 'Traceback' not in text
  lines = {line.split()[0]: line for line in text.split('\n') if line.startswith('  ')}
  for folder in ('experiments', 'configs'):
    for file in (root / folder).glob('*.py'):
      if file.stem != '__init__':
        assert len(lines[file.stem].split()) > 2, file.stem
  for flag in ('--config', '--workdir', '--sweep', '--sweep_index'):
    assert flag in text
  assert launcher.run(env=BLIND) == (0, text)


def test_missing_shards_are_named(told, workdir, tmp_path):
  root = f'--config.data.root={tmp_path / "nothing"}'
  line = told(TINY, root, workdir, blind=False)
  assert str(tmp_path / 'nothing') in line


def test_workdir_that_cannot_be_is_named(told, tmp_path):
  (tmp_path / 'file').write_text('')
  line = told(TINY, f'--workdir={tmp_path / "file" / "run"}', blind=False)
  assert str(tmp_path / 'file') in line


def test_read_only_workdir_is_named_before_any_step(told, toy, tmp_path):
  mount = ['mount', '-t', 'tmpfs', '-o', 'ro', 'tmpfs', str(tmp_path)]
  if os.geteuid() or shutil.which('mount') is None:
    pytest.skip('a read-only file system needs root')
  if subprocess.run(mount, capture_output=True).returncode:
    pytest.skip('this machine lets no one mount a file system')
  try:
    for folder in (tmp_path, tmp_path / 'run'):
      line = told(f'--config={toy}/toy.py:2', f'--workdir={folder}', blind=False)
      assert str(folder) in line and 'Read-only' in line
  finally:
    subprocess.run(['umount', '-l', str(tmp_path)], check=True)


@pytest.mark.parametrize('where', ['gs://nowhere/run', 'memory://run'])
def test_remote_folder_that_cannot_be_read_is_one_line(told, toy, tmp_path, where):
  command = f'--config={toy}/toy.py:2', f'--workdir={tmp_path / "run"}'
  line = told(*command, f'--config.train.checkpoints={where}', blind=False)
  assert 'train.checkpoints' in line and where in line
  line = told(command[0], f'--workdir={where}', blind=False)
  assert f'--config.train.checkpoints={where}' in line


@pytest.mark.parametrize('field', ['log_every=0', 'save_every=0', 'on_bad_step=pray'])
def test_field_that_cannot_be_is_one_line(told, toy, workdir, field):
  flag = f'--config.train.{field}'
  line = told(f'--config={toy}/toy.py:2', workdir, flag, blind=False)
  assert f'train.{field.partition("=")[0]}' in line


@pytest.fixture(scope='module')
def used(toy, launcher, tmp_path_factory):
  """A workdir in which two steps were run."""
  folder = tmp_path_factory.mktemp('used') / 'run'
  status, text = launcher.run(f'--config={toy}/toy.py:2', f'--workdir={folder}')
  assert status == 0, text
  return folder


def test_used_workdir_with_another_config_names_the_keys(told, toy, used):
  arguments = f'--config={toy}/toy.py:2', f'--workdir={used}'
  changes = '--config.optim.peak=7', '--config.seed=3'
  line = told(*arguments, *changes, blind=False)
  assert 'optim.peak' in line and 'seed' in line and str(used) in line


def test_missing_start_is_named(told, toy, workdir, tmp_path):
  start = f'--config.init_from={tmp_path / "nothing"}'
  line = told(f'--config={toy}/toy.py:2', start, workdir, blind=False)
  assert 'init_from' in line and str(tmp_path / 'nothing') in line


@pytest.mark.parametrize('change', ['d_model=64', 'vocab_size=600', 'n_layers=3'])
def test_start_from_another_model_is_one_line(told, toy, used, workdir, change):
  arguments = f'--config={toy}/toy.py:2', f'--config.init_from={used}', workdir
  line = told(*arguments, f'--config.model.{change}', blind=False)
  assert str(used) in line


# Fields set wrongly on 8 devices; the last is the word that must be named.
WRONG = [
  ('mesh.fsdp=3', 'mesh'),
  ('mesh.tensor=8', 'tensor'),
  ('mesh.fsdp=4', 'mesh.context=2', 'train.length=31', 'length'),
  ('train.batch=6', 'batch'),
  ('train.microbatches=3', 'microbatches'),
]


@pytest.mark.parametrize('case', WRONG)
def test_sizes_that_do_not_fit_are_one_line(told, toy, workdir, case):
  *fields, word = case
  fields = [f'--config.{f}' for f in fields]
  arguments = f'--config={toy}/toy.py:2', '--devices=8', *fields, workdir
  assert word in told(*arguments, blind=False)


def test_start_that_failed_does_not_claim_the_workdir(launcher, told, toy, workdir):
  start = f'--config={toy}/toy.py:2', workdir
  told(*start, '--config.seed=3', '--config.data.mix.web=0.0', blind=False)
  status, text = launcher.run(*start)
  assert status == 0, text


def test_resume_on_other_mesh_in_the_same_workdir(launcher, toy, used, tmp_path):
  arguments = f'--config={toy}/toy.py:2', f'--workdir={used}'
  status, text = launcher.run(*arguments, '--devices=2', '--config.mesh.tensor=2')
  assert status == 0, text


def test_sweep_runs_every_member(launcher, toy, tmp_path):
  arguments = f'--config={toy}/toy.py', f'--workdir={tmp_path}'
  status, text = launcher.run(*arguments, '--sweep')
  assert status == 0, text
  for index, peak in enumerate((1e-3, 2e-3)):
    assert (tmp_path / str(index) / 'results.json').is_file()
    kept = json.loads((tmp_path / str(index) / 'config.json').read_text())['config']
    assert kept['optim.peak'] == peak and kept['train.steps'] == 2
  assert sorted(os.listdir(tmp_path)) == ['0', '1', 'sweep.json']
  found = json.loads((tmp_path / 'sweep.json').read_text())
  losses = {m['member']: m['eval_loss'] for m in found['members']}
  assert found['best'] == min(losses, key=losses.get) and found['fields'] == [
    'optim.peak'
  ]
  best = [line for line in text.splitlines() if line.endswith('<- best')]
  assert [line.split()[0] for line in best] == [found['best']]
  page = (tmp_path / '0' / 'report.html').read_text()
  assert 'Gradient norm' in page and 'What was read' in page and '>web<' in page


def test_sweep_index_runs_one_member(launcher, toy, tmp_path):
  arguments = f'--config={toy}/toy.py', f'--workdir={tmp_path}'
  status, text = launcher.run(*arguments, '--sweep_index=1', '--config.seed=5')
  assert status == 0, text
  assert sorted(os.listdir(tmp_path)) == ['1', 'sweep.json']
  members = json.loads((tmp_path / 'sweep.json').read_text())['members']
  assert [m['state'] for m in members] == ['not finished', 'finished']
  assert '0       0.001       not finished' in text
  kept = json.loads((tmp_path / '1' / 'config.json').read_text())['config']
  assert kept['optim.peak'] == 2e-3 and kept['seed'] == 5


def test_command_line_wins_over_the_sweep():
  from configs import pretrain

  changes = [{'optim.peak': peak, 'train.steps': 7} for peak in (1e-3, 2e-3)]
  module = types.SimpleNamespace(sweep=lambda: changes)
  flags = {'config': 'x', 'sweep': 'true'}
  given = {'optim.peak': '0.5', 'seed': '3'}
  runs = sweep.members(module, pretrain.get_config('tiny'), flags, given, 'w')
  assert [folder for _, folder in runs] == ['w/0', 'w/1']
  for config, _ in runs:
    assert (config.optim.peak, config.seed, config.train.steps) == (0.5, 3, 7)
  runs = sweep.members(module, pretrain.get_config('tiny'), flags, {}, 'w')
  apart = {'train.checkpoints': 'gs://a'}
  apart = sweep.members(module, pretrain.get_config('tiny'), flags, apart, 'w')
  assert [c.train.checkpoints for c, _ in apart] == ['gs://a/0', 'gs://a/1']
  assert [config.optim.peak for config, _ in runs] == [1e-3, 2e-3]


def test_sweep_index_beyond_the_sweep_and_sweep_of_none(told, toy, workdir):
  line = told(f'--config={toy}/toy.py', '--sweep_index=2', workdir)
  assert '--sweep_index=2' in line
  line = told('--config=configs/sft.py', '--sweep', workdir)
  assert 'configs/sft.py' in line


def test_main_is_callable_from_a_notebook(toy, tmp_path):
  """No launcher, no mesh: the experiment's main with a config."""
  import importlib.util

  from experiments import pretrain

  spec = importlib.util.spec_from_file_location('toy_config', toy / 'toy.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  results = pretrain.main(module.get_config('2'), str(tmp_path))
  assert results['eval_loss']['eval_loss'] > 0
  assert json.loads((tmp_path / 'results.json').read_text()) == results


def test_arguments_may_come_from_a_file(tmp_path):
  from llama3_jax import commandline

  file = tmp_path / 'run.flags'
  file.write_text('--config=configs/sft.py\n# a remark\n--config.train.steps=1e3\n')
  flags, overrides = commandline.parse([f'--flagfile={file}', '--workdir', 'x'])
  assert flags == {'config': 'configs/sft.py', 'workdir': 'x'}
  assert overrides == {'train.steps': '1e3'}


@pytest.mark.parametrize(
  'argument,words',
  [
    ('--flagfile=nowhere', 'Unable to open flagfile'),
    ('--devices=many', 'flag --devices=many: invalid literal for int'),
    ('--devices=0', 'not a positive integer'),
    ('--sweep_index=-1', 'not a non-negative integer'),
    ('--wrkdir=x', 'did you mean --workdir?'),
    ('--sweep=perhaps', 'Non-boolean'),
    ('--config.train.steps', 'it has no value'),
    ('word', 'not understood'),
  ],
)
def test_flags_have_types_and_near_names(argument, words):
  from llama3_jax import commandline

  with pytest.raises(UserError) as error:
    commandline.parse([argument])
  assert words in str(error.value) and '\n' not in str(error.value)


def test_no_recipe_is_named_by_the_launcher():
  """What is peculiar to a recipe stands in its own file."""
  text = (ROOT / 'experiment.py').read_text().partition('"""\n\n')[2]
  for file in (ROOT / 'experiments').glob('[a-z]*.py'):
    assert not re.search(rf"'{file.stem}'", text), file.stem


def test_short_flags_stand_for_fields_of_the_config():
  given = ['--init_from=m', '--files', 'a.jsonl', '--lora=8', '--steps=1e2']
  _, overrides = commandline.parse(['--config=sft', *given])
  c = sft_config.get_config('tiny')
  override.apply(c, overrides)
  assert (c.init_from, c.part.rank, c.train.steps) == ('m', 8, 100)
  assert c.data.files == ('a.jsonl',) and c.data.tasks == c.data.heldout_tasks == 0
  _, overrides = commandline.parse(['--files=a.jsonl', '--config.data.tasks=5'])
  c = sft_config.get_config('tiny')
  override.apply(c, overrides)
  assert c.data.tasks == 5 and c.data.heldout_tasks == 0
  c = evaluate_config.get_config('chat')
  override.apply(c, {'files': "('a.jsonl', 'b.csv')"})
  assert c.tasks == ('rows=a.jsonl', 'rows=b.csv')
  with pytest.raises(UserError, match='no rows of yours'):
    override.apply(shards_config.get_config(), {'files': 'a.jsonl'})


@pytest.mark.parametrize('name', ['2024', '1e3', '[x].jsonl', '(a, b).txt', 'None'])
def test_any_name_of_a_file_is_a_name(name):
  config = evaluate_config.get_config()
  override.apply(config, {'own_text': name})
  assert config.text == (name,)
  config = sft_config.get_config()
  override.apply(config, {'files': name})
  assert config.data.files == (name,)
