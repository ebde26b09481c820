"""Real data of a folder as this code's files: preferences, SFT, documents (3.1, 4.2).

  python -m experiment --config=configs/assets.py --workdir=runs/assets \\
    --config.folder=DIR

Writes preferences_SET.jsonl and heldout_SET.jsonl of every set of preferences by
people (data/people.py), sft.jsonl, math.jsonl and code.jsonl where they are wanted, and
results.json with the number of rows of each. Expected of the whole data sets: 200 and
95 preferences of qa_feedback, 935 documents of maths and 374 of code.
"""

import random

from llama3_jax import workdir as workdirs
from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.data import assets
from llama3_jax.data import people


def _files(config, results):
  return [f'{name}.jsonl' for name in results]


@workdirs.stage(made=_files)
def main(config, folder):
  """Write the files; returns {name: rows}."""
  if not config.folder:
    raise UserError('folder is empty: name the data with --config.folder=DIR')
  files = {}
  for name in config.sets:
    ranked = people.preferences(config.folder, name, config.context, config.longest)
    random.Random(config.seed).shuffle(ranked)
    if not 0 <= config.heldout < len(ranked):
      raise UserError(
        f'heldout={config.heldout}: there are {len(ranked)} preferences of {name}'
      )
    last = config.heldout + config.most if config.most else None
    files[f'preferences_{name}'] = ranked[config.heldout : last]
    files[f'heldout_{name}'] = ranked[: config.heldout]
  if config.dialogs:
    files['sft'] = assets.maths_dialogs(config.folder, config.dialogs)
  if config.page:
    files['math'] = assets.maths_documents(config.folder, config.page)
    files['code'] = assets.code_documents(config.folder)
  return {n: jsonl.write(folder / f'{n}.jsonl', rows) for n, rows in files.items()}
