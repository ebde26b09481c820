"""Memory that a computation on the CPU frees is kept for the next one."""

import ctypes

# Options of mallopt (malloc.h of glibc).
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, ARENA_MAX = -1, -2, -3, -8
LARGEST = 256 << 20  # bytes of a block; a larger one goes back to the system at once
KEPT = 1 << 30  # bytes that are free at the end of the heap
PAD = 64 << 20  # bytes by which the heap grows


def keep() -> bool:
  """Lets the allocator of C keep freed memory; False where it is not glibc's.

  A training step on the CPU asks for some hundred MB and frees them. By default the
  system takes them back and fills every page anew in the next step: a quarter of the
  time of a small one. Threads share one heap then, as only the first one grows beyond
  64 MB, so this is for few cores, and before there are threads.
  """
  try:
    option = ctypes.CDLL(None).mallopt
  except (OSError, AttributeError, TypeError):
    return False
  given = {MMAP_THRESHOLD: LARGEST, TRIM_THRESHOLD: KEPT, TOP_PAD: PAD, ARENA_MAX: 1}
  return all([option(name, value) for name, value in given.items()])
