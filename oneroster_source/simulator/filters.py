"""The filter grammar: `field op 'value'`, joined by ` and `."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from oneroster_source.simulator.attributes import Kind, instant

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}

# a quote inside a value is written twice
PREDICATE = re.compile(r"([A-Za-z][\w.]*)\s*([^\w\s'.]+)\s*'((?:[^']|'')*)'")
AND = re.compile(r"\s+and\s+", re.IGNORECASE)


class BadQuery(Exception):
    """A query option is wrong: the answer is 400, with this text as its description."""


@dataclass(frozen=True, slots=True)
class Predicate:
    """One comparison; `value` is text, or a datetime for fields that are instants."""

    field: str
    kind: Kind
    operator: str
    value: Any

    def test(self) -> Callable[[Any], bool]:
        """A function that says whether a row's value passes; an absent one only passes !=."""
        compare, wanted, if_absent = OPERATORS[self.operator], self.value, self.operator == "!="
        return lambda value: if_absent if value is None else compare(value, wanted)


def parse_filter(text: str, fields: Mapping[str, Kind]) -> tuple[Predicate, ...]:
    """Read a filter on rows that have `fields`.

    Raises:
        BadQuery: the syntax, a field, an operator or a value is wrong.
    """
    text = text.strip()
    predicates = []
    position = 0
    while True:
        found = PREDICATE.match(text, position)
        if found is None:
            raise BadQuery(f"filter: expected field, operator and 'value' at {text[position:]!r}")
        predicates.append(_predicate(*found.groups(), fields=fields))
        if found.end() == len(text):
            return tuple(predicates)
        joint = AND.match(text, found.end())
        if joint is None:
            raise BadQuery(f"filter: expected ' and ' at {text[found.end() :]!r}")
        position = joint.end()


def _predicate(field: str, sign: str, value: str, *, fields: Mapping[str, Kind]) -> Predicate:
    if field not in fields:
        raise BadQuery(f"filter: unknown field {field!r}; known are {', '.join(fields)}")
    if sign not in OPERATORS:
        raise BadQuery(f"filter: unknown operator {sign!r}; known are {' '.join(OPERATORS)}")
    value = value.replace("''", "'")
    if fields[field] != "instant":
        return Predicate(field, fields[field], sign, value)
    moment = instant(value)
    if moment is None:
        raise BadQuery(f"filter: {value!r} is no ISO 8601 time")
    return Predicate(field, "instant", sign, moment)
