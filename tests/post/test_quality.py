"""Quality control of dialogs on planted data (4.2.3)."""

import json

import numpy as np
import post_examples as toy
import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.post.quality import cleaning
from llama3_jax.post.quality import judging
from llama3_jax.post.quality import prune
from llama3_jax.post.quality import report
from llama3_jax.post.quality import semantic
from llama3_jax.post.quality.prune import Limits
from llama3_jax.post.quality.prune import Signals
from llama3_jax.text.chat import Message


@pytest.mark.parametrize(
  'rule, before, after',
  [
    ('emojis', 'Sure 😀👍🏽 thing ☀️', 'Sure thing'),
    ('emojis', '👨‍👩‍👧', '👨‍👩‍👧'),
    ('emojis', 'E = mc², 5 € → 3 ½ ✓', 'E = mc², 5 € → 3 ½'),
    ('emojis', 'naïve 日本語 здравствуй', 'naïve 日本語 здравствуй'),
    ('exclamations', 'Great!!! Yes! No! Look ! !', 'Great! Yes. No. Look .'),
    ('exclamations', 'a != b and 5! = 120', 'a != b and 5! = 120'),
    ('exclamations', 'Hi!', 'Hi!'),
  ],
)
def test_rules_change_what_they_are_for(rule, before, after):
  assert cleaning.RULES[rule](before) == after


@pytest.mark.parametrize(
  'before, after',
  [
    ("I'm sorry for the confusion. it is 4.", 'It is 4.'),
    ('I apologize, but I was wrong! The answer is 4.', 'The answer is 4.'),
    ('My apologies. Here it is.', 'Here it is.'),
    ("I'm sorry.", "I'm sorry."),
    ('Sorry means regret. It is a word.', 'It is a word.'),
    ('She said: I am sorry. He left.', 'She said: I am sorry. He left.'),
  ],
)
def test_a_first_sentence_that_apologises_goes(before, after):
  assert cleaning.apology(before) == after


def test_a_share_of_apologies_stays():
  texts = ["I'm sorry. No." if i % 2 else 'Yes.' for i in range(100)]
  cleaned, counts = cleaning.clean(texts, 0.1)
  assert sum(t.startswith("I'm") for t in cleaned) == 10
  assert counts == {'emojis': 0, 'exclamations': 0, 'apologies': 40}
  assert cleaning.clean(texts, 1.0)[0] == texts


def test_changed_answers_lose_their_ids():
  said = lambda text: {'role': 'assistant', 'content': text, 'ids': [1]}
  asked = {'role': 'user', 'content': 'Hi!!!'}
  rows = [{'messages': [asked, said(t)]} for t in ('Yes!!', 'No.')]
  done, counts = prune.cleaned(rows, Limits())
  assert done[0]['messages'] == [asked, {'role': 'assistant', 'content': 'Yes!'}]
  assert done[1] == rows[1] and counts['exclamations'] == 1


def planted(copies=60, others=600, width=32, seed=0):
  """Unit vectors: `others`, then near copies of the first of them."""
  rng = np.random.default_rng(seed)
  base = semantic.unit(rng.standard_normal((others, width)))
  noise = 0.03 * rng.standard_normal((copies, width))
  return np.concatenate([base, base[:copies] + noise])


def test_planted_copies_go_and_the_better_one_stays():
  vectors = planted()
  value = np.concatenate([np.zeros(600), np.ones(60)])  # the copies are better
  near, cosine = semantic.nearest(vectors, value, 0.9)
  gone = np.flatnonzero(cosine >= 0.9)
  found = set(gone) & set(range(60))
  assert len(gone) - len(found) == 0  # nothing else goes
  assert len(found) >= 57  # but for copies in another cluster
  assert all(near[i] == 600 + i for i in found)


def test_clusters_are_of_what_is_near():
  rng = np.random.default_rng(0)
  centers = semantic.unit(rng.standard_normal((4, 16)))
  kind = rng.integers(0, 4, 300)
  vectors = semantic.unit(centers[kind] + 0.1 * rng.standard_normal((300, 16)))
  labels = semantic.clusters(vectors, 4, seed=1)
  assert max(len(set(labels[kind == k])) for k in range(4)) == 1
  assert semantic.clusters(vectors[:1], 4).tolist() == [0]


def test_quality_is_the_union_of_reward_and_judge():
  rewards, judged = np.arange(8.0), np.array([2, 0, 0, 0, 0, 2, 0, 0])
  found = prune.prune(Signals(rewards, judged, 2), Limits(top=0.25))
  kept = [i for i, why in enumerate(found.reasons) if not why]
  assert kept == [0, 5, 6, 7] and found.bar == pytest.approx(5.25)
  assert prune.prune(Signals(judged=judged), Limits()).reasons.count('') == 2
  scores = np.arange(8.0)  # without rewards the judge's own order counts too
  both = prune.prune(Signals(judged=judged, scores=scores), Limits(top=0.25)).reasons
  assert [i for i, why in enumerate(both) if not why] == [0, 5, 6, 7]
  everything = prune.prune(Signals(vectors=planted()), Limits(cosine=1.1))
  assert set(everything.reasons) == {''}


def test_of_two_that_mean_the_same_the_better_and_harder_stays():
  vectors = np.array([[1, 0.01], [1, 0], [0, 1], [0.01, 1]])
  rewards, hard = np.array([1.0, 2, 3, 3]), np.array([0, 0, 0, 2])
  signals = Signals(rewards, difficulty=hard, vectors=vectors)
  found = prune.prune(signals, Limits(top=1.0, cosine=0.9))
  assert found.reasons == ['duplicate', '', 'duplicate', '']
  assert found.near.tolist()[0] == 1 and found.near.tolist()[2] == 3


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  return toy.tokenizer(tmp_path_factory.mktemp('vocabulary'))


def test_a_judge_labels_every_dialog_against_the_empty_one(tokenizer):
  dialogs = [[Message('user', f'{i}'), Message('assistant', 'x' * i)] for i in range(9)]
  asked = judging.QUESTIONS['quality']
  found = judging.ask(toy.model(), toy.CONFIG, tokenizer, dialogs, asked)
  assert found.numbers.shape == found.scores.shape == (9,)
  assert set(found.numbers) <= {0, 1, 2} and (found.scores > 0).all()
  again = judging.ask(toy.model(), toy.CONFIG, tokenizer, dialogs[3:], asked)
  np.testing.assert_allclose(again.scores, found.scores[3:], atol=1e-4)
  # The empty dialog, against itself, has no label that is likelier.
  empty = judging.ask(
    toy.model(), toy.CONFIG, tokenizer, [[Message('user', '')]], asked
  )
  np.testing.assert_allclose(empty.scores, 1.0, atol=1e-4)
  assert judging.answer(tokenizer, '1') == [*tokenizer.encode('1'), tokenizer.eot]
  with pytest.raises(UserError, match='two or more'):
    judging.topic(('code',))


def test_an_embedding_is_that_of_the_text_alone(tokenizer):
  del tokenizer
  texts = [[5, 6, 7], [9] * 40, [5, 6, 8], [1] * 90, [5, 6, 7]]
  found = semantic.by_model(toy.model(), toy.CONFIG, 128)(texts)
  np.testing.assert_allclose(found[0], found[4], atol=1e-5)
  np.testing.assert_allclose(found.sum(0), 0, atol=1e-4)
  assert np.linalg.norm(found[0] - found[1]) > 0.1


def test_samples_stand_on_both_sides_of_a_limit():
  values = np.array([0.9, 0.1, 0.5, 0.4, 0.6, np.nan])
  assert report.near(values, 0.45) == [1, 3, 2, 4, 0]


@pytest.mark.parametrize(
  'changes, said',
  [({'apologies': 2}, 'limits.apologies'), ({'top': -1}, 'limits.top')],
)
def test_wrong_limits_are_named(changes, said):
  with pytest.raises(UserError, match=said):
    Limits(**changes)


def test_pages_say_what_was_dropped():
  asked = lambda i: {'role': 'user', 'content': f'question {i}'}
  rows = [
    {'messages': [asked(i), {'role': 'assistant', 'content': f'<b>{i}</b>'}]}
    for i in range(20)
  ]
  signals = Signals(
    np.arange(20.0),
    np.arange(20) % 3,
    2,
    difficulty=np.arange(20) % 3,
    topics=['a', 'b'] * 10,
    vectors=np.random.default_rng(0).standard_normal((20, 8)),
  )
  found = prune.prune(signals, Limits(cosine=0.5))
  counts = {'cleaned': {'emojis': 1}, 'before': ['x'] * 20}
  page = report.page(rows, signals, found, Limits(cosine=0.5), counts)
  titles = [section.title for section in page.sections]
  assert titles == [
    'What is left',
    'Cleaning',
    'Reward',
    'Quality by the judge',
    'Difficulty',
    'Topics',
    'Near another',
  ]
  json.dumps(page.sections[0].blocks[0].blocks[0].figure)
