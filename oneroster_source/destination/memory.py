"""How much memory a run takes: little, for any number of rows.

Pages stream, and what is remembered of a row is a few bytes; the rest is up to Arrow and DuckDB.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pyarrow as pa
from dlt.common.destination.client import JobClientBase
from dlt.destinations.job_client_impl import SqlJobClientBase

PER_THREAD = 48
"""MB that DuckDB may take for each of its threads to fill new tables. Measured for 700,000 rows: no
slower than without a limit, with which it takes 200 MB more."""


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


@contextmanager
def thrift(client: JobClientBase) -> Iterator[None]:
    """Lets DuckDB fill new tables with as little memory as that needs, however many rows there are.

    Not for merges: what these need grows with the tables.

    Args:
        client: dlt's client of the destination, open.
    """
    if client.config.destination_type != "duckdb" or not isinstance(client, SqlJobClientBase):
        yield
        return
    sql = client.sql_client
    query = "SELECT current_setting('threads'), current_setting('memory_limit')"
    ((threads, before),) = sql.execute_sql(query) or ()
    sql.execute_sql(f"SET memory_limit = '{PER_THREAD * threads}MB'")
    try:
        yield
    finally:
        sql.execute_sql(f"SET memory_limit = '{before}'")
