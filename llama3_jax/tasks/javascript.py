r"""JavaScript, run by QuickJS in a program of Python in the sandbox (5.1.4).

What JavaScript reaches is what the engine gives, the language alone, and what PRELUDE
adds: `console`, and `require` of assert, crypto (hashes), js-md5 and util. No file, no
process, no timer and no network is among it, and the sandbox holds Python and engine
alike. Math.random gives the same numbers in every run.
"""

import importlib.util

from llama3_jax.tasks import reading

PACKAGES = ('_quickjs', 'quickjs')
STACK = 6 << 20  # bytes, of the 8 MiB that a program has: about 3,600 calls deep

# Evaluates to (what, code, name): of 'load' the value of a name after the code, of
# 'passed' whether assertions were reached and none failed. What it keeps is its own.
PRELUDE = r"""
(() => {
  const digest = globalThis.digest;
  delete globalThis.digest;
  const {is, keys, getPrototypeOf} = Object;
  let testing = false, reached = 0, failed = 0;

  const same = (a, b, strict) => {
    const plain = (x) => x === null || typeof x !== 'object';
    if (plain(a) || plain(b)) {
      if (plain(a) !== plain(b)) return false;
      return strict ? is(a, b) : a == b || (a !== a && b !== b);
    }
    if (a === b) return true;
    if (Array.isArray(a) !== Array.isArray(b)) return false;
    if (strict && getPrototypeOf(a) !== getPrototypeOf(b)) return false;
    for (const kind of [Date, RegExp, Map, Set]) {
      if (a instanceof kind !== b instanceof kind) return false;
    }
    if (a instanceof Date && a.getTime() !== b.getTime()) return false;
    if (a instanceof RegExp && String(a) !== String(b)) return false;
    if (a instanceof Map || a instanceof Set) {
      const left = [...b];
      if (a.size !== b.size) return false;
      for (const x of a) {
        const i = left.findIndex((y) => same(x, y, strict));
        if (i < 0) return false;
        left.splice(i, 1);
      }
    }
    const names = keys(a), own = Object.prototype.hasOwnProperty;
    return names.length === keys(b).length &&
      names.every((k) => own.call(b, k) && same(a[k], b[k], strict));
  };

  class AssertionError extends Error {}
  const due = (right, message) => {
    reached += 1;
    if (right) return;
    throw message instanceof Error ? message : new AssertionError(message);
  };
  const checks = (strict) => {
    const equal = (a, b) => strict ? is(a, b) : a == b || (a !== a && b !== b);
    const throws = (run) => {
      try { run(); } catch { return true; }
      return false;
    };
    const assert = (x, m) => due(x, m);
    return Object.assign(assert, {
      AssertionError,
      ok: (x, m) => due(x, m),
      fail: (m) => due(false, m),
      equal: (a, b, m) => due(equal(a, b), m),
      notEqual: (a, b, m) => due(!equal(a, b), m),
      strictEqual: (a, b, m) => due(is(a, b), m),
      notStrictEqual: (a, b, m) => due(!is(a, b), m),
      deepEqual: (a, b, m) => due(same(a, b, strict), m),
      notDeepEqual: (a, b, m) => due(!same(a, b, strict), m),
      deepStrictEqual: (a, b, m) => due(same(a, b, true), m),
      notDeepStrictEqual: (a, b, m) => due(!same(a, b, true), m),
      throws: (run, _, m) => due(throws(run), m),
      doesNotThrow: (run, _, m) => due(!throws(run), m),
    });
  };

  const hash = (name, text, form) => {
    const found = digest(JSON.stringify([name, String(text), form]));
    if (found === null) throw new Error('Digest method not supported');
    return found;
  };
  const createHash = (name) => {
    let text = '';
    const made = {
      update: (more) => { text += more; return made; },
      digest: (form) => hash(name, text, form),
    };
    return made;
  };
  const md5 = (text) => hash('md5', text, 'hex');
  const strict = checks(true);
  const modules = {
    'assert': Object.assign(checks(false), {strict}),
    'assert/strict': strict,
    'crypto': {createHash},
    'js-md5': Object.assign(md5, {md5, hex: md5}),
    'util': {isDeepStrictEqual: (a, b) => same(a, b, true)},
  };
  [strict, ...Object.values(modules)].forEach(Object.freeze);
  const require = (name) => {
    const short = String(name).replace(/^node:/, '');
    if (!Object.hasOwn(modules, short)) throw new Error(`Cannot find module '${name}'`);
    return modules[short];
  };

  const console = {
    // In Node.js it throws nothing; in a test it has to.
    assert: (right) => {
      if (!testing) return;
      reached += 1;
      failed += right ? 0 : 1;
      if (!right) throw new AssertionError('console.assert');
    },
  };
  for (const name of ['log', 'info', 'debug', 'warn', 'error', 'table', 'dir', 'trace',
                      'group', 'groupEnd', 'time', 'timeEnd']) {
    console[name] = () => {};
  }
  Object.freeze(console);
  const fixed = {writable: false, configurable: false, enumerable: false};
  Object.defineProperty(globalThis, 'console', {...fixed, value: console});
  Object.defineProperty(globalThis, 'require', {...fixed, value: require});

  let state = 1;
  Math.random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 4294967296;
  };

  const Build = Function;
  return (what, code, name) => {
    if (what === 'passed') return failed === 0 && reached > 0;
    const module = {exports: {}};
    const build = new Build('module', 'exports', `${code}\nreturn ${name};`);
    const found = build.call(module.exports, module, module.exports);
    testing = true;
    reached = 0;
    return found;
  };
})()
"""

DRIVER = """
import base64, hashlib, json, quickjs
def digest(given):
  name, text, form = json.loads(given)
  name, data = str(name).replace('-', ''), text.encode('utf-8', 'replace')
  try:
    found = hashlib.new(name, data, usedforsecurity=False).digest()
  except (ValueError, TypeError):  # must not reach the engine
    return None
  return base64.b64encode(found).decode() if form == 'base64' else found.hex()
def run(prelude, stack, given, code, name, test):
  context = quickjs.Context()
  context.set_max_stack_size(stack)
  context.add_callable('digest', digest)
  ask = context.eval(prelude)
  context.eval(given)
  context.set(name, ask('load', code, name))
  context.eval(test)
  assert ask('passed', '', '') is True, 'no assertion was reached, or one failed'
"""


def program(given: str, code: str, name: str, test: str) -> str:
  """A program of Python that fails unless the assertions of a test pass.

  given: JavaScript that comes before, such as functions that the question has; code:
  the answer, which defines `name`. Each part is parsed alone: none ends in another.
  """
  # The engine takes a null character for the end of a text.
  parts = [text.replace('\0', '\ufffd') for text in (given, code, name, test)]
  words = ', '.join(map(repr, (PRELUDE, STACK, *parts)))
  return f'{DRIVER}\nrun({words})\n'


def installed(task: str) -> None:
  """Raises a UserError where the engine is not installed; task: who asks."""
  if any(importlib.util.find_spec(name) is None for name in PACKAGES):
    raise reading.Absent(
      f"tasks: {task} needs quickjs-ng: pip install 'llama3_jax[javascript]'"
    )
