"""Postgres: dlt's destination, whose statements end with the run that sent them; and what it needs
so that it answers soon: indexes over the keys, and statistics.

It takes `estab` and an id for independent of each other, and so a join over both for one that finds
next to nothing, the more so the more schools there are; then it loops over whole tables. Measured
for 20 schools, 91,000 enrollments: the views took up to 90 s, and 0.3 s with both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from dlt.destinations import postgres
from dlt.destinations.sql_client import SqlClientBase

from oneroster_source.model import REJECTED_ROWS, V1P1, Table


class Postgres(postgres):
    """A dlt destination: `dlt.destinations.postgres`, with sessions that end with the process."""

    # whose defaults dlt tells from what is given
    __orig_base__ = postgres

    def __init__(self, credentials: Any = None, **options: Any) -> None:
        super().__init__(credentials, **options)

    @property
    def client_class(self) -> Any:
        """Its client, which takes the driver."""
        from oneroster_source.destination.backends.postgres_client import Client

        return Client


def tune(client: SqlClientBase[Any], read: Collection[str], changed: Collection[str]) -> None:
    """Makes the indexes that are missing, and looks anew at what a load has changed.

    Args:
        client: dlt's client of a Postgres database.
        read: The tables that views and checks read.
        changed: The tables into which something was loaded.

    Raises:
        DatabaseException: dlt's, if the database refuses it.
    """
    known = [t for e in V1P1.endpoints for t in (*e.tables(), e.history) if t]
    tables = [t for t in (*known, REJECTED_ROWS) if t.name in read and t.name in changed]
    if not tables:
        return
    found = client.execute_sql(
        "SELECT indexname FROM pg_indexes WHERE schemaname = %s", client.dataset_name
    )
    there = {str(name) for (name,) in found or ()}
    todo = []
    for table in tables:
        place = client.make_qualified_table_name(table.name)
        for column in _keys(table):
            name = f"{table.name}__by_{column}"
            if name not in there:
                quoted = client.escape_column_name(name)
                columns = ", ".join(map(client.escape_column_name, ("estab", column)))
                todo.append(f"CREATE INDEX {quoted} ON {place} ({columns})")
        todo.append(f"ANALYZE {place}")
    client.execute_sql("; ".join(todo))


def _keys(table: Table) -> Iterator[str]:
    """The columns that, with `estab`, lead to rows: of the row itself, and of what it refers to."""
    yield from table.key[1:2]
    yield from (c.name for c in table.columns if c.source.endswith(".sourcedId"))
