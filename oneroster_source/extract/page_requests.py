"""The requests for the pages of one collection."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from oneroster_source.client.client import Client, Reply
from oneroster_source.client.pages import Page
from oneroster_source.errors import (
    EndpointNotFound,
    OneRosterError,
    RequestRefused,
    ServerUnavailable,
)
from oneroster_source.model.filters import Filter, where
from oneroster_source.run_report import Mode, Outcome
from oneroster_source.transform.parser import PageParser
from oneroster_source.transform.redaction import Redaction

Order = Literal["asc", "desc"]
LEAST_LIMIT = 50
"""Rows that any server is expected to give on one page."""


def smaller_limits(limit: int) -> Iterator[int]:
    """Gives limits to try where one is refused, each half of the one before."""
    while limit > LEAST_LIMIT:
        limit = max(LEAST_LIMIT, limit // 2)
        yield limit


def query(
    wanted: Filter | None = None,
    *,
    limit: int | None = None,
    offset: int | None = 0,
    order: Order | None = None,
) -> dict[str, str]:
    """Returns the parameters of a request for rows; without a limit, for all at once."""
    params = {"filter": str(wanted)} if wanted else {}
    if order:
        params |= {"sort": "sourcedId", "orderBy": order}
    if limit is not None:
        params |= {"limit": str(limit), "offset": str(offset)}
    return params


def refuses_sort(error: OneRosterError) -> bool:
    """Whether an error may mean that the server does not sort."""
    return isinstance(error, RequestRefused) or error.status in (403, 404, 500)


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """Which rows to read of a collection, and what is known of them already.

    Args:
        mode: full, delta (from a cursor) or window (from `since` to `until`).
        since: Rows changed after this instant; None for all.
        until: Rows changed before this instant; None for all.
        known: The cursor of the last good run: rows changed after it are new to the destination.
        recent: The fingerprint of those of these rows that the destination has.
        page: See `PageSource.known_page`.
        answer: Digest and total of the one answer that held these rows the last time.
    """

    mode: Mode
    since: datetime | None = None
    until: datetime | None = None
    known: datetime | None = None
    recent: str = ""
    page: int = 0
    answer: str = ""

    @property
    def rows(self) -> int:
        """The number of rows in the fingerprint; 0 if there is none."""
        return int(self.recent.partition(" ")[0] or 0)

    def misses(self, rows: int, oldest: datetime | None) -> bool:
        """Whether rows seem to be missing from a delta. It reaches back before the newest known
        row, which must be in it, unless it was changed again or removed.
        """
        if self.known is None or self.since is None:
            return False
        # a filter that goes by the day leaves out the first day, which may be all there is
        is_short = self.known - self.since < timedelta(days=1)
        return rows < self.rows or oldest is None or (is_short and oldest > self.known)

    @property
    def filter(self) -> Filter:
        wanted = Filter()
        if self.since is not None:
            wanted &= where("dateLastModified", ">", self.since)
        if self.until is not None:
            wanted &= where("dateLastModified", "<", self.until)
        return wanted


class FilterIgnored(Exception):
    """The server gives rows that are much older than the filter allows."""


class SameAnswer(Exception):
    """The server gives the same page as the last time."""


class PageRequests:
    """Fetches the pages of one reading. Thread-safe.

    Args:
        client: Sends the requests.
        parser: Parses the bodies.
        wanted: The filter to send.
        redact: Removes from rows what is not to be kept.
        outcome: Counts requests and pages; takes warnings.
        ordered: Whether to request an order.
        expected: Rows that changed before this instant show that the filter is ignored.
        known: See `ReadRequest.answer`.
    """

    def __init__(
        self,
        client: Client,
        parser: PageParser,
        wanted: Filter,
        redact: Redaction,
        outcome: Outcome,
        *,
        ordered: bool,
        expected: datetime | None,
        known: str,
    ) -> None:
        self._client = client
        self._parser = parser
        self._redact = redact
        self._outcome = outcome
        self._expected = expected
        self.filter = wanted
        self._ordered = ordered
        self._lock = threading.Lock()
        self._known = known
        self.answer = ""
        """Digest and total of the first answer."""
        self.oldest: datetime | None = None
        """The oldest change in a delta."""
        self.started: datetime | None = None
        """The server's clock at the first answer."""
        self.accepted = False
        """Whether the server has given a page."""

    def __call__(self, offset: int | None, limit: int | None) -> Page[pa.Table]:
        order: Order | None = "asc" if self._ordered else None
        params = query(self.filter, limit=limit, offset=offset, order=order)
        digest, listed = "", True

        def parsed(body: bytes | bytearray) -> pa.Table | None:
            nonlocal digest, listed
            if not offset:
                digest = blake2b(body, digest_size=12).hexdigest()
                listed = b"[" in body
            known = digest and self._known.startswith(digest)
            return None if known else self._parser.parse(body)

        def fetch() -> Reply[pa.Table | None]:
            return self._client.get(self._parser.endpoint.path, params, parsed, sent=self._sent)

        try:
            reply = fetch()
            if not listed:
                # no rows; or an answer that was cut, and is another one the next time
                reply = fetch()
        except EndpointNotFound:
            if not offset:
                raise
            # some servers have no page beyond the end; the paginator verifies that it is the end
            return Page([], self._redact(self._parser.parse(b"[]")))
        if reply.warning:
            self._outcome.warn(reply.warning)
        if not offset:
            self.answer = f"{digest} {reply.total}"
        if reply.value is None:
            raise SameAnswer
        self.accepted = True
        self._note(reply.value, reply.date)
        keys = reply.value.column("_key").to_pylist()
        return Page(keys, self._redact(reply.value), reply.total)

    def _note(self, wide: pa.Table, date: datetime | None) -> None:
        """Counts a page, and checks that its rows are as new as those that were requested.

        Raises:
            FilterIgnored: They are not.
        """
        with self._lock:
            self._outcome.pages += 1
            if date is not None:
                self.started = min(self.started or date, date)
        if self._expected is None:
            return
        oldest = pc.min(wide.column("date_last_modified")).as_py()
        if oldest is not None and oldest < self._expected:
            raise FilterIgnored
        with self._lock:
            self.oldest = min(filter(None, (oldest, self.oldest)), default=None)

    def unfiltered_total(self) -> int | None:
        """Requests the total without any filter."""
        path, parse = self._parser.endpoint.path, self._parser.parse
        return self._client.get(path, query(limit=1), parse, sent=self._sent).total

    def descending(self, offset: int, rows: int) -> list[str] | None:
        """Requests ids in descending order, from an offset on; None if the server refuses."""
        if not self._ordered:
            return None
        params = query(self.filter, limit=rows, offset=offset, order="desc")
        try:
            reply = self._client.get(
                self._parser.endpoint.path, params, self._parser.parse, sent=self._sent
            )
        except (EndpointNotFound, ServerUnavailable):
            # too slow to sort so; or not available, which the next request will show
            return None
        except OneRosterError as error:
            if not refuses_sort(error):
                raise
            return None
        keys: list[str] = reply.value.column("_key").to_pylist()
        return keys

    def _sent(self) -> None:
        with self._lock:
            self._outcome.requests += 1
