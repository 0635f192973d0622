"""DuckDB, in memory, as a parser of JSON."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, cached_property
from importlib.resources import files

import duckdb
import pyarrow as pa

# duckdb 2.0 recommends sql(), with which 1.5 takes three times as long over a page
warnings.filterwarnings("ignore", "Arrow output on a DB-API result", UserWarning)


class Engine:
    """A DuckDB database without tables, with a thread and a cursor for each core.

    Each query runs on one core: pages are parsed side by side, not each on all cores. It runs in a
    thread of the engine, since DuckDB keeps memory for each thread that calls it.
    """

    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="oneroster-page")
        """Use the engine only in these."""
        self._own = threading.local()

    @cached_property
    def _database(self) -> duckdb.DuckDBPyConnection:
        # many runs never need it
        database = duckdb.connect(
            ":memory:",
            config={
                "threads": 1,
                "enable_external_access": False,
                # memory is given back after each page, not kept for a larger one
                "allocator_flush_threshold": "1MB",
                "allocator_bulk_deallocation_flush_threshold": "1MB",
            },
        )
        database.execute(
            files("oneroster_source.transform").joinpath("macros.sql").read_text("utf-8")
        )
        return database

    @contextmanager
    def on(self, body: str) -> Iterator[BodyCursor]:
        """Binds a body to the cursor of this thread."""
        cursor: BodyCursor | None = getattr(self._own, "cursor", None)
        if cursor is None:
            cursor = self._own.cursor = BodyCursor(self._database.cursor())
        with cursor.on(body):
            yield cursor


@cache
def engine() -> Engine:
    """Returns the engine of this process, in which later runs find their queries prepared."""
    return Engine()


class _Answer:
    """A table of one body, which DuckDB scans again with each query."""

    def __init__(self) -> None:
        self.body = ""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        table = pa.table({"body": pa.array([self.body], pa.string())})
        return table.__arrow_c_stream__(requested_schema)


class BodyCursor:
    """A DuckDB cursor with prepared statements, bound to one response body.

    Planning a query takes ten times as long as running it on a small page. So queries are prepared
    once, over a relation `answer` whose content changes: a body as a parameter would be planned
    again, and inserting it into a table would take a sixth of the total time.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._prepared: dict[str, str] = {}
        self._answer = _Answer()
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("answer", self._answer)

    @contextmanager
    def on(self, body: str) -> Iterator[None]:
        """Binds a body, and releases it."""
        self._answer.body = body
        try:
            yield
        finally:
            self._answer.body = ""

    def query(self, sql: str) -> pa.Table:
        """Runs a query over `answer`."""
        name = self._prepared.get(sql)
        if name is None:
            name = self._prepared[sql] = f"query_{len(self._prepared)}"
            self._connection.execute(f"PREPARE {name} AS {sql}")
        return self._connection.execute(f"EXECUTE {name}").to_arrow_table()
