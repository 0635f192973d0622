"""Decides what a collection that was read means for the existing rows of the destination.

A load carries the decision out, a plan shows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime

import pyarrow as pa
import pyarrow.compute as pc

from oneroster_source.config.settings import Settings
from oneroster_source.destination.backends.base import QueriesNotSupported
from oneroster_source.destination.existing_rows import ExistingRows
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
from oneroster_source.model.type_map import arrow_schema
from oneroster_source.run_report import Outcome
from oneroster_source.transform.flatten import tombstones_of

Tables = Mapping[str, pa.Table]
"""Rows to load, by the name of their table."""

REPLACED = 0.5
"""In a change of year, so many new rows for each deleted one are no reason to wait. Year groups
leave, others come, and a new timetable comes in parts: an ordinary August has far more."""
_NO_IDS = pa.chunked_array([pa.array([], pa.string())])
_EVERYTHING = pa.array([""])
"""In place of ids: all rows of the school."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens to the rows of one school's collection."""

    tables: Tables = field(default_factory=dict)
    """What is loaded in addition to the rows that were read."""
    cleared: bool = False
    """Whether these tables remove all child rows of the school that are not loaded again."""
    left_out: pa.ChunkedArray = field(default_factory=lambda: _NO_IDS)
    """The ids of rows that are marked as deleted and are not loaded."""
    deleted: int = 0
    """Live rows that are deleted now, marked or missing."""
    missing: int = 0
    """Of these, rows that are missing from a full pass."""
    kept: int = 0
    """Rows that are missing from a full pass but stay, since it cannot be told which they are."""
    held: int = 0
    """Rows whose deletion waits for a person to decide; then none is deleted."""
    of: int = 0
    """If deletions wait: the live rows that there were when that began."""
    objection: str = ""
    """Why they wait."""
    came: int = 0
    """In a change of year: new rows that have not yet replaced any."""
    warning: str = ""

    def error(self, outcome: Outcome, *, done: str) -> MassDeletion | None:
        """Makes the error about deletions that wait: why, what was `done`, what to do."""
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


@dataclass(frozen=True, slots=True)
class _Difference:
    """How the rows that were read differ from the existing ones."""

    live: int
    """Existing rows that are not deleted."""
    missing: pa.ChunkedArray
    """The ids of live rows that were not read, or are about an erased person."""
    ended: pa.ChunkedArray
    """The ids of live rows that are marked as deleted now."""
    fresh: int
    """New rows."""

    @property
    def ending(self) -> int:
        """How many live rows would be deleted."""
        return len(self.missing) + len(self.ended)

    @property
    def left(self) -> int:
        """How many rows would be live afterwards."""
        return self.live - self.ending + self.fresh


def _compare(existing: pa.Table, read: pa.ChunkedArray, collection: Collection) -> _Difference:
    marked, live = _marked(collection), alive(existing).column("sourced_id")
    full = collection.mode == "full"
    missing = without(live, read) if full else among(live, collection.erased)
    ended = among(without(live, missing), marked)
    fresh = len(pc.unique(without(without(read, marked), live)))
    return _Difference(len(live), missing, ended, fresh)


class Decider:
    """Decides for all collections of a run.

    Args:
        there: Reads existing rows.
        settings: The run's.
        now: When the run began.
        allow_deletes: Whether to skip the mass-deletion guard.
        prunes: What was pruned of schools: see `state.prunes`.
        exact: Whether to count every deletion, even where few are accepted without a query.
    """

    def __init__(
        self,
        there: ExistingRows,
        settings: Settings,
        *,
        now: datetime,
        allow_deletes: bool,
        prunes: Mapping[str, Mapping[str, str]],
        exact: bool = False,
    ) -> None:
        self._existing_rows = there
        self._settings = settings
        self._now = now
        self._allow_deletes = allow_deletes
        self._prunes = prunes
        self._exact = exact
        self._keep = settings.deleted == "keep"
        self._stored: frozenset[str] | None = None
        """Tables that are in the destination; None until it is queried."""
        self._live: dict[str, Mapping[str, int]] = {}

    def since(self, endpoint: Endpoint) -> date | None:
        """Returns when the change of year began that is expected now; None if there is none."""
        return self._settings.rollover.since(self._now.date()) if endpoint.yearly else None

    def first(self, endpoint: Endpoint, collection: Collection, estab: str) -> Decision:
        """Decides for tables that are empty."""
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
        """Decides for one collection.

        Args:
            endpoint: Its endpoint.
            collection: The collection, complete.
            outcome: Its outcome so far.
            came: In a change of year: new rows of earlier runs that have not yet replaced any.
            waiting: Where deletions wait since an earlier run: the live rows that there were then.

        Raises:
            DestinationError: A query failed.
        """
        if collection.is_known:
            return Decision(came=came)
        estab, full = outcome.estab, collection.mode == "full"
        pruned = self._pruned(endpoint, collection, estab)
        try:
            existing = self._existing(endpoint, collection, estab, waiting)
        except QueriesNotSupported:
            return Decision(
                _nothing_rejected(endpoint, estab) if full else {},
                left_out=pruned,
                warning="the destination takes no queries: rows that are missing at the server stay"
                if full
                else "",
            )
        if existing is None:
            tables = {} if full else self._delete_erased(endpoint, collection, estab)
            return Decision(tables, left_out=pruned, came=came)
        found = self._decide_on(existing, endpoint, collection, estab, came=came, waiting=waiting)
        left_out = pa.chunked_array([*pruned.chunks, *found.left_out.chunks], pa.string())
        return replace(found, left_out=left_out)

    def _decide_on(
        self,
        existing: pa.Table,
        endpoint: Endpoint,
        collection: Collection,
        estab: str,
        *,
        came: int,
        waiting: int,
    ) -> Decision:
        """Decides by comparison with the existing rows; knows nothing of pruned rows."""
        full = collection.mode == "full"
        read = without(collection.ids(), collection.erased)
        diff = _compare(existing, read, collection)
        came = came + diff.fresh if self.since(endpoint) else 0
        # rows that were loaded while deletions wait must not make them a smaller share
        of = min(diff.live, waiting or diff.live)
        why = self._objection(endpoint, diff, of, came)
        if why:
            dead = without(_absent(existing, read).column("sourced_id"), diff.missing)
            return Decision(
                self._keep_missing(endpoint, estab, dead) if full else {},
                left_out=diff.ended,
                held=diff.ending,
                of=of,
                objection=why,
                came=came,
            )
        missing = len(diff.missing) if full else 0
        nameless = collection.without_id if missing and not self._allow_deletes else 0
        if nameless:
            return Decision(
                _nothing_rejected(endpoint, estab),
                deleted=len(diff.ended),
                kept=missing,
                came=max(came - len(diff.ended), 0),
                warning=f"{nameless:,} {'row' if nameless == 1 else 'rows'} came without sourcedId,"
                f" and may be some of the {missing:,} that seem to be missing: these stay",
            )
        tables, cleared = (
            self._after_full(endpoint, estab, existing, read)
            if full
            else (self._delete_erased(endpoint, collection, estab), False)
        )
        return Decision(
            tables,
            cleared,
            deleted=diff.ending,
            missing=missing,
            came=max(came - diff.ending, 0),
        )

    def _objection(self, endpoint: Endpoint, diff: _Difference, of: int, came: int) -> str:
        """Returns why deletions wait; empty if they do not.

        Args:
            endpoint: The endpoint.
            diff: What would be deleted.
            of: Live rows that there were when deletions began to wait.
            came: In a change of year: new rows that have not yet replaced any.
        """
        why = objection(
            live=max(of, diff.ending),
            ending=diff.ending,
            left=diff.left,
            share=self._settings.max_delete_share,
        )
        replaced = diff.left > 0 and came >= REPLACED * diff.ending
        return "" if self._allow_deletes or (self.since(endpoint) and replaced) else why

    def _existing(
        self, endpoint: Endpoint, collection: Collection, estab: str, waiting: int
    ) -> pa.Table | None:
        """Returns `sourced_id` and `_deleted` of a school's existing rows; None where they make no
        difference: few deletions in a delta are accepted without a query.

        Raises:
            QueriesNotSupported: The destination takes no queries.
            DestinationError: A query failed.
        """
        table = endpoint.table
        if table.name not in self.in_storage():
            return arrow_schema(table).empty_table()
        if collection.mode == "full" or self._exact or waiting or self.since(endpoint):
            return self._existing_rows.ids(table, estab)
        ending = len(_marked(collection)) + len(collection.erased)
        if not ending:
            return None
        if table.name not in self._live:
            self._live[table.name] = self._existing_rows.count_live(table)
        live = self._live[table.name].get(estab, 0)
        share = self._settings.max_delete_share
        if not objection(live=live, ending=ending, left=max(live - ending, 0), share=share):
            return None
        return self._existing_rows.ids(table, estab)

    def _after_full(
        self, endpoint: Endpoint, estab: str, existing: pa.Table, read: pa.ChunkedArray
    ) -> tuple[Tables, bool]:
        """Deletes the rows that are missing from a full pass.

        Returns:
            The tables to load, and whether they already remove all child rows of the school.
        """
        table = endpoint.table
        absent = _absent(existing, read)
        if self._keep and len(absent):
            rows = self._existing_rows.rows(
                table, estab, alive(absent).column("sourced_id").to_pylist()
            )
            stays = self._keep_missing(endpoint, estab, _NO_IDS)
            return {**stays, table.name: deleted(rows, at=self._now)}, False
        # no child row of the school may remain, neither of a load that was interrupted, nor in a
        # table that is no longer loaded
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

    def _keep_missing(
        self, endpoint: Endpoint, estab: str, dead: pa.ChunkedArray
    ) -> dict[str, pa.Table]:
        """Keeps the live rows that are missing from a full pass, with their child rows.

        Args:
            endpoint: The endpoint.
            estab: The school.
            dead: Missing rows that were deleted before: they stay deleted, or are removed with
                their child rows.
        """
        found = _nothing_rejected(endpoint, estab)
        dead = _NO_IDS if self._keep else dead
        if len(dead):
            found[endpoint.name] = removal(endpoint.table, estab, dead)
        for child in endpoint.child_tables():
            if child.name in self.in_storage():
                parents = _EVERYTHING
                if child.name in self._children(endpoint):
                    orphans = self._existing_rows.orphans(child, endpoint.table, estab)
                    parents = pa.chunked_array([*orphans.chunks, *dead.chunks], pa.string())
                found[child.name] = tombstones_of(child, estab, parents)
        return found

    def _children(self, endpoint: Endpoint) -> frozenset[str]:
        """Returns the names of the child tables that are loaded."""
        references = self._settings.reference_tables
        return frozenset(t.name for t in endpoint.child_tables(references=references))

    def _pruned(self, endpoint: Endpoint, collection: Collection, estab: str) -> pa.ChunkedArray:
        """Returns the ids of deleted rows that were pruned, and stay out: those deleted before the
        instant of the prune or at no known time, and those deleted before it ran, of people who do
        not exist any more. Rows that do exist are never among them: they are marked as deleted.

        Raises:
            DestinationError: A query failed.
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
        """Returns the ids of a school's existing rows; None if there is no such table."""
        if table.name not in self._existing_rows.tables([table.name]):
            return None
        return self._existing_rows.ids(table, estab).column("sourced_id")

    def _delete_erased(
        self, endpoint: Endpoint, collection: Collection, estab: str
    ) -> dict[str, pa.Table]:
        """Deletes existing rows that are now about an erased person, which a full pass does by
        itself.
        """
        table, ids = endpoint.table, collection.erased
        if not len(ids) or table.name not in self.in_storage():
            return {}
        if self._keep:
            rows = self._existing_rows.rows(table, estab, ids.to_pylist())
            return {table.name: deleted(alive(rows), at=self._now)}
        found = {child.name: tombstones_of(child, estab, ids) for child in endpoint.child_tables()}
        there = {name: rows for name, rows in found.items() if name in self.in_storage()}
        return {**there, table.name: removal(table, estab, ids)}

    def in_storage(self) -> frozenset[str]:
        """Returns the endpoints' tables that are in the destination.

        Raises:
            QueriesNotSupported: It takes no queries.
            DestinationError: A query failed.
        """
        if self._stored is None:
            tables = (
                t.name for e in self._settings.endpoints for t in self._settings.dialect[e].tables()
            )
            self._stored = self._existing_rows.tables(tables)
        return self._stored


def _absent(existing: pa.Table, read: pa.ChunkedArray) -> pa.Table:
    """Returns the existing rows that are missing from a full pass."""
    return existing.filter(pc.invert(pc.is_in(existing.column("sourced_id"), value_set=read)))


def _nothing_rejected(endpoint: Endpoint, estab: str) -> dict[str, pa.Table]:
    """Removes the rejected rows of earlier runs."""
    return {REJECTED_ROWS.name: no_rejected(endpoint, estab)}


def _marked(collection: Collection) -> pa.ChunkedArray:
    """Returns the ids of the rows that are marked as deleted."""
    rows = collection.deleted("sourced_id")
    return _NO_IDS if rows is None else rows.column("sourced_id")
