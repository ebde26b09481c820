"""HumanEval in JavaScript: answers are completed, run and held; files are checked."""

import importlib.util
import json
import re

import attacks
import pytest

from llama3_jax.base.errors import UserError
from llama3_jax.tasks import coding
from llama3_jax.tasks import humaneval_js
from llama3_jax.tasks import javascript
from llama3_jax.tasks import suite
from llama3_jax.tasks import task
from llama3_jax.tools import sandbox

GIVEN = '/* Half of it. */\nconst half = (x) => {\n  return x / 2;\n}\n\n'
QUESTION = GIVEN + '/*\n  Twice.\n  >>> double(2)\n  4\n  */\nconst double = (x) => {\n'
TEST = """
const testDouble = () => {
  console.assert(double(3) === 6);
  console.assert(half(2) === 1);
}
testDouble()
"""
PUBLISHED = """const assert = require('node:assert');
function test() {
  let candidate = pairs;
  assert.deepEqual(candidate([1, 2]), [[1, "a"], {"b": 2}]);
}
test();
"""


@pytest.fixture(autouse=True, scope='module')
def held():
  pytest.importorskip('quickjs', reason='the extra javascript is not installed')
  attacks.way()


@pytest.fixture(autouse=True)
def soon(monkeypatch):
  monkeypatch.setattr(coding, 'LIMITS', sandbox.Limits(cpu_s=2, wall_s=6.0))


def row(**more):
  given = dict(task_id='JavaScript/0', prompt=QUESTION, entry_point='double')
  return given | dict(canonical_solution='  return 2 * x;\n}\n', test=TEST) | more


def load(tmp_path, *rows):
  file = tmp_path / 'human_eval_js.jsonl'
  file.write_text(''.join(json.dumps(r) + '\n' for r in rows))
  return task.load(f'humaneval_js={tmp_path}')


def scores(tmp_path, answers, **more):
  loaded = load(tmp_path, row(**more))
  [e] = loaded.examples('heldout', 9, 0)
  return dict(zip(answers, task.scored(loaded, [(e, a) for a in answers])))


RIGHT = [
  '```javascript\nconst double = (x) => 2 * x\n```',
  'Here it is.\nfunction double(x) {\n  return x + x;\n}',
  '  return 2 * x;',
  'return 2 * x;\n}\n\nconst other = 3',
  '```js\n  return 2 * x;\n}\n```',
  'let double = x\nreturn 2 * double',  # a local of the body
  'const double = (\n  x\n) => 2 * x',
  'const two = 2\nvar double = function (x) { return two * x }\n'
  'module.exports = double',
  'const half = 7\nfunction double(x) { return 2 * x }',  # the question's stays
  'console.log("x".repeat(9))\nfunction double(x) { console.log(x); return 2 * x }',
  'console.assert(false)\nfunction double(x) { return 2 * x }',
  'function down(n) { return n ? down(n - 1) : 0 }\n'
  'function double(x) { return 2 * x + down(3000) }',
  'function double(x) {\r\n  return 2 * x;\r\n}',
]
WRONG = [
  '  return 2;',
  'function double(x) { return 3 }',
  'function twice(x) { return 2 * x }',
  'I do not know.',
  '',
  'function double(x) { return 2 * ',
]


def test_function_is_completed_or_replaced_and_run(tmp_path):
  assert scores(tmp_path, RIGHT) == dict.fromkeys(RIGHT, 1.0)
  assert scores(tmp_path, WRONG) == dict.fromkeys(WRONG, 0.0)


def test_reference_answer_is_right_and_a_model_sees_the_question(tmp_path):
  loaded = load(tmp_path, row())
  [e] = loaded.examples('heldout', 9, 0)
  assert suite.score(e, e.answer) == 1
  assert loaded.page(e) == QUESTION and QUESTION.strip() in loaded.prompt(e)
  assert loaded.max_new == 512 and loaded.shots == 0


BAD = 'function double(x) { return 3 }\n'
EARLY = [
  'while (true) {}',
  'function double(x) { while (true) {} }',
  'throw 0',
  f'{BAD}process.exit(0)',
  f'{BAD}quit()',
  '/*',
  '`',
  f'{BAD}}}); (() => {{',
  f'{BAD}return',
  'const double = (x) => { throw x }',
  f'{BAD}console.assert = () => {{}}',
  f'{BAD}globalThis.console = {{assert() {{}}}}',
  f"{BAD}Object.defineProperty(globalThis, 'console', {{value: {{assert() {{}}}}}})",
  f'{BAD}var console = {{assert() {{}}}}',
  f'{BAD}globalThis.testDouble = () => {{}}',
  f'{BAD}globalThis.Function = () => () => 6; Error = Number',
  'function double(x) { return "x".repeat(1 << 29).repeat(9) }',
  'function double(x) { const a = []; while (true) a.push(new Array(1e6).fill(x)) }',
  'function double(x) { return double(x) }',
]


def test_an_answer_that_ends_early_or_takes_too_long_is_wrong(tmp_path):
  assert scores(tmp_path, EARLY) == dict.fromkeys(EARLY, 0.0)


def test_a_test_that_asserts_nothing_is_not_passed(tmp_path):
  assert scores(tmp_path, RIGHT[:1], test='const f = () => {}') == {RIGHT[0]: 0.0}


SAME = """function pairs(xs) {
  return [[xs[0], 'a'], {b: xs[1]}];
}"""


@pytest.mark.parametrize(
  'answer,score',
  [
    (SAME, 1),
    (SAME.replace("'a'", "'b'"), 0),
    (SAME.replace('{b', '{c: 1, b'), 0),
    (SAME.replace('{b: xs[1]}', '{b: "2"}'), 1),  # equal to ==, as in Node.js
    (SAME.replace('{b: xs[1]}', '[2]'), 0),
    (f"{SAME.replace('xs[1]', '3')}\nconst a = require('assert'); a.deepEqual = a", 0),
    (SAME[SAME.index('\n') :], 1),
  ],
)
def test_rows_of_multipl_e_are_read_and_compared_in_depth(tmp_path, answer, score):
  question = '//Pairs of them.\nfunction pairs(xs){\n'
  published = dict(name='HumanEval_1_pairs', language='js', prompt=question)
  [e] = load(tmp_path, published | dict(tests=PUBLISHED)).examples('heldout', 9, 0)
  assert suite.score(e, answer) == score


ASSERTIONS = """
const assert = require('assert');
const strict = require('assert/strict');
const no = (run) => assert.throws(run);
assert(1); assert.ok('x'); no(() => assert(0)); no(() => assert.fail());
assert.equal(1, '1'); assert.equal(NaN, NaN); no(() => strict.equal(1, '1'));
assert.strictEqual(NaN, NaN); no(() => assert.strictEqual(0, -0));
assert.deepEqual(new Set([[1], [2]]), new Set([[2], [1]]));
no(() => assert.deepEqual(new Set([1]), new Set([2])));
assert.deepEqual(new Map([['a', {b: 1}]]), new Map([['a', {b: 1}]]));
no(() => assert.deepEqual(new Map([['a', 1]]), new Map([['a', 2]])));
no(() => assert.deepEqual([], {})); no(() => assert.deepEqual([1], [1, undefined]));
no(() => assert.deepEqual({a: undefined}, {b: undefined}));
assert.deepEqual(new Date(5), new Date(5));
no(() => assert.deepEqual(new Date(5), new Date(6)));
assert.deepEqual(null, undefined); no(() => assert.deepStrictEqual(null, undefined));
no(() => assert.deepEqual({}, null)); no(() => assert.deepEqual(/a/, /b/));
assert.notDeepEqual([1], [2]); no(() => strict.deepEqual([1], ['1']));
assert.strictEqual(require('util').isDeepStrictEqual({a: [1]}, {a: [1]}), true);
const md5 = '5f4dcc3b5aa765d61d8327deb882cf99', hash = require('crypto').createHash;
assert.equal(require('js-md5')('password'), md5);
assert.equal(hash('md5').update('pass').update('word').digest('hex'), md5);
assert.equal(hash('sha256').update('a\\0\\u00e9').digest('base64').length, 44);
no(() => require('fs')); no(() => require('constructor'));
no(() => hash('none').digest()); no(() => hash({}).digest('hex'));
no(() => hash('shake128').digest('hex'));
assert.deepEqual([Math.random(), Math.random()].map((x) => x < 1), [true, true]);
"""


def test_modules_that_are_offered_do_what_those_of_node_do():
  program = javascript.program('', 'const f = 1', 'f', ASSERTIONS)
  outcome = sandbox.run(program, packages=javascript.PACKAGES)
  assert outcome.status == 'ok', outcome.stderr


def test_random_numbers_are_the_same_in_every_run():
  test, drawn = 'throw new Error("drawn " + f)', set()
  for _ in range(2):
    program = javascript.program('', 'const f = Math.random()', 'f', test)
    outcome = sandbox.run(program, packages=javascript.PACKAGES)
    drawn.add(re.search(r'drawn 0\.\d+', outcome.stderr)[0])
  assert len(drawn) == 1


REACHED = """
const names = 'std os process Deno Bun fetch XMLHttpRequest WebSocket Worker load ' +
  'read print readFile scriptArgs bjson WebAssembly setTimeout digest module exports';
for (const name of names.split(' ')) console.assert(!(name in globalThis), name);
for (const name of Object.getOwnPropertyNames(globalThis)) {
  const value = globalThis[name];
  if (value === null || !['object', 'function'].includes(typeof value)) continue;
  console.assert(!('open' in value) && !('exec' in value && name !== 'RegExp'), name);
}
let found = 'nothing';
for (const name of ['std', 'os', 'fs', './program.py', '/etc/passwd']) {
  import(name).then(() => { found = name });
}
"""
JOBS = """
while context.execute_pending_job(): pass
print(context.eval('found'))
for text in ('f.constructor("return this")() === globalThis', 'typeof require.cache'):
  print(context.eval(text))
"""


def test_javascript_reaches_the_language_and_nothing_of_the_machine():
  program = javascript.program('', 'const f = () => 1', 'f', REACHED)
  program = program.replace(
    '  assert ask(', JOBS.replace('\n', '\n  ') + '\n  assert ask('
  )
  outcome = sandbox.run(program, packages=javascript.PACKAGES)
  assert outcome.status == 'ok', outcome.stderr
  assert outcome.stdout.split() == ['nothing', 'True', 'undefined']


@pytest.mark.parametrize(
  'bad,words',
  [
    (row(entry_point='treble'), "'entry_point' is 'treble', .*half, double"),
    (row(prompt='// nothing\n'), "'prompt' begins no function"),
    (row(test=' '), "'test' is empty"),
    (row(test=3), "'test' is a number"),
    ({k: v for k, v in row().items() if k != 'prompt'}, "'prompt' is missing"),
    (row(task_id='a'), 'task_id .a. is also in .*line 1'),
  ],
)
def test_function_that_is_no_question_names_its_line(tmp_path, bad, words):
  with pytest.raises(UserError, match=f'line 2: .*{words}'):
    load(tmp_path, row(task_id='a'), bad | {'x': 1}).examples('heldout', 1, 0)


def test_nothing_of_it_is_for_training_and_the_engine_is_named_before(monkeypatch):
  with pytest.raises(UserError, match='humaneval_js is held out as a whole'):
    task.load('humaneval_js=no_such_29c1').examples('train', 1, 0)
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(UserError, match=r"pip install 'llama3_jax\[javascript\]'"):
    humaneval_js.create('x')


# Their own assertions fail, in Node.js too.
BROKEN = ('evenOddCount', 'reverseDelete')


def test_reference_answers_pass_and_spoiled_ones_fail(assets):
  loaded = task.load(f'humaneval_js={assets}')
  rows = loaded.examples('heldout', 999, 0)
  assert len(rows) == 164
  good = [e for e in rows if e.checks[0] not in BROKEN]
  bodies = [(e, coding.extract(e.answer)[len(e.prompt.strip()) :]) for e in good]
  spoiled = lambda e: re.sub(r'\breturn\b', "return 'spoiled' +", bodies_of[e.prompt])
  bodies_of = {e.prompt: body for e, body in bodies}
  assert sum(task.scored(loaded, [(e, e.answer) for e in rows])) == 162 == len(good)
  assert sum(task.scored(loaded, bodies[:60])) == 60
  assert sum(task.scored(loaded, [(e, spoiled(e)) for e in good])) == 0
