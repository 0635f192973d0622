"""SQL that any destination takes: which tables it has, and rows of them to count and remove."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias

from dlt.common.destination.client import JobClientBase
from dlt.destinations import exceptions
from dlt.destinations.job_client_impl import SqlJobClientBase
from dlt.destinations.sql_client import SqlClientBase

from oneroster_source.model import Table

DestinationClient: TypeAlias = JobClientBase
"""dlt's client of any destination."""
DatabaseClient: TypeAlias = SqlJobClientBase
"""dlt's client of a database."""
SqlClient: TypeAlias = SqlClientBase[Any]
"""dlt's client that runs SQL, in a database or on files."""
DatabaseException: TypeAlias = exceptions.DatabaseException
"""A database refused a statement."""


def existing_tables(client: Any, names: Iterable[str]) -> dict[str, Any]:
    """Those of the tables that exist, with their columns as dlt describes them.

    Args:
        client: dlt's client of the destination, open.
        names: Their names. dlt's client changes none of them.
    """
    # a destination that cannot say has none
    stored = getattr(client, "get_storage_tables", lambda names: ())
    return {str(name): columns for name, columns in stored(list(names)) if columns}


def render_query(client: SqlClient, query: str, **tables: Table) -> str:
    """A query with its `{table}` and `{column}` names as the destination writes them.

    Args:
        client: dlt's client of the destination.
        query: SQL that any destination takes, with names in braces.
        **tables: The tables by the names that stand for them in the query.
    """
    columns = {column.name for table in tables.values() for column in table.columns}
    names = {name: client.escape_column_name(name) for name in columns}
    names |= {n: client.make_qualified_table_name(table.name) for n, table in tables.items()}
    return query.format(**names)


def run_query(client: SqlClient, query: str, *values: Any, **tables: Table) -> Sequence[Any]:
    """Runs a query with names in braces, and returns its rows; see `render_query`."""
    return client.execute_sql(render_query(client, query, **tables), *values) or ()


def as_utc(moment: datetime | None) -> datetime | None:
    """An instant as a database returned it, in UTC, which is what it means without a time zone."""
    if moment is None:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a table, to be counted and removed.

    Args:
        table: The table.
        where: The condition on them, with names in braces.
        values: The values of its parameters.
    """

    table: Table
    where: str
    values: tuple[Any, ...] = ()

    def count(self, client: SqlClient) -> int:
        """Counts them."""
        query = f"SELECT count(*) FROM {{table}} WHERE {self.where}"
        ((found,),) = run_query(client, query, *self.values, table=self.table)
        return int(found)

    def delete(self, client: SqlClient) -> None:
        """Deletes them."""
        query = f"DELETE FROM {{table}} WHERE {self.where}"
        run_query(client, query, *self.values, table=self.table)


@dataclass(slots=True)
class Removed:
    """What was removed from a destination."""

    rows: dict[str, int] = field(default_factory=dict)
    """Rows by table, and values in other people's rows by table and column."""
    bytes: str = ""
    """What became of their bytes on disk, for people."""


def count_rows(client: SqlClient, parts: Iterable[Rows]) -> dict[str, int]:
    """Counts rows by table; tables without any are left out."""
    found: dict[str, int] = {}
    for part in parts:
        found[part.table.name] = found.get(part.table.name, 0) + part.count(client)
    return {name: rows for name, rows in found.items() if rows}


_SPLIT = {"duckdb": "string_split", "postgres": "string_to_array"}
"""The functions that split ids passed as one text: ten thousand parameters take DuckDB seconds."""
_SEPARATOR = "\x1f"


def id_in(client: SqlClient, ids: Collection[str]) -> tuple[str, tuple[str, str]] | None:
    """The condition that a column, `{}`, holds one of some ids, and its two parameters.

    None where the destination's SQL is not known to have such a function, or an id holds what
    separates them.
    """
    split = _SPLIT.get(str(client.capabilities.sqlglot_dialect))
    joined = _SEPARATOR.join(ids)
    if not ids or split is None or joined.count(_SEPARATOR) >= len(ids):
        return None
    return f"{{}} IN (SELECT unnest({split}(%s, %s)))", (joined, _SEPARATOR)
