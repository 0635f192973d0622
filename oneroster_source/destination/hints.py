"""dlt's hints: how each table is merged into the destination, in SQL that any destination takes.

A merge deletes the rows whose keys are staged, then inserts the staged rows. A staged row with the
position -1 is a tombstone, which deletes and is not inserted.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from dlt.common.schema.typing import TDeleteInsertStrategyDict

from oneroster_source.model import REJECTED_ROWS, Endpoint, Table
from oneroster_source.model.type_map import KINDS, arrow_schema
from oneroster_source.transform.flatten import Estab, Whose

# dlt deletes and inserts in one transaction only if it sees a DDL keyword in the SQL; otherwise
# a run that is killed in between would leave rows deleted that no delta brings back
_ATOMIC = "'CREATE' <> ''"


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
    """The condition that the keys of a row are staged.

    It is one EXISTS on equal keys, which databases run as a join. Two EXISTS with OR between them
    are no join: Postgres scans the staged rows for each row of the table, as soon as they do not
    fit into its `work_mem`.

    The staged keys get other names, so that those of the row need no table name before them: some
    databases allow none there.

    Args:
        keys: The key columns.
        nullable: The one that may be NULL, which equals an empty text.
        only: The condition on staged rows that count.
        more: Keys that count as staged: the rest of a UNION.
    """
    values = {key: f"COALESCE({key}, '')" if key == nullable else key for key in keys}
    names = ", ".join(f"{value} AS staged_{key}" for key, value in values.items())
    same = " AND ".join(f"s.staged_{key} = {value}" for key, value in values.items())
    where = f" WHERE {only}" if only else ""
    staged = f"SELECT {names} FROM {{staging_table}}{where}{more}"
    return f"EXISTS (SELECT 1 FROM ({staged}) s WHERE {same})"


def _staged_or_whole(*keys: str, whole: str, nullable: str = "") -> str:
    """The condition that the keys of a row are staged; or all but the last key, in a staged row for
    which `whole` holds: it stands for all rows with these.
    """
    *others, _ = keys
    whole = _staged(*others, only=whole)
    values = ", ".join(f"COALESCE({key}, '')" if key == nullable else key for key in keys)
    rows = f" UNION ALL SELECT {values} FROM {{table}} WHERE {whole}"
    return _staged(*keys, nullable=nullable, more=rows)


def row_merge(*, keep_deleted: bool) -> TDeleteInsertStrategyDict:
    """Replaces the rows that are staged; those marked as deleted are removed, or kept."""
    return {
        "disposition": "merge",
        "strategy": "delete-insert",
        "destination_scope": _staged("estab", "sourced_id"),
        # always set, since dlt keeps the filter of an earlier run with other settings;
        # as a number, since not every database has the word FALSE
        "source_filter": _ATOMIC if keep_deleted else f"CAST(_deleted AS INT) = 0 AND {_ATOMIC}",
    }


def child_merge(table: Table) -> TDeleteInsertStrategyDict:
    """Replaces all child rows of the parents that are staged, or of the whole school.

    A tombstone, at position -1, stands for a parent without child rows; one with an empty parent
    stands for the whole school.
    """
    return {
        "disposition": "merge",
        "strategy": "delete-insert",
        "destination_scope": _staged_or_whole(
            "estab", table.parent_key, whole=f"{table.parent_key} = ''"
        ),
        "source_filter": f"position >= 0 AND {_ATOMIC}",
    }


_WHOLE = -2
"""The position of a tombstone for a whole collection. An empty id could not mark it: dlt's copy
into Postgres turns it into NULL."""
REJECTED_MERGE: TDeleteInsertStrategyDict = {
    "disposition": "merge",
    "strategy": "delete-insert",
    "destination_scope": _staged_or_whole(
        "estab", "endpoint", "sourced_id", whole=f"position = {_WHOLE}", nullable="sourced_id"
    ),
    "source_filter": f"position >= 0 AND {_ATOMIC}",
}

RUN_MERGE: TDeleteInsertStrategyDict = {"disposition": "merge", "strategy": "delete-insert"}


def no_rejected(endpoint: Endpoint, estab: Estab, ids: Whose | None = None) -> pa.Table:
    """Tombstones of `rejected_rows`: nothing of these ids was rejected, or nothing at all."""
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
