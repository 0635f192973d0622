"""What a collection that was read means for the rows that the destination has of it.

It is decided once, by `Decider.decide`: a load does what it says, a plan shows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime

import pyarrow as pa
import pyarrow.compute as pc
from dlt.common.destination.exceptions import SqlClientNotAvailable

from oneroster_source.config.settings import Settings
from oneroster_source.destination.existing_rows import Held
from oneroster_source.destination.hints import no_rejected
from oneroster_source.errors import MassDeletion
from oneroster_source.extract.collection import Collection
from oneroster_source.extract.deletions import (
    alive,
    among,
    credibly,
    deleted,
    objection,
    removal,
    without,
)
from oneroster_source.model import REJECTED_ROWS, Endpoint, Table
from oneroster_source.run_report import Outcome
from oneroster_source.transform.parser import arrow_schema, tombstones_of

Tables = Mapping[str, pa.Table]
"""Rows to load, by the name of their table."""

REPLACED = 0.5
"""In a change of year, new rows for each row that is deleted, at least. Year groups leave, others
come, and a new timetable comes in parts: half is what an ordinary August has by far."""
_NO_IDS = pa.chunked_array([pa.array([], pa.string())])
_EVERYTHING = pa.array([""])
"""In place of ids: all that the school has."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to happen to the rows of one school's collection."""

    tables: Tables = field(default_factory=dict)
    """What is loaded beside the rows that were read."""
    cleared: bool = False
    """Whether these tables remove all child rows of the school that are not loaded again."""
    left_out: pa.ChunkedArray = field(default_factory=lambda: _NO_IDS)
    """Of the rows that were read and are marked as deleted, those that are not loaded."""
    deleted: int = 0
    """Live rows that are deleted now, however that is told."""
    missing: int = 0
    """Of these, rows that a full pass did not contain."""
    kept: int = 0
    """Rows that a full pass did not contain and that stay, as it cannot be told."""
    held: int = 0
    """Rows whose deletion waits for a decision; then none is deleted."""
    of: int = 0
    """Then: live rows that there were when this began."""
    objection: str = ""
    """Why they wait."""
    came: int = 0
    """In a change of year: new rows that have not yet replaced any."""
    warning: str = ""

    def error(self, outcome: Outcome, *, done: str) -> MassDeletion | None:
        """What to tell people about deletions that wait: why, what was `done`, what to do."""
        if not self.objection:
            return None
        chosen = f"--school {outcome.estab} --endpoint {outcome.endpoint}"
        return MassDeletion(
            f"{self.objection}; {done.format(self.held)}",
            where=f"school {outcome.estab}, {outcome.endpoint}",
            todo="ask the provider whether that is right, unless a filter of yours leaves them out;"
            f" if it is, run `oneroster sync --full --allow-deletes {chosen}`; if the provider"
            " brings the rows back, the next sync ends this by itself",
        )


class Decider:
    """Decides for all collections of a run.

    Args:
        there: What answers for the destination.
        settings: The run's.
        now: When the run began.
        allow_deletes: Whether any number of deletions is believed.
        prunes: What was pruned of schools: see `state.prunes`.
        exact: Whether every deletion is counted, also where few are believed unseen.
    """

    def __init__(
        self,
        there: Held,
        settings: Settings,
        *,
        now: datetime,
        allow_deletes: bool,
        prunes: Mapping[str, Mapping[str, str]],
        exact: bool = False,
    ) -> None:
        self._held = there
        self._settings = settings
        self._now = now
        self._allow_deletes = allow_deletes
        self._prunes = prunes
        self._exact = exact
        self._keep = settings.deleted == "keep"
        self._stored: frozenset[str] | None = None
        """Tables that are in the destination; None until it was asked."""
        self._live: dict[str, Mapping[str, int]] = {}

    def since(self, endpoint: Endpoint) -> date | None:
        """When the change of year began that is expected now; None where there is none."""
        return self._settings.rollover.since(self._now.date()) if endpoint.yearly else None

    def first(self, endpoint: Endpoint, collection: Collection, estab: str) -> Decision:
        """What rows mean for tables that are empty."""
        pruned = self._pruned(endpoint, collection, estab)
        return Decision(_nothing_rejected(endpoint, estab), cleared=True, left_out=pruned)

    def decide(
        self,
        endpoint: Endpoint,
        collection: Collection,
        outcome: Outcome,
        *,
        came: int,
        waiting: int,
    ) -> Decision:
        """What a collection means for the destination.

        Args:
            endpoint: Its endpoint.
            collection: The collection, read whole.
            outcome: Its outcome so far.
            came: In a change of year: new rows of earlier runs that have not yet replaced any.
            waiting: Where deletions wait since an earlier run: the live rows that there were then.

        Raises:
            DestinationError: The destination cannot be asked.
        """
        if collection.is_known:
            return Decision(came=came)
        estab, full = outcome.estab, collection.mode == "full"
        pruned = self._pruned(endpoint, collection, estab)
        try:
            existing = self._existing(endpoint, collection, estab, waiting)
        except SqlClientNotAvailable:
            return Decision(
                _nothing_rejected(endpoint, estab) if full else {},
                left_out=pruned,
                warning="the destination takes no queries: rows that are missing at the server stay"
                if full
                else "",
            )
        if existing is None:
            found = {} if full else self._taken_over(endpoint, collection, estab)
            return Decision(found, left_out=pruned, came=came)
        sent = collection.ids()
        read = without(sent, collection.erased)
        marked = _marked(collection)
        live = alive(existing).column("sourced_id")
        missing = without(live, read) if full else among(live, collection.erased)
        ended = among(without(live, missing), marked)
        ending = len(missing) + len(ended)
        fresh = len(pc.unique(without(without(read, marked), live)))
        came = came + fresh if self.since(endpoint) else 0
        left = len(live) - ending + fresh
        # what was loaded since they wait makes them no smaller a share
        of = min(len(live), waiting or len(live))
        why = objection(
            live=max(of, ending),
            ending=ending,
            left=left,
            share=self._settings.max_delete_share,
        )
        replaced = left > 0 and came >= REPLACED * ending
        if why and not (self._allow_deletes or (self.since(endpoint) and replaced)):
            dead = without(_absent(existing, read).column("sourced_id"), missing)
            return Decision(
                self._beside_what_stays(endpoint, estab, dead) if full else {},
                left_out=pa.chunked_array([*pruned.chunks, *ended.chunks], pa.string()),
                held=ending,
                of=of,
                objection=why,
                came=came,
            )
        nameless = collection.nameless if full and len(missing) and not self._allow_deletes else 0
        if nameless:
            return Decision(
                _nothing_rejected(endpoint, estab),
                left_out=pruned,
                deleted=len(ended),
                kept=len(missing),
                came=max(came - len(ended), 0),
                warning=f"{nameless:,} {'row' if nameless == 1 else 'rows'} came without sourcedId,"
                f" and may be some of the {len(missing):,} that seem to be missing: these stay",
            )
        tables, cleared = (
            self._after_full(endpoint, estab, existing, read)
            if full
            else (self._taken_over(endpoint, collection, estab), False)
        )
        return Decision(
            tables,
            cleared,
            left_out=pruned,
            deleted=ending,
            missing=len(missing) if full else 0,
            came=max(came - ending, 0),
        )

    def _existing(
        self, endpoint: Endpoint, collection: Collection, estab: str, waiting: int
    ) -> pa.Table | None:
        """The `sourced_id` and `_deleted` of the rows that the destination has of a school; None
        where nothing hangs on them: a delta of few deletions is believed whatever they are.

        Raises:
            SqlClientNotAvailable: dlt's: the destination takes no queries.
            DestinationError: It cannot be asked.
        """
        table = endpoint.table
        if table.name not in self.in_storage():
            return arrow_schema(table).empty_table()
        if collection.mode == "full" or self._exact or waiting or self.since(endpoint):
            return self._held.ids(table, estab)
        ending = len(_marked(collection)) + len(collection.erased)
        if not ending:
            return None
        if table.name not in self._live:
            self._live[table.name] = self._held.count_live(table)
        live = self._live[table.name].get(estab, 0)
        share = self._settings.max_delete_share
        if not objection(live=live, ending=ending, left=max(live - ending, 0), share=share):
            return None
        return self._held.ids(table, estab)

    def _after_full(
        self, endpoint: Endpoint, estab: str, existing: pa.Table, read: pa.ChunkedArray
    ) -> tuple[Tables, bool]:
        """What a full pass says of the rows that it did not contain.

        Returns:
            The tables, and whether they already remove all child rows of the school.
        """
        table = endpoint.table
        absent = _absent(existing, read)
        if self._keep and len(absent):
            rows = self._held.rows(table, estab, alive(absent).column("sourced_id").to_pylist())
            stays = self._beside_what_stays(endpoint, estab, _NO_IDS)
            return {**stays, table.name: deleted(rows, at=self._now)}, False
        # nothing of the school is to remain, neither of a load that was cut short, nor in a
        # table that is not loaded any more
        found = {
            child.name: tombstones_of(child, estab, _EVERYTHING)
            for child in endpoint.child_tables()
            if child.name in self.in_storage() | self._children(endpoint)
        }
        return {
            **_nothing_rejected(endpoint, estab),
            **found,
            table.name: removal(table, estab, absent.column("sourced_id")),
        }, True

    def _beside_what_stays(
        self, endpoint: Endpoint, estab: str, dead: pa.ChunkedArray
    ) -> dict[str, pa.Table]:
        """What a full pass says where rows that it did not contain stay, with their child rows.

        Args:
            endpoint: The endpoint.
            estab: The school.
            dead: Rows that it did not contain and that were deleted before: they stay deleted, or
                are removed with all that hangs on them.
        """
        found = _nothing_rejected(endpoint, estab)
        dead = _NO_IDS if self._keep else dead
        if len(dead):
            found[endpoint.name] = removal(endpoint.table, estab, dead)
        for child in endpoint.child_tables():
            if child.name in self.in_storage():
                parents = _EVERYTHING
                if child.name in self._children(endpoint):
                    orphans = self._held.orphans(child, endpoint.table, estab)
                    parents = pa.chunked_array([*orphans.chunks, *dead.chunks], pa.string())
                found[child.name] = tombstones_of(child, estab, parents)
        return found

    def _children(self, endpoint: Endpoint) -> frozenset[str]:
        """The child tables that are loaded."""
        references = self._settings.reference_tables
        return frozenset(t.name for t in endpoint.child_tables(references=references))

    def _pruned(self, endpoint: Endpoint, collection: Collection, estab: str) -> pa.ChunkedArray:
        """The ids of deleted rows that were removed for good, and stay out: from before an instant
        or of no known time; or from before that was done, of people who are not there. What is in
        the destination must be told that it is deleted, so that it is never one of them.

        Raises:
            DestinationError: The destination cannot be asked.
        """
        if estab not in self._prunes:
            return _NO_IDS
        people = dict(self._settings.dialect.refers_to_people(endpoint))
        rows = collection.deleted("sourced_id", "date_last_modified", *people)
        if rows is None:
            return _NO_IDS
        stamps = credibly(rows.column("date_last_modified"), self._now)
        before, at = (
            pc.fill_null(pc.less(stamps, pa.scalar(instant, stamps.type)), True)
            for instant in (
                datetime.fromisoformat(self._prunes[estab][of]) for of in ("before", "at")
            )
        )
        out = before
        for column, of in people.items() if pc.any(pc.and_not(at, before)).as_py() else ():
            there = self.ids(of.table, estab)
            if there is not None:
                named = rows.column(column)
                nobody = pc.and_not(pc.is_valid(named), pc.is_in(named, value_set=there))
                out = pc.or_(out, pc.and_(at, nobody))
        ids, there = rows.filter(out).column("sourced_id"), None
        if len(ids):
            there = self.ids(endpoint.table, estab)
        return ids if there is None else ids.filter(pc.invert(pc.is_in(ids, value_set=there)))

    def ids(self, table: Table, estab: str) -> pa.ChunkedArray | None:
        """The ids of a school's rows in the destination; None where it has not got the table."""
        if table.name not in self._held.tables([table.name]):
            return None
        return self._held.ids(table, estab).column("sourced_id")

    def _taken_over(
        self, endpoint: Endpoint, collection: Collection, estab: str
    ) -> dict[str, pa.Table]:
        """That rows which are about somebody erased now are gone for those they were about, as
        tables to load; a full pass finds that by itself."""
        table, ids = endpoint.table, collection.erased
        if not len(ids) or table.name not in self.in_storage():
            return {}
        if self._keep:
            rows = self._held.rows(table, estab, ids.to_pylist())
            return {table.name: deleted(alive(rows), at=self._now)}
        found = {child.name: tombstones_of(child, estab, ids) for child in endpoint.child_tables()}
        there = {name: rows for name, rows in found.items() if name in self.in_storage()}
        return {**there, table.name: removal(table, estab, ids)}

    def in_storage(self) -> frozenset[str]:
        """The endpoints' tables that are in the destination.

        Raises:
            SqlClientNotAvailable: dlt's: it takes no queries.
            DestinationError: It cannot be asked.
        """
        if self._stored is None:
            tables = (
                t.name for e in self._settings.endpoints for t in self._settings.dialect[e].tables()
            )
            self._stored = self._held.tables(tables)
        return self._stored


def _absent(existing: pa.Table, read: pa.ChunkedArray) -> pa.Table:
    """The rows of the destination that a full pass did not contain."""
    return existing.filter(pc.invert(pc.is_in(existing.column("sourced_id"), value_set=read)))


def _nothing_rejected(endpoint: Endpoint, estab: str) -> dict[str, pa.Table]:
    """That nothing of the school was rejected, but for what follows."""
    return {REJECTED_ROWS.name: no_rejected(endpoint, estab)}


def _marked(collection: Collection) -> pa.ChunkedArray:
    """The ids of the rows that are marked as deleted."""
    rows = collection.deleted("sourced_id")
    return _NO_IDS if rows is None else rows.column("sourced_id")
