"""The dlt source: one resource for each endpoint, for all schools of the run together."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import dlt
import pyarrow as pa
from dlt.common.configuration.specs import BaseConfiguration
from dlt.extract import DltResource

from oneroster_source.client.client import Client
from oneroster_source.client.pauses import Gates
from oneroster_source.client.transport import Server
from oneroster_source.config.schools import School
from oneroster_source.config.settings import Settings, resolve
from oneroster_source.destination.backends.base import QueriesNotSupported
from oneroster_source.destination.existing_rows import (
    ExistingRows,
    require_database,
    require_merge,
)
from oneroster_source.destination.hints import (
    REJECTED_MERGE,
    RUN_MERGE,
    child_merge,
    hints,
    no_rejected,
    row_merge,
)
from oneroster_source.destination.state import cursors_of, prunes
from oneroster_source.errors import ConfigurationError, DestinationError, OneRosterError
from oneroster_source.extract.buffer import BATCH_ROWS, FEW_ROWS
from oneroster_source.extract.collection import Collection, collect
from oneroster_source.extract.compare import Contents, existing
from oneroster_source.extract.cursors import Cursors, require_same_pseudonyms
from oneroster_source.extract.decision import Decider, Decision, Tables
from oneroster_source.extract.deletions import alive
from oneroster_source.extract.page_requests import ReadRequest
from oneroster_source.model import HISTORY_KEPT, REJECTED_ROWS, SYNC_RUN_DETAILS, Endpoint, Table
from oneroster_source.model.type_map import arrow_schema
from oneroster_source.run_report import Outcome, Plan, Report
from oneroster_source.transform.duckdb_engine import engine
from oneroster_source.transform.flatten import flatten
from oneroster_source.transform.parser import PageParser
from oneroster_source.transform.suppression import Suppression, suppressions

_log = logging.getLogger("dlt")
# dlt warns of every table in which a declared type is closer than Arrow's: JSON in a text column
_log.addFilter(lambda record: "when merging arrow schema with dlt schema" not in str(record.msg))

MOST_COLLECTIONS = 16
"""Collections that are read at once, each waiting for pages most of the time; and those of one
endpoint that may wait to be loaded."""
FEW_KEYS = 15_000
"""Rows that are looked at by their keys after a load: more, and whole tables are."""


# Flat tables need no root key, and dlt would change its schema from run to run to add it. Without
# this spec, dlt would look for each argument in the environment, down to a bare SINCE or FULL.
@dlt.source(name="oneroster", section="oneroster", root_key=False, spec=BaseConfiguration)
def oneroster(
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    full: bool = False,
    allow_deletes: bool = False,
    only: Sequence[str] | None = None,
    report: Report | None = None,
    alone: bool = False,
    plan: bool = False,
    **settings: Any,
) -> list[DltResource]:
    """School rosters from OneRoster 1.1 APIs: a resource for each endpoint.

    Args:
        since: With or without `until`: read rows changed after this instant, a bounded window, and
            leave the cursors where they are.
        until: Read rows changed before this instant.
        full: Read everything again, whatever the cursors say.
        allow_deletes: Believe a full pass however many rows are gone at the server.
        only: The estabs to read, of the schools that are configured.
        report: Filled with what was read. With a report, a collection that fails is noted there
            and the others go on: look at `report.failed`. Without one, a failure raises.
        alone: A promise that nobody else loads into the destination meanwhile, and that the
            pipeline began with a new working folder: tables that are empty are then filled at
            once, without a merge. What a kept folder would load twice only a merge takes back.
        plan: Read and compare, and hand nothing over: see `Outcome.plan` in the report.
        **settings: Any setting, such as `estab`, `schools`, `endpoints`. What is
            not given here comes from dlt's configuration, section `sources.oneroster`.

    Returns:
        Resources that load with any dlt pipeline into any destination that can merge.

    Raises:
        ConfigurationError: A setting is missing or wrong.
    """
    for name, value in (("since", since), ("until", until)):
        if value is not None and (not isinstance(value, datetime) or value.tzinfo is None):
            raise ConfigurationError(
                f"{name} is no datetime with a time zone", todo="give a UTC datetime"
            )
    if full and (since or until):
        raise ConfigurationError("a window and a full pass exclude each other", todo="give one")
    resolved = resolve(**settings).only(only)
    window = ReadRequest("window", since=since, until=until) if since or until else None
    run = _Run(
        resolved,
        report,
        window=window,
        full=full,
        allow_deletes=allow_deletes,
        alone=alone,
        plan=plan,
    )
    return [run.resource(resolved.dialect[name]) for name in resolved.endpoints]


class _Run:
    """What the resources of one source share: servers, clients, and threads."""

    def __init__(
        self,
        settings: Settings,
        report: Report | None,
        *,
        window: ReadRequest | None,
        full: bool,
        allow_deletes: bool,
        alone: bool,
        plan: bool,
    ) -> None:
        self._settings = settings
        self._report = report or Report()
        self._strict = report is None
        self._window = window
        self._full = full
        self._allow_deletes = allow_deletes
        self._alone = alone and not plan
        self._plan = plan
        self._done = "all else is loaded, and {:,} deletions wait"
        if plan:
            self._done = "a load would let these {:,} deletions wait, and load all else"
        elif self._strict:
            self._done = "nothing was loaded"
        self._now = datetime.now(UTC)
        self._held = ExistingRows(settings.lock_timeout)
        self._keep = settings.deleted == "keep"
        self._engine = engine()
        self._lock = threading.Lock()
        self._active = 0
        self._known: Mapping[str, frozenset[str]] = {}
        """Tables that dlt has loaded before, with their columns."""
        self._decider = self._new_decider({})
        self._suppressed: Mapping[str, Suppression] = {}
        """Erased people, by school."""
        self._stopped = threading.Event()
        self._pool: ThreadPoolExecutor | None = None
        self._gates = Gates()
        self._servers: dict[str, Server] = {}
        self._clients: dict[str, Client] = {}

    def resource(self, endpoint: Endpoint) -> DltResource:
        """The resource of an endpoint, with all its tables declared."""
        resource = dlt.resource(
            lambda: self._rows(endpoint), name=endpoint.name, max_table_nesting=0
        )
        # the variants first: they are made from the hints of the resource as it is then
        for table in endpoint.child_tables():
            resource.apply_hints(
                **hints(table), write_disposition=child_merge(table), create_table_variant=True
            )
        resource.apply_hints(
            **hints(REJECTED_ROWS), write_disposition=REJECTED_MERGE, create_table_variant=True
        )
        resource.apply_hints(
            **hints(SYNC_RUN_DETAILS), write_disposition=RUN_MERGE, create_table_variant=True
        )
        for table in self._version_tables(endpoint):
            resource.apply_hints(
                **hints(table), write_disposition="append", create_table_variant=True
            )
        merge = row_merge(keep_deleted=self._keep)
        resource.apply_hints(**hints(endpoint.table), write_disposition=merge)
        return resource

    def _child_tables(self, endpoint: Endpoint) -> Iterator[Table]:
        return endpoint.child_tables(references=self._settings.reference_tables)

    def _version_tables(self, endpoint: Endpoint) -> tuple[Table, ...]:
        """What `history.keep` fills after the load."""
        versions = endpoint.history if self._settings.history else None
        return (versions, HISTORY_KEPT) if versions else ()

    def _rows(self, endpoint: Endpoint) -> Iterator[Any]:
        """Reads the endpoint of all schools side by side; yields each when it is whole.

        It never waits: where nothing is whole yet, it yields None, and dlt turns to the others.
        """
        cursors = Cursors(dlt.current.resource_state(), endpoint, self._settings)
        parser = PageParser(endpoint, self._engine, time_zone=self._settings.time_zone)
        todo = deque(self._todo(endpoint, cursors))
        reading: dict[Future[Collection], Outcome] = {}
        require_merge()
        if self._settings.history and self._pool is None:
            require_database()
        self._enter()
        try:
            straight = self._alone and cursors.is_new and self._is_empty(endpoint)
            batch = _Batch(endpoint, self._report, self._settings, straight=straight)
            batch.add(self._tables_to_make(endpoint))
            while todo or reading:
                # no more at once, so that what is read does not pile up before it is loaded
                while todo and len(reading) < MOST_COLLECTIONS:
                    school, request, outcome = todo.popleft()
                    future = self._submit(school, parser, request, outcome, cursors.span)
                    reading[future] = outcome
                whole, _ = wait(reading, timeout=0, return_when=FIRST_COMPLETED)
                if not whole:
                    yield None
                for future in whole:
                    for _ in self._finish(future, cursors, reading.pop(future), batch):
                        if batch.rows >= BATCH_ROWS:
                            yield from batch.given_out()
            if not self._plan:
                yield from batch.given_out()
        finally:
            for future in reading:
                future.add_done_callback(_discard)
            self._leave()

    def _todo(
        self, endpoint: Endpoint, cursors: Cursors
    ) -> Iterator[tuple[School, ReadRequest, Outcome]]:
        for school in self._settings.schools:
            request = self._window or cursors.next_request(
                school.estab, full=self._full, now=self._now
            )
            outcome = self._report.outcome(school.estab, endpoint.name)
            outcome.mode, outcome.first = request.mode, not cursors.knows(school.estab)
            yield school, request, outcome

    def _tables_to_make(self, endpoint: Endpoint) -> Tables:
        """All tables that the destination has not got yet, or not with all columns, empty: they
        exist from then on."""
        return {
            table.name: arrow_schema(table).empty_table()
            for table in (
                *(endpoint.table, *self._child_tables(endpoint)),
                *(REJECTED_ROWS, SYNC_RUN_DETAILS),
                *self._version_tables(endpoint),
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
        client = self._client(school)
        suppressed = self._suppressed.get(school.estab)
        return self._pool.submit(
            collect, client, parser, request, self._settings, outcome, span, suppressed
        )

    def _finish(
        self, future: Future[Collection], cursors: Cursors, outcome: Outcome, batch: _Batch
    ) -> Iterator[None]:
        """Puts a whole collection into the batch, pausing now and then for it to be given out; then
        moves its cursor: both are in the same load."""
        with ExitStack() as stack:
            try:
                collection = future.result()
                stack.callback(collection.close)
                # asked before anything is handed over, since it may fail
                decision = self._decide(collection, cursors, outcome, batch)
                if self._plan:
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
            if not self._plan:
                yield from self._hand_over(collection, cursors, outcome, batch, decision)
        self._report.end(outcome, held)
        batch.note(outcome)

    def _hand_over(
        self,
        collection: Collection,
        cursors: Cursors,
        outcome: Outcome,
        batch: _Batch,
        decision: Decision,
    ) -> Iterator[None]:
        """Puts what was decided into the batch, and moves the cursor."""
        if collection.is_known:
            outcome.cursor = cursors.stay(outcome.estab, collection)
            return
        batch.add(decision.tables)
        part = _Part(tombstones=not decision.cleared, partial=collection.mode != "full")
        if part.partial and batch.endpoint.name in decision.tables:
            batch.remember(decision.tables[batch.endpoint.name])
        for wide in collection.rows(decision.left_out):
            batch.add_rows(wide, outcome.estab, part)
            yield
        self._move(collection, cursors, outcome, decision)

    def _planned(
        self, collection: Collection, outcome: Outcome, endpoint: Endpoint, decision: Decision
    ) -> Plan:
        """What a load would do, by the content of the rows.

        Raises:
            DestinationError: The destination cannot be asked.
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
            with self._held.open():
                there = self._decider.ids(endpoint.table, estab)
                known = [] if there is None else there.to_pylist()
                found = existing(self._held, endpoint, children, estab)
        except QueriesNotSupported:
            return Plan(deleted=decision.deleted)
        return Plan(*sent.changes(found, known), decision.deleted)

    def _decide(
        self, collection: Collection, cursors: Cursors, outcome: Outcome, batch: _Batch
    ) -> Decision:
        """What a collection means for the destination; its numbers go into the outcome.

        Raises:
            DestinationError: The destination cannot be asked.
        """
        endpoint, estab = batch.endpoint, outcome.estab
        if batch.straight:
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
        """Notes where the reading of a school stands, in the same load as its rows."""
        estab, endpoint = outcome.estab, outcome.endpoint
        if decision.held:
            outcome.cursor = cursors.hold(estab, of=decision.of)
        elif collection.mode != "window":
            outcome.cursor = cursors.advance(estab, collection, now=self._now)
        since = self._decider.since(self._settings.dialect[endpoint])
        cursors.note_came(estab, since, decision.came)

    def _is_empty(self, endpoint: Endpoint) -> bool:
        """Whether the destination can be asked, and has no row of the endpoint, nor of its lists.

        Rows without a cursor are of a load that was cut short, or of a state that was lost.
        """
        try:
            there = self._decider.in_storage()
            return not any(
                self._held.is_filled(table) for table in endpoint.tables() if table.name in there
            )
        except (QueriesNotSupported, DestinationError):
            return False

    def _client(self, school: School) -> Client:
        with self._lock:
            server = self._servers.get(school.server)
            if server is None:
                server = self._servers[school.server] = Server(
                    concurrency=self._settings.concurrency,
                    timeout=self._settings.request_timeout,
                    max_bytes=self._settings.max_page_mb << 20,
                    ca_bundle=self._settings.ca_bundle,
                    gates=self._gates,
                )
            client = self._clients.get(school.estab)
            if client is None:
                client = Client(school, self._settings, server, sleep=self._pause)
                self._clients[school.estab] = client
            return client

    def _pause(self, seconds: float) -> None:
        """Waits between two tries, unless nobody waits for the answer any more."""
        if self._stopped.wait(seconds):
            raise OneRosterError("the run was stopped")

    def _enter(self) -> None:
        with self._lock:
            if self._pool is None:
                state, settings = dlt.current.source_state(), self._settings
                require_same_pseudonyms(cursors_of(state), settings.privacy, settings.dialect)
                self._suppressed = self._listed()
                self._stopped.clear()
                run = self._report
                self._gates = Gates(
                    settings.pause_budget, tell=run.pauses.__setitem__, run_id=run.run_id
                )
                # asked once: dlt takes back what it has seen as soon as a table gets new rows
                schema = dlt.current.source_schema()
                self._known = {
                    name: frozenset(schema.tables[name]["columns"])
                    for name in schema.data_table_names(seen_data_only=True)
                }
                self._decider = self._new_decider(prunes(state))
                self._pool = ThreadPoolExecutor(MOST_COLLECTIONS, thread_name_prefix="oneroster")
            self._active += 1

    def _new_decider(self, prunes: Mapping[str, Mapping[str, str]]) -> Decider:
        """What decides in one run; it remembers what it has asked the destination."""
        return Decider(
            self._held,
            self._settings,
            now=self._now,
            allow_deletes=self._allow_deletes,
            prunes=prunes,
            exact=self._plan,
        )

    def _listed(self) -> dict[str, Suppression]:
        """Those who were erased, of the schools of this run.

        Raises:
            ConfigurationError: They cannot be told without the key under which they were.
        """
        # known for one run only
        nobody, self._report.nobody_erased = self._report.nobody_erased, False
        if nobody:
            return {}
        try:
            listed = self._held.suppressed()
        except QueriesNotSupported:
            # nobody can be erased where no questions are answered
            return {}
        estabs = {school.estab for school in self._settings.schools}
        key, dialect = self._settings.privacy.key, self._settings.dialect
        return suppressions(listed, estabs, key, dialect)

    def _leave(self) -> None:
        """Ends the threads and connections with the last resource, also after an error."""
        with self._lock:
            self._active -= 1
            if self._active or self._pool is None:
                return
            pool, self._pool = self._pool, None
            servers, self._servers, self._clients = list(self._servers.values()), {}, {}
        self._stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)
        for server in servers:
            server.close()
        pool.shutdown()


def _discard(future: Future[Collection]) -> None:
    """Frees what a collection holds, whether it was loaded or not."""
    if not future.cancelled() and future.exception() is None:
        future.result().close()


@dataclass(frozen=True, slots=True)
class _Part:
    """What is to become of rows on their way to dlt."""

    tombstones: bool
    """Whether rows without child rows must be said to have none."""
    partial: bool
    """Whether they are not all of their school."""


class _Batch:
    """Rows of many collections on their way to dlt, which takes some milliseconds for each table
    that it is given, however small. They are taken apart together too, for the same reason.

    Args:
        endpoint: Their endpoint.
        report: What is noted goes into its table.
        settings: The run's.
        straight: Whether the endpoint's tables are filled without a merge.
    """

    def __init__(
        self, endpoint: Endpoint, report: Report, settings: Settings, *, straight: bool
    ) -> None:
        self.endpoint = endpoint
        self.straight = straight
        self.rows = 0
        self._report = report
        self._keep = settings.deleted == "keep"
        self._references = settings.reference_tables
        self._direct = {table.name for table in self.endpoint.tables()} if straight else set()
        self._tables: dict[str, list[pa.Table]] = {}
        self._wide: dict[_Part, list[tuple[str, pa.Table]]] = {}
        self._outcomes: list[Outcome] = []
        self._keys: set[tuple[str, str]] | None = set()
        """Of the rows that were given out, as long as they are few."""

    def add(self, tables: Tables) -> None:
        """Takes tables as they are to be loaded."""
        for name, rows in tables.items():
            self._tables.setdefault(name, []).append(rows)
            self.rows += len(rows)

    def add_rows(self, wide: pa.Table, estab: str, part: _Part) -> None:
        """Takes wide rows of a school."""
        if len(wide) >= FEW_ROWS:
            self._take_apart(part, [(estab, wide)])
        else:
            self._wide.setdefault(part, []).append((estab, wide))
            self.rows += len(wide)

    def note(self, outcome: Outcome) -> None:
        """Takes the outcome of a collection."""
        self._outcomes.append(outcome)

    def given_out(self) -> Iterator[Any]:
        """Each table once, with its name for dlt; then there is nothing."""
        for part, found in self._wide.items():
            self._take_apart(part, found)
        if self._outcomes:
            self.add({SYNC_RUN_DETAILS.name: self._report.details(self._outcomes)})
        tables, self._tables, self._wide, self._outcomes, self.rows = self._tables, {}, {}, [], 0
        for name, parts in tables.items():
            rows = pa.concat_tables(parts)
            if name in self._direct:
                filled = self._report.filled
                filled[name] = filled.get(name, 0) + len(rows)
                hints = dlt.mark.make_hints(table_name=name, write_disposition="append")
                own = name == self.endpoint.name
                yield dlt.mark.with_hints(rows, hints, create_table_variant=not own)
            else:
                yield dlt.mark.with_table_name(rows, name)

    def _take_apart(self, part: _Part, found: list[tuple[str, pa.Table]]) -> None:
        whose = pa.chunked_array(
            [pa.repeat(estab, len(wide)) for estab, wide in found], pa.string()
        )
        wide = pa.concat_tables([wide for _, wide in found])
        tables = flatten(
            wide,
            self.endpoint,
            whose,
            references=self._references,
            tombstones=part.tombstones,
            keep_deleted=self._keep,
        )
        own = self.endpoint.name
        self.remember(tables[own] if part.partial else None)
        if part.partial:
            keys = (tables[own].column(name) for name in ("estab", "sourced_id"))
            self.add({REJECTED_ROWS.name: no_rejected(self.endpoint, *keys)})
        if self.straight and not self._keep:
            tables[own] = alive(tables[own])
        self.add({name: rows for name, rows in tables.items() if len(rows)})

    def remember(self, rows: pa.Table | None) -> None:
        """Tells the report which rows are loaded, for them to be looked at afterwards; None for
        more than can be told."""
        if self._keys is None or rows is None or len(self._keys) + len(rows) > FEW_KEYS:
            self._keys = None
            self._report.keys.pop(self.endpoint.name, None)
        else:
            ids = rows.column("sourced_id").to_pylist()
            self._keys.update(zip(rows.column("estab").to_pylist(), ids, strict=True))
            self._report.keys[self.endpoint.name] = self._keys
