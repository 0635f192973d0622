"""OneRoster filter expressions: built or parsed, checked, and encoded.

The grammar is the one that Xporter documents: `field op 'value'`, six operators, joined by `and`,
with the nested paths `class.sourcedId`, `school.sourcedId` and `user.sourcedId`. Nothing documents
how a quote in a value is escaped, so that such values are refused.

>>> str(where("status", "=", "active") & where("role", "!=", "student"))
"status='active' and role!='student'"
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from urllib.parse import quote

from oneroster_source.errors import FilterError
from oneroster_source.model import Endpoint

OPERATORS = ("=", "!=", ">", ">=", "<", "<=")
NESTED = ("class.sourcedId", "school.sourcedId", "user.sourcedId")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*(\.[A-Za-z][A-Za-z0-9]*)?")
_PREDICATE = re.compile(r"\s*([A-Za-z][\w.]*)\s*(!=|>=|<=|=|>|<)\s*'([^']*)'")
_AND = re.compile(r"\s+and\s+", re.IGNORECASE)

Value = str | int | bool | date | datetime


def instant(value: datetime) -> str:
    """Formats a time as Xporter does, in UTC; without a fraction where it is zero.

    Raises:
        FilterError: `value` has no time zone.
    """
    if value.tzinfo is None:
        raise FilterError(f"the time {value} has no time zone", todo="use a UTC datetime")
    text = value.astimezone(UTC).isoformat(timespec="milliseconds" if value.microsecond else "auto")
    return text.replace("+00:00", "Z")


def _text(value: Value) -> str:
    match value:
        case bool():
            return str(value).lower()
        case datetime():
            return instant(value)
        case date():
            return value.isoformat()
        case _:
            return str(value)


@dataclass(frozen=True, slots=True)
class Predicate:
    """One comparison of a field with a value."""

    field: str
    operator: str
    value: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.field) or ("." in self.field and self.field not in NESTED):
            raise FilterError(
                f"a filter cannot name the field {self.field!r}",
                todo=f"use an attribute of the collection, or one of {', '.join(NESTED)}",
            )
        if self.operator not in OPERATORS:
            raise FilterError(
                f"a filter knows no operator {self.operator!r}",
                todo=f"use one of {' '.join(OPERATORS)}",
            )
        if "'" in self.value or not self.value.isprintable():
            raise FilterError(
                f"the value compared with {self.field} holds a quote or a control character",
                todo="OneRoster has no way to write it; filter by another field",
            )

    def __str__(self) -> str:
        return f"{self.field}{self.operator}'{self.value}'"


@dataclass(frozen=True, slots=True)
class Filter:
    """Predicates that must all hold; without any, everything matches."""

    predicates: tuple[Predicate, ...] = ()

    def __and__(self, other: Filter) -> Filter:
        return Filter(self.predicates + other.predicates)

    def __bool__(self) -> bool:
        return bool(self.predicates)

    def __str__(self) -> str:
        return " and ".join(str(predicate) for predicate in self.predicates)

    def checked_for(self, endpoint: Endpoint) -> Filter:
        """Returns this filter, if `endpoint` has all its fields.

        Raises:
            FilterError: A field is not an attribute of the collection.
        """
        for predicate in self.predicates:
            name = predicate.field.partition(".")[0]
            if name not in endpoint.attributes:
                raise FilterError(
                    f"{endpoint.collection} have no attribute {name!r} to filter by",
                    todo=f"use one of {', '.join(sorted(endpoint.attributes))}",
                )
        return self


def where(field: str, operator: str, value: Value) -> Filter:
    """Makes a filter of one predicate.

    Raises:
        FilterError: The grammar does not allow the field, the operator, or the value.
    """
    return Filter((Predicate(field, operator, _text(value)),))


def parse(text: str) -> Filter:
    """Parses a filter expression, as in a URL before encoding.

    Raises:
        FilterError: It does not follow the grammar; the message says where.
    """
    found: list[Predicate] = []
    position = 0
    while match := _PREDICATE.match(text, position):
        found.append(Predicate(*match.groups()))
        position = match.end()
        joint = _AND.match(text, position)
        if joint is None:
            break
        position = joint.end()
    if not found or match is None or text[position:].strip():
        raise FilterError(
            f"the filter {text!r} is not understood from character {position + 1}",
            todo="write it like status='active' and role='student', with one of "
            f"{' '.join(OPERATORS)} and values in single quotes",
        )
    return Filter(tuple(found))


def encode(params: dict[str, str]) -> str:
    """Encodes a query string; a space becomes `%20`, never `+`.

    >>> encode({"filter": "a='b c'"})
    'filter=a%3D%27b%20c%27'
    """
    return "&".join(
        f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in params.items()
    )
