"""Chat templates give the text that transformers gives, and nothing else happens."""

import datetime
import json
import pathlib
import types

import numpy as np
import pytest
import templates

from llama3_jax.base.errors import UserError
from llama3_jax.text import template
from llama3_jax.text import templated
from llama3_jax.text.template import Template

GOLDENS = json.loads(
  (pathlib.Path(__file__).parent / 'goldens/templates.json').read_text('utf-8')
)
NOON = datetime.datetime(2024, 7, 26, 12)


def of(name):
  return Template(templates.TEMPLATES[name], templates.TOKENS, f'{name}.jinja')


def test_there_are_fifteen_kinds_or_more():
  assert len(templates.TEMPLATES) >= 15
  assert {key.split('/')[0] for key in GOLDENS} == set(templates.TEMPLATES)


@pytest.mark.parametrize('name', templates.TEMPLATES)
def test_text_is_that_of_transformers(name):
  """Goldens: render_jinja_template of transformers 5.24 at the same noon."""
  for key, golden in GOLDENS.items():
    kind, dialog, tools, prompt = key.split('/')
    if kind != name:
      continue
    used = (templates.WEATHER,) if tools == 'tools' else ()
    how = dict(tools=used, prompt=prompt == 'prompt', now=NOON)
    if 'error' in golden:
      with pytest.raises(UserError, match=f'{name}.jinja'):
        template.render(of(name), templates.DIALOGS[dialog], **how)
      continue
    assert template.render(of(name), templates.DIALOGS[dialog], **how) == golden['text']
    if golden.get('answers') and prompt == 'whole':
      made = template.answers(of(name), templates.DIALOGS[dialog], used)
      assert [list(span) for span in made.answers] == golden['answers']


def test_answers_are_what_an_answer_adds_to_the_open_prompt():
  made = template.answers(of('chatml'), templates.DIALOGS['long'])
  said = [made.text[start:end] for start, end in made.answers]
  assert said == [' b <|im_end|>\n', 'e<|im_end|>\n']
  made = template.answers(of('mistral'), templates.DIALOGS['answered'])
  assert [made.text[a:b] for a, b in made.answers] == ['Hello! How are you?</s>']


def test_a_template_that_writes_the_past_anew_is_refused():
  whole = Template(
    '{% for m in messages %}{{ loop.length }}{{ m.content }}{% endfor %}'
  )
  with pytest.raises(UserError, match='generation'):
    template.answers(whole, templates.DIALOGS['answered'])


@pytest.mark.parametrize(
  'source, reason',
  [
    ('{% for m in messages %}', 'does not parse: line 1'),
    ('a\n{{ messages[ }}', 'does not parse: line 2'),
    ("{{ ''.__class__.__mro__ }}", 'not allowed'),
    ('{{ messages.append(1) }}', 'not allowed'),
    ("{{ raise_exception('no\nway') }}", 'refuses this dialog: no way'),
    ('{{ messages[0].content + 1 }}', 'cannot be rendered'),
    ('{{ nothing.at.all }}', 'cannot be rendered'),
    ("{% include 'x' %}", 'cannot be rendered'),
    ("{{ 'a' * 10**12 }}", 'cannot be rendered'),
    ('{% for i in range(10**9) %}a{% endfor %}', 'cannot be rendered'),
    ('{{ messages | nothing }}', 'does not parse'),
  ],
)
def test_what_a_template_may_not_do_is_one_line(source, reason):
  with pytest.raises(UserError) as error:
    template.render(Template(source, where='model/x'), templates.DIALOGS['one'])
  assert reason in str(error.value) and '\n' not in str(error.value)
  assert 'model/x' in str(error.value)


def test_what_follows_the_end_of_an_answer_is_format():
  """The new line of ChatML after its end: said by the template, not the assistant."""
  ends = types.SimpleNamespace(specials={'<|im_end|>': 4, '<tool>': 5}, stop_ids={4})
  ids = np.array([7, 9, 5, 4, 8, 7, 4, 8, 8])
  response = np.array([0, 1, 1, 1, 1, 0, 1, 1, 1], bool)
  found = templated._format(ends, ids, response)
  assert found.tolist() == [True, False, True, True, True, True, True, True, True]
  assert not templated._format(ends, ids[:2], response[:2])[1]
