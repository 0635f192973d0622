"""Where a collection waits until it is known to be whole.

Small ones stay in memory, larger ones go to an unnamed temporary file, which the operating system
removes with the process. Only whole collections go on to the destination.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime
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
    """

    def __init__(
        self, added: Callable[[int], None] = lambda rows: None, *, max_rows: float = math.inf
    ) -> None:
        self._added = added
        self._max_rows = max_rows
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115
        self._writer: pa.ipc.RecordBatchStreamWriter | None = None
        self.rows = 0
        self._doubled = False
        self._last_key = ""
        self._newest: datetime | None = None

    def close(self) -> None:
        self._file.close()

    def clear(self) -> None:
        """Forgets all rows."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._file.seek(0)
        self._file.truncate()
        self._added(-self.rows)
        self.rows, self._doubled, self._last_key = 0, False, ""
        self._newest = None

    def add(self, content: pa.Table, start: int) -> None:
        """Takes the rows of a page from index `start` on.

        Raises:
            IncompleteRead: They would be more than `max_rows`.
        """
        rows = content.slice(start).combine_chunks()
        if self.rows + len(rows) > self._max_rows:
            raise IncompleteRead(
                f"the server gives more than {self._max_rows:,} rows",
                todo="if the collection is that large, raise max_rows; if not, it is without an"
                " end: ask the provider",
            )
        if self._writer is None:
            self._writer = pa.ipc.new_stream(self._file, rows.schema)
        self._writer.write_table(rows)
        self.rows += len(rows)
        self._added(len(rows))
        keys = rows.column("_key")
        self._doubled |= (
            pc.count_distinct(keys).as_py() < len(rows) or keys[0].as_py() == self._last_key
        )
        self._last_key = keys[-1].as_py()
        newest = pc.max(rows.column("date_last_modified")).as_py()
        if newest is not None:
            self._newest = max(self._newest or newest, newest)

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
        if not self.rows:
            return
        self._file.seek(0)
        with pa.ipc.open_stream(self._file) as stream:
            yield from stream


def _newer(stamp: datetime | None, other: datetime | None) -> bool:
    """Of two alike, the one that came later is the newer one."""
    return other is None or (stamp is not None and stamp >= other)
