"""Takes wide tables, as `PageParser` makes them, apart into the flat tables of the warehouse."""

from __future__ import annotations

from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from oneroster_source.errors import label
from oneroster_source.model import REJECTED_ROWS, Endpoint, Table
from oneroster_source.model.type_map import KINDS, arrow_schema

Whose: TypeAlias = pa.Array | pa.ChunkedArray
Estab: TypeAlias = str | Whose
"""An establishment, or one for each row."""


def flatten(
    wide: pa.Table,
    endpoint: Endpoint,
    estab: Estab,
    *,
    references: bool = True,
    tombstones: bool = False,
    keep_deleted: bool = True,
) -> dict[str, pa.Table]:
    """Takes a wide table apart into tables of the warehouse, by name.

    A row without sourcedId is in `rejected_rows` alone; every other one is in the endpoint's table,
    and what could not be read of it in `rejected_rows` too.

    Args:
        wide: Rows as `PageParser.parse` gives them.
        endpoint: Their endpoint.
        estab: The establishment that they were read for; or one for each row.
        references: Whether single references get child tables of their own.
        tombstones: Whether to add a child row with the position -1 for each row that has none, so
            that the merge removes its existing ones.
        keep_deleted: Whether rows that are marked as deleted keep their child rows.
    """
    whose, ids = _for_each(estab, len(wide)), wide.column("sourced_id")
    named = pc.is_valid(ids) if ids.null_count else None
    known = wide if named is None else wide.filter(named)
    own = whose if named is None else whose.filter(named)
    result = {endpoint.name: _stamped(known, endpoint.table, own)}
    ids, deleted = known.column("sourced_id"), _one_chunk(known.column("_deleted"))
    for table in endpoint.child_tables(references=references):
        nested = _one_chunk(known.column(table.name))
        has = _has_items(nested)
        if not keep_deleted:
            has = pc.and_not(has, deleted)
        result[table.name] = _exploded(own, ids, nested, has, table)
        if tombstones and has.false_count:
            none = pc.invert(has)
            empty = tombstones_of(table, own.filter(none), ids.filter(none))
            result[table.name] = pa.concat_tables([result[table.name], empty])
    result[REJECTED_ROWS.name] = _rejected(endpoint, wide, whose)
    return result


def _rejected(endpoint: Endpoint, wide: pa.Table, whose: Whose) -> pa.Table:
    if wide.column("_problems").null_count == len(wide):
        return arrow_schema(REJECTED_ROWS).empty_table()
    problems = _one_chunk(wide.column("_problems"))
    parents = pc.list_parent_indices(problems)
    return pa.table(
        [
            whose.take(parents),
            pa.repeat(endpoint.name, len(parents)),
            wide.column("sourced_id").take(parents),
            _positions(problems, parents),
            _reasons(problems.flatten()),
        ],
        schema=arrow_schema(REJECTED_ROWS),
    )


def _reasons(problems: pa.Array) -> pa.Array:
    """Masks names of attributes that may be values in the reasons why something was not read."""
    encoded = problems.dictionary_encode()
    parts = [reason.rpartition(": ") for reason in encoded.dictionary.to_pylist()]
    reasons = [(label(name) + mark if mark else "") + reason for name, mark, reason in parts]
    return pa.array(reasons, problems.type).take(encoded.indices)


def tombstones_of(table: Table, estab: Estab, parents: Whose) -> pa.Table:
    """Returns tombstones: child rows with the position -1, which say that a parent has none."""
    rest = [pa.nulls(len(parents), KINDS[column.kind].arrow) for column in table.columns[3:]]
    none = pa.repeat(pa.scalar(-1, pa.int64()), len(parents))
    return pa.table(
        [_for_each(estab, len(parents)), parents, none, *rest], schema=arrow_schema(table)
    )


def _for_each(estab: Estab, rows: int) -> Whose:
    return pa.repeat(estab, rows) if isinstance(estab, str) else estab


def _has_items(nested: pa.Array) -> pa.Array:
    if pa.types.is_struct(nested.type):
        return pc.is_valid(nested)
    return pc.greater(pc.fill_null(pc.list_value_length(nested), 0), 0)


def _stamped(rows: pa.Table, table: Table, whose: Whose) -> pa.Table:
    # the last change of a deleted row was its deletion
    when = pc.if_else(rows.column("_deleted"), rows.column("date_last_modified"), None)
    rows = rows.append_column("_deleted_at", when)
    columns = [rows.column(column.name) for column in table.columns[1:]]
    return pa.table([whose, *columns], schema=arrow_schema(table))


def _exploded(
    whose: Whose, ids: pa.ChunkedArray, nested: pa.Array, has: pa.BooleanArray, table: Table
) -> pa.Table:
    """Returns the child rows that are `nested` in rows with these ids, where these have some."""
    if has.false_count:
        whose, ids, nested = whose.filter(has), ids.filter(has), nested.filter(has)
    if pa.types.is_struct(nested.type):
        items, positions = nested, pa.repeat(pa.scalar(0, pa.int64()), len(nested))
    else:
        parents = pc.list_parent_indices(nested)
        whose, ids, items = whose.take(parents), ids.take(parents), nested.flatten()
        positions = _positions(nested, parents)
    members = dict(zip(items.type.names, items.flatten(), strict=True))
    return pa.table(
        [whose, ids, positions, *(members[column.name] for column in table.columns[3:])],
        schema=arrow_schema(table),
    )


def _positions(lists: pa.Array, parents: pa.Array) -> pa.Array:
    """Returns the index of every item in its own list, from 0."""
    starts = pc.subtract(lists.offsets.slice(0, len(lists)), lists.offsets[0])
    return pc.subtract(_count_up(len(parents)), starts.cast(pa.int64()).take(parents))


def _count_up(number: int) -> pa.Array:
    """Returns so many integers from 0."""
    ones = pa.repeat(pa.scalar(1, pa.int64()), number)
    return pc.subtract(pc.cumulative_sum(ones), 1)


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    chunks = column.combine_chunks()
    return chunks.chunk(0) if isinstance(chunks, pa.ChunkedArray) else chunks
