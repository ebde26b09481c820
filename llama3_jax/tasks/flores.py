"""FLORES: translation of sentences, by chrF and BLEU (arXiv 2207.04672; 4.3.2, 5.2).

--config.tasks="('flores=FOLDER,deu_Latn,eng_Latn',)": the folder holds a file a
language (deu_Latn.devtest or .dev), whose lines are translations of each other. The
score of an answer is its chrF, 0 to 1; the summary has chrF and BLEU of all of them
together. It needs the extra `translation` (sacrebleu).
"""

import json
import pathlib
import random
from collections.abc import Sequence

from llama3_jax.base.errors import UserError
from llama3_jax.tasks import reading
from llama3_jax.tasks import task

DRAWS = 1000  # of the bootstrap
ENDINGS = ('.devtest', '.dev')
# Where words have no space between them, characters are compared.
SPLIT = {'zho': 'zh', 'jpn': 'char', 'tha': 'char', 'kor': 'char', 'mya': 'char'}
NAMES = {
  **{'eng': 'English', 'deu': 'German', 'fra': 'French', 'ita': 'Italian'},
  **{'por': 'Portuguese', 'hin': 'Hindi', 'spa': 'Spanish', 'tha': 'Thai'},
  **{'zho': 'Chinese', 'jpn': 'Japanese', 'arb': 'Arabic', 'rus': 'Russian'},
  **{'kor': 'Korean', 'swh': 'Swahili', 'tur': 'Turkish', 'pol': 'Polish'},
  **{'nld': 'Dutch', 'vie': 'Vietnamese', 'ron': 'Romanian', 'cat': 'Catalan'},
}


def create(source: str = '') -> task.Task:
  """The Task of 'FOLDER,FROM,TO', such as 'data,deu_Latn,eng_Latn'."""
  parts = source.split(',')
  if len(parts) != 3 or not all(parts):
    raise UserError(f'tasks: flores={source}: write flores=FOLDER,FROM,TO')
  _metrics()  # before anything is asked
  folder, one, other = pathlib.Path(parts[0]), *parts[1:]

  def examples(split, n, seed):
    """The first tenth of the sentences are solved examples, the others are asked."""
    pairs = list(zip(_lines(folder, one), _lines(folder, other), strict=True))
    count = len(pairs) // 10
    kept = pairs[:count] if split == 'train' else pairs[count:]
    unique = dict(kept).items()
    made = [task.Example(a, b, checks=(one, other)) for a, b in unique]
    random.Random(f'{seed}/{split}').shuffle(made)
    return made[:n]

  if len(_lines(folder, one)) != len(_lines(folder, other)):
    raise UserError(f'tasks: flores={source}: the files differ in their lines')
  return task.Task(examples, score, prompt, page, max_new=256, shots=0, summary=summary)


def prompt(e: task.Example) -> str:
  """The user's message."""
  one, other = map(_name, e.checks)
  return f'Translate from {one} to {other}. Write the translation alone.\n\n{e.prompt}'


def page(e: task.Example) -> str:
  """The sentence under the name of its language, and the name of the other."""
  one, other = map(_name, e.checks)
  return f'{one}: {e.prompt}\n{other}:'


def score(e: task.Example, response: str) -> float:
  """chrF of the sentence, 0 to 1."""
  return _metrics().CHRF().sentence_score(response.strip(), [e.answer]).score / 100


def summary(
  examples: Sequence[task.Example], responses: Sequence[str]
) -> dict[str, float]:
  """{'chrF', 'BLEU'} of all sentences together, 0 to 1, and with 'ci' behind the name
  the half width of a 95% interval, by a bootstrap over sentences."""
  if not examples:
    return {'chrF': 0.0, 'BLEU': 0.0}
  said, due = [r.strip() for r in responses], [[e.answer for e in examples]]
  split = SPLIT.get(examples[0].checks[1].partition('_')[0], '13a')
  found, library = {}, _metrics()
  for metric in (_chrf(library), library.BLEU(tokenize=split)):
    total = metric.corpus_score(said, due, n_bootstrap=DRAWS)
    signature = metric.get_signature().format()
    told = json.loads(total.format(width=4, is_json=True, signature=signature))
    half = told.get('confidence_var', 0.0)  # not there where the score is 0
    name = 'BLEU' if total.name == 'BLEU' else 'chrF'
    found |= {name: total.score / 100, f'{name} ci': half / 100}
  return found


def _chrf(library):
  """chrF whose scores are floats: sacrebleu's own bootstrap fails where some draws of
  sentences have no n-gram in common (float) and others have (float32)."""

  class Chrf(library.CHRF):
    def _compute_score_from_stats(self, stats):
      made = super()._compute_score_from_stats(stats)
      made.score = float(made.score)
      return made

  return Chrf()


def _metrics():
  try:
    from sacrebleu import metrics
  except ImportError:
    raise reading.Absent(
      "tasks: flores needs sacrebleu: pip install 'llama3_jax[translation]'"
    ) from None
  return metrics


def _name(code):
  return NAMES.get(code.partition('_')[0], code)


def _lines(folder, code):
  places = [at / (code + e) for at in (folder, folder / code) for e in ENDINGS]
  for path in places:
    if path.is_file():
      lines = reading.lines(path)
      empty = next((i for i, line in enumerate(lines, 1) if not line.strip()), 0)
      if empty:
        raise UserError(f'{path}, line {empty}: is empty')
      return [line.strip() for line in lines]
  there = ', '.join(sorted(p.name for p in folder.glob('*.dev*'))) or 'none'
  raise reading.Absent(f'tasks: {places[0]} is not there: found {there}')
