"""An evaluation is the same again: any batch size, no network, one begin_of_text."""

import json
import socket

import numpy as np
import post_examples as toy
import pytest
import toy_chat

from llama3_jax.base.errors import UserError
from llama3_jax.eval import answering
from llama3_jax.eval import run
from llama3_jax.tasks import task as tasks

WORDS = ('sun', 'moon', 'sea', 'tree', 'stone')
ROWS = {
  'lambada': [{'context': f'The {w} and the', 'continuation': w} for w in WORDS],
  'svamp': [{'context': f'{i} + {i}?', 'answer': str(2 * i)} for i in range(5)],
  'copa': [
    {'query': f'{w} so', 'choices': ['it is.', 'it was here.'], 'gold': 0}
    for w in WORDS
  ],
}


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  return toy.tokenizer(tmp_path_factory.mktemp('vocabulary'))


@pytest.fixture(scope='module')
def names(tmp_path_factory):
  """Tasks of three kinds: one choice, generation, several choices; and a generator."""
  folder, found = tmp_path_factory.mktemp('rows'), ['key_value=3', 'copy']
  for name, rows in ROWS.items():
    (folder / f'{name}.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in rows))
    found.append(f'{name}={folder}/{name}.jsonl')
  return found


def evaluated(tokenizer, names, batch_size):
  said = []
  found = run.tasks(
    *(toy.model(), toy.CONFIG, tokenizer, names, 5),
    **dict(how=run.How(0, batch=batch_size, longest=12), record=said.append),
  )
  return json.dumps([found, said], sort_keys=True)


def test_numbers_are_the_same_again_at_any_batch_size_and_without_a_network(
  tokenizer, names, monkeypatch
):
  def refused(*_, **__):
    raise AssertionError('evaluation opened a socket')

  tasks.load.cache_clear()
  for name in ('socket', 'create_connection', 'getaddrinfo'):
    monkeypatch.setattr(socket, name, refused)
  first = evaluated(tokenizer, names, 16)
  assert evaluated(tokenizer, names, 16) == first
  assert evaluated(tokenizer, names, 1) == first
  assert evaluated(tokenizer, names, 3) == first


def test_second_begin_of_text_is_refused():
  once = "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m['content'] }}"
  once += '<|im_end|>{% endfor %}'
  task = tasks.load('copy')
  examples = task.examples('heldout', 1, 0)
  answering.Asked.of(toy_chat.byte_level(once), task, examples)
  twice = toy_chat.byte_level('{{ bos_token }}' + once)
  with pytest.raises(UserError, match='begins with <s> twice'):
    answering.Asked.of(twice, task, examples)


def test_one_choice_is_right_where_it_is_greedy_and_has_a_perplexity(
  tokenizer, names, monkeypatch
):
  def weighed(*_, told):
    told(0, -1.0, True)
    told(1, -3.0, False)

  monkeypatch.setattr(answering.likelihood, 'weighed', weighed)
  name = next(n for n in names if n.startswith('lambada'))
  found = run.tasks(None, toy.CONFIG, tokenizer, (name,), 2, how=run.How(0))[name]
  assert found['score'] == 0.5 and found['perplexity'] == pytest.approx(np.exp(2))
  low, high = found['perplexity_interval']
  assert low == pytest.approx(np.exp(1)) and high == pytest.approx(np.exp(3))


def test_each_task_is_shown_its_own_number_of_examples(tokenizer, monkeypatch):
  counts, seen = {'two': 2, 'none': 0}, {}

  def load(name):
    return tasks.Task(
      lambda split, n, seed: [tasks.Example(f'{split} {i}?', 'x') for i in range(n)],
      context=lambda e, solved: ' '.join(x.prompt for x in [*solved, e]),
      shots=counts[name],
    )

  def weighed(params, config, tokenizer, every, batch_size, kept, seed):
    texts = [tokenizer.decode(asked.prompts[0]) for asked in every]
    seen.update(zip(counts, texts))
    return [['x']] * len(every), [[]] * len(every)

  monkeypatch.setattr(run.task_lib, 'load', load)
  monkeypatch.setattr(run.answering, 'weighed', weighed)
  for shots, wanted in ((run.PAPER, [2, 0]), (1, [1, 1]), (run.CHAT, [0, 0])):
    run.tasks(None, toy.CONFIG, tokenizer, tuple(counts), 1, how=run.How(shots))
    assert [text.count('train') for text in seen.values()] == wanted
  assert all('user' in text for text in seen.values())
