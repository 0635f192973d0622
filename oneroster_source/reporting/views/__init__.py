"""The views: questions that people ask of rosters, answered in the dataset itself.

Each `.sql` file is a view of its own name. They are made after each load, as far as their tables
exist, and replaced only if their SQL has changed: some databases lock a view that somebody reads.
"""

from __future__ import annotations

from hashlib import sha256

from oneroster_source.destination.queries import (
    DatabaseClient,
    DatabaseException,
    SqlClient,
    existing_tables,
)
from oneroster_source.model import V1P1
from oneroster_source.model.quoting import literal
from oneroster_source.reporting.sql_files import Statement, in_order, statements

VIEWS = tuple(statements(__name__))
GUIDE = "about_views"
"""The view that lists the others: name, question, grain, and a hash of the SQL of each."""
_TABLES = [table.name for table in V1P1.tables]


def make(client: DatabaseClient) -> list[Statement]:
    """Creates the views that are missing, and replaces them if their SQL has changed.

    Args:
        client: dlt's client of the destination.

    Returns:
        All views that exist now.

    Raises:
        DatabaseException: dlt's, if the destination refuses one.
    """
    names = [*_TABLES, *(view.name for view in VIEWS), GUIDE]
    existing = set(existing_tables(client, names))
    views = list(in_order(VIEWS, existing & set(_TABLES)))
    sql = client.sql_client
    wanted = {view.name: view.written(sql) for view in views}
    guide = " UNION ALL ".join(_guide_row(view, wanted[view.name]) for view in views)
    if not views or _is_current(sql, existing, wanted):
        return views
    try:
        with sql.begin_transaction():
            for name, text in [*wanted.items(), (GUIDE, guide)]:
                _define(sql, name, text)
    except DatabaseException:
        # some databases do not replace a view by one with other columns
        with sql.begin_transaction():
            for name in [GUIDE, *reversed(wanted)]:
                sql.execute_sql(f"DROP VIEW IF EXISTS {sql.make_qualified_table_name(name)}")
            for name, text in [*wanted.items(), (GUIDE, guide)]:
                _define(sql, name, text)
    return views


def _define(sql: SqlClient, name: str, text: str) -> None:
    sql.execute_sql(f"CREATE OR REPLACE VIEW {sql.make_qualified_table_name(name)} AS {text}")


def _is_current(sql: SqlClient, existing: set[str], wanted: dict[str, str]) -> bool:
    if not existing.issuperset([GUIDE, *wanted]):
        return False
    found = sql.execute_sql(
        f"SELECT view_name, made_of FROM {sql.make_qualified_table_name(GUIDE)}"
    )
    return {str(n): str(h) for n, h in found or ()} == {n: _digest(t) for n, t in wanted.items()}


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


def _guide_row(view: Statement, text: str) -> str:
    cells = {
        "view_name": view.name,
        "question": view.about["question"],
        "grain": view.about["grain"],
        "made_of": _digest(text),
    }
    return "SELECT " + ", ".join(f"{literal(value)} AS {name}" for name, value in cells.items())
