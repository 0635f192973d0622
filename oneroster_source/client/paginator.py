"""One collection, page by page, in an order that is verified.

Offset paging loses rows when rows come and go between two requests, when a server caps pages, or
ignores what it was asked for. So:

- the next offset counts the rows that came, never the limit that was asked for;
- each page begins before the last row of the page before, and before all rows that a server may
  take for its equals: ids that differ in case, accents, punctuation or leading zeros alone may come
  in another order at each request. Whatever follows the first row that is known, and is not known
  itself, is taken. Where no such row is found, rows left before it: the reader goes back until it
  finds one, and reads on from there;
- the end is proven, not assumed: by the first id in descending order, which must be the last one
  that was read; where a server does not sort so, by the total that it states, and by an empty
  answer beyond the end. A short page alone is no end, nor is a total;
- ids must come in an order, since rows then keep their places when they are updated. Where they
  do not, the collection is read until two passes agree.

`read` knows nothing of HTTP or Arrow; it asks for pages and hands on which rows of them are new.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import takewhile
from typing import Generic, Protocol, TypeVar

from oneroster_source.client.collation import ORDERS, Order, coarse, rises
from oneroster_source.errors import BadResponse, IncompleteRead, OneRosterError, RequestRefused

T = TypeVar("T")
T_in = TypeVar("T_in", contravariant=True)

MAX_PASSES = 4
MAX_STEPS_BACK = 12
MAX_STALLS = 3
NARROW = 6
"""Rows of a page that are too few to ask for two of them again, unless ids have been seen that
a server may take for equal."""
BEYOND = 1000
"""Pages that cannot come in between two requests."""
KNOWN_ROWS = 1000
"""As many rows may come in at once before the position, however small the pages are."""
SIZES = {count * 10**power for count in (1, 2, 5) for power in range(1, 6)} | {25, 250}
"""Rows in a page of a server that has its own mind."""
WINDOWS = {count * 10**power for count in (1, 2, 5) for power in (3, 4, 5)}
"""Where search indexes and the like end by themselves: an end that only silence shows is not
believed there."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """The rows that one request gave."""

    keys: list[str]
    """A name for each row: its sourcedId where it has one."""
    content: T
    total: int | None = None


class Sink(Protocol[T_in]):
    """Where rows go while a pass runs; emptied when a pass has to begin again."""

    def clear(self) -> None: ...

    def add(self, content: T_in, start: int) -> None:
        """Takes the rows of a page from index `start` on."""

    def keys(self) -> set[str]:
        """What names each of the rows taken, which need not be what a page's keys are."""

    def names(self, content: T_in) -> list[str]:
        """The same of the rows of a page."""

    def expect_repeats(self) -> None:
        """Takes notice that a row may have come twice, and is wanted once."""


Fetch = Callable[[int | None, int | None], Page[T]]
"""Gets the page at an offset with a limit; both None ask for everything at once."""
Down = Callable[[int, int], list[str] | None]
"""Asks for the ids in descending order, and gives so many (the second) from an offset on. None if
the server cannot be asked so."""


@dataclass(slots=True)
class Findings:
    """What a pass found out about the server."""

    rows: int = 0
    total: int | None = None
    """What the first page states."""
    last_total: int | None = None
    """What the last page stated that stated any."""
    widest: int = 0
    """Most rows in one page."""
    pages: int = 0
    """Pages that held new rows."""
    orders: list[Order] = field(default_factory=lambda: list(ORDERS))
    joined: bool = True
    """No page was taken without a row before it."""
    moved: bool = False
    """Rows came or left before the reading position."""
    repeated: bool = False
    """An id came again, or a page was handed on again."""
    sequence: str = ""
    """Names the ids in the order in which they came."""

    @property
    def proven_page(self) -> int:
        """The widest page, where the stated total was right: see `read`."""
        return self.widest if self.total == self.rows and not self.moved else 0

    @property
    def ordered(self) -> bool:
        """Whether the rows' places can be relied on: ids in order, or one page that stayed."""
        if self.pages <= 1 and not self.moved:
            return True
        return bool(self.orders) and self.joined

    def agrees(self, rows: int) -> bool:
        """Whether the total, if it did not change meanwhile, is that of so many different ids, or
        of the rows that came."""
        return self.total != self.last_total or self.total in (None, rows, self.rows)


class _StartOver(Exception):
    """The pass lost its place; what it gives up for, if that is known."""

    def __init__(self, reason: IncompleteRead | None = None) -> None:
        super().__init__()
        self.reason = reason


class _OffsetIgnored(Exception):
    """The server gives the same rows whatever the offset."""


def read(
    fetch: Fetch[T],
    sink: Sink[T],
    *,
    limit: int,
    down: Down = lambda offset, rows: None,
    unfiltered: Callable[[], int | None] = lambda: None,
    filtered: bool = False,
    known_page: int = 0,
    ahead: int = 1,
    executor: Executor | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> int:
    """Reads a whole collection into `sink`.

    Returns:
        The rows of its widest page, if the total that the server stated was that of all pages
        together; 0 if not. That is `known_page` for the next reading.

    Args:
        fetch: Gets a page. Like `down`, called from `executor` too, if there is one.
        limit: Rows to ask for in a page.
        down: Asks for ids from the end, to prove that it is the end.
        filtered: Whether a filter is sent: some servers state a total without regard to it.
        unfiltered: Asks for the total without the filter.
        known_page: Rows that a page is known to hold: one of fewer rows than this, and than
            `limit`, which is the first and states just as many as its total, is taken for all
            without a second request. A server that caps pages, or states the rows of the page as
            the total, does not deceive so: its page would be as wide as the widest, or its total
            have been found wrong.
        ahead: Pages to ask for at once.
        note: Takes remarks for people on what the server does.

    Raises:
        IncompleteRead: The pages do not make one collection; nothing in `sink` is to be used.
    """
    # pages overlap: with fewer rows, reading would hardly get on
    limit = max(NARROW, limit)
    ask_down = down if executor is None else lambda *at: executor.submit(down, *at).result()
    size = limit
    before: tuple[set[str], str] | None = None
    reason: IncompleteRead | None = None
    most = 0
    for _ in range(MAX_PASSES):
        sink.clear()
        reading = _Pass(
            fetch,
            sink,
            limit=size,
            down=ask_down,
            unfiltered=unfiltered if filtered else None,
            known_page=known_page,
            ahead=ahead,
            executor=executor,
        )
        try:
            found = reading.run()
        except _StartOver as lost:
            reason = lost.reason or reason
            # one request at a time, in case the server mixes up requests that come together
            before, ahead = None, 1
            continue
        except _OffsetIgnored:
            try:
                least = max(most, reading.found.rows)
                return _at_once(
                    reading.fetch, sink, limit=limit, least=least, down=ask_down, note=note
                )
            except IncompleteRead as error:
                # or rows came in before the position at one request after the other
                before, ahead, reason = None, 1, error
                continue
        finally:
            reading.drop_plans()
            most = max(most, reading.found.rows)
        if found.moved or found.repeated or not found.ordered:
            sink.expect_repeats()
        # nothing, where a pass before found rows, may be a stale answer
        reliable = found.ordered and (found.rows > 0 or not most)
        # the total may be that of all rows, whatever the filter
        whole = reliable and (filtered or found.agrees(found.rows))
        if not whole:
            keys = sink.keys()
            counted = len(keys) == found.last_total
            # a row may have been passed over twice, if its place is another one each time
            agreed = before is not None and before[0] == keys
            agreed = agreed and (counted or before == (keys, found.sequence))
            # where rows move, only their number shows that none was passed over
            before = (keys, found.sequence) if counted or not found.moved else None
            agreed = agreed and before is not None
            if agreed and keys and not found.ordered:
                note("the server does not sort by sourcedId; two whole passes agreed")
            whole = agreed or (reliable and found.agrees(len(keys)))
        if whole:
            _remark(found, size, note)
            return found.proven_page
        # with pages of another size, a row is not passed over in the same place again
        size = max(NARROW, size * 2 // 3)
    raise reason or IncompleteRead(
        f"{MAX_PASSES} passes over the collection did not agree: the server gives its rows in an"
        " order that changes from request to request, or too many come and go at once",
        todo="try again later; if it stays, ask the provider for a stable order, or for a page_size"
        " that holds all rows",
    )


def _remark(found: Findings, limit: int, note: Callable[[str], None]) -> None:
    if found.pages > 1 and found.widest < limit:
        note(f"the server caps pages at {found.widest} rows (asked for {limit})")
    elif found.widest > limit:
        note(f"the server ignores limit (asked for {limit} rows, got {found.widest})")
    if found.total not in (None, found.rows) and not found.moved:
        note(f"the server states a total of {found.total}; its pages hold {found.rows} rows")
    if found.moved:
        note("rows came or left while they were read; the reading kept its place")


def _at_once(
    fetch: Fetch[T],
    sink: Sink[T],
    *,
    limit: int,
    least: int,
    down: Down,
    note: Callable[[str], None],
) -> int:
    """Reads from a server that ignores offset: everything in one answer, if it gives that.

    Fewer than `least` rows cannot be all: offset has brought as many.
    """
    bounded = False
    try:
        page = fetch(None, None)
    except RequestRefused:
        # it wants a limit; the one that it took may leave room for more rows than there are
        page, bounded = fetch(0, limit), True
    rows = len(page.keys)

    def counted() -> bool:
        # what a shorter page states too is no count of the page's own rows
        short = fetch(0, max(1, rows // 2))
        return len(short.keys) < rows < limit and short.total == page.total == rows

    def same(limit: int) -> bool:
        # an answer may be a stale one, but not twice
        return all(fetch(0, limit).keys == page.keys for _ in range(2))

    end = next(iter(down(0, 1) or ()), None) if rows else None
    proven = rows > 0 and end == page.keys[-1]
    sort_ignored = rows > 1 and end in (None, page.keys[0])
    if rows < max(least, page.total or 0) or not (proven or sort_ignored or rows <= 1):
        complete = False
    elif rows > 1 and same(1):
        # limit is ignored too, so nothing cuts the answer, unless all answers are of one size
        complete = proven or rows not in SIZES
    elif bounded:
        complete = rows < limit and (proven or counted())
    elif not same(limit + rows + 1):
        complete = False
    else:
        # where sort is ignored as well, the stated total is the only witness
        complete = proven or (sort_ignored and page.total == rows)
    if not complete:
        raise IncompleteRead(
            f"the server ignores offset, and gives {rows} rows"
            + (f" of {page.total}" if page.total else "")
            + " in one answer, which cannot be shown to be all",
            todo="raise page_size above the number of rows, or ask the provider",
        )
    sink.clear()
    sink.add(page.content, 0)
    note("the server ignores offset; its one answer was taken as a whole")
    return 0


class _Pass(Generic[T]):
    """One way through the collection, from the first row to the last."""

    def __init__(
        self,
        fetch: Fetch[T],
        sink: Sink[T],
        *,
        limit: int,
        down: Down,
        unfiltered: Callable[[], int | None] | None,
        known_page: int,
        ahead: int,
        executor: Executor | None,
    ) -> None:
        self._fetch = fetch
        self._sink = sink
        self._limit = limit
        self._down = down
        self._unfiltered = unfiltered
        """Where a filter is sent: asks for the total without it."""
        self._known_page = known_page
        self._ahead = ahead
        self._executor = executor
        self._plans: deque[tuple[int, Future[Page[T]]]] = deque()
        self.found = Findings()
        self._end = 0
        """Where the server's next unread row should be."""
        self._width = 0
        """Rows of the last page that was taken."""
        self._begin: list[str] = []
        """The first three keys of all."""
        self._tied: list[str] = []
        """The last rows, as far as the server may take them for equal."""
        self._anchor: str | None = None
        """The row before these."""
        self._has_ties = False
        """Whether any rows at the end of a page may be equal."""
        self._stayed = True
        """Whether the last page began where it was asked for."""
        self._frontier = ""
        """The last row taken of all."""
        self._behind = False
        """Whether rows that are known follow on the last page."""
        self._margin = 2
        """Most rows that a page was asked for again."""
        self._recent: deque[list[str]] = deque()
        """The keys of the last rows taken, to find the place again."""
        self._lost = 0
        """How often the place was lost."""
        self._alone = 0
        """Where the last row came alone, though there were rows after it."""
        self._again = 0
        """How often the first page came, where another was asked for."""
        self._elsewhere: list[str] = []
        """A page without new rows that began at another place than it was asked for."""
        self._progress = 0
        """Pages with rows that were not known."""
        self._trusts_total = True
        self._sorts_down: bool | None = None
        """Whether the server can be asked for its last id; None as long as that is not known."""
        self._digest = blake2b(digest_size=16)

    def run(self) -> Findings:
        found = self._walk()
        found.sequence = self._digest.hexdigest()
        if found.moved and found.ordered:
            self._complete_front()
        return found

    def _walk(self) -> Findings:
        found, (_, first) = self.found, self._page(0)
        found.total = first.total
        if not first.keys:
            # a total may be that of all rows, whatever the filter
            if first.total and not (self._unfiltered and not self._down(0, 1)):
                raise _StartOver(
                    IncompleteRead(
                        f"the server states a total of {first.total} rows and gives none",
                        todo="ask the provider; nothing was changed in the destination",
                    )
                )
            return found
        self._begin = first.keys[:3]
        self._take(first, 0, 0, len(first.keys))
        if first.total == found.rows and (
            found.rows < min(self._known_page, self._limit) or self._is_whole()
        ):
            return found
        stalls = 0
        while not (self._may_end() and self._is_last()):
            rows = found.rows
            if self._reads_on():
                continue
            if self._is_last() or self._ends():
                break
            stalls = 0 if found.rows > rows else stalls + 1
            if stalls:
                self.drop_plans()
            if stalls > (MAX_STALLS if self._sorts_down else MAX_STEPS_BACK):
                raise self._given_up()
        return found

    def _is_whole(self) -> bool:
        """Whether the first page holds all: so many rows from the end are the first two."""
        found = self.found
        if not found.orders:
            return False
        if found.rows == 1:
            # which is the first in either order; a server may give single rows, and count these
            page = self._beyond()
            self._trusts_total = page is None or page.keys in ([], self._begin)
            return self._trusts_total
        keys = self._down(found.rows - 2, 3)
        if not keys:
            self._sorts_down = False
            return False
        if keys == self._recent[-1][-2:] and found.rows > 2:
            # they came in ascending order, in which nothing follows the last row either
            self._sorts_down = False
            return True
        if len({coarse(key) for key in self._begin}) < len(self._begin):
            # ids that may change places tell nothing
            return False
        if keys[2:] == self._begin[:1]:
            # one more than wanted: there is one more row, or the offset was moved to the last page
            return self._is_last()
        return keys == self._begin[1::-1]

    def _may_end(self) -> bool:
        """Whether the last page looks like the end, so that it is worth to ask from behind."""
        found = self.found
        if found.pages == 1:
            return False
        if found.last_total is not None and found.last_total >= self._end:
            return found.last_total == self._end
        return self._width < found.widest

    def _is_last(self) -> bool:
        """Whether the last row taken is the server's last one, as the descending order tells."""
        found = self.found
        if self._sorts_down is False or not found.orders or found.rows == 1 or self._again:
            # a single row is the first in either order
            return False
        wanted, tied = len(self._tied) + 2, coarse(self._tied[-1])
        keys = self._down(0, wanted) or self._begin[:1]
        self._sorts_down = coarse(keys[0]) != coarse(self._begin[0])
        # all that may be equal to it, of which any may be the last
        last = list(takewhile(lambda key: coarse(key) == tied, keys))
        # so many of them that more may follow prove nothing, unless all are one id
        shown = len(last) < len(keys) or len(keys) < wanted or len(set(self._tied)) == 1
        return self._sorts_down and bool(last) and set(last) <= set(self._tied) and shown

    def _reads_on(self) -> bool:
        """Reads on from the place; whether that brought rows, or found the place elsewhere."""
        for overlap in self._overlaps():
            wanted = max(0, self._end - overlap)
            self._margin = max(self._margin, overlap)
            offset, page = self._page(wanted)
            start, new = self._start(page, offset, wanted - offset, alone=overlap == 1)
            if start is None:
                self._go_back(offset)
                return True
            if new:
                # equal rows that were not asked for again may have changed places
                self.found.joined &= overlap > 1 or len(set(self._tied)) == 1
                self._take(page, offset, start, new)
                return True
            if offset and not self._stayed:
                return self._is_elsewhere(page, offset)
            if page.keys[-1] in self._tied:
                break
            if self._tied[-1] in page.keys:
                # rows that are known: on the way to where it was before
                self._lose()
                self._stand(page, offset)
                return True
        return False

    def _is_elsewhere(self, page: Page[T], offset: int) -> bool:
        """Whether to go on at the place that a page without new rows shows: rows came in before it.

        It may be a stale answer: believed only if there are two. The first page is none further
        down, and the last one may be all that a server gives there.
        """
        if page.keys[0] == self._begin[0]:
            self._begins_again()
            return False
        shows_end = page.keys[-1] in self._tied
        if shows_end and (self._is_total(page, 0) or page.keys == self._elsewhere):
            return False
        self._lose()
        if self._elsewhere:
            self._stand(page, offset)
        self._elsewhere = page.keys
        return True

    def _begins_again(self) -> None:
        """Takes notice that the first page came, where another was asked for."""
        self._again += 1
        if self._again > MAX_STALLS or self.found.widest <= 1:
            raise _OffsetIgnored

    def _lose(self) -> None:
        self.drop_plans()
        self._lost += 1
        if self._lost > MAX_STEPS_BACK + self._progress:
            raise _StartOver

    def _overlaps(self) -> Iterator[int]:
        """How many of the last rows to ask for again: all that may be equal, and the one before;
        where pages are too small for that, or end before these, the last row alone."""
        wanted = len(self._tied) + 1
        if wanted >= self._limit and self.found.widest >= self._limit and len(set(self._tied)) > 1:
            self._limit = 2 * wanted
            yield wanted
        elif self._anchor is None and wanted <= self._end:
            # no row shows where they begin
            pass
        elif wanted < self.found.widest and (self._has_ties or self.found.widest >= NARROW):
            yield wanted
        # a server that has only ever given single rows may be unable to give two
        if self.found.widest > 1:
            yield 1

    def _start(
        self, page: Page[T], offset: int, skip: int = 0, *, alone: bool = False
    ) -> tuple[int | None, int]:
        """Where in a page those rows begin that follow the known ones without a gap.

        Args:
            page: The page.
            offset: Where it was asked for.
            skip: Where in it the rows that were asked for again should be.
            alone: Whether that is the last row alone.

        Returns:
            The index, and how many rows from there on are new; None if no row shows that there is
            no gap.
        """
        keys = page.keys
        before = [] if self._anchor is None else [self._anchor]
        expected = [self._tied[-1]] if alone else [*before, *self._tied]
        begin = skip + len(expected)
        self._stayed = keys[skip:begin] == expected
        if self._stayed and not self._behind:
            # an id that comes again, with its equal between
            self.found.repeated |= not set(expected).isdisjoint(keys[begin:])
            self._progress += begin < len(keys)
            return begin, len(keys) - begin
        known = self._known()
        tied = coarse(self._tied[-1])
        fixed = (i for i, key in enumerate(keys) if key in known and (alone or coarse(key) != tied))
        first = next(fixed, None)
        if not offset:
            first = 0 if first is not None or not known.isdisjoint(keys) else None
        if first is None:
            return None, 0
        self._behind = keys[-1] in known and keys[-1] != self._frontier
        if skip < len(keys):
            begins = coarse(keys[skip])
            self._stayed |= begins == (tied if alone else coarse(self._anchor or ""))
        # a row of the same id may have come before it, or it may be another one
        often = Counter(self._tied)
        fresh = []
        for i in range(0 if alone else first, len(keys)):
            often[keys[i]] -= 1
            if keys[i] not in known or (keys[i] in self._tied and often[keys[i]] < 0):
                fresh.append(i)
        # rows seem to have moved too where the server moves an offset to its last page
        moved = bool(offset) and not self._stayed
        self.found.moved |= moved and not self._is_total(page, len(fresh))
        if not fresh:
            return len(keys), 0
        self.found.repeated = True
        self._progress += any(keys[i] not in known for i in fresh)
        # of rows with one id, all are handed on again: which of them are new, nobody can tell
        again = fresh[0] if keys[fresh[0]] not in known else keys.index(keys[fresh[0]])
        return again, len(fresh)

    def _is_total(self, page: Page[T], new: int) -> bool:
        """Whether all rows of the total are read with some new ones of a page, and none came or
        left."""
        found = self.found
        return not found.moved and page.total == found.total == found.rows + new

    def _known(self) -> set[str]:
        return {key for keys in self._recent for key in keys}

    def _take(self, page: Page[T], offset: int, start: int, new: int) -> None:
        """Takes the rows of a page from `start` on, of which some are new."""
        found, fresh = self.found, page.keys[start:]
        if found.rows and self._begin[0] in fresh:
            place = fresh.index(self._begin[0])
            if fresh[place : place + 2] == self._begin[:2] and len(set(self._begin[:2])) > 1:
                # the server began again from the start
                raise _StartOver
            found.repeated = True
        self._again, self._elsewhere = 0, []
        self._frontier = self._frontier if self._behind else page.keys[-1]
        found.rows += new
        found.pages += 1
        found.widest = max(found.widest, len(page.keys))
        self._recent.append(fresh)
        while sum(map(len, self._recent)) - len(self._recent[0]) > max(2 * self._limit, KNOWN_ROWS):
            self._recent.popleft()
        self._digest.update("\n".join([*fresh, ""]).encode("utf-8", "surrogatepass"))
        self._stand(page, offset)
        self._sink.add(page.content, start)

    def _stand(self, page: Page[T], offset: int) -> None:
        """Takes the end of a page for the place to read on from."""
        keys = page.keys
        self._width = len(keys)
        self._end = offset + len(keys)
        if self._is_total(page, 0) and self.found.rows < self._end:
            # the offset was moved to the last page
            self._end = self.found.rows
        tied = coarse(keys[-1])
        count = next((i for i, k in enumerate(reversed(keys)) if coarse(k) != tied), len(keys))
        if count < len(keys):
            self._anchor = keys[-count - 1]
        elif self._tied and coarse(self._tied[-1]) != tied:
            # a page that follows on the row before
            self._anchor = self._tied[-1]
        self._tied = keys[len(keys) - count :]
        self._has_ties |= count > 1

    def _go_back(self, offset: int) -> None:
        """Finds the place again after rows left before it."""
        self._lose()
        # the same page once more, in case that answer was stale; then pages further to the front
        for steps in range(MAX_STEPS_BACK):
            offset, page = self._page(max(0, offset - self.found.widest * min(steps, 1)))
            start, new = self._start(page, offset)
            if start is None:
                if not offset and steps:
                    break
                continue
            self.found.moved |= steps > 0
            if new:
                self._take(page, offset, start, new)
            elif page.keys:
                self._stand(page, offset)
            return
        raise _StartOver

    def _ends(self) -> bool:
        """Whether the last row that was read is the last one, where no page shows one behind it and
        the server does not tell its last id.

        It is, if it is the last of the total that is stated; or if there is nothing beyond it. A
        page may be cut short, a server may give nothing beyond some offset, or move it to the end.
        """
        found = self.found
        if self._again:
            return False
        if found.last_total == self._end and not self._sorts_down and self._trusts_total:
            return True
        # rows that are known may be a stale answer, once
        page: Page[T] | None = None
        refusal: OneRosterError | None = None
        for _ in range(2):
            try:
                _, page = self._page(self._end, ahead=False)
            except (RequestRefused, BadResponse) as error:
                # a way to say that there is no such place, or none beyond some offset
                page, refusal = None, error
            if page is None or self._known().isdisjoint(page.keys):
                break
            if page.keys[0] == self._begin[0]:
                self._begins_again()
        if page is None or not page.keys:
            if self._sorts_down:
                # its last row is another one: rows may just have come or left
                return False
            stated = found.last_total
            # which may be that of all rows, whatever the filter
            if (
                stated is not None
                and stated > self._end
                and (self._unfiltered is None or self._unfiltered() != stated)
            ):
                raise self._given_up()
            if stated is None and found.rows in WINDOWS:
                raise refusal or self._given_up()
            return True
        if self._known().isdisjoint(page.keys):
            # they may just have come in; but if the last row is alone again, the server cannot
            # give it together with them
            alone, self._alone = self._alone, self._end
            if alone == self._end or found.widest <= 1:
                found.joined = False
                self._compare([self._tied[-1], page.keys[0]])
                self._take(page, self._end, 0, len(page.keys))
        elif self._behind:
            # back on the way to where it was before
            self._lose()
            self._behind = page.keys[-1] != self._frontier
            self._stand(page, self._end)
        elif not self._sorts_down:
            # rows that came in push known ones here; or the server moves an offset that is beyond
            # the end to its last page, however far beyond
            _, page = self._page(self._end + BEYOND * self._limit, ahead=False)
            keys = page.keys
            return bool(keys) and keys[-1] in self._tied and keys[0] != self._begin[0]
        return False

    def _beyond(self) -> Page[T] | None:
        """What is there behind the last row; None if the server refuses to say it."""
        try:
            return self._page(self._end, ahead=False)[1]
        except (RequestRefused, BadResponse):
            return None

    def _given_up(self) -> _StartOver:
        """Why the pass ends before its end."""
        found = self.found
        if not found.orders:
            return _StartOver()
        more = found.last_total is not None and found.last_total > self._end
        stated = f" states a total of {found.last_total} rows, and" if more else ""
        return _StartOver(
            IncompleteRead(
                f"the server{stated} gives nothing beyond the first {found.rows}"
                + ("" if more else ", and nothing shows that these are all"),
                todo="ask the provider whether it limits the offset; a page_size that holds all"
                " rows may help",
            )
        )

    def _complete_front(self) -> None:
        """Takes the rows that are before the first one that was taken.

        They came in since; or the first page was a stale answer, from further down, which looks the
        same later on. This one may be stale too: so it is asked for twice.
        """
        taken = self._sink.keys()
        for _ in range(2):
            page = self.fetch(0, self._limit)
            names = self._sink.names(page.content)
            if taken.issuperset(names[:1]):
                continue
            if taken.isdisjoint(names):
                raise _StartOver
            self._sink.add(page.content, 0)
            self.found.rows += len(names) - len(taken.intersection(names))
            taken |= set(names)

    def _page(self, offset: int, *, ahead: bool = True) -> tuple[int, Page[T]]:
        """The page at `offset`, or one that was asked for before and begins a few rows earlier, and
        where it begins; those that should follow are asked for at the same time."""
        # of the first one it is not known what will follow: no other thread need be woken for it
        if not self.found.pages:
            page = self._fetch(offset, self._limit)
        elif ahead and self._executor:
            offset, page = self._planned(offset)
        else:
            self.drop_plans()
            page = self.fetch(offset, self._limit)
        if page.total is not None:
            self.found.last_total = page.total
        self._compare(page.keys)
        return offset, page

    def _compare(self, keys: list[str]) -> None:
        """Keeps those orders in which the keys come."""
        self.found.orders = [order for order in self.found.orders if rises(keys, order)]

    def _planned(self, offset: int) -> tuple[int, Page[T]]:
        if not self._plans or not offset - self._margin <= self._plans[0][0] <= offset:
            self.drop_plans()
            self._plan(offset)
        begin, future = self._plans.popleft()
        for following in self._following(begin):
            self._plan(following)
        return begin, future.result()

    def _following(self, offset: int) -> Iterator[int]:
        """Offsets that are likely to be asked for next."""
        found, most = self.found, self._ahead - 1
        stride = found.widest - self._margin
        if stride < 1:
            return
        if found.total is not None and found.total > offset:
            last: float = found.total - self._margin
        else:
            # no word on how many there are: what is asked for beyond the end is asked in vain
            last, most = math.inf, min(most, found.pages // 4)
        following = self._plans[-1][0] if self._plans else offset
        while len(self._plans) < most and following + stride < last:
            following += stride
            yield following

    def _plan(self, offset: int) -> None:
        assert self._executor is not None
        self._plans.append((offset, self._executor.submit(self._fetch, offset, self._limit)))

    def fetch(self, offset: int | None, limit: int | None) -> Page[T]:
        """One page, asked for by the executor as all others are."""
        if self._executor is None:
            return self._fetch(offset, limit)
        return self._executor.submit(self._fetch, offset, limit).result()

    def drop_plans(self) -> None:
        """Forgets the pages that were asked for ahead."""
        for _, future in self._plans:
            future.cancel()
        self._plans.clear()
