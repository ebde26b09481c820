"""The inspector shows exactly what a training step would see."""

import json

import numpy as np
import pytest

from configs import inspect as configs_inspect
from experiments import inspect
from llama3_jax import config as configs
from llama3_jax.base.errors import UserError
from llama3_jax.data import tokenise
from llama3_jax.data.config import DataConfig
from llama3_jax.text import tokenizer as tokenizers
from llama3_jax.train import sources


@pytest.fixture(scope='module')
def made(tmp_path_factory, toy):
  folder = tmp_path_factory.mktemp('inspect')
  tokenizer = tokenizers.Tokenizer.load(toy / 'bytes.model')
  for name in ('general', 'math'):
    texts = ({'text': f'{name} {i}: ' + 'some words ' * (i % 9 + 1)} for i in range(80))
    tokenise.write(texts, tokenizer, folder / 'shards' / name)
  c = configs_inspect.get_config('tiny')
  c.tokenizer = str(toy / 'bytes.model')
  c.data.root = str(folder / 'shards')
  del c.data.mix
  c.data.mix = {'general': 0.7, 'math': 0.3}
  c.data.changes = ()
  c.train.update(dict(batch=4, length=64))
  return c, tokenizer


def test_rows_are_those_of_the_step(made, tmp_path, capsys):
  c, tokenizer = made
  c.step = 3
  results = inspect.main(c, tmp_path / 'run')
  mixed = configs.fill(DataConfig(), c.data, 'data')
  data = sources.rows(mixed, sources.of_split(mixed, 'train'), c.seed)
  for _ in range(3):
    batch = data.batch(4, 64)
  lines = (tmp_path / 'run/rows.jsonl').read_text('utf-8').split('\n')[:-1]
  rows = [json.loads(line) for line in lines]
  assert len(rows) == 4 and results['tokens'] == data.tokens == 3 * 4 * 64
  for i, row in enumerate(rows):
    counts = [s['tokens'] for s in row['segments']]
    assert sum(counts) == 64
    segment = np.repeat([s['segment'] for s in row['segments']], counts)
    np.testing.assert_array_equal(segment, batch.segment[i])
    text = ''.join(s['text'] for s in row['segments'])
    assert text == tokenizer.decode(batch.tokens[i].tolist())
  shown = capsys.readouterr().out
  assert 'step 3: 4 rows of 64 tokens' in shown and 'segment 2 |' in shown


def test_step_zero_is_refused(made, tmp_path):
  c, _ = made
  c = c.copy_and_resolve_references()
  c.step = 0
  with pytest.raises(UserError, match='step=0'):
    inspect.main(c, tmp_path / 'run')
