"""The short way for rows that are written as the standard and Xporter write them: nearly all.

A row is plain where every name in its JSON text is that of a member which was read: so nothing of
it is unknown, comes twice, is null, or lies deeper than it was looked for. To count the names is
proof of it. A name can hide from the count only by white space before its colon, and a value can
only add to it (by the end of a quotation, as in `"\\":"`); what is counted is never less than what
is there, and what was read is never more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from oneroster_source.shape.kinds import KINDS
from oneroster_source.shape.sql import literal, quoted
from oneroster_source.spec import ChildList, Endpoint, Field, Ref

_REF = ("sourcedId", "type", "href")


@dataclass(frozen=True, slots=True)
class _Part:
    """What one attribute adds to the query."""

    read: dict[str, Any]
    """Members to read from the object, in the structure that `from_json` takes."""
    columns: tuple[str, ...]
    """Columns of the row's own table in the result."""
    names: tuple[str, ...]
    """Numbers of names that were read."""
    fine: tuple[str, ...] = ()
    """Conditions without which the row is read in the long way."""
    shaped: tuple[str, ...] = ()
    """Nested columns in the result."""


def _there(*values: str) -> str:
    return " + ".join(f"({value} IS NOT NULL)::INT" for value in values)


def _field(field: Field) -> _Part:
    kind, raw = KINDS[field.kind], f"s.{quoted(field.name)}"
    value = kind.sql.format(raw=raw)
    read = f"NOT coalesce({raw} <> '' AND {value} IS NULL, false)"
    return _Part(
        read={field.name: "VARCHAR"},
        columns=(f"{value} AS {quoted(field.column.name)}",),
        names=(_there(raw),),
        fine=(read,) if field.kind != "text" else (),
    )


def _ref(ref: Ref, table: str) -> _Part:
    x = f"s.{quoted(ref.name)}"
    members = [f"{x}.{quoted(name)}" for name in _REF]
    return _Part(
        read={ref.name: dict.fromkeys(_REF, "VARCHAR")},
        columns=(f"{members[0]} AS {quoted(ref.column.name)}",),
        names=(_there(x, *members),),
        fine=(f"({x} IS NULL OR coalesce({members[0]} <> '', false))",),
        shaped=(f"CASE WHEN {x} IS NOT NULL THEN plain_ref({x}) END AS {quoted(table)}",),
    )


def _child_list(child: ChildList, table: str) -> _Part:
    x = f"s.{quoted(child.name)}"
    read: dict[str, Any]
    members: tuple[str, ...]
    if child.target is not None:
        members, row = _REF, "plain_ref(i)"
        fine = "coalesce(i.\"sourcedId\" <> '', false)"
    elif child.fields:
        members = tuple(field.name for field in child.fields)
        row = f"{{{', '.join(_member(field) for field in child.fields)}}}"
        # what is no object reads as one without members
        fine = f"{_there(*(f'i.{quoted(name)}' for name in members))} > 0"
    else:
        members, row, fine = (), "{'value': i}", "coalesce(i <> '', false)"
    inner = " + ".join(["0", *(_there(f"i.{quoted(name)}") for name in members)])
    read = {child.name: [dict.fromkeys(members, "VARCHAR") if members else "VARCHAR"]}
    rows, names = f"list_transform({x}, lambda i: {row})", [_there(x)]
    if members:
        names.append(f"coalesce(list_sum(list_transform({x}, lambda i: {inner})), 0)")
    conditions = [f"len(list_filter({x}, lambda i: NOT ({fine}))) > 0"]
    if child.ids:
        ids = f"s.{quoted(child.ids)}"
        read[child.ids] = ["VARCHAR"]
        names.append(_there(ids))
        rows = f"coalesce({rows}, list_transform({ids}, lambda i: id_alone(i)))"
        conditions += [
            f"len(list_filter({ids}, lambda i: coalesce(i = '', true))) > 0",
            f"({x} IS NOT NULL AND {ids} IS NOT NULL)",
        ]
    return _Part(
        read=read,
        columns=(),
        names=tuple(names),
        fine=tuple(f"NOT coalesce({condition}, false)" for condition in conditions),
        shaped=(f"coalesce({rows}, []) AS {quoted(table)}",),
    )


def _member(field: Field) -> str:
    return f"{literal(field.column.name)}: nullif(i.{quoted(field.name)}, '')"


@dataclass(frozen=True, slots=True)
class PlainQueries:
    """Two queries over `page`, a relation of objects `raw`; both keep its order."""

    rows: str
    """The wide rows, with `_names`, the number of names that were read; `_fine`, whether the values
    are such that the row is plain if no name is missing; and `_spaced`, whether there is a space
    before any colon of the page."""
    others: str
    """`i`, the place in the page, and `raw` of the rows that are not plain."""


def plain_queries(endpoint: Endpoint) -> PlainQueries:
    """The queries that read the plain rows of `endpoint`, and find the others."""
    metadata = 's."metadata"'
    own = [
        _Part(
            {"sourcedId": "VARCHAR"},
            ('s."sourcedId" AS sourced_id',),
            (_there('s."sourcedId"'),),
            ("coalesce(s.\"sourcedId\" <> '', false)", "is_sure(raw)"),
        ),
        _field(Field("status")),
        _field(Field("dateLastModified", "instant")),
        *(_field(field) for field in endpoint.fields),
        *(_ref(ref, endpoint.child_name(ref)) for ref in endpoint.refs),
        *(_child_list(child, endpoint.child_name(child)) for child in endpoint.lists),
        _Part(
            {"metadata": "JSON"},
            (f"as_json(nullif({metadata}, 'null')) AS metadata",),
            (f"coalesce(1 + names_in({metadata}), 0)",),
        ),
    ]
    read = {name: kind for part in own for name, kind in part.read.items()}
    names = _added(name for part in own for name in part.names)
    fine = " AND ".join(condition for part in own for condition in part.fine)
    columns = [
        *(column for part in own for column in part.columns),
        "is_deleted(s.status) AS _deleted",
        *(column for part in own for column in part.shaped),
        's."sourcedId" AS _key',
        "hash(raw::VARCHAR) AS _hash",
        "NULL::VARCHAR AS extra, NULL::VARCHAR[] AS _problems, NULL::VARCHAR[] AS _leftovers",
    ]
    layer = f"""
read AS (SELECT raw, spaced, from_json(raw, {literal(orjson.dumps(read).decode())}) AS s
    FROM page)"""
    return PlainQueries(
        rows=f"{layer} SELECT {', '.join(columns)}, {names} AS _names, {fine} AS _fine,"
        " spaced AS _spaced FROM read",
        others=f"""{layer},
placed AS (SELECT row_number() OVER () - 1 AS i, raw, {names} AS names, {fine} AS fine FROM read)
SELECT i, coalesce(raw::VARCHAR, 'null') AS raw FROM placed
WHERE NOT coalesce(fine AND names_in(raw) = names, false)""",
    )


def _added(terms: Iterable[str]) -> str:
    return " + ".join(terms)
