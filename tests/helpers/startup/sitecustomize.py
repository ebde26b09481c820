"""What Python imports first in the processes that tests start (children.py)."""

import gc

# Their time is the tracing of programs: as in tests/conftest.py, without looking for
# cycles among its objects every 700 allocations.
gc.set_threshold(100_000, 50, 100)
