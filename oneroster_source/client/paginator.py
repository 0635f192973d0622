"""Reads one collection, page by page, in an order that is verified.

Offset paging loses rows when rows come and go between two requests, when a server caps pages, or
ignores what it was asked for. So:

- the next offset counts the rows that came, never the limit that was requested;
- pages overlap: where no row of the page before is found again, rows left before it, and the pass
  goes back until it finds one, and reads on from there (`position`);
- the end is proven, not assumed: by the first id in descending order, which must be the last one
  that was read; where a server does not sort so, by the total that it states, and by an empty
  answer beyond the end. A short page alone is no end, nor is a total (`paging_pass`);
- ids must come in an order, since rows then keep their places when they are updated. Where they do
  not, the collection is read until two passes agree (here).

None of these modules knows HTTP or Arrow.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Generic

from oneroster_source.client.pages import Page, PageSource, RowBuffer, T
from oneroster_source.client.paging_pass import OffsetIgnored, PagingPass
from oneroster_source.client.position import NARROW, Observations, StartOver
from oneroster_source.errors import IncompleteRead, RequestRefused

__all__ = ["Page", "PageSource", "RowBuffer", "read"]

MAX_PASSES = 4
SIZES = {count * 10**power for count in (1, 2, 5) for power in range(1, 6)} | {25, 250}
"""Rows in a page of a server that has its own mind."""


def read(source: PageSource[T], buffer: RowBuffer[T]) -> int:
    """Reads a complete collection into `buffer`.

    Returns:
        The rows of its widest page, if the total that the server stated was that of all pages
        together; 0 if not. That is `known_page` for the next reading.

    Raises:
        IncompleteRead: The pages do not make one collection; nothing in `buffer` is to be used.
        OneRosterError: A request failed.
    """
    return _Passes(source, buffer).read()


class _Passes(Generic[T]):
    """Passes over a collection, until one is proven complete or two agree."""

    def __init__(self, source: PageSource[T], buffer: RowBuffer[T]) -> None:
        # pages overlap: with fewer rows, reading would hardly get on
        self._limit = max(NARROW, source.limit)
        self._source = replace(source, limit=self._limit)
        """As the next pass reads it."""
        self._buffer = buffer
        self._before: tuple[set[str], str] | None = None
        """What the pass before took: keys, and a digest of their sequence; None if that proves
        nothing."""
        self._most = 0
        """Most rows that came in a pass."""

    def read(self) -> int:
        reason: IncompleteRead | None = None
        for _ in range(MAX_PASSES):
            self._buffer.clear()
            one = PagingPass(self._source, self._buffer)
            try:
                seen = one.run()
            except StartOver as lost:
                reason = lost.reason or reason
                self._begin_again()
                continue
            except OffsetIgnored:
                try:
                    return self._at_once(max(self._most, one.seen.rows))
                except IncompleteRead as error:
                    # or rows came in before the position at one request after the other
                    reason = error
                    self._begin_again()
                    continue
            finally:
                one.drop_plans()
                self._most = max(self._most, one.seen.rows)
            if self._is_complete(seen):
                self._remark(seen)
                return seen.proven_page
            # with pages of another size, a row is not passed over in the same place again
            self._source = replace(self._source, limit=max(NARROW, self._source.limit * 2 // 3))
        raise reason or IncompleteRead(
            f"{MAX_PASSES} passes over the collection did not agree: the server gives its rows in"
            " an order that changes from request to request, or too many come and go at once",
            todo="try again later; if it stays, ask the provider for a stable order, or for a"
            " page_size that holds all rows",
        )

    def _begin_again(self) -> None:
        self._before = None
        # one request at a time, in case the server mixes up requests that come together
        self._source = replace(self._source, ahead=1)

    def _is_complete(self, seen: Observations) -> bool:
        """Whether a pass is complete: by its own proof, or since the one before took the same."""
        if seen.moved or seen.repeated or not seen.ordered:
            self._buffer.expect_repeats()
        # nothing, where a pass before found rows, may be a stale answer
        reliable = seen.ordered and (seen.rows > 0 or not self._most)
        # the total may be that of all rows, whatever the filter
        filtered = self._source.unfiltered_total is not None
        if reliable and (filtered or seen.agrees(seen.rows)):
            return True
        keys = self._buffer.keys()
        before, now = self._before, (keys, seen.sequence)
        counted = len(keys) == seen.last_total
        # where rows move, only their number shows that none was passed over
        shown = counted or not seen.moved
        self._before = now if shown else None
        # a row may have been passed over twice, if its place is another one each time
        same = before is not None and before[0] == keys and (counted or before == now)
        if same and shown:
            if keys and not seen.ordered:
                self._source.note("the server does not sort by sourcedId; two whole passes agreed")
            return True
        return reliable and seen.agrees(len(keys))

    def _remark(self, seen: Observations) -> None:
        limit, note = self._source.limit, self._source.note
        if seen.pages > 1 and seen.widest < limit:
            note(f"the server caps pages at {seen.widest} rows (asked for {limit})")
        elif seen.widest > limit:
            note(f"the server ignores limit (asked for {limit} rows, got {seen.widest})")
        if seen.total not in (None, seen.rows) and not seen.moved:
            note(f"the server states a total of {seen.total}; its pages hold {seen.rows} rows")
        if seen.moved:
            note("rows came or left while they were read; the reading kept its place")

    def _at_once(self, least: int) -> int:
        """Reads from a server that ignores offset: everything in one answer, if it gives that.

        Fewer than `least` rows cannot be all: offset has brought as many.
        """
        bounded = False
        try:
            page = self._source.page(None, None)
        except RequestRefused:
            # it wants a limit; the one that it took may leave room for more rows than there are
            page, bounded = self._source.page(0, self._limit), True
        rows = len(page.keys)
        if rows < max(least, page.total or 0) or not self._is_all(page, bounded=bounded):
            raise IncompleteRead(
                f"the server ignores offset, and gives {rows} rows"
                + (f" of {page.total}" if page.total else "")
                + " in one answer, which cannot be shown to be all",
                todo="raise page_size above the number of rows, or ask the provider",
            )
        self._buffer.clear()
        self._buffer.add(page.content, 0)
        self._source.note("the server ignores offset; its one answer was taken as a whole")
        return 0

    def _is_all(self, page: Page[T], *, bounded: bool) -> bool:
        """Whether nothing shows that the one answer of a server is cut, by our limit or its own."""
        rows = len(page.keys)

        def same(limit: int) -> bool:
            # an answer may be a stale one, but not twice
            return all(self._source.page(0, limit).keys == page.keys for _ in range(2))

        end = next(iter(self._source.last_ids(0, 1) or ()), None) if rows else None
        proven = rows > 0 and end == page.keys[-1]
        sort_ignored = rows > 1 and end in (None, page.keys[0])
        if not (proven or sort_ignored or rows <= 1):
            return False
        if bounded:
            return self._is_counted(page)
        if rows > 1 and same(1):
            # limit is ignored too, so nothing cuts the answer, unless all answers are of one size
            return proven or rows not in SIZES
        # where sort is ignored as well, the stated total is the only witness
        return same(self._limit + rows + 1) and (proven or (sort_ignored and page.total == rows))

    def _is_counted(self, page: Page[T]) -> bool:
        """Whether a page with room for more rows holds all: a shorter page states the same total,
        which is then no count of the page's own rows.
        """
        rows = len(page.keys)
        if not 1 < rows < self._limit:
            return False
        short = self._source.page(0, rows // 2)
        return len(short.keys) < rows and short.total == page.total == rows
