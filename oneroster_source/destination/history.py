"""History: every version of a row, with `valid_from` and `valid_to` (SCD type 2).

SQL in the destination compares the endpoints' tables, as a load has left them, with the current
versions: a version that differs from its row ends, and a row without a current version gets one. So
versions are right whatever has loaded the tables, also after a run that was killed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from oneroster_source.destination.dlt_columns import allow_null
from oneroster_source.destination.queries import (
    DatabaseClient,
    SqlClient,
    as_utc,
    existing_tables,
    id_in,
    run_query,
)
from oneroster_source.errors import DestinationError
from oneroster_source.model import HISTORY_KEPT, SYNC_RUN_DETAILS, V1P1, Table

STAMPS = frozenset({"date_last_modified", "_deleted_at"})
"""Columns that make no version by themselves: providers stamp rows again that have not changed."""
_TICK = timedelta(microseconds=1)
_ANY = "SELECT 1 FROM {versions} LIMIT 1"
_VERSIONED = {e.table: e.history for e in V1P1.endpoints if e.history}

Loaded = Mapping[str, Collection[str] | None]
"""The tables into which rows were loaded, with the sourcedIds of these rows, or None for all."""


def keep(
    client: DatabaseClient, *, at: datetime | None = None, loaded: Loaded | None = None
) -> dict[str, int]:
    """Updates the versions to what the tables hold now, in one transaction.

    Args:
        client: dlt's client, open, of a destination that was loaded with `history`.
        at: `valid_from` of new versions; now, if not given. Where the clock went back, it is after
            that of all existing versions nevertheless.
        loaded: Which rows to compare, if not all.

    Returns:
        How many rows have changed, by the table of their versions; tables without any are left out.

    Raises:
        DestinationError: There are no tables of versions.
        DatabaseException: dlt's, if the destination refuses it.
    """
    stored = _stored(client)
    sql, there = client.sql_client, set(stored)
    pairs = _pairs(there)
    if not pairs:
        raise DestinationError(
            "the dataset has no tables of versions", todo="load with history = true first"
        )
    # the rows that are made here have no values for dlt's columns
    ours = {HISTORY_KEPT.name, *(versions.name for _, versions in pairs)}
    allow_null(client, {name: columns for name, columns in stored.items() if name in ours})
    changes = {}
    with sql.begin_transaction():
        at = max([at or datetime.now(UTC), *(m + _TICK for m in _moments(sql, there))])
        for table, versions in pairs:
            # a new table of versions has none of the rows
            fresh = not run_query(sql, _ANY, versions=versions)
            if loaded is None or table.name in loaded or fresh:
                ids = None if loaded is None or fresh else loaded[table.name]
                changes[versions.name] = _keep(sql, table, versions, at, ids)
        run_query(sql, "DELETE FROM {kept}", kept=HISTORY_KEPT)
        query = "INSERT INTO {kept} ({started}, {runs}) VALUES (%s, %s)"
        run_query(sql, query, at, _runs(sql), kept=HISTORY_KEPT)
    return {name: rows for name, rows in changes.items() if rows}


def begin(
    client: DatabaseClient, at: datetime, *, catch_up: bool, without: Collection[str] = ()
) -> bool:
    """Notes that a load begins: until `keep` the tables may be ahead of the versions.

    Args:
        client: dlt's client of the destination, open.
        at: When the run began.
        catch_up: Whether to update the versions first, if an earlier run was killed before it did
            so, or had no `history`: this load may change the same rows again.
        without: Tables to leave out of that, since they were just made, and are empty.

    Returns:
        Whether the versions are up to date before this load.
    """
    sql = client.sql_client
    if HISTORY_KEPT.name not in _stored(client):
        return False
    found = run_query(sql, "SELECT {started}, {runs} FROM {kept}", kept=HISTORY_KEPT)
    current = [runs for _, runs in found] == [_runs(sql)]
    if catch_up and not current:
        # the run that loaded the rows has noted when it began
        loaded = {table.name: None for table in _VERSIONED if table.name not in without}
        began = next((as_utc(started) for started, runs in found if not runs), at)
        keep(client, at=began, loaded=loaded)
        current = True
    if current or not any(not runs for _, runs in found):
        # of several runs without versions the first one's time counts
        run_query(sql, "UPDATE {kept} SET {started} = %s, {runs} = ''", at, kept=HISTORY_KEPT)
    return current


def is_kept(client: DatabaseClient) -> bool:
    """Whether any table of versions exists."""
    return bool(_pairs(_stored(client)))


def newest(client: DatabaseClient) -> datetime | None:
    """The time of the newest change of versions; None if there are no versions."""
    return max(_moments(client.sql_client, _stored(client)), default=None)


def _stored(client: DatabaseClient) -> dict[str, Any]:
    names = [t.name for pair in _VERSIONED.items() for t in pair]
    return existing_tables(client, [*names, HISTORY_KEPT.name])


def _pairs(there: Collection[str]) -> list[tuple[Table, Table]]:
    return [(t, h) for t, h in _VERSIONED.items() if {t.name, h.name} <= set(there)]


def _moments(sql: SqlClient, there: Collection[str]) -> list[datetime]:
    found: list[Any] = []
    for versions in _VERSIONED.values():
        if versions.name in there:
            query = "SELECT max({valid_from}), max({valid_to}) FROM {versions}"
            found += run_query(sql, query, versions=versions)[0]
    return [moment for moment in map(as_utc, found) if moment is not None]


def _runs(sql: SqlClient) -> str:
    """A text that changes whenever a run loads anything."""
    query = "SELECT count(*), max({run_id}) FROM {details}"
    ((count, run_id),) = run_query(sql, query, details=SYNC_RUN_DETAILS)
    return f"{run_id or 'none'}, {count}"


def _keep(
    sql: SqlClient,
    table: Table,
    versions: Table,
    at: datetime,
    ids: Collection[str] | None,
) -> int:
    """Ends and begins versions of a table; returns how many rows have changed."""
    few, values = (ids is not None and id_in(sql, ids)) or ("TRUE", ())
    few = few.format("{sourced_id}")
    differs = " OR ".join(
        f"t.{{{c.name}}} IS DISTINCT FROM v.{{{c.name}}}"
        for c in table.columns
        if c.name not in table.key and c.name not in STAMPS
    )
    names = ", ".join(f"{{{column.name}}}" for column in table.columns)
    # its columns have names of their own, so that those of the tables need no table before them
    changed = (
        "EXISTS (SELECT 1 FROM oneroster_changed"
        " WHERE changed_estab = {estab} AND changed_id = {sourced_id})"
    )

    def run(query: str, *values: Any) -> Any:
        return run_query(sql, query, *values, table=table, versions=versions)

    # one join finds all changes; with the columns as further keys DuckDB takes three times as long
    run(
        "CREATE TEMPORARY TABLE oneroster_changed AS"
        " SELECT COALESCE(t.{estab}, v.{estab}) AS changed_estab,"
        " COALESCE(t.{sourced_id}, v.{sourced_id}) AS changed_id"
        f" FROM (SELECT * FROM {{table}} WHERE {few}) t"
        f" FULL JOIN (SELECT * FROM {{versions}} WHERE {{valid_to}} IS NULL AND {few}) v"
        " ON t.{estab} = v.{estab} AND t.{sourced_id} = v.{sourced_id}"
        f" WHERE t.{{estab}} IS NULL OR v.{{estab}} IS NULL OR {differs}",
        *(values * 2),
    )
    ((count,),) = run("SELECT count(*) FROM oneroster_changed")
    if count:
        run(
            f"UPDATE {{versions}} SET {{valid_to}} = %s WHERE {{valid_to}} IS NULL AND {changed}",
            at,
        )
        run(
            f"INSERT INTO {{versions}} ({names}, {{valid_from}})"
            f" SELECT {names}, %s FROM {{table}} WHERE {changed}",
            at,
        )
    run("DROP TABLE oneroster_changed")
    return int(count)
