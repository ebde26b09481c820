"""Quality control of dialogs for finetuning: clean, judge, prune, de-duplicate (4.2.3).

  python -m experiment --config=quality --workdir=runs/quality \\
    --init_from=runs/herd/average_2 --files=runs/herd/reject_2/sft.jsonl

Cleans answers by rules, asks the model for quality, difficulty and topic, and keeps
dialogs whose reward is in the top share or which the judge finds best, and of those
that mean the same the best. Writes sft.jsonl, dropped.jsonl (each row with its reason),
labels.jsonl (what is known of every row), report.html and results.json.
"""

from absl import logging

from llama3_jax import config as configs
from llama3_jax import workdir as workdirs
from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.post import sft
from llama3_jax.post.quality import prune
from llama3_jax.post.quality import report
from llama3_jax.post.quality import signals
from llama3_jax.report import page as pages
from llama3_jax.text import chat
from llama3_jax.train import belongs


@workdirs.stage('sft.jsonl', 'dropped.jsonl', 'labels.jsonl', 'report.html')
def main(config, folder):
  """Prune; returns {'dialogs', 'texts' (no dialogs), 'kept', 'dropped', 'cleaned'}."""
  signals.check(config)
  limits = configs.fill(prune.Limits(), config.limits, 'limits')
  tokenizer = belongs.tokenizer(
    config.data.tokenizer, config.init_from, 'data.tokenizer'
  )
  read = [d for path in config.files for d in sft.read(path, 'files')]
  dialogs = [d for d in read if d.messages]
  if texts := len(read) - len(dialogs):
    logging.warning('%d rows are texts and no dialogs: left out', texts)
  if not dialogs:
    raise UserError('files: no dialogs; name files of rows with messages')
  before = [d.messages[-1].content for d in dialogs]
  fields = lambda d: [chat.fields(m) for m in d.messages]
  rows = [{'messages': fields(d), 'source': d.source} for d in dialogs]
  for row, dialog in zip(rows, dialogs):
    row |= {} if dialog.reward is None else {'reward': dialog.reward}
  rows, changed = prune.cleaned(rows, limits)
  known = signals.of(config, tokenizer, rows)
  found = prune.prune(known, limits, config.seed)
  reasons = found.reasons
  jsonl.write(folder / 'sft.jsonl', [r for r, why in zip(rows, reasons) if not why])
  dropped = [{**r, 'reason': why} for r, why in zip(rows, reasons) if why]
  jsonl.write(folder / 'dropped.jsonl', dropped)
  jsonl.write(folder / 'labels.jsonl', signals.labels(known, found))
  counts = {'cleaned': changed, 'before': before}
  page = report.page(rows, known, found, limits, counts)
  pages.write(folder / 'report.html', page)
  count = lambda why: sum(r == why for r in reasons)
  return {
    'dialogs': len(rows),
    'texts': texts,
    'kept': count(''),
    'dropped': {why: count(why) for why in ('quality', 'duplicate')},
    'cleaned': changed,
  }
