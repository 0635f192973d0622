"""Postgres: locks that every machine sees, statements that end with the run that sent them, and
indexes and statistics, so that views answer soon.

Postgres assumes that `estab` and an id are independent of each other, and so that a join on both
finds next to nothing, the more so the more schools there are; then it loops over whole tables.
Measured for 20 schools, 91,000 enrollments: the views took up to 90 s, and 0.3 s with both.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from dlt.destinations import postgres

from oneroster_source.destination.backends import postgres_compaction
from oneroster_source.destination.backends.base import NOTHING_TO_COMPACT, Backend, connected
from oneroster_source.destination.locks import exclusive
from oneroster_source.destination.queries import SqlClient, existing_tables
from oneroster_source.destination.waiting import InUse, retry_while_in_use
from oneroster_source.errors import DestinationBusy, clean
from oneroster_source.model import REJECTED_ROWS, V1P1, Table

_USERS = """
SELECT a.pid, a.application_name, a.xact_start FROM pg_stat_activity a
WHERE a.pid IN (
    SELECT l.pid FROM pg_locks l
    JOIN pg_class c ON c.oid = l.relation JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname IN (%s, %s) AND l.pid <> pg_backend_pid()
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND l.mode = ANY (%s)
)
ORDER BY a.pid
"""
_WRITING = (
    "RowExclusiveLock",
    "ShareLock",
    "ShareRowExclusiveLock",
    "ExclusiveLock",
    "AccessExclusiveLock",
)
_USING = ("AccessShareLock", "RowShareLock", "ShareUpdateExclusiveLock", *_WRITING)


class Postgres(postgres):
    """A dlt destination: `dlt.destinations.postgres`, with sessions that end with the process."""

    # dlt compares given options with its defaults
    __orig_base__ = postgres

    def __init__(self, credentials: Any = None, **options: Any) -> None:
        super().__init__(credentials, **options)

    @property
    def client_class(self) -> Any:
        """Dlt's client of it; imported here, since it needs the driver."""
        from oneroster_source.destination.backends.postgres_client import Client

        return Client


class PostgresDataset(Backend):
    """A dataset in a Postgres database."""

    many_writers = True
    json_as_text = True

    @staticmethod
    def adapt(destination: Any) -> Any:
        if type(destination) is not postgres:
            return destination
        name = {"destination_name": destination.destination_name}
        return Postgres(**destination.config_params | name)

    @staticmethod
    def is_safe(error: BaseException) -> bool:
        # the driver may be missing
        kind = type(error)
        return kind.__module__.startswith("psycopg2") and kind.__name__ == "OperationalError"

    @property
    def _sql(self) -> SqlClient:
        return self.client.sql_client  # type: ignore[no-any-return]

    @contextmanager
    def exclusive(
        self, name: str, patience: float, part: str = ""
    ) -> Iterator[Callable[[], object]]:
        """Locks the dataset, or one shard of it, against this user's other runs by a file, and
        against those of other machines in the database.
        """
        sql = self._sql
        with exclusive(self.lock_file(part), name), self._transaction():
            self._take_lock(name, shared=bool(part))
            if part:
                self._take_lock(name, part)
                # what a shard does to the dataset, it does from its own staging dataset
                self._wait_for_others(name, _USING, sql.staging_dataset_name, patience)
            else:
                self._wait_for_others(name, _WRITING, sql.dataset_name, patience)
            yield lambda: sql.execute_sql("SELECT 1")

    @contextmanager
    def dividing(self, name: str) -> Iterator[None]:
        with self._transaction():
            self._take_lock(name, "head")
            yield

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Opens a connection in a transaction, to which its locks belong: those of a session would
        outlive it in a connection pool.
        """
        with connected(self._sql):
            self._sql.native_connection.autocommit = False
            # nothing happens on this connection while the schools are read
            self._sql.execute_sql(
                "SELECT set_config('idle_in_transaction_session_timeout', '0', true)"
                ", set_config('tcp_keepalives_idle', '60', true)"
            )
            yield

    def _take_lock(self, name: str, *part: str, shared: bool = False) -> None:
        """Locks the dataset, or a part of it, until the transaction ends."""
        words = ("oneroster", self._sql.dataset_name, *part)
        digest = sha256(" ".join(words).encode()).digest()
        found = self._sql.execute_sql(
            f"SELECT pg_try_advisory_xact_lock{'_shared' if shared else ''}(%s)",
            int.from_bytes(digest[:8], signed=True),
        )
        if not (found and found[0][0]):
            raise DestinationBusy(
                f"another run is loading into the dataset {self._sql.dataset_name!r} of {name}",
                todo="run this again when that one has ended",
            )

    def _wait_for_others(
        self, name: str, modes: tuple[str, ...], dataset: str, patience: float
    ) -> None:
        """Waits for sessions that hold locks of these modes in a dataset or its staging dataset.

        A server may still work on a statement of a run that was killed, and commit it. From
        Postgres 14 on it checks every two seconds whether that run is still there, unless a
        connection pool stands between.
        """
        sql, pids = self._sql, list[int]()

        def check() -> None:
            found = sql.execute_sql(_USERS, dataset, sql.staging_dataset_name, list(modes))
            pids[:] = [pid for pid, *_ in found or ()]
            if found:
                raise InUse(" and ".join(_session(*row) for row in found))

        try:
            retry_while_in_use(check, patience, f"another session writes to {name}:")
        except InUse as who:
            calls = ", ".join(f"pg_terminate_backend({pid})" for pid in pids)
            raise DestinationBusy(
                f"another session has been writing to the dataset {sql.dataset_name!r} of {name}"
                f" for longer than the {patience:g} s of the setting 'lock_timeout': {who}",
                todo="run this again when it has ended. If it is left over from a run that was"
                f" killed, it does no harm to end it, in psql: SELECT {calls};",
            ) from None

    def tune(self, read: Collection[str], changed: Collection[str]) -> None:
        """Makes the indexes that are missing, and takes statistics of what a load has changed."""
        known = [t for e in V1P1.endpoints for t in (*e.tables(), e.history) if t]
        tables = [t for t in (*known, REJECTED_ROWS) if t.name in read and t.name in changed]
        if not tables:
            return
        sql = self._sql
        found = sql.execute_sql(
            "SELECT indexname FROM pg_indexes WHERE schemaname = %s", sql.dataset_name
        )
        existing = {str(name) for (name,) in found or ()}
        todo = []
        for table in tables:
            place = sql.make_qualified_table_name(table.name)
            for column in _keys(table):
                name = f"{table.name}__by_{column}"
                if name not in existing:
                    quoted = sql.escape_column_name(name)
                    columns = ", ".join(map(sql.escape_column_name, ("estab", column)))
                    todo.append(f"CREATE INDEX {quoted} ON {place} ({columns})")
            todo.append(f"ANALYZE {place}")
        sql.execute_sql("; ".join(todo))

    def compaction_is_due(self) -> bool:
        return bool(existing_tables(self.client, [postgres_compaction.MARK]))

    def mark_compaction_due(self) -> None:
        place = self._sql.make_qualified_table_name(postgres_compaction.MARK)
        since = "since TIMESTAMP WITH TIME ZONE DEFAULT CURRENT_TIMESTAMP"
        self._sql.execute_sql(f"CREATE TABLE IF NOT EXISTS {place} ({since})")

    def _compact(self, name: str, patience: float) -> str:
        with self.client:
            if not self.compaction_is_due():
                return NOTHING_TO_COMPACT
            return postgres_compaction.compact(self.client, patience)


def _session(pid: int, program: str | None, since: datetime | None) -> str:
    """A session, for people. Users other than its owner may not see all of it."""
    details = [clean(program, limit=63)] if program else []
    if since is not None:
        details.append(f"since {since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC")
    return f"process {pid} of the server" + (f" ({', '.join(details)})" if details else "")


def _keys(table: Table) -> Iterator[str]:
    """The columns that, with `estab`, lead to rows: of the row itself, and of what it refers to."""
    yield from table.key[1:2]
    yield from (c.name for c in table.columns if c.source.endswith(".sourcedId"))
