"""A message is a message, from the JSONL line to the ids and back (4.1, 4.2)."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import post_examples as toy
import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.generate import draw
from llama3_jax.generate import engine
from llama3_jax.generate.settings import Settings
from llama3_jax.model import llama
from llama3_jax.post import best_of_k
from llama3_jax.post import preference
from llama3_jax.post import ranked
from llama3_jax.post import reject
from llama3_jax.post import reward
from llama3_jax.post import rows as rows_lib
from llama3_jax.post import sft
from llama3_jax.post import together
from llama3_jax.text import chat
from llama3_jax.text import tool_calls
from llama3_jax.text.chat import Message

CALL = {'name': 'get', 'arguments': {'city': 'x'}}
WEATHER = [
  {'role': 'user', 'content': 'weather?', 'context': 'CTX'},
  {'role': 'assistant', 'end': 'eom', 'calls': [CALL], 'python_tag': True},
]
ANSWERED = [
  *WEATHER,
  {'role': 'tool', 'content': '42'},
  {'role': 'assistant', 'content': 'It is 42.'},
]


@pytest.fixture(scope='module')
def tokenizer(tmp_path_factory):
  return toy.tokenizer(tmp_path_factory.mktemp('vocabulary'))


def supervised(tokenizer, messages, turns='last'):
  """Ids of the targets that an SFT row trains on."""
  dialog = sft.parse({'messages': messages}, 'row')
  made, dropped = sft.rows([dialog], tokenizer, 400, turns=turns)
  assert not dropped
  return made.targets[0][made.weight[0] > 0].tolist()


def test_row_that_ends_in_a_call_supervises_the_call_and_its_eom(tokenizer):
  text = json.dumps({'type': 'function', 'name': 'get', 'parameters': {'city': 'x'}})
  wanted = [tokenizer.python_tag, *tokenizer.encode(text), tokenizer.eom]
  assert supervised(tokenizer, WEATHER) == wanted


def test_answer_without_an_end_is_not_trained_to_stop(tokenizer):
  cut = [{'role': 'user', 'content': 'a'}]
  cut.append({'role': 'assistant', 'content': 'on and on', 'end': None})
  assert supervised(tokenizer, cut) == tokenizer.encode('on and on')


def test_turns_say_which_answers_are_supervised(tokenizer):
  last = [*tokenizer.encode('It is 42.'), tokenizer.eot]
  assert supervised(tokenizer, ANSWERED) == last
  every = supervised(tokenizer, ANSWERED, 'all')
  assert every == supervised(tokenizer, WEATHER) + last
  with pytest.raises(UserError, match='data.turns'):
    supervised(tokenizer, ANSWERED, 'some')


def test_message_survives_its_row():
  for row in ANSWERED:
    made = chat.message(row, 'row')
    again = chat.message(json.loads(json.dumps(chat.fields(made))), 'row')
    assert again == made


def test_responses_may_be_messages(tokenizer):
  row = {'prompt': WEATHER[:1], 'responses': [{'calls': [CALL], 'end': 'eom'}, 'dry']}
  example = preference.parse(row, 'row')
  made = preference.encode(tokenizer, example.prompt, example.responses[0])
  assert made.response[-1] == tokenizer.eom


BAD_PAIRS = [
  *({'responses': value} for value in ('ab', None, 5, ['a'], ['a', None], [1, 2])),
  *({'margin': value} for value in (float('nan'), float('inf'), True, '1', None)),
  *({'prompt': value} for value in ('', None, 5, [None], [5], [[]], ['x'], [])),
  {'source': 5},
]
BAD_MESSAGES = [
  *(None, 5, 'text', [], {'role': 'assistant', 'content': None}, {'content': 'x'}),
  *({'role': 'assistant', 'content': v} for v in (5, [], {})),
  *({'role': 'assistant', 'context': v} for v in (5, [], {})),
  *({'role': 'assistant', 'end': v} for v in (5, [], 'stop')),
  *({'role': 'assistant', 'python_tag': v} for v in (5, 'x')),
  *(
    {'role': 'assistant', 'calls': v} for v in (5, 'x', {}, [5], [{}], [{'name': 'f'}])
  ),
  {'role': 'assistant', 'calls': [{'name': 5, 'arguments': {}}]},
  {'role': 'assistant', 'calls': [{'name': 'f', 'arguments': 5}]},
  {'role': 'assistant', 'calls': [{'name': tool_calls.CODE, 'arguments': {'code': 5}}]},
  {'role': [], 'content': 'x'},
  {'role': 'assistant', 'content': 'x', 'ids': 'abc'},
  {'role': 'assistant', 'content': 'x', 'ids': [-1.5]},
]


@pytest.mark.parametrize('change', BAD_PAIRS)
def test_pair_of_a_wrong_type_is_one_line(tmp_path, change):
  good = {'prompt': [{'role': 'user', 'content': 'a'}], 'responses': ['a', 'b']}
  path = tmp_path / 'pairs.jsonl'
  path.write_text(json.dumps(good) + '\n' + json.dumps({**good, **change}) + '\n')
  with pytest.raises(UserError, match='pairs.jsonl, line 2') as error:
    preference.read(path)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('bad', BAD_MESSAGES)
def test_message_of_a_wrong_type_is_one_line(tmp_path, tokenizer, bad):
  path = tmp_path / 'sft.jsonl'
  asked = {'role': 'user', 'content': 'a'}
  bad = {'content': '', **bad} if isinstance(bad, dict) else bad
  path.write_text(json.dumps({'messages': [asked, bad]}))
  with pytest.raises(UserError, match='sft.jsonl, line 1') as error:
    sft.rows(sft.read(path), tokenizer, 100)
  assert '\n' not in str(error.value)


CALLED = {'role': 'assistant', 'calls': [{'name': 'f', 'arguments': {'x': 1}}]}


def called(name, **arguments):
  return {**CALLED, 'calls': [{'name': name, 'arguments': arguments}]}


@pytest.mark.parametrize(
  'bad, fault',
  [
    # Written, these are other calls, or no calls at all.
    (called('brave_search', query='a', count=5), 'read as another call'),
    (called('brave_search', query='x") + ("y'), 'read as another call'),
    (called('brave_search', query='x")'), 'read as another call'),
    (called(tool_calls.CODE, code='brave_search.call(query="x")'), 'as another call'),
    (called(tool_calls.CODE, code='x = 1', language='py'), 'read as another call'),
    (
      {**called(tool_calls.CODE, code='x = 1'), 'content': 'Let me see.'},
      'beside code',
    ),
    # These say nothing, or what only others may say.
    ({'role': 'assistant'}, "'content' is missing"),
    ({'role': 'assistant', 'content': ''}, 'says nothing'),
    ({'role': 'assistant', 'content': 'a', 'context': 'b'}, 'only a user has context'),
    ({'role': 'assistant', 'content': 'a', 'vocabulary': 'b'}, 'which are missing'),
  ],
)
def test_message_not_trained_as_it_stands(tmp_path, tokenizer, bad, fault):
  path = tmp_path / 'sft.jsonl'
  path.write_text(json.dumps({'messages': [{'role': 'user', 'content': 'a'}, bad]}))
  with pytest.raises(UserError, match=f'sft.jsonl, line 1.*{fault}'):
    sft.rows(sft.read(path), tokenizer, 200)


@pytest.mark.parametrize(
  'asked, fault',
  [
    ({'role': 'user', 'content': 'a', 'end': 'eom'}, 'is eot'),
    ({'role': 'system', 'content': 'a', 'end': None}, 'is eot'),
    ({'role': 'system', 'content': 'a', 'context': 'b'}, 'only a user has context'),
    ({'role': 'user', 'content': 'a', 'ids': []}, 'only an assistant has ids'),
    (
      {'role': 'assistant', 'content': 'a'},
      "prompt is the assistant's",
    ),
    ({'role': 'system', 'content': 'a'}, "last message of prompt is the system's"),
  ],
)
def test_prompt_that_nobody_asks(asked, fault):
  with pytest.raises(UserError, match=f'row.*{fault}'):
    preference.parse({'prompt': [asked], 'responses': ['a', 'b']}, 'row')


@pytest.mark.parametrize('call_format', tool_calls.FORMATS)
@pytest.mark.parametrize('name', ['f', 'f>', 'f(x', 'f"', 'f{', 'class', 'é'])
@pytest.mark.parametrize('arguments', [{}, {'x': [1, {'y': None}]}, {'a b': 'é")'}])
def test_a_call_is_read_as_written_or_refused(call_format, name, arguments):
  call = tool_calls.Call(name, arguments)
  try:
    text = tool_calls.write_all((call,), call_format)
  except UserError as error:
    assert 'read as another call' in str(error)
    assert name != 'f' or call_format == 'python_list'
  else:
    assert tool_calls.parse(text) == (call,)


def test_equal_answers_are_no_pair():
  asked = {'prompt': [{'role': 'user', 'content': 'a'}]}
  for responses in (['b', 'b'], ['b', 'c', 'b'], ['b', {'content': 'b'}]):
    with pytest.raises(UserError, match='row: responses 1 and . are equal'):
      preference.parse({**asked, 'responses': responses}, 'row')
  ended = ['b', {'content': 'b', 'end': 'eom'}]
  assert len(preference.parse({**asked, 'responses': ended}, 'row').responses) == 2


@pytest.mark.parametrize('read', [sft.read, preference.read])
def test_file_without_rows_and_fields_that_nothing_reads(tmp_path, read, caplog):
  path = tmp_path / 'x.jsonl'
  for empty in ('', '\n \n'):
    path.write_text(empty)
    with pytest.raises(UserError, match='data.files: .*x.jsonl holds no rows'):
      read(path)
  asked, said = {'role': 'user', 'content': 'a'}, {'role': 'assistant', 'content': 'b'}
  good = {'messages': [asked, said], 'source': 's', 'note': 'n'}
  if read is preference.read:
    good = {'prompt': [asked], 'responses': ['b', 'c'], 'margin': 1, 'note': 'n'}
  path.write_text((json.dumps(good) + '\n') * 2)
  assert len(read(path)) == 2
  assert [r.getMessage() for r in caplog.records if 'note' in r.getMessage()] == [
    f"{path}: field 'note' is not used; used are "
    + ('messages, tools, source, reward, id, metadata' if read is sft.read else FIELDS)
  ]
  line = json.dumps(good)
  path.write_text(line.replace('"source"', '"sorce"').replace('"margin"', '"magin"'))
  with pytest.raises(UserError, match="x.jsonl, line 1: .* is unknown: is it '"):
    read(path)
  path.write_text(line[:-1] + ', "note": 1}')
  with pytest.raises(UserError, match="x.jsonl, line 1.*field 'note' is there twice"):
    read(path)


FIELDS = 'prompt, responses, margin, strength, round, models, rewards, tools, '
FIELDS += 'source, reward, id, metadata'


@pytest.mark.parametrize(
  'text', [b'{"messages": "caf\xe9"}', b'[' * 100_000, b'null', b'[]', b'{"a"']
)
@pytest.mark.parametrize('read', [sft.read, preference.read])
def test_line_that_is_no_row_is_one_line(tmp_path, text, read):
  (tmp_path / 'x.jsonl').write_bytes(text)
  with pytest.raises(UserError, match='x.jsonl, line 1'):
    read(tmp_path / 'x.jsonl')


@pytest.fixture(scope='module')
def drawn(tokenizer):
  """Samples of a steered model, and the dialogs that the reward model was given."""
  seen = []
  score = together.rewards

  def watched(scorer, prompts, answers, *rest):
    seen.extend([*p, *a] for p, given in zip(prompts, answers) for a in given)
    return score(scorer, prompts, answers, *rest)

  scorer = reward.init(jax.random.key(1), toy.model(3), toy.CONFIG)
  prompts = [(Message('user', f'{i}+1?'),) for i in range(3)]
  patch = pytest.MonkeyPatch()
  patch.setattr(together, 'rewards', watched)
  found = toy.sampled(
    *(toy.model(), scorer, prompts, tokenizer),
    *(Settings(temperature=1.0, top_p=1.0, max_new=5), 4, 0, 2, 'Be terse.'),
  )
  patch.undo()
  return found, seen, scorer


def test_what_is_scored_is_what_was_sampled_without_the_steering(drawn, tokenizer):
  found, seen, scorer = drawn
  wanted = []
  for candidate in found:
    asked = chat.encode(tokenizer, candidate.prompt, prompt=True).ids.tolist()
    wanted += [asked + list(m.ids) for m in candidate.responses]
  assert [list(d) for d in seen] == wanted
  plain = reward.score(scorer, wanted, toy.CONFIG)
  rewards = [r for c in found for r in c.rewards]
  for value, score, ids in zip(rewards, plain, wanted):
    ended = ids[-1] in tokenizer.stop_ids
    assert value == (pytest.approx(score, abs=1e-5) if ended else reject.CUT)
  assert reject.CUT in rewards


def test_best_is_the_highest_reward():
  said = tuple(Message('assistant', t) for t in 'abcd')
  candidate = reject.Candidates((Message('user', 'q'),), said, (0.1, 0.9, -1.0, 0.5))
  assert candidate.best == 1
  [row] = reject.sft_rows([candidate])
  assert row['messages'][-1]['content'] == 'b' and row['reward'] == 0.9


def test_sft_learns_the_ids_that_were_sampled(tokenizer):
  # Never what decoding and encoding again would give: a tag within, two letters apart.
  ids = [
    tokenizer.python_tag,
    104,
    105,
    tokenizer.specials['<|reserved_special_token_2|>'],
  ]
  ids.append(tokenizer.eom)
  said = chat.sampled(tokenizer, ids)
  candidate = reject.Candidates((Message('user', 'q'),), (said,), (1.0,))
  [row] = json.loads(json.dumps(reject.sft_rows([candidate])))
  assert supervised(tokenizer, row['messages']) == ids


def test_ids_of_another_vocabulary_are_refused(tokenizer):
  said = dataclasses.replace(chat.sampled(tokenizer, [104, tokenizer.eot]))
  row = {**chat.fields(said), 'vocabulary': 'another'}
  with pytest.raises(UserError, match='vocabulary'):
    supervised(tokenizer, [{'role': 'user', 'content': 'q'}, row])


def test_padded_rows_are_never_sampled(tokenizer):
  config = dataclasses.replace(toy.CONFIG, vocab_size=520)
  params = jax.jit(llama.init, static_argnums=1)(jax.random.key(0), config)
  params = dataclasses.replace(params, head=params.head.at[:, 512:].multiply(50.0))
  for temperature in (0.0, 1.0):
    settings = Settings(temperature, 1.0, 0, 12, vocab_size=tokenizer.vocab_size)
    [[made]] = engine.generate(params, [[5, 6, 7]], config, (), settings)
    assert len(made.ids) == 12 and max(made.ids) < 512
    free = dataclasses.replace(settings, vocab_size=0)
    [[made]] = engine.generate(params, [[5, 6, 7]], config, (), free)
    assert max(made.ids) >= 512  # the test would see it


@pytest.mark.parametrize('heat', [0.5, 2.0])
def test_draws_follow_the_temperature(heat):
  p = np.array([0.1, 0.2, 0.3, 0.4])
  n = 20_000
  rules = draw.rules((1, n))
  rules.temperature[:], rules.key[0, :, 2] = heat, np.arange(n)
  logits = jnp.broadcast_to(jnp.log(p), (1, n, 4))
  [tokens] = draw.pick(logits, rules, np.zeros((1, n), np.int32))
  wanted = p ** (1 / heat) / (p ** (1 / heat)).sum()
  counts = np.bincount(tokens, minlength=4)
  assert ((counts - n * wanted) ** 2 / (n * wanted)).sum() < 20  # chi2 of 3 at 2e-4


def test_row_ends_at_any_of_its_stop_ids():
  params, found = toy.model(), {}
  settings = Settings(1.0, 1.0, 0, 10)
  [[free]] = engine.generate(params, [[5, 6, 7]], toy.CONFIG, (), settings)
  ids = [int(i) for i in free.ids]
  at = next(i for i in range(2, 10) if ids[i] not in ids[:i])
  unused = next(i for i in range(512) if i not in ids)
  for stops in ((unused, ids[at]), (ids[at], unused)):
    [[made]] = engine.generate(params, [[5, 6, 7]], toy.CONFIG, stops, settings)
    found[stops] = made
    assert made.stopped and [int(i) for i in made.ids] == ids[:at]


@pytest.mark.parametrize(
  'fields',
  [
    *({'temperature': v} for v in (-1.0, float('nan'), float('inf'), 1e-40)),
    *({'top_p': v} for v in (0.0, -0.1, 1.1, float('nan'))),
    *({'top_k': -1}, {'max_new': 0}, {'max_new': -5}),
  ],
)
def test_sampling_settings_without_a_meaning_are_refused(fields):
  with pytest.raises(UserError, match=f'sample.{next(iter(fields))}'):
    Settings(**fields)


def data(text='a', n=9):
  ids = [5, 6, 7, *text.encode()]
  made = [rows_lib.place([i + 1, *ids], 12) for i in range(n)]
  return rows_lib.stack(made)


def test_rows_that_were_edited_do_not_resume():
  rows = rows_lib.Rows(data(), 12)
  rows.batch(2, 12)
  state = json.loads(json.dumps(rows.state()))
  rows_lib.Rows(data(), 12).restore(state)
  with pytest.raises(UserError, match='workdir'):
    rows_lib.Rows(data('b'), 12).restore(state)
  old = {'served': state['served'], 'tokens': state['tokens']}
  again = rows_lib.Rows(data(), 12)
  again.restore(old)
  assert again.served == 2


def test_seed_orders_the_rows_and_the_packing(tokenizer):
  first = [rows_lib.Rows(data(), 12, s).batch(9, 12).tokens[:, 0] for s in (0, 1)]
  assert sorted(first[0]) == sorted(first[1]) and list(first[0]) != list(first[1])
  said = [{'role': 'user', 'content': 'q'}, {'role': 'assistant', 'content': ''}]
  dialogs = []
  for i in range(12):
    turns = [said[0], {**said[1], 'content': 'a' * (i + 1)}]
    dialogs.append(sft.parse({'messages': turns}, 'row'))
  packed = [sft.rows(dialogs, tokenizer, 60, seed=s)[0].tokens for s in (0, 1)]
  assert packed[0].shape != packed[1].shape or (packed[0] != packed[1]).any()


def test_tokens_count_no_padding():
  rows = rows_lib.Rows(data(), 12)
  batch = rows.batch(4, 12)
  assert rows.tokens == int((batch.segment > 0).sum()) < batch.segment.size


def test_margin_is_inside_the_sigmoid_and_ties_count_half(tokenizer):
  made, _ = ranked.rows(toy.examples(2), tokenizer, 200, 'exact')
  made = jax.tree.map(lambda array: array[:1], made)
  params = reward.init(jax.random.key(1), toy.model(3), toy.CONFIG)

  def at(margin):
    batch = made.replace(margin=np.full(1, margin, np.float32))
    total, metrics = reward.loss(params, batch, toy.CONFIG)
    return float(total), jax.tree.map(lambda v: float(v), metrics)

  plain, metrics = at(0.0)
  assert metrics['count'] == 1
  wanted = np.log1p(np.exp(1.5 - metrics['margin']))
  assert at(1.5)[0] == pytest.approx(wanted, rel=1e-5)
  equal = dataclasses.replace(params, head=jnp.zeros_like(params.head))
  assert float(reward.loss(equal, made, toy.CONFIG)[1]['accuracy']) == 0.5
  assert plain == pytest.approx(np.log1p(np.exp(-metrics['margin'])), rel=1e-5)


def test_curve_has_the_interval_of_the_mean_and_the_lowest_for_a_cut():
  rewards = np.array([[-1.0, -2.0], [-3.0, -5.0], [-1.5, -2.5], [-4.0, reject.CUT]])
  [one, two] = best_of_k.curve(rewards)
  full = np.where(np.isfinite(rewards), rewards, -5.0)
  assert one['reward'] == pytest.approx(full.mean())
  best = full.max(1)
  assert two['reward'] == pytest.approx(best.mean())
  assert two['ci'] == pytest.approx(1.96 * best.std(ddof=1) / 2)
