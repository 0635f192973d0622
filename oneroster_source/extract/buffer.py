"""Holds the rows of a collection until it is complete: only then do they go to the destination.

Few rows stay in memory, more go to an unnamed temporary file, which the operating system removes
with the process.
"""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

from oneroster_source.errors import IncompleteRead
from oneroster_source.extract.fingerprint import RecentRows, changed_after

IN_MEMORY = 4 << 20
"""Bytes of a collection that stay in memory."""
BATCH_ROWS = 50_000
"""Rows of all tables together that are handed to dlt at once."""
FEW_ROWS = 500
"""Fewer rows than this are worth copying together."""
SENT_TWICE = "sent more than once"
"""The problem of a row that shares its sourcedId with another one."""


class Buffer:
    """The rows of one collection, as wide tables. A buffer of the paginator.

    Args:
        added: Called with the number of rows that are added, or with its negative when cleared.
        max_rows: Most rows to hold.
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
        self._recent = RecentRows(span)
        self._pages: list[pa.Table] = []
        """The rows, as long as they are few."""
        self._bytes = 0
        self._file: IO[bytes] | None = None
        self._sizes: list[int] = []
        """Of the batches in the file, in bytes: they are read back one by one."""
        self._schema: pa.Schema | None = None
        self.rows = 0
        self._named = False
        self._doubled = False
        self._repeats = False
        """Whether rows may have been added twice because of how they were read."""
        self._conflicts: set[str] = set()
        """The sourcedIds of rows with different content in one page."""
        self._last_key = ""
        self._newest: datetime | None = None

    def close(self) -> None:
        self._pages = []
        if self._file is not None:
            self._file.close()
            self._file = None

    def fingerprint(self, since: datetime) -> str:
        """Returns a fingerprint of the rows that changed after an instant, as they were sent; empty
        if there are rows without a stamp, or too many.
        """
        return self._recent.fingerprint(since)

    def clear(self) -> None:
        """Removes all rows."""
        self.close()
        self._pages, self._bytes, self._sizes = [], 0, []
        self._added(-self.rows)
        self.rows, self._doubled, self._last_key = 0, False, ""
        self._named, self._repeats, self._conflicts = False, False, set()
        self._newest = None
        self._recent = RecentRows(self._span)

    def add(self, content: pa.Table, start: int) -> None:
        """Adds the rows of a page from index `start` on.

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
        if keys[0] == self._last_key or len(set(keys)) < len(keys):
            self._doubled = True
            # all of the page: the row before its first new one was in it too
            self._conflicts |= _unlike(content.to_batches)
        self._last_key = keys[-1]
        self._named |= rows.column("sourced_id").null_count < len(rows)
        newest = pc.max(rows.column("date_last_modified")).as_py()
        if newest is not None:
            self._newest = max(self._newest or newest, newest)
        self._recent.add(rows, self._newest)

    def _keep(self, rows: pa.Table) -> None:
        if self._file is None:
            self._pages.append(rows)
            self._bytes += rows.nbytes
            if self._bytes > IN_MEMORY:
                self._spill()
        else:
            self._write(rows)

    def _spill(self) -> None:
        """Moves the pages from memory to the file."""
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        pages, self._pages = self._pages, []
        for page in pages:
            self._write(page)

    def _write(self, rows: pa.Table) -> None:
        assert self._file is not None
        for batch in rows.to_batches():
            # in one piece: Arrow would write each column by itself, and wait for Python each time
            content = memoryview(batch.serialize())
            self._sizes.append(len(content))
            while content:
                # a file without a buffer takes what there is room for, and fails at the next piece
                content = content[self._file.write(content) :]
        self._schema = rows.schema

    def keys(self) -> set[str]:
        """Returns the keys of all rows."""
        return {key for rows in self._batches() for key in self.keys_of(rows)}

    @staticmethod
    def keys_of(rows: pa.Table | pa.RecordBatch) -> list[str]:
        """Returns the keys of some rows, one for each."""
        keys: list[str] = rows.column("_key").to_pylist()
        return keys

    @property
    def has_no_ids(self) -> bool:
        """Whether there are rows, and none that has a sourcedId."""
        return self.rows > 0 and not self._named

    def problems(self) -> Counter[str]:
        """Counts what could not be read."""
        found = (pc.list_flatten(rows.column("_problems")).to_pylist() for rows in self._batches())
        return Counter(problem for problems in found for problem in problems)

    def conflicting_ids(self) -> set[str]:
        """Returns the sourcedIds that the server sent on more than one row, with different content.

        A row that was read twice because rows moved meanwhile does not count, unless one page holds
        both, or both have the same stamp.
        """
        if not self._doubled:
            return set()
        return self._conflicts | _unlike(self._batches, of_one_stamp=self._repeats)

    def ids(self) -> pa.ChunkedArray:
        """Returns the sourcedIds of all rows that have one."""
        none = pa.array([], pa.string())
        # concatenation copies them, so that nothing else of the page is kept
        found = [
            pa.concat_arrays([rows.column("sourced_id").drop_null(), none])
            for rows in self._batches()
        ]
        return pa.chunked_array(found, pa.string())

    def newest(self, until: datetime) -> datetime | None:
        """Returns the newest `dateLastModified` that is not after `until`."""
        if self._newest is None or self._newest <= until:
            return self._newest
        stamps = (rows.column("date_last_modified") for rows in self._batches())
        past = (pc.max(s.filter(pc.less_equal(s, pa.scalar(until, s.type)))) for s in stamps)
        return max((m for stamp in past if (m := stamp.as_py()) is not None), default=None)

    def changed_since(self, since: datetime) -> int:
        """Counts the rows that changed after an instant."""
        return sum(len(changed_after(rows, since)) for rows in self._batches())

    def expect_repeats(self) -> None:
        """Notes that rows may have been added twice: `tables` then gives the newest of each."""
        self._doubled = self._repeats = True

    def tables(self) -> Iterator[pa.Table]:
        """Gives the rows, each sourcedId once, page by page, or together where pages are small. A
        row for which others were dropped has a problem more.
        """
        outdated = self._outdated() if self._doubled else set()
        conflicts = pa.array(sorted(self.conflicting_ids()), pa.string())
        few: list[pa.RecordBatch] = []
        rows = begin = 0
        for batch in self._batches():
            kept = batch
            if outdated:
                mask = [begin + i not in outdated for i in range(len(batch))]
                kept = batch.filter(pa.array(mask, pa.bool_()))
            if len(conflicts):
                kept = _with_problem(kept, pc.is_in(kept.column("sourced_id"), conflicts))
            begin += len(batch)
            few.append(kept)
            rows += len(kept)
            if rows >= FEW_ROWS:
                yield pa.Table.from_batches(few).combine_chunks()
                few, rows = [], 0
        if few:
            yield pa.Table.from_batches(few).combine_chunks()

    def _outdated(self) -> set[int]:
        """Returns the numbers of rows that a newer one with the same sourcedId replaces."""
        best: dict[str, tuple[datetime | None, int]] = {}
        outdated: set[int] = set()
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
                        outdated.add(rival[1])
                        best[key] = (stamp, number)
                    else:
                        outdated.add(number)
                number += 1
        return outdated

    def _batches(self) -> Iterator[pa.RecordBatch]:
        for page in self._pages:
            yield from page.to_batches()
        if self._file is not None:
            self._file.seek(0)
            for size in self._sizes:
                yield pa.ipc.read_record_batch(pa.py_buffer(self._file.read(size)), self._schema)


Batches = Callable[[], Iterable[pa.RecordBatch]]


def _unlike(batches: Batches, *, of_one_stamp: bool = False) -> set[str]:
    """Returns the sourcedIds of rows that differ in more than their stamps; with `of_one_stamp`, of
    those alone whose stamps are equal.
    """
    counts = Counter(
        sourced_id for rows in batches() for sourced_id in rows.column("sourced_id").to_pylist()
    )
    several = pa.array([i for i, count in counts.items() if count > 1 and i], pa.string())
    first: dict[tuple[str, Any], dict[str, Any]] = {}
    unlike = set()
    for rows in batches() if len(several) else ():
        for row in rows.filter(pc.is_in(rows.column("sourced_id"), several)).to_pylist():
            stamp, sourced_id = row.pop("date_last_modified"), row["sourced_id"]
            if first.setdefault((sourced_id, of_one_stamp and stamp), row) != row:
                unlike.add(sourced_id)
    return unlike


def _with_problem(rows: pa.RecordBatch, where: pa.BooleanArray) -> pa.RecordBatch:
    if not where.true_count:
        return rows
    place = rows.schema.get_field_index("_problems")
    problems = [
        [*(found or ()), SENT_TWICE] if twice else found
        for found, twice in zip(rows.column(place).to_pylist(), where.to_pylist(), strict=True)
    ]
    field = rows.schema.field(place)
    return rows.set_column(place, field, pa.array(problems, field.type))


def _newer(stamp: datetime | None, other: datetime | None) -> bool:
    """Whether a row replaces an earlier one, by their stamps; it does if these are equal."""
    return other is None or (stamp is not None and stamp >= other)
