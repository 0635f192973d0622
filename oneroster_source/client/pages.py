"""What the paginator asks for, and what it gets: pages, from a server, into a buffer."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """The rows that one request gave."""

    keys: list[str]
    """A name for each row: its sourcedId where it has one."""
    content: T
    total: int | None = None
    """How many rows the server says that there are."""


class RowBuffer(Protocol[T_contra]):
    """Collects the rows of a pass; cleared when a pass has to begin again."""

    def clear(self) -> None: ...

    def add(self, content: T_contra, start: int) -> None:
        """Adds the rows of a page from index `start` on."""

    def keys(self) -> set[str]:
        """Returns what names the added rows, which need not be the keys of their pages."""

    def keys_of(self, content: T_contra) -> list[str]:
        """Returns the same for the rows of a page."""

    def expect_repeats(self) -> None:
        """Notes that a row may have been added twice, and is wanted once."""


Fetch = Callable[[int | None, int | None], Page[T]]
"""Gets the page at an offset with a limit; both None request everything at once."""
Descending = Callable[[int, int], list[str] | None]
"""Gets ids in descending order: from an offset, so many. None if the server cannot sort so."""


@dataclass(frozen=True, slots=True)
class PageSource(Generic[T]):
    """A collection on a server, and how to read it.

    Args:
        fetch: Gets a page. Like `descending`, called from `executor` too, if there is one.
        limit: Rows to request in a page.
        descending: Gets ids from the end, to prove that it is the end.
        unfiltered_total: Where a filter is sent, gets the total without it: some servers state
            that one whatever the filter.
        known_page: Rows that a page is known to hold: a first page of fewer rows than this, and
            than `limit`, that states just as many as its total, is complete without a second
            request. A server that caps pages, or states the rows of the page as the total, cannot
            deceive: its page would be as wide as the widest, or its total have been wrong before.
        ahead: Pages to request at once.
        executor: Makes the requests; without one, the calling thread does.
        note: Called with remarks for people on what the server does.
    """

    fetch: Fetch[T]
    limit: int
    descending: Descending = lambda offset, rows: None
    unfiltered_total: Callable[[], int | None] | None = None
    known_page: int = 0
    ahead: int = 1
    executor: Executor | None = None
    note: Callable[[str], None] = lambda text: None

    def page(self, offset: int | None, limit: int | None) -> Page[T]:
        """Gets one page."""
        if self.executor is None:
            return self.fetch(offset, limit)
        return self.executor.submit(self.fetch, offset, limit).result()

    def last_ids(self, offset: int, rows: int) -> list[str] | None:
        """Gets ids in descending order, as `descending` does."""
        if self.executor is None:
            return self.descending(offset, rows)
        return self.executor.submit(self.descending, offset, rows).result()
