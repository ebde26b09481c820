"""How often does a model continue its training data word for word?

  python -m experiment --config=memorisation --init_from=MODEL \\
    --documents=runs/curate/documents --workdir=runs/memorisation

Counts all n-grams of the documents, draws some of each frequency and language, and lets
the model continue what stands before them (5.4.2). Expected: a fraction of a percent of
50-grams; near 0 of documents that the model was not trained on. Writes drawn.jsonl (of
every prompt what is true and what was written), report.html, results.json.
"""

import numpy as np
from absl import logging

from llama3_jax import workdir as workdirs
from llama3_jax.base import jsonl
from llama3_jax.base import log
from llama3_jax.base.errors import UserError
from llama3_jax.data import texts
from llama3_jax.data import tokenise
from llama3_jax.eval import memorisation
from llama3_jax.eval import memorisation_page
from llama3_jax.generate import engine
from llama3_jax.generate.settings import Settings
from llama3_jax.train import belongs
from llama3_jax.train import models


@workdirs.stage('drawn.jsonl', report=memorisation_page.write)
def main(config, folder):
  """Measure; returns {'rates': of memorisation.rates, 'gram', 'before', 'documents',
  'tokens', 'stride', 'examples'}."""
  if not config.documents:
    raise UserError('documents is empty: name the folder of the training data')
  tokenizer = belongs.tokenizer(config.tokenizer, config.init_from)
  params, model = models.load(config.init_from)
  with log.work(f'counting {config.gram}-grams of {config.documents}'):
    read = _documents(config.documents, tokenizer)
    counted = memorisation.index(read, config.gram, config.room)
  languages = memorisation.told_apart(counted, config.most_languages)
  how = config.before, config.drawn, languages, config.seed
  with log.work('drawing prompts'):
    read = _documents(config.documents, tokenizer)
    drawn, sizes = memorisation.draw(read, counted, *how)
  written = _written(params, model, tokenizer, drawn, config)
  included = [memorisation.includes(w, one.truth) for w, one in zip(written, drawn)]
  rows = [_row(*each, tokenizer) for each in zip(drawn, written, included)]
  jsonl.write(folder / 'drawn.jsonl', rows)
  results = {
    'rates': memorisation.rates(drawn, included, sizes),
    'gram': config.gram,
    'before': config.before,
    'documents': counted.documents,
    'tokens': counted.tokens,
    'stride': counted.stride,
    'examples': [r for r in rows if r['included']][: memorisation_page.SHOWN],
  }
  logging.info('%s', memorisation_page.sentence(results))
  return results


def _documents(folder, tokenizer):
  """Yields the Document of each text."""
  for row, ids in tokenise.encoded(_rows(folder), tokenizer):
    language = row.get('lang')
    language = language if isinstance(language, str) else ''
    yield memorisation.Document(row['name'], language, np.array(ids, np.uint32))


def _rows(folder):
  for paths in texts.categories(folder, 'documents').values():
    for path in paths:
      for number, row in enumerate(texts.read(path, 'documents'), 1):
        yield {**row, 'name': f'{path.name}:{number}'}


def _written(params, model, tokenizer, drawn, config):
  """Ids that the model writes after each prompt, the likeliest one by one."""
  opening = () if tokenizer.bos is None else (tokenizer.bos,)
  prompts = list({one.prompt: None for one in drawn})  # equal ones are asked once
  most = config.gram + config.spare
  own = Settings(temperature=0.0, max_new=most, vocab_size=tokenizer.vocab_size)
  with log.work(f'continuing {len(prompts):,} prompts'):
    groups = engine.generate(
      params,
      [[*opening, *ids] for ids in prompts],
      model,
      tokenizer.stop_ids,
      own,
      batch_size=config.batch,
    )
  answers = {ids: group[0].ids for ids, group in zip(prompts, groups)}
  return [answers[one.prompt] for one in drawn]


def _row(one, written, included, tokenizer):
  """A line of drawn.jsonl."""
  return {
    'document': one.document,
    'start': one.start,
    'language': one.language,
    'count': one.count,
    'included': included,
    'prompt': tokenizer.decode(one.prompt),
    'truth': tokenizer.decode(one.truth),
    'written': tokenizer.decode(written),
  }
