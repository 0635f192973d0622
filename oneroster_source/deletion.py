"""What a full pass did not contain, and whether that can be believed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from oneroster_source.errors import MassDeletion
from oneroster_source.shape import arrow_schema
from oneroster_source.spec import Table

FEW = 20
"""As many rows may go at once from a collection of any size."""
_FIRST = datetime(1970, 1, 2, tzinfo=UTC)
"""Providers that do not know a time write the year 1, or the beginning of 1970 somewhere."""
SKEW = timedelta(days=2)
"""Clocks may differ by as much: what is further in the future is wrong."""


def gone(
    held: pa.Table,
    read: pa.ChunkedArray,
    *,
    share: float,
    allowed: bool = False,
    where: str = "",
    only: str = "",
) -> pa.Table:
    """The rows of a school that the destination holds and a full pass did not contain.

    Args:
        held: What the destination holds: `sourced_id` and `_deleted`.
        read: Every sourcedId of the pass.
        share: Largest share of the rows not yet deleted that may be gone, if they are not few.
        allowed: Whether more may be gone, even all.
        where: The collection, for people.
        only: The options that choose it on the command line.

    Returns:
        Rows of `held`, those that were deleted before included.

    Raises:
        MassDeletion: Too many are gone, or all.
    """
    absent = held.filter(pc.invert(pc.is_in(held.column("sourced_id"), value_set=read)))
    live, lost = alive(held).num_rows, alive(absent).num_rows
    if lost and not allowed:
        if not len(read):
            what = f"the server gives no rows where the destination holds {live:,}"
        elif lost > FEW and lost > share * live:
            what = (
                f"{lost:,} of {live:,} rows are gone at the server ({lost / live:.0%}), more than"
                f" max_delete_share ({share:.0%})"
            )
        else:
            return absent
        raise MassDeletion(
            f"{what}; nothing was changed",
            where=where,
            todo="ask the provider whether that is right, unless a filter of yours leaves them out;"
            f" if it is, run `oneroster sync --full --allow-deletes{only and ' ' + only}`",
        )
    return absent


def credible(now: datetime) -> tuple[datetime, datetime]:
    """The first and the last instant at which a row may have been deleted: what a stamp tells of
    others is not true, and is taken for nothing."""
    return _FIRST, now + SKEW


def credibly(stamps: pa.ChunkedArray, now: datetime) -> pa.ChunkedArray:
    """Stamps of deletions, with NULL for those that cannot be true."""
    first, last = (pa.scalar(instant, stamps.type) for instant in credible(now))
    true = pc.and_(pc.greater_equal(stamps, first), pc.less_equal(stamps, last))
    return pc.if_else(true, stamps, pa.scalar(None, stamps.type))


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


def unpruned(wide: pa.Table, ids: pa.ChunkedArray) -> pa.Table:
    """Wide rows but for those that are marked as deleted and have one of these ids."""
    named = pc.is_in(wide.column("sourced_id"), value_set=ids)
    return wide.filter(pc.invert(pc.and_(wide.column("_deleted"), named)))


def removal(table: Table, estab: str, ids: pa.ChunkedArray) -> pa.Table:
    """Rows that speak of `ids`, and of which the merge keeps none."""
    given = {
        "estab": pa.repeat(estab, len(ids)),
        "sourced_id": ids,
        "_deleted": pa.repeat(True, len(ids)),
    }
    schema = arrow_schema(table)
    return pa.table([given.get(f.name, pa.nulls(len(ids), f.type)) for f in schema], schema=schema)
