"""A model of your own text: files to documents, tokenizer, shards, training (3.1, 3.4).

  python -m experiment --config=own --text=FOLDER --workdir=runs/own

FOLDER may also be a file or a pattern: text, Markdown, HTML, JSONL, Parquet, CSV, PDF.
--curate applies the rules of web curation first; --init_from=MODEL continues with
somebody's model and its tokenizer. Expected at `tiny`, on two cores: a model of 1.3M
parameters in under 5 minutes. Writes text/, tokenizer/, shards/, the files of a
training run, and report.html with the loss and what the model writes on the way.
"""

import glob

from ml_collections import ConfigDict

from experiments import curate
from experiments import shards
from experiments import tokenizer
from llama3_jax import config as configs
from llama3_jax import workdir as workdirs
from llama3_jax.base.errors import UserError
from llama3_jax.data import gather
from llama3_jax.eval import own_report
from llama3_jax.generate import samples
from llama3_jax.generate.settings import Settings
from llama3_jax.reliable import guard
from llama3_jax.train import belongs
from llama3_jax.train import loop
from llama3_jax.train import models
from llama3_jax.train import optim
from llama3_jax.train import pretraining
from llama3_jax.train import schedule
from llama3_jax.train import step

ALONE = True  # one process reads the files
CHARACTERS_A_RANK = 50  # of text, at least, for each token that the tokenizer learns


@workdirs.stage('final', report=own_report.write)
def main(config, folder):
  """Read and train; returns {'text', 'curation', 'epochs', 'eval_loss', ...}."""
  found, config = _prepare(config, folder)
  parts, t = pretraining.prepare(config), config.train
  train_step = step.compose(
    parts.minimised, optim.of(config), t.microbatches, guard.create(t), parts.part
  )
  look = _look(config, parts)
  state = loop.run(
    config, folder, parts.model, train_step, parts.rows, parts.start, look
  )
  trained = pretraining.finish(config, folder, parts, train_step.whole(state))
  # A document gives a pair of a token and the next one less than it has tokens.
  pairs = sum(int(s.lengths.sum()) - len(s) for s in parts.sources.values())
  return {**found, 'epochs': trained['tokens'] / pairs, **trained}


def _prepare(config, folder):
  """Runs the steps before training; returns (their results, the config with them)."""
  if not config.heldout < 1:
    raise UserError(f'heldout={config.heldout}: it is a share, below 1')
  if not config.text:
    raise UserError('text is empty: give --text=FOLDER, a file or a pattern')
  begun = config.init_from and models.tokenizer(config.init_from)
  if config.init_from and not begun:
    raise UserError(
      f'init_from={config.init_from} carries no tokenizer: put its tokenizer.json or '
      'tokenizer.model beside it'
    )
  found = {'text': gather.write(config.text, folder / 'text', config.column)}
  documents = folder / 'text'
  if config.curate:
    given = {'inputs': (f'{glob.escape(str(documents))}/general/*.jsonl.zst',)}
    curated = curate.main(configs.edit(config.curation, given), folder / 'curate')
    found['curation'] = {n: curated[n] for n in ('steps', 'categories')}
    if not curated['categories']:
      raise UserError(
        f'curate: no document is left; {folder}/curate/report.html says why'
      )
    documents = folder / 'curate' / 'documents'
  if not begun:
    ranks = 256 + found['text']['characters'] // CHARACTERS_A_RANK
    given = {'inputs': (str(documents),), 'vocab_size': min(config.vocab_size, ranks)}
    tokenizer.main(configs.edit(config.tokenizer, given), folder / 'tokenizer')
    begun = folder / 'tokenizer' / 'tokenizer.model'
  given = {'documents': str(documents), 'tokenizer': str(begun), 'seed': config.seed}
  given['heldout'] = config.heldout or _share(found['text']['documents'])
  written = shards.main(configs.edit(config.shards, given), folder / 'shards')
  found['text_tokens'] = sum(source['tokens'] for source in written.values())
  return found, _completed(config, folder, written)


def _completed(config, folder, written):
  """The config with the data, the model's sizes and the end of the schedule."""
  mix = {name: float(source['tokens']) for name, source in written.items()}
  o, steps = config.optim, config.train.steps
  given = {'data.root': str(folder / 'shards'), 'data.mix': ConfigDict(mix)}
  given |= schedule.filled(o.warmup, o.decay, steps)
  if config.init_from:
    given['model'] = configs.model_fields(models.config(config.init_from))
  return configs.edit(config, given)


def _share(documents):
  """Share of documents that are held out: about 8 of them, 1% at least."""
  return min(max(8 / documents, 0.01), 0.3) if documents > 3 else 0.0


def _look(config, parts):
  """The evaluation during training, with texts that the model writes."""
  if parts.during is not parts.evaluate:  # the layers are in the order of a pipeline
    return parts.during
  vocabulary = belongs.of_shards(parts.sources)
  own = Settings(vocab_size=vocabulary.vocab_size)
  settings = configs.fill(own, config.sample, 'sample')
  prompts = config.prompts or samples.beginnings(parts.held.values(), vocabulary)
  return samples.beside(parts.evaluate, prompts, parts.model, vocabulary, settings)
