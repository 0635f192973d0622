"""The attributes documented for each collection: by the vendor, else by OneRoster 1.1."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

Row: TypeAlias = dict[str, Any]
"""A row as the API writes it, references as {"sourcedId", "type"}, absent values absent."""

Kind: TypeAlias = Literal[
    "text", "flag", "instant", "texts", "objects", "reference", "references", "ids"
]

REFERENCE_PATHS = {
    "org": "orgs",
    "user": "users",
    "student": "users",
    "teacher": "users",
    "academicSession": "academicSessions",
    "term": "academicSessions",
    "gradingPeriod": "academicSessions",
    "class": "classes",
    "course": "courses",
    "resource": "resources",
}
"""Where the href of a reference of each type leads."""

LISTS: frozenset[Kind] = frozenset({"texts", "objects", "references", "ids"})
FILTERED_REFERENCES = ("class", "school", "user")
"""References whose sourcedId may be filtered on; the vendor names no others."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute of a collection's rows."""

    name: str
    kind: Kind = "text"
    filled: bool = True
    """Whether a provider that sends missing values sends this one (see `Quirks.empty`)."""


BASE = (
    Attribute("sourcedId", filled=False),
    Attribute("status", filled=False),
    Attribute("dateLastModified", "instant", filled=False),
    Attribute("metadata", "objects", filled=False),
)


def _texts(*names: str) -> tuple[Attribute, ...]:
    return tuple(Attribute(name) for name in names)


ATTRIBUTES: dict[str, tuple[Attribute, ...]] = {
    "orgs": (
        *BASE,
        *_texts("name", "type", "identifier"),
        Attribute("parent", "reference"),
        Attribute("children", "references"),
    ),
    "users": (
        *BASE,
        *_texts("username", "givenName", "familyName", "identifier", "role"),
        *_texts("email", "middleName", "sms", "phone"),
        Attribute("enabledUser", "flag"),
        Attribute("orgSourcedIds", "ids"),
        Attribute("userIds", "objects"),
        Attribute("grades", "texts"),
        # in the standard, not in the vendor's text
        Attribute("orgs", "references", filled=False),
        Attribute("agents", "references", filled=False),
        Attribute("password", filled=False),
    ),
    "academicSessions": (
        *BASE,
        *_texts("title", "type", "startDate", "endDate", "schoolYear"),
        Attribute("parent", "reference"),
        Attribute("children", "references"),
    ),
    "classes": (
        *BASE,
        *_texts("title", "classCode", "classType", "location"),
        Attribute("course", "reference"),
        Attribute("school", "reference"),
        Attribute("terms", "references"),
        Attribute("grades", "texts"),
        Attribute("subjects", "texts"),
        Attribute("subjectCodes", "texts"),
        Attribute("periods", "texts"),
        Attribute("resources", "references", filled=False),
    ),
    "courses": (
        *BASE,
        *_texts("title", "courseCode"),
        Attribute("schoolYear", "reference"),
        Attribute("org", "reference"),
        Attribute("grades", "texts"),
        Attribute("subjects", "texts"),
        Attribute("subjectCodes", "texts"),
        Attribute("resources", "references", filled=False),
    ),
    "enrollments": (
        *BASE,
        *_texts("role", "beginDate", "endDate"),
        Attribute("primary", "flag"),
        Attribute("user", "reference"),
        Attribute("class", "reference"),
        Attribute("school", "reference"),
    ),
}

COLLECTIONS = tuple(ATTRIBUTES)
"""The six collections, by the names in their paths."""


def searchable(collection: str) -> dict[str, Kind]:
    """The fields of a collection that can be filtered and sorted on, with their kinds."""
    fields: dict[str, Kind] = {}
    for attribute in ATTRIBUTES[collection]:
        if attribute.kind == "reference":
            if attribute.name in FILTERED_REFERENCES:
                fields[f"{attribute.name}.sourcedId"] = "text"
        elif attribute.kind not in ("objects", "references"):
            fields[attribute.name] = attribute.kind
    return fields


def comparable(row: Row, field: str, kind: Kind) -> Any:
    """The value of `field` in `row` as filters and sorts see it; None where absent."""
    name, _, nested = field.partition(".")
    value = row.get(name)
    if nested and value is not None:
        value = value.get(nested)
    if value is None:
        return None
    if kind == "instant":
        return instant(value)
    if isinstance(value, bool):
        return str(value).lower()
    return _joined(value) if isinstance(value, list) else str(value)


def instant(text: str) -> datetime | None:
    """The moment that an ISO 8601 text names, UTC where it names no zone; None if it is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _joined(values: Iterable[Any]) -> str:
    return ",".join(str(value) for value in values)
