"""Columns that are left out from now on: what earlier loads have brought of them is taken away."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from dlt.destinations.job_client_impl import SqlJobClientBase

from oneroster_source.spec import V1P1, Table


def clear(client: SqlJobClientBase, columns: Collection[str]) -> dict[str, list[str]]:
    """Sets columns to NULL in all rows, versions included.

    Rows that the source still has are read again by the next full pass, which a change of columns
    brings about; those that it has deleted are not.

    Args:
        client: dlt's client of the destination.
        columns: Columns of endpoints' tables, as `table.column`.

    Returns:
        The columns in which there was a value, by table.

    Raises:
        DatabaseException: dlt's, if the destination refuses it.
    """
    wanted = {table.name: list(_named(table, columns)) for table in _tables()}
    stored = dict(client.get_storage_tables([name for name, found in wanted.items() if found]))
    sql = client.sql_client
    cleared: dict[str, list[str]] = {}
    with sql.begin_transaction():
        for name, kept in stored.items():
            table = sql.make_qualified_table_name(name)
            there = [column for column in wanted[name] if column in kept]
            if not there:
                continue
            counts = ", ".join(f"count({sql.escape_column_name(column)})" for column in there)
            ((*found,),) = sql.execute_sql(f"SELECT {counts} FROM {table}") or ((),)
            filled = [column for column, rows in zip(there, found, strict=True) if rows]
            if filled:
                nothing = ", ".join(f"{sql.escape_column_name(c)} = NULL" for c in filled)
                some = " OR ".join(f"{sql.escape_column_name(c)} IS NOT NULL" for c in filled)
                sql.execute_sql(f"UPDATE {table} SET {nothing} WHERE {some}")
                cleared[name] = filled
    return cleared


def _tables() -> Iterator[Table]:
    for endpoint in V1P1.endpoints:
        yield from endpoint.tables()
        if endpoint.history is not None:
            yield endpoint.history


def _named(table: Table, columns: Collection[str]) -> Iterator[str]:
    own = table.name.removesuffix("_history")
    yield from (c.name for c in table.columns if f"{own}.{c.name}" in columns)
