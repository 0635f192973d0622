"""Whether the ways to load that are compared have loaded the same."""

from __future__ import annotations

import by_heart
import duckdb

_REFS = ("user", "class", "school")
_NOT_BY_HAND = {"estab", "metadata", "extra", "_deleted", "_deleted_at", "password"}
"""Columns that only we have, or in which there is nothing."""


def _list_of_rest_api(table: str, columns: str) -> str:
    return (
        f"SELECT u.sourced_id AS user_sourced_id, c._dlt_list_idx AS position, {columns}"
        f" FROM {table} c JOIN users u ON u._dlt_id = c._dlt_parent_id"
    )


_RENAMED = "".join(f", {ref}__sourced_id AS {ref}_sourced_id" for ref in _REFS)
_REST_API = {
    "enrollments": f"SELECT *{_RENAMED} FROM enrollments",
    "users__orgs": _list_of_rest_api("users__orgs", "c.sourced_id, c.type, c.href"),
    "users__user_ids": _list_of_rest_api("users__user_ids", "c.type, c.identifier"),
    "users__grades": _list_of_rest_api("users__grades", "c.value"),
    "users__agents": _list_of_rest_api("users__agents", "c.sourced_id, c.type, c.href"),
    # it has no tables of references, but all that would be in them
    **{
        f"enrollments__{ref}": "SELECT sourced_id AS enrollment_sourced_id, 0 AS position,"
        f" {ref}__sourced_id AS sourced_id, {ref}__type AS type, {ref}__href AS href"
        " FROM enrollments"
        for ref in _REFS
    },
}


def differences(ours: str, other: str, *, by_rest_api: bool) -> list[str]:
    """The tables of two DuckDB files that are not the same, row by row.

    Args:
        ours: Our file.
        other: That of another contender; it may hold only the first rows by sourcedId.
        by_rest_api: Whether dlt's rest_api made it.
    """
    found = []
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{ours}' AS a (READ_ONLY); ATTACH '{other}' AS b (READ_ONLY)")
        for collection, tables in by_heart.TABLES.items():
            query = f"SELECT max(sourced_id) FROM b.oneroster.{collection}"
            ((last,),) = connection.execute(query).fetchall()
            for table in tables:
                described = connection.execute(f"DESCRIBE a.oneroster.{table}").fetchall()
                names = [name for name, *_ in described if name not in _NOT_BY_HAND]
                columns = ", ".join(f'"{name}"' for name in names)
                source = _REST_API.get(table, f"FROM {table}") if by_rest_api else f"FROM {table}"
                connection.execute("USE b.oneroster")
                connection.execute(
                    f"CREATE OR REPLACE TEMP TABLE theirs AS SELECT {columns} FROM ({source})"
                )
                mine = f"SELECT {columns} FROM a.oneroster.{table} WHERE {names[0]} <= '{last}'"
                counts = connection.execute(
                    f"SELECT (SELECT count(*) FROM ({mine} EXCEPT ALL FROM temp.theirs)),"
                    f" (SELECT count(*) FROM (FROM temp.theirs EXCEPT ALL {mine})),"
                    " (SELECT count(*) FROM temp.theirs)"
                ).fetchone()
                assert counts is not None
                missing, more, rows = counts
                if missing or more or not rows:
                    found.append(f"{table}: {missing} missing, {more} more, of {rows}")
    return found
