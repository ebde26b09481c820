"""What each lever of the config does to a step on absent chips: python bench/levers.py.

[SIZE,CHIP:TOPOLOGY] (default 8b,v5p:4x4x4). Every row is one change from the first:
memory a chip, bytes gathered in the layers, FLOPs, and the roofline time of a step,
as `plan` compiles them. Needs `pip install -e '.[plan-tpu,quant]'`.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

LEVERS = (
  ('full remat (base)', {}),
  ('gradients made and summed in bfloat16', {'model.reduce_dtype': 'bfloat16'}),
  ('remat: keep the attention output', {'model.remat': 'attention'}),
  ('remat: keep q, k, v, attention, out', {'model.remat': 'qkvo'}),
  ('remat: none', {'model.remat': 'none'}),
  ('remat: layer inputs on the host', {'model.remat': 'offload'}),
  ('remat: inputs, q, k, v, out on the host', {'model.remat': 'offload_qkvo'}),
  ('weights stay gathered (the paper)', {'model.reshard': 'false'}),
  (
    'moments in bfloat16',
    {'optim.mu_dtype': 'bfloat16', 'optim.nu_dtype': 'bfloat16'},
  ),
  ('moments in int8', {'optim.mu_dtype': 'int8', 'optim.nu_dtype': 'int8'}),
  ('products in int8', {'model.quant': 'int8'}),
  ('products in float8', {'model.quant': 'fp8'}),
  ('embedding by a product', {'model.embedding': 'onehot'}),
  ('loss: all logits at once', {'train.loss_chunk': '0'}),
  ('two sequences a chip', {'train.batch': '128'}),
  ('tensor 4, sequence-sharded stream', {'mesh.tensor': '4', 'train.batch': '16'}),
)


def measure(target, changes):
  """results.json of a plan, or the line that says why there is none."""
  with tempfile.TemporaryDirectory() as folder:
    command = [sys.executable, '-m', 'experiment', f'--config=configs/plan.py:{target}']
    command += [f'--config.{k}={v}' for k, v in changes.items()]
    command.append(f'--workdir={folder}')
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    path = pathlib.Path(folder, 'results.json')
    if path.exists():
      return json.loads(path.read_text())
    return done.stderr.strip().splitlines()[-1]


def main():
  target = sys.argv[1] if len(sys.argv) > 1 else '8b,v5p:4x4x4'
  print(f'{target}, one change a row\n')
  print('| lever | GiB a chip | host GiB | TFLOP a chip | step, s | tokens/s/chip |')
  print('|---|---|---|---|---|---|')
  for name, changes in LEVERS:
    found = measure(target, changes)
    if isinstance(found, str):
      print(f'| {name} | {found} | | | | |', flush=True)
      continue
    print(f'| {name} | {row(found)} |', flush=True)


def row(found):
  """The cells of one plan; GiB, TFLOP, seconds, tokens."""
  memory, time = found['memory'], found['time']
  cells = [
    f'{memory["used"] / 2**30:.2f}',
    f'{memory["host"] / 2**30:.2f}',
    f'{time["flops"] / 1e12:.0f}',
    f'{time["step_s"]:.3f}',
    f'{time["tokens_per_s_chip"]:.0f}',
  ]
  return ' | '.join(cells)


if __name__ == '__main__':
  main()
