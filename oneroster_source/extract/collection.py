"""Reads one collection of one school completely, and holds it until it is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from oneroster_source.client.client import Client
from oneroster_source.client.paginator import PageSource, read
from oneroster_source.config.settings import Settings
from oneroster_source.errors import (
    BadResponse,
    OneRosterError,
    RequestRefused,
    ResponseTooLarge,
)
from oneroster_source.extract.buffer import Buffer
from oneroster_source.extract.page_requests import (
    FilterIgnored,
    PageRequests,
    ReadRequest,
    SameAnswer,
    query,
    refuses_sort,
    smaller_limits,
)
from oneroster_source.model.filters import Filter
from oneroster_source.run_report import Outcome
from oneroster_source.transform.parser import PageParser
from oneroster_source.transform.redaction import Redaction
from oneroster_source.transform.suppression import Suppression
from oneroster_source.transform.tolerant import ROW_PROBLEMS

IMPRECISION = timedelta(days=2)
"""How much older a row may be than the filter asks: it may go by the day, in another time zone.
Still older rows show that the filter is ignored."""
_WAYS = ((True, True), (False, True), (True, False), (False, False))
"""Whether a request is sorted, and whether it is filtered by time: tried in this order."""

_COMPARE = {
    "=": pc.equal,
    "!=": pc.not_equal,
    ">": pc.greater,
    ">=": pc.greater_equal,
    "<": pc.less,
    "<=": pc.less_equal,
}


class Collection:
    """All rows of one endpoint of one school, or all that changed."""

    def __init__(
        self,
        buffer: Buffer,
        parser: PageParser,
        request: ReadRequest,
        outcome: Outcome,
        redact: Redaction,
        suppressed: Suppression | None,
    ) -> None:
        self._buffer = buffer
        self._parser = parser
        self._request = request
        self._outcome = outcome
        self.redact = redact
        self._suppressed = suppressed
        self.mode = request.mode
        """What was read, which may be more than was requested: see `make_full`."""
        self.started: datetime | None = None
        """When reading began, by the server's clock; None if it does not tell the time."""
        self.filter = Filter()
        """The filter that the server accepted."""
        self.page = 0
        """For the next reading: see `PageSource.known_page`."""
        self.answer = ""
        """Digest and total of the answer, where one answer held all rows of a delta."""
        self._started_here = datetime.now(UTC)

    def note_start(self, moment: datetime | None) -> None:
        """Notes that a reading began at a time, by the server's clock."""
        self.started = min(filter(None, (self.started, moment)), default=None)

    def make_full(self) -> None:
        """Notes that everything is read, though only changes were requested."""
        self.mode = self._outcome.mode = "full"

    @property
    def clock(self) -> datetime:
        """When reading began, by the server's clock if it tells the time."""
        return self.started or self._started_here

    @property
    def newest(self) -> datetime | None:
        """The newest `dateLastModified` that is not in the future."""
        return self._buffer.newest(self.clock)

    def fingerprint(self, since: datetime) -> str:
        """Returns the fingerprint of the rows that changed after an instant."""
        return self._buffer.fingerprint(since)

    @property
    def is_known(self) -> bool:
        """Whether the last good run loaded these very rows, and nothing has changed since."""
        if self.mode != "delta" or self._request.since is None or not self._request.recent:
            return False
        if self.answer and self.answer == self._request.answer:
            return True
        return self._request.rows == self._buffer.rows and self._request.recent == self.fingerprint(
            self._request.since
        )

    def ids(self) -> pa.ChunkedArray:
        """Returns the sourcedIds of all rows that have one."""
        return self._buffer.ids()

    @property
    def without_id(self) -> int:
        """How many rows came without a sourcedId, so that nobody knows which they are."""
        return self._buffer.problems()[ROW_PROBLEMS[0]]

    @cached_property
    def erased(self) -> pa.ChunkedArray:
        """The sourcedIds of rows that are left out, since they are about an erased person."""
        found = [pa.array([], pa.string())]
        if self._suppressed is not None:
            for wide in self._buffer.tables():
                theirs = self._suppressed.theirs(self._parser.endpoint, wide)
                found += wide.column("sourced_id").filter(theirs).drop_null().chunks
        return pa.chunked_array(found)

    def deleted(self, *columns: str) -> pa.Table | None:
        """Returns some columns of the rows that are marked as deleted and have a sourcedId; None
        where no rows were read.
        """
        parts = [
            wide.filter(pc.and_(wide.column("_deleted"), pc.is_valid(wide.column("sourced_id"))))
            for wide in self._buffer.tables()
        ]
        return pa.concat_tables([part.select(columns) for part in parts]) if parts else None

    def rows(self, left_out: pa.ChunkedArray | None = None) -> Iterator[pa.Table]:
        """Gives the wide rows in batches, each once, and without erased people; counts them in the
        outcome.

        Args:
            left_out: Ids of deleted rows to leave out.
        """
        for sent in self._buffer.tables():
            self._check_filter(sent)
            wide = sent
            if left_out is not None and len(left_out):
                named = pc.is_in(wide.column("sourced_id"), value_set=left_out)
                wide = wide.filter(pc.invert(pc.and_(wide.column("_deleted"), named)))
            if self._suppressed is not None:
                wide = self._suppressed.without(self._parser.endpoint, wide)
            self._count(wide)
            yield wide

    def close(self) -> None:
        """Frees the memory and the file that hold the rows."""
        self._buffer.close()

    def _check_filter(self, wide: pa.Table) -> None:
        """Warns where a row does not match the filter that was sent."""
        for predicate in self.filter.predicates:
            column = self._parser.column_of(predicate.field)
            if column is None or self.redact.touches(column):
                continue
            values = wide.column(column)
            try:
                value = pc.cast(pa.scalar(predicate.value), values.type)
                holds = _COMPARE[predicate.operator](values, value)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                # a value that only the server knows how to compare, such as a day with an instant
                continue
            if not pc.all(pc.fill_null(holds, True)).as_py():
                self._outcome.warn(f"the server ignores the filter by {predicate.field}")

    def _count(self, wide: pa.Table) -> None:
        outcome, stamps = self._outcome, wide.column("date_last_modified")
        if self._request.known is None:
            changed = wide
        else:
            # rows without a stamp may have changed
            later = pc.greater(stamps, pa.scalar(self._request.known, stamps.type))
            changed = wide.filter(pc.fill_null(later, True))
        live = pc.and_not(pc.is_valid(wide.column("sourced_id")), wide.column("_deleted"))
        outcome.live += pc.sum(live).as_py() or 0
        outcome.changed += len(changed)
        outcome.deleted += pc.sum(changed.column("_deleted")).as_py() or 0
        outcome.rejected += len(pc.list_flatten(wide.column("_problems")))
        outcome.undeclare(pc.list_flatten(wide.column("_leftovers")).unique().to_pylist())
        outcome.keeps_extra = not self.redact.touches("extra")


def collect(
    client: Client,
    parser: PageParser,
    request: ReadRequest,
    settings: Settings,
    outcome: Outcome,
    span: timedelta = timedelta(),
    suppressed: Suppression | None = None,
) -> Collection:
    """Reads a collection completely.

    Args:
        client: Sends the requests.
        parser: That of the endpoint.
        request: What to read.
        settings: The run's.
        outcome: Filled with what was done.
        span: How far before its newest row the collection's fingerprint may reach.
        suppressed: The erased people of the school.

    Raises:
        OneRosterError: It could not be read completely; the message names school and endpoint.
    """
    outcome.begin()

    def added(rows: int) -> None:
        outcome.rows += rows

    buffer = Buffer(added, max_rows=settings.max_rows, span=span)
    redact = Redaction(parser.endpoint, settings.privacy)
    collection = Collection(buffer, parser, request, outcome, redact, suppressed)
    problem: OneRosterError
    try:
        reading = _Reading(client, parser, settings, outcome, collection, buffer)
        reading.read(request)
        if buffer.has_no_ids and collection.mode == "delta":
            # a few rows at fault, or all of them
            outcome.warn("none of the rows that changed could be read; all rows were read")
            reading.read_everything(request)
        if buffer.has_no_ids:
            raise _no_ids(buffer)  # noqa: TRY301 - one place closes the buffer
        conflicts = len(buffer.conflicting_ids())
        if conflicts:
            outcome.warn(
                f"{conflicts:,} {'id' if conflicts == 1 else 'ids'} came on more than one row with"
                " different content; the newest row was kept"
            )
        return collection
    except OneRosterError as error:
        where_ = f"school {outcome.estab}, {outcome.endpoint}"
        problem = type(error)(error.what, where=error.where or where_, todo=error.todo)
    except BaseException:
        # the run is being stopped
        buffer.close()
        raise
    buffer.close()
    raise problem


def _no_ids(buffer: Buffer) -> OneRosterError:
    """Makes the error for rows of which none has a usable sourcedId."""
    found = buffer.problems()
    counts = "; ".join(f"{p} (rows: {found[p]:,})" for p in ROW_PROBLEMS if found[p])
    return BadResponse(
        f"no row could be read, of {buffer.rows:,} that came: {counts}",
        todo="ask the provider: sourcedId must name each row, in at most 1,000 bytes",
    )


class _Reading:
    """Requests one collection sorted and filtered, and in simpler ways where the server refuses."""

    def __init__(
        self,
        client: Client,
        parser: PageParser,
        settings: Settings,
        outcome: Outcome,
        collection: Collection,
        buffer: Buffer,
    ) -> None:
        self._client = client
        self._parser = parser
        self._settings = settings
        self._outcome = outcome
        self._collection = collection
        self._buffer = buffer
        self._own = settings.filters.get(parser.endpoint.name, Filter())
        self._limit = settings.page_size
        self._accepted = False
        """Whether the server has given a page."""

    def read(self, request: ReadRequest) -> None:
        """Reads what is requested, or more, into the buffer.

        Raises:
            OneRosterError: It could not be read completely.
        """
        refusal: OneRosterError
        while True:
            try:
                return self._in_pages(request)
            except RequestRefused as error:
                if self._accepted:
                    raise
                refusal = error
            except ResponseTooLarge as error:
                refusal = error
            wanted = self._limit
            self._limit = self._smaller_limit() or 0
            if not self._limit:
                raise refusal
            self._outcome.warn(
                f"the server does not give {wanted:,} rows at once; pages of {self._limit:,} were"
                " asked for"
            )

    def read_everything(self, request: ReadRequest) -> None:
        """Reads all rows, though only changes were requested."""
        self._collection.make_full()
        self.read(ReadRequest("full", known=request.known))

    def _smaller_limit(self) -> int | None:
        """Finds the largest smaller limit with which the server answers the simplest request."""

        def sent() -> None:
            self._outcome.requests += 1

        path, parse = self._parser.endpoint.path, self._parser.parse
        for limit in (self._limit, *smaller_limits(self._limit)):
            with suppress(RequestRefused, ResponseTooLarge):
                self._client.get(path, query(limit=limit), parse, sent=sent)
                # if this limit is accepted now, the refusal was about the filter
                return None if limit == self._limit else limit
        return None

    def _in_pages(self, request: ReadRequest) -> None:
        refusal: OneRosterError | None = None
        for ordered, narrow in _WAYS:
            if not narrow and not request.filter:
                continue
            if ordered and not narrow and not isinstance(refusal, RequestRefused):
                # the refusal was not about the filter
                break
            pages = self._pages(request, ordered=ordered, narrow=narrow)
            try:
                self._collection.page = read(self._source(pages, request), self._buffer)
            except FilterIgnored:
                self._outcome.warn(
                    "the server ignores the filter by dateLastModified; all rows were read"
                )
                return self.read_everything(request)
            except SameAnswer:
                if pages.answer != request.answer:
                    # the same page, and another total: there are more
                    return self._in_pages(replace(request, answer=""))
                # the last run loaded these rows
                self._outcome.rows += request.rows
                self._collection.answer = request.answer
                return None
            except OneRosterError as error:
                self._accepted |= pages.accepted
                if pages.accepted or not refuses_sort(error):
                    raise
                # a refusal that is not about the order may be about the size
                refusal = error if isinstance(error, RequestRefused) else refusal or error
                continue
            finally:
                self._collection.note_start(pages.started)
            return self._done(request, pages, ordered=ordered, narrow=narrow)
        assert refusal is not None
        raise refusal

    def _pages(self, request: ReadRequest, *, ordered: bool, narrow: bool) -> PageRequests:
        is_delta = narrow and request.mode == "delta"
        return PageRequests(
            self._client,
            self._parser,
            self._own & request.filter if narrow else self._own,
            self._collection.redact,
            self._outcome,
            ordered=ordered,
            expected=request.since - IMPRECISION if is_delta and request.since else None,
            known=request.answer,
        )

    def _source(self, pages: PageRequests, request: ReadRequest) -> PageSource[pa.Table]:
        return PageSource(
            pages,
            limit=self._limit,
            descending=pages.descending,
            unfiltered_total=pages.unfiltered_total if pages.filter else None,
            known_page=request.page,
            ahead=self._settings.concurrency,
            executor=self._client.server.pool,
            note=self._outcome.warn,
        )

    def _done(
        self, request: ReadRequest, pages: PageRequests, *, ordered: bool, narrow: bool
    ) -> None:
        """Notes how the rows were read; reads all again if the filter left out too much."""
        warn, buffer, delta = self._outcome.warn, self._buffer, request.mode == "delta"
        narrowed = delta and narrow and not buffer.has_no_ids
        if narrowed and request.since and request.misses(buffer.rows, pages.oldest):
            filtered = buffer.rows
            self.read_everything(request)
            if buffer.changed_since(request.since) > filtered:
                warn(
                    "the server's filter by dateLastModified leaves out rows that it should give;"
                    " all rows were read"
                )
            return
        if delta and self._outcome.requests == 1:
            self._collection.answer = pages.answer
        self._collection.filter = pages.filter
        if not ordered:
            warn("the server refuses to sort by sourcedId")
        if not narrow:
            warn("the server refuses to filter by dateLastModified; all rows were read")
            if delta:
                self._collection.make_full()
        if self._own and not buffer.rows and self._collection.mode == "full":
            warn("no row matches the filter that is set for this endpoint")
