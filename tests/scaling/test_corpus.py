"""The corpus that is made here: its sources, and words in random order."""

import pytest

from configs import scaling as recipe
from experiments import scaling
from llama3_jax.base import files
from llama3_jax.scaling import mixes
from llama3_jax.tasks import corpus


def test_shuffled_text_has_the_same_words_and_blanks_in_another_order():
  text = '\n'.join(f'  def name_{i}(x):\n    return x + {i}' for i in range(50))
  document = {'text': text, 'source': 'code', 'lang': 'en'}
  (row,) = corpus.shuffled([document], 0)
  assert row['text'] != text and sorted(row['text'].split()) == sorted(text.split())
  blanks = lambda t: [part for part in t.splitlines() if not part.strip()]
  assert len(row['text']) == len(text) and blanks(row['text']) == blanks(text)
  assert row['text'].count('\n') == text.count('\n')
  assert row['source'] == 'shuffled' and row['lang'] == 'en'
  moved = sum(a != b for a, b in zip(row['text'].split(), text.split()))
  assert moved > 0.8 * len(text.split())
  assert corpus.shuffled([document], 0) == [row]
  assert corpus.shuffled([document], 1) != [row]


def test_shuffled_source_is_made_where_it_is_named(tmp_path, monkeypatch):
  documents = [{'text': f'word {i} of a line', 'source': 'code'} for i in range(300)]
  monkeypatch.setattr(corpus.sample_text, 'standard_library', lambda n: documents)
  monkeypatch.setattr(corpus, 'PAGES', 20)
  monkeypatch.setattr(corpus, 'DRILLS', 20)
  corpus.make(tmp_path, ['code'], 300, 0)
  tokenizer = (tmp_path / corpus.TOKENIZER).read_bytes()
  assert not (tmp_path / 'shuffled').exists()
  corpus.make(tmp_path, ['code', 'shuffled'], 300, 0)
  assert (tmp_path / 'shuffled' / 'index.json').exists()
  assert (tmp_path / corpus.TOKENIZER).read_bytes() == tokenizer
  times = (tmp_path / 'done.json').stat().st_mtime_ns
  corpus.make(tmp_path, ['code', 'shuffled'], 300, 0)
  assert (tmp_path / 'done.json').stat().st_mtime_ns == times


def test_known_cases_train_what_they_name(tmp_path, monkeypatch):
  """Real runs of a few steps: what configs/scaling.py gives is enough to train."""
  lines = [
    {'text': ' '.join(f'word {i + j} of a line' for j in range(40)), 'source': 'code'}
    for i in range(300)
  ]
  monkeypatch.setattr(corpus.sample_text, 'standard_library', lambda n: lines)
  monkeypatch.setattr(corpus, 'PAGES', 20)
  monkeypatch.setattr(corpus, 'DRILLS', 20)
  c = recipe.get_config('valuation_known')
  c.scaling.update(dict(vocabulary=300, steps=4, anneal_tokens=2048, seeds=1))
  c.scaling.update(dict(samples=20, questions=0))
  c.data.eval_batches, c.model.vocab_size = 1, 556
  scaling.main(c, str(tmp_path / 'value'))
  table = (tmp_path / 'value' / 'deltas.csv').read_text().splitlines()
  assert table[0].split(',')[-2:] == ['helps', 'verdict'] and len(table) == 2
  mix = {
    arm: files.read_json(tmp_path / 'value' / arm / 'config.json')['config']
    for arm in ('base', 'control_0', 'treatment_0')
  }
  shares = {a: (m['data.mix.code'], m['data.mix.drill']) for a, m in mix.items()}
  assert shares['base'] == shares['control_0'] == (0.5, 0.5)
  assert shares['treatment_0'] == pytest.approx((0.9, 0.1))


def test_known_mixes_differ_in_random_words_alone():
  c = recipe.get_config('mixes_known')
  (clean, one), (half, two) = mixes.check(c.scaling.candidates)
  assert (one, two) == ({'code': 1.0}, {'code': 0.5, 'drill': 0.5})
  assert (clean, half) == ('clean', 'half_drill')
  assert set(one) | set(two) <= set(c.data.mix.keys()) and c.scaling.judged == ('code',)
  assert 'shuffled' not in recipe.get_config('mixes').data.mix
