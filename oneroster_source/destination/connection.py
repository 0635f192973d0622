"""Who may use a destination now: one run at a time, and nobody else while dlt opens its file."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import dlt
from dlt.common.destination.client import JobClientBase
from dlt.destinations.exceptions import DestinationConnectionError
from dlt.destinations.job_client_impl import SqlJobClientBase
from dlt.destinations.sql_client import SqlClientBase

from oneroster_source.destination.locks import alone, beside, hidden, refuse_names
from oneroster_source.errors import DestinationBusy, DestinationError, clean

_log = logging.getLogger("oneroster_source")
_PAUSE = 0.2
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


@contextmanager
def sole(
    pipeline: dlt.Pipeline, name: str, patience: float, *, part: str = ""
) -> Iterator[Callable[[], object]]:
    """Keeps every other run from the destination that a pipeline has found to be meant.

    Args:
        pipeline: What is going to load.
        name: The destination, for people.
        patience: Seconds to wait for what a Postgres server still does for a run that was killed.
        part: Names a part of the dataset: other parts may be loaded meanwhile, the whole may not.

    Yields:
        What to call before writing: it raises where the lock was lost, as a server can lose it.

    Raises:
        DestinationBusy: Another run is in.
        DestinationError: The lock cannot be made.
    """
    config: Any = pipeline.destination_client().config
    confirm: Callable[[], object] = bool
    with ExitStack() as stack:
        if config.destination_type == "duckdb":
            stack.enter_context(alone(beside(config.credentials.database), name))
        elif config.destination_type == "postgres":
            # part by part: the database itself keeps the whole from its parts
            stack.enter_context(alone(hidden(str(config), pipeline.dataset_name, part), name))
            confirm = stack.enter_context(_sole_writer(pipeline, name, patience, part))
        else:
            stack.enter_context(alone(hidden(str(config), pipeline.dataset_name), name))
        yield confirm


@contextmanager
def head(pipeline: dlt.Pipeline, name: str) -> Iterator[None]:
    """Keeps every other run from dividing the same dataset in Postgres; its parts may be loaded.

    Args:
        pipeline: A pipeline of the dataset.
        name: The destination, for people.

    Raises:
        DestinationBusy: Another run has divided it, and waits for its parts.
    """
    with _in_transaction(pipeline, name) as client:
        _take(client, name, "head")
        yield


@contextmanager
def opened(client: JobClientBase, patience: float) -> Iterator[None]:
    """Opens dlt's client of a destination. As long as a DuckDB file is open, no program gets in
    between two connections of dlt's.

    Args:
        client: The client, closed. To make one takes dlt a hundredth of a second.
        patience: Seconds to wait for a program that holds a DuckDB file already.

    Raises:
        ConfigurationError: DuckDB cannot tell the file from a dataset in it.
        DestinationError: It held the file for longer.
    """
    config: Any = client.config
    if not isinstance(client, SqlJobClientBase):
        with client:
            yield
        return
    if config.destination_type != "duckdb":
        with _connected(client.sql_client, config.destination_type):
            yield
        return
    sql = client.sql_client
    refuse_names(config.credentials.database, sql.dataset_name, sql.staging_dataset_name)
    path = Path(config.credentials.database)
    name = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    end = time.monotonic() + patience
    told = False
    while True:
        try:
            client.sql_client.open_connection()
            break
        except DestinationConnectionError as error:
            who = holder(str(error))
            if not who:
                raise
        if time.monotonic() >= end:
            raise DestinationError(
                f"{name} is held open by {who}, for longer than the {patience:g} s of the"
                " setting 'lock_timeout'",
                todo="close the file there and run this again: nothing was lost",
            )
        if not told:
            _log.warning("%s is held open by %s: waiting up to %g s", name, who, patience)
            told = True
        time.sleep(_PAUSE)
    try:
        yield
    finally:
        client.sql_client.close_connection()


def holder(said: str) -> str:
    """The process that holds a DuckDB file, as far as DuckDB's words tell; empty where none does.

    They are no promise of DuckDB's, so that they may one day tell less.
    """
    words = re.sub(r'"[^"]*"', "", said)
    if not re.search(r"\block\b|another process", words, re.I):
        return ""
    process = re.search(r"PID (\d+)", words)
    program = re.search(r"held in (.+?) \(", words)
    return (f"process {process[1]}" if process else "another process") + (
        f" ({clean(Path(program[1]).name)})" if program else ""
    )


@contextmanager
def _sole_writer(
    pipeline: dlt.Pipeline, name: str, patience: float, part: str
) -> Iterator[Callable[[], object]]:
    """Keeps the writers of other machines from a dataset in Postgres, or from a part of it."""
    with _in_transaction(pipeline, name) as client:
        _take(client, name, shared=bool(part))
        if part:
            _take(client, name, part)
            # what a part does to the dataset, it does from its own staging dataset
            _let_others_end(client, name, _USING, client.staging_dataset_name, patience)
        else:
            _let_others_end(client, name, _WRITING, client.dataset_name, patience)
        yield lambda: client.execute_sql("SELECT 1")


@contextmanager
def _in_transaction(pipeline: dlt.Pipeline, name: str) -> Iterator[SqlClientBase[Any]]:
    """A connection to Postgres whose locks are a transaction's, as one of a session outlives it in
    a pool of connections."""
    client = pipeline.sql_client()
    with _connected(client, name):
        client.native_connection.autocommit = False
        # nothing happens on this connection for as long as the schools are read
        client.execute_sql(
            "SELECT set_config('idle_in_transaction_session_timeout', '0', true)"
            ", set_config('tcp_keepalives_idle', '60', true)"
        )
        yield client


@contextmanager
def _connected(client: SqlClientBase[Any], name: str) -> Iterator[None]:
    """A connection, or dlt's own error: it lets the driver's out of some clients."""
    try:
        client.open_connection()
    except Exception as error:
        raise DestinationConnectionError(name, client.dataset_name, str(error), error) from error
    try:
        yield
    finally:
        client.close_connection()


def _take(client: SqlClientBase[Any], name: str, *part: str, shared: bool = False) -> None:
    """Takes the lock on a dataset in Postgres, or on a part of it, until the transaction ends."""
    digest = sha256(" ".join(("oneroster", client.dataset_name, *part)).encode()).digest()
    found = client.execute_sql(
        f"SELECT pg_try_advisory_xact_lock{'_shared' if shared else ''}(%s)",
        int.from_bytes(digest[:8], signed=True),
    )
    if not (found and found[0][0]):
        raise DestinationBusy(
            f"another run is loading into the dataset {client.dataset_name!r} of {name}",
            todo="run this again when that one has ended",
        )


def _let_others_end(
    client: SqlClientBase[Any], name: str, modes: tuple[str, ...], dataset: str, patience: float
) -> None:
    """Waits for whoever has locks of these modes in a dataset in Postgres, or its staging dataset.

    A server may still work on a statement of a run that was killed, and commit it. From Postgres 14
    on it looks every two seconds whether that run is still there, unless a pool of connections
    stands between.
    """
    end = time.monotonic() + patience
    told = False
    while True:
        found = client.execute_sql(_USERS, dataset, client.staging_dataset_name, list(modes))
        if not found:
            return
        who = " and ".join(_session(*row) for row in found)
        if time.monotonic() >= end:
            calls = ", ".join(f"pg_terminate_backend({pid})" for pid, *_ in found)
            raise DestinationBusy(
                f"another session has been writing to the dataset {client.dataset_name!r} of {name}"
                f" for longer than the {patience:g} s of the setting 'lock_timeout': {who}",
                todo="run this again when it has ended. If it is left over from a run that was"
                f" killed, it does no harm to end it, in psql: SELECT {calls};",
            )
        if not told:
            _log.warning(
                "another session writes to %s: %s: waiting up to %g s", name, who, patience
            )
            told = True
        time.sleep(_PAUSE)


def _session(pid: int, program: str | None, since: datetime | None) -> str:
    """A session of Postgres, for people. Who is not its owner may not see all of it."""
    details = [clean(program, limit=63)] if program else []
    if since is not None:
        details.append(f"since {since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC")
    return f"process {pid} of the server" + (f" ({', '.join(details)})" if details else "")
