"""A folder of text becomes a model that remembers it, in one command."""

import glob
import pathlib
import random
import shutil

import numpy as np
import pytest

from configs import own as own_config
from experiments import own
from llama3_jax import config as configs
from llama3_jax import workdir as workdirs
from llama3_jax.base import files
from llama3_jax.base.errors import UserError
from llama3_jax.train import metrics
from llama3_jax.train import models

DOCS = pathlib.Path(__file__).parents[2] / 'docs'
WORDS = ('river', 'stone', 'cloud', 'green', 'walks', 'over', 'the', 'quiet', 'bridge')


def folder_of_text(folder):
  draw = random.Random(0)
  folder.mkdir()
  for n in range(12):
    lines = [' '.join(draw.choices(WORDS, k=12)) + '.' for _ in range(40)]
    (folder / f'{n}.txt').write_text('\n\n'.join(lines))
  (folder / 'photo.png').write_bytes(b'png')
  return folder


def config_of(text, **more):
  small = {
    'text': (str(text),),
    'vocab_size': 290,
    'model.n_layers': 1,
    'model.d_model': 32,
    'model.d_ff': 64,
    'train.steps': 12,
    'train.batch': 4,
    'train.length': 32,
    'train.eval_every': 6,
    'optim.warmup': 1,
    'sample.max_new': 4,
    'shards.workers': 1,
  }
  return configs.edit(own_config.get_config('tiny'), small | more)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  root = tmp_path_factory.mktemp('own')
  results = own.main(config_of(folder_of_text(root / 'in')), root / 'run')
  return root, results


def test_text_becomes_a_model_with_its_tokenizer(made):
  root, results = made
  assert results['text']['left_out'] == [['*.png', '1 of another kind']]
  assert results['text']['kinds']['.txt']['files'] == 12
  assert models.config(root / 'run').vocab_size == 290 + 256
  assert models.tokenizer(root / 'run') is not None
  losses = [r['eval_loss'] for r in metrics.read(root / 'run') if 'eval_loss' in r]
  assert losses[-1] < losses[0] - 0.5
  index = files.read_json(root / 'run/shards/general/index.json')['splits']
  assert index['heldout']['documents'] > 0
  pairs = index['train']['tokens'] - index['train']['documents']
  assert results['epochs'] == pytest.approx(12 * 4 * 32 / pairs)


def test_what_the_model_writes_is_kept_at_each_evaluation(made):
  root, _ = made
  rows = [r for r in metrics.read(root / 'run') if 'samples' in r]
  assert [r['step'] for r in rows] == [0, 6, 12]
  prompts = [[prompt for prompt, _ in r['samples']] for r in rows]
  assert prompts[0] == prompts[1] == prompts[2] and len(prompts[0]) == 3
  words = ' '.join(prompts[0]).replace('.', ' ').split()
  assert set(words) <= set(WORDS)  # they begin held-out documents


def test_other_text_in_the_folder_is_refused_in_the_same_workdir(made):
  root, _ = made
  (root / 'in' / 'new.txt').write_text('new text')
  with pytest.raises(UserError, match='text has other content'):
    own.main(config_of(root / 'in'), root / 'run')
  (root / 'in' / 'new.txt').unlink()
  own.main(config_of(root / 'in'), root / 'run')


def test_a_model_is_continued_with_its_own_tokenizer(made, tmp_path):
  root, _ = made
  config = config_of(root / 'in', init_from=str(root / 'run'))
  config.train.steps = 2
  results = own.main(config, tmp_path / 'more')
  assert models.config(tmp_path / 'more') == models.config(root / 'run')
  same = [models.identity(f)['vocabulary'] for f in (root / 'run', tmp_path / 'more')]
  assert same[0] == same[1] and np.isfinite(results['eval_loss']['eval_loss'])


def test_curation_comes_first_where_it_is_asked_for(tmp_path):
  shutil.copytree(DOCS, tmp_path / 'in', ignore=lambda *_: ['images'])
  (tmp_path / 'in/spam.txt').write_text('\n'.join(['buy now'] * 300))
  config = config_of(tmp_path / 'in', curate=True, heldout=0.3, **{'train.steps': 2})
  config.curation.curate.workers = 1
  results = own.main(config, tmp_path / 'run')
  kept = sum(c['documents'] for c in results['curation']['categories'].values())
  assert 0 < kept < results['text']['documents']


def test_no_text_is_one_line(tmp_path):
  with pytest.raises(UserError, match='give --text=FOLDER'):
    own.main(own_config.get_config(), tmp_path / 'run')


def test_text_that_teaches_few_tokens_has_a_small_vocabulary(tmp_path):
  text = tmp_path / 'in.txt'
  text.write_text('over and over the same words. ' * 2_000)
  config = config_of(text, vocab_size=1792, **{'train.steps': 1})
  own.main(config, tmp_path / 'run')
  assert 512 < models.config(tmp_path / 'run').vocab_size < 600


def test_a_share_that_cannot_be_leaves_the_workdir_free(tmp_path):
  text = folder_of_text(tmp_path / 'in')
  with pytest.raises(UserError, match='heldout=1.0'):
    own.main(config_of(text, heldout=1.0), tmp_path / 'run')
  workdirs.claim(config_of(text, heldout=0.1), tmp_path / 'run')


def test_curation_reads_the_text_in_a_workdir_of_any_name(tmp_path, monkeypatch):
  given = []

  def curated(config, folder):
    given.extend(config.inputs)
    return {'steps': [], 'categories': {}}

  monkeypatch.setattr(own.curate, 'main', curated)
  config = config_of(folder_of_text(tmp_path / 'in'), curate=True)
  with pytest.raises(UserError, match='no document is left'):
    own.main(config, tmp_path / 'run[1]')
  [pattern] = given
  assert glob.glob(pattern)
