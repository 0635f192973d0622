"""One pass through a collection, from the first row to an end that is proven."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from itertools import takewhile
from typing import Generic

from oneroster_source.client.collation import coarse
from oneroster_source.client.pages import Page, PageSource, RowBuffer, T
from oneroster_source.client.position import Observations, Position, StartOver
from oneroster_source.errors import BadResponse, IncompleteRead, OneRosterError, RequestRefused

MAX_STEPS_BACK = 12
MAX_STALLS = 3
BEYOND = 1000
"""Pages that cannot come in between two requests."""
WINDOWS = {count * 10**power for count in (1, 2, 5) for power in (3, 4, 5)}
"""Where search indexes and the like end by themselves: an end that only silence shows is not
believed there."""


class OffsetIgnored(Exception):
    """The server gives the same rows whatever the offset."""


class PagingPass(Generic[T]):
    """Reads a collection once, into a buffer.

    Args:
        source: The collection.
        buffer: Where the rows go.
    """

    def __init__(self, source: PageSource[T], buffer: RowBuffer[T]) -> None:
        self._source = source
        self._buffer = buffer
        self._position = Position(source.limit)
        self.seen: Observations = self._position.seen
        self._planned: deque[tuple[int, Future[Page[T]]]] = deque()
        """Pages that were requested ahead, by their offsets."""
        self._margin = 2
        """Most rows that a page was requested again."""
        self._lost = 0
        """How often the place was lost."""
        self._alone = 0
        """Where the last row came alone, though there were rows after it."""
        self._again = 0
        """How often the first page came, where another was requested."""
        self._elsewhere: list[str] = []
        """A page without new rows that began at another place than it was requested."""
        self._trusts_total = True
        self._sorts_down: bool | None = None
        """Whether the server can be asked for its last id; None as long as that is not known."""

    def run(self) -> Observations:
        """Reads all pages.

        Raises:
            StartOver: The place was lost, or the end cannot be proven.
            OffsetIgnored: The server ignores the offset.
            OneRosterError: A request failed.
        """
        self._walk()
        self.seen.sequence = self._position.sequence
        if self.seen.moved and self.seen.ordered:
            self._complete_front()
        return self.seen

    def _walk(self) -> None:
        seen, (_, first) = self.seen, self._page(0)
        seen.total = first.total
        if not first.keys:
            # a total may be that of all rows, whatever the filter
            filtered = self._source.unfiltered_total is not None
            if first.total and not (filtered and not self._source.last_ids(0, 1)):
                raise StartOver(
                    IncompleteRead(
                        f"the server states a total of {first.total} rows and gives none",
                        todo="ask the provider; nothing was changed in the destination",
                    )
                )
            return
        self._take(first, 0, 0, len(first.keys))
        known_page = min(self._source.known_page, self._position.limit)
        if first.total == seen.rows and (seen.rows < known_page or self._is_complete(first)):
            return
        stalls = 0
        while not (self._may_end() and self._is_last()):
            rows = seen.rows
            if self._reads_on():
                continue
            if self._is_last() or self._ends():
                break
            stalls = 0 if seen.rows > rows else stalls + 1
            if stalls:
                self.drop_plans()
            if stalls > (MAX_STALLS if self._sorts_down else MAX_STEPS_BACK):
                raise self._given_up()

    # reading on

    def _reads_on(self) -> bool:
        """Reads on from the place; whether that brought rows, or found the place elsewhere."""
        position = self._position
        for overlap in position.overlaps():
            wanted = max(0, position.end - overlap)
            self._margin = max(self._margin, overlap)
            offset, page = self._page(wanted)
            start, new = position.find_new(page.keys, offset, wanted - offset, alone=overlap == 1)
            if start is None:
                self._go_back(offset)
                return True
            if new:
                # equal rows that were not requested again may have changed places
                self.seen.joined &= overlap > 1 or len(set(position.tied)) == 1
                self._take(page, offset, start, new)
                return True
            if offset and not position.stayed:
                return self._is_elsewhere(page, offset)
            if page.keys[-1] in position.tied:
                break
            if position.tied[-1] in page.keys:
                # rows that are known: on the way to where it was before
                self._lose()
                position.stand(page.keys, offset)
                return True
        return False

    def _take(self, page: Page[T], offset: int, start: int, new: int) -> None:
        """Takes the rows of a page from index `start` on, of which some are new."""
        self._position.take(page.keys, offset, start, new)
        self._again, self._elsewhere = 0, []
        self._buffer.add(page.content, start)

    def _is_elsewhere(self, page: Page[T], offset: int) -> bool:
        """Whether to go on at the place that a page without new rows shows: rows came in before it.

        It may be a stale answer: believed only if there are two. The first page is none further
        down, and the last one may be all that a server gives there.
        """
        position = self._position
        if position.is_first_page(page.keys):
            self._begins_again()
            return False
        shows_end = page.keys[-1] in position.tied
        if shows_end and (position.is_total(0) or page.keys == self._elsewhere):
            return False
        self._lose()
        if self._elsewhere:
            position.stand(page.keys, offset)
        self._elsewhere = page.keys
        return True

    def _begins_again(self) -> None:
        """Notes that the first page came, where another was requested."""
        self._again += 1
        if self._again > MAX_STALLS or self.seen.widest <= 1:
            raise OffsetIgnored

    def _lose(self) -> None:
        self.drop_plans()
        self._lost += 1
        if self._lost > MAX_STEPS_BACK + self._position.progress:
            raise StartOver

    def _go_back(self, offset: int) -> None:
        """Finds the place again after rows left before it."""
        self._lose()
        # the same page once more, in case that answer was stale; then pages further to the front
        for steps in range(MAX_STEPS_BACK):
            offset, page = self._page(max(0, offset - self.seen.widest * min(steps, 1)))
            start, new = self._position.find_new(page.keys, offset)
            if start is None:
                if not offset and steps:
                    break
                continue
            self.seen.moved |= steps > 0
            if new:
                self._take(page, offset, start, new)
            elif page.keys:
                self._position.stand(page.keys, offset)
            return
        raise StartOver

    def _complete_front(self) -> None:
        """Takes the rows that are before the first one that was taken.

        They came in since; or the first page was a stale answer, from further down, which looks the
        same later on. This one may be stale too: so it is requested twice.
        """
        taken = self._buffer.keys()
        for _ in range(2):
            page = self._source.page(0, self._position.limit)
            keys = self._buffer.keys_of(page.content)
            if taken.issuperset(keys[:1]):
                continue
            if taken.isdisjoint(keys):
                raise StartOver
            self._buffer.add(page.content, 0)
            self.seen.rows += len(keys) - len(taken.intersection(keys))
            taken |= set(keys)

    # the end

    def _is_complete(self, first: Page[T]) -> bool:
        """Whether the first page holds all: so many rows from the end are the first two."""
        rows, begin = self.seen.rows, self._position.begin
        if not self.seen.orders:
            return False
        if rows == 1:
            # which is the first in either order; a server may give single rows, and count these
            page, _ = self._beyond()
            self._trusts_total = page is None or page.keys in ([], begin)
            return self._trusts_total
        keys = self._source.last_ids(rows - 2, 3)
        if not keys:
            self._sorts_down = False
            return False
        if keys == first.keys[-2:] and rows > 2:
            # they came in ascending order, in which nothing follows the last row either
            self._sorts_down = False
            return True
        if len({coarse(key) for key in begin}) < len(begin):
            # ids that may change places tell nothing
            return False
        if keys[2:] == begin[:1]:
            # one more than wanted: there is one more row, or the offset was moved to the last page
            return self._is_last()
        return keys == begin[1::-1]

    def _may_end(self) -> bool:
        """Whether the last page looks like the end, so that it is worth to ask from behind."""
        seen, position = self.seen, self._position
        if seen.pages == 1:
            return False
        if seen.last_total is not None and seen.last_total >= position.end:
            return seen.last_total == position.end
        return position.width < seen.widest

    def _is_last(self) -> bool:
        """Whether the last row taken is the server's last one, as the descending order tells."""
        seen, tied = self.seen, self._position.tied
        if self._sorts_down is False or not seen.orders or seen.rows == 1 or self._again:
            # a single row is the first in either order
            return False
        wanted, equal, begin = len(tied) + 2, coarse(tied[-1]), self._position.begin[:1]
        keys = self._source.last_ids(0, wanted) or begin
        self._sorts_down = coarse(keys[0]) != coarse(begin[0])
        # all that may be equal to it, of which any may be the last
        last = list(takewhile(lambda key: coarse(key) == equal, keys))
        # so many of them that more may follow prove nothing, unless all are one id
        shown = len(last) < len(keys) or len(keys) < wanted or len(set(tied)) == 1
        return self._sorts_down and bool(last) and set(last) <= set(tied) and shown

    def _ends(self) -> bool:
        """Whether the last row that was read is the last one, where no page shows one behind it and
        the server does not tell its last id.

        It is, if it is the last of the total that is stated; or if there is nothing beyond it. A
        page may be cut short, a server may give nothing beyond some offset, or move it to the end.
        """
        seen, position = self.seen, self._position
        if self._again:
            return False
        if seen.last_total == position.end and not self._sorts_down and self._trusts_total:
            return True
        page: Page[T] | None = None
        refusal: OneRosterError | None = None
        for _ in range(2):
            page, refusal = self._beyond()
            # rows that are known may be a stale answer, once
            if page is None or position.known().isdisjoint(page.keys):
                break
            if position.is_first_page(page.keys):
                self._begins_again()
        if page is None or not page.keys:
            return self._is_silent_end(refusal)
        if position.known().isdisjoint(page.keys):
            self._take_alone(page)
        elif position.behind:
            # back on the way to where it was before
            self._lose()
            position.walk_back(page.keys, position.end)
        elif not self._sorts_down:
            # rows that came in push known ones here; or the server moves an offset that is beyond
            # the end to its last page, however far beyond
            _, page = self._page(position.end + BEYOND * position.limit, ahead=False)
            keys = page.keys
            return bool(keys) and keys[-1] in position.tied and not position.is_first_page(keys)
        return False

    def _beyond(self) -> tuple[Page[T] | None, OneRosterError | None]:
        """The page behind the last row; or the error with which the server refuses it."""
        try:
            return self._page(self._position.end, ahead=False)[1], None
        except (RequestRefused, BadResponse) as error:
            # a way to say that there is no such place, or none beyond some offset
            return None, error

    def _is_silent_end(self, refusal: OneRosterError | None) -> bool:
        """Whether the end is here, as the server gives nothing beyond, or refuses it.

        Raises:
            StartOver: The total that it states says that there is more.
            OneRosterError: The server refuses what is beyond a usual limit of rows.
        """
        if self._sorts_down:
            # its last row is another one: rows may just have come or left
            return False
        stated, unfiltered = self.seen.last_total, self._source.unfiltered_total
        # which may be that of all rows, whatever the filter
        if (
            stated is not None
            and stated > self._position.end
            and (unfiltered is None or unfiltered() != stated)
        ):
            raise self._given_up()
        if stated is None and self.seen.rows in WINDOWS:
            raise refusal or self._given_up()
        return True

    def _take_alone(self, page: Page[T]) -> None:
        """Takes the page behind the last row, which does not show that row, if need be.

        Its rows may just have come in; but if the last row is alone again, the server cannot give
        it together with them.
        """
        position = self._position
        alone, self._alone = self._alone, position.end
        if alone == position.end or self.seen.widest <= 1:
            self.seen.joined = False
            self.seen.compare([position.tied[-1], page.keys[0]])
            self._take(page, position.end, 0, len(page.keys))

    def _given_up(self) -> StartOver:
        """Why the pass ends before its end."""
        seen = self.seen
        if not seen.orders:
            return StartOver()
        more = seen.last_total is not None and seen.last_total > self._position.end
        stated = f" states a total of {seen.last_total} rows, and" if more else ""
        return StartOver(
            IncompleteRead(
                f"the server{stated} gives nothing beyond the first {seen.rows}"
                + ("" if more else ", and nothing shows that these are all"),
                todo="ask the provider whether it limits the offset; a page_size that holds all"
                " rows may help",
            )
        )

    # requests

    def _page(self, offset: int, *, ahead: bool = True) -> tuple[int, Page[T]]:
        """The page at `offset`, or one that was requested before and begins a few rows earlier, and
        where it begins; those that should follow are requested at the same time.
        """
        limit = self._position.limit
        # of the first one it is not known what will follow: no other thread need be woken for it
        if not self.seen.pages:
            page = self._source.fetch(offset, limit)
        elif ahead and self._source.executor:
            offset, page = self._page_of_plan(offset)
        else:
            self.drop_plans()
            page = self._source.page(offset, limit)
        self._position.see(page.keys, page.total)
        return offset, page

    def _page_of_plan(self, offset: int) -> tuple[int, Page[T]]:
        if not self._planned or not offset - self._margin <= self._planned[0][0] <= offset:
            self.drop_plans()
            self._plan(offset)
        begin, future = self._planned.popleft()
        for following in self._following(begin):
            self._plan(following)
        return begin, future.result()

    def _following(self, offset: int) -> Iterator[int]:
        """Offsets that are likely to be requested next."""
        seen, most = self.seen, self._source.ahead - 1
        stride = seen.widest - self._margin
        if stride < 1:
            return
        if seen.total is not None and seen.total > offset:
            last: float = seen.total - self._margin
        else:
            # no word on how many there are: what is requested beyond the end is in vain
            last, most = math.inf, min(most, seen.pages // 4)
        following = self._planned[-1][0] if self._planned else offset
        while len(self._planned) < most and following + stride < last:
            following += stride
            yield following

    def _plan(self, offset: int) -> None:
        executor, limit = self._source.executor, self._position.limit
        assert executor is not None
        self._planned.append((offset, executor.submit(self._source.fetch, offset, limit)))

    def drop_plans(self) -> None:
        """Forgets the pages that were requested ahead."""
        for _, future in self._planned:
            future.cancel()
        self._planned.clear()
