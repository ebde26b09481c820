"""Token shards: curated documents, task pages and needles, tokenised (section 3.1)."""

import ml_collections


def get_config(arg='tiny'):
  del arg
  c = ml_collections.ConfigDict()
  c.experiment = 'shards'
  c.seed = 0
  c.documents = 'runs/herd/curate/documents'  # what curation leaves
  c.tokenizer = 'runs/herd/tokenizer/tokenizer.model'
  c.engine = 'local'  # processes here; 'ray': Daft on Ray
  c.workers = 0  # processes; 0: one a core
  c.heldout = 0.03  # share of documents kept for evaluation
  c.part_bytes = 1 << 28  # of files that one task reads, and a stopped run begins again
  c.task_pages = 5000  # pages of verifiable exercises, category math
  c.task_names = ('copy', 'sort', 'arithmetic', 'needle', 'format')  # which tasks
  c.drills = 12_000  # lines of repeated words
  c.needle = ml_collections.ConfigDict(
    dict(
      short_pages=3000,  # haystacks that fit the initial length
      short=(40, 230),  # tokens, from and to
      long_pages=1200,  # haystacks that need the extended length
      long=(260, 1250),
      facts=(2, 6),  # a short page, from and to
      long_facts=(4, 10),
    )
  )
  return c
