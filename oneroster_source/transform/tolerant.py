"""Generates the SQL that parses any object of an endpoint, from the declaration."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import orjson

from oneroster_source.model import ChildList, Endpoint, Field, Ref
from oneroster_source.model.deleted_status import ACTIVE, is_deleted_sql
from oneroster_source.model.quoting import literal, quoted
from oneroster_source.model.type_map import KINDS, LONGEST_ID


@dataclass(frozen=True, slots=True)
class _Part:
    """What one attribute contributes to the layers of the query."""

    read: dict[str, str]
    """Members to read from the object, each with its type."""
    apart: tuple[str, ...]
    """Columns on which the layers above build."""
    shaped: tuple[str, ...] = ()
    """Columns that are built from these."""
    columns: tuple[str, ...] = ()
    """Columns of the row's own table in the result."""
    faults: tuple[tuple[str, str], ...] = ()
    """Conditions, with the reasons to report where they hold."""
    leftovers: tuple[tuple[str, str], ...] = ()
    """Conditions under which the columns lack something, with the members to keep as sent."""


def _field(field: Field, zone: str = "") -> _Part:
    kind, raw, column = KINDS[field.kind], f"s.{quoted(field.name)}", quoted(field.column.name)
    unread = f"({raw} <> '' AND {column} IS NULL)"
    checked = field.kind != "text"
    return _Part(
        read={field.name: "JSON" if field.kind == "json" else "VARCHAR"},
        apart=(f"{kind.sql.format(raw=raw, zone=literal(zone))} AS {column}",),
        columns=(column,),
        faults=((unread, f"{field.name}: not {kind.label}"),) if checked else (),
        leftovers=((unread, field.name),) if checked else (),
    )


def _sent(names: tuple[str, ...]) -> str:
    """Returns the first of some members that has a value: all are names of the same thing."""
    first, *rest = (f"s.{quoted(name)}" for name in names)
    return (
        f"CASE WHEN has_value({first}) THEN {first} ELSE {_sent(names[1:])} END" if rest else first
    )


def _too_long(sourced_id: str) -> str:
    return f"coalesce(strlen({sourced_id}) > {LONGEST_ID}, false)"


ROW_PROBLEMS = ("no sourcedId", "sourcedId: too long")
"""The problems for which a complete row is rejected."""
_IS_DELETED = (
    # nearly all rows are active
    f"CASE WHEN status = {literal(ACTIVE)} THEN false"
    f" ELSE coalesce({is_deleted_sql('status')}, false) END AS _deleted"
)
_NO_ID = "a reference without sourcedId"
_TOO_LONG = "a reference whose sourcedId is too long"


def _ref(ref: Ref, table: str) -> _Part:
    names = ref.names
    sent, x, p, sent_id = (quoted(f"_{ref.name}_{part}") for part in ("sent", "x", "p", "id"))
    no_id = f"({x} IS NOT NULL AND {sent_id} IS NULL)"
    too_long, column = _too_long(sent_id), quoted(ref.column.name)
    return _Part(
        read=dict.fromkeys(names, "JSON"),
        apart=(
            f"{_sent(names)} AS {sent}",
            f"CASE WHEN has_value({sent}) THEN first_item({sent}) END AS {x}",
            f"ref_parts({x}) AS {p}",
            f"ref_id({x}, {p}) AS {sent_id}",
            f"CASE WHEN NOT {too_long} THEN {sent_id} END AS {column}",
        ),
        columns=(column,),
        shaped=(f"CASE WHEN {column} IS NOT NULL THEN as_ref({x}, {p}) END AS {quoted(table)}",),
        faults=((no_id, f"{ref.name}: {_NO_ID}"), (too_long, f"{ref.name}: {_TOO_LONG}")),
        leftovers=tuple(
            _leftovers(
                f"ref_has_more({x}, {p}) OR json_array_length({sent}) > 1 OR {no_id} OR {too_long}",
                names,
            )
        ),
    )


def _child_list(child: ChildList, table: str) -> _Part:
    names = child.names
    items = quoted(f"_{child.name}_items")
    faults: tuple[tuple[str, str], ...] = ()
    if child.target is not None:
        item, sent_id = "as_ref(i, ref_parts(i))", "ref_id(i, ref_parts(i))"
        rows = (
            f"list_filter(list_transform({items}, lambda i: {item}),"
            f" lambda r: r.sourced_id IS NOT NULL AND NOT {_too_long('r.sourced_id')})"
        )
        lost, too_long = f"{sent_id} IS NULL", _too_long(sent_id)
        faults = tuple(
            (f"len(list_filter({items}, lambda i: {test})) > 0", f"{child.name}: {problem}")
            for test, problem in ((lost, _NO_ID), (too_long, _TOO_LONG))
        )
        odd = f"{lost} OR {too_long} OR ref_has_more(i, ref_parts(i))"
        more = f"len(list_filter({items}, lambda i: {odd})) > 0"
    elif child.fields:
        known = ", ".join(literal(field.name) for field in child.fields)
        rows = f"list_transform({items}, lambda i: {_object(child.fields)})"
        more = f"len(list_filter({items}, lambda i: has_other_keys(i, [{known}]))) > 0"
    else:
        rows, more = f"list_transform({items}, lambda i: {{'value': i->>'$'}})", ""
    return _Part(
        read=dict.fromkeys(names, "JSON"),
        apart=(f"items({_sent(names)}) AS {items}",),
        shaped=(f"{rows} AS {quoted(table)}",),
        faults=faults,
        leftovers=tuple(_leftovers(more, names)),
    )


def _leftovers(more: str, names: tuple[str, ...]) -> Iterable[tuple[str, str]]:
    """Gives what to keep as sent: the member used, if there is `more` in it; all others."""
    for index, name in enumerate(names):
        sent = f"has_value(s.{quoted(name)})"
        if index == 0 and more:
            yield f"({sent} AND ({more}))", name
        elif index > 0:
            earlier = " OR ".join(f"has_value(s.{quoted(other)})" for other in names[:index])
            yield f"({sent} AND ({earlier}{' OR ' + more if more else ''}))", name


def _object(fields: tuple[Field, ...]) -> str:
    """Makes a struct of a list item; an item that is a plain value becomes the last field."""
    members = []
    for field in fields:
        value = f"i->>{literal('$.' + field.name)}"
        if field is fields[-1]:
            value = f"CASE WHEN starts_with(i::VARCHAR, '{{') THEN {value} ELSE i->>'$' END"
        members.append(f"{literal(field.column.name)}: nullif({value}, '')")
    return "{" + ", ".join(members) + "}"


@dataclass(frozen=True, slots=True)
class Queries:
    """Two queries over the relation `page` of objects `raw`; both keep its order."""

    rows: str
    """Gives the wide rows, with `_odd`: whether something did not fit into the columns."""
    oddities: str
    """Gives `extra`, `_problems` and `_leftovers` of the same rows; run only if a row is odd."""


def queries(endpoint: Endpoint, zone: str) -> Queries:
    """Generates the queries that read `endpoint`, in layers: read, take apart, judge.

    Whether something was left over is determined for every row; what it was, by a second query:
    few pages hold anything odd, and the lists cost as much as all the rest.
    """
    parts = [
        _Part(
            {"sourcedId": "VARCHAR"},
            (
                "nullif(s.\"sourcedId\", '') AS _sent_id",
                f"CASE WHEN NOT {_too_long('_sent_id')} THEN _sent_id END AS sourced_id",
            ),
            columns=("sourced_id",),
            faults=tuple(
                zip(("_sent_id IS NULL", _too_long("_sent_id")), ROW_PROBLEMS, strict=True)
            ),
        ),
        _field(Field("status")),
        _field(Field("dateLastModified", "instant")),
        *(_field(field, zone) for field in endpoint.fields),
        *(_ref(ref, endpoint.child_name(ref)) for ref in endpoint.refs),
        *(_child_list(child, endpoint.child_name(child)) for child in endpoint.lists),
        _Part(
            {"metadata": "JSON"},
            ("as_json(nullif(s.metadata, 'null')) AS metadata",),
            columns=("metadata",),
        ),
    ]
    read = {name: kind for part in parts for name, kind in part.read.items()}
    layers = f""",
read AS (SELECT raw, from_json(raw, {literal(orjson.dumps(read).decode())}) AS s,
    json_keys(raw) AS keys FROM page),
apart AS (SELECT raw, s, keys, {", ".join(column for part in parts for column in part.apart)}
    FROM read)"""
    declared = "[" + ", ".join(literal(name) for name in read) + "]"
    return Queries(layers + _rows(parts, read, declared), layers + _oddities(parts, declared))


def _rows(parts: list[_Part], read: Iterable[str], declared: str) -> str:
    sent = " + ".join(f"(s.{quoted(name)} IS NOT NULL)::INT" for name in read)
    # all members read and none more: proof by counting, before looking at their names
    unknown = (
        f"CASE WHEN len(keys) <> {sent} THEN NOT list_has_all({declared}, keys)"
        " OR has_repeats(keys) ELSE false END"
    )
    tests = [test for part in parts for test, _ in part.faults]
    tests += [test for part in parts for test, _ in part.leftovers]
    columns = [
        *(column for part in parts for column in part.columns),
        _IS_DELETED,
        *(column for part in parts for column in part.shaped),
        "coalesce(_sent_id, '#' || md5(coalesce(raw::VARCHAR, 'null'))) AS _key",
        f"coalesce({' OR '.join(tests)} OR {unknown}, false) AS _odd",
    ]
    return f" SELECT {', '.join(columns)} FROM apart"


def _oddities(parts: list[_Part], declared: str) -> str:
    faults = _whens(fault for part in parts for fault in part.faults)
    leftovers = _whens(leftover for part in parts for leftover in part.leftovers)
    return f""",
listed AS (SELECT *, {faults} AS faults, {leftovers}
    || list_filter(keys, lambda k: NOT list_contains({declared}, k)) AS leftovers,
    repeated(keys) AS twice FROM apart),
parted AS (SELECT raw, faults, twice, CASE WHEN len(twice) > 0
    THEN list_filter(leftovers, lambda k: NOT list_contains(twice, k)) ELSE leftovers END AS once
    FROM listed)
SELECT CASE WHEN len(once) > 0 OR len(twice) > 0 THEN '{{' ||
    array_to_string(pick(raw, once) || pick_all(raw, twice), ',') || '}}' END AS extra,
    CASE WHEN len(faults) > 0 OR len(twice) > 0 THEN
    faults || list_transform(twice, lambda k: k || ': sent more than once') END AS _problems,
    once || twice AS _leftovers
FROM parted"""


def _whens(conditions: Iterable[tuple[str, str]]) -> str:
    cases = ", ".join(f"CASE WHEN {test} THEN {literal(text)} END" for test, text in conditions)
    return f"list_filter([{cases}], lambda t: t IS NOT NULL)"
