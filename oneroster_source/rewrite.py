"""What removed rows have left behind goes too: a database marks a row as removed, and keeps its
bytes until something else needs the place.

A DuckDB file is copied, with everything in it, and the copy takes its place at once. Whoever is
killed meanwhile leaves the old file as it was, or the new one, and a file beside it that says that
the work is due.
"""

from __future__ import annotations

import gc
import os
import re
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dlt
import duckdb
from dlt.destinations.exceptions import DatabaseException

from oneroster_source.access import holder
from oneroster_source.errors import DestinationError, clean

_PAUSE = 0.5
_NEW = "oneroster_rewritten"
"""The catalog of the new file, until it has the old one's name."""
_SAME = {
    "tables": "schema_name, table_name, sql, comment",
    "views": "schema_name, view_name, sql, comment",
    "indexes": "schema_name, index_name, sql, comment",
    "sequences": "schema_name, sequence_name, sql, comment",
    "types": "schema_name, type_name, logical_type, labels::VARCHAR, comment",
    "functions": "schema_name, function_name, parameters::VARCHAR, macro_definition, comment",
    "columns": "schema_name, table_name, column_name, data_type, column_default, comment",
}
"""What both files must say of themselves, by DuckDB's functions that tell it."""


@dataclass(slots=True)
class Removed:
    """What was removed from a destination."""

    rows: dict[str, int] = field(default_factory=dict)
    """Rows by table."""
    bytes: str = ""
    """What has become of the bytes that they left behind, for people."""


def due(database: str) -> bool:
    """Whether rows were, or were to be, removed from a DuckDB file that was not rewritten since."""
    return _note(os.path.realpath(database)).exists()


def announce(pipeline: dlt.Pipeline) -> None:
    """Notes beside a DuckDB file that it must be rewritten, just before rows are removed from it.

    Raises:
        OSError: There is no room even for that.
    """
    config: Any = pipeline.destination_client().config
    if config.destination_type == "duckdb":
        _note(os.path.realpath(config.credentials.database)).touch(0o600)


def rewrite(pipeline: dlt.Pipeline, name: str, tables: Collection[str], patience: float) -> str:
    """Rewrites what holds the bytes of removed rows, where that can be done.

    Nothing else of this process may have the destination open, and no other run may load into it.

    Args:
        pipeline: That of the dataset.
        name: The destination, for people.
        tables: Those of which rows were removed.
        patience: Seconds to wait for others that use the destination.

    Returns:
        What was done, for people. Where no row was removed, and nothing is due, that is nothing.

    Raises:
        DestinationError: It could not be done: the rows are removed, their bytes are not.
    """
    config: Any = pipeline.destination_client().config
    is_file = config.destination_type == "duckdb"
    if not tables and not (is_file and due(config.credentials.database)):
        return "There is nothing to write anew."
    try:
        if is_file:
            with _kept(pipeline, patience) as connection:
                _renew(connection, Path(os.path.realpath(config.credentials.database)))
            return f"The file {name} was written anew, without what they have left behind."
        if config.destination_type == "postgres":
            return _vacuum(pipeline, tables, patience)
    except _Unfinished as problem:
        raise DestinationError(
            f"{name}: the rows are removed, but not yet the bytes that they have left behind:"
            f" {problem}",
            todo=f"{problem.todo}; all rows that are to stay are there, and the rest is as it was",
        ) from None
    return f"Whether and when their bytes are gone too is up to {name}."


class _Unfinished(Exception):
    """The bytes are still there."""

    def __init__(self, why: str, todo: str = "mend this and run the same command again") -> None:
        self.todo = todo
        super().__init__(why)


def _note(path: str) -> Path:
    return Path(path + ".rewrite")


@contextmanager
def _kept(pipeline: dlt.Pipeline, patience: float) -> Iterator[duckdb.DuckDBPyConnection]:
    """The one connection to a DuckDB file: as long as it lasts no other process, nor anything else
    in this one, has the file open."""
    config: Any = pipeline.destination_client().config
    end = time.monotonic() + patience
    # what nothing refers to any more may still wait to be closed
    gc.collect()
    while True:
        try:
            # DuckDB refuses another connection of this process that is set up differently
            connection = duckdb.connect(
                config.credentials.database, config={"custom_user_agent": "oneroster rewrite"}
            )
            break
        except duckdb.ConnectionException:
            who = "something else in this process"
        except duckdb.IOException as error:
            who = holder(str(error))
            if not who:
                raise _Unfinished(clean(error)) from None
        if time.monotonic() >= end:
            raise _Unfinished(
                f"the file is held open by {who}", "close it there and run the same command again"
            )
        time.sleep(_PAUSE)
    try:
        yield connection
    finally:
        connection.close()


def _renew(connection: duckdb.DuckDBPyConnection, old: Path) -> None:
    """Puts a copy of a database in its place."""
    note = _note(str(old))
    new = Path(f"{note}.duckdb")
    logs = [Path(f"{path}.wal") for path in (old, new)]
    before = old.stat()
    try:
        # of a copy that was not finished
        _remove(new)
        # spilled by a process that was killed: this one has spilled nothing yet
        for spilled in Path(f"{old}.tmp").glob("duckdb_temp_*"):
            spilled.unlink(missing_ok=True)
        with suppress(OSError):
            os.rmdir(f"{old}.tmp")
        # from now on nothing is written to the old file: to close it would remove a log of its
        # name, which is the new file's by then
        connection.execute("CHECKPOINT; PRAGMA disable_checkpoint_on_shutdown")
        _copy(connection, new)
        if any(log.exists() for log in logs):
            raise _Unfinished("DuckDB has not closed its log")
        with suppress(PermissionError):
            os.chown(new, before.st_uid, before.st_gid)
        os.chmod(new, before.st_mode & 0o7777)
        _sync(new)
        os.replace(new, old)
        _sync(old.parent)
        note.unlink(missing_ok=True)
    except (duckdb.Error, OSError) as error:
        raise _Unfinished(
            _harmless(error),
            f"see that the folder {old.parent} can be written to and has room for another"
            f" {(before.st_size >> 20) + 1:,} MB, then run the same command again",
        ) from None
    finally:
        with suppress(duckdb.Error):
            connection.execute(f"DETACH DATABASE IF EXISTS {_NEW}")
        _remove(new)


def _remove(file: Path) -> None:
    for path in (file, Path(f"{file}.wal")):
        path.unlink(missing_ok=True)


def _harmless(error: Exception) -> str:
    """The words of an error, unless they may speak of rows."""
    if isinstance(error, OSError):
        return f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
    return (
        clean(error, limit=500) if isinstance(error, duckdb.IOException) else type(error).__name__
    )


def _copy(connection: duckdb.DuckDBPyConnection, new: Path) -> None:
    """Copies everything in a database into a new file, and looks whether it is there."""

    def asked(query: str, *values: Any) -> list[tuple[Any, ...]]:
        return connection.execute(query, values).fetchall()

    ((old,),) = asked("SELECT current_database()")
    ((tags,),) = asked("SELECT tags FROM duckdb_databases() WHERE database_name = ?", old)
    version = str(tags.get("storage_version", "")).rstrip("+")
    ((block,),) = asked(
        "SELECT block_size FROM pragma_database_size() WHERE database_name = ?", old
    )
    like = f"BLOCK_SIZE {int(block)}" + (f", STORAGE_VERSION '{version}'" if version else "")
    connection.execute(f"ATTACH {_text(str(new))} AS {_NEW} ({like})")
    connection.execute(f"COPY FROM DATABASE {_quoted(old)} TO {_NEW} (SCHEMA)")
    for schema, table in _in_order(asked, old):
        place = f"{_quoted(schema)}.{_quoted(table)}"
        source, target = f"{_quoted(old)}.{place}", f"{_NEW}.{place}"
        names = ", ".join(_columns(asked, source, old, schema, table))
        try:
            connection.execute(f"INSERT INTO {target} ({names}) SELECT {names} FROM {source}")
        except duckdb.ConstraintException:
            # a foreign key into the same table, say, of which DuckDB takes no two rows at once
            raise _Unfinished(
                f"DuckDB cannot copy the table {place} without breaking its constraints",
                "move it to another file, or make it anew without its foreign keys, then run the"
                " same command again",
            ) from None
        counts = f"SELECT (SELECT count(*) FROM {source}), (SELECT count(*) FROM {target})"
        ((wanted, found),) = asked(counts)
        if wanted != found:
            raise _Unfinished(f"{table} has {wanted:,} rows, and {found:,} could be copied")
    for what, columns in _SAME.items():
        query = f"SELECT {columns} FROM duckdb_{what}() WHERE database_name = ? ORDER BY ALL"
        if asked(query, old) != asked(query, _NEW):
            raise _Unfinished(f"DuckDB could not copy all {what} in the file")
    connection.execute(f"CHECKPOINT {_NEW}; DETACH {_NEW}")


def _in_order(asked: Any, database: str) -> Iterator[tuple[str, str]]:
    """The tables, each after those that its foreign keys refer to."""
    waiting = asked(
        "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = ? ORDER BY ALL",
        database,
    )
    refers = asked(
        "SELECT schema_name, table_name, referenced_table FROM duckdb_constraints()"
        " WHERE database_name = ? AND constraint_type = 'FOREIGN KEY'",
        database,
    )
    while waiting:
        # within a schema: DuckDB knows no other ones
        held_up = {(s, t) for s, t, other in refers if other != t and (s, other) in waiting}
        ready = [table for table in waiting if table not in held_up] or waiting
        yield from ready
        waiting = [table for table in waiting if table not in ready]


def _columns(asked: Any, place: str, database: str, schema: str, table: str) -> Iterator[str]:
    """The columns that hold values of their own. Of those that are generated, DuckDB tells the
    expression in one place and not in the other."""
    defaults = asked(
        "SELECT column_name, column_default FROM duckdb_columns() WHERE database_name = ?"
        " AND schema_name = ? AND table_name = ? ORDER BY column_index",
        *(database, schema, table),
    )
    described = {name: default for name, _, _, _, default, _ in asked(f"DESCRIBE {place}")}
    for name, default in defaults:
        if default is None or described[name] is not None:
            yield _quoted(name)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _sync(path: Path) -> None:
    """Sees to it that a file, or the names in a folder, outlast a loss of power."""
    held = os.open(path, os.O_RDONLY)
    try:
        os.fsync(held)
    finally:
        os.close(held)


def _vacuum(pipeline: dlt.Pipeline, tables: Collection[str], patience: float) -> str:
    """Writes tables in Postgres anew, with their indexes and statistics."""
    end = time.monotonic() + patience
    with pipeline.sql_client() as client:
        places = [client.make_qualified_table_name(table) for table in sorted(tables)]
        for place in places:
            if why := _vacuumed(client, place, "FULL, ANALYZE", end):
                todo = f"let the owner of the tables run VACUUM (FULL, ANALYZE) {', '.join(places)}"
                raise _Unfinished(why, f"mend this, or {todo}")
        # samples of values, which ANALYZE has replaced as any row is replaced
        samples = _vacuumed(client, "pg_catalog.pg_statistic", "FULL", end)
    return (
        "Their tables were written anew (VACUUM FULL). Postgres's log (WAL), replicas and backups"
        " hold their bytes until they are renewed"
        + (
            ", and so do old samples of values, until the owner of the database runs VACUUM FULL"
            " pg_statistic."
            if samples
            else "."
        )
    )


def _vacuumed(client: Any, place: str, how: str, end: float) -> str:
    """Writes a table anew; why that is not done, or empty if it is."""
    file = "SELECT pg_relation_filenode(%s::regclass)"
    while True:
        notices: Any = client.native_connection.notices
        notices.clear()
        try:
            before = client.execute_sql(file, place)
            client.execute_sql(f"VACUUM ({how}, VERBOSE) {place}")
        except DatabaseException as error:
            # it speaks of files and rights, and of no row
            return clean(error)
        if before == client.execute_sql(file, place):
            return f"this user may not rewrite {place}"
        if not any(map(_still_seen, notices)):
            return ""
        if time.monotonic() >= end:
            return f"a transaction that began earlier still sees rows of {place}"
        time.sleep(_PAUSE)


def _still_seen(notice: str) -> bool:
    """Whether VACUUM tells of removed rows that it had to keep: the second line begins with how
    many, in any language."""
    found = re.search(r"\n\D*(\d+)", notice)
    return found is not None and int(found[1]) > 0
