"""How each table is merged into the destination: dlt's hints, in SQL that any destination takes.

Every merge deletes what the load speaks of, and inserts what it holds. A load speaks of more than
it holds: rows with the position -1 stand for "nothing here", and are not inserted.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from dlt.common.schema.typing import TDeleteInsertStrategyDict

from oneroster_source.shape import Estab, Whose, arrow_schema
from oneroster_source.shape.kinds import KINDS
from oneroster_source.spec import REJECTED_ROWS, Endpoint, Table

# dlt deletes and inserts in one transaction only where it sees a word of DDL in the SQL: without,
# a run that is killed in between would leave rows deleted that no delta brings back
_AT_ONCE = "'CREATE' <> ''"


def hints(table: Table) -> dict[str, Any]:
    """The name, key and column types of a table, as `apply_hints` takes them."""
    return {
        "table_name": table.name,
        "primary_key": table.key or None,
        "columns": {
            column.name: {
                "name": column.name,
                "data_type": KINDS[column.kind].dlt,
                "nullable": column.nullable,
            }
            for column in table.columns
        },
    }


def _staged(*keys: str, only: str = "") -> str:
    """That the load speaks of a row: it has one of the same `keys`, of those that are `only`.

    The keys of the load get other names, so that those of the row need no table before them: some
    databases take no name in full there.
    """
    names = ", ".join(f"{key} AS staged_{key}" for key in keys)
    same = " AND ".join(f"s.staged_{key} = {key}" for key in keys)
    where = f" WHERE {only}" if only else ""
    return f"EXISTS (SELECT 1 FROM (SELECT {names} FROM {{staging_table}}{where}) s WHERE {same})"


def row_merge(*, keep_deleted: bool) -> TDeleteInsertStrategyDict:
    """Replaces the rows that are in the load; those marked as deleted go for good, or stay."""
    return {
        "disposition": "merge",
        "strategy": "delete-insert",
        "destination_scope": _staged("estab", "sourced_id"),
        # always said, since dlt keeps a filter that an earlier run with other settings has set;
        # as a number, since not every database has a word for what is false
        "source_filter": _AT_ONCE if keep_deleted else f"CAST(_deleted AS INT) = 0 AND {_AT_ONCE}",
    }


def child_merge(table: Table) -> TDeleteInsertStrategyDict:
    """Replaces all child rows of the parents that are in the load, or of the school.

    A row with the position -1 stands for a parent without child rows; one that also has an empty
    parent, for the whole school. Neither is loaded.
    """
    parent = table.parent_key
    return {
        "disposition": "merge",
        "strategy": "delete-insert",
        "destination_scope": (
            _staged("estab", parent) + " OR " + _staged("estab", only=f"{parent} = ''")
        ),
        "source_filter": f"position >= 0 AND {_AT_ONCE}",
    }


_COLLECTION = ("estab", "endpoint")
_WHOLE = -2
"""The position that stands for a whole collection. An empty id would not: dlt's copy into Postgres
makes NULL of it."""
REJECTED_MERGE: TDeleteInsertStrategyDict = {
    "disposition": "merge",
    "strategy": "delete-insert",
    "destination_scope": (
        _staged(*_COLLECTION, "sourced_id")
        + " OR "
        + _staged(*_COLLECTION, only=f"position = {_WHOLE}")
        + f" OR (sourced_id IS NULL AND {_staged(*_COLLECTION, only='sourced_id IS NULL')})"
    ),
    "source_filter": f"position >= 0 AND {_AT_ONCE}",
}

RUN_MERGE: TDeleteInsertStrategyDict = {"disposition": "merge", "strategy": "delete-insert"}


def no_rejected(endpoint: Endpoint, estab: Estab, ids: Whose | None = None) -> pa.Table:
    """Rows of `rejected_rows` that stand for "nothing of these was rejected", or of any."""
    position = _WHOLE if ids is None else -1
    ids = pa.array([None], pa.string()) if ids is None else ids
    return pa.table(
        [
            pa.repeat(estab, len(ids)) if isinstance(estab, str) else estab,
            pa.repeat(endpoint.name, len(ids)),
            ids,
            pa.repeat(pa.scalar(position, pa.int64()), len(ids)),
            pa.repeat("", len(ids)),
        ],
        schema=arrow_schema(REJECTED_ROWS),
    )
