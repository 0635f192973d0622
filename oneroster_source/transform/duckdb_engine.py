"""DuckDB as a JSON parser in memory."""

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
    """DuckDB as a JSON parser: in memory, with a thread and a cursor for each core.

    A query runs on one core: pages are shaped side by side, not each on all cores. It does so in a
    thread of the engine's own, since DuckDB keeps memory for each thread that it was asked in.
    """

    def __init__(self) -> None:
        self.threads = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="oneroster-page")
        """Those in which it is to be used."""
        self._own = threading.local()

    @cached_property
    def _database(self) -> duckdb.DuckDBPyConnection:
        # many a run reads nothing that needs it
        database = duckdb.connect(
            ":memory:",
            config={
                "threads": 1,
                "enable_external_access": False,
                # what a page has left is given back, rather than kept for a larger one
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
        """The cursor of this thread, with `body` on it."""
        cursor: BodyCursor | None = getattr(self._own, "cursor", None)
        if cursor is None:
            cursor = self._own.cursor = BodyCursor(self._database.cursor())
        with cursor.on(body):
            yield cursor


@cache
def engine() -> Engine:
    """The engine of this process: a run after another finds its queries planned."""
    return Engine()


class _Answer:
    """A table of one body, which DuckDB comes for with each query anew."""

    def __init__(self) -> None:
        self.body = ""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        table = pa.table({"body": pa.array([self.body], pa.string())})
        return table.__arrow_c_stream__(requested_schema)


class BodyCursor:
    """Where a body is laid to ask about it.

    The queries are prepared once: to plan one takes ten times as long as to run it on a small page,
    which is why the body is looked up in a relation, `answer`, and does not come as a parameter. To
    insert it into a table of DuckDB's would take a sixth of the time of all the rest.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._prepared: dict[str, str] = {}
        self._answer = _Answer()
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("answer", self._answer)

    @contextmanager
    def on(self, body: str) -> Iterator[None]:
        """Lays a body on the cursor, and takes it away."""
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
