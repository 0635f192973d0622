"""What removed rows have left behind goes too: a database marks a row as removed, and keeps its
bytes until something else needs the place.

A DuckDB file is copied, with everything in it, and the copy takes its place at once; Postgres has a
command that does so table by table. Before rows are removed a mark is made that the work is due: a
file beside the DuckDB file, a table in Postgres. Whoever is killed leaves it, and what was there.
"""

from __future__ import annotations

import gc
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dlt
import duckdb
from dlt.destinations.exceptions import DatabaseException
from dlt.destinations.job_client_impl import SqlJobClientBase
from dlt.destinations.sql_client import SqlClientBase

from oneroster_source.destination.connection import holder
from oneroster_source.errors import DestinationError, clean
from oneroster_source.model import V1P1

_PAUSE = 0.5
_NOTHING = "There is nothing to write anew."
_DUE = "rewrite_is_due"
"""The table in Postgres that is there as long as it is."""
_LOCKED = "55P03"
"""What Postgres says where a lock was waited for in vain."""
_BLANKS = {"text": "''", "bigint": "0", "bool": "FALSE", "json": "'[]'"}
_NAME = "oneroster.rewritten"
"""The catalog of the new file, until it has the old one's name. No file's catalog has a dot."""
_NEW = f'"{_NAME}"'
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
    """Rows by table, and values of others' rows, by table and column."""
    bytes: str = ""
    """What has become of the bytes that they left behind, for people."""


def due(client: SqlJobClientBase) -> bool:
    """Whether rows were, or were to be, removed, and what they have left behind was not since.

    Args:
        client: dlt's client of the destination, open.
    """
    match _kind(client):
        case "duckdb":
            return _note(_file(client)).exists()
        case "postgres":
            return any(columns for _, columns in client.get_storage_tables([_DUE]))
    return False


def announce(client: SqlJobClientBase) -> None:
    """Notes that what removed rows leave behind must be removed too, just before they are.

    Args:
        client: dlt's client of the destination, open.

    Raises:
        OSError: There is no room even for that.
        DatabaseException: dlt's, if this user may make no table.
    """
    match _kind(client):
        case "duckdb":
            _note(_file(client)).touch(0o600)
        case "postgres":
            place = client.sql_client.make_qualified_table_name(_DUE)
            since = "since TIMESTAMP WITH TIME ZONE DEFAULT CURRENT_TIMESTAMP"
            client.sql_client.execute_sql(f"CREATE TABLE IF NOT EXISTS {place} ({since})")


def rewrite(pipeline: dlt.Pipeline, name: str, patience: float) -> str:
    """Rewrites what holds the bytes of removed rows, if that is due.

    Nothing else of this process may have the destination open, and no other run may load into it.

    Args:
        pipeline: That of the dataset.
        name: The destination, for people.
        patience: Seconds to wait for others that use the destination.

    Returns:
        What was done, for people.

    Raises:
        DestinationError: It could not be done: the rows are removed, their bytes are not.
    """
    client: Any = pipeline.destination_client()
    try:
        match _kind(client):
            case "duckdb":
                if not due(client):
                    return _NOTHING
                with _kept(client, patience) as connection:
                    _renew(connection, _file(client))
                return f"The file {name} was written anew, without what they have left behind."
            case "postgres":
                with client:
                    return _vacuum(client, patience) if due(client) else _NOTHING
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


def _kind(client: Any) -> str:
    return str(client.config.destination_type)


def _file(client: Any) -> Path:
    return Path(os.path.realpath(client.config.credentials.database))


def _note(file: Path) -> Path:
    return Path(f"{file}.rewrite")


@contextmanager
def _kept(client: Any, patience: float) -> Iterator[duckdb.DuckDBPyConnection]:
    """The one connection to a DuckDB file: as long as it lasts no other process, nor anything else
    in this one, has the file open."""
    end = time.monotonic() + patience
    # what nothing refers to any more may still wait to be closed
    gc.collect()
    while True:
        try:
            # DuckDB refuses another connection of this process that is set up differently
            connection = duckdb.connect(
                client.config.credentials.database,
                config={"custom_user_agent": "oneroster rewrite"},
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
    note = _note(old)
    new = Path(f"{note}.duckdb")
    logs = [Path(f"{path}.wal") for path in (old, new)]
    before = old.stat()
    if before.st_nlink > 1:
        raise _Unfinished(
            "the file has a second name (a hard link), which would keep them",
            "remove the other name, then run the same command again",
        )
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
        # the group first: whoever may not give a file away may still give it to a group
        for owner in ((-1, before.st_gid), (before.st_uid, -1)):
            with suppress(PermissionError):
                os.chown(new, *owner)
        os.chmod(new, before.st_mode & 0o7777)
        _sync(new)
        os.replace(new, old)
        _sync(old.parent)
        note.unlink(missing_ok=True)
    except (OSError, duckdb.IOException) as error:
        said = clean(error, limit=500)
        if isinstance(error, OSError):
            said = ": ".join(filter(None, (error.strerror, error.filename)))
        raise _Unfinished(
            said,
            f"see that the folder {old.parent} can be written to and has room for another"
            f" {(before.st_size >> 20) + 1:,} MB, then run the same command again",
        ) from None
    except duckdb.Error as error:
        # its words may speak of rows
        raise _Unfinished(f"DuckDB could not copy it ({type(error).__name__})") from None
    finally:
        with suppress(duckdb.Error):
            connection.execute(f"DETACH DATABASE IF EXISTS {_NEW}")
        _remove(new)


def _remove(file: Path) -> None:
    for path in (file, Path(f"{file}.wal")):
        path.unlink(missing_ok=True)


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
        names = ", ".join(_columns(asked, source, target, schema, table))
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
        if asked(query, old) != asked(query, _NAME):
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


def _columns(asked: Any, source: str, target: str, schema: str, table: str) -> Iterator[str]:
    """The columns that hold values of their own, and not what DuckDB generates: it does not say
    which those are, but binds no insert into one."""
    defaults = asked(
        "SELECT column_name, column_default FROM duckdb_columns() WHERE database_name = ?"
        " AND schema_name = ? AND table_name = ? ORDER BY column_index",
        *(_NAME, schema, table),
    )
    for name, default in defaults:
        column = _quoted(name)
        if default is not None:
            try:
                asked(f"EXPLAIN INSERT INTO {target} ({column}) SELECT {column} FROM {source}")
            except duckdb.BinderException:
                continue
        yield column


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


def _vacuum(client: SqlJobClientBase, patience: float) -> str:
    """Writes the tables in Postgres anew, with their indexes and statistics."""
    end, sql = time.monotonic() + patience, client.sql_client
    # rows may have left bytes also where none was removed now
    stored = client.get_storage_tables([table.name for table in V1P1.tables])
    there = {sql.make_qualified_table_name(name): columns for name, columns in stored if columns}
    places = list(there)
    for place, columns in there.items():
        if not sql.execute_sql(f"SELECT 1 FROM {place} LIMIT 1"):
            _forget_samples(sql, place, columns)
        if why := _vacuumed(sql, place, "FULL, ANALYZE", end):
            todo = f"let the owner of the tables run VACUUM (FULL, ANALYZE) {', '.join(places)}"
            raise _Unfinished(why, f"mend this and run the same command again, or {todo}")
    # samples of values, which ANALYZE has replaced as any row is replaced
    samples = _vacuumed(sql, "pg_catalog.pg_statistic", "FULL", end)
    sql.execute_sql(f"DROP TABLE {sql.make_qualified_table_name(_DUE)}")
    return (
        "The tables were written anew (VACUUM FULL). Postgres's log (WAL), replicas and backups"
        " hold their bytes until they are renewed"
        + (
            ", and so do old samples of values, until the owner of the database runs VACUUM FULL"
            " pg_statistic."
            if samples
            else "."
        )
    )


def _forget_samples(sql: SqlClientBase[Any], place: str, columns: Mapping[str, Any]) -> None:
    """Has Postgres replace its samples of the values of a table that is empty now: it keeps them
    where it finds no row to take others from, so that it gets one for as long."""
    row = {
        sql.escape_column_name(name): _BLANKS.get(column["data_type"], "CURRENT_TIMESTAMP")
        for name, column in columns.items()
        if not column["nullable"]
    }
    values = f"({', '.join(row)}) VALUES ({', '.join(row.values())})" if row else "DEFAULT VALUES"
    with sql.begin_transaction():
        sql.execute_sql(f"INSERT INTO {place} {values}")
        sql.execute_sql(f"ANALYZE {place}")
        sql.execute_sql(f"DELETE FROM {place}")


def _vacuumed(sql: SqlClientBase[Any], place: str, how: str, end: float) -> str:
    """Writes a table anew; why that is not done, or empty if it is."""
    file = "SELECT pg_relation_filenode(%s::regclass)"
    while True:
        notices: Any = sql.native_connection.notices
        notices.clear()
        # whoever reads the table next waits behind this: so not for long at once
        wait = max(1, min(1_000, int((end - time.monotonic()) * 1_000)))
        try:
            sql.execute_sql("SELECT set_config('lock_timeout', %s, false)", str(wait))
            before = sql.execute_sql(file, place)
            sql.execute_sql(f"VACUUM ({how}, VERBOSE) {place}")
        except DatabaseException as error:
            if getattr(error.dbapi_exception, "pgcode", "") != _LOCKED:
                # it speaks of files and rights, and of no row
                return clean(error)
            why = f"another session has the table {place} in use, perhaps in an open transaction"
        else:
            if before == sql.execute_sql(file, place):
                return f"this user may not rewrite {place}"
            if not any(map(_still_seen, notices)):
                return ""
            why = f"a transaction that began earlier still sees rows of {place}"
        if time.monotonic() >= end:
            return why
        time.sleep(_PAUSE)


def _still_seen(notice: str) -> bool:
    """Whether VACUUM tells of removed rows that it had to keep: the second line begins with how
    many, in any language."""
    found = re.search(r"\n\D*(\d+)", notice)
    return found is not None and int(found[1]) > 0
