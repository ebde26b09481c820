"""De-duplication of lines, and removal of lines by other rules."""

import global_steps
import pytest

from llama3_jax.curate.duplicates import lines
from llama3_jax.curate.machine import documents
from llama3_jax.curate.measures import repetition
from llama3_jax.curate.rules import c4

LINE = 'Share this page with 12 friends!'
CONFIG = lines.Config()


def rows(copies, **fields):
  return [
    {'text': f'text number {chr(97 + i)}\n{LINE}', **fields} for i in range(copies)
  ]


def run(*found, config=CONFIG):
  return global_steps.run(lines, global_steps.batch([*found]), config)


def kept(found):
  return sum(LINE in t for t in documents.take(found, 'text', documents.alive(found)))


def test_a_line_seen_6_times_stays_and_seen_7_times_goes_everywhere():
  assert kept(run(*rows(6))) == 6
  assert kept(run(*rows(7))) == 0


def test_copies_in_different_shards_count_together():
  shards = [[global_steps.batch([row], i)] for i, row in enumerate(rows(7))]
  state = global_steps.state(lines, shards, CONFIG)
  assert [kept(lines.step(batch, CONFIG, state)) for (batch,) in shards] == [0] * 7


def test_repeats_inside_one_document_count_too():
  found = run({'text': '\n'.join(['again and again'] * 7 + ['one'])})
  assert documents.take(found, 'text', [0]) == ['one']


def test_counts_do_not_leak_between_languages():
  assert kept(run(*rows(6, lang='en'), *rows(6, lang='de'))) == 12
  everywhere = lines.Config(scope=())
  assert kept(run(*rows(6, lang='en'), *rows(6, lang='de'), config=everywhere)) == 0


def test_counts_do_not_leak_between_buckets():
  assert kept(run(*rows(12), config=lines.Config(bucket=6))) == 12
  assert kept(run(*rows(12), config=lines.Config(bucket=7))) == 5


def test_counts_skip_dropped_documents():
  batch = documents.drop(global_steps.batch(rows(7)), {0: ('x.y', None)})
  assert kept(global_steps.run(lines, batch, CONFIG)) == 6


def test_code_is_left_alone():
  assert kept(run(*rows(20, category='code'))) == 20


def test_empty_lines_and_rules_stay():
  found = run({'text': 'a\n\n---\n' * 6})
  assert documents.take(found, 'text', [0])[0].count('---') == 6


def test_a_document_of_frequent_lines_only_is_dropped():
  found = run(*[{'text': LINE}] * 7, {'text': 'Something else.'})
  assert list(documents.alive(found)) == [7]
  assert found['drop_reason'][0].as_py() == 'line.nothing_left'


LOG = 'Error: the connection of worker {} to the server has been lost after {} seconds'
PROSE = 'A heading\n\nThe cat sat on the mat, and nobody was there to see that it did.'


def test_lines_of_a_log_go_though_each_is_unique_and_prose_stays():
  log = '\n'.join(LOG.format(f'n{i}', i * 7) for i in range(9))
  batch = global_steps.batch([{'text': f'{PROSE}\n{log}'}, {'text': PROSE}])
  found = repetition.step_lines(batch, repetition.LineConfig())
  # the first of its kind is no copy
  expected = f'{PROSE}\n{LOG.format("n0", 0)}'
  assert found['text'].to_pylist() == [expected, PROSE]
  config = repetition.LineConfig(every_copy=True)
  assert repetition.step_lines(batch, config)['text'].to_pylist() == [PROSE, PROSE]


@pytest.mark.parametrize('new, stays', [(7, False), (8, True), (9, True)])
def test_a_line_half_covered_stays_and_one_above_goes(new, stays):
  words = [f'aa{chr(97 + i)}{chr(97 + k)}' for i in range(4) for k in range(26)]
  text = ' '.join(words[:8]) + '\n' + ' '.join(words[:8] + words[20 : 20 + new])
  found = repetition.step_lines(
    global_steps.batch([{'text': text}]), repetition.LineConfig()
  )
  assert (found['text'][0].as_py() == text) is stays


def test_text_after_the_part_that_is_judged_stays():
  log = '\n'.join([LOG] * 3)
  batch = global_steps.batch([{'text': f'äöü\n{log}\n{log}'}])
  config = repetition.LineConfig(max_characters=len(f'äöü\n{log}'))
  found = repetition.step_lines(batch, config)
  assert found['text'][0].as_py() == f'äöü\n{LOG}\n{log}'


def test_a_document_of_a_log_only_is_dropped():
  batch = global_steps.batch([{'text': '\n'.join([LOG] * 3)}])
  config = repetition.LineConfig(every_copy=True)
  found = repetition.step_lines(batch, config)
  assert found['drop_reason'].to_pylist() == ['repetition.nothing_left']
  assert found['text'].to_pylist() == batch['text'].to_pylist()


def c4_text(text, config, category='general'):
  batch = global_steps.batch([{'text': text, 'category': category}])
  return c4.step_lines(batch, config)['text'][0].as_py()


def test_c4_removes_notices_and_long_words_and_leaves_code_alone():
  notices = ['Please enable JavaScript.', 'We use cookies, see our privacy policy.']
  text = '\n'.join(['A line.', *notices, 'x' * 1001, 'Last'])
  assert c4_text(text, c4.Config()) == 'A line.\nLast'
  assert c4_text(text, c4.Config(), 'code') == text
  long = 'Javascript is a language. ' + 'It has words. ' * 10
  assert c4_text(long, c4.Config()) == long
  assert c4_text(f'A.\n{long}', c4.Config(max_line_words=0)) == 'A.'


def test_c4_terminal_punctuation_and_words_of_a_line_are_switches():
  text = 'A heading of words\n\nToo short.\nThis one stays.'
  assert c4_text(text, c4.Config(terminal=True)) == 'Too short.\nThis one stays.'
  found = c4_text(text, c4.Config(min_words=3))
  assert found == 'A heading of words\n\nThis one stays.'


def test_a_removed_line_leaves_no_second_blank_line():
  texts = [
    f'{LINE}\n\n{LINE}\n\none {chr(97 + i)}\n\n{LINE}\n\n\ntwo {chr(97 + i)}'
    for i in range(7)
  ]
  found = run(*({'text': text} for text in texts))
  assert documents.take(found, 'text', [0]) == ['one a\n\ntwo a']
  untouched = run({'text': 'one\n\n\ntwo'})
  assert documents.take(untouched, 'text', [0]) == ['one\n\n\ntwo']
