"""Contamination: planted copies are found, their gain is estimated, none made up."""

import json

import numpy as np
import pytest

from configs import contamination as contamination_config
from experiments import contamination as experiment
from llama3_jax import config as configs
from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.eval import contamination


def sentence(rng, n=20):
  return ' '.join(f'w{i}' for i in rng.integers(0, 5000, n))


def test_a_share_is_that_of_the_words_in_common_runs_of_eight():
  words = [f'a{i}' for i in range(20)]
  question = ' '.join(words)
  documents = ['x y ' + ' '.join(words[:10]) + ' z', ' '.join(words[12:19])]
  found = contamination.shares([question, 'too short to tell', ''], documents)
  assert found.tolist() == [0.5, 0, 0]  # ten words in runs of eight, seven are none
  assert contamination.shares([question], [question.upper() + '.'])[0] == 1
  assert contamination.shares([question], []).tolist() == [0]
  assert len(contamination.shares([], documents)) == 0


def test_runs_do_not_cross_documents_and_batches_change_nothing(monkeypatch):
  rng = np.random.default_rng(0)
  questions = [sentence(rng) for _ in range(50)]
  documents = [f'{sentence(rng)} {q} {sentence(rng)}' for q in questions[:20]]
  documents += [q[: len(q) // 2] for q in questions[20:30]]
  whole = contamination.shares(questions, documents)
  assert (whole[:20] == 1).all() and (whole[30:] == 0).all()
  monkeypatch.setattr(contamination, 'BATCH', 3)
  assert contamination.shares(questions, documents).tolist() == whole.tolist()
  halves = contamination.shares(['a b c d e f g h'], ['a b c d', 'e f g h'])
  assert halves.tolist() == [0]


def planted(seed, n=400, effect=0.3, share=0.4):
  rng = np.random.default_rng(seed)
  dirty = rng.random(n) < share
  shared = np.where(dirty, rng.uniform(0.6, 1, n), rng.uniform(0, 0.3, n))
  scores = {
    m: (rng.random(n) < 0.4 + effect * dirty).astype(float) for m in ('small', 'large')
  }
  return shared, scores


def test_a_planted_gain_is_found_at_a_threshold_between_the_two_kinds():
  shared, scores = planted(0)
  found = contamination.sweep(shared, scores)
  row = found['chosen']
  assert row['threshold'] <= 0.65 and 0.35 < row['contaminated'] < 0.75
  for gain in row['gains'].values():  # 0.3 of the 40% that are dirty
    assert 0.06 < gain['gain'] < 0.2 and gain['z'] > 1.5
  exact = next(r for r in found['thresholds'] if r['threshold'] == 0.4)
  assert abs(exact['contaminated'] - 0.4) < 0.05


def test_of_clean_questions_no_gain_is_told_more_than_rarely():
  told = [
    contamination.sweep(*planted(seed, effect=0))['chosen'] is not None
    for seed in range(100)
  ]
  assert np.mean(told) <= 0.15


def evaluated(root, name, rows):
  (root / name).mkdir()
  jsonl.write(root / name / 'answers.jsonl', rows)
  return str(root / name)


def test_the_experiment_joins_models_by_question(tmp_path):
  rng = np.random.default_rng(1)
  questions = [sentence(rng) for _ in range(60)]
  row = lambda q, s: {'task': 'rows=x', 'question': q, 'answer': 'yes', 'score': s}
  good = [row(q, float(i < 20 or i % 2)) for i, q in enumerate(questions)]
  bad = [row(q, float(i < 20)) for i, q in enumerate(questions)]
  names = evaluated(tmp_path, 'a', good), evaluated(tmp_path, 'b', bad)
  (tmp_path / 'documents').mkdir()
  lines = [json.dumps({'text': f'before {q} after'}) for q in questions[:20]]
  (tmp_path / 'documents/general.jsonl').write_text('\n'.join(lines))
  given = {'evaluations': names, 'documents': str(tmp_path / 'documents')}
  config = configs.edit(contamination_config.get_config(), given)
  found = experiment.main(config, str(tmp_path / 'run'))
  row = found['tasks']['rows=x']['chosen']
  assert found['documents'] == 20 and abs(row['contaminated'] - 1 / 3) < 1e-9
  assert all(g['gain'] > 0.1 for g in row['gains'].values())
  assert 'taken' in (tmp_path / 'run/report.html').read_text('utf-8')
  fewer = evaluated(tmp_path, 'c', bad[1:])
  config = configs.edit(config, {'evaluations': (names[0], fewer)})
  with pytest.raises(UserError, match='other questions or right answers'):
    experiment.main(config, str(tmp_path / 'other'))
