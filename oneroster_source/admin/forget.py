"""Removes whole schools from a dataset: rows, cursors, and what is left of them in the database."""

from __future__ import annotations

from collections.abc import Collection

from oneroster_source.destination import staging
from oneroster_source.destination.backends import backend_of
from oneroster_source.destination.queries import (
    DatabaseClient,
    Removed,
    Rows,
    count_rows,
    existing_tables,
)
from oneroster_source.destination.session import Target, require_database
from oneroster_source.destination.state import changed, cursors, divide_by, prunes, source_of
from oneroster_source.model import HISTORY_KEPT, SUPPRESSED_USERS, V1P1

# who was erased stays erased, also if the school is loaded again
_BY_SCHOOL = [t for t in V1P1.tables if t not in (HISTORY_KEPT, SUPPRESSED_USERS)]


def count(target: Target, estabs: Collection[str]) -> dict[str, int]:
    """Counts the rows of some schools by table: see `Warehouse.count`."""
    with target.loaded() as (_, client):
        database = require_database(client, target.name)
        return count_rows(database.sql_client, _rows(database, estabs))


def forget(target: Target, estabs: Collection[str]) -> Removed:
    """Removes some schools: see `Warehouse.forget`."""
    removed = Removed()
    with target.loaded(to_write=True, removed=removed) as (pipeline, opened_client):
        client = require_database(opened_client, target.name)
        # the cursors first: rows without one are read again, a cursor without rows hides them
        with changed(pipeline) as state:
            divide_by(state, "")
            for schools in (*cursors(state).values(), prunes(source_of(state))):
                for estab in estabs:
                    schools.pop(estab, None)
        # of runs that were killed
        staging.drop(client)
        parts = _rows(client, estabs)
        removed.rows = count_rows(client.sql_client, parts)
        backend_of(client).mark_compaction_due()
        with client.sql_client.begin_transaction():
            for part in parts:
                if part.table.name in removed.rows:
                    part.delete(client.sql_client)
    return removed


def is_unfinished(target: Target) -> bool:
    """Whether an earlier removal was cut short: see `Warehouse.is_unfinished`."""
    with target.loaded() as (_, client):
        return backend_of(client).compaction_is_due()


def _rows(client: DatabaseClient, estabs: Collection[str]) -> list[Rows]:
    """The rows of some schools, in all tables that exist."""
    marks = ", ".join(["%s"] * len(estabs))
    names = existing_tables(client, [table.name for table in _BY_SCHOOL])
    return [
        Rows(table, f"{{estab}} IN ({marks})", tuple(estabs))
        for table in _BY_SCHOOL
        if table.name in names
    ]
