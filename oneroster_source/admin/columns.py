"""Clears columns that are left out from now on: earlier loads have filled them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from oneroster_source.config.privacy import Privacy
from oneroster_source.destination.queries import DatabaseClient, SqlClient, existing_tables
from oneroster_source.model import V1P1, Table

Filled = Mapping[str, Mapping[str, str]]
"""The SQL condition of rows with a value to clear, by table and column."""


def filled(client: DatabaseClient, privacy: Privacy, columns: Collection[str]) -> Filled:
    """Finds values of columns that are left out, in versions too.

    An attribute that did not fit its column is in `extra`, as it was sent: where `extra` is kept
    and names one, it counts too.

    Args:
        client: dlt's client of the destination.
        privacy: What is kept of each table.
        columns: The columns, as `table.column`.
    """
    wanted = dict(_wanted(client.sql_client, privacy, columns))
    stored = existing_tables(client, wanted)
    found: dict[str, dict[str, str]] = {}
    for name, kept in stored.items():
        there = {column: where for column, where in wanted[name].items() if column in kept}
        if there:
            counts = ", ".join(f"count(CASE WHEN {where} THEN 1 END)" for where in there.values())
            place = client.sql_client.make_qualified_table_name(name)
            ((*rows,),) = client.sql_client.execute_sql(f"SELECT {counts} FROM {place}") or ((),)
            some = {c: there[c] for c, count in zip(there, rows, strict=True) if count}
            if some:
                found[name] = some
    return found


def clear(client: DatabaseClient, columns: Filled) -> None:
    """Sets these values to NULL, in one transaction.

    Rows that the source still has are read again by the full pass that a change of columns causes;
    rows that it has deleted are not.

    Args:
        client: dlt's client of the destination.
        columns: What `filled` has found.

    Raises:
        DatabaseException: dlt's, if the destination refuses it.
    """
    sql = client.sql_client
    with sql.begin_transaction():
        for name, some in columns.items():
            place = sql.make_qualified_table_name(name)
            changes = ", ".join(
                f"{column} = CASE WHEN NOT ({where}) THEN {column} END"
                for column, where in (
                    (sql.escape_column_name(c), where) for c, where in some.items()
                )
            )
            sql.execute_sql(f"UPDATE {place} SET {changes} WHERE {' OR '.join(some.values())}")


def _wanted(
    sql: SqlClient, privacy: Privacy, columns: Collection[str]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields the conditions of rows with such a value, by table and column."""
    for endpoint in V1P1.endpoints:
        found = {table.name: dict(_of_table(sql, table, columns)) for table in endpoint.tables()}
        own = found[endpoint.name]
        if any(found.values()) and "extra" not in own:
            extra = f"LOWER(CAST({sql.escape_column_name('extra')} AS VARCHAR))"
            # a name that JSON writes with escapes may be any
            texts = [f'"{name}"' for name in sorted(privacy.hidden_attributes(endpoint))] + ["\\u"]
            own["extra"] = " OR ".join(f"POSITION('{text}' IN {extra}) > 0" for text in texts)
        if endpoint.history is not None:
            found[endpoint.history.name] = own
        yield from ((name, wanted) for name, wanted in found.items() if wanted)


def _of_table(sql: SqlClient, table: Table, columns: Collection[str]) -> Iterator[tuple[str, str]]:
    for column in table.columns:
        if f"{table.name}.{column.name}" in columns:
            yield column.name, f"{sql.escape_column_name(column.name)} IS NOT NULL"
