"""The rows that a destination has already, which a load queries before it adds to them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import dlt
import pyarrow as pa
from dlt.common.configuration.container import Container
from dlt.common.destination import DestinationCapabilitiesContext
from dlt.common.destination.exceptions import DestinationCapabilitiesException
from dlt.common.destination.utils import resolve_merge_strategy
from dlt.dataset.utils import get_destination_clients

from oneroster_source.destination.backends import Backend, backend_of
from oneroster_source.destination.queries import existing_tables, render_query
from oneroster_source.errors import ConfigurationError, DestinationError
from oneroster_source.model import SUPPRESSED_USERS, Table
from oneroster_source.model.type_map import arrow_schema

_ROWS = 50_000
_IDS = 500
"""Values in one query: any destination takes as many."""


def require_merge() -> None:
    """Checks the destination of the running pipeline, before the resource reads anything.

    Where dlt cannot merge it appends rows instead, and only logs it.

    Raises:
        ConfigurationError: It would not replace and delete rows.
    """
    declared: Any = dlt.current.resource().compute_table_schema()
    # its child tables have the same hints, except a format that somebody has given to it
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
                " oneroster_source.Delta as the destination, or with"
                " `oneroster sync --destination filesystem`",
            )


def require_versions() -> None:
    """Checks the destination of the running pipeline, before the resource reads anything.

    Raises:
        ConfigurationError: It runs no SQL statements, and so can keep no versions.
    """
    if not _backend().is_database:
        raise ConfigurationError(
            f"the destination {dlt.current.pipeline().destination.destination_name!r} is no"
            " database, and keeps no versions, as the setting 'history' wants",
            todo="load into a database, such as a DuckDB file, or set history to false",
        )


def _backend() -> Backend:
    """The destination of the running pipeline; the pipeline itself gives a client only after its
    first run.
    """
    pipeline = dlt.current.pipeline()
    client, _ = get_destination_clients(
        dlt.current.source_schema(),
        destination=pipeline.destination,
        destination_dataset_name=pipeline.dataset_name,
    )
    return backend_of(client)


class ExistingRows:
    """Queries the tables of the running pipeline, one school at a time.

    It connects for each query only: in between, others may use a DuckDB file.

    Every method raises `QueriesNotSupported` for a destination that answers no SQL, and
    DestinationError for a file that stays in use.

    Args:
        patience: Seconds to wait for a DuckDB file that another process holds open. After that it
            is not waited for again.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._failure: DestinationError | None = None

    @contextmanager
    def open(self) -> Iterator[Backend]:
        """Opens the destination; a DuckDB file that is open already opens at once."""
        if self._failure is not None:
            failure = self._failure
            raise DestinationError(failure.what, where=failure.where, todo=failure.todo)
        backend = _backend()
        with ExitStack() as stack:
            try:
                stack.enter_context(backend.queries(self._patience))
            except DestinationError as error:
                self._failure = error
                raise
            yield backend

    def tables(self, names: Iterable[str]) -> frozenset[str]:
        """Those of the tables that exist, whoever made them."""
        with self.open() as backend:
            return frozenset(existing_tables(backend.client, names))

    def is_filled(self, table: Table) -> bool:
        """Whether the table has any row."""
        return any(self._fetch("SELECT 1 FROM {table} LIMIT 1", table=table))

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
        """Counts the rows that are not deleted, by school."""
        query = "SELECT {estab}, count(*) FROM {table} WHERE {_deleted} = %s GROUP BY {estab}"
        found = self._fetch(query, False, table=table)
        return {str(estab): int(count) for rows in found for estab, count in rows}

    def rows(self, table: Table, estab: str, ids: Sequence[str] | None = None) -> pa.Table:
        """The rows of a school with all columns; those of some ids, or all."""
        query = f"SELECT {self._columns(table)} FROM {{table}} WHERE {{estab}} = %s"

        def found() -> Iterator[list[tuple[Any, ...]]]:
            if ids is None:
                yield from self._fetch(query, estab, table=table)
            for begin in range(0, len(ids or ()), _IDS):
                some = (ids or ())[begin : begin + _IDS]
                only = f" AND {{sourced_id}} IN ({', '.join(['%s'] * len(some))})"
                yield from self._fetch(query + only, estab, *some, table=table)

        as_text = [i for i, column in enumerate(table.columns) if column.kind == "json"]
        return _table(found(), list(arrow_schema(table)), as_text)

    def orphans(self, child: Table, table: Table, estab: str) -> pa.ChunkedArray:
        """The parents that a school's child rows name and that the destination does not have."""
        parent = f"{{{child.parent_key}}}"
        query = (
            f"SELECT DISTINCT c.{parent} FROM {{child}} c WHERE c.{{estab}} = %s AND NOT EXISTS"
            f" (SELECT 1 FROM {{table}} p WHERE p.{{estab}} = c.{{estab}}"
            f" AND p.{{sourced_id}} = c.{parent})"
        )
        found = self._fetch(query, estab, table=table, child=child)
        return _table(found, [pa.field(child.parent_key, pa.string())]).column(0)

    def suppressed(self) -> list[tuple[str, str, str]]:
        """The list of erased people: estab, digest, and the name of the key; empty if there is
        none.
        """
        if not self.tables([SUPPRESSED_USERS.name]):
            return []
        query = "SELECT {estab}, {user_digest}, {key_name} FROM {table}"
        return [
            (e, d, k) for rows in self._fetch(query, table=SUPPRESSED_USERS) for e, d, k in rows
        ]

    def _columns(self, table: Table) -> str:
        """The columns of a table for a SELECT, in the order of its Arrow schema."""
        with self.open() as backend:
            found = existing_tables(backend.client, [table.name]).get(table.name, ())
        existing = {str(name).lower() for name in found} or {c.name for c in table.columns}
        as_text = {c.name for c in table.columns if c.kind == "json" and backend.json_as_text}
        return ", ".join(
            # a table that an earlier version has made gets its new columns with this load
            "NULL"
            if name not in existing
            else f"CAST({{{name}}} AS VARCHAR)"
            if name in as_text
            else f"{{{name}}}"
            for name in arrow_schema(table).names
        )

    def _fetch(
        self, query: str, *values: str | bool, **tables: Table
    ) -> Iterator[list[tuple[Any, ...]]]:
        with self._cursor(query, *values, **tables) as cursor:
            yield from cursor.iter_fetch(_ROWS)

    @contextmanager
    def _cursor(self, query: str, *values: str | bool, **tables: Table) -> Iterator[Any]:
        with self.open() as backend:
            sql = backend.client.sql_client
            with sql.execute_query(render_query(sql, query, **tables), *values) as cursor:
                yield cursor


def _table(
    found: Iterator[list[tuple[Any, ...]]], fields: list[pa.Field], as_text: list[int] | None = None
) -> pa.Table:
    """Rows from a database driver, which may have parsed the JSON in the columns `as_text`."""
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
