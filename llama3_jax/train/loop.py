"""The one training loop: the stages of 3 and 4 differ by loss and data only."""

import contextlib
import signal
import threading

import jax
from absl import logging

from llama3_jax import axes
from llama3_jax import mesh as meshes
from llama3_jax.config import Preempted
from llama3_jax.train import checkpoint
from llama3_jax.train import metrics as reports
from llama3_jax.train import optim
from llama3_jax.train import schedule
from llama3_jax.train import step as steps


def run(config, workdir, model, loss, data, params, evaluate=None):
  """Train to `config.train.steps`, resuming from the newest checkpoint in `workdir`.

  Args:
    config: ConfigDict with `optim` (OptimConfig) and `train`: steps, batch, length or
      ramp, microbatches, save_every, keep, eval_every, log_every.
    model: ModelConfig, for the FLOPs of a token.
    loss: loss(params, batch) -> (sum, metric sums with 'count').
    data: batch(size, length, shard), state(), restore(state), tokens: the consumed
      tokens, which key the batch and sequence ramp.
    params: function without arguments that gives the initial parameters.
    evaluate: evaluate(params) -> {name: float}, at step 0, every eval_every, the end.

  Returns the final State. Raises Preempted after saving when SIGTERM came.
  """
  t = config.train
  optimizer = optim.create(optim.OptimConfig(**config.optim))
  phases = check(config, model)
  state = jax.jit(steps.create, static_argnums=1)(params(), optimizer)
  checkpoints = checkpoint.Checkpoints(workdir, t.keep)
  state, done = _resume(checkpoints, state, data)
  writer = reports.Writer(workdir, done)
  shard = (jax.process_index(), jax.process_count())

  def save(step):
    checkpoints.save(step, state, {'data': data.state(), 'tokens': data.tokens})

  def measure(step):
    if evaluate is not None:
      found = evaluate(state.params)
      writer.write(step, {'tokens': data.tokens, **found})
      logging.info('step %d %s', step, _line(found))

  if done == 0 and t.steps:
    measure(0)
  late = _Late(writer, model, config, done)
  with _sigterm() as asked, reports.progress(t.steps, done, config.experiment) as bar:
    for step in range(done + 1, t.steps + 1):
      phase = schedule.phase(phases, data.tokens)
      batch = axes.batch(data.batch(phase.batch, phase.length, shard))
      state, found = steps.train_step(state, batch, loss, optimizer, t.microbatches)
      late.put(step, found, data.tokens, phase)
      bar.update()
      last, stop = step == t.steps, asked.is_set()
      look = last or (t.eval_every and step % t.eval_every == 0)
      keep = last or stop or step % t.save_every == 0
      # Rows first, then the save: a run that goes on from it lacks none of them.
      if look or keep:
        late.flush()
      if look:
        measure(step)
      if keep:
        save(step)
      if stop:
        checkpoints.close()
        raise Preempted(f'stopped by SIGTERM after step {step}, which is saved')
  late.flush()
  writer.close()
  checkpoints.close()
  return state


def check(config, model):
  """Phases of the ramp; UserError when they or the model do not fit the mesh."""
  m = axes.mesh()
  sizes = (1,) * len(axes.AXES) if m is None else m.axis_sizes
  meshes.check(sizes, model)
  phases = schedule.ramp(config.train)
  for p in phases:
    meshes.check_batch(sizes, p.batch, p.length, config.train.microbatches)
  return phases


def _resume(checkpoints, state, data):
  """(state, step) of the newest checkpoint, or the fresh state and 0."""
  abstract = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
  )
  found = checkpoints.restore(abstract)
  if found is None:
    return state, 0
  state, saved = found
  data.restore(saved['data'])
  logging.info('resumed at step %d, %d tokens', int(state.step), data.tokens)
  return state, int(state.step)


class _Late:
  """Writes a step's metrics while the next one runs: fetching them would wait."""

  def __init__(self, writer, model, config, done):
    self.writer, self.schedule = writer, optim.OptimConfig(**config.optim).schedule
    self.every, self.steps = config.train.log_every, config.train.steps
    self.meter = reports.Meter(model)
    self.pending, self.tokens, self.done = None, 0, done

  def put(self, step, found, tokens, phase):
    self.flush()
    self.tokens += phase.batch * phase.length
    self.pending = (step, found, tokens, phase)

  def flush(self):
    if self.pending is None:
      return
    step, found, tokens, phase = self.pending
    self.pending = None
    if step % self.every and step != self.steps and step != self.done + 1:
      return
    row = {k: float(v) for k, v in found.items()}
    row['tokens'] = tokens
    # optax reads the schedule before it counts the step
    row['lr'] = float(schedule.learning_rate(step - 1, self.schedule))
    row |= self.meter.rates(self.tokens, phase.length)
    self.tokens = 0
    self.writer.write(step, row)
    if step % (10 * self.every) == 0 or step in (1, self.steps):
      logging.info('step %d/%d %s', step, self.steps, _line(row))


def _line(row):
  return ' '.join(f'{k} {v:.4g}' for k, v in row.items())


@contextlib.contextmanager
def _sigterm():
  """Event that SIGTERM sets; the handler of before comes back at the end."""
  asked = threading.Event()
  if threading.current_thread() is not threading.main_thread():
    yield asked
    return
  before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
  try:
    yield asked
  finally:
    signal.signal(signal.SIGTERM, before)
