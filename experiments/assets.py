"""Real data of a folder as this code's files: preferences, SFT, documents (3.1, 4.2).

  python -m experiment --config=configs/assets.py --workdir=runs/assets \\
    --config.folder=DIR

Writes preferences.jsonl, preferences_heldout.jsonl, sft.jsonl, math.jsonl, code.jsonl
and results.json with the number of rows of each. Expected of the whole data sets: 200
and 95 preference examples, 935 documents of maths and 374 of code.
"""

import json
import os
import random

from llama3_jax import config as configs
from llama3_jax import workdir as workdirs
from llama3_jax.base.errors import UserError
from llama3_jax.data import assets


def main(config, workdir):
  """Write the files; returns {name: rows}."""
  folder = workdirs.claim(config, workdir)
  if (done := workdirs.finished(folder, _files)) is not None:
    return done
  if not config.folder:
    raise UserError('folder is empty: name the data with --config.folder=DIR')
  ranked = assets.preferences(config.folder, config.context)
  random.Random(config.seed).shuffle(ranked)
  if not 0 <= config.heldout < len(ranked):
    raise UserError(f'heldout={config.heldout}: there are {len(ranked)} preferences')
  files = {
    'preferences': ranked[config.heldout :],
    'preferences_heldout': ranked[: config.heldout],
    'sft': assets.maths_dialogs(config.folder, config.dialogs),
    'math': assets.maths_documents(config.folder, config.page),
    'code': assets.code_documents(config.folder),
  }
  results = {name: _write(folder / f'{name}.jsonl', r) for name, r in files.items()}
  configs.write_json(folder / 'results.json', results)
  return results


def _files(results):
  return [f'{name}.jsonl' for name in results]


def _write(path, rows):
  lines = [json.dumps(row, ensure_ascii=False) + '\n' for row in rows]
  temporary = path.with_name(path.name + '.tmp')
  temporary.write_text(''.join(lines), encoding='utf-8')
  os.replace(temporary, path)
  return len(lines)
