"""What the warehouse should hold, worked out from the server's own rows in plain Python.

Written from the standard and the list of tables in the documents, without a look at `spec` or
`shape`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import duckdb

from oneroster_source.simulator import School
from support.postgres import query

STAGING = "oneroster_oneroster_source_staging"
"""The dataset in which rows wait that are merged into the dataset `oneroster`."""
Row = tuple[Any, ...]

# table, singular, collection, scalars (t text, b boolean, d date), references, lists
_ENDPOINTS: dict[str, tuple[str, str, dict[str, str], list[str], dict[str, str]]] = {
    "orgs": (
        "org",
        "orgs",
        {"name": "t", "type": "t", "identifier": "t"},
        ["parent"],
        {"children": "ref"},
    ),
    "academic_sessions": (
        "academic_session",
        "academicSessions",
        {"title": "t", "type": "t", "startDate": "d", "endDate": "d", "schoolYear": "t"},
        ["parent"],
        {"children": "ref"},
    ),
    "courses": (
        "course",
        "courses",
        {"title": "t", "courseCode": "t"},
        ["schoolYear", "org"],
        {"grades": "value", "subjects": "value", "subjectCodes": "value", "resources": "ref"},
    ),
    "classes": (
        "class",
        "classes",
        {"title": "t", "classCode": "t", "classType": "t", "location": "t"},
        ["course", "school"],
        {
            "terms": "ref",
            "grades": "value",
            "subjects": "value",
            "subjectCodes": "value",
            "periods": "value",
            "resources": "ref",
        },
    ),
    "users": (
        "user",
        "users",
        {
            "username": "t",
            "givenName": "t",
            "middleName": "t",
            "familyName": "t",
            "role": "t",
            "identifier": "t",
            "email": "t",
            "sms": "t",
            "phone": "t",
            "enabledUser": "b",
            "password": "t",
        },
        [],
        {"orgs": "ref", "userIds": "object", "grades": "value", "agents": "ref"},
    ),
    "enrollments": (
        "enrollment",
        "enrollments",
        {"role": "t", "primary": "b", "beginDate": "d", "endDate": "d"},
        ["user", "class", "school"],
        {},
    ),
}
_PATHS = {
    "org": "orgs",
    "user": "users",
    "academicSession": "academicSessions",
    "class": "classes",
    "course": "courses",
}
REFERENCE_TABLES = {
    "orgs__parent",
    "academic_sessions__parent",
    "courses__school_year",
    "courses__org",
    "classes__course",
    "classes__school",
    "enrollments__user",
    "enrollments__class",
    "enrollments__school",
}


def _snake(name: str) -> str:
    return "".join("_" + c.lower() if c.isupper() else c for c in name)


def _instant(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text).astimezone(UTC) if text else None


_CONVERT: dict[str, Callable[[Any], Any]] = {"t": str, "b": bool, "d": date.fromisoformat}


class Truth:
    """The tables that schools amount to.

    Args:
        style: How the server writes references: object, string or sourceId.
        keep: Whether rows marked as deleted are kept.
        references: Whether single references have tables of their own.
        endpoints: Those that are loaded.
    """

    def __init__(
        self,
        base_url: str,
        schools: Iterable[School],
        *,
        style: str = "object",
        keep: bool = True,
        references: bool = True,
        endpoints: Container[str] = tuple(_ENDPOINTS),
    ) -> None:
        self._base_url = base_url
        self._style = style
        self._keep = keep
        self.tables: dict[str, list[Row]] = {"rejected_rows": []}
        for name, (_, collection, fields, refs, lists) in _ENDPOINTS.items():
            if name not in endpoints:
                continue
            self.tables[name] = []
            children = [*(refs if references else []), *lists]
            self.tables |= {f"{name}__{_snake(child)}": [] for child in children}
            for school in schools:
                for row in school.rows(collection):
                    self._row(school.estab, name, row, fields, refs, lists, references)

    def with_ghosts(self, estab: str, rows: dict[str, list[Any]]) -> Truth:
        """With rows that the school no longer has, all of them deleted."""
        ghosts = Truth(self._base_url, [School(estab, collections=rows)], endpoints=self.tables)
        for table, found in ghosts.tables.items():
            root = "__" not in table and table != "rejected_rows"
            self.tables[table] += [(*row[:-1], True) if root else row for row in found]
        return self

    def _row(self, estab, name, row, fields, refs, lists, references) -> None:  # type: ignore[no-untyped-def]
        deleted = row.get("status") in ("tobedeleted", "inactive")
        if deleted and not self._keep:
            return
        key = (estab, row["sourcedId"])
        values = [
            _CONVERT[kind](row[field]) if row.get(field) not in (None, "") else None
            for field, kind in fields.items()
        ]
        ids = [(row.get(ref) or {}).get("sourcedId") for ref in refs]
        self.tables[name].append(
            (*key, row.get("status"), _instant(row.get("dateLastModified")), *values, *ids, deleted)
        )
        for ref in refs:
            if references and row.get(ref):
                self.tables[f"{name}__{_snake(ref)}"].append((*key, 0, *self._ref(row[ref])))
        for child, kind in lists.items():
            items = row.get(child) or []
            if child == "orgs" and not items:
                items = row.get("orgSourcedIds") or []
            for position, item in enumerate(items):
                if kind == "ref":
                    cells = self._ref(item)
                elif kind == "object":
                    cells = (item.get("type"), item.get("identifier"))
                else:
                    cells = (str(item),)
                self.tables[f"{name}__{_snake(child)}"].append((*key, position, *cells))

    def _ref(self, ref: Any) -> Row:
        if isinstance(ref, str):
            return (ref, None, None)
        if self._style == "string":
            return (ref["sourcedId"], None, None)
        href = f"{self._base_url}/{_PATHS[ref['type']]}/{ref['sourcedId']}"
        return (ref["sourcedId"], ref["type"], href)


def columns(table: str) -> list[str]:
    """The columns of a table that the truth speaks of, in its order."""
    if table == "rejected_rows":
        return ["estab", "endpoint", "sourced_id", "reason"]
    name, _, child = table.partition("__")
    singular, _, fields, refs, lists = _ENDPOINTS[name]
    if not child:
        return [
            "estab",
            "sourced_id",
            "status",
            "date_last_modified",
            *map(_snake, fields),
            *(f"{_snake(ref)}_sourced_id" for ref in refs),
            "_deleted",
        ]
    kind = next((kind for item, kind in lists.items() if _snake(item) == child), "ref")
    rest = {
        "ref": ["sourced_id", "type", "href"],
        "value": ["value"],
        "object": ["type", "identifier"],
    }[kind]
    return ["estab", f"{singular}_sourced_id", "position", *rest]


@contextmanager
def opened(database: str) -> Iterator[Callable[[str], list[Row]]]:
    """Asks a DuckDB file, the database at a Postgres URL, a DuckLake, or Delta tables in a folder
    or a bucket."""
    if database.startswith("postgresql://"):
        yield partial(query, database)
        return
    if database.startswith("ducklake:"):
        with duckdb.connect() as connection:
            connection.execute(f"SET TimeZone = 'UTC'; ATTACH '{database}' AS lake; USE lake")
            yield lambda text: connection.execute(text).fetchall()
        return
    if database.startswith("s3://") or Path(database).is_dir():
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'; CREATE SCHEMA oneroster")
            yield partial(_ask_delta, connection, database)
        return
    with duckdb.connect(database, read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield lambda text: connection.execute(text).fetchall()


def _ask_delta(connection: duckdb.DuckDBPyConnection, place: str, text: str) -> list[Row]:
    from deltalake import DeltaTable

    for table in set(re.findall(r"oneroster\.(\w+)", text)):
        found = DeltaTable(f"{place}/oneroster/{table}")
        connection.register(f"{table}_now", found.to_pyarrow_dataset())
        connection.execute(f"CREATE OR REPLACE VIEW oneroster.{table} AS FROM {table}_now")
    return connection.execute(text).fetchall()


def held(database: str, table: str) -> list[Row]:
    """A table as the destination holds it."""
    with opened(database) as ask:
        return ask(_all_of(table))


def _all_of(table: str, dataset: str = "oneroster") -> str:
    names = ", ".join(f'"{name}"' for name in columns(table))
    return f"SELECT {names} FROM {dataset}.{table}"


def staged(database: str) -> list[str]:
    """Tables of the staging dataset in which a load has left rows."""
    with opened(database) as ask:
        found = ask(
            "SELECT table_name FROM information_schema.tables"
            f" WHERE table_schema = '{STAGING}' AND substr(table_name, 1, 5) <> '_dlt_'"
        )
        assert found, "there is a staging dataset"
        return [t for (t,) in found if ask(f"SELECT 1 FROM {STAGING}.{t} LIMIT 1")]


def differences(
    database: str, truth: Truth, *, estab: str | None = None, dataset: str = "oneroster"
) -> dict[str, tuple[list[Row], list[Row]]]:
    """For each table that differs: rows that are missing, and rows that should not be there.

    With `estab` only rows of that school are looked at.
    """
    found = {}
    with opened(database) as ask:
        for table, rows in truth.tables.items():
            there = [row for row in ask(_all_of(table, dataset)) if estab in (None, row[0])]
            missing, extra = _minus(rows, there), _minus(there, rows)
            if missing or extra:
                found[table] = (missing[:3], extra[:3])
    return found


def _minus(left: list[Row], right: list[Row]) -> list[Row]:
    rest: dict[Row, int] = {}
    for row in right:
        rest[row] = rest.get(row, 0) + 1
    missing = []
    for row in left:
        if rest.get(row, 0):
            rest[row] -= 1
        else:
            missing.append(row)
    return missing


def wrong(warehouse, truth: Truth) -> dict[str, object]:  # type: ignore[no-untyped-def]
    """What differs from the truth, of the endpoints that are loaded."""
    loaded = warehouse.status().rows
    assert "users" in loaded or "orgs" in loaded
    truth.tables = {name: rows for name, rows in truth.tables.items() if name in loaded}
    return differences(warehouse.name, truth)


def outcome(report, endpoint):  # type: ignore[no-untyped-def]
    return next(o for o in report.outcomes if o.endpoint == endpoint)


def deleted(warehouse, table: str = "users") -> set[str]:
    return {row[1] for row in held(warehouse.name, table) if row[-1]}


def live(warehouse, table: str = "users") -> set[str]:
    return {row[1] for row in held(warehouse.name, table) if not row[-1]}
