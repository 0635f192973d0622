"""Rows as bytes of JSON: as they are stored, and as a provider with quirks writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, timedelta, timezone
from typing import Any, TypeAlias

import orjson

from oneroster_source.simulator.attributes import (
    ATTRIBUTES,
    LISTS,
    REFERENCE_PATHS,
    Attribute,
    Row,
    instant,
)
from oneroster_source.simulator.quirks import Empty, Quirks, References, Stamps

Render: TypeAlias = Callable[[bytes], bytes]
_Step: TypeAlias = Callable[[Row], None]

PLACE = "\x01base\x01"
ADDRESS = orjson.dumps(PLACE)[1:-1]
"""Stands in stored rows where the address of the server goes, which is known when it runs."""
HREFS = {kind: f"{PLACE}/{path}/" for kind, path in REFERENCE_PATHS.items()}
SUMMER_TIME = timezone(timedelta(hours=1))


class Codec:
    """Rows of one collection to the bytes they are stored as, and back.

    Stored rows are what Xporter would serve, but for the address in their hrefs. So a page of them
    costs little more than the copy of its bytes, and nothing is rendered before it is asked for.
    """

    def __init__(self, collection: str) -> None:
        self._collection = collection
        attributes = ATTRIBUTES[collection]
        self._one = [a.name for a in attributes if a.kind == "reference"]
        self._several = [a.name for a in attributes if a.kind == "references"]

    def stored(self, row: Row) -> bytes:
        """A row with hrefs; the row itself is left as it is."""
        linked = row.copy()
        for name in self._one:
            if name in row:
                linked[name] = _linked(row[name])
        for name in self._several:
            if name in row:
                linked[name] = [_linked(reference) for reference in row[name]]
        return orjson.dumps(linked)

    def row(self, stored: bytes) -> Row:
        """The row again, without hrefs."""
        row: Row = orjson.loads(stored)
        for reference in self._references(row):
            del reference["href"]
        return row

    def renderer(self, quirks: Quirks) -> Render | None:
        """A function from a stored row to how a provider with `quirks` has it; None if no other."""
        steps = list(_steps(self._collection, quirks))
        if not steps:
            return None

        def render(stored: bytes) -> bytes:
            row = orjson.loads(stored)
            for step in steps:
                step(row)
            return orjson.dumps(row)

        return render

    def _references(self, row: Row) -> Iterator[Row]:
        for name in self._one:
            if name in row:
                yield row[name]
        for name in self._several:
            yield from row.get(name, ())


def addressed(rows: bytes, base_url: str) -> bytes:
    """Rows with the address of the server in their hrefs."""
    return rows.replace(ADDRESS, base_url.encode())


def _linked(reference: Row) -> Row:
    identifier, kind = reference["sourcedId"], reference["type"]
    return {"sourcedId": identifier, "type": kind, "href": HREFS[kind] + identifier}


def _steps(collection: str, quirks: Quirks) -> Iterator[_Step]:
    """What is left to do to a row: nothing, unless the provider has its ways."""
    for attribute in ATTRIBUTES[collection]:
        if attribute.kind in ("reference", "references") and quirks.refs != "object":
            yield _reference_step(attribute, quirks.refs)
        if attribute.kind == "flag" and quirks.flags == "text":
            yield _flag_step(attribute.name)
        if attribute.kind == "instant" and quirks.stamps != "millis":
            yield _stamp_step(attribute.name, quirks.stamps)
        if attribute.filled and quirks.empty != "absent":
            yield _empty_step(attribute, quirks.empty)


def _reference_step(attribute: Attribute, style: References) -> _Step:
    name = attribute.name

    def written(reference: Row) -> Any:
        if style == "string":
            return reference["sourcedId"]
        return {"sourceId" if key == "sourcedId" else key: reference[key] for key in reference}

    def one(row: Row) -> None:
        if name in row:
            row[name] = written(row[name])

    def several(row: Row) -> None:
        if name in row:
            row[name] = [written(reference) for reference in row[name]]

    return one if attribute.kind == "reference" else several


def _flag_step(name: str) -> _Step:
    def step(row: Row) -> None:
        if isinstance(row.get(name), bool):
            row[name] = str(row[name]).lower()

    return step


def _stamp_step(name: str, style: Stamps) -> _Step:
    def step(row: Row) -> None:
        moment = instant(row.get(name, ""))
        if moment is None:
            return
        if style == "offset":
            row[name] = moment.astimezone(SUMMER_TIME).isoformat(timespec="milliseconds")
        elif style == "seconds":
            row[name] = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        else:
            row[name] = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f0Z")

    return step


def _empty_step(attribute: Attribute, style: Empty) -> _Step:
    name, kind = attribute.name, attribute.kind

    def step(row: Row) -> None:
        if name in row:
            return
        if style == "null" or kind == "reference":
            row[name] = None
        else:
            row[name] = [] if kind in LISTS else ""

    return step
