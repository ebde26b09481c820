"""Every attack on the sandbox in every way this machine has, and what it costs."""

import os
import platform
import resource

import attacks
import pytest

from llama3_jax.tasks import javascript
from llama3_jax.tools import sandbox

LIMITS = sandbox.Limits(cpu_s=1, wall_s=2.0, memory_bytes=256 << 20)
PROGRAMS = 400
PER_CORE = 20  # programs a second


def there():
  """The ways of this machine, the strongest first."""
  ways = [way for way in sandbox.WAYS if way != 'none']
  return [way for way in ways if not sandbox._tried(way)[0]]


@pytest.mark.parametrize(
  'packages',
  [(), ('jinja2', 'markupsafe'), javascript.PACKAGES],
  ids=['alone', 'python', 'javascript'],
)
@pytest.mark.parametrize('way', [way for way in sandbox.WAYS if way != 'none'])
def test_attacks_do_not_leave(way, packages, tmp_path, monkeypatch, record):
  reason = sandbox._tried(way)[0]
  assert 'AssertionError' not in reason, reason  # there, and does not hold
  if reason:
    pytest.skip(f'{way}: {reason}')
  if platform.machine() != 'x86_64':
    pytest.skip('numbers of calls are those of x86_64')
  monkeypatch.setenv(attacks.VARIABLE, attacks.SECRET)
  target, verdicts, ends = attacks.Target(tmp_path), {}, {}
  with sandbox.Worker(way, packages) as worker:
    for attack in attacks.ALL:
      outcome = worker.run(target.program(attack), LIMITS)
      verdicts[attack] = attacks.verdict(attack, outcome, target, LIMITS)
      ends.setdefault(outcome.status, []).append(attack.name)
      assert worker.run('print(1)').stdout == '1\n', attack.name
  target.close()
  out = [f'{attack.name}: {text}' for attack, text in verdicts.items() if text]
  shown = '; '.join(f'{status}: {", ".join(names)}' for status, names in ends.items())
  user = 'root' if os.geteuid() == 0 else 'user'
  user += f', with {" and ".join(packages)}' if packages else ''
  record(
    f'sandbox, {way}, started by {user}: attacks: {len(verdicts)} tried, {len(out)} '
    'escaped',
    f'how each ended, {shown}',
    '100 tried, 0 escaped',
  )
  assert not out and len(verdicts) >= 100


def test_programs_a_second(record):
  [way, *_] = there() or pytest.skip('no way here')
  before = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, CHILDREN)]
  texts = ['import math\nassert math.comb(9, 3) == 84'] * PROGRAMS
  assert {o.status for o in sandbox.run_all(texts)} == {'ok'}
  after = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, CHILDREN)]
  spent = sum(
    a.ru_utime + a.ru_stime - b.ru_utime - b.ru_stime for a, b in zip(after, before)
  )
  rate = PROGRAMS / spent
  record(
    f'sandbox, {way}: {PROGRAMS} short programs, two at a time, with the start of '
    'their workers',
    f'{rate:.0f} a second of a core ({1000 * spent / PROGRAMS:.0f} ms each)',
    f'{PER_CORE} a second of a core',
  )
  assert rate >= PER_CORE


CHILDREN = resource.RUSAGE_CHILDREN
