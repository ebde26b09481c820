"""Questions while a model is trained."""

import dataclasses

import post_examples as toy
import pytest

from configs import sft as sft_config
from experiments import sft
from llama3_jax import config as configs
from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.eval import during
from llama3_jax.train import final
from llama3_jax.train.config import AskConfig


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  return toy.tokenizer(tmp_path_factory.mktemp('vocabulary'))


def ask(**more):
  return dataclasses.replace(AskConfig(examples=3, max_new=4, batch=4), **more)


def test_scores_stand_beside_the_losses_and_the_questions_stay_the_same(
  tokenizer, monkeypatch
):
  seen, usual = [], during.run.answering.weighed

  def weighed(params, config, tokenizer, every, *more):
    seen.append([asked.prompts for asked in every])
    return usual(params, config, tokenizer, every, *more)

  monkeypatch.setattr(during.run.answering, 'weighed', weighed)
  made = ask(tasks=('copy', 'sort'))
  look = during.beside(lambda p: {'eval_loss': 1.0}, made, toy.CONFIG, tokenizer)
  first, second = look(toy.model()), look(toy.model())
  assert first == second and set(first) == {'eval_loss', 'task/copy', 'task/sort'}
  assert seen[0] == seen[1] and [len(prompts) for prompts in seen[0]] == [3, 3]


def test_nothing_is_asked_without_tasks_and_a_wrong_one_is_named_before_training(
  tokenizer,
):
  evaluate = lambda params: {}
  given = toy.CONFIG, tokenizer
  assert during.beside(evaluate, ask(), *given) is evaluate
  with pytest.raises(UserError, match="task 'copi' is unknown"):
    during.beside(evaluate, ask(tasks=('copi',)), *given)
  with pytest.raises(UserError, match='gsm8k= needs a folder'):
    during.beside(evaluate, ask(tasks=('gsm8k=',)), *given)


def test_finetuning_asks_at_every_evaluation(tokenizer, tmp_path):
  final.save(tmp_path / 'base' / 'final', toy.model(), toy.CONFIG, tokenizer)
  c = configs.edit(
    sft_config.get_config(),
    {
      **{'init_from': str(tmp_path / 'base'), 'data.tasks': 8, 'train.steps': 4},
      **{'train.batch': 2, 'train.length': 64, 'train.eval_every': 2},
      **{'ask.tasks': ('copy',), 'ask.examples': 2, 'ask.max_new': 3, 'ask.batch': 4},
    },
  )
  sft.main(c, str(tmp_path / 'run'))
  rows = [row for _, row in jsonl.read(tmp_path / 'run' / 'metrics.jsonl', '')]
  assert [row['step'] for row in rows if 'task/copy' in row] == [0, 2, 4]
