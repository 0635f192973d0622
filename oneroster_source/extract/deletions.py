"""Rows that are deleted at the source, and the guard against mass deletions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from oneroster_source.model import Table
from oneroster_source.model.type_map import arrow_schema

FEW = 20
"""So many deletions at once never wait, whatever the size of the collection."""
_FIRST = datetime(1970, 1, 2, tzinfo=UTC)
"""Providers that do not know a time write the year 1, or the beginning of 1970 somewhere."""
SKEW = timedelta(days=2)
"""Clocks may differ by this much: stamps further in the future are wrong."""


def objection(*, live: int, ending: int, left: int, share: float) -> str:
    """Returns why so many deletions at once may be a mistake; empty if they are acceptable.

    It makes no difference whether rows are marked as deleted or are missing from a full pass. A
    collection that would be empty afterwards is never acceptable, however small it was: a server
    that has lost its data looks like that.

    Args:
        live: Existing rows of the school that are not deleted.
        ending: How many of these would be deleted.
        left: Rows that would be live afterwards, new ones included.
        share: `max_delete_share`.
    """
    if not ending:
        return ""
    if not left:
        return (
            f"the server gives no rows where the destination has {live:,}, or marks them all as"
            " deleted"
        )
    if ending > FEW and ending > share * live:
        return (
            f"{ending:,} of {live:,} rows would be deleted ({ending / live:.0%}), more than"
            f" max_delete_share ({share:.0%})"
        )
    return ""


def credible(now: datetime) -> tuple[datetime, datetime]:
    """Returns the first and last instant at which a row can have been deleted: other stamps are not
    believed.
    """
    return _FIRST, now + SKEW


def credibly(stamps: pa.ChunkedArray, now: datetime) -> pa.ChunkedArray:
    """Replaces stamps of deletions that cannot be true by NULL."""
    first, last = (pa.scalar(instant, stamps.type) for instant in credible(now))
    true = pc.and_(pc.greater_equal(stamps, first), pc.less_equal(stamps, last))
    return pc.if_else(true, stamps, pa.scalar(None, stamps.type))


def among(ids: pa.ChunkedArray, others: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns the ids that are among the others."""
    return ids.filter(pc.is_in(ids, value_set=others))


def without(ids: pa.ChunkedArray, others: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns the ids that are not among the others."""
    return ids.filter(pc.invert(pc.is_in(ids, value_set=others))) if len(others) else ids


def alive(rows: pa.Table) -> pa.Table:
    """Returns the rows that are not deleted."""
    return rows.filter(pc.invert(rows.column("_deleted")))


def deleted(rows: pa.Table, *, at: datetime) -> pa.Table:
    """Returns the same rows, marked as deleted at a time."""
    for name, value in (("_deleted", True), ("_deleted_at", at)):
        place = rows.column_names.index(name)
        field = rows.field(place)
        rows = rows.set_column(place, field, pa.repeat(pa.scalar(value, field.type), len(rows)))
    return rows


def removal(table: Table, estab: str, ids: pa.ChunkedArray) -> pa.Table:
    """Returns rows with these ids that let the merge delete the existing ones, and keep none."""
    given = {
        "estab": pa.repeat(estab, len(ids)),
        "sourced_id": ids,
        "_deleted": pa.repeat(True, len(ids)),
    }
    schema = arrow_schema(table)
    return pa.table([given.get(f.name, pa.nulls(len(ids), f.type)) for f in schema], schema=schema)
