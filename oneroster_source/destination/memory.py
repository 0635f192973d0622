"""How much memory a run takes: little, for any number of rows.

Pages stream, and what is remembered of a row is a few bytes; the rest is up to Arrow and DuckDB.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

import pyarrow as pa


def use_thrifty_arrow() -> None:
    """Has Arrow give back what it does not need, unless its own variable chooses how.

    The allocator that it takes by default keeps some for each thread: 130 MB more at the peak.
    """
    if "ARROW_DEFAULT_MEMORY_POOL" not in os.environ:
        with suppress(NotImplementedError):
            pa.set_memory_pool(pa.jemalloc_memory_pool())


def give_back() -> None:
    """Gives back to the system what allocators keep of what is not used any more."""
    pa.default_memory_pool().release_unused()
    # glibc's own, where that is what there is
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
