"""The query options of a collection request: filter, limit, offset, sort and orderBy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from oneroster_source.simulator.attributes import Kind, searchable
from oneroster_source.simulator.filters import BadQuery, Predicate, parse_filter
from oneroster_source.simulator.quirks import Quirks

INTEGER = re.compile(r"-?[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Options:
    """What a request asks of a collection."""

    predicates: tuple[Predicate, ...] = ()
    sort: tuple[str, Kind] | None = None
    descending: bool = False
    limit: int | None = None
    """None: all rows."""
    offset: int = 0


def read_options(collection: str, params: Mapping[str, str], quirks: Quirks) -> Options:
    """Read the query options as a provider with `quirks` does; unknown ones are ignored.

    Raises:
        BadQuery: an option is wrong, or the provider does not understand it.
    """
    fields = searchable(collection)
    sort, descending = _sort(params, fields, quirks)
    limit = None if quirks.ignore_limit else _integer("limit", params, least=1)
    offset = None if quirks.ignore_offset else _integer("offset", params, least=0)
    return Options(_filter(params, fields, quirks), sort, descending, limit, offset or 0)


def _filter(
    params: Mapping[str, str], fields: Mapping[str, Kind], quirks: Quirks
) -> tuple[Predicate, ...]:
    text = params.get("filter")
    if text is None or quirks.ignore_filter:
        return ()
    if quirks.refuse_filter:
        raise BadQuery("filter: not supported")
    predicates = parse_filter(text, fields)
    if quirks.single_filter and len(predicates) > 1:
        raise BadQuery("filter: only one comparison is supported")
    return predicates


def _sort(
    params: Mapping[str, str], fields: Mapping[str, Kind], quirks: Quirks
) -> tuple[tuple[str, Kind] | None, bool]:
    if quirks.ignore_sort:
        return None, False
    field, direction = params.get("sort"), params.get("orderBy", "asc")
    if direction not in ("asc", "desc"):
        raise BadQuery(f"orderBy: {direction!r} is neither asc nor desc")
    if field is None:
        return None, False
    if quirks.refuse_sort:
        raise BadQuery("sort: not supported")
    if field not in fields:
        raise BadQuery(f"sort: unknown field {field!r}; known are {', '.join(fields)}")
    return (field, fields[field]), direction == "desc"


def _integer(name: str, params: Mapping[str, str], *, least: int) -> int | None:
    text = params.get(name)
    if text is None:
        return None
    if not INTEGER.fullmatch(text):
        raise BadQuery(f"{name}: {text!r} is not an integer")
    if int(text) < least:
        raise BadQuery(f"{name}: {text} is less than {least}")
    return int(text)
