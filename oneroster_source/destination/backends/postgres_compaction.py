"""Removes deleted rows from the files of Postgres's tables: VACUUM FULL writes the tables again.

Their values also stand in the samples that Postgres takes of each column (`pg_statistic`). Names of
pupils are among them, for anyone to read who may read the table: so they are renewed too.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from oneroster_source.destination.backends.base import CompactionFailed
from oneroster_source.destination.queries import (
    DatabaseClient,
    DatabaseException,
    SqlClient,
    existing_tables,
)
from oneroster_source.destination.waiting import InUse, retry_while_in_use
from oneroster_source.errors import clean
from oneroster_source.model import V1P1

MARK = "rewrite_is_due"
"""The table that marks a dataset whose deleted rows are still on disk."""
_LOCK_NOT_AVAILABLE = "55P03"
"""Postgres's error code for a lock that was waited for in vain."""
_BLANKS = {"text": "''", "bigint": "0", "bool": "FALSE", "json": "'[]'"}


def compact(client: DatabaseClient, patience: float) -> str:
    """Writes the tables again, with their indexes and statistics, and drops the mark.

    Args:
        client: dlt's client of the database, open.
        patience: Seconds to wait for others that use the tables.

    Returns:
        What was done, for people.

    Raises:
        CompactionFailed: A table cannot be written.
    """
    end, sql = time.monotonic() + patience, client.sql_client
    # rows may have left bytes also where none was removed now
    stored = existing_tables(client, (table.name for table in V1P1.tables))
    tables = {sql.make_qualified_table_name(name): columns for name, columns in stored.items()}
    for table, columns in tables.items():
        if not sql.execute_sql(f"SELECT 1 FROM {table} LIMIT 1"):
            _replace_samples(sql, table, columns)
        try:
            _vacuum(sql, table, "FULL, ANALYZE", end)
        except CompactionFailed as problem:
            todo = f"let the owner of the tables run VACUUM (FULL, ANALYZE) {', '.join(tables)}"
            raise CompactionFailed(str(problem), f"{problem.todo}, or {todo}") from None
    left = ""
    try:
        # ANALYZE has replaced samples as any row is replaced
        _vacuum(sql, "pg_catalog.pg_statistic", "FULL", end)
    except CompactionFailed:
        left = (
            ", and so do old samples of values, until the owner of the database runs VACUUM FULL"
            " pg_statistic"
        )
    sql.execute_sql(f"DROP TABLE {sql.make_qualified_table_name(MARK)}")
    return (
        "The tables were compacted (VACUUM FULL). Postgres's log (WAL), replicas and backups hold"
        f" the bytes of deleted rows until they are renewed{left}."
    )


def _replace_samples(sql: SqlClient, table: str, columns: Mapping[str, Any]) -> None:
    """Replaces the samples of a table that is empty now: ANALYZE keeps them where it finds no row,
    so the table gets one meanwhile.
    """
    row = {
        sql.escape_column_name(name): _BLANKS.get(column["data_type"], "CURRENT_TIMESTAMP")
        for name, column in columns.items()
        if not column["nullable"]
    }
    values = f"({', '.join(row)}) VALUES ({', '.join(row.values())})" if row else "DEFAULT VALUES"
    with sql.begin_transaction():
        sql.execute_sql(f"INSERT INTO {table} {values}")
        sql.execute_sql(f"ANALYZE {table}")
        sql.execute_sql(f"DELETE FROM {table}")


def _vacuum(sql: SqlClient, table: str, how: str, end: float) -> None:
    """Writes a table again.

    Raises:
        CompactionFailed: Others use it for too long, or this user may not.
    """
    file = "SELECT pg_relation_filenode(%s::regclass)"

    def vacuum() -> None:
        notices: Any = sql.native_connection.notices
        notices.clear()
        # whoever reads the table next waits behind this: so not for long at once
        wait = max(1, min(1_000, int((end - time.monotonic()) * 1_000)))
        try:
            sql.execute_sql("SELECT set_config('lock_timeout', %s, false)", str(wait))
            before = sql.execute_sql(file, table)
            sql.execute_sql(f"VACUUM ({how}, VERBOSE) {table}")
        except DatabaseException as error:
            if getattr(error.dbapi_exception, "pgcode", "") != _LOCK_NOT_AVAILABLE:
                # it is about files and rights, not about rows
                raise CompactionFailed(clean(error)) from None
            raise InUse(
                f"another session has the table {table} in use, perhaps in an open transaction"
            ) from None
        if before == sql.execute_sql(file, table):
            raise CompactionFailed(f"this user may not rewrite {table}")
        if any(map(_kept_rows, notices)):
            raise InUse(f"a transaction that began earlier still sees rows of {table}")

    try:
        retry_while_in_use(vacuum, end - time.monotonic())
    except InUse as problem:
        raise CompactionFailed(str(problem)) from None


def _kept_rows(notice: str) -> bool:
    """Whether VACUUM says that it had to keep deleted rows: its second line begins with how many,
    in any language.
    """
    found = re.search(r"\n\D*(\d+)", notice)
    return found is not None and int(found[1]) > 0
