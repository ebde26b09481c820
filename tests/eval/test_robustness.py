"""Robustness: variants ask the same; what moves an answer is found, nothing else is."""

import csv
import html

import numpy as np
import post_examples as toy
import pytest

from configs import robustness as robustness_config
from experiments import robustness as experiment
from llama3_jax import config as configs
from llama3_jax.base import jsonl
from llama3_jax.base.errors import UserError
from llama3_jax.eval import answering
from llama3_jax.eval import run
from llama3_jax.eval.robustness import adversarial
from llama3_jax.eval.robustness import measure
from llama3_jax.eval.robustness import page
from llama3_jax.eval.robustness import spread
from llama3_jax.eval.robustness import variants
from llama3_jax.generate import likelihood
from llama3_jax.report import page as pages
from llama3_jax.tasks import choice
from llama3_jax.tasks import task as tasks
from llama3_jax.train import final

DEFAULT = robustness_config.get_config()
N = 12


def kinds(**given):
  fields = {k: DEFAULT[k] for k in ('biases', 'labels', 'orders', 'formats')}
  return variants.variants(**fields | given)


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  return toy.tokenizer(tmp_path_factory.mktemp('vocabulary'))


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """MMLU of two subjects with six questions each; the right letters go round."""
  folder = tmp_path_factory.mktemp('mmlu')
  for part, count in (('dev', 5), ('test', 6)):
    (folder / part).mkdir()
    for subject in ('old_maps', 'birds'):
      rows = []
      for i in range(count):
        said = [f'{part}{subject[0]}{i}{x}' for x in 'pqrs']
        rows.append([f'{part} {subject[:2]} {i}?', *said, 'ABCD'[i % 4]])
      with open(folder / part / f'{subject}_{part}.csv', 'w') as file:
        csv.writer(file).writerows(rows)
  return folder


@pytest.fixture(scope='module')
def plan(data, tokenizer):
  return measure.Plan.of(tokenizer, f'mmlu={data}', kinds(), N)


def said(monkeypatch, weigh):
  """Replaces the model by weigh(text of a prompt, of an answer) -> logp; a character a
  byte, as an answer may be the first byte of a character."""

  def of_answers(params, prompts, answers, config):
    text = lambda ids: bytes(i for i in ids if i < 256).decode('latin-1')
    pairs = zip(prompts, answers, strict=True)
    return np.array([weigh(text(p), text(a).strip()) for p, a in pairs], float)

  monkeypatch.setattr(likelihood, 'of_answers', of_answers)


def listed(prompt):
  """The four lines of the choices of a prompt's last question."""
  lines = prompt.split('?')[-1].split('\n')
  return lines[1:5]


def first_place(prompt, answer):
  return float(listed(prompt)[0].startswith(answer))


def test_a_model_that_reads_places_only_is_as_consistent_as_its_orders_let_it(
  monkeypatch, tokenizer, plan
):
  said(monkeypatch, first_place)
  found, rows = measure.measure(None, None, tokenizer, plan)
  order = found['kinds']['order']
  assert order['consistency'] == 0 <= order['guessing'] and order['same_place'] == 1
  rotations = [order['variants'][o]['score'] for o in ('ABCD', 'BCDA', 'CDAB', 'DABC')]
  assert np.mean(rotations) == pytest.approx(
    0.25
  )  # each choice has each label once: chance
  assert all(r['same'] == 0 for o, r in order['variants'].items() if o != 'ABCD')
  for kind in ('labels', 'format', 'bias'):
    one = found['kinds'][kind]
    assert (one['consistency'], one['spread'], one['told']) == (1, 0, False)
  assert all(spread.flips(row['chosen']) >= 3 for row in rows)


def test_a_model_that_knows_the_answers_is_moved_by_nothing(
  monkeypatch, tokenizer, plan
):
  right = {q.text: q.choices[q.right] for q in plan.questions}

  def knows(prompt, answer):
    question = prompt.split('?')[-2].split('\n')[-1].removeprefix('Question: ') + '?'
    [line] = [x for x in listed(prompt) if x.endswith(right[question])]
    return float(line.startswith(answer))

  said(monkeypatch, knows)
  found, rows = measure.measure(None, None, tokenizer, plan)
  assert set(found['kinds']) == {'bias', 'labels', 'order', 'format'}
  for one in found['kinds'].values():
    assert (one['consistency'], one['spread'], one['told']) == (1, 0, False)
    assert all(r['score'] == 1 for r in one['variants'].values())
    assert {r['n'] for r in one['variants'].values()} == {N}
  assert found['score'] == 1 and not any(spread.flips(r['chosen']) for r in rows)


def test_a_model_that_copies_the_last_label_follows_the_bias(
  monkeypatch, tokenizer, plan
):
  def copies(prompt, answer):
    before = prompt.split('\n\n')[-2].split('\n')[-1]
    return float(before.endswith(answer))

  said(monkeypatch, copies)
  found, _ = measure.measure(None, None, tokenizer, plan)
  bias = found['kinds']['bias']['variants']
  letters = [q.right for q in plan.questions]
  for name, last in (('AAAA', 0), ('ABCD', 3), ('AABB', 1), ('CCDD', 3)):
    assert bias[name]['score'] == letters.count(last) / N


def test_all_variants_ask_the_same_questions_after_the_same_examples(plan, tokenizer):
  assert len(plan.questions) == N and len(plan.asked) == 19
  assert sum(map(len, plan.kinds.values())) == 20  # two kinds have the usual one
  for variant, asked in plan.asked.items():
    assert len(asked.prompts) == len(asked.examples) == N
    for q, ids in zip(plan.questions, asked.prompts):
      text = tokenizer.decode(ids)
      subject = q.text.split()[1]
      every = [f'dev {subject} {i}?' for i in range(4)] + [q.text]
      places = [text.index(question) for question in every]
      assert places == sorted(places) and text.count('?') == 5
      assert sorted(x.split()[-1] for x in listed(text)) == sorted(q.choices)
      labels = [x.split()[0] for x in listed(text)]
      assert labels == variant.labels.split()


def test_solved_examples_have_their_right_answer_where_the_bias_says(plan, tokenizer):
  for bias in ('AAAA', 'ABCD', 'AABB', 'CCDD'):
    variant = variants.Variant(bias=bias)
    text = tokenizer.decode(plan.asked[variant].prompts[0])
    blocks = text.split('\n\n')[1:-1]
    assert [block[-1] for block in blocks] == list(bias)
    for i, block in enumerate(blocks):
      [line] = [x for x in block.split('\n') if x.startswith(f'{bias[i]}. ')]
      assert line.endswith(f'{i}{"pqrs"[i % 4]}')  # the right one of that row


def test_labels_order_and_formats_are_as_named(plan, tokenizer):
  q = plan.questions[0]
  text = lambda **fields: tokenizer.decode(
    plan.asked[variants.Variant(**fields)].prompts[0]
  )
  tail = ''.join(f'\n{a}. {q.choices[i]}' for a, i in zip('ABCD', (3, 2, 1, 0)))
  assert text(order='DCBA').endswith(f'{q.text}{tail}\nAnswer:')
  shown = text(labels='(A) (B) (C) (D)')
  assert f'\n(A) {q.choices[0]}\n(B) ' in shown and 'Answer: (' in shown
  assert plan.asked[variants.Variant('(A) (B) (C) (D)')].examples[0].choices == (
    *('(A', '(B', '(C', '(D'),
  )
  assert '\n1. ' in text(labels='1. 2. 3. 4.')
  forms = [text(form=name) for name in variants.FORMATS]
  assert len(set(forms)) == 5 and len(variants.FORMATS) == 5
  informed = [len(intro) for intro, _ in variants.FORMATS.values()]
  assert informed == sorted(informed)
  about = 'old maps' if 'ol' in q.text.split() else 'birds'
  assert sum(about in form for form in forms) == 3


def test_the_usual_variant_is_the_evaluation(data, tokenizer, plan):
  """Same prompts, same score, of a real model; and together is as alone."""
  name, params = f'mmlu={data}', toy.model()
  task = tasks.load(name)
  [asked, *_] = plan.asked.values()
  for q, ids in zip(plan.questions, asked.prompts):
    before = task.solved(q.example, 4)
    assert ids == answering.base_prompt(tokenizer, task, q.example, before)
  found, rows = measure.measure(params, toy.CONFIG, tokenizer, plan)
  usual = run.tasks(params, toy.CONFIG, tokenizer, (name,), N, how=run.How(4))[name]
  assert {k: found[k] for k in ('score', 'n', 'interval')} == {
    k: usual[k] for k in ('score', 'n', 'interval')
  }
  for variant in (variants.Variant(order='DCBA'), variants.Variant(form='rules')):
    alone = variants.chosen(params, toy.CONFIG, tokenizer, [plan.asked[variant]])
    own = variants.choices(plan.questions, [variant], alone)[0].tolist()
    kind, key = ('format', 'rules') if variant.form else ('order', 'DCBA')
    assert [row['chosen'][kind][key] for row in rows] == own


def test_in_a_chat_the_usual_variant_is_the_evaluation_and_labels_have_their_word(
  data, tokenizer
):
  name = f'mmlu={data}'
  plan = measure.Plan.of(tokenizer, name, kinds(), 2, run.CHAT)
  assert 'bias' not in plan.kinds
  [usual, *_] = plan.asked.values()
  task = tasks.load(name)
  ids = [answering.chat_prompt(tokenizer, task, q.example) for q in plan.questions]
  assert usual.prompts == ids and usual.lead == ''
  assert task.prompt is choice.by_letter
  for labels, word in (('1. 2. 3. 4.', 'number'), ('$. &. #. @.', 'sign')):
    text = tokenizer.decode(plan.asked[variants.Variant(labels)].prompts[0])
    assert f'Answer with the {word} alone.' in text


@pytest.mark.parametrize(
  'labels,names',
  [
    ('AB. AC. D. E.', "'AB' and 'AC'"),
    ('A. AB. C. D.', "'A' and 'AB'"),
    ('A. AB. AC. AD.', "'AB' and 'A'"),
    ('é. A. è. B.', "'é' and 'è'"),  # in a vocabulary of bytes
  ],
)
def test_labels_that_share_their_first_token_are_refused_by_name(
  data, tokenizer, labels, names
):
  with pytest.raises(UserError, match=names):
    measure.Plan.of(tokenizer, f'mmlu={data}', kinds(labels=(labels,)), 2)


def test_what_all_labels_begin_with_is_no_part_of_the_choice(tokenizer):
  found = variants.starts(tokenizer, ' ', ['(A', '(B', '(C', '(D'])
  assert [tokenizer.decode(ids) for ids in found] == [' (A', ' (B', ' (C', ' (D']
  found = variants.starts(tokenizer, ' ', ['A1', 'B1', 'C1', 'D1'])
  assert [tokenizer.decode(ids) for ids in found] == [' A', ' B', ' C', ' D']


@pytest.mark.parametrize(
  'given,message',
  [
    (dict(biases=('AAXA',)), "biases: 'AAXA'"),
    (dict(orders=('ABCC',)), "orders: 'ABCC'"),
    (dict(labels=('A. B. C.',)), "labels: 'A. B. C.' is not four"),
    (dict(labels=('A. A) C. D.',)), 'is not four different'),
    (dict(labels=('.. A B C',)), 'nothing but its end'),
    (dict(formats=('bare', 'rude')), "formats: 'rude' is none of bare"),
  ],
)
def test_what_is_no_variant_is_named(given, message):
  with pytest.raises(UserError, match=message):
    kinds(**given)


def test_questions_without_four_choices_are_left_out_and_too_few_examples_named(
  tmp_path, tokenizer, caplog
):
  rows = [
    {'query': f'{i}?', 'choices': [f'{i}{x}' for x in 'pqrst'[:k]], 'gold': 1}
    for i, k in enumerate((4, 3, 4, 5, 4))
  ]
  for name, some in (('test', rows), ('train', [r | {'query': 'x'} for r in rows[:1]])):
    jsonl.write(tmp_path / f'{name}.jsonl', some)
  name = f'arc_letters={tmp_path}/test.jsonl,{tmp_path}/train.jsonl'
  plan = measure.Plan.of(tokenizer, name, kinds(), 9, 1)
  assert sorted(q.text for q in plan.questions) == ['0?', '2?', '4?']
  assert '2 questions do not have four choices' in caplog.text
  with pytest.raises(UserError, match='1 solved examples .* --config.shots=1'):
    measure.Plan.of(tokenizer, name, kinds(), 9)
  plan = measure.Plan.of(tokenizer, name, kinds(), 9, 0)
  assert 'bias' not in plan.kinds and 'they are left out' in caplog.text
  for other in ('copy', f'arc={tmp_path}/test.jsonl'):
    with pytest.raises(UserError, match='do not list choices by letters'):
      measure.Plan.of(tokenizer, other, kinds(), 2)


def test_choices_with_one_text_are_one_answer():
  q = variants.Question(None, 'x', ('no', 'yes', 'no', 'maybe'), 2)
  both = [variants.Variant(), variants.Variant(order='CDAB')]
  found = variants.choices([q], both, np.array([[0], [0]]))
  assert found.tolist() == [[0], [0]] and q.first(q.right) == 0


def test_variants_that_differ_by_chance_are_rarely_told_apart_and_real_ones_are():
  rng, told = np.random.default_rng(0), []
  for seed in range(100):
    easy = rng.random(120)
    scores = (rng.random((4, 120)) < easy).astype(float)
    told.append(spread.by_chance(scores, seed, 200)[1] < spread.LEVEL)
  assert sum(told) <= 11  # 5 are expected
  easy = rng.random(300)
  shift = np.array([0, 0, 0.2, 0])[:, None]
  scores = (rng.random((4, 300)) < easy - shift).astype(float)
  by_chance, p = spread.by_chance(scores)
  assert p < 0.01 and by_chance < np.ptp(scores.mean(1))
  assert spread.by_chance(np.ones((3, 5))) == (0, 1)


def test_the_difference_of_a_pair_is_one_of_independent_samples():
  ordinary = {'score': 0.9, 'interval': [0.8, 0.95]}
  changed = {'score': 0.5, 'interval': [0.4, 0.62]}
  found = adversarial.apart(ordinary, changed)
  assert found['difference'] == pytest.approx(-0.4)
  assert found['low'] == pytest.approx(-0.4 - np.hypot(0.1, 0.05))
  assert found['high'] == pytest.approx(-0.4 + np.hypot(0.12, 0.1))


def test_texts_in_the_page_are_escaped():
  bad = '<script>alert(1)</script>'
  picked = np.array([[0, 1], [1, 1]])
  results = {
    **{'task': 't', 'n': 2, 'score': 0.5},
    'kinds': {'labels': spread.kind([bad, 'b'], picked, picked, np.array([0, 1]))},
  }
  row = dict(task='t', question=f'{bad}?', choices=[bad, 'q'], answer=0)
  row['chosen'] = {'labels': {bad: 0, 'b': 1}}
  text = pages.render(page.page(results, [row]))
  assert html.escape(bad) in text and bad not in text
  assert '1 of 2 differ' in text


def asked(root, data, name, **given):
  given |= {'init_from': str(root / 'model'), 'data': str(data), 'examples': 4}
  given |= {'max_new': 4, 'batch': 4, 'formats': ('bare',), 'labels': ('1. 2. 3. 4.',)}
  return configs.edit(robustness_config.get_config(), given), str(root / name)


def test_the_experiment_stands_beside_other_runs_and_asks_pairs(tmp_path, data):
  final.save(tmp_path / 'model/final', toy.model(), toy.CONFIG, toy.tokenizer(tmp_path))
  experiment.main(*asked(tmp_path, data, 'one'))
  rows = [row for _, row in jsonl.read(tmp_path / 'one/choices.jsonl', 'x')]
  assert len(rows) == 4 and set(rows[0]['chosen']['order']) == set(DEFAULT.orders)
  one = (str(tmp_path / 'one'),)
  found = experiment.main(
    *asked(tmp_path, data, 'two', against=one, pairs=(('copy', 'sort'),), shots=4)
  )
  assert found['against'][0]['kinds'] == found['kinds']
  [pair] = found['pairs']
  assert pair['low'] <= pair['difference'] <= pair['high']
  assert found['tasks']['copy']['n'] == 4
  assert len(list(jsonl.read(tmp_path / 'two/answers.jsonl', 'x'))) == 8
  logged = '\n'.join(page.lines(found))
  assert 'Order of the choices: spread' in logged and 'copy → sort: ' in logged
  text = (tmp_path / 'two/report.html').read_text('utf-8')
  assert '<td>one</td>' in text and 'this model' in text and 'Adversarial' in text
  fewer, other = asked(tmp_path, data, 'three', against=one)
  with pytest.raises(UserError, match='it asked other questions'):
    experiment.main(configs.edit(fewer, {'seed': 1}), other)


@pytest.mark.parametrize(
  'given,message',
  [
    (dict(task=''), 'task and pairs are empty'),
    (dict(data=''), 'mmlu= needs a folder: write --data=DIR'),
    (dict(pairs=(('copy', 'copy'),)), 'copy is named twice'),
    (dict(pairs=(('copy', 'copi'),)), "task 'copi' is unknown"),
    (dict(against=('model',)), 'against=model: no finished run of robustness'),
    (dict(biases=(), labels=(), orders=(), formats=()), 'nothing varies'),
  ],
)
def test_what_cannot_be_asked_is_named(tmp_path, data, given, message):
  final.save(tmp_path / 'model/final', toy.model(), toy.CONFIG, toy.tokenizer(tmp_path))
  config, folder = asked(tmp_path, data, 'run')
  with pytest.raises(UserError, match=message):
    experiment.main(configs.edit(config, given), folder)
