"""Properties of evaluation: intervals, scores, needle, gate."""

import dataclasses
import json

import jax
import numpy as np
import post_examples as toy
import pytest

from llama3_jax.base import confidence
from llama3_jax.base import processes
from llama3_jax.base.errors import UserError
from llama3_jax.eval import answering
from llama3_jax.eval import needle
from llama3_jax.eval import own_text
from llama3_jax.eval import run
from llama3_jax.generate import engine
from llama3_jax.generate import likelihood
from llama3_jax.tasks import needle as task
from llama3_jax.tasks.task import Example
from llama3_jax.tasks.task import Task
from llama3_jax.tasks.task import load
from llama3_jax.train import likelihood as alone

HAY = ['The sky over the old town was grey.', 'A small boat came into the harbour.']


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  return toy.tokenizer(tmp_path_factory.mktemp('vocabulary'))


def replies(monkeypatch, tokenizer, reply):
  """Replaces generation by `reply(prompt text) -> text`."""

  def generate(params, prompts, *_, told, **__):
    for i, prompt in enumerate(prompts):
      ids = tokenizer.encode(reply(tokenizer.decode(prompt)))
      told(i, engine.Completion(tuple(ids), (), True))

  monkeypatch.setattr(engine, 'generate', generate)


@pytest.mark.parametrize('shots', [None, 2])
def test_right_answers_score_one_and_wrong_ones_zero(monkeypatch, tokenizer, shots):
  known = {e.prompt: e.answer for e in load('sort').examples('heldout', 20, 0)}

  def reply(prompt):
    asked = [text for text in known if text in prompt]
    return known[max(asked, key=len)] + ('' if shots is None else '\nQ: next')

  replies(monkeypatch, tokenizer, reply)
  found = run.tasks(None, toy.CONFIG, tokenizer, ('sort',), 20, how=run.How(shots))
  wanted = {'score': 1.0, 'n': 20, 'ci': 0.0, 'interval': confidence.wilson(20, 20)}
  assert found['sort'] == wanted and wanted['interval'][0] < 0.9
  replies(monkeypatch, tokenizer, lambda prompt: 'no')
  found = run.tasks(
    None, toy.CONFIG, tokenizer, ('sort', 'copy'), 20, how=run.How(shots)
  )
  assert found['macro']['score'] == 0 and found['macro']['n'] == 40


@pytest.mark.parametrize('shots', [None, 0])
def test_a_task_may_have_the_whole_answer_and_further_scores(
  monkeypatch, tokenizer, tmp_path, shots
):
  row = {'prompt': 'Do.', 'instruction_id_list': ['punctuation:no_comma'] * 2}
  (tmp_path / 'data.jsonl').write_text(json.dumps(row | {'kwargs': [{}] * 2}))
  replies(monkeypatch, tokenizer, lambda prompt: 'Hi\nyou, there')
  name = f'ifeval={tmp_path}/data.jsonl'
  found = run.tasks(None, toy.CONFIG, tokenizer, (name,), 9, how=run.How(shots))
  assert found[name]['score'] == 0 and found['macro']['n'] == 1
  wanted = {'prompt_strict': 0, 'prompt_loose': 1, 'average': 0.5}
  assert wanted.items() <= found[name]['summary'].items()


def test_macro_average_weighs_tasks_alike():
  found = run.macro(
    {
      'a': {'score': 1.0, 'n': 10, 'ci': 0.0, 'interval': [0.8, 1.0]},
      'b': {'score': 0.5, 'n': 1000, 'ci': 0.03, 'interval': [0.47, 0.53]},
    }
  )
  micro, interval = found.pop('micro'), found.pop('interval')
  assert found == {'score': 0.75, 'n': 1010, 'ci': 0.015}
  assert interval[0] == pytest.approx(0.75 - np.hypot(0.2, 0.03) / 2)
  assert interval[1] == pytest.approx(0.75 + 0.03 / 2)
  assert micro['score'] == pytest.approx(510 / 1010) and micro['n'] == 1010
  low, high = micro['interval']  # nearly that of the larger task alone
  assert 0.474 < low < 0.476 and 0.534 < high < 0.536


def test_base_prompt_shows_solved_examples(tokenizer):
  solved = load('copy').examples('train', 2, 0)
  [asked] = load('copy').examples('heldout', 1, 0)
  text = tokenizer.decode(answering.base_prompt(tokenizer, load('copy'), asked, solved))
  assert all(f'Q: {e.prompt}\nA: {e.answer}\n' in text for e in solved)
  assert text.endswith(f'Q: {asked.prompt}\nA:')


def test_model_runs_on_tasks(tokenizer):
  settings = dataclasses.replace(answering.GREEDY, max_new=4)
  how = run.How(settings=settings, batch=4)
  found = run.tasks(toy.model(), toy.CONFIG, tokenizer, ('copy',), 3, how=how)
  assert found['copy']['n'] == 3 and 0 <= found['copy']['score'] <= 1


def test_haystack_has_the_length_and_the_depth(tokenizer):
  for length in (256, 512):
    places = []
    for depth in (0.0, 0.5, 1.0):
      cell = needle.haystack(tokenizer, HAY, length, depth)
      [e] = cell.examples('heldout', 1, 0)
      ids, answer = tokenizer.encode(e.prompt, bos=True), e.answer
      assert length - 60 < len(ids) + needle.ANSWER <= length
      text = tokenizer.decode(ids)
      assert text.endswith('\nA:') and f' {answer}.' in text
      places.append(text.index(f' {answer}.') / len(text))
    assert places[0] < 0.25 < places[1] < 0.75 and places[0] < places[1] < places[2]


def hidden(prompt):
  """What a haystack's question asks for, as the answer says it."""
  key = prompt.split(task.question('')[:-1])[1].split('?')[0]
  start = prompt.index(task.answer(f' {key}', ''))
  return prompt[start:].split('.')[0].strip()


def test_recall_is_counted_by_cell(monkeypatch, tokenizer):
  def reply(prompt):  # finds what stands in the first half of the text
    key = prompt.split(task.question('')[:-1])[1].split('?')[0]
    start = prompt.index(task.answer(f' {key}', ''))
    said = prompt[start:].split('.')[0]
    return f'{said}\n' if start < len(prompt) / 2 else ' 0\n'

  replies(monkeypatch, tokenizer, reply)
  found = needle.grid(
    None, toy.CONFIG, tokenizer, HAY, (256, 512), (0.0, 0.25, 1.0), samples=2
  )
  assert found['recall'] == [[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]


@pytest.mark.parametrize(
  'text,score',
  [
    ('{}', 1.0),
    (' {}.\nQ: next', 1.0),
    ('no, not {}', 0.0),
    ('0{}', 0.0),
    ('\n{}', 1.0),  # white space before it is no answer
    ('none\n{}', 0.0),
  ],
)
def test_needle_is_found_only_where_the_answer_begins_with_it(
  monkeypatch, tokenizer, text, score
):
  replies(monkeypatch, tokenizer, lambda prompt: text.format(hidden(prompt)))
  found = needle.grid(None, toy.CONFIG, tokenizer, HAY, (256,), (0.5,), samples=1)
  assert found['recall'] == [[score]]


@pytest.mark.parametrize('right', [(0,), (3,), (1, 2), (0, 2, 3)])
def test_recall_is_the_share_of_a_cells_samples_that_are_right(
  monkeypatch, tokenizer, right
):
  calls = []

  def reply(prompt):
    calls.append(prompt)
    return hidden(prompt) if (len(calls) - 1) % 4 in right else 'x'

  replies(monkeypatch, tokenizer, reply)
  found = needle.grid(None, toy.CONFIG, tokenizer, HAY, (256,), (0.0, 1.0), samples=4)
  assert found['recall'] == [[len(right) / 4]] * 2 and found['samples'] == 4
  assert len(set(calls)) == 8  # no haystack comes twice


def test_needle_runs_on_a_model(tokenizer):
  found = needle.grid(
    toy.model(), toy.CONFIG, tokenizer, HAY, (128,), (0.5,), samples=2, batch_size=2
  )
  assert np.shape(found['recall']) == (1, 1)


@pytest.mark.parametrize(
  'lengths, rooms', [((128, 256, 512), [512]), ((128, 4096), [128, 4096])]
)
def test_short_haystacks_are_asked_in_rows_of_one_size(
  monkeypatch, tokenizer, lengths, rooms
):
  """A size of row is a program to compile; long rows hold few prompts at a time."""
  made = []

  def generate(params, prompts, *_, told, longest, **__):
    made.append((longest, len(prompts)))
    for i, prompt in enumerate(prompts):
      text = hidden(tokenizer.decode(prompt)) if len(prompt) < 200 else 'x'
      told(i, engine.Completion(tuple(tokenizer.encode(text)), (), True))

  monkeypatch.setattr(engine, 'generate', generate)
  given = None, toy.CONFIG, tokenizer, HAY
  found = needle.grid(*given, lengths, (0.0, 0.5, 1.0), samples=2)
  count = 6 * len(lengths)
  assert made == [(room, count // len(rooms)) for room in rooms]
  assert found['recall'] == [[1.0] + [0.0] * (len(lengths) - 1)] * 3


def test_too_short_haystack_is_named(tokenizer):
  with pytest.raises(UserError, match='needle.lengths'):
    needle.grid(None, toy.CONFIG, tokenizer, HAY, (32,), (0.5,))


def test_tasks_are_answered_together_each_by_its_own_settings(tokenizer, monkeypatch):
  """One call a size of row, and the answers are those of each task alone."""
  params, calls, usual = toy.model(), [], engine.generate

  def generate(params, prompts, *given, **more):
    calls.append(len(prompts))
    return usual(params, prompts, *given, **more)

  monkeypatch.setattr(engine, 'generate', generate)
  every = []
  for name, room in (('copy', 8), ('sort', 5), ('arithmetic', 200)):
    asked = load(name).examples('heldout', 3, 0)
    how = dataclasses.replace(answering.GREEDY, max_new=room)
    every.append(answering.Asked.of(tokenizer, load(name), asked, None, how))
  found = answering.responses(params, toy.CONFIG, tokenizer, every)
  assert calls == [6, 3]
  for asked, texts in zip(every, found):
    alone = answering.responses(params, toy.CONFIG, tokenizer, [asked])[0]
    assert texts == alone and len(texts) == 3
  how = dict(longest=2)
  short = answering.Asked.of(tokenizer, load('copy'), every[0].examples, None, **how)
  assert short.settings.max_new == 2


def test_gate_needs_recovery_and_perfect_recall():
  assert needle.gate(2.0, 2.0, [[1.0, 1.0]])[0]
  assert needle.gate(2.01, 2.0, 1.0)[0]
  passed, reason = needle.gate(2.1, 2.0, 1.0)
  assert not passed and 'has not recovered' in reason
  passed, reason = needle.gate(2.0, 2.0, [[1.0, 0.75]])
  assert not passed and 'recall 0.75' in reason
  assert needle.gate(2.0, 2.0, [[1.0, 0.75]], perfect=0.7)[0]
  # Of a length the mean over depths counts, which are the rows.
  assert needle.gate(2.0, 2.0, [[1.0, 1.0], [0.75, 0.75]], perfect=0.85)[0]
  assert not needle.gate(2.0, 2.0, [[1.0, 0.75], [1.0, 0.75]], perfect=0.85)[0]
  assert not needle.gate(float('nan'), 2.0, 1.0)[0]


def test_generation_does_not_change_the_parameters(tokenizer):
  params = toy.model()
  before = jax.tree.map(np.array, params)
  asked = load('copy').examples('heldout', 1, 0)
  answering.answers(params, toy.CONFIG, tokenizer, load('copy'), asked)
  for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(params)):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('stop,score', [('\n', 0.0), ('\nQ:', 1.0)])
def test_worked_solution_is_read_until_the_tasks_own_end(
  monkeypatch, tokenizer, stop, score
):
  """The first line alone would be scored where a solution takes several."""
  last = lambda e, response: float(response.split('\n')[-1] == e.answer)
  examples = lambda split, n, seed: [Example('2 + 3', '5')] * n
  monkeypatch.setattr(
    run.task_lib, 'load', lambda name: Task(examples, last, stop=stop)
  )
  replies(monkeypatch, tokenizer, lambda prompt: ' 2 and 3 make\n5\nQ: next\nA: 7')
  found = run.tasks(None, toy.CONFIG, tokenizer, ('sums',), 4, how=run.How(0))
  assert found['sums']['score'] == score


@pytest.mark.parametrize('shots, lead', [((), ' '), (None, '')])
def test_model_picks_the_likeliest_choice(tokenizer, shots, lead):
  """As by hand: the log-probability of each choice after the prompt, in a chat at the
  beginning of the answer."""
  params, words = toy.model(), ('apple', 'moon and sun', 'a')
  task = Task(lambda split, n, seed: [])
  asked = [Example(f'{w} {i}?', 'a', choices=words) for i in range(9) for w in words]
  found = answering.answers(params, toy.CONFIG, tokenizer, task, asked, shots)
  for e, chosen in zip(asked, found):
    ids = [tokenizer.encode(f'{lead}{word}') for word in words]
    prompt = answering.chat_prompt(tokenizer, task, e)
    if shots is not None:
      prompt = answering.base_prompt(tokenizer, task, e, shots)
    logp = alone.of_answers(params, [prompt] * 3, ids, toy.CONFIG, 3, 128)
    assert chosen == words[int(np.argmax(logp))]


@pytest.mark.parametrize('shots, text', [((), ' moon'), (None, 'moon')])
def test_choices_are_encoded_as_they_are_written(tokenizer, monkeypatch, shots, text):
  """After a page's `A:` there is a space; an answer of a chat begins its message."""
  seen = []

  def weighed(params, contexts, continuations, config, told):
    seen.extend(continuations)
    for i in range(len(continuations)):
      told(i, 0.0, False)

  monkeypatch.setattr(likelihood, 'weighed', weighed)
  asked = [Example('Which?', 'moon', choices=('moon', 'sun'))]
  task = Task(lambda split, n, seed: [])
  answering.answers(None, toy.CONFIG, tokenizer, task, asked, shots)
  assert seen[0] == tokenizer.encode(text)


def scored(monkeypatch, logp):
  """Replaces the likelihood by logp(answer's text); returns the pairs that it got."""
  seen = []

  def weighed(params, contexts, continuations, config, told):
    seen.extend(zip(contexts, continuations))
    for i, ids in enumerate(continuations):
      told(i, logp(ids), False)

  monkeypatch.setattr(likelihood, 'weighed', weighed)
  return seen


@pytest.mark.parametrize(
  'normalise,chosen', [('', 'a'), ('characters', 'moon'), ('bytes', 'ééé')]
)
def test_likelihood_is_divided_by_what_the_task_says(
  tokenizer, monkeypatch, normalise, chosen
):
  # A character: -4, -1.8, -1.5; a byte: -4, -0.9, -1.5.
  words = {'a': -4.0, 'ééé': -5.4, 'moon': -6.0}
  logp = {tuple(tokenizer.encode(f' {w}')): v for w, v in words.items()}
  scored(monkeypatch, lambda ids: logp[tuple(ids)])
  asked = [Example('Which?', 'a', choices=tuple(words))]
  task = Task(lambda split, n, seed: [], normalise=normalise)
  assert answering.answers(None, toy.CONFIG, tokenizer, task, asked, ()) == [chosen]


@pytest.mark.parametrize('shots', [(), None])
def test_text_after_the_choice_is_compared_for_a_base_model(
  tokenizer, monkeypatch, shots
):
  seen = scored(monkeypatch, len)
  asked = [Example('The dog saw', 'Ann', choices=('Ann', 'Bob'))]
  task = Task(lambda *_: [], suffix=lambda e: 'run.', context=lambda e, _: e.prompt)
  answering.answers(None, toy.CONFIG, tokenizer, task, asked, shots)
  texts = [tuple(map(tokenizer.decode, pair)) for pair in seen]
  if shots is None:
    assert [after for _, after in texts] == ['Ann', 'Bob']
  else:
    assert [before[-15:] for before, _ in texts] == [
      'The dog saw Ann',
      'The dog saw Bob',
    ]
    assert {after for _, after in texts} == {' run.'}


def test_each_example_has_the_solved_ones_that_its_task_names(tokenizer, monkeypatch):
  prompts = []

  def reply(prompt):
    prompts.append(prompt)
    return ''

  replies(monkeypatch, tokenizer, reply)
  task = Task(
    lambda split, n, seed: [Example(w, w) for w in ('sun', 'moon')],
    solved=lambda e, n: [Example(f'{e.prompt} {i}', 'x') for i in range(n)],
    context=lambda e, solved: ' '.join([s.prompt for s in solved] + [e.prompt]),
  )
  monkeypatch.setattr(run.task_lib, 'load', lambda name: task)
  run.tasks(None, toy.CONFIG, tokenizer, ('words',), 2, how=run.How(2))
  for prompt, wanted in zip(prompts, ('sun 0 sun 1 sun', 'moon 0 moon 1 moon')):
    assert prompt.endswith(wanted)


def test_task_with_images_is_refused_by_a_model_of_text(tokenizer):
  seen = Example('What is it?', 'a cat', media=('cat.png',))
  with pytest.raises(UserError, match='images or sound'):
    answering.answers(None, toy.CONFIG, tokenizer, Task(lambda *_: []), [seen])


def test_a_task_may_need_more_tokens_than_the_config_gives(monkeypatch, tokenizer):
  rooms = []

  def generate(params, prompts, config, stop_ids, settings, told, **_):
    rooms.extend({own.max_new for own in settings})
    told(0, engine.Completion((), (), True))

  monkeypatch.setattr(engine, 'generate', generate)
  asked = [Example('2 + 3', '5')]
  for one in (Task(lambda *_: []), Task(lambda *_: [], max_new=300)):
    answering.answers(None, toy.CONFIG, tokenizer, one, asked, ())
  assert rooms == [32, 300]


def test_one_process_alone_gathers_own_text(tmp_path, monkeypatch):
  monkeypatch.setattr(processes, 'first', lambda: False)
  monkeypatch.setattr(own_text.gather, 'write', pytest.fail)
  with pytest.raises(UserError):  # the first one has written nothing here
    own_text.measure(('a.txt',), tmp_path, None, toy.CONFIG, None, 1, 8, 1)


def test_solved_examples_may_be_earlier_turns_of_a_chat(tokenizer, monkeypatch):
  """As many as are asked for, the same before each question, which comes last."""
  prompts = []
  replies(monkeypatch, tokenizer, lambda prompt: prompts.append(prompt) or 'no')
  run.tasks(None, toy.CONFIG, tokenizer, ('copy',), 2, how=run.How(turns=3))
  solved = load('copy').examples('train', 3, 0)
  for prompt, e in zip(prompts, load('copy').examples('heldout', 2, 0), strict=True):
    places = [prompt.index(text) for s in solved for text in (s.prompt, s.answer)]
    assert places == sorted(places) and places[-1] < prompt.index(e.prompt)
    assert prompt.count('user') == 4 and prompt.count('assistant') == 4
