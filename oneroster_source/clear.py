"""Columns that are left out from now on: what earlier loads have brought of them is taken away."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from dlt.destinations.job_client_impl import SqlJobClientBase

from oneroster_source.spec import V1P1, Table


def filled(client: SqlJobClientBase, columns: Collection[str]) -> dict[str, list[str]]:
    """Those of some columns in which there is a value, by table, versions included.

    Args:
        client: dlt's client of the destination.
        columns: Columns of endpoints' tables, as `table.column`.
    """
    wanted = {table.name: list(_named(table, columns)) for table in _tables()}
    stored = dict(client.get_storage_tables([name for name, found in wanted.items() if found]))
    sql = client.sql_client
    found: dict[str, list[str]] = {}
    for name, kept in stored.items():
        there = [column for column in wanted[name] if column in kept]
        if there:
            counts = ", ".join(f"count({sql.escape_column_name(column)})" for column in there)
            query = f"SELECT {counts} FROM {sql.make_qualified_table_name(name)}"
            ((*values,),) = sql.execute_sql(query) or ((),)
            some = [column for column, rows in zip(there, values, strict=True) if rows]
            if some:
                found[name] = some
    return found


def clear(client: SqlJobClientBase, columns: Mapping[str, Collection[str]]) -> None:
    """Sets columns to NULL in all rows, at once.

    Rows that the source still has are read again by the next full pass, which a change of columns
    brings about; those that it has deleted are not.

    Args:
        client: dlt's client of the destination.
        columns: The columns, by table.

    Raises:
        DatabaseException: dlt's, if the destination refuses it.
    """
    sql = client.sql_client
    with sql.begin_transaction():
        for name, some in columns.items():
            names = [sql.escape_column_name(column) for column in some]
            nothing = ", ".join(f"{column} = NULL" for column in names)
            where = " OR ".join(f"{column} IS NOT NULL" for column in names)
            table = sql.make_qualified_table_name(name)
            sql.execute_sql(f"UPDATE {table} SET {nothing} WHERE {where}")


def _tables() -> Iterator[Table]:
    for endpoint in V1P1.endpoints:
        yield from endpoint.tables()
        if endpoint.history is not None:
            yield endpoint.history


def _named(table: Table, columns: Collection[str]) -> Iterator[str]:
    own = table.name.removesuffix("_history")
    yield from (c.name for c in table.columns if f"{own}.{c.name}" in columns)
