"""Evaluations that go on where they stopped; suites; tables."""

import dataclasses
import json

import numpy as np
import post_examples as toy
import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.eval import answering
from llama3_jax.eval import kept
from llama3_jax.eval import run
from llama3_jax.eval import suites
from llama3_jax.eval import table
from llama3_jax.tasks import task

ARC = {'query': 'Which is round?', 'choices': ['a ball', 'a box'], 'gold': 0}


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  return toy.tokenizer(tmp_path_factory.mktemp('vocabulary'))


@pytest.fixture
def rows(tmp_path):
  """Tasks whose answers are chosen and written."""
  made = [ARC | {'query': f'Which is {i}?'} for i in range(5)]
  (tmp_path / 'arc.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in made))
  return (f'arc={tmp_path}/arc.jsonl', 'copy', 'sort')


def evaluated(tokenizer, names, answered=None):
  said = []
  found = run.tasks(
    *(toy.model(), toy.CONFIG, tokenizer, names, 5),
    **dict(how=run.How(0, batch=4, longest=6), record=said.append, kept=answered),
  )
  return json.dumps([found, said])


def test_an_end_in_the_middle_loses_no_answer_and_changes_none(
  tokenizer, rows, tmp_path, monkeypatch
):
  """Whatever was answered is not asked again, and the numbers are the same."""
  whole, path = evaluated(tokenizer, rows), tmp_path / kept.FILE
  usual = kept.Kept.add

  def add(self, *given):
    usual(self, *given)
    if len(self.answers) % 4 == 0:
      raise KeyboardInterrupt

  monkeypatch.setattr(kept.Kept, 'add', add)
  counts = []
  for _ in range(3):
    with pytest.raises(KeyboardInterrupt):
      evaluated(tokenizer, rows, kept.Kept(path))
    counts.append(len(path.read_text().splitlines()))
  assert counts == [4, 8, 12]
  monkeypatch.setattr(kept.Kept, 'add', usual)
  with path.open('a') as file:
    file.write('["cut')  # as a process that was killed leaves it
  answered = kept.Kept(path)
  assert len(answered.answers) == 12
  assert evaluated(tokenizer, rows, answered) == whole
  assert all(json.loads(line) for line in path.read_text().splitlines())
  answered.close()
  assert not path.exists()


def test_answers_to_other_questions_are_not_taken(tokenizer, rows, tmp_path):
  path = tmp_path / kept.FILE
  evaluated(tokenizer, rows[1:2], kept.Kept(path))
  first = len(path.read_text().splitlines())
  evaluated(tokenizer, rows[2:], kept.Kept(path))
  assert len(path.read_text().splitlines()) == 2 * first
  asked = lambda longest: answering.Asked.of(
    tokenizer, task.load('copy'), task.load('copy').examples('heldout', 1, 0), [],
    answering.GREEDY, longest,
  ).key(0)  # fmt: skip
  assert asked(5) == asked(5) != asked(6)


def test_progress_tells_how_long_it_still_takes(monkeypatch, caplog):
  clock = iter(np.arange(0, 1000, 30.0))
  monkeypatch.setattr(kept.time, 'monotonic', lambda: float(next(clock)))
  said = []
  monkeypatch.setattr(kept.logging, 'info', lambda form, *a: said.append(form % a))
  answered = kept.Kept()
  answered.expect([1.0, 1.0, 2.0])
  answered.add('a', '', 0.0, 1.0)
  answered.add('b', '', 0.0, 1.0)
  assert said == [
    '1 of 3 questions; about 2 min left',
    '2 of 3 questions; about 1 min left',
  ]


def test_solved_examples_may_be_other_questions_of_the_file(rows, tmp_path):
  name = f'{rows[0]},{tmp_path}/arc.jsonl'
  loaded = task.load(name)
  asked = loaded.examples('heldout', 9, 0)
  for e in asked:
    shown = loaded.solved(e, 3)
    assert len(shown) == 3 and e.prompt not in {s.prompt for s in shown}
    assert shown == loaded.solved(e, 3) and {s.task for s in shown} == {name}
  with pytest.raises(UserError, match='nothing of it is for training'):
    loaded.examples('train', 3, 0)


def folder(tmp_path):
  (tmp_path / 'eval_sets').mkdir()
  (tmp_path / 'eval_sets' / 'arc_easy.jsonl').write_text(json.dumps(ARC) + '\n')
  (tmp_path / 'openbook_qa.jsonl').write_text(json.dumps(ARC) + '\n')
  return str(tmp_path)


def test_suite_asks_what_is_there_and_names_what_is_not(tmp_path):
  data = folder(tmp_path)
  names, absent = suites.chosen('base', data, 1000)
  assert {n.partition('=')[0] for n in names} == {'arc', 'arc_letters', 'openbookqa'}
  assert len(names) + len(absent) == len(suites.SUITES['base'].tasks)
  assert any('triviaqa.jsonl' in line for line in absent)
  (tmp_path / 'piqa.jsonl').write_text(json.dumps(ARC | {'gold': 7}) + '\n')
  with pytest.raises(UserError, match='piqa.jsonl, line 1.*not 0 to 1'):
    suites.chosen('base', data, 1000)  # a broken file is not an absent one


@pytest.mark.parametrize(
  'name, data, said',
  [
    ('bases', '.', "suite='bases' is unknown: there are base, chat"),
    ('chat', '', 'is no folder: write --data=DIR'),
    ('chat', 'nowhere', "data='nowhere' is no folder"),
    ('tools', 'here', 'none of its benchmarks is in'),
  ],
)
def test_suite_that_cannot_be_asked_is_named(tmp_path, name, data, said):
  with pytest.raises(UserError, match=said):
    suites.chosen(name, str(tmp_path) if data == 'here' else data, 1000)


def test_every_suite_names_tasks_that_are_there(tmp_path):
  for suite in suites.SUITES.values():
    for name in suite.tasks:
      made = name.replace('DATA', str(tmp_path)).replace('LENGTHS', '700')
      try:
        assert task.load(made).max_new >= 0
      except UserError as error:
        assert str(tmp_path) in str(error) or 'sacrebleu' in str(error)


def test_lengths_are_even_up_to_the_longest():
  found = list(map(int, suites.lengths(131_072).split(',')))
  assert len(found) == 10 and found[0] == 7000 and found[-1] == 458_752
  assert len(set(np.diff(found).round(-1))) <= 2
  assert suites.lengths(1000) == '3500'


def test_names_that_end_with_an_equals_sign_get_the_folder(tmp_path):
  assert suites.filled(('copy', 'arc='), str(tmp_path)) == ('copy', f'arc={tmp_path}')
  with pytest.raises(UserError, match='arc= needs a folder: write --data=DIR'):
    suites.filled(('arc=',), '')


def test_table_has_a_row_a_task_with_its_interval():
  found = {
    'flores=x/y,deu_Latn,eng_Latn': {
      **{'score': 0.5, 'n': 4, 'interval': [0.2, 0.8]},
      'summary': {'chrF': 0.25},
    },
    'macro': {'score': 0.5, 'n': 4, 'interval': [0.2, 0.8]},
  }
  lines = table.text(found).split('\n')
  assert lines[0].startswith('| task') and len({len(line) for line in lines}) == 1
  cells = [[c.strip() for c in line.split('|')[1:-1]] for line in lines[2:]]
  assert cells[0] == ['flores deu_Latn eng_Latn', '50.0', '20.0 to 80.0', '4']
  assert cells[1] == ['- chrF', '25.0', '', '']


def test_several_answers_to_a_question_give_pass_at_k(tokenizer, monkeypatch):
  """Right answers are counted over all that a question got."""
  right = {e.prompt: e.answer for e in task.load('copy').examples('heldout', 3, 7)}

  def generate(params, prompts, *_, samples, seed, told, **__):
    assert samples == 4 and seed == 7
    for number in reversed(range(4 * len(prompts))):  # they end in any order
      i, sample = divmod(number, 4)
      text = tokenizer.decode(prompts[i])
      known = next(answer for asked, answer in right.items() if asked in text)
      ids = tokenizer.encode(known if sample < i else 'no')
      told(number, answering.engine.Completion(tuple(ids), (), True))

  monkeypatch.setattr(answering.engine, 'generate', generate)
  said, settings = [], dataclasses.replace(answering.GREEDY, temperature=1.0)
  found = run.tasks(
    *(None, toy.CONFIG, tokenizer, ('copy',), 3, 7),
    **dict(how=run.How(settings=settings, samples=4), record=said.append),
  )['copy']
  assert [row['score'] for row in said] == [0, 0.25, 0.5]
  assert said[1]['responses'][1:] == ['no'] * 3 != said[1]['responses'][:1]
  assert found['score'] == pytest.approx(0.25)
  assert found['summary'] == {
    'pass@1': pytest.approx(0.25),
    'pass@4': pytest.approx(2 / 3),
  }


def test_samples_are_the_same_again_at_any_batch_size_and_after_an_end(
  tokenizer, tmp_path
):
  settings = dataclasses.replace(answering.GREEDY, temperature=1.0)

  def asked(batch, path=None):
    said = []
    how = run.How(settings=settings, batch=batch, longest=5, samples=3)
    given = toy.model(), toy.CONFIG, tokenizer, ('copy',), 3, 0, how
    run.tasks(*given, said.append, path and kept.Kept(path))
    return said

  first = asked(16, tmp_path / kept.FILE)
  assert len({text for row in first for text in row['responses']}) > 3
  path = tmp_path / kept.FILE
  path.write_text(path.read_text().split('\n')[0] + '\n')
  assert asked(2) == first == asked(4, path)


def test_fewer_long_texts_are_answered_at_a_time(tokenizer, monkeypatch):
  seen = {}

  def generate(params, prompts, *_, batch_size, longest, told, **__):
    seen[longest] = batch_size
    for i in range(len(prompts)):
      told(i, answering.engine.Completion((), (), True))

  monkeypatch.setattr(answering.engine, 'generate', generate)
  for room in (100, 3000, 60_000):
    settings = dataclasses.replace(answering.GREEDY, max_new=room)
    how = run.How(settings=settings, batch=16)
    run.tasks(None, toy.CONFIG, tokenizer, ('copy',), 1, how=how)
  assert list(seen.values()) == [16, 8, 1]


def test_tasks_of_one_name_are_all_shown():
  """Two files, or two languages, of a benchmark are two rows."""
  names = ('flores=a/b,deu_Latn,eng_Latn', 'flores=a/b,fra_Latn,eng_Latn', 'copy')
  names += ('rows=x/one.jsonl', 'rows=x/two.jsonl', 'arc=a.jsonl,b.jsonl')
  assert list(table.shorts(names).values()) == [
    *('flores deu_Latn eng_Latn', 'flores fra_Latn eng_Latn', 'copy'),
    *('rows one', 'rows two', 'arc'),
  ]
  assert table.shorts(['multi_needle=d.jsonl,7000,9000']) == {
    'multi_needle=d.jsonl,7000,9000': 'multi_needle'
  }
  twins = ['rows=a/x.jsonl', 'rows=b/x.jsonl']
  assert list(table.shorts(twins).values()) == twins
  assert table.shown({twins[0]: 1, twins[1]: 2}) == {twins[0]: 1, twins[1]: 2}


def test_runs_of_one_name_are_told_apart():
  assert table.runs(['a/eval', 'b/eval', 'c/x']) == ['a/eval', 'b/eval', 'x']


def test_table_leaves_out_the_many_parts_of_a_benchmark():
  parts = {'mean over subjects': 0.5, **{f's{i}': 0.5 for i in range(20)}}
  scored = {'score': 0.5, 'n': 40, 'interval': [0.4, 0.6]}
  shown = table.text({'mmlu': scored | {'summary': parts}})
  assert '- mean over subjects' in shown and '- s1' not in shown
  few = {f's{i}': 0.5 for i in range(7)}
  assert '- s6' in table.text({'math': scored | {'summary': few}})
