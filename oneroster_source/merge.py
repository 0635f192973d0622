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


def row_merge(*, keep_deleted: bool) -> TDeleteInsertStrategyDict:
    """Replaces the rows that are in the load; those marked as deleted go for good, or stay."""
    return {
        "disposition": "merge",
        "strategy": "delete-insert",
        "destination_scope": (
            "EXISTS (SELECT 1 FROM {staging_table} s WHERE s.estab = {table}.estab"
            " AND s.sourced_id = {table}.sourced_id)"
        ),
        # always said, since dlt keeps a filter that an earlier run with other settings has set
        "source_filter": _AT_ONCE if keep_deleted else f"_deleted = FALSE AND {_AT_ONCE}",
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
            "EXISTS (SELECT 1 FROM {staging_table} s WHERE s.estab = {table}.estab"
            f" AND s.{parent} = {{table}}.{parent})"
            " OR EXISTS (SELECT 1 FROM {staging_table} s WHERE s.estab = {table}.estab"
            f" AND s.{parent} = '')"
        ),
        "source_filter": f"position >= 0 AND {_AT_ONCE}",
    }


_SAME_COLLECTION = "s.estab = {table}.estab AND s.endpoint = {table}.endpoint"
REJECTED_MERGE: TDeleteInsertStrategyDict = {
    "disposition": "merge",
    "strategy": "delete-insert",
    "destination_scope": (
        f"EXISTS (SELECT 1 FROM {{staging_table}} s WHERE {_SAME_COLLECTION}"
        " AND s.sourced_id = {table}.sourced_id)"
        f" OR EXISTS (SELECT 1 FROM {{staging_table}} s WHERE {_SAME_COLLECTION}"
        " AND s.sourced_id = '')"
        " OR ({table}.sourced_id IS NULL AND EXISTS (SELECT 1 FROM {staging_table} s"
        f" WHERE {_SAME_COLLECTION} AND s.sourced_id IS NULL))"
    ),
    "source_filter": f"position >= 0 AND {_AT_ONCE}",
}

RUN_MERGE: TDeleteInsertStrategyDict = {"disposition": "merge", "strategy": "delete-insert"}


def no_rejected(endpoint: Endpoint, estab: Estab, ids: Whose) -> pa.Table:
    """Rows of `rejected_rows` that stand for "nothing of these was rejected"."""
    return pa.table(
        [
            pa.repeat(estab, len(ids)) if isinstance(estab, str) else estab,
            pa.repeat(endpoint.name, len(ids)),
            ids,
            pa.repeat(pa.scalar(-1, pa.int64()), len(ids)),
            pa.repeat("", len(ids)),
        ],
        schema=arrow_schema(REJECTED_ROWS),
    )
