"""Where a collection waits until it is known to be whole.

Small ones stay in memory, larger ones go to an unnamed temporary file, which the operating system
removes with the process. Only whole collections go on to the destination.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

from oneroster_source.errors import IncompleteRead

IN_MEMORY = 4 << 20
"""Bytes of a collection that stay in memory."""
BATCH_ROWS = 50_000
"""Rows in one table on the way out."""


class Spool:
    """The rows of one collection, as wide tables. A sink of the reader.

    Args:
        added: Called with the number of rows whenever rows come in; negative when they are undone.
        max_rows: Most rows to take.
        span: How far before the newest row a fingerprint may reach.
    """

    def __init__(
        self,
        added: Callable[[int], None] = lambda rows: None,
        *,
        max_rows: float = math.inf,
        span: timedelta = timedelta(),
    ) -> None:
        self._added = added
        self._max_rows = max_rows
        self._span = span
        self._recent = Recent(span)
        self._pages: list[pa.Table] = []
        """The rows, as long as they are few."""
        self._bytes = 0
        self._file: IO[bytes] | None = None
        self._writer: pa.ipc.RecordBatchStreamWriter | None = None
        self.rows = 0
        self._doubled = False
        self._last_key = ""
        self._newest: datetime | None = None

    def close(self) -> None:
        self._pages = []
        if self._file is not None:
            self._file.close()

    def fingerprint(self, since: datetime) -> str:
        """What names the rows that changed after an instant, as they were sent; empty if there are
        rows without a stamp, or so many that it is not known."""
        return self._recent.fingerprint(since)

    def clear(self) -> None:
        """Forgets all rows."""
        self._pages, self._bytes = [], 0
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._file is not None:
            self._file.seek(0)
            self._file.truncate()
        self._added(-self.rows)
        self.rows, self._doubled, self._last_key = 0, False, ""
        self._newest = None
        self._recent = Recent(self._span)

    def add(self, content: pa.Table, start: int) -> None:
        """Takes the rows of a page from index `start` on.

        Raises:
            IncompleteRead: They would be more than `max_rows`.
        """
        rows = content.slice(start) if start else content
        if self.rows + len(rows) > self._max_rows:
            raise IncompleteRead(
                f"the server gives more than {self._max_rows:,} rows",
                todo="if the collection is that large, raise max_rows; if not, it is without an"
                " end: ask the provider",
            )
        self._keep(rows)
        self.rows += len(rows)
        self._added(len(rows))
        keys = rows.column("_key").to_pylist()
        self._doubled |= keys[0] == self._last_key or len(set(keys)) < len(keys)
        self._last_key = keys[-1]
        newest = pc.max(rows.column("date_last_modified")).as_py()
        if newest is not None:
            self._newest = max(self._newest or newest, newest)
        self._recent.add(rows, self._newest)

    def _keep(self, rows: pa.Table) -> None:
        if self._writer is None:
            self._pages.append(rows)
            self._bytes += rows.nbytes
            if self._bytes > IN_MEMORY:
                self._spill()
        else:
            self._writer.write_table(rows)

    def _spill(self) -> None:
        """Moves the pages from memory to the file."""
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        self._writer = pa.ipc.new_stream(self._file, self._pages[0].schema)
        for page in self._pages:
            self._writer.write_table(page)
        self._pages = []

    def keys(self) -> set[str]:
        """The keys of all rows."""
        return {key for rows in self._batches() for key in rows.column("_key").to_pylist()}

    def ids(self) -> pa.ChunkedArray:
        """The sourcedId of every row that has one."""
        found = [rows.column("sourced_id").drop_null() for rows in self._batches()]
        return pa.chunked_array(found, pa.string())

    def newest(self, until: datetime) -> datetime | None:
        """The newest `dateLastModified` that is not after `until`."""
        if self._newest is None or self._newest <= until:
            return self._newest
        stamps = (rows.column("date_last_modified") for rows in self._batches())
        past = (pc.max(s.filter(pc.less_equal(s, pa.scalar(until, s.type)))) for s in stamps)
        return max((m for stamp in past if (m := stamp.as_py()) is not None), default=None)

    def expect_repeats(self) -> None:
        """Takes notice that a row may have come twice: only the newest of each is given out."""
        self._doubled = True

    def tables(self) -> Iterator[pa.Table]:
        """The rows, each sourcedId once, in tables of about `BATCH_ROWS`."""
        losers = self._losers() if self._doubled else set()
        waiting: list[pa.RecordBatch] = []
        rows = begin = 0
        for batch in self._batches():
            kept = batch
            if losers:
                mask = [begin + i not in losers for i in range(len(batch))]
                kept = batch.filter(pa.array(mask, pa.bool_()))
            begin += len(batch)
            waiting.append(kept)
            rows += len(kept)
            if rows >= BATCH_ROWS:
                yield pa.Table.from_batches(waiting).combine_chunks()
                waiting, rows = [], 0
        if waiting:
            yield pa.Table.from_batches(waiting).combine_chunks()

    def _losers(self) -> set[int]:
        """The rows, by number, for which there is a newer one with the same sourcedId."""
        best: dict[str, tuple[datetime | None, int]] = {}
        losers: set[int] = set()
        number = 0
        for batch in self._batches():
            columns = (
                batch.column(name).to_pylist() for name in ("sourced_id", "date_last_modified")
            )
            for key, stamp in zip(*columns, strict=True):
                if key is not None:
                    rival = best.get(key)
                    if rival is None:
                        best[key] = (stamp, number)
                    elif _newer(stamp, rival[0]):
                        losers.add(rival[1])
                        best[key] = (stamp, number)
                    else:
                        losers.add(number)
                number += 1
        return losers

    def _batches(self) -> Iterator[pa.RecordBatch]:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._pages or self._file is None or not self.rows:
            for page in self._pages:
                yield from page.to_batches()
            return
        self._file.seek(0)
        with pa.ipc.open_stream(self._file) as stream:
            yield from stream


MOST_RECENT = 100_000
"""Rows of which a fingerprint can be made: 16 bytes are kept for each."""
_PRUNED_ROWS = 20_000


class Recent:
    """The youngest rows of a collection, by what was sent of them: enough to know them again.

    Args:
        span: How far before the newest of them all.
    """

    def __init__(self, span: timedelta) -> None:
        self._span = span
        self._newest: datetime | None = None
        self._waiting: list[pa.Table] = []
        self._rows = 0
        """Rows that came in since it was last pruned."""
        self._known = True

    def add(self, rows: pa.Table, newest: datetime | None) -> None:
        """Takes what is needed of some more rows; `newest` is the newest stamp of all so far."""
        stamps = rows.column("date_last_modified")
        self._known = self._known and not stamps.null_count
        if self._known:
            self._newest = newest
            self._waiting.append(rows.select(["date_last_modified", "_hash"]))
            self._rows += len(rows)
            if self._rows > _PRUNED_ROWS:
                self._prune()
        else:
            self._waiting, self._rows = [], 0

    def _prune(self) -> None:
        """Forgets what has become too old."""
        assert self._newest is not None
        found = _after(pa.concat_tables(self._waiting), _less(self._newest, self._span))
        self._known = len(found) <= MOST_RECENT
        self._waiting = [found] if self._known else []
        # what is left is not looked through again with every page
        self._rows = 0

    def fingerprint(self, since: datetime) -> str:
        if not self._known or self._newest is None or since < _less(self._newest, self._span):
            return ""
        found = _after(pa.concat_tables(self._waiting), since).column("_hash")
        hashes = found.take(pc.sort_indices(found)).combine_chunks()
        content = hashes.buffers()[1].slice(hashes.offset * 8, len(hashes) * 8)
        return f"{len(hashes)} {blake2b(content, digest_size=12).hexdigest()}"


def _less(moment: datetime, span: timedelta) -> datetime:
    first = datetime.min.replace(tzinfo=UTC)
    return moment - span if moment - first > span else first


def _after(rows: pa.Table, since: datetime) -> pa.Table:
    stamps = rows.column("date_last_modified")
    # copied, so that nothing of the page is kept
    return rows.filter(pc.greater(stamps, pa.scalar(since, stamps.type)))


def _newer(stamp: datetime | None, other: datetime | None) -> bool:
    """Of two alike, the one that came later is the newer one."""
    return other is None or (stamp is not None and stamp >= other)
