"""Runs tasks in a pool of processes or with Daft on Ray, a share of them on each host.

An engine only calls `work` with every job; the output of a job does not depend on it.
"""

import concurrent.futures
import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence

from absl import logging
from tqdm import tqdm

from llama3_jax.base.errors import UserError

ENGINES = ('local', 'ray')
# each(work, jobs) yields (job, work(job)).
Each = Callable[[Callable, Sequence[object]], Iterator[tuple[object, object]]]
LINE_S = 30.0  # between lines of progress where there is no terminal


@contextlib.contextmanager
def start(kind: str, workers: int) -> Iterator[Each]:
  """Context with each(work, jobs), which yields (job, result) in order of completion.

  Args:
    kind: one of ENGINES. 'ray' needs the extra `ray`; without an address in RAY_ADDRESS
      it starts a local Ray.
    workers: processes; 0 is one a core; 1 works in this process.

  Raises:
    UserError: an unknown engine, a missing package, or a process that was killed.
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
      except BaseException:  # unfinished jobs run again with the same command
        for child in set(multiprocessing.active_children()) - before:
          child.terminate()
        raise
      finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin():
  """Makes a process of the pool ignore Ctrl-C and end when its parent has ended."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  parent = multiprocessing.parent_process()

  def watch():
    parent.join()
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()


def _cores():
  """Cores that this process may use; all of them on macOS, which has no affinity."""
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
  """each() by Daft on Ray; results come in any order."""
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


def wait(name: str, left: Callable[[], Sequence[str]], poll_s: float = 1.0) -> None:
  """Waits until `left()` is empty: the other hosts have done their part of the work."""
  logged = time.monotonic()
  while names := left():
    if time.monotonic() - logged > LINE_S:
      logging.info('%s: waiting for other hosts: %s', name, ', '.join(names[:5]))
      logged = time.monotonic()
    time.sleep(poll_s)


def watch(
  name: str,
  pairs: Iterable[tuple[object, int]],
  total: float,
  weight: Callable[[object], float],
) -> Iterator[tuple[object, int]]:
  """Yields the (job, documents) pairs; logs the share done, documents/s and time left.

  Args:
    name: name of the stage.
    pairs: pairs from each().
    total: sum of the weights of all jobs.
    weight: weight(job), its share of the work.
  """
  done = documents = 0
  began = logged = time.monotonic()
  with tqdm(total=total, desc=name, unit='B', unit_scale=True, disable=None) as bar:
    for job, count in pairs:
      done, documents = done + weight(job), documents + count
      now = time.monotonic()
      rate = documents / max(now - began, 1e-9)
      bar.set_postfix_str(f'{rate:,.0f} documents/s')
      bar.update(weight(job))
      if bar.disable and now - logged > LINE_S:
        logged, left = now, (now - began) * (total - done) / max(done, 1)
        logging.info(
          '%s: %.0f%%, %d documents, %.0f documents/s, %.0f s left',
          name,
          100 * done / max(total, 1),
          documents,
          rate,
          left,
        )
      yield job, count
