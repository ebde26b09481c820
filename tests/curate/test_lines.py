"""De-duplication of lines, and removal of lines by other rules."""

import itertools

import global_steps
import pytest

from llama3_jax.curate.duplicates import lines
from llama3_jax.curate.machine import documents
from llama3_jax.curate.measures import logs
from llama3_jax.curate.measures import repetition
from llama3_jax.curate.measures import words
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


@pytest.mark.parametrize('new, stays', [(5, False), (6, True), (7, True)])
def test_a_line_covered_to_the_limit_stays_and_one_above_goes(new, stays):
  words = [f'aa{chr(97 + i)}{chr(97 + k)}' for i in range(26) for k in range(26)]
  head = words[-9:]
  log = [' '.join(head + words[new * i : new * i + new]) for i in range(20)]
  text = '\n'.join(log)
  found = cut(text, repetition.LineConfig(coverage=0.6))
  assert found == (text if stays else log[0])


def cut(text, config=repetition.LineConfig(), **fields):
  found = repetition.step_lines(global_steps.batch([{'text': text, **fields}]), config)
  return found['text'][0].as_py()


REFERENCE = (
  # parallel sentences
  'Returns the larger of the two numbers that the caller gave to the function.\n'
  'Returns the smaller of the two numbers that the caller gave to the function.',
  # columns with descriptions between them
  '\n\n'.join(
    f'{name} oid (references main_types.oid)\n\nThe {name} of what a row describes'
    for name in ('owner', 'element', 'parent', 'array', 'base', 'range', 'domain')
  ),
  # signatures
  '\n'.join(
    f'{name} ( first integer, second integer ) → integer'
    for name in ('add', 'take', 'gcd', 'lcm', 'times', 'least', 'most', 'mean', 'sum')
  ),
  # a block of code, not ended or indented as such in every line
  '#define ALPHA_MODE_OF_THE_ENGINE 1 /* since 3.1 */\n'
  '#define BETA_MODE_OF_THE_ENGINE 2 /* since 3.2 */\n'
  '#define GAMMA_MODE_OF_THE_ENGINE 3 /* since 3.2 */\n'
  '#define DELTA_MODE_OF_THE_ENGINE 4 /* since 3.5 */\n'
  '#define SIGMA_MODE_OF_THE_ENGINE 5 /* since 3.6 */\n'
  '#define KAPPA_MODE_OF_THE_ENGINE 6 /* since 3.7 */\n'
  '#define OMEGA_MODE_OF_THE_ENGINE 7 /* since 3.8 */',
  # rows of a table
  '\n'.join(
    f'Release {i}\tsupported until the end of 202{i}\t{name} edition'
    for i, name in enumerate(
      ('first', 'red', 'large', 'green', 'small', 'old', 'new', 'blue', 'last')
    )
  ),
  # a sentence that every entry repeats
  '\n'.join(
    f'{name}(value)\nPart of the stable interface since version 3.2 of it.'
    for name in ('open', 'close', 'read', 'write', 'seek', 'tell', 'flush')
  ),
)


@pytest.mark.parametrize('text', REFERENCE)
def test_reference_stays_whole(text):
  assert cut(f'{PROSE}\n\n{text}\n\n{PROSE}') == f'{PROSE}\n\n{text}\n\n{PROSE}'


@pytest.mark.parametrize('gap', ['\n', '\n\n'])
def test_logs_of_several_kinds_go(gap):
  names = 'river stone cloud table chair window engine socket buffer cache'.split()
  for line in (
    '10.0.{i}.7 - - [10/Oct/2023:13:{i}:36] "GET /{name}/{i}.html HTTP/1.1" 200 9{i}',
    'Oct 11 22:14:{i} host sshd[4{i}]: Failed password for {name} from 10.0.0.{i}',
    '2024-03-01 10:{i}:01 DEBUG opening the connection {i} to the {name} server',
    'Warning: expects parameter 1 to be resource in /home/user/{name}.php on line {i}',
    'Notice: undefined index: name in /var/www/html/index.php on line 42',
    'Die Verbindung zum Server {i} wurde unterbrochen, neuer Versuch in 1{i} Sekunden',
  ):
    log = [line.format(i=10 + i, name=names[i % 10]) for i in range(30)]
    left = cut(f'{PROSE}\n\n{gap.join(log)}')
    assert left.startswith(PROSE) and len(left) < len(PROSE) + 3 * len(log[0]), line


@pytest.mark.parametrize('lang', ['', 'zh'])
def test_words_with_a_digit_of_any_script_are_numbers(lang):
  texts = ['one 2 ab3c 4,5 x', 'a\n\n 7b\n½ c', 'no, none', '１２ x ١٢ é', '', '中3文']
  found = words.of(texts, lang)
  expected = [[0, 1, 1, 1, 1, 0], [0, 1, 1, 0], [0, 0], [1, 0, 1, 0], []]
  expected.append([0, 1, 0] if lang else [1])
  first = found.first
  digits = logs.digits(found).astype(int).tolist()
  assert [digits[a:b] for a, b in itertools.pairwise(first)] == expected


def test_a_table_is_cut_whole_or_not_at_all():
  rows = ['error\tthe connection to the server was lost\tagain'] * 40
  assert cut(f'{PROSE}\n\n' + '\n'.join(rows)) == PROSE
  rows[::3] = [f'{name}\tok' for name in 'abcdefghijklmn']
  text = f'{PROSE}\n\n' + '\n'.join(rows)
  assert cut(text) == text


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
