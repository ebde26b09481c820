"""Logs a step's metrics, and handles a bad step, while the next step runs."""

import time
from collections.abc import Mapping

import jax
import numpy as np
from absl import logging

from llama3_jax.base.errors import UserError
from llama3_jax.config import ModelConfig
from llama3_jax.reliable import goodput
from llama3_jax.reliable.guard import Guard
from llama3_jax.train import metrics as reports
from llama3_jax.train import schedule
from llama3_jax.train.config import RunConfig

QUIET_S = 20.0  # longest time without a step report; base/log.py allows 30 s
_rates = jax.jit(schedule.learning_rate, static_argnums=1)


class Late:
  """Writes a step's metrics while the next one runs: fetching them blocks."""

  def __init__(
    self,
    writer: reports.Writer,
    model: ModelConfig,
    config: RunConfig,
    done: int,
    clock: goodput.Clock,
    guard: Guard | None,
  ) -> None:
    self.writer = writer
    # At once for all steps: a computation among them would wait for the step before it.
    count = np.arange(max(config.train.steps, 1))
    self.rates = np.asarray(_rates(count, config.optim.schedule))
    self.t, self.clock, self.guard = config.train, clock, guard
    self.every, self.steps = config.train.log_every, config.train.steps
    self.meter = reports.Meter(model, clock.useful)
    self.pending, self.tokens, self.done = None, 0, done
    self.compiled, self.bad, self.rewind = 0.0, 0, False
    self.first, self.began = None, None  # the first step, and when it was done
    self.logged = time.perf_counter()

  def back(self, done: int, bad: int) -> None:
    """Continue after a rewind to step `done`, until which `bad` steps were bad."""
    self.pending, self.tokens, self.done = None, 0, done
    self.compiled, self.bad, self.rewind = 0.0, bad, False
    self.meter.last = self.clock.useful
    self.first = None

  def put(
    self,
    step: int,
    found: Mapping[str, jax.Array],
    tokens: int,
    phase: schedule.Phase,
    compiled: float = 0.0,
  ) -> None:
    """Write the pending metrics and keep those of `step`: `found`, device scalars.

    compiled: seconds of a step that was compiled first; its tokens count in no rate.
    """
    ended = None
    if all(getattr(x, 'is_ready', bool)() for x in found.values()):
      # This backend ran the step before it returned: none of the time from here on, in
      # which another step may run, is of this one.
      self.clock.mark('step')
      ended = self.clock.useful
    self.flush()
    self.compiled += compiled
    self.tokens += 0 if compiled else phase.batch * phase.length
    self.pending = (step, found, tokens, phase, ended)

  def flush(self) -> None:
    """Write the pending metrics, where due; UserError where the run must end."""
    if self.pending is None:
      return
    step, metrics, tokens, phase, ended = self.pending
    self.pending = None
    acts = self.guard and self.guard.policy in ('rewind', 'stop')
    due = step % self.every == 0 or step in (self.steps, self.done + 1)
    if acts or due:
      self._judge(step, metrics)
    if not due or self.rewind:
      self._quiet(step, metrics)
      return
    row = {k: float(v) for k, v in metrics.items()}
    row['tokens'] = tokens
    # optax reads the schedule before it counts the step.
    row['lr'] = float(self.rates[step - 1])
    self.clock.mark('step')
    ended = self.clock.useful if ended is None else ended
    row |= self.meter.rates(self.tokens, phase.length, ended)
    row |= {'compile_s': self.compiled} if self.compiled else {}
    row['goodput'] = self.clock.goodput()
    self.tokens, self.compiled = 0, 0.0
    self.writer.write(step, row)
    self._report(step, row)

  def _quiet(self, step, metrics):
    """One line where the next report is far."""
    now = time.perf_counter()
    if not self.rewind and now - self.logged > QUIET_S:
      logging.info('step %d/%d  loss %.3g', step, self.steps, float(metrics['loss']))
      self.logged = now

  def _report(self, step, row):
    """The line of a row, where it is due."""
    now, left = time.perf_counter(), None
    if self.first is None:
      self.first, self.began = step, now
    elif self.first < step < self.steps:
      left = (now - self.began) / (step - self.first) * (self.steps - step)
    ended = step in (self.first, self.steps)
    if ended or step % (10 * self.every) == 0 or now - self.logged > QUIET_S:
      logging.info('%s', reports.line(step, self.steps, row, left))
      self.logged = now

  def _judge(self, step, metrics):
    """Log what the guard did until `step`; UserError where the run must end."""
    if not self.guard or int(metrics['bad_steps']) == self.bad:
      return
    more, self.bad = int(metrics['bad_steps']) - self.bad, int(metrics['bad_steps'])
    values = ', '.join(f'{k} {float(metrics[k]):.4g}' for k in ('loss', 'grad_norm'))
    policy = self.guard.policy
    if policy == 'stop':
      raise UserError(
        f'step {step} is bad ({values}) and train.on_bad_step=stop: look at its data, '
        'or continue with --config.train.on_bad_step=skip'
      )
    streak = int(metrics['bad_streak'])
    if policy != 'rewind' and streak >= self.t.max_bad_steps:
      raise UserError(
        f'{streak} bad steps in a row until step {step} ({values}; train.max_bad_steps)'
        ': look at the data and at optim.peak, or rewind with train.on_bad_step=rewind'
      )
    self.rewind = policy == 'rewind'
    done = 'clipped or skipped' if policy == 'clip' else 'skipped'
    if not self.rewind:
      logging.warning('step %d: %d bad %s (%s)', step, more, done, values)
