"""What the destination holds, as a load asks it before it adds to it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dlt
import pyarrow as pa
from dlt.common.configuration.container import Container
from dlt.common.destination import DestinationCapabilitiesContext
from dlt.common.destination.exceptions import (
    DestinationCapabilitiesException,
    SqlClientNotAvailable,
)
from dlt.common.destination.utils import resolve_merge_strategy
from dlt.dataset.utils import get_destination_clients
from dlt.destinations.job_client_impl import SqlJobClientBase
from dlt.destinations.sql_client import SqlClientBase, WithSqlClient

from oneroster_source.destination.connection import opened
from oneroster_source.errors import ConfigurationError, DestinationError
from oneroster_source.model import SUPPRESSED_USERS, Table
from oneroster_source.model.type_map import arrow_schema

_ROWS = 50_000
_IDS = 500
"""Values in one query: any destination takes as many."""


def worded(client: SqlClientBase[Any], query: str, **tables: Table) -> str:
    """A query with its `{table}` and `{column}` names as the destination writes them.

    Args:
        client: dlt's client of the destination.
        query: SQL that any destination takes, names in braces.
        **tables: The tables by the names that stand for them in the query.
    """
    columns = {column.name for table in tables.values() for column in table.columns}
    names = {name: client.escape_column_name(name) for name in columns}
    names |= {n: client.make_qualified_table_name(table.name) for n, table in tables.items()}
    return query.format(**names)


def utc(moment: datetime | None) -> datetime | None:
    """An instant as a database gave it: some know no time zones, and dlt gives them UTC."""
    if moment is None:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a table, to be counted and removed.

    Args:
        table: The table.
        where: What holds for them, names in braces.
        values: The values of its parameters.
    """

    table: Table
    where: str
    values: tuple[Any, ...] = ()

    def count(self, client: SqlClientBase[Any]) -> int:
        """How many there are."""
        query = f"SELECT count(*) FROM {{table}} WHERE {self.where}"
        ((found,),) = client.execute_sql(worded(client, query, table=self.table), *self.values) or (
            (0,),
        )
        return int(found)

    def delete(self, client: SqlClientBase[Any]) -> None:
        """Removes them."""
        query = f"DELETE FROM {{table}} WHERE {self.where}"
        client.execute_sql(worded(client, query, table=self.table), *self.values)


def counted(client: SqlClientBase[Any], parts: Iterable[Rows]) -> dict[str, int]:
    """How many rows there are in all, by table; of tables with any."""
    found: dict[str, int] = {}
    for part in parts:
        found[part.table.name] = found.get(part.table.name, 0) + part.count(client)
    return {name: rows for name, rows in found.items() if rows}


def refuse_what_cannot_merge() -> None:
    """Looks at the destination of the pipeline that runs, before the resource reads anything.

    Where dlt cannot merge, it adds rows instead, and no more than logs it.

    Raises:
        ConfigurationError: It would not replace and delete rows.
    """
    declared: Any = dlt.current.resource().compute_table_schema()
    # its child tables have the same hints, but for a format that somebody has given to it
    child: Any = {hint: value for hint, value in declared.items() if hint != "table_format"}
    for table in (declared, child):
        try:
            how = resolve_merge_strategy({}, table, Container()[DestinationCapabilitiesContext])
        except DestinationCapabilitiesException:
            how = None
        if how != "delete-insert":
            wanted = table.get("table_format")
            raise ConfigurationError(
                f"the destination {dlt.current.pipeline().destination.destination_name!r} cannot"
                f" replace and delete rows in {wanted or 'its'} tables",
                todo="load into a database, or into Delta tables: with"
                " oneroster_source.destination.backends.delta.Delta as the destination, or with"
                " `oneroster sync --destination filesystem`",
            )


def refuse_what_is_no_database() -> None:
    """Looks at the destination of the pipeline that runs, before the resource reads anything.

    Raises:
        ConfigurationError: It keeps no versions, since it can be told nothing in SQL.
    """
    pipeline = dlt.current.pipeline()
    client, _ = get_destination_clients(
        dlt.current.source_schema(),
        destination=pipeline.destination,
        destination_dataset_name=pipeline.dataset_name,
    )
    if not isinstance(client, SqlJobClientBase):
        raise ConfigurationError(
            f"the destination {pipeline.destination.destination_name!r} is no database, and keeps"
            " no versions, as the setting 'history' wants",
            todo="load into a database, such as a DuckDB file, or set history to false",
        )


_SPLIT = {"duckdb": "string_split", "postgres": "string_to_array"}
"""What splits ids that are handed over as one text: ten thousand parameters take DuckDB seconds."""
_SEPARATOR = "\x1f"


def among(client: SqlClientBase[Any], ids: Collection[str]) -> tuple[str, tuple[str, str]] | None:
    """The condition that a column, `{}`, holds one of some ids, and its two values.

    None where the destination is not known to have words for it, or an id cannot be told so.
    """
    split = _SPLIT.get(str(client.capabilities.sqlglot_dialect))
    joined = _SEPARATOR.join(ids)
    if not ids or split is None or joined.count(_SEPARATOR) >= len(ids):
        return None
    return f"{{}} IN (SELECT unnest({split}(%s, %s)))", (joined, _SEPARATOR)


class Held:
    """The tables of the pipeline that runs, asked one school at a time.

    It is connected for each question only: in between, others may use a DuckDB file.

    Every method raises SqlClientNotAvailable (dlt's) for a destination that answers no SQL, and
    DestinationError for a file that stays held.

    Args:
        patience: Seconds to wait for a DuckDB file that another process holds open. After that it
            is not waited for again.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._refusal: DestinationError | None = None

    @contextmanager
    def open(self) -> Iterator[None]:
        """For many questions in a row: a DuckDB file that is open already opens at once."""
        with self._client():
            yield

    def tables(self, names: Iterable[str]) -> frozenset[str]:
        """Those of the tables that are in the destination, whoever made them."""
        with self._client() as client:
            stored = getattr(client, "get_storage_tables", lambda names: ())
            return frozenset(name for name, columns in stored(names) if columns)

    def _asked_for(self, table: Table) -> list[str]:
        """The table's columns, in the order of its Arrow schema, as a query asks for them."""
        with self._client() as client:
            stored = getattr(client, "get_storage_tables", None)
            found = dict(stored([table.name]))[table.name] if stored else ()
            # the driver would read JSON, for which Python may have no room
            as_text = client.config.destination_type == "postgres"
        there = {str(name).lower() for name in found} or {c.name for c in table.columns}
        json_columns = {column.name for column in table.columns if column.kind == "json"}
        return [
            # a table that an earlier version has made gets its new columns with this load
            "NULL"
            if name not in there
            else f"CAST({{{name}}} AS VARCHAR)"
            if as_text and name in json_columns
            else f"{{{name}}}"
            for name in arrow_schema(table).names
        ]

    def is_filled(self, table: Table) -> bool:
        """Whether the table has any row."""
        return any(self._asked("SELECT 1 FROM {table} LIMIT 1", table=table))

    def ids(self, table: Table, estab: str) -> pa.Table:
        """The `sourced_id` and `_deleted` of a school's rows."""
        schema = arrow_schema(table)
        query = "SELECT {sourced_id}, {_deleted} FROM {table} WHERE {estab} = %s"
        wanted = pa.schema([schema.field("sourced_id"), schema.field("_deleted")])
        with self._cursor(query, estab, table=table) as cursor:
            # a driver that knows Arrow makes no Python object of each id
            parts = [part.cast(wanted) for part in cursor.iter_arrow(_ROWS)]
        return pa.concat_tables(parts) if parts else wanted.empty_table()

    def count_live(self, table: Table) -> dict[str, int]:
        """The rows that are not deleted, by school."""
        query = "SELECT {estab}, count(*) FROM {table} WHERE {_deleted} = %s GROUP BY {estab}"
        found = self._asked(query, False, table=table)
        return {str(estab): int(count) for rows in found for estab, count in rows}

    def all_rows(self, table: Table, estab: str) -> pa.Table:
        """All rows that a school has in a table, whole."""
        columns = ", ".join(self._asked_for(table))
        query = f"SELECT {columns} FROM {{table}} WHERE {{estab}} = %s"
        as_text = [i for i, column in enumerate(table.columns) if column.kind == "json"]
        found = self._asked(query, estab, table=table)
        return _table(found, list(arrow_schema(table)), as_text)

    def rows(self, table: Table, estab: str, ids: list[str]) -> pa.Table:
        """Those rows of a school, whole."""
        schema = arrow_schema(table)
        columns = ", ".join(self._asked_for(table))

        def found() -> Iterator[list[tuple[Any, ...]]]:
            for begin in range(0, len(ids), _IDS):
                some = ids[begin : begin + _IDS]
                query = (
                    f"SELECT {columns} FROM {{table}} WHERE {{estab}} = %s"
                    f" AND {{sourced_id}} IN ({', '.join(['%s'] * len(some))})"
                )
                yield from self._asked(query, estab, *some, table=table)

        as_text = [i for i, column in enumerate(table.columns) if column.kind == "json"]
        return _table(found(), list(schema), as_text)

    def orphans(self, child: Table, table: Table, estab: str) -> pa.ChunkedArray:
        """The parents that a school's child rows name and that the destination has not got."""
        parent = f"{{{child.parent_key}}}"
        query = (
            f"SELECT DISTINCT c.{parent} FROM {{child}} c WHERE c.{{estab}} = %s AND NOT EXISTS"
            f" (SELECT 1 FROM {{table}} p WHERE p.{{estab}} = c.{{estab}}"
            f" AND p.{{sourced_id}} = c.{parent})"
        )
        found = self._asked(query, estab, table=table, child=child)
        return _table(found, [pa.field(child.parent_key, pa.string())]).column(0)

    def suppressed(self) -> list[tuple[str, str, str]]:
        """The list of erased people: estab, digest, and the name of the key; empty if there is
        none."""
        if not self.tables([SUPPRESSED_USERS.name]):
            return []
        query = "SELECT {estab}, {user_digest}, {key_name} FROM {table}"
        return [
            (e, d, k) for rows in self._asked(query, table=SUPPRESSED_USERS) for e, d, k in rows
        ]

    def _asked(
        self, query: str, *values: str | bool, **tables: Table
    ) -> Iterator[list[tuple[Any, ...]]]:
        with self._cursor(query, *values, **tables) as cursor:
            yield from cursor.iter_fetch(_ROWS)

    @contextmanager
    def _cursor(self, query: str, *values: str | bool, **tables: Table) -> Iterator[Any]:
        with self._client() as client:
            sql_client = client.sql_client
            with sql_client.execute_query(worded(sql_client, query, **tables), *values) as cursor:
                yield cursor

    @contextmanager
    def _client(self) -> Iterator[Any]:
        """dlt's client of the destination; the pipeline gives one only after its first run."""
        pipeline = dlt.current.pipeline()
        client, _ = get_destination_clients(
            dlt.current.source_schema(),
            destination=pipeline.destination,
            destination_dataset_name=pipeline.dataset_name,
        )
        if not isinstance(client, WithSqlClient):
            kind = client.config.destination_type
            raise SqlClientNotAvailable(pipeline.pipeline_name, kind, kind)
        # the client of files opens no connection by itself
        connection = nullcontext() if isinstance(client, SqlJobClientBase) else client.sql_client
        with self._opened(client), connection:
            yield client

    @contextmanager
    def _opened(self, client: Any) -> Iterator[None]:
        if self._refusal is not None:
            refusal = self._refusal
            raise DestinationError(refusal.what, where=refusal.where, todo=refusal.todo)
        with ExitStack() as stack:
            try:
                stack.enter_context(opened(client, self._patience))
            except DestinationError as error:
                self._refusal = error
                raise
            yield


def _table(
    found: Iterator[list[tuple[Any, ...]]], fields: list[pa.Field], as_text: list[int] | None = None
) -> pa.Table:
    """Rows from a database driver; JSON in the columns `as_text` may have been read by it."""
    schema = pa.schema(fields)
    batches = []
    for rows in found:
        columns = [list(column) for column in zip(*rows, strict=True)]
        for i in as_text or ():
            columns[i] = [_json(value) for value in columns[i]]
        arrays = [pa.array(c, f.type) for c, f in zip(columns, fields, strict=True)]
        batches.append(pa.table(arrays, schema=schema))
    return pa.concat_tables(batches) if batches else schema.empty_table()


def _json(value: Any) -> str | None:
    # not orjson: Postgres writes 1e300 with all its digits
    return value if value is None or isinstance(value, str) else json.dumps(value)
