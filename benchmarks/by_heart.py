"""The data of the benchmark as somebody knows it who has never seen any other."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

_TEXT = pa.string()
_REF = pa.struct([("sourcedId", _TEXT), ("type", _TEXT), ("href", _TEXT)])
_ROW = [("sourcedId", _TEXT), ("status", _TEXT), ("dateLastModified", pa.timestamp("us", "UTC"))]
_TEXTS = "username givenName middleName familyName role identifier email sms phone"


def _refs(parent: str, attribute: str) -> str:
    items = f'unnest("{attribute}") AS i, unnest(range(len("{attribute}"))) AS position'
    return (
        f'SELECT {parent}, position, i."sourcedId" AS sourced_id, i.type, i.href'
        f' FROM (SELECT "sourcedId" AS {parent}, {items} FROM page)'
    )


ROWS: dict[str, pa.DataType] = {
    "users": pa.struct(
        [
            *_ROW,
            *((name, _TEXT) for name in _TEXTS.split()),
            ("enabledUser", pa.bool_()),
            ("orgs", pa.list_(_REF)),
            ("userIds", pa.list_(pa.struct([("type", _TEXT), ("identifier", _TEXT)]))),
            ("grades", pa.list_(_TEXT)),
            ("agents", pa.list_(_REF)),
        ]
    ),
    "enrollments": pa.struct(
        [
            *_ROW,
            ("role", _TEXT),
            ("primary", pa.bool_()),
            ("beginDate", _TEXT),
            ("endDate", _TEXT),
            *((name, _REF) for name in ("user", "class", "school")),
        ]
    ),
}
"""The form of the rows of each collection."""

TABLES: dict[str, dict[str, str]] = {
    "users": {
        "users": 'SELECT "sourcedId" AS sourced_id, status,'
        ' "dateLastModified" AS date_last_modified, username, "givenName" AS given_name,'
        ' "middleName" AS middle_name, "familyName" AS family_name, role, identifier, email,'
        ' sms, phone, "enabledUser" AS enabled_user FROM page',
        "users__orgs": _refs("user_sourced_id", "orgs"),
        "users__user_ids": "SELECT user_sourced_id, position, i.type, i.identifier FROM"
        ' (SELECT "sourcedId" AS user_sourced_id, unnest("userIds") AS i,'
        ' unnest(range(len("userIds"))) AS position FROM page)',
        "users__grades": 'SELECT "sourcedId" AS user_sourced_id,'
        " unnest(range(len(grades))) AS position, unnest(grades) AS value FROM page",
        "users__agents": _refs("user_sourced_id", "agents"),
    },
    "enrollments": {
        "enrollments": 'SELECT "sourcedId" AS sourced_id, status,'
        ' "dateLastModified" AS date_last_modified, role, "primary",'
        ' "beginDate"::DATE AS begin_date, "endDate"::DATE AS end_date,'
        ' "user"."sourcedId" AS user_sourced_id, "class"."sourcedId" AS class_sourced_id,'
        ' school."sourcedId" AS school_sourced_id FROM page',
    }
    | {
        f"enrollments__{name}": 'SELECT "sourcedId" AS enrollment_sourced_id, 0 AS position,'
        f' "{name}"."sourcedId" AS sourced_id, "{name}".type, "{name}".href FROM page'
        for name in ("user", "class", "school")
    },
}
"""What is selected from `page`, the rows of a collection, for each table."""


def structure(kind: pa.DataType) -> Any:
    """A form of rows as DuckDB's `from_json` takes it."""
    if pa.types.is_struct(kind):
        return {field.name: structure(field.type) for field in kind}
    if pa.types.is_list(kind):
        return [structure(kind.value_type)]
    return {_TEXT: "VARCHAR", pa.bool_(): "BOOLEAN"}.get(kind, "TIMESTAMPTZ")


def structure_of(name: str) -> str:
    return json.dumps(structure(ROWS[name]))
