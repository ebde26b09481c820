"""Properties of models that are asked: of a pool, and as judges."""

import ml_collections
import post_examples as toy
import pytest

from configs import annotate as annotate_config
from experiments import annotate
from llama3_jax.base import jsonl
from llama3_jax.post import asking
from llama3_jax.text.chat import Message
from llama3_jax.train import final


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Two toy models that carry a byte vocabulary."""
  folder = tmp_path_factory.mktemp('asked')
  tokenizer = toy.tokenizer(folder)
  for seed, name in enumerate('ab'):
    final.save(folder / name / 'final', toy.model(seed), toy.CONFIG, tokenizer)
  return folder


def sample(**fields):
  base = dict(temperature=1.0, top_p=1.0, top_k=0, max_new=6)
  return ml_collections.ConfigDict({**base, **fields})


def test_two_models_of_a_pool_answer_and_a_judge_judges(folder, caplog):
  prompts = [{'prompt': f'{i}+1?'} for i in range(4)]
  jsonl.write(folder / 'prompts.jsonl', prompts)
  config = annotate_config.get_config()
  names = tuple(str(folder / name) for name in 'ab')
  with config.unlocked():
    config.files, config.pool = (str(folder / 'prompts.jsonl'),), names
    config.judges, config.sample = (f'judge={names[0]}',), sample()
  found = annotate.main(config, folder / 'w')
  made = [row for _, row in jsonl.read(folder / 'w' / 'candidates.jsonl', '')]
  assert [sorted(row['models']) for row in made] == [list(names)] * 4
  assert [row['prompt'][0]['content'] for row in made] == [
    '0+1?',
    '1+1?',
    '2+1?',
    '3+1?',
  ]
  alone = {
    name: asking.answers(name, [(Message('user', '0+1?'),)], sample(), 0)[0].ids
    for name in names
  }
  assert alone[names[0]] != alone[names[1]]
  # A model that knows nothing answers nonsense: counted, and nothing is written for it.
  assert found['counts'] == {'asked': 4, 'nonsense': 4}
  assert (found['judged'], found['skipped'], found['bad']) == (0, 4, 0)


def test_a_judge_is_greedy_and_brief(folder):
  ask = asking.judge(folder / 'a', sample(temperature=9.0, max_new=500))
  likeliest = sample(temperature=0.0, max_new=8)
  dialogs = [(Message('user', text),) for text in ('Which?', 'Who?')]
  expected = asking.answers(folder / 'a', dialogs, likeliest)
  assert ask(['Which?', 'Who?']) == [message.content for message in expected]
