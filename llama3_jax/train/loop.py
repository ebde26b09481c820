"""The one training loop: the stages of 3 and 4 differ by loss and data only."""

import dataclasses
import pathlib
import time

import jax
from absl import logging

from llama3_jax import axes
from llama3_jax import feed
from llama3_jax import mesh as meshes
from llama3_jax import quant
from llama3_jax.base import files
from llama3_jax.base import processes
from llama3_jax.base.errors import Preempted
from llama3_jax.base.errors import UserError
from llama3_jax.model import remat
from llama3_jax.pipeline import layout as layouts
from llama3_jax.pipeline import plans
from llama3_jax.train import checkpoint
from llama3_jax.train import goodput
from llama3_jax.train import guard as guards
from llama3_jax.train import health
from llama3_jax.train import metrics as reports
from llama3_jax.train import optim
from llama3_jax.train import schedule
from llama3_jax.train import signals
from llama3_jax.train import watchdog

QUIET_S = 30.0  # without a line in the log, at most


def run(config, workdir, model, train_step, data, params, evaluate=None):
  """Train to `config.train.steps`, resuming from the newest checkpoint in `workdir`.

  Args:
    config: ConfigDict with `optim` (OptimConfig) and `train`, see configs/pretrain.py.
    model: ModelConfig, for the FLOPs of a token.
    train_step: of step.compose. Where its loss is the Plan of a pipeline, `evaluate` is
      given parameters in the order of its layout.
    data: batch(size, length, share), state(), restore(state), tokens: the consumed
      tokens, which key the batch and sequence ramp.
    params: function without arguments that gives the initial parameters.
    evaluate: evaluate(params) -> {name: float}, at step 0, every eval_every, the end.

  Returns the final State, in the model's own order. Raises Preempted after saving when
  SIGTERM came, UserError when it cannot go on (bad steps, a corrupt device, a full
  disk).
  """
  one = _Run(config, workdir, model, train_step, data, params, evaluate)
  return plans.natural(one.train(), one.plan)


def check(config, model, plan=None):
  """Phases of the ramp; UserError when they or the model do not fit the mesh."""
  t = config.train
  least_1 = ('log_every', 'save_every', 'microbatches', 'keep', 'batch', 'length')
  for name in least_1:
    if t[name] < 1:
      raise UserError(f'train.{name}={t[name]}: a number of 1 or more is needed')
  for name in ('eval_every', 'keep_every', 'replay_every', 'stats_every'):
    if t[name] < 0:
      raise UserError(f'train.{name}={t[name]}: 0 (never) or more is needed')
  saves = min(t.keep, -(-t.steps // t.save_every))
  if t.get('average', 0) > saves > 0:
    raise UserError(
      f'train.average={t.average}: {saves} saves are kept; raise train.keep, lower '
      'train.save_every, or lower train.average'
    )
  o = config.optim
  if 0 < o.decay < o.warmup:
    raise UserError(
      f'optim.decay={o.decay} is before optim.warmup={o.warmup} ends: the '
      'learning rate would jump; raise decay or lower warmup'
    )
  guards.create(t)
  health.check(t.replay_every)
  quant.check(model.quant)
  remat.names(model.remat)
  m = axes.mesh()
  sizes = (1,) * len(axes.AXES) if m is None else m.axis_sizes
  meshes.check(sizes, model, plan is not None)
  phases = schedule.ramp(t)
  for p in phases:
    meshes.check_batch(sizes, p.batch, p.length, t.microbatches)
  return phases


def restore(checkpoints, state, step, layout):
  """(state, data) of a save, in the order of `layout` whatever it was saved in.

  `state`: arrays in that order; layout: of a pipeline, None: the model's own.
  """
  then = checkpoints.data(step).get('layout')
  then = then and layouts.Layout(**then)
  if then == layout:
    like = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
    return checkpoints.restore(jax.tree.map(like, state), step)
  mesh = jax.sharding.get_mesh()
  found, data = checkpoints.restore(layouts.saved(state, layout, then, mesh), step)
  return jax.jit(layouts.convert, static_argnums=(1, 2))(found, then, layout), data


class _Run:
  """One start of a run: what it holds between steps."""

  def __init__(self, config, workdir, model, train_step, data, params, evaluate):
    t = self.t = config.train
    self.config, self.workdir, self.model = config, pathlib.Path(workdir), model
    self.train_step, self.guard = train_step, train_step.guard
    self.data, self.params, self.evaluate = data, params, evaluate
    self.plan = train_step.loss if isinstance(train_step.loss, plans.Plan) else None
    self.phases = check(config, model, self.plan)
    self.clock = goodput.Clock(workdir)
    self.checkpoints = checkpoint.open_run(workdir, t)
    self.state = self._fresh()
    self.step = self._restore(self.checkpoints.latest())
    self.writer = reports.Writer(workdir, self.step)
    self.late = _Late(self.writer, model, config, self.step, self.clock, self.guard)
    self.late.bad = int(self.state.health.bad)
    self.share, self.compiled = feed.share(), None
    self.several = jax.process_count() > 1
    self.stragglers = health.Stragglers()
    self.dog = watchdog.Watchdog(workdir, t.watchdog_s, t.watchdog_exit)

  def train(self):
    """All steps that are left; returns the final state."""
    self.clock.mark('start')
    progress = reports.progress(self.t.steps, self.step, self.config.experiment)
    try:
      with signals.listen() as asked, self.dog, progress as bar:
        if not self.step and self.t.steps:
          self._measure()
        while self.step < self.t.steps:
          self._advance()
          bar.update()
          self._after(asked)
      self.late.flush()
    finally:
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
    phase = schedule.phase(self.phases, self.data.tokens)
    rows = self.data.batch(phase.batch, phase.length, self.share)
    batch = feed.place(rows, self.share)
    if t.replay_every and self.step % t.replay_every == 0:
      health.replay(self.state, batch, self.train_step)
      self.clock.mark('replay')
    self.state, found = self.train_step(self.state, batch)
    self.stragglers.put(time.perf_counter() - start)
    if self.compiled != phase:
      jax.block_until_ready(found)
      self.compiled = phase
      self.clock.mark('compile')
    self.late.put(self.step, found, self.data.tokens, phase)
    self.clock.mark('step')

  def _after(self, asked):
    """What is due after a step: statistics, held-out loss, save, stop."""
    t, step = self.t, self.step
    last, stop, wish = step == t.steps, asked.stop(), False
    if not self.several:
      wish = asked.save()
    elif t.stats_every and step % t.stats_every == 0:
      row, wish = self.stragglers.gather(asked.save())
      self.writer.write(step, row)
    look = last or bool(t.eval_every and step % t.eval_every == 0)
    keep = last or stop or wish or step % t.save_every == 0
    # Rows first, then the save: a run that goes on from it lacks none of them. A bad
    # step is known before anything is saved, and a rewind at once, on every start.
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
    found = self.evaluate(self.state.params)
    self.writer.write(self.step, {'tokens': self.data.tokens, **found})
    shown = _line(found) or 'nothing is held out to measure'
    logging.info('step %d %s', self.step, shown)
    self.clock.mark('evaluate')

  def _save(self):
    self.dog.beat(f'the save of step {self.step}')
    data = {'data': self.data.state(), 'tokens': self.data.tokens}
    data['useful_s'] = self.clock.useful
    data['layout'] = self.plan and dataclasses.asdict(self.plan.layout)
    self.checkpoints.save(self.step, self.state, data)
    self.clock.mark('save')

  def _fresh(self):
    params = self.params()
    if self.plan:
      params = jax.jit(layouts.arrange, static_argnums=1)(params, self.plan.layout)
    return self.train_step.start(params)

  def _restore(self, step):
    """Takes the save of `step` (None: keeps the fresh state); returns its step."""
    useful = 0.0
    if step is not None:
      now = self.plan and self.plan.layout
      self.state, saved = restore(self.checkpoints, self.state, step, now)
      self.data.restore(saved['data'])
      useful = saved.get('useful_s', 0.0)
      logging.info('resumed at step %d, %d tokens', step, self.data.tokens)
    elif reports.read(self.workdir):
      folder = self.checkpoints.folder
      logging.warning('%s holds no save: the run begins again at step 0', folder)
    self.clock.back(useful)
    for rewind in self._rewinds():
      if rewind['to'] == (step or 0):
        self.data.restore(rewind['data'])
    return step or 0

  def _rewinds(self):
    path = self.workdir / 'rewinds.json'
    return files.read_json(path) if path.exists() else []

  def _rewind(self):
    """Back to a save of `rewind_steps` ago, and on with the data that is next now.

    The saves after it are removed first: should the run die before rewinds.json is
    written, it meets the same bad step again.
    """
    t, bad, data = self.t, self.step, self.data.state()
    found, before = self._rewinds(), self.data.tokens
    if len(found) >= t.max_rewinds:
      raise UserError(
        f'step {bad} is bad after {len(found)} rewinds (train.max_rewinds): look at '
        'the data and at optim.peak, or go on with train.on_bad_step=skip'
      )
    self.dog.beat(f'the rewind from step {bad}')
    self.checkpoints.wait()
    kept = self.checkpoints.steps()
    old = [s for s in kept if s <= bad - t.rewind_steps] or kept[:1] or [None]
    target = old[-1]
    self.checkpoints.forget(target or 0)
    if target is None:
      self.state = self._fresh()
    found.append({'to': target or 0, 'from': bad, 'tokens': before, 'data': data})
    processes.write_json(self.workdir / 'rewinds.json', found)
    self.step = self._restore(target)
    self.writer.close()
    self.writer = self.late.writer = reports.Writer(self.workdir, self.step)
    row = {'rewind_from': bad, 'rewinds': len(found), 'tokens': self.data.tokens}
    self.writer.write(self.step, row)
    self.late.back(self.step, int(self.state.health.bad))
    logging.warning(
      'step %d was bad: back to step %d, on with other data', bad, self.step
    )
    self.clock.mark('lost')


_rate = jax.jit(schedule.learning_rate, static_argnums=1)


class _Late:
  """Writes a step's metrics while the next one runs: fetching them would wait."""

  def __init__(self, writer, model, config, done, clock, guard):
    self.writer, self.schedule = writer, optim.OptimConfig(**config.optim).schedule
    self.t, self.clock, self.guard = config.train, clock, guard
    self.every, self.steps = config.train.log_every, config.train.steps
    self.meter = reports.Meter(model)
    self.pending, self.tokens, self.done = None, 0, done
    self.bad, self.rewind = 0, False
    self.first, self.began = done, time.perf_counter()
    self.told = self.began

  def back(self, done, bad):
    """After a rewind to step `done`, where `bad` steps had been bad."""
    self.pending, self.tokens, self.done = None, 0, done
    self.bad, self.rewind = bad, False

  def put(self, step, found, tokens, phase):
    self.flush()
    self.tokens += phase.batch * phase.length
    self.pending = (step, found, tokens, phase)

  def flush(self):
    if self.pending is None:
      return
    step, found, tokens, phase = self.pending
    self.pending = None
    acts = self.guard and self.guard.policy in ('rewind', 'stop')
    due = step % self.every == 0 or step in (self.steps, self.done + 1)
    if acts or due:
      self._judge(step, found)
    now = time.perf_counter()
    if not due and now - self.told > QUIET_S:
      logging.info('step %d/%d loss %.4g', step, self.steps, float(found['loss']))
      self.told = now
    if not due or self.rewind:
      return
    row = {k: float(v) for k, v in found.items()}
    row['tokens'] = tokens
    # optax reads the schedule before it counts the step
    row['lr'] = float(_rate(step - 1, self.schedule))
    row |= self.meter.rates(self.tokens, phase.length)
    row['goodput'] = self.clock.goodput()
    self.tokens = 0
    self.writer.write(step, row)
    ended = step in (1, self.steps)
    if ended or step % (10 * self.every) == 0 or now - self.told > QUIET_S:
      pace = (now - self.began) / max(step - self.first, 1)
      left = pace * (self.steps - step)
      logging.info('%s', reports.line(step, self.steps, row, left))
      self.told = now

  def _judge(self, step, found):
    """Says what the guard did until `step`; UserError where the run must end."""
    if not self.guard or int(found['bad_steps']) == self.bad:
      return
    more, self.bad = int(found['bad_steps']) - self.bad, int(found['bad_steps'])
    shown = ', '.join(f'{k} {float(found[k]):.4g}' for k in ('loss', 'grad_norm'))
    policy = self.guard.policy
    if policy == 'stop':
      raise UserError(
        f'step {step} is bad ({shown}) and train.on_bad_step=stop: look at its data, '
        'or go on with --config.train.on_bad_step=skip'
      )
    streak = int(found['bad_streak'])
    if policy != 'rewind' and streak >= self.t.max_bad_steps:
      raise UserError(
        f'{streak} bad steps in a row until step {step} ({shown}; train.max_bad_steps)'
        ': look at the data and at optim.peak, or rewind with train.on_bad_step=rewind'
      )
    self.rewind = policy == 'rewind'
    done = 'clipped or skipped' if policy == 'clip' else 'skipped'
    if not self.rewind:
      logging.warning('step %d: %d bad %s (%s)', step, more, done, shown)


def _line(row):
  return ' '.join(f'{k} {v:.4g}' for k, v in row.items())
