"""A corpus that needs no network: text of this disk and of the tasks, tokenised.

Sources: code (the standard library), math (exercises), drill (lines of repeated words)
and, where it is asked for, shuffled: the documents of code with their words in random
order, which are as frequent as before and say nothing. So a mix with less of it is
known to be better.
"""

import os
import pathlib
import random
import re
from collections.abc import Iterable
from collections.abc import Mapping

from llama3_jax.base import files
from llama3_jax.base import processes
from llama3_jax.data import sample_text
from llama3_jax.data import tokenise
from llama3_jax.tasks import suite
from llama3_jax.text import store
from llama3_jax.text import tokenizer as tokenizers

PAGES = 6000  # of exercises, source math
DRILLS = 12_000  # lines of repeated words, source drill
TOKENIZER = 'tokenizer.model'
SHUFFLED = 'shuffled'


def make(
  folder: str | os.PathLike, sources: Iterable[str], vocabulary: int, seed: int
) -> None:
  """Token shards of every source and tokenizer.model of `vocabulary` base ranks.

  sources: SHUFFLED among them has that source made too; the others always are. The
  tokenizer does not depend on it. A folder that has them is left as it is.
  """
  folder = pathlib.Path(folder)
  done = folder / 'done.json'
  made = files.read_json(done) if done.exists() else {}
  if made and (SHUFFLED in made or SHUFFLED not in sources):
    return
  documents = {'code': sample_text.standard_library(1 << 30)}
  documents['math'] = list(suite.documents(PAGES, seed))
  documents['drill'] = list(suite.drills(DRILLS, seed))
  folder.mkdir(parents=True, exist_ok=True)
  # A tenth of the text: pairs that are frequent enough to matter are all in it.
  text = [d['text'] for name in documents for d in documents[name][::10]]
  tokenizers.train(text, vocabulary, folder / TOKENIZER)
  tokenizer = store.load(folder / TOKENIZER)
  if SHUFFLED in sources:
    documents[SHUFFLED] = shuffled(documents['code'], seed)
  for name in documents:
    index = tokenise.write(
      documents[name], tokenizer, folder / name, heldout=0.03, seed=seed
    )
    made[name] = {k: index[k] for k in ('documents', 'tokens')}
  processes.write_json(done, made)


def shuffled(documents: Iterable[Mapping], seed: int) -> list[dict]:
  """`documents` with the words of each in random order, between the blanks it has."""
  rng, rows = random.Random(f'{seed}/shuffled'), []
  for document in documents:
    pieces = re.split(r'(\s+)', document['text'])  # words and blanks in turn
    words = pieces[::2]
    rng.shuffle(words)
    pieces[::2] = words
    rows.append({**document, 'text': ''.join(pieces), 'source': SHUFFLED})
  return rows
