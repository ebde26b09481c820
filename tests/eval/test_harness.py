"""The adapter to lm-evaluation-harness: its three methods on a toy model."""

import json

import jax
import numpy as np
import post_examples as toy
import pytest

from llama3_jax.eval import answering
from llama3_jax.model import llama
from llama3_jax.tasks import task

pytest.importorskip('lm_eval', reason='the extra harness is not installed')

from lm_eval import tasks  # noqa: E402
from lm_eval.api.instance import Instance  # noqa: E402

from llama3_jax.eval import harness  # noqa: E402


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  tokenizer = toy.tokenizer(tmp_path_factory.mktemp('vocabulary'))
  return harness.Harness((toy.model(), toy.CONFIG, tokenizer), window=16)


def asked(kind, *every):
  return [Instance(kind, {}, args, i) for i, args in enumerate(every)]


def logp(made, ids):
  """Log-probability of each token after those before, and which is the likeliest."""
  logits = llama.apply(made.params, np.array([ids], np.int32), made.config)[0]
  rows = np.asarray(jax.nn.log_softmax(logits[:-1], -1))
  return rows[np.arange(len(ids) - 1), ids[1:]], rows.argmax(-1)


def test_loglikelihood_is_that_of_the_continuation_and_space_belongs_to_it(made):
  cases = (('ab', ' cd'), ('ab ', 'cd'), ('', 'xyz'), ('ab', ' q'))
  found = made.loglikelihood(asked('loglikelihood', *cases))
  for (before, after), (value, greedy) in zip(cases, found):
    ids = made.tokenizer.encode(before + after, bos=True)
    start = len(made.tokenizer.encode(before.rstrip(), bos=True)) - 1
    each, best = logp(made, ids)
    assert value == pytest.approx(each[start:].sum(), abs=1e-3)
    assert greedy == (best[start:] == ids[1 + start :]).all()
  assert found[0] == found[1]


def test_rolling_likelihood_counts_each_token_once_with_a_window_before_it(made):
  text = 'abcdefghijklmnopqrstuvwxyz0123456789'  # three windows of 16
  [found] = made.loglikelihood_rolling(asked('loglikelihood_rolling', (text,)))
  ids, total = made.tokenizer.encode(text, bos=True), 0.0
  for start in range(1, len(ids), 16):
    end = min(start + 16, len(ids))
    row = ids[max(end - 17, 0) : end]
    total += logp(made, row)[0][-(end - start) :].sum()
  assert found == pytest.approx(total, abs=1e-3)


def test_answer_ends_at_its_stop_text_or_its_room(made):
  prompt = 'once'
  ids = made.tokenizer.encode(prompt, bos=True)
  for _ in range(6):
    ids.append(int(logp(made, [*ids, 0])[1][-1]))
  whole = made.tokenizer.decode(ids[-6:])
  given = {'max_gen_toks': 6, 'until': []}
  stop = whole[3]
  found = made.generate_until(
    asked('generate_until', (prompt, given), (prompt, given | {'until': [stop]}))
  )
  assert found == [whole, whole[: whole.index(stop)]]
  assert made.generate_until([]) == []


ROWS = {
  'arc_easy': ('arc', {'query': 'Question: Hard? ', 'choices': ['Rock', 'Air']}),
  'piqa': ('piqa', {'query': 'Question: Open it\n', 'choices': ['Push.', 'Eat.']}),
  'openbookqa': ('openbookqa', {'query': 'Wet is', 'choices': ['Rock', 'Air']}),
  'winogrande': (
    'winogrande',
    {'context_options': ['He saw Ann', 'He saw Bob'], 'continuation': 'run.'},
  ),
  'lambada': ('lambada', {'context': 'He saw the old', 'continuation': 'dog'}),
}
FILES = {'openbookqa': 'openbook_qa', 'lambada': 'lambada_openai'}


@pytest.mark.parametrize('name', ROWS)
def test_task_files_ask_the_texts_of_our_own_tasks(
  made, tmp_path, root, monkeypatch, name
):
  ours, row = ROWS[name]
  row = row if name == 'lambada' else row | {'gold': 1}
  file = tmp_path / f'{FILES.get(name, name)}.jsonl'
  file.write_text(json.dumps(row) + '\n')
  manager = tasks.TaskManager(
    include_path=str(root / 'bench/harness'),
    include_defaults=False,
    metadata={'folder': str(tmp_path)},
  )
  theirs = tasks.get_task_dict([f'l3_{name}'], manager)[f'l3_{name}']
  theirs.build_all_requests(limit=1, rank=0, world_size=1)
  pairs = [made._pair(*request.args) for request in theirs.instances]

  def weighed(params, prompts, answers, config, told):
    seen.extend(zip(prompts, answers))
    for i in range(len(answers)):
      told(i, 0.0, False)

  seen, own = [], task.load(f'{ours}={file}')
  monkeypatch.setattr(answering.likelihood, 'weighed', weighed)
  examples = own.examples('heldout', 1, 0)
  answering.answers(None, toy.CONFIG, made.tokenizer, own, examples, ())
  assert pairs == seen and len(pairs) == (1 if name == 'lambada' else 2)
