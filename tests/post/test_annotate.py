"""Annotation by checking answers: which samples become a pair."""

from llama3_jax.post import annotate
from llama3_jax.post import preference
from llama3_jax.post.reject import CUT
from llama3_jax.post.reject import Candidates
from llama3_jax.text.chat import Message


def pairs(responses, rewards, answer='4'):
  prompt = (Message('user', '2+2?'),)
  said = tuple(Message('assistant', text) for text in responses)
  candidate = Candidates(prompt, said, tuple(rewards))
  return annotate.preferences([candidate], [answer], lambda i, text: text == answer)


def texts(row):
  return [message['content'] for message in row['responses']]


def test_best_right_answer_beats_the_wrong_one_that_the_reward_model_likes_most():
  [row] = pairs(['5', '4', '3', '6'], [0.1, 0.5, 0.9, 0.2])
  assert texts(row) == ['4', '3']


def test_chosen_is_the_sampled_message_with_its_ids():
  said = tuple(
    Message('assistant', t, ids=(i,)) for i, t in enumerate(('4', '4!', '5'))
  )
  candidate = Candidates((Message('user', '2+2?'),), said, (0.1, 0.5, 0.9))
  [row] = annotate.preferences([candidate], ['4'], lambda i, text: '4' in text)
  assert texts(row) == ['4!', '5'] and [m['ids'] for m in row['responses']] == [
    [1],
    [2],
  ]


def test_annotator_edits_when_no_answer_is_right():
  [row] = pairs(['5', '6'], [0.1, 0.5])
  assert texts(row) == ['4', '6']


def test_no_pair_without_a_wrong_answer():
  assert pairs(['4', '4'], [0.1, 0.5]) == []


def test_answers_that_were_cut_off_are_left_out():
  assert pairs(['4', '55555'], [0.1, CUT]) == []
  [row] = pairs(['44444', '5'], [CUT, 0.0])
  assert texts(row) == ['4', '5']


def test_rows_are_preference_examples():
  [row] = pairs(['5', '4'], [0.1, 0.5])
  example = preference.parse(row, 'row')
  assert [m.content for m in example.responses] == ['4', '5']
  assert example.prompt[0].content == '2+2?'
