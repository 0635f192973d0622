"""Keeps the memory of a run small, for any number of rows.

Pages stream, and a few bytes are remembered of each row; the rest is up to Arrow and DuckDB.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

import pyarrow as pa


def use_thrifty_arrow() -> None:
    """Chooses an allocator that returns memory, unless Arrow's own variable chooses another.

    Arrow's default keeps some for each thread: 130 MB more at the peak.
    """
    if "ARROW_DEFAULT_MEMORY_POOL" not in os.environ:
        with suppress(NotImplementedError):
            pa.set_memory_pool(pa.jemalloc_memory_pool())


def give_back() -> None:
    """Returns freed memory, which allocators keep, to the operating system."""
    pa.default_memory_pool().release_unused()
    # glibc's, where there is glibc
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
