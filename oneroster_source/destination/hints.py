"""How each table is merged into the destination: dlt's hints, in SQL that any destination takes.

Every merge deletes what the load speaks of, and inserts what it holds. A load speaks of more than
it holds: rows with the position -1 stand for "nothing here", and are not inserted.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from dlt.common.schema.typing import TDeleteInsertStrategyDict

from oneroster_source.model import REJECTED_ROWS, Endpoint, Table
from oneroster_source.model.type_map import KINDS, arrow_schema
from oneroster_source.transform.flatten import Estab, Whose

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


def _staged(*keys: str, nullable: str = "", only: str = "", more: str = "") -> str:
    """That the load contains the `keys` of a row; to a `nullable` one, NULL and empty are the same.

    It is one EXISTS, whose keys are equal to the row's: databases make a join of that. Two with OR
    between them are no join: Postgres goes through the staged rows for each row of the table, as
    soon as they are more than it takes to fit into its `work_mem`.

    The keys of the load get other names, so that those of the row need no table before them: some
    databases take no name in full there.

    Args:
        keys: Columns.
        nullable: The one that may be NULL.
        only: Which staged rows count.
        more: Keys that count as if they were staged: the rest of a UNION.
    """
    values = {key: f"COALESCE({key}, '')" if key == nullable else key for key in keys}
    names = ", ".join(f"{value} AS staged_{key}" for key, value in values.items())
    same = " AND ".join(f"s.staged_{key} = {value}" for key, value in values.items())
    where = f" WHERE {only}" if only else ""
    staged = f"SELECT {names} FROM {{staging_table}}{where}{more}"
    return f"EXISTS (SELECT 1 FROM ({staged}) s WHERE {same})"


def _staged_or_whole(*keys: str, whole: str, nullable: str = "") -> str:
    """That the load contains the `keys` of a row; or all but the last of them, in a staged row that
    stands for the `whole` of what has these."""
    *others, _ = keys
    whole = _staged(*others, only=whole)
    values = ", ".join(f"COALESCE({key}, '')" if key == nullable else key for key in keys)
    rows = f" UNION ALL SELECT {values} FROM {{table}} WHERE {whole}"
    return _staged(*keys, nullable=nullable, more=rows)


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
    return {
        "disposition": "merge",
        "strategy": "delete-insert",
        "destination_scope": _staged_or_whole(
            "estab", table.parent_key, whole=f"{table.parent_key} = ''"
        ),
        "source_filter": f"position >= 0 AND {_AT_ONCE}",
    }


_WHOLE = -2
"""The position that stands for a whole collection. An empty id would not: dlt's copy into Postgres
makes NULL of it."""
REJECTED_MERGE: TDeleteInsertStrategyDict = {
    "disposition": "merge",
    "strategy": "delete-insert",
    "destination_scope": _staged_or_whole(
        "estab", "endpoint", "sourced_id", whole=f"position = {_WHOLE}", nullable="sourced_id"
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
