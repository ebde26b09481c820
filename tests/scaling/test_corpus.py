"""The corpus that is made here: its sources, and words in random order."""

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
