"""Fingerprints of the newest rows of a collection, to know in the next run that nothing changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

MOST_RECENT = 20_000
"""Rows of which a fingerprint can be made: 16 bytes are kept for each, and it takes 15 us."""
_WHOLE_ROWS = 2_000
"""Rows that are kept whole, to be hashed together."""
_NO_STAMPS = pa.array([], pa.timestamp("us", "UTC"))
_NO_HASHES = pa.array([], pa.binary(8))


class RecentRows:
    """The newest rows of a collection, as they were sent: enough to recognise them.

    Args:
        span: How far they reach back before the newest of all.
    """

    def __init__(self, span: timedelta) -> None:
        self._span = span
        self._newest: datetime | None = None
        self._waiting: list[pa.Table] = []
        """Rows that are not hashed yet."""
        self._rows = 0
        """Their number."""
        self._hashed = pa.table({"date_last_modified": _NO_STAMPS, "hash": _NO_HASHES})
        self._known = True

    def add(self, rows: pa.Table, newest: datetime | None) -> None:
        """Adds what is needed of some rows; `newest` is the newest stamp of all so far."""
        self._known = self._known and not rows.column("date_last_modified").null_count
        if not self._known or newest is None:
            self._waiting, self._rows = [], 0
            return
        self._newest = newest
        found = changed_after(rows, _less(newest, self._span))
        if len(found):
            self._waiting.append(found)
            self._rows += len(found)
        if self._rows > _WHOLE_ROWS:
            self._hash()

    def _hash(self) -> None:
        """Replaces rows that are not yet too old by their hashes."""
        assert self._newest is not None
        oldest = _less(self._newest, self._span)
        parts = [changed_after(self._hashed, oldest)]
        if self._waiting:
            rows = changed_after(pa.concat_tables(self._waiting), oldest)
            stamps = rows.column("date_last_modified")
            parts.append(pa.table({"date_last_modified": stamps, "hash": _hashes(rows)}))
        self._waiting, self._rows = [], 0
        self._hashed = pa.concat_tables(parts)
        self._known = len(self._hashed) <= MOST_RECENT

    def fingerprint(self, since: datetime) -> str:
        """Returns the fingerprint of those that changed after an instant; empty if unknown."""
        if not self._known or self._newest is None or since < _less(self._newest, self._span):
            return ""
        self._hash()
        found = changed_after(self._hashed, since).column("hash")
        hashes = found.take(pc.sort_indices(found)).combine_chunks()
        content = hashes.buffers()[1].slice(hashes.offset * 8, len(hashes) * 8)
        return (
            f"{len(hashes)} {blake2b(content, digest_size=12).hexdigest()}" if self._known else ""
        )


def _hashes(rows: pa.Table) -> pa.Array:
    """Returns a hash of each row and all in it."""
    names = [blake2b(repr(row).encode(), digest_size=8).digest() for row in rows.to_pylist()]
    return pa.array(names, pa.binary(8))


def _less(moment: datetime, span: timedelta) -> datetime:
    first = datetime.min.replace(tzinfo=UTC)
    return moment - span if moment - first > span else first


def changed_after(rows: pa.Table | pa.RecordBatch, since: datetime) -> Any:
    """Returns copies of the rows that changed after an instant."""
    stamps = rows.column("date_last_modified")
    # copied, so that nothing of the page is kept
    return rows.filter(pc.greater(stamps, pa.scalar(since, stamps.type)))
