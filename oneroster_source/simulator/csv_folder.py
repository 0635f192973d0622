"""A school from a folder of OneRoster CSV files, 1.1 or 1.0."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oneroster_source.simulator.attributes import COLLECTIONS, Row
from oneroster_source.simulator.school import School

PAIR = re.compile(r"\{([^:{}]*):([^{}]*)\}")
METADATA = "metadata."


@dataclass(frozen=True, slots=True)
class Column:
    """What a CSV column is in the API."""

    name: str
    read: Callable[[str], Any]


def csv_school(folder: Path, estab: str, **school: Any) -> School:
    """A school with the rows of `folder`; a file that is missing is an empty collection.

    Args:
        folder: holds orgs.csv, users.csv and so on.
        estab: the establishment identifier.
        school: more arguments for `School`.

    Raises:
        ValueError: a line has values beyond the columns of its file.
    """
    collections = {name: list(_rows(folder / f"{name}.csv", name)) for name in COLLECTIONS}
    return School(estab, collections=collections, **school)


def _rows(path: Path, collection: str) -> Iterator[Row]:
    if not path.exists():
        return
    columns = COLUMNS.get(collection, {})
    # utf-8-sig: some exports begin with a byte order mark
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines)
        for cells in reader:
            # a stray comma at the end of a line is common; a value there is not ours to drop
            if any(cells.pop(None, ())):
                raise ValueError(f"{path.name}, line {reader.line_num}: more cells than columns")
            yield _row({name: text for name, text in cells.items() if text}, columns)


def _row(cells: dict[str, str], columns: dict[str, Column]) -> Row:
    row: Row = {"sourcedId": cells.pop("sourcedId", None), "status": cells.pop("status", "active")}
    for name, text in cells.items():
        if name.startswith(METADATA):
            row.setdefault("metadata", {})[name.removeprefix(METADATA)] = text
        elif name in columns:
            row[columns[name].name] = columns[name].read(text)
        else:
            row[name] = text
    return row


def _texts(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _flag(text: str) -> bool | str:
    return {"true": True, "false": False}.get(text.strip().lower(), text)


def _user_ids(text: str) -> list[dict[str, str]]:
    pairs = [{"type": kind, "identifier": value} for kind, value in PAIR.findall(text)]
    return pairs or [{"identifier": text}]


def _reference(name: str, kind: str) -> Column:
    return Column(name, lambda text: {"sourcedId": text, "type": kind})


def _references(name: str, kind: str) -> Column:
    return Column(name, lambda text: [{"sourcedId": i, "type": kind} for i in _texts(text)])


# grade, schoolYearId, termSourcedId and agents are 1.0's names
GRADES = Column("grades", _texts)
SUBJECTS = {
    "grades": GRADES,
    "grade": GRADES,
    "subjects": Column("subjects", _texts),
    "subjectCodes": Column("subjectCodes", _texts),
}
SCHOOL_YEAR = _reference("schoolYear", "academicSession")
TERMS = _references("terms", "academicSession")
AGENTS = _references("agents", "user")

COLUMNS: dict[str, dict[str, Column]] = {
    "orgs": {"parentSourcedId": _reference("parent", "org")},
    "academicSessions": {"parentSourcedId": _reference("parent", "academicSession")},
    "users": {
        "enabledUser": Column("enabledUser", _flag),
        "orgSourcedIds": Column("orgSourcedIds", _texts),
        "userIds": Column("userIds", _user_ids),
        "agentSourcedIds": AGENTS,
        "agents": AGENTS,
        "grades": GRADES,
        "grade": GRADES,
    },
    "courses": {
        **SUBJECTS,
        "schoolYearSourcedId": SCHOOL_YEAR,
        "schoolYearId": SCHOOL_YEAR,
        "orgSourcedId": _reference("org", "org"),
    },
    "classes": {
        **SUBJECTS,
        "courseSourcedId": _reference("course", "course"),
        "schoolSourcedId": _reference("school", "org"),
        "termSourcedIds": TERMS,
        "termSourcedId": TERMS,
        "periods": Column("periods", _texts),
    },
    "enrollments": {
        "userSourcedId": _reference("user", "user"),
        "classSourcedId": _reference("class", "class"),
        "schoolSourcedId": _reference("school", "org"),
        "primary": Column("primary", _flag),
    },
}
"""Columns that are not just text under their own name, by collection."""
