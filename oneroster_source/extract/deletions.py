"""Rows that are deleted at the source, and whether that can be believed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from oneroster_source.model import Table
from oneroster_source.model.type_map import arrow_schema

FEW = 20
"""As many rows may go at once from a collection of any size."""
_FIRST = datetime(1970, 1, 2, tzinfo=UTC)
"""Providers that do not know a time write the year 1, or the beginning of 1970 somewhere."""
SKEW = timedelta(days=2)
"""Clocks may differ by as much: what is further in the future is wrong."""


def objection(*, live: int, ending: int, left: int, share: float) -> str:
    """Why so many deletions at once may be a mistake; empty if they may not.

    How they are told does not matter: marked `tobedeleted` or `inactive`, or missing from a full
    pass. A collection that would be empty afterwards always counts as a mistake, however small it
    was: a server that has lost its data looks like that, and one decision costs little.

    Args:
        live: Rows of the school that the destination has and that are not deleted.
        ending: Of these, rows that would be deleted.
        left: Rows that would not be deleted afterwards, new ones among them.
        share: Largest share of the live rows that may be deleted, if these are not few.
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
    """The first and the last instant at which a row may have been deleted: what a stamp tells of
    others is not true, and is taken for nothing."""
    return _FIRST, now + SKEW


def credibly(stamps: pa.ChunkedArray, now: datetime) -> pa.ChunkedArray:
    """Stamps of deletions, with NULL for those that cannot be true."""
    first, last = (pa.scalar(instant, stamps.type) for instant in credible(now))
    true = pc.and_(pc.greater_equal(stamps, first), pc.less_equal(stamps, last))
    return pc.if_else(true, stamps, pa.scalar(None, stamps.type))


def among(ids: pa.ChunkedArray, others: pa.ChunkedArray) -> pa.ChunkedArray:
    """The ids that are among the others."""
    return ids.filter(pc.is_in(ids, value_set=others))


def without(ids: pa.ChunkedArray, others: pa.ChunkedArray) -> pa.ChunkedArray:
    """The ids that are not among the others."""
    return ids.filter(pc.invert(pc.is_in(ids, value_set=others))) if len(others) else ids


def alive(rows: pa.Table) -> pa.Table:
    """Those that are not deleted."""
    return rows.filter(pc.invert(rows.column("_deleted")))


def deleted(rows: pa.Table, *, at: datetime) -> pa.Table:
    """The same rows, deleted at some time."""
    for name, value in (("_deleted", True), ("_deleted_at", at)):
        place = rows.column_names.index(name)
        field = rows.field(place)
        rows = rows.set_column(place, field, pa.repeat(pa.scalar(value, field.type), len(rows)))
    return rows


def removal(table: Table, estab: str, ids: pa.ChunkedArray) -> pa.Table:
    """Rows that speak of `ids`, and of which the merge keeps none."""
    given = {
        "estab": pa.repeat(estab, len(ids)),
        "sourced_id": ids,
        "_deleted": pa.repeat(True, len(ids)),
    }
    schema = arrow_schema(table)
    return pa.table([given.get(f.name, pa.nulls(len(ids), f.type)) for f in schema], schema=schema)
