"""One run of the source: reads the endpoints of all schools side by side.

A `Run` holds what its endpoints share: settings, clients, threads, and what is known about the
destination. `Run.rows` reads one endpoint; dlt calls it once for each resource.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import dlt

from oneroster_source.config.schools import School
from oneroster_source.config.settings import Settings
from oneroster_source.destination.backends.base import QueriesNotSupported
from oneroster_source.destination.existing_rows import (
    ExistingRows,
    require_merge,
    require_versions,
)
from oneroster_source.destination.integrity import Written
from oneroster_source.destination.state import cursors_of, prunes
from oneroster_source.errors import ConfigurationError, DestinationError, OneRosterError
from oneroster_source.extract.batch import Batch, Part
from oneroster_source.extract.buffer import BATCH_ROWS
from oneroster_source.extract.clients import Clients
from oneroster_source.extract.collection import Collection, collect
from oneroster_source.extract.compare import Contents, existing
from oneroster_source.extract.cursors import Cursors, require_same_pseudonyms
from oneroster_source.extract.decision import Decider, Decision, Tables
from oneroster_source.extract.page_requests import ReadRequest
from oneroster_source.model import HISTORY_KEPT, REJECTED_ROWS, SYNC_RUN_DETAILS, Endpoint, Table
from oneroster_source.model.type_map import arrow_schema
from oneroster_source.run_report import Outcome, Plan, Report
from oneroster_source.transform.duckdb_engine import engine
from oneroster_source.transform.flatten import flatten
from oneroster_source.transform.parser import PageParser
from oneroster_source.transform.suppression import Suppression, suppressions

MOST_COLLECTIONS = 16
"""Collections that are read at once, each waiting for pages most of the time; and those of one
endpoint that may wait to be loaded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What one run is to do; settings hold for every run.

    Args:
        since: With or without `until`: read a window of changes, and leave the cursors alone.
        until: The end of the window.
        full: Read everything again, whatever the cursors say.
        allow_deletes: Skip the mass-deletion guard.
        only: The estabs to read; None for all that are configured.
        dry_run: Read and compare, and hand nothing over.

    Raises:
        ConfigurationError: They contradict each other, or an instant has no time zone.
    """

    since: datetime | None = None
    until: datetime | None = None
    full: bool = False
    allow_deletes: bool = False
    only: Sequence[str] | None = None
    dry_run: bool = False

    def __post_init__(self) -> None:
        for name, value in (("since", self.since), ("until", self.until)):
            if value is not None and (not isinstance(value, datetime) or value.tzinfo is None):
                raise ConfigurationError(
                    f"{name} is no datetime with a time zone", todo="give a UTC datetime"
                )
        if self.full and self.window:
            raise ConfigurationError("a window and a full pass exclude each other", todo="give one")

    @property
    def window(self) -> ReadRequest | None:
        """The window to read, if only that is to be read."""
        if self.since or self.until:
            return ReadRequest("window", since=self.since, until=self.until)
        return None


class Run:
    """Reads the endpoints of the schools of one run.

    Args:
        settings: The settings.
        options: What the run is to do.
        report: Filled with what was read. With a report, a collection that fails is noted there and
            the others go on; without one, a failure raises.
        exclusive: Whether nobody else loads into the destination meanwhile, and the pipeline began
            with a new working folder: empty tables are then filled without a merge. Rows that a
            kept folder would load twice are only taken back by a merge.
        nobody_erased: Whether the destination is known to have no list of erased people, so that it
            need not be queried for one.

    Raises:
        ConfigurationError: A school that was chosen is not configured.
    """

    def __init__(
        self,
        settings: Settings,
        options: RunOptions,
        report: Report | None = None,
        *,
        exclusive: bool = False,
        nobody_erased: bool = False,
    ) -> None:
        self.settings = settings.only(options.only)
        self.written = Written()
        """Which rows were handed over."""
        self._options = options
        self._report = report or Report()
        self._report.expect(len(self.settings.endpoints))
        self._strict = report is None
        self._exclusive = exclusive and not options.dry_run
        self._nobody_erased = nobody_erased
        self._done = "all else is loaded, and {:,} deletions wait"
        if options.dry_run:
            self._done = "a load would let these {:,} deletions wait, and load all else"
        elif self._strict:
            self._done = "nothing was loaded"
        self._now = datetime.now(UTC)
        self._existing_rows = ExistingRows(settings.lock_timeout)
        self._keep = settings.deleted == "keep"
        self._engine = engine()
        self._lock = threading.Lock()
        self._active = 0
        self._known: Mapping[str, frozenset[str]] = {}
        """Tables that dlt has loaded before, with their columns."""
        self._decider: Decider
        self._suppressed: Mapping[str, Suppression] = {}
        """Erased people, by school."""
        self._clients: Clients
        self._pool: ThreadPoolExecutor | None = None

    def _child_tables(self, endpoint: Endpoint) -> Iterator[Table]:
        return endpoint.child_tables(references=self.settings.reference_tables)

    def version_tables(self, endpoint: Endpoint) -> tuple[Table, ...]:
        """The tables of versions, which `history.keep` fills after the load."""
        versions = endpoint.history if self.settings.history else None
        return (versions, HISTORY_KEPT) if versions else ()

    def rows(self, endpoint: Endpoint) -> Iterator[Any]:
        """Reads an endpoint of all schools side by side; yields each school when it is complete.

        It never blocks: while no school is complete it yields None, and dlt turns to the other
        endpoints.
        """
        cursors = Cursors(dlt.current.resource_state(), endpoint, self.settings)
        parser = PageParser(endpoint, self._engine, time_zone=self.settings.time_zone)
        todo = deque(self._todo(endpoint, cursors))
        reading: dict[Future[Collection], Outcome] = {}
        require_merge()
        if self.settings.history and self._pool is None:
            require_versions()
        self._enter()
        try:
            direct = self._exclusive and cursors.is_new and self._is_empty(endpoint)
            batch = Batch(endpoint, self._report, self.written, self.settings, direct=direct)
            batch.add(self._tables_to_make(endpoint))
            while todo or reading:
                # no more at once, so that what is read does not pile up before it is loaded
                while todo and len(reading) < MOST_COLLECTIONS:
                    school, request, outcome = todo.popleft()
                    future = self._submit(school, parser, request, outcome, cursors.span)
                    reading[future] = outcome
                complete, _ = wait(reading, timeout=0, return_when=FIRST_COMPLETED)
                if not complete:
                    yield None
                for future in complete:
                    for _ in self._finish(future, cursors, reading.pop(future), batch):
                        if batch.rows >= BATCH_ROWS:
                            yield from batch.given_out()
            if not self._options.dry_run:
                yield from batch.given_out()
        finally:
            for future in reading:
                future.add_done_callback(_discard)
            self._leave()

    def _todo(
        self, endpoint: Endpoint, cursors: Cursors
    ) -> Iterator[tuple[School, ReadRequest, Outcome]]:
        for school in self.settings.schools:
            request = self._options.window or cursors.next_request(
                school.estab, full=self._options.full, now=self._now
            )
            outcome = self._report.outcome(school.estab, endpoint.name)
            outcome.mode, outcome.first = request.mode, not cursors.knows(school.estab)
            yield school, request, outcome

    def _tables_to_make(self, endpoint: Endpoint) -> Tables:
        """Empty tables for those that the destination lacks, or that lack columns there."""
        return {
            table.name: arrow_schema(table).empty_table()
            for table in (
                *(endpoint.table, *self._child_tables(endpoint)),
                *(REJECTED_ROWS, SYNC_RUN_DETAILS),
                *self.version_tables(endpoint),
            )
            if not self._known.get(table.name, frozenset()).issuperset(
                column.name for column in table.columns
            )
        }

    def _submit(
        self,
        school: School,
        parser: PageParser,
        request: ReadRequest,
        outcome: Outcome,
        span: timedelta,
    ) -> Future[Collection]:
        assert self._pool is not None
        client = self._clients.of(school)
        suppressed = self._suppressed.get(school.estab)
        return self._pool.submit(
            collect, client, parser, request, self.settings, outcome, span, suppressed
        )

    def _finish(
        self, future: Future[Collection], cursors: Cursors, outcome: Outcome, batch: Batch
    ) -> Iterator[None]:
        """Puts a complete collection into the batch, yielding now and then for it to be given out;
        then moves its cursor: both are in the same load.
        """
        with ExitStack() as stack:
            try:
                collection = future.result()
                stack.callback(collection.close)
                # before anything is handed over, since it may fail
                decision = self._decide(collection, cursors, outcome, batch)
                if self._options.dry_run:
                    outcome.plan = self._planned(collection, outcome, batch.endpoint, decision)
            except OneRosterError as error:
                self._report.end(outcome, error)
                if self._strict:
                    raise
                batch.note(outcome)
                return
            held = decision.error(outcome, done=self._done)
            if held is not None and self._strict:
                # nobody would read that deletions wait
                self._report.end(outcome, held)
                raise held
            if not self._options.dry_run:
                yield from self._hand_over(collection, cursors, outcome, batch, decision)
        self._report.end(outcome, held)
        batch.note(outcome)

    def _hand_over(
        self,
        collection: Collection,
        cursors: Cursors,
        outcome: Outcome,
        batch: Batch,
        decision: Decision,
    ) -> Iterator[None]:
        """Puts what was decided into the batch, and moves the cursor."""
        if collection.is_known:
            outcome.cursor = cursors.stay(outcome.estab, collection)
            return
        batch.add(decision.tables)
        part = Part(tombstones=not decision.cleared, partial=collection.mode != "full")
        if part.partial and batch.endpoint.name in decision.tables:
            batch.remember(decision.tables[batch.endpoint.name])
        for wide in collection.rows(decision.left_out):
            batch.add_rows(wide, outcome.estab, part)
            yield
        self._move(collection, cursors, outcome, decision)

    def _planned(
        self, collection: Collection, outcome: Outcome, endpoint: Endpoint, decision: Decision
    ) -> Plan:
        """Compares the rows with those in the destination, by content, as a load would.

        Raises:
            DestinationError: The destination cannot be queried.
        """
        if collection.is_known:
            return Plan(0, 0)
        estab = outcome.estab
        children = tuple(self._child_tables(endpoint))
        sent = Contents(endpoint, children)
        for wide in collection.rows(decision.left_out):
            sent.add(flatten(wide, endpoint, estab))
        if not sent.rows:
            return Plan(0, 0, decision.deleted)
        try:
            with self._existing_rows.open():
                there = self._decider.ids(endpoint.table, estab)
                known = [] if there is None else there.to_pylist()
                found = existing(self._existing_rows, endpoint, children, estab)
        except QueriesNotSupported:
            return Plan(deleted=decision.deleted)
        return Plan(*sent.changes(found, known), decision.deleted)

    def _decide(
        self, collection: Collection, cursors: Cursors, outcome: Outcome, batch: Batch
    ) -> Decision:
        """Decides what a collection means for the destination; its numbers go into the outcome.

        Raises:
            DestinationError: The destination cannot be queried.
        """
        endpoint, estab = batch.endpoint, outcome.estab
        if batch.direct:
            # there is nothing that could be missing
            return self._decider.first(endpoint, collection, estab)
        decision = self._decider.decide(
            endpoint,
            collection,
            outcome,
            came=cursors.came(estab, self._decider.since(endpoint)),
            waiting=cursors.waiting(estab),
        )
        outcome.gone, outcome.kept, outcome.held = decision.missing, decision.kept, decision.held
        if decision.warning:
            outcome.warn(decision.warning)
        return decision

    def _move(
        self, collection: Collection, cursors: Cursors, outcome: Outcome, decision: Decision
    ) -> None:
        """Moves the cursor of a school, in the same load as its rows."""
        estab, endpoint = outcome.estab, outcome.endpoint
        if decision.held:
            outcome.cursor = cursors.hold(estab, of=decision.of)
        elif collection.mode != "window":
            outcome.cursor = cursors.advance(estab, collection, now=self._now)
        since = self._decider.since(self.settings.dialect[endpoint])
        cursors.note_came(estab, since, decision.came)

    def _is_empty(self, endpoint: Endpoint) -> bool:
        """Whether the destination can be queried and holds no row of the endpoint or its lists.

        Rows without a cursor come from a load that was cut short, or from a state that was lost.
        """
        try:
            there = self._decider.in_storage()
            return not any(
                self._existing_rows.is_filled(table)
                for table in endpoint.tables()
                if table.name in there
            )
        except (QueriesNotSupported, DestinationError):
            return False

    def _enter(self) -> None:
        with self._lock:
            if self._pool is None:
                state, settings = dlt.current.source_state(), self.settings
                require_same_pseudonyms(cursors_of(state), settings.privacy, settings.dialect)
                self._suppressed = self._erased_people()
                self._clients = Clients(settings, self._report)
                # once: dlt forgets what it has seen as soon as a table gets new rows
                schema = dlt.current.source_schema()
                self._known = {
                    name: frozenset(schema.tables[name]["columns"])
                    for name in schema.data_table_names(seen_data_only=True)
                }
                self._decider = self._new_decider(prunes(state))
                self._pool = ThreadPoolExecutor(MOST_COLLECTIONS, thread_name_prefix="oneroster")
            self._active += 1

    def _new_decider(self, prunes: Mapping[str, Mapping[str, str]]) -> Decider:
        """Makes what decides in one run; it caches what it has queried from the destination."""
        return Decider(
            self._existing_rows,
            self.settings,
            now=self._now,
            allow_deletes=self._options.allow_deletes,
            prunes=prunes,
            exact=self._options.dry_run,
        )

    def _erased_people(self) -> dict[str, Suppression]:
        """Looks up the erased people of this run's schools.

        Raises:
            ConfigurationError: They were erased under another key than that of the settings.
        """
        if self._nobody_erased:
            return {}
        try:
            listed = self._existing_rows.suppressed()
        except QueriesNotSupported:
            # nobody can be erased from a destination that takes no queries
            return {}
        estabs = {school.estab for school in self.settings.schools}
        key, dialect = self.settings.privacy.key, self.settings.dialect
        return suppressions(listed, estabs, key, dialect)

    def _leave(self) -> None:
        """Ends the threads and connections with the last resource, also after an error."""
        with self._lock:
            self._active -= 1
            if self._active or self._pool is None:
                return
            pool, self._pool, clients = self._pool, None, self._clients
        pool.shutdown(wait=False, cancel_futures=True)
        clients.close()
        pool.shutdown()
        self._report.end_reading()


def _discard(future: Future[Collection]) -> None:
    """Frees the memory of a collection, whether it was loaded or not."""
    if not future.cancelled() and future.exception() is None:
        future.result().close()
