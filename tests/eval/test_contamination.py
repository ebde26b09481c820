"""Contamination: planted copies are found, their gain is estimated, none made up."""

import itertools
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


def simulated(seed, models, effect, n=300, share=0.3):
  """Shares of 30% of the questions, and models to which the same ones are hard."""
  rng = np.random.default_rng(seed)
  dirty = rng.random(n) < share
  shared, ease = np.where(dirty, rng.random(n), 0), rng.normal(size=n)
  scores = {}
  for m in range(models):
    right = 0.8 * ease + 0.6 * rng.normal(size=n) < -0.25
    known = dirty & (rng.random(n) < effect / 0.6)  # of those that would be wrong
    scores[f'm{m}'] = (right | known).astype(float)
  return shared, scores


def told(seeds, models, effect):
  """How often a gain is declared."""
  every = (simulated(seed, models, effect) for seed in seeds)
  return np.mean([contamination.sweep(*one)['chosen'] is not None for one in every])


@pytest.mark.parametrize('models', [1, 3])
def test_without_a_gain_the_best_of_all_thresholds_is_no_more_often_one(
  monkeypatch, models
):
  """At most 5% by construction: of 200, up to 17 are within chance (99%)."""
  monkeypatch.setattr(contamination, 'PERMUTATIONS', 200)
  assert told(range(200), models, 0) <= 17 / 200


@pytest.mark.parametrize('models', [1, 3])
def test_a_gain_of_ten_points_by_30_of_100_questions_is_found(monkeypatch, models):
  monkeypatch.setattr(contamination, 'PERMUTATIONS', 200)
  assert told(range(20), models, 1 / 3) == 1


def test_chance_is_that_of_shares_dealt_out_anew():
  """p of a single threshold is that of the exact test over all ways to deal."""
  shared = np.array([1.0] * 3 + [0.0] * 10)
  values = np.array([1, 1, 0] + [1, 0, 1] + [0] * 7, float)
  row = contamination.sweep(shared, {'m': values}, (0.5,))['thresholds'][0]
  ways = [values[list(c)].sum() for c in itertools.combinations(range(13), 3)]
  assert row['p'] == pytest.approx(np.mean(np.array(ways) >= 2), abs=0.03)


def test_few_clean_questions_have_no_gain():
  found = contamination.sweep(np.ones(50), {'m': np.arange(50) % 2})
  assert found['chosen'] is None
  assert {row['p'] for row in found['thresholds']} == {None}
  assert contamination.sweep(np.zeros(0), {'m': []})['chosen'] is None


def test_questions_of_scripts_without_spaces_are_found_in_other_texts():
  questions = [
    '花子さんはリンゴを12個持っています。太郎さんに3個あげると残りは何個ですか？'
  ]
  questions += ['ชาวนามีวัว 12 ตัวและแพะ 7 ตัวอยู่บนเนินเขา สัตว์ทั้งหมดมีขารวมกันกี่ขา']
  wide = str.maketrans('0123456789', '０１２３４５６７８９')
  documents = [f'This is the one: {q.translate(wide)} And so on.' for q in questions]
  assert contamination.shares(questions, documents).tolist() == [1, 1]
  assert contamination.shares(questions, documents[:1]).tolist() == [1, 0]
  assert contamination.shares(questions, ['12 3', 'ตัว' * 20]).tolist() == [0, 0]
  # The only run ends three characters, less than a word, before the end.
  mixed = 'say ' + ''.join(map(chr, range(0xE01, 0xE20)))
  assert contamination.shares([mixed], [f'x {mixed} y']).tolist() == [1]


def test_mgsm_in_english_is_the_beginning_of_gsm8k_and_not_its_training_split(assets):
  lines = (assets / 'mgsm/mgsm_en.tsv').read_text('utf-8').splitlines()
  mgsm = [line.split('\t')[0] for line in lines]
  read = lambda name: [row for _, row in jsonl.read(assets / 'gsm8k' / name, 'x')]
  test = [row['question'] for row in read('test_first300.jsonl')]
  found = contamination.shares(test, mgsm)
  assert (found[:250] == 1).all() and (found[250:] == 0).all()
  train = [f'{row["question"]}\n{row["answer"]}' for row in read('train.jsonl')]
  clean = contamination.shares(mgsm, train)
  assert (clean > 0).sum() == 16 and clean.max() < 0.4


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
