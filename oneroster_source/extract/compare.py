"""Counts the rows that are new, or differ from those in the destination, for `--plan`."""

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
"""Not compared: providers update the stamps of rows that have not changed."""


class Contents:
    """The content of rows and of their child rows, as a number for each row.

    Args:
        endpoint: Their endpoint.
        children: The child tables to compare.
    """

    def __init__(self, endpoint: Endpoint, children: Iterable[Table]) -> None:
        self._own = endpoint.table
        self._children = tuple(children)
        self.rows: dict[str, int] = {}

    def add(self, tables: Mapping[str, pa.Table]) -> None:
        """Adds rows and their child rows, but none that are deleted."""
        for name, content in _contents(self._own, "sourced_id", alive(tables[self._own.name])):
            self.rows[name] = content
        for child in self._children:
            rows = tables.get(child.name)
            for name, content in _contents(child, child.parent_key, rows) if rows else ():
                if name in self.rows:
                    # a sum, since child rows come in any order: each has its position
                    self.rows[name] += content

    def changes(self, existing: Contents, known: Iterable[str]) -> tuple[int, int]:
        """Returns how many of these rows are new, and how many changed or were restored.

        Args:
            existing: The existing rows that are not deleted.
            known: The ids of all existing rows.
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
    """Returns the contents of a school's rows in the destination.

    Raises:
        DestinationError: A query failed.
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
    """Normalises JSON, which databases format in different ways."""
    try:
        return text and json.dumps(json.loads(text), sort_keys=True)
    except (ValueError, RecursionError):
        return text
