"""Where tasks run: a pool of processes here, Daft on Ray, or a share of them a host.

An engine only calls `work` with every job; what a job writes does not depend on it.
"""

import concurrent.futures
import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import time

from absl import logging
from tqdm import tqdm

from llama3_jax.base.errors import UserError

ENGINES = ('local', 'ray')
LINE_S = 30.0  # between lines of progress where there is no terminal


@contextlib.contextmanager
def start(kind, workers):
  """each(work, jobs) -> iterator of (job, result) as they are done.

  Args:
    kind: one of ENGINES. 'ray' needs the extra `ray`; without an address in RAY_ADDRESS
      it starts a local Ray.
    workers: processes; 0 is one a core; 1 works in this process.
  """
  if kind not in ENGINES:
    raise UserError(f'engine={kind!r}: it is one of {", ".join(ENGINES)}')
  count = workers or _cores()
  if kind == 'ray':
    yield _ray(count)
  elif count == 1:
    yield lambda work, jobs: ((job, work(job)) for job in jobs)
  else:
    # Not fork: a process with JAX's threads must not be copied.
    context = multiprocessing.get_context('spawn')
    before = set(multiprocessing.active_children())
    with concurrent.futures.ProcessPoolExecutor(count, context, _begin) as pool:
      try:
        yield lambda work, jobs: _pool(pool, work, jobs)
      except BaseException:  # what is half done is done again by the same command
        for child in set(multiprocessing.active_children()) - before:
          child.terminate()
        raise
      finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin():
  """A process of the pool leaves Ctrl-C to its parent, and ends when that is gone."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  parent = multiprocessing.parent_process()

  def watch():
    parent.join()
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()


def _cores():
  """Cores that this process may use; macOS does not say which."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def _pool(pool, work, jobs):
  futures = {pool.submit(work, job): job for job in jobs}
  try:
    for future in concurrent.futures.as_completed(futures):
      yield futures[future], future.result()
  except concurrent.futures.process.BrokenProcessPool:
    raise UserError(
      'workers: a process of the pool was killed, likely for memory; run the same '
      'command with fewer, what is done is kept'
    ) from None


def _ray(workers):
  """The same jobs through Daft on Ray, in no order."""
  try:
    import daft
    import ray
  except ImportError:
    raise UserError(
      "engine=ray: Daft and Ray are not installed; pip install -e '.[ray]'"
    ) from None
  if not ray.is_initialized():
    address = os.environ.get('RAY_ADDRESS')
    ray.init(address, num_cpus=None if address else workers, logging_level='warning')
  daft.set_runner_ray(noop_if_initialized=True)

  def each(work, jobs):
    @daft.func(return_dtype=daft.DataType.binary())
    def run(job: bytes) -> bytes:
      function, value = pickle.loads(job)
      return pickle.dumps(function(value))

    data = {
      'number': [*range(len(jobs))],
      'job': [pickle.dumps((work, j)) for j in jobs],
    }
    frame = daft.from_pydict(data).repartition(len(jobs), 'number')
    frame = frame.with_column('result', run(daft.col('job')))
    for row in frame.select('number', 'result').iter_rows():
      yield jobs[row['number']], pickle.loads(row['result'])

  return each


def wait(name, left, poll_s=1.0):
  """Waits until `left()` is empty: the other hosts' part of the work is done."""
  said = time.monotonic()
  while names := left():
    if time.monotonic() - said > LINE_S:
      logging.info('%s: waiting for other hosts: %s', name, ', '.join(names[:5]))
      said = time.monotonic()
    time.sleep(poll_s)


def watch(name, pairs, total, weight):
  """Passes on (job, documents) and shows the share done, documents/s and time left.

  Args:
    name: of the stage.
    pairs: what each() gives.
    total: weight of all jobs.
    weight: weight(job), its share of the work.
  """
  done = documents = 0
  began = said = time.monotonic()
  with tqdm(total=total, desc=name, unit='B', unit_scale=True, disable=None) as bar:
    for job, count in pairs:
      done, documents = done + weight(job), documents + count
      now = time.monotonic()
      rate = documents / max(now - began, 1e-9)
      bar.set_postfix_str(f'{rate:,.0f} documents/s')
      bar.update(weight(job))
      if bar.disable and now - said > LINE_S:
        said, left = now, (now - began) * (total - done) / max(done, 1)
        logging.info(
          '%s: %.0f%%, %d documents, %.0f documents/s, %.0f s left',
          name,
          100 * done / max(total, 1),
          documents,
          rate,
          left,
        )
      yield job, count
