"""Removes deleted rows from a DuckDB file: copies it without them, and puts the copy in its place.

DuckDB only marks rows as deleted, and keeps their bytes until something else needs the place. The
copy replaces the file in one step: whoever is killed leaves the file that was there, and the mark
that the work is due.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb

from oneroster_source.destination.backends.base import CompactionFailed
from oneroster_source.errors import clean
from oneroster_source.model.quoting import literal, quoted

_CATALOG = "oneroster.compacted"
"""What the copy is attached as. No file's own catalog has a dot."""
_COPY = quoted(_CATALOG)
_SAME = {
    "tables": "schema_name, table_name, sql, comment",
    "views": "schema_name, view_name, sql, comment",
    "indexes": "schema_name, index_name, sql, comment",
    "sequences": "schema_name, sequence_name, sql, comment",
    "types": "schema_name, type_name, logical_type, labels::VARCHAR, comment",
    "functions": "schema_name, function_name, parameters::VARCHAR, macro_definition, comment",
    "columns": "schema_name, table_name, column_name, data_type, column_default, comment",
}
"""What must be the same in both files, by DuckDB's functions that list it."""


def mark(file: Path) -> Path:
    """The file that marks a database whose deleted rows are still on disk."""
    return Path(f"{file}.rewrite")


def compact(connection: duckdb.DuckDBPyConnection, file: Path) -> None:
    """Replaces a database file by its copy, and removes the mark.

    Args:
        connection: The only connection to the file, in this process and in any other.
        file: The file; not a link to it.

    Raises:
        CompactionFailed: It cannot be copied, and is as it was.
    """
    copy = Path(f"{mark(file)}.duckdb")
    logs = [Path(f"{path}.wal") for path in (file, copy)]
    before = file.stat()
    if before.st_nlink > 1:
        raise CompactionFailed(
            "the file has a second name (a hard link), which would keep them",
            "remove the other name, then run the same command again",
        )
    try:
        # of a copy that was not finished
        _remove(copy)
        # spilled by a process that was killed: this one has spilled nothing yet
        for spilled in Path(f"{file}.tmp").glob("duckdb_temp_*"):
            spilled.unlink(missing_ok=True)
        with suppress(OSError):
            Path(f"{file}.tmp").rmdir()
        # from now on nothing is written to the old file: closing it would remove the log of that
        # name, which is the new file's by then
        connection.execute("CHECKPOINT; PRAGMA disable_checkpoint_on_shutdown")
        _copy(connection, copy)
        if any(log.exists() for log in logs):
            raise CompactionFailed("DuckDB has not closed its log")
        # the group first: whoever may not give a file away may still give it to a group
        for owner in ((-1, before.st_gid), (before.st_uid, -1)):
            with suppress(PermissionError):
                os.chown(copy, *owner)
        copy.chmod(before.st_mode & 0o7777)
        _sync(copy)
        copy.replace(file)
        _sync(file.parent)
        mark(file).unlink(missing_ok=True)
    except (OSError, duckdb.IOException) as error:
        said = clean(error, limit=500)
        if isinstance(error, OSError):
            said = ": ".join(filter(None, (error.strerror, error.filename)))
        raise CompactionFailed(
            said,
            f"see that the folder {file.parent} can be written to and has room for another"
            f" {(before.st_size >> 20) + 1:,} MB, then run the same command again",
        ) from None
    except duckdb.Error as error:
        # its text may quote rows
        raise CompactionFailed(f"DuckDB could not copy it ({type(error).__name__})") from None
    finally:
        with suppress(duckdb.Error):
            connection.execute(f"DETACH DATABASE IF EXISTS {_COPY}")
        _remove(copy)


def _copy(connection: duckdb.DuckDBPyConnection, copy: Path) -> None:
    """Copies everything in a database into a new file, and checks that it is there."""

    def fetch(query: str, *values: Any) -> list[tuple[Any, ...]]:
        return connection.execute(query, values).fetchall()

    ((name,),) = fetch("SELECT current_database()")
    _require_no_foreign_keys(fetch, name)
    ((tags,),) = fetch("SELECT tags FROM duckdb_databases() WHERE database_name = ?", name)
    version = str(tags.get("storage_version", "")).rstrip("+")
    ((block,),) = fetch(
        "SELECT block_size FROM pragma_database_size() WHERE database_name = ?", name
    )
    like = f"BLOCK_SIZE {int(block)}" + (f", STORAGE_VERSION '{version}'" if version else "")
    connection.execute(f"ATTACH {literal(str(copy))} AS {_COPY} ({like})")
    connection.execute(f"COPY FROM DATABASE {quoted(name)} TO {_COPY} (SCHEMA)")
    connection.execute(f"COPY FROM DATABASE {quoted(name)} TO {_COPY} (DATA)")
    for what, columns in _SAME.items():
        query = f"SELECT {columns} FROM duckdb_{what}() WHERE database_name = ? ORDER BY ALL"
        if fetch(query, name) != fetch(query, _CATALOG):
            raise CompactionFailed(f"DuckDB could not copy all {what} in the file")
    tables = "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = ?"
    for schema, table in fetch(tables, name):
        places = (f"{db}.{quoted(schema)}.{quoted(table)}" for db in (quoted(name), _COPY))
        wanted, found = (fetch(f"SELECT count(*) FROM {place}")[0][0] for place in places)
        if wanted != found:
            raise CompactionFailed(f"{table} has {wanted:,} rows, and {found:,} could be copied")
    connection.execute(f"CHECKPOINT {_COPY}; DETACH {_COPY}")


def _require_no_foreign_keys(fetch: Any, database: str) -> None:
    """Checks that no table has foreign keys: DuckDB copies the tables in an order of its own, in
    which rows come before those that they refer to. Ours have none.
    """
    found = fetch(
        "SELECT schema_name, table_name FROM duckdb_constraints()"
        " WHERE database_name = ? AND constraint_type = 'FOREIGN KEY' ORDER BY ALL LIMIT 1",
        database,
    )
    for schema, table in found:
        raise CompactionFailed(
            f"DuckDB cannot copy the table {quoted(schema)}.{quoted(table)} without breaking its"
            " foreign keys",
            "move that table to another file, or make it again without its foreign keys, then run"
            " the same command again",
        )


def _remove(file: Path) -> None:
    for path in (file, Path(f"{file}.wal")):
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Makes sure that a file, or the names in a folder, survive a loss of power."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
