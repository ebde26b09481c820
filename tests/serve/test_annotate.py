"""Properties of the page of annotation: what is written, once each, and by whom."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import urllib.request

import pytest

from configs import annotate as annotate_config
from experiments import annotate as recipe
from llama3_jax.base.errors import UserError
from llama3_jax.eval.pairwise import rows as pairwise_rows
from llama3_jax.post import annotators
from llama3_jax.post import asking
from llama3_jax.post import preference
from llama3_jax.post.annotators import Question
from llama3_jax.text.chat import Message

pytest.importorskip('starlette', reason="pip install -e '.[serve]'")
pytest.importorskip('httpx', reason="pip install -e '.[dev]'")
from starlette.testclient import TestClient  # noqa: E402

from llama3_jax.serve import annotate  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]


def questions(n=12):
  said = lambda text: Message('assistant', text)
  return [
    Question(
      f'q{i}',
      (Message('user', f'<i>{i}?'),),
      (said(f'a{i}'), said(f'b{i}')),
      ('m', 'n'),
    )
    for i in range(n)
  ]


def desk(folder, n=12, seed=0):
  return annotate.Desk(folder, questions(n), seed, 'people')


def client(made, names=()):
  return TestClient(annotate.application(made, names), raise_server_exceptions=True)


def lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_is_written_is_what_was_chosen_on_the_page(tmp_path):
  made = desk(tmp_path)
  web, seen = client(made), []
  state = web.get('/state').json()
  for i in range(12):
    item = state['item']
    shown, side, strength = item['answers'], i % 2, i % 4 + 1
    said = {'id': item['id'], 'side': side, 'strength': strength}
    if i == 5:
      said['edited'] = 'edited'
    state = web.post('/judge', json=said).json()
    best = ['edited'] * (i == 5) + [shown[side], shown[1 - side]]
    seen.append((item['id'], strength, best))
    assert (state['judged'], state['total']) == (i + 1, 12)
  assert state['item'] is None and not made.left
  found = preference.read(tmp_path / 'preferences.jsonl')
  said = [(e.id, e.strength, [m.content for m in e.responses]) for e in found]
  assert said == seen
  for example in found:  # the models went with their answers
    names = {'a': 'm', 'b': 'n', 'e': 'person'}
    assert example.models == tuple(names[m.content[0]] for m in example.responses)
  judged = annotators.labels(tmp_path / 'preferences.jsonl')(questions())
  assert None not in judged and judged[5].edited.content == 'edited'


def test_places_are_drawn_by_seed_and_row_and_models_are_not_shown(tmp_path):
  many = questions(300)
  order = lambda seed: [desk(tmp_path, 300, seed).swapped(q) for q in many]
  assert order(0) == order(0) != order(1)
  assert 110 < sum(order(0)) < 190
  made = desk(tmp_path)
  flips = [q for q in questions() if made.swapped(q)]
  assert flips and '"m"' not in client(made).get('/state').text
  for q in questions():
    item = client(made).get('/state').json()['item']
    assert item['answers'] == [m.content for m in q.answers][:: -1 if q in flips else 1]
    client(made).post('/skip', json={'id': q.id, 'reason': 'equal'})


def test_a_second_press_or_tab_never_writes_a_row_twice(tmp_path):
  made = desk(tmp_path)
  first, second = client(made), client(made)
  said = {'id': 'q0', 'side': 0, 'strength': 4}
  assert first.post('/judge', json=said).status_code == 200
  for web, path, body in (
    (first, '/judge', said),
    (second, '/judge', {**said, 'side': 1}),
    (second, '/skip', {'id': 'q0', 'reason': 'equal'}),
  ):
    answer = web.post(path, json=body)
    assert answer.status_code == 409 and 'done already' in answer.json()['error']
    assert answer.json()['item']['id'] == 'q1'  # and the page goes on
  assert len(lines(tmp_path / 'preferences.jsonl')) == 1
  assert not (tmp_path / 'skipped.jsonl').exists()


def test_seven_points_are_written_of_the_models_whatever_side_they_were_on(tmp_path):
  made = annotate.Desk(tmp_path, questions(14), 0, 'people', 'ann')
  web, said = client(made), {}
  state = web.get('/state').json()
  assert state['points'] == 7
  for i in range(14):
    item, point = state['item'], i % 7 + 1
    left = 'm' if item['answers'][0][0] == 'a' else 'n'
    said[item['id']] = point if left == 'm' else 8 - point, left == 'n'
    body = {'id': item['id'], 'point': point}
    if point == 7:
      body['edited'] = 'edited'
    state = web.post('/judge', json=body).json()
  assert state['item'] is None and state['judged'] == 14
  assert {swapped for _, swapped in said.values()} == {True, False}
  found, left = pairwise_rows.read([tmp_path / 'ratings.jsonl'])
  assert {o.item: (o.point, o.row['swapped']) for o in found} == said
  assert not left.counts() and {o.rater for o in found} == {'ann'}
  assert all(len(o.seen) == 1 for o in found) and found[8].seen == (2,)  # of the left
  prefer = preference.read(tmp_path / 'preferences.jsonl')
  assert {e.id for e in prefer} == {i for i, (point, _) in said.items() if point != 4}
  for example in prefer:
    point = said[example.id][0]
    assert example.strength == abs(point - 4) + 1
    best = example.responses[-2].content[0]  # without the edited one, which is above
    assert best == ('a' if point < 4 else 'b')


def test_a_row_killed_between_its_two_files_is_asked_again_and_written_once(tmp_path):
  made = annotate.Desk(tmp_path, questions(), 0, 'people', 'ann')
  for name in ('q0', 'q1'):
    client(made).post('/judge', json={'id': name, 'point': 1})
  path = tmp_path / 'ratings.jsonl'
  path.write_bytes(path.read_bytes()[:-9])  # the rating of q1 did not get there
  again = annotate.Desk(tmp_path, questions(), 0, 'people', 'ann')
  assert again.state()['item']['id'] == 'q1'
  assert [r['id'] for r in lines(tmp_path / 'preferences.jsonl')] == ['q0']
  client(again).post('/judge', json={'id': 'q1', 'point': 4})
  assert [r['id'] for r in lines(path)] == ['q0', 'q1']
  assert [r['id'] for r in lines(tmp_path / 'preferences.jsonl')] == ['q0']


@pytest.mark.parametrize(
  'path, more, word',
  [
    ('/judge', {'point': 0}, 'point must be 1 to 7'),
    ('/judge', {'point': 8}, 'point must be 1 to 7'),
    ('/judge', {'point': True}, 'point must be'),
    ('/judge', {'side': 0, 'strength': 1}, 'point must be'),
    ('/judge', {'point': 4, 'edited': 'new'}, 'which one is better'),
    ('/skip', {'reason': 'equal'}, 'are rated 4'),
  ],
)
def test_what_is_no_point_is_refused(tmp_path, path, more, word):
  made = annotate.Desk(tmp_path, questions(), 0, 'people', 'ann')
  answer = client(made).post(path, json={'id': 'q0', **more})
  assert answer.status_code == 400 and word in answer.json()['error']
  assert not list(tmp_path.iterdir())


def test_it_goes_on_where_it_stopped_also_after_half_a_line(tmp_path):
  web = client(desk(tmp_path))
  web.post('/judge', json={'id': 'q0', 'side': 0, 'strength': 1})
  web.post('/skip', json={'id': 'q1', 'reason': 'harmful'})
  web.post('/judge', json={'id': 'q2', 'side': 1, 'strength': 1})
  path = tmp_path / 'preferences.jsonl'
  path.write_bytes(path.read_bytes()[:-9])  # killed in the middle of a line
  again = desk(tmp_path)
  assert again.counts() == {'judged': 1, 'skipped': 1, 'total': 12}
  assert again.state()['item']['id'] == 'q2'
  client(again).post('/judge', json={'id': 'q2', 'side': 1, 'strength': 2})
  assert [row['id'] for row in lines(path)] == ['q0', 'q2']
  assert lines(tmp_path / 'skipped.jsonl') == [{'id': 'q1', 'reason': 'harmful'}]


@pytest.mark.parametrize(
  'path, said, word',
  [
    ('/judge', {'id': 'nobody', 'side': 0, 'strength': 1}, 'no row'),
    ('/judge', {'id': 'q0', 'side': 2, 'strength': 1}, 'side'),
    ('/judge', {'id': 'q0', 'side': True, 'strength': 1}, 'side'),
    ('/judge', {'id': 'q0', 'side': 0, 'strength': 5}, 'strength'),
    ('/judge', {'id': 'q0', 'side': 0, 'strength': 1, 'edited': ' '}, 'empty'),
    (
      '/judge',
      {'id': 'q0', 'side': 0, 'strength': 1, 'edited': 'b0'},
      'one of the two',
    ),
    ('/skip', {'id': 'q0', 'reason': 'bored'}, 'reason must be one of'),
    ('/skip', ['q0'], 'no row'),
  ],
)
def test_nonsense_is_refused_and_nothing_is_written(tmp_path, path, said, word):
  answer = client(desk(tmp_path)).post(path, json=said)
  assert answer.status_code == 400 and word in answer.json()['error']
  assert not list(tmp_path.iterdir())


def test_other_sites_cannot_write(tmp_path):
  web = client(desk(tmp_path), ('localhost', '127.0.0.1', '::1'))
  said = json.dumps({'id': 'q0', 'side': 0, 'strength': 1})
  send = lambda content, kind, host: web.post(
    '/judge', content=content, headers={'content-type': kind, 'host': host}
  )
  # A form of another site may send text; it may not send JSON without asking first.
  assert send(said, 'text/plain', '127.0.0.1:8001').status_code == 415
  assert send(said, 'application/json', 'evil.example').status_code == 421
  assert web.get('/state', headers={'host': '[::1]:8001'}).status_code == 200
  huge = b'"' + b'x' * annotate.BODY + b'"'
  assert send(huge, 'application/json', 'localhost').status_code == 413
  assert not list(tmp_path.iterdir())


def test_texts_reach_the_page_as_texts_and_the_page_loads_nothing_else(tmp_path):
  web = client(desk(tmp_path))
  page = web.get('/')
  policy = page.headers['content-security-policy']
  assert "default-src 'none'" in policy and 'unsafe' not in policy
  script = re.search('<script>(.*)</script>', page.text, re.S)[1]
  assert 'innerHTML' not in script and 'insertAdjacentHTML' not in script
  listed = re.search(r'const REASONS = \[(.*)\]', script)[1]
  assert tuple(re.findall(r"'([^']*)'", listed)) == annotate.REASONS
  assert web.get('/state').json()['item']['prompt'][0]['text'] == '<i>0?'


def config(**fields):
  c = annotate_config.get_config()
  with c.unlocked():
    c.update(fields)
  return c


def write(path, *rows):
  path.write_text('\n'.join(row if isinstance(row, str) else json.dumps(row)
                            for row in rows) + '\n')  # fmt: skip
  return str(path)


def test_judges_and_labels_are_an_ensemble_without_a_page(tmp_path, monkeypatch):
  good = {'B2': 'Answer B:\ngood', 'A3': 'Answer A:\ngood', 'hm': ''}
  ask = lambda texts: [next(k for k, v in good.items() if v in t) for t in texts]
  monkeypatch.setattr(asking, 'judge', lambda name, sample, batch: ask)
  row = lambda i, a, b: {'id': i, 'prompt': f'{i}', 'responses': [a, b]}
  asked = [row(0, 'good', 'bad'), row(1, 'bad', 'good'), row(2, 'x', 'y')]
  files = (write(tmp_path / 'c.jsonl', *asked, '{', row(3, 'z', 'z')),)
  labels = write(tmp_path / 'l.jsonl', {**row(0, 'good', 'bad'), 'strength': 4})
  got = recipe.main(
    config(files=files, judges=('judge=any', f'labels={labels}')), tmp_path / 'w'
  )
  assert (got['judged'], got['skipped'], got['total'], got['bad']) == (2, 1, 3, 2)
  assert got['counts'] == {'asked': 3, 'nonsense': 1}
  found = preference.read(tmp_path / 'w' / 'preferences.jsonl')
  assert [m.content for e in found for m in e.responses] == ['good', 'bad'] * 2
  for wrong in (('people', 'judge=x'), ('judge',), ('labels=',)):
    with pytest.raises(UserError, match='judges='):
      recipe.main(config(files=files, judges=wrong), tmp_path / 'x')


def test_every_judge_writes_its_ratings_of_seven_points(tmp_path, monkeypatch):
  good = {'B2': 'Answer B:\ngood', 'A3': 'Answer A:\ngood', '0': ''}
  ask = lambda texts: [next(k for k, v in good.items() if v in t) for t in texts]
  monkeypatch.setattr(asking, 'judge', lambda name, sample, batch: ask)
  score = lambda dialogs: [float(d[-1].content == 'good') for d in dialogs]
  monkeypatch.setattr(asking, 'scorer', lambda name, batch: score)
  row = lambda i, a, b: {'id': i, 'prompt': f'{i}', 'responses': [a, b],
                         'models': ['m', 'n'], 'category': 'c'}  # fmt: skip
  asked = [row(0, 'good', 'bad'), row(1, 'bad', 'good'), row(2, 'x', 'y')]
  files = (write(tmp_path / 'c.jsonl', *asked),)
  judges = ('judge=any', 'reward=r')
  got = recipe.main(config(files=files, judges=judges, scale=7), tmp_path / 'w')
  assert (got['judged'], got['skipped'], got['wins']) == (2, 1, {'m': 1, 'n': 1})
  found, left = pairwise_rows.read([tmp_path / 'w/ratings.jsonl'])
  said = [(o.item, o.rater, o.point, o.seen) for o in found]
  assert said == [
    ('0', 'judge=any', 2, (1, 6)),
    ('1', 'judge=any', 6, (6, 1)),
    ('2', 'judge=any', 4, (4, 4)),
    ('0', 'reward=r', 3, ()),  # sigma of 1 is 0.73
    ('1', 'reward=r', 5, ()),
  ]
  assert {o.category for o in found} == {'c'} and not left.counts()
  for wrong in ({'scale': 5}, {'scale': 7, 'rater': ' '}):
    with pytest.raises(UserError, match='scale=5|rater is empty'):
      recipe.main(config(files=files, **wrong), tmp_path / 'x')


def test_category_of_a_prompt_goes_with_the_answers_of_a_pool(tmp_path, monkeypatch):
  answer = lambda name, asked, **how: [Message('assistant', name) for _ in asked]
  monkeypatch.setattr(asking, 'answers', answer)
  score = lambda dialogs: [float(d[-1].content == 'x') * 9 for d in dialogs]
  monkeypatch.setattr(asking, 'scorer', lambda name, batch: score)
  asked = ({'prompt': '1', 'category': 'c', 'subcategory': 's'}, {'prompt': '2'})
  files = (write(tmp_path / 'p.jsonl', *asked),)
  fields = {'files': files, 'pool': ('x', 'y'), 'judges': ('reward=r',), 'scale': 7}
  assert recipe.main(config(**fields), tmp_path / 'w')['wins'] == {'x': 2}
  found, _ = pairwise_rows.read([tmp_path / 'w/ratings.jsonl'])
  assert [(o.category, o.subcategory) for o in found] == [('c', 's'), ('', '')]
  assert [(o.models, o.point) for o in found] == [(('x', 'y'), 1)] * 2


def test_the_command_serves_writes_and_ends_when_all_is_done(tmp_path):
  files = write(tmp_path / 'c.jsonl', {'prompt': 'Hi', 'responses': ['a', 'b']})
  words = ['--config=annotate', f'--files={files}', f'--workdir={tmp_path / "w"}']
  process = subprocess.Popen(
    [sys.executable, '-m', 'experiment', *words, '--config.port=0'],
    cwd=ROOT,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    stderr=subprocess.PIPE,
    text=True,
  )
  try:
    said = ''
    while not (at := re.search(r'page is at (http://127.0.0.1:\d+)', said)):
      line = process.stderr.readline()
      assert line, said
      said += line
    ask = lambda path, body=None: json.load(
      urllib.request.urlopen(
        urllib.request.Request(
          at[1] + path,
          body and json.dumps(body).encode(),
          {'content-type': 'application/json'},
        )
      )
    )
    item = ask('/state')['item']
    assert ask('/judge', {'id': item['id'], 'side': 0, 'strength': 3})['item'] is None
    assert process.wait(20) == 0
  finally:
    process.send_signal(signal.SIGKILL)
    process.wait()
  [example] = preference.read(tmp_path / 'w' / 'preferences.jsonl')
  assert example.responses[0].content == item['answers'][0] and example.strength == 3
  assert time.time() - (tmp_path / 'w/preferences.jsonl').stat().st_mtime < 60
