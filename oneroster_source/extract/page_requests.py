"""What is requested of a server for one collection, and the pages that come."""

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
"""Rows that any server is expected to give at once."""


def smaller_limits(limit: int) -> Iterator[int]:
    """Limits to try where one is refused, each half of the one before."""
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
    """The parameters of a request for rows; without a limit, for all at once."""
    params = {"filter": str(wanted)} if wanted else {}
    if order:
        params |= {"sort": "sourcedId", "orderBy": order}
    if limit is not None:
        params |= {"limit": str(limit), "offset": str(offset)}
    return params


def refuses_sort(error: OneRosterError) -> bool:
    """Whether an error may be a server's way to say that it does not sort."""
    return isinstance(error, RequestRefused) or error.status in (403, 404, 500)


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """What to read.

    Args:
        mode: full, delta (from a cursor) or window (from `since` to `until`).
        since: Rows changed after this instant; None for all.
        until: Rows changed before this instant; None for all.
        known: The cursor of the last good run: rows changed after it are new to the destination.
        recent: The fingerprint of the rows that the destination has of these.
        page: Rows that a page is known to hold if there are as many: see `PageSource.known_page`.
        answer: What names the one answer, body and total, that held these rows the last time.
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
        """The number of rows that the fingerprint names; 0 if there is none."""
        return int(self.recent.partition(" ")[0] or 0)

    def misses(self, rows: int, oldest: datetime | None) -> bool:
        """Whether an answer to a delta seems to lack rows: it reaches back before the newest row
        that is known, which is among them unless it was changed again or removed."""
        if self.known is None or self.since is None:
            return False
        # a filter by the day leaves out those of the first day: where it is the only one, all
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
    """The server gives rows that are much older than those it was asked for."""


class SameAnswer(Exception):
    """The server gives the page that it gave the last time."""


class PageRequests:
    """Fetches the pages of one reading. Called from many threads.

    Rows that changed before the instant `expected` show that the server ignores the filter.
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
        self.wanted = wanted
        self._ordered = ordered
        self._lock = threading.Lock()
        self._known = known
        """An answer that need not be read again."""
        self.answer = ""
        """The first answer."""
        self.oldest: datetime | None = None
        """The oldest change in a delta."""
        self.started: datetime | None = None
        """The server's clock at the first answer."""
        self.accepted = False
        """Whether the server has given a page."""

    def __call__(self, offset: int | None, limit: int | None) -> Page[pa.Table]:
        order: Order | None = "asc" if self._ordered else None
        params = query(self.wanted, limit=limit, offset=offset, order=order)
        digest, listed = "", True

        def parsed(body: bytes | bytearray) -> pa.Table | None:
            nonlocal digest, listed
            if not offset:
                digest = blake2b(body, digest_size=12).hexdigest()
                listed = b"[" in body
            known = digest and self._known.startswith(digest)
            return None if known else self._parser.parse(body)

        def ask() -> Reply[pa.Table | None]:
            return self._client.get(self._parser.endpoint.path, params, parsed, sent=self._sent)

        try:
            reply = ask()
            if not listed:
                # no rows, or an answer that was cut: then it is another one the next time
                reply = ask()
        except EndpointNotFound:
            if not offset:
                raise
            # some servers have no page beyond the end; that it is the end, the reader verifies
            return Page([], self._redact(self._parser.parse(b"[]")))
        if reply.warning:
            self._outcome.warn(reply.warning)
        if not offset:
            self.answer = f"{digest} {reply.total}"
        if reply.value is None:
            raise SameAnswer
        self.accepted = True
        with self._lock:
            self._outcome.pages += 1
            if reply.date is not None:
                self.started = min(self.started or reply.date, reply.date)
        if self._expected is not None:
            oldest = pc.min(reply.value.column("date_last_modified")).as_py()
            if oldest is not None and oldest < self._expected:
                raise FilterIgnored
            with self._lock:
                self.oldest = min(filter(None, (oldest, self.oldest)), default=None)
        keys = reply.value.column("_key").to_pylist()
        return Page(keys, self._redact(reply.value), reply.total)

    def unfiltered_total(self) -> int | None:
        """The total without any filter."""
        path, parse = self._parser.endpoint.path, self._parser.parse
        return self._client.get(path, query(limit=1), parse, sent=self._sent).total

    def descending(self, offset: int, rows: int) -> list[str] | None:
        """So many ids from an offset on, in descending order."""
        if not self._ordered:
            return None
        params = query(self.wanted, limit=rows, offset=offset, order="desc")
        try:
            reply = self._client.get(
                self._parser.endpoint.path, params, self._parser.parse, sent=self._sent
            )
        except (EndpointNotFound, ServerUnavailable):
            # a server too slow to sort so; or away, which the next request will show
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
