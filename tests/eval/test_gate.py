"""The gate of long-context pre-training, with fake training and judgement."""

import pytest

from llama3_jax.eval import gate


class Run:
  """A run whose gate opens at a step; stop_at raises in the training to that step."""

  def __init__(self, opens, stop_at=None):
    self.opens, self.stop_at, self.targets = opens, stop_at, []

  def train_to(self, steps):
    self.targets.append(steps)
    if steps == self.stop_at:
      raise KeyboardInterrupt
    return steps

  def judge(self, state):
    return {'pass': state >= self.opens, 'why': f'at {state}'}

  def go(self, path, attempts=3):
    return gate.train(path, 10, 5, attempts, self.train_to, self.judge)


def test_open_gate_ends_the_stage(tmp_path):
  state, judged = Run(opens=10).go(tmp_path / 'gate.json')
  assert state == 10 and [j['steps'] for j in judged] == [10]


def test_shut_gate_trains_on_until_it_opens(tmp_path):
  state, judged = Run(opens=20).go(tmp_path / 'gate.json')
  assert state == 20
  assert [(j['steps'], j['pass']) for j in judged] == [
    *((10, False), (15, False), (20, True))
  ]


def test_attempts_end(tmp_path):
  state, judged = Run(opens=1000).go(tmp_path / 'gate.json', attempts=2)
  assert state == 20 and len(judged) == 3 and not judged[-1]['pass']


def test_no_attempts_judges_once(tmp_path):
  state, judged = Run(opens=1000).go(tmp_path / 'gate.json', attempts=0)
  assert state == 10 and len(judged) == 1


def test_stopped_run_goes_on_with_its_attempt(tmp_path):
  path = tmp_path / 'gate.json'
  with pytest.raises(KeyboardInterrupt):
    Run(opens=20, stop_at=20).go(path)
  again = Run(opens=20)
  state, judged = again.go(path)
  assert again.targets[0] == 20 and state == 20
  assert judged == Run(opens=20).go(tmp_path / 'other.json')[1]


def test_finished_gate_is_not_judged_again(tmp_path):
  path = tmp_path / 'gate.json'
  first = Run(opens=15).go(path)
  again = Run(opens=15)
  again.judge = None
  assert again.go(path) == first and again.targets == [15]
