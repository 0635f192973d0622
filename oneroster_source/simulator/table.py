"""One collection of one school: rows kept as JSON bytes, with the orders they are asked for in.

Bytes, because a page is then a join of a slice, and because a million rows of dicts would be
walked by every run of the garbage collector.
"""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from oneroster_source.simulator.attributes import Kind, Row, comparable
from oneroster_source.simulator.filters import Predicate
from oneroster_source.simulator.options import Options
from oneroster_source.simulator.quirks import Order, Quirks
from oneroster_source.simulator.rendering import Codec, Render, addressed

SOURCED_ID: tuple[str, Kind] = ("sourcedId", "text")
ORDERS_KEPT = 16
"""A client that asks for a new filter with every page must not fill the memory."""


class Table:
    """The rows of one collection. Not thread-safe: its school holds the lock."""

    def __init__(self, name: str, rows: Iterable[Row] = ()) -> None:
        self.name = name
        self.version = 0
        """Goes up with every change."""
        self._codec = Codec(name)
        self._rows: dict[str, bytes] = {}
        for row in rows:
            self._rows[self._new_id(row)] = self._codec.stored(row)
        self._ids = sorted(self._rows)
        self._columns: dict[tuple[str, Kind], dict[str, Any]] = {}
        self._orders: dict[object, Sequence[str]] = {}
        self._rendered: dict[str, bytes] = {}
        self._render: Render | None = None
        self._rendered_for = Quirks()

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, sourced_id: str) -> Row:
        return self._codec.row(self._rows[sourced_id])

    def rows(self) -> list[Row]:
        return [self._codec.row(self._rows[sourced_id]) for sourced_id in self._ids]

    def add(self, row: Row) -> None:
        sourced_id = self._new_id(row)
        self._put(sourced_id, row)
        insort(self._ids, sourced_id)

    def replace(self, row: Row) -> None:
        self._put(row["sourcedId"], row)

    def purge(self, sourced_id: str) -> None:
        del self._rows[sourced_id]
        del self._ids[bisect_left(self._ids, sourced_id)]
        for column in self._columns.values():
            del column[sourced_id]
        self._changed(sourced_id)

    def found(self, options: Options, default: Order) -> Sequence[str]:
        """The ids of the rows that pass the filter, in the order asked for."""
        if options.sort is None and default == "random":
            shuffled = list(self._order(options.predicates, None, False, "inserted"))
            # for variety, not for secrecy
            random.shuffle(shuffled)
            return shuffled
        return self._order(options.predicates, options.sort, options.descending, default)

    def page(self, ids: Sequence[str], quirks: Quirks, base_url: str) -> bytes:
        """These rows as the items of a JSON list."""
        if self._rendered_for != quirks:
            self._rendered_for = quirks
            self._render = self._codec.renderer(quirks)
            self._rendered = {}
        if self._render is None:
            items = [self._rows[i] for i in ids]
        else:
            items = [self._rendered.get(i) or self._quirky(i, self._render) for i in ids]
        return addressed(b",".join(items), base_url)

    def _quirky(self, sourced_id: str, render: Render) -> bytes:
        body = self._rendered[sourced_id] = render(self._rows[sourced_id])
        return body

    def _order(
        self,
        predicates: tuple[Predicate, ...],
        sort: tuple[str, Kind] | None,
        descending: bool,
        default: Order,
    ) -> Sequence[str]:
        key = (predicates, sort, descending, default)
        if key not in self._orders:
            if sort is None and default == "modified":
                sort = ("dateLastModified", "instant")
            inserted = sort is None and default == "inserted"
            compared = [(predicate.field, predicate.kind) for predicate in predicates]
            self._read_columns(compared if sort in (None, SOURCED_ID) else [*compared, sort])
            ids = self._passing(list(self._rows) if inserted else self._ids, predicates)
            if len(self._orders) == ORDERS_KEPT:
                del self._orders[next(iter(self._orders))]
            self._orders[key] = ids if sort is None else self._sorted(ids, sort, descending)
        return self._orders[key]

    def _passing(self, ids: list[str], predicates: tuple[Predicate, ...]) -> list[str]:
        for predicate in predicates:
            passes = predicate.test()
            column = self._columns[predicate.field, predicate.kind]
            ids = [i for i in ids if passes(column[i])]
        return ids

    def _sorted(self, ids: list[str], sort: tuple[str, Kind], descending: bool) -> list[str]:
        """By one field; rows that are equal in it come by id, rows without it count as least."""
        if sort == SOURCED_ID:
            return ids[::-1] if descending else ids
        column = self._columns[sort]
        without = [i for i in ids if column[i] is None]
        having = [i for i in ids if column[i] is not None]
        having.sort(key=column.__getitem__, reverse=descending)
        return having + without if descending else without + having

    def _read_columns(self, fields: Iterable[tuple[str, Kind]]) -> None:
        """Read what is to be compared out of all rows, once; `_put` keeps it up to date."""
        columns: dict[tuple[str, Kind], dict[str, Any]]
        columns = {field: {} for field in fields if field not in self._columns}
        if columns:
            for sourced_id, body in self._rows.items():
                row = orjson.loads(body)
                for (field, kind), column in columns.items():
                    column[sourced_id] = comparable(row, field, kind)
            self._columns |= columns

    def _put(self, sourced_id: str, row: Row) -> None:
        self._rows[sourced_id] = self._codec.stored(row)
        for (field, kind), column in self._columns.items():
            column[sourced_id] = comparable(row, field, kind)
        self._changed(sourced_id)

    def _changed(self, sourced_id: str) -> None:
        self._rendered.pop(sourced_id, None)
        self._orders.clear()
        self.version += 1

    def _new_id(self, row: Row) -> str:
        sourced_id = row.get("sourcedId")
        if not isinstance(sourced_id, str) or not sourced_id:
            raise ValueError(f"{self.name}: a row needs a sourcedId, got {sourced_id!r}")
        if sourced_id in self._rows:
            raise ValueError(f"{self.name}: there is a row {sourced_id!r} already")
        return sourced_id
