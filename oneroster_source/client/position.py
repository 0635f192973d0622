"""Where a pass over a collection stands: which rows were taken last, and what follows them.

Each page begins before the last row of the page before, and before all rows that a server may take
for its equals: ids that differ in case, accents, punctuation or leading zeros alone may come in
another order at each request. Whatever follows the first known row, and is not itself known, is
new.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b

from oneroster_source.client.collation import ORDERS, Order, coarse, rises
from oneroster_source.errors import IncompleteRead

NARROW = 6
"""Rows of a page that are too few to request two of them again, unless ids have been seen that a
server may take for equal."""
KNOWN_ROWS = 1000
"""As many rows may come in at once before the position, however small the pages are."""


class StartOver(Exception):
    """The pass lost its place, or gives up for a reason."""

    def __init__(self, reason: IncompleteRead | None = None) -> None:
        super().__init__()
        self.reason = reason


@dataclass(slots=True)
class Observations:
    """What a pass has seen of the server."""

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
    """The orders in which all ids have come so far."""
    joined: bool = True
    """No page was taken without a row before it."""
    moved: bool = False
    """Rows came or left before the position."""
    repeated: bool = False
    """An id came again, or a page was handed on again."""
    sequence: str = ""
    """A digest of the ids in the order in which they came."""

    @property
    def proven_page(self) -> int:
        """The widest page, where the stated total was right: see `PageSource.known_page`."""
        return self.widest if self.total == self.rows and not self.moved else 0

    @property
    def ordered(self) -> bool:
        """Whether rows keep their places: ids come in an order, or on one page that stayed."""
        if self.pages <= 1 and not self.moved:
            return True
        return bool(self.orders) and self.joined

    def agrees(self, rows: int) -> bool:
        """Whether the total, unless it changed meanwhile, is that of so many different ids, or of
        the rows that came.
        """
        return self.total != self.last_total or self.total in (None, rows, self.rows)

    def compare(self, keys: list[str]) -> None:
        """Drops the orders in which the keys do not come."""
        self.orders = [order for order in self.orders if rises(keys, order)]


class Position:
    """The place that a pass has reached. Knows the keys of rows alone, and no server.

    Args:
        limit: Rows that are requested in a page.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.seen = Observations()
        self._total: int | None = None
        """What the last page states."""
        self.end = 0
        """Where the server's next unread row should be."""
        self.width = 0
        """Rows of the last page that was taken."""
        self.begin: list[str] = []
        """The first three keys of all."""
        self.tied: list[str] = []
        """The last rows, as far as the server may take them for equal."""
        self.stayed = True
        """Whether the last page began where it was requested."""
        self.behind = False
        """Whether rows that are known follow on the last page."""
        self.progress = 0
        """Pages with rows that were not known."""
        self._anchor: str | None = None
        """The row before the tied ones."""
        self._has_ties = False
        """Whether any rows at the end of a page may be equal."""
        self._frontier = ""
        """The row that is furthest from the first."""
        self._recent: deque[list[str]] = deque()
        """The keys of the last rows taken, to find the place again."""
        self._digest = blake2b(digest_size=16)

    @property
    def sequence(self) -> str:
        """A digest of the keys in the order in which they came."""
        return self._digest.hexdigest()

    def see(self, keys: list[str], total: int | None) -> None:
        """Notes what a page shows of the server, be its rows taken or not."""
        self._total = total
        if total is not None:
            self.seen.last_total = total
        self.seen.compare(keys)

    def known(self) -> set[str]:
        """Returns the keys of the last rows taken."""
        return {key for keys in self._recent for key in keys}

    def is_first_page(self, keys: list[str]) -> bool:
        """Whether a page begins with the first row of all."""
        return keys[0] == self.begin[0]

    def is_total(self, new: int) -> bool:
        """Whether the rows taken and some new ones of the last page are the total, and none came or
        left meanwhile.
        """
        seen = self.seen
        return not seen.moved and self._total == seen.total == seen.rows + new

    def overlaps(self) -> Iterator[int]:
        """Gives how many of the last rows to request again: all that may be equal, and the one
        before; where pages are too small for that, or end before these, the last row alone.
        """
        wanted, widest = len(self.tied) + 1, self.seen.widest
        if wanted >= self.limit and widest >= self.limit and len(set(self.tied)) > 1:
            self.limit = 2 * wanted
            yield wanted
        elif self._anchor is None and wanted <= self.end:
            # no row shows where they begin
            pass
        elif wanted < widest and (self._has_ties or widest >= NARROW):
            yield wanted
        # a server that has only ever given single rows may be unable to give two
        if self.seen.widest > 1:
            yield 1

    def find_new(
        self, keys: list[str], offset: int, skip: int = 0, *, alone: bool = False
    ) -> tuple[int | None, int]:
        """Finds the rows of a page that follow the known ones without a gap.

        Args:
            keys: The page.
            offset: Where it was requested.
            skip: Where in it the rows that were requested again should be.
            alone: Whether that is the last row alone.

        Returns:
            Where these rows begin, and how many from there on are new; None if no row shows that
            there is no gap.
        """
        before = [] if self._anchor is None else [self._anchor]
        expected = [self.tied[-1]] if alone else [*before, *self.tied]
        begin = skip + len(expected)
        self.stayed = keys[skip:begin] == expected
        if self.stayed and not self.behind:
            # an id that comes again, with its equal between
            self.seen.repeated |= not set(expected).isdisjoint(keys[begin:])
            self.progress += begin < len(keys)
            return begin, len(keys) - begin
        known = self.known()
        tied = coarse(self.tied[-1])
        fixed = (i for i, key in enumerate(keys) if key in known and (alone or coarse(key) != tied))
        first = next(fixed, None)
        if not offset:
            first = 0 if first is not None or not known.isdisjoint(keys) else None
        if first is None:
            return None, 0
        self.behind = keys[-1] in known and keys[-1] != self._frontier
        if skip < len(keys):
            begins = coarse(keys[skip])
            self.stayed |= begins == (tied if alone else coarse(self._anchor or ""))
        fresh = list(self._fresh(keys, 0 if alone else first, known))
        # rows seem to have moved too where the server moves an offset to its last page
        moved = bool(offset) and not self.stayed
        self.seen.moved |= moved and not self.is_total(len(fresh))
        if not fresh:
            return len(keys), 0
        self.seen.repeated = True
        self.progress += any(keys[i] not in known for i in fresh)
        # of rows with one id, all are handed on again: which of them are new, nobody can tell
        again = fresh[0] if keys[fresh[0]] not in known else keys.index(keys[fresh[0]])
        return again, len(fresh)

    def _fresh(self, keys: list[str], begin: int, known: set[str]) -> Iterator[int]:
        """Gives the indexes of keys that are not known, or come more often than they did."""
        # a row of the same id may have come before it, or it may be another one
        often = Counter(self.tied)
        for i in range(begin, len(keys)):
            often[keys[i]] -= 1
            if keys[i] not in known or (keys[i] in self.tied and often[keys[i]] < 0):
                yield i

    def take(self, keys: list[str], offset: int, start: int, new: int) -> None:
        """Takes the rows of a page from index `start` on, of which some are new.

        Raises:
            StartOver: The server began again from its first row.
        """
        seen, fresh = self.seen, keys[start:]
        if not seen.rows:
            self.begin = fresh[:3]
        elif self.begin[0] in fresh:
            place = fresh.index(self.begin[0])
            if fresh[place : place + 2] == self.begin[:2] and len(set(self.begin[:2])) > 1:
                raise StartOver
            seen.repeated = True
        self._frontier = self._frontier if self.behind else keys[-1]
        seen.rows += new
        seen.pages += 1
        seen.widest = max(seen.widest, len(keys))
        self._recent.append(fresh)
        while sum(map(len, self._recent)) - len(self._recent[0]) > max(2 * self.limit, KNOWN_ROWS):
            self._recent.popleft()
        self._digest.update("\n".join([*fresh, ""]).encode("utf-8", "surrogatepass"))
        self.stand(keys, offset)

    def stand(self, keys: list[str], offset: int) -> None:
        """Makes the end of a page the place to read on from."""
        self.width = len(keys)
        self.end = offset + len(keys)
        if self.is_total(0) and self.seen.rows < self.end:
            # the offset was moved to the last page
            self.end = self.seen.rows
        tied = coarse(keys[-1])
        count = next((i for i, k in enumerate(reversed(keys)) if coarse(k) != tied), len(keys))
        if count < len(keys):
            self._anchor = keys[-count - 1]
        elif self.tied and coarse(self.tied[-1]) != tied:
            # a page that follows on the row before
            self._anchor = self.tied[-1]
        self.tied = keys[len(keys) - count :]
        self._has_ties |= count > 1

    def walk_back(self, keys: list[str], offset: int) -> None:
        """Stands at the end of a page of known rows, on the way to where the pass was before."""
        self.behind = keys[-1] != self._frontier
        self.stand(keys, offset)
