"""The one training loop: the stages of 3 and 4 differ only by loss and data."""

import dataclasses
import os
import pathlib
import time
from collections.abc import Callable
from collections.abc import Mapping

import jax
from absl import logging
from ml_collections import ConfigDict

from llama3_jax import feed
from llama3_jax.base import log
from llama3_jax.base.errors import Preempted
from llama3_jax.config import ModelConfig
from llama3_jax.pipeline import layout as layouts
from llama3_jax.pipeline import plans
from llama3_jax.reliable import goodput
from llama3_jax.reliable import health
from llama3_jax.reliable import rewind
from llama3_jax.reliable import signals
from llama3_jax.reliable import watchdog
from llama3_jax.train import checkpoint
from llama3_jax.train import config as configs
from llama3_jax.train import fit
from llama3_jax.train import late
from llama3_jax.train import metrics as reports
from llama3_jax.train import prefetch
from llama3_jax.train import resume
from llama3_jax.train.step import State
from llama3_jax.train.step import TrainStep


def run(
  config: configs.RunConfig | ConfigDict,
  workdir: str | os.PathLike,
  model: ModelConfig,
  train_step: TrainStep,
  data: object,
  params: Callable[[], object],
  evaluate: Callable[[object], Mapping[str, object]] | None = None,
) -> State:
  """Train to `config.train.steps`, resuming from the newest checkpoint in `workdir`.

  Args:
    config: RunConfig (train/config.py), or a ConfigDict with its parts.
    model: ModelConfig, for the FLOPs of a token.
    train_step: of step.compose. Where its loss is the Plan of a pipeline, `evaluate`
      receives parameters in the order of its layout.
    data: plan(batch, length), read(plan, share), state(), restore(state), tokens: the
      consumed tokens, which key the batch and sequence ramp (see prefetch.Batches).
    params: function without arguments that returns the initial parameters.
    evaluate: evaluate(params) -> {name: float, or what metrics.jsonl alone holds, such
        as texts}, called at step 0, every eval_every
      steps and at the end.

  Returns:
    The final State, layers in the model's own order.

  Raises:
    Preempted: SIGTERM was received; the step is saved.
    UserError: the run cannot continue (bad steps, a corrupt device, a full disk).
  """
  one = _Run(config, workdir, model, train_step, data, params, evaluate)
  return plans.natural(one.train(), one.plan)


class _Run:
  """State of one start of a run between steps."""

  def __init__(self, config, workdir, model, train_step, data, params, evaluate):
    config = configs.of(config)
    t = self.t = config.train
    self.config, self.workdir, self.model = config, pathlib.Path(workdir), model
    self.train_step, self.guard = train_step, train_step.guard
    self.params, self.evaluate = params, evaluate
    self.plan = train_step.loss if isinstance(train_step.loss, plans.Plan) else None
    phases, self.share = fit.check(config, model, self.plan), feed.share()
    self.data = prefetch.Batches(data, phases, self.share, t.prefetch)
    self.rewinds = rewind.Rewinds(workdir, t.rewind_steps, t.max_rewinds)
    self.clock = goodput.Clock(workdir)
    self.checkpoints = checkpoint.open_run(workdir, t)
    self.state = self._fresh()
    self.step = self._restore(self.checkpoints.latest())
    self.frozen = resume.frozen(self.state)  # computed once: it never changes
    self.writer = reports.Writer(workdir, self.step, t.wandb)
    self.late = late.Late(self.writer, model, config, self.step, self.clock, self.guard)
    self.late.bad = int(self.state.health.bad)
    self.compiled, self.several = None, jax.process_count() > 1
    self.stragglers = health.Stragglers()
    self.dog = watchdog.Watchdog(workdir, t.watchdog_s, t.watchdog_exit)

  def train(self):
    """Run all remaining steps; returns the final state."""
    self.clock.mark('start')
    progress = reports.progress(self.t.steps, self.step, self.config.experiment)
    try:
      with signals.listen() as requests, self.dog, progress as bar:
        if not self.step and self.t.steps:
          self._measure()
        while self.step < self.t.steps:
          self._advance()
          bar.update()
          self._after(requests)
      self.late.flush()
    finally:
      self.data.close()
      self.writer.close()
      self.checkpoints.close()
      self.clock.mark('save')
      self.clock.write()
    return self.state

  def _advance(self):
    """One step: batch, dispatch, and the metrics of the step before."""
    t, start = self.t, time.perf_counter()
    self.step += 1
    self.dog.beat(f'step {self.step}')
    phase, rows = self.data.take()
    batch = feed.place(rows, self.share)
    if t.replay_every and self.step % t.replay_every == 0:
      health.replay(self.state, batch, self.train_step)
      self.clock.mark('replay')
    if self.compiled == phase:
      self.state, metrics = self.train_step(self.state, batch)
      compiled = 0.0
    else:
      self.clock.mark('step')
      with log.work(f'compiling the step: {phase.batch} rows of {phase.length} tokens'):
        self.state, metrics = self.train_step(self.state, batch)
        jax.block_until_ready(metrics)
      self.compiled, compiled = phase, self.clock.mark('compile')
    self.stragglers.put(time.perf_counter() - start)
    self.late.put(self.step, metrics, self.data.tokens, phase, compiled)
    self.clock.mark('step')

  def _after(self, requests):
    """Do what is due after a step: statistics, held-out loss, save, stop."""
    t, step = self.t, self.step
    last, stop, wish = step == t.steps, requests.stop(), False
    if not self.several:
      wish = requests.save()
    elif t.stats_every and step % t.stats_every == 0:
      row, wish = self.stragglers.gather(requests.save())
      self.writer.write(step, row)
    look = last or bool(t.eval_every and step % t.eval_every == 0)
    keep = last or stop or wish or step % t.save_every == 0
    # Write metrics before saving, so that a resumed run has no gap. A bad step is known
    # before anything is saved, and a rewind happens at once, on every start.
    if look or keep or (self.guard and self.guard.policy == 'rewind'):
      self.late.flush()
      self.clock.mark('step')
    if self.late.rewind:
      self._rewind()
      look = keep = False
    if look:
      self._measure()
    if keep:
      self._save()
    if stop:
      self.checkpoints.wait()
      raise Preempted(f'stopped by SIGTERM after step {self.step}, which is saved')

  def _measure(self):
    if self.evaluate is None:
      return
    self.dog.beat(f'the evaluation after step {self.step}')
    with log.work(f'measuring what is held out, after step {self.step}'):
      losses = self.evaluate(self.train_step.view(self.state))
    self.writer.write(self.step, {'tokens': self.data.tokens, **losses})
    numbers = {k: v for k, v in losses.items() if isinstance(v, (int, float))}
    logging.info('%s', reports.held_out(self.step, self.t.steps, numbers))
    self.clock.mark('evaluate')

  def _save(self):
    self.dog.beat(f'the save of step {self.step}')
    data = {'data': self.data.state(), 'tokens': self.data.tokens}
    data['useful_s'] = self.clock.useful
    data['frozen'] = self.frozen
    data['layout'] = self.plan and dataclasses.asdict(self.plan.layout)
    with log.work(f'saving step {self.step}'):
      resume.save(self.checkpoints, self.state, self.step, data)
    self.clock.mark('save')

  def _fresh(self):
    params = self.params()
    if self.plan:
      params = jax.jit(layouts.arrange, static_argnums=1)(params, self.plan.layout)
    return self.train_step.start(params)

  def _restore(self, step):
    """Restore the save of `step` (None: keep the fresh state); returns its step."""
    useful = 0.0
    if step is not None:
      now = self.plan and self.plan.layout
      with log.work(f'reading the save of step {step}'):
        self.state, saved = resume.restore(self.checkpoints, self.state, step, now)
      self.data.restore(saved['data'])
      useful = saved.get('useful_s', 0.0)
      logging.info('resumed at step %d, %s tokens', step, f'{self.data.tokens:,}')
    elif reports.read(self.workdir):
      folder = self.checkpoints.folder
      logging.warning('%s holds no save: the run begins again at step 0', folder)
    self.clock.back(useful)
    for data in self.rewinds.data(step or 0):
      self.data.restore(data)
    return step or 0

  def _rewind(self):
    """Restore a save of `rewind_steps` ago, and continue with the data that is next."""
    bad = self.step
    self.dog.beat(f'the rewind from step {bad}')
    target, count = self.rewinds.back(bad, self.data, self.checkpoints)
    if target is None:
      self.state = self._fresh()
    self.step = self._restore(target)
    self.writer.close()
    self.writer = self.late.writer = reports.Writer(
      self.workdir, self.step, self.t.wandb
    )
    row = {'rewind_from': bad, 'rewinds': count, 'tokens': self.data.tokens}
    self.writer.write(self.step, row)
    self.late.back(self.step, int(self.state.health.bad))
    logging.warning('step %d was bad: back to step %d, with other data', bad, self.step)
    self.clock.mark('lost')
