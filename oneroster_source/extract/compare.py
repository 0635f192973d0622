"""How many of the rows that were read are new or other than those that the destination has."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

import pyarrow as pa

from oneroster_source.destination.existing_rows import ExistingRows
from oneroster_source.extract.deletions import alive
from oneroster_source.model import Endpoint, Table

_NO_CONTENT = frozenset({"estab", "date_last_modified", "_deleted", "_deleted_at"})
"""Providers stamp rows again that have not changed."""


class Contents:
    """What rows hold, with their child rows, each as a number.

    Args:
        endpoint: Their endpoint.
        children: The child tables that count.
    """

    def __init__(self, endpoint: Endpoint, children: Iterable[Table]) -> None:
        self._own = endpoint.table
        self._children = tuple(children)
        self.rows: dict[str, int] = {}

    def add(self, tables: Mapping[str, pa.Table]) -> None:
        """Takes rows and their child rows; those that are deleted do not count."""
        for name, content in _contents(self._own, "sourced_id", alive(tables[self._own.name])):
            self.rows[name] = content
        for child in self._children:
            rows = tables.get(child.name)
            for name, content in _contents(child, child.parent_key, rows) if rows else ():
                if name in self.rows:
                    # in any order: each has its position
                    self.rows[name] += content

    def changes(self, existing: Contents, known: Iterable[str]) -> tuple[int, int]:
        """How many of these rows are added, and how many changed or live again.

        Args:
            existing: The rows that the destination has and that are not deleted.
            known: The ids of all rows that it has.
        """
        there = set(known)
        changed = sum(
            existing.rows.get(name) != content
            for name, content in self.rows.items()
            if name in there
        )
        return len(self.rows.keys() - there), changed


def existing(
    held: ExistingRows, endpoint: Endpoint, children: Iterable[Table], estab: str
) -> Contents:
    """What the destination has of a school.

    Raises:
        DestinationError: It cannot be asked.
    """
    tables = (endpoint.table, *children)
    there = held.tables(table.name for table in tables)
    found = Contents(endpoint, children)
    if endpoint.name in there:
        found.add({t.name: held.rows(t, estab) for t in tables if t.name in there})
    return found


def _contents(table: Table, key: str, rows: pa.Table) -> Iterable[tuple[str, int]]:
    names = [c.name for c in table.columns if c.name not in {*_NO_CONTENT, key}]
    as_json = {c.name for c in table.columns if c.kind == "json"}
    columns = [
        map(_parsed, rows.column(name).to_pylist())
        if name in as_json
        else rows.column(name).to_pylist()
        for name in names
    ]
    for name, *values in zip(rows.column(key).to_pylist(), *columns, strict=True):
        digest = blake2b(repr((table.name, values)).encode(), digest_size=16).digest()
        yield name, int.from_bytes(digest)


def _parsed(text: str | None) -> Any:
    """JSON as it means: databases write it in their own way."""
    try:
        return text and json.dumps(json.loads(text), sort_keys=True)
    except (ValueError, RecursionError):
        return text
