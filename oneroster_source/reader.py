"""One collection, page by page, in an order that is verified.

Offset paging loses rows when rows come and go between two requests, when a server caps pages, or
ignores what it was asked for. So:

- the next offset counts the rows that came, never the limit that was asked for;
- each page begins with the last row of the page before. Found there, nothing moved. Found further
  down, rows came in before it, and nothing is lost. Not found, rows left before it: the reader goes
  back until it finds rows that it knows, and reads on from there;
- the end is a page that holds that one row and no more. A short page, an empty one, or the total
  that a server states is no end;
- ids must come in an order, since rows then keep their places when they are updated. Where they
  do not, the collection is read until two passes agree.

`read` knows nothing of HTTP or Arrow; it asks for pages and hands on which rows of them are new.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from operator import le
from typing import Any, Generic, Protocol, TypeVar

from oneroster_source.errors import IncompleteRead

T = TypeVar("T")
T_in = TypeVar("T_in", contravariant=True)

MAX_PASSES = 4
MAX_STEPS_BACK = 12
MAX_STALLS = 3
KNOWN_ROWS = 1000
"""As many rows may come in at once before the position, however small the pages are."""

_SEPARATOR = "\n"
_PUNCTUATION = {ord(c): None for c in map(chr, range(128)) if not c.isalnum() and c != _SEPARATOR}


def _by_letters(keys: list[str]) -> list[str]:
    return [key.casefold() for key in keys]


def _by_letters_and_digits(keys: list[str]) -> list[str]:
    # database collations pass over punctuation; one key by one, it would take ten times as long
    return _SEPARATOR.join(keys).casefold().translate(_PUNCTUATION).split(_SEPARATOR)


def _by_number(keys: list[str]) -> list[tuple[int, str]]:
    return [(int(key) if key.isdecimal() else -1, key) for key in keys]


Order = Callable[[list[str]], list[Any]]
"""What is compared for each key."""
_ORDERS: tuple[Order, ...] = (list, _by_letters, _by_letters_and_digits, _by_number)


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
Last = Callable[[], str | None]
"""Asks for the ids in descending order and gives the first: the last one of the collection. None if
the server cannot be asked so."""


@dataclass(slots=True)
class Findings:
    """What a pass found out about the server."""

    rows: int = 0
    total: int | None = None
    widest: int = 0
    """Most rows in one page."""
    pages: int = 0
    """Pages that held new rows."""
    orders: list[Order] = field(default_factory=lambda: list(_ORDERS))
    joined: bool = True
    """No page was taken without the row before it."""
    moved: bool = False
    """Rows came or left before the reading position."""

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
    last: Last = lambda: None,
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
        fetch: Gets a page. Like `last`, called from `executor` too, if there is one.
        limit: Rows to ask for in a page.
        last: Asks for the last id, where the end is in doubt.
        filtered: Whether a filter is sent: some servers state a total without regard to it.
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
    # pages overlap by a row, so a page of one row would never get on
    limit = max(2, limit)
    ask_last = last if executor is None else lambda: executor.submit(last).result()
    before: set[str] | None = None
    reason: IncompleteRead | None = None
    most = 0
    for _ in range(MAX_PASSES):
        sink.clear()
        reading = _Pass(
            fetch,
            sink,
            limit=limit,
            last=ask_last,
            filtered=filtered,
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
                    reading.fetch, sink, limit=limit, least=least, last=ask_last, note=note
                )
            except IncompleteRead as error:
                # or rows came in before the position at one request after the other
                before, ahead, reason = None, 1, error
                continue
        finally:
            reading.drop_plans()
            most = max(most, reading.found.rows)
        if found.moved or not found.ordered:
            sink.expect_repeats()
        # nothing, where a pass before found rows, may be a stale answer
        if found.ordered and (found.rows or not most):
            _remark(found, limit, note)
            return found.proven_page
        keys = sink.keys()
        # where rows move that are in no order, only their number shows that none was passed over
        whole = not found.moved or len(keys) == found.total
        if whole and keys == before:
            if keys:
                note("the server does not sort by sourcedId; two whole passes agreed")
            _remark(found, limit, note)
            return found.proven_page
        before = keys if whole else None
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
    last: Last,
    note: Callable[[str], None],
) -> int:
    """Reads from a server that ignores offset: everything in one answer, if it gives that.

    Fewer than `least` rows cannot be all: offset has brought as many.
    """
    page = fetch(None, None)
    rows = len(page.keys)

    def same(limit: int) -> bool:
        # an answer may be a stale one, but not twice
        return all(fetch(0, limit).keys == page.keys for _ in range(2))

    if rows < max(least, page.total or 0):
        complete = False
    elif rows > 1 and same(1):
        # limit is ignored too, so nothing cuts the answer
        complete = True
    elif not same(limit + rows + 1):
        complete = False
    else:
        end = last()
        # where sort is ignored as well, the stated total is the only witness
        sort_ignored = end in (None, page.keys[0]) and rows > 1
        complete = end == page.keys[-1] or (sort_ignored and page.total == rows)
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
        last: Last,
        filtered: bool,
        known_page: int,
        ahead: int,
        executor: Executor | None,
    ) -> None:
        self._fetch = fetch
        self._sink = sink
        self._limit = limit
        self._last = last
        self._filtered = filtered
        self._known_page = known_page
        self._ahead = ahead
        self._executor = executor
        self._plans: deque[tuple[int, Future[Page[T]]]] = deque()
        self.found = Findings()
        self._end = 0
        """Where the server's next unread row should be."""
        self._first = ""
        self._alone = 0
        """Where the last row came alone, though there were rows after it."""
        self._lost = 0
        """How often the place was lost."""
        self._known: deque[str] = deque(maxlen=max(2 * limit, KNOWN_ROWS))
        """The keys of the last rows taken, to find the place again."""

    def run(self) -> Findings:
        found = self._walk()
        if found.moved and found.ordered:
            self._complete_front()
        return found

    def _walk(self) -> Findings:
        first = self._page(0)
        found = self.found
        found.total = first.total
        if not first.keys:
            # a total may be that of all rows, whatever the filter
            if first.total and not (self._filtered and self._last() is None):
                raise _StartOver(
                    IncompleteRead(
                        f"the server states a total of {first.total} rows and gives none",
                        todo="ask the provider; nothing was changed in the destination",
                    )
                )
            return found
        self._take(first, 0, 0)
        if first.total == found.rows < min(self._known_page, self._limit):
            return found
        stalls = 0
        while True:
            # a server that has only ever given single rows may be unable to give two
            offset = self._end - 1 if found.widest > 1 else self._end
            page = self._page(offset)
            tail = self._known[-1]
            if found.widest <= 1:
                found.joined = False
                if tail in page.keys:
                    raise _OffsetIgnored
                if not page.keys:
                    if self._is_end(page.total):
                        return found
                    stalls += 1
                    if stalls > MAX_STALLS:
                        raise _StartOver
                    self.drop_plans()
                    continue
                start = 0
            elif tail in page.keys:
                start = page.keys.index(tail) + 1
                found.moved |= start > 1
            else:
                self._go_back(offset)
                continue
            if start < len(page.keys):
                self._take(page, offset, start)
                stalls = 0
                continue
            if len(page.keys) == 1:
                rows = found.rows
                if self._is_end(page.total):
                    return found
                if found.rows > rows:
                    stalls = 0
                    continue
            stalls += 1
            # a page that starts like the first one is no page further down
            if stalls > (MAX_STALLS if page.keys[0] == self._first else MAX_STEPS_BACK):
                raise _OffsetIgnored
            # it may be a stale answer: believed only if it comes twice
            if stalls > 1:
                self._end = offset + len(page.keys)
            self.drop_plans()

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

    def _is_end(self, total: int | None) -> bool:
        """Whether a page with the known last row alone, and this total, is the end.

        It is if the row is the last of that total. Otherwise a page of one row may be cut short,
        and a server may give nothing beyond some offset.
        """
        found, end = self.found, self._end
        if total == end:
            return True
        if self._goes_on():
            return False
        if total is None or total < end:
            return True
        last = self._last()
        sort_ignored = last is None or last == self._first
        if last == self._known[-1] or (sort_ignored and self._filtered):
            return True
        # rows may just have come or left at the end; another pass will tell
        raise _StartOver(
            IncompleteRead(
                f"the server states a total of {total} rows, and gives nothing beyond the"
                f" first {found.rows}",
                todo="ask the provider whether it limits the offset; a page_size that holds all"
                " rows may help",
            )
        )

    def _goes_on(self) -> bool:
        """Whether there may be rows beyond the last one that was read.

        They may just have come in, so the last one is asked for again. If it is still alone, the
        server cannot give it together with them, and they are taken.
        """
        # rows that came in at this moment push known ones here; or it is a stale answer, once
        for _ in range(2):
            page = self._page(self._end)
            known = not set(self._known).isdisjoint(page.keys)
            if not known:
                break
        if page.keys:
            self.found.moved |= known
            alone, self._alone = self._alone, self._end
            if alone == self._end and not known:
                self.found.joined = False
                self._take(page, self._end, 0)
        return bool(page.keys)

    def _go_back(self, offset: int) -> None:
        """Finds the place again after rows left before it."""
        self._lost += 1
        if self._lost > MAX_STEPS_BACK + self.found.pages:
            raise _StartOver
        known = set(self._known)
        # the same page once more, in case that answer was stale; then pages further to the front
        for steps in range(MAX_STEPS_BACK):
            offset = max(0, offset - self.found.widest * min(steps, 1))
            page = self._page(offset)
            places = [i for i, key in enumerate(page.keys) if key in known]
            if places:
                # the same page, asked for again, may just have been stale before
                stayed = places == [0] and page.keys[0] == self._known[-1] and not steps
                self.found.moved |= not stayed
                start = places[-1] + 1
                # go on from the row that is known
                self._known.append(page.keys[places[-1]])
                if start < len(page.keys):
                    self._take(page, offset, start)
                else:
                    self._end = offset + len(page.keys)
                return
            if offset == 0 and steps:
                break
        raise _StartOver

    def _take(self, page: Page[T], offset: int, start: int) -> None:
        found, fresh = self.found, page.keys[start:]
        if found.rows and self._first in fresh:
            # the server began again from the start, or moved its first row to the end
            raise _StartOver
        self._first = self._first or fresh[0]
        if self._known:
            self._compare([self._known[-1], fresh[0]])
        found.rows += len(fresh)
        found.pages += 1
        found.widest = max(found.widest, len(page.keys))
        self._known.extend(fresh)
        self._end = offset + len(page.keys)
        self._sink.add(page.content, start)

    def _page(self, offset: int) -> Page[T]:
        """The page at `offset`; the ones that should follow are asked for at the same time."""
        # of the first one it is not known what will follow: no other thread need be woken for it
        planned = self._executor and self.found.pages
        page = self._planned(offset) if planned else self._fetch(offset, self._limit)
        self._compare(page.keys)
        return page

    def _compare(self, keys: list[str]) -> None:
        """Keeps those orders in which the keys come."""
        self.found.orders = [order for order in self.found.orders if _rises(keys, order)]

    def _planned(self, offset: int) -> Page[T]:
        if not self._plans or self._plans[0][0] != offset:
            self.drop_plans()
            self._plan(offset)
        _, future = self._plans.popleft()
        for following in self._following(offset):
            self._plan(following)
        return future.result()

    def _following(self, offset: int) -> Iterator[int]:
        """Offsets that are likely to be asked for next."""
        found, stride = self.found, self.found.widest - 1
        if stride < 1:
            return
        if found.total is not None and found.total > offset:
            last: float = found.total - 1
        elif found.widest >= self._limit or found.pages > 1:
            # no word on how many there are: a full page is likely to be followed by another
            last = math.inf
        else:
            return
        following = self._plans[-1][0] if self._plans else offset
        while len(self._plans) < self._ahead - 1 and following < last:
            following = int(min(following + stride, last))
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


def _rises(keys: list[str], order: Order) -> bool:
    values = order(keys)
    return all(map(le, values, values[1:]))
