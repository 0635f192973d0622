"""The status of a dataset: what it holds, and which of its schools need a person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias

from oneroster_source.destination.queries import as_utc, existing_tables
from oneroster_source.destination.session import Target, require_database
from oneroster_source.destination.state import cursors
from oneroster_source.model import REJECTED_ROWS, SYNC_RUN_DETAILS, V1P1
from oneroster_source.reporting.sql_files import Statement
from oneroster_source.reporting.views import VIEWS

State: TypeAlias = Literal["failing", "held", "stale", "good"]
STATES: tuple[State, ...] = ("failing", "held", "stale", "good")
"""The most urgent comes first."""
SCHOOL_LOADS = next(view for view in VIEWS if view.name == "school_loads")


@dataclass(frozen=True, slots=True)
class SchoolStatus:
    """The status of a school. Its loads are as the view `school_loads` tells them.

    Args:
        estab: The school.
        rows: Rows of the endpoints' own tables, those of lists and references not counted.
        cursors: `cursor` and `full` of dlt's state, by endpoint: up to where changes are known, and
            the last full read, in ISO 8601, UTC.
        stale: Whether there was no good load for some days.
        last_good_load: When its endpoints were last read well, the stalest one of them.
        last_full_read: The same for reading everything.
        failing: Endpoints that could not be read the last time.
        failing_since: The first of these failures.
        failures_in_a_row: How often it was tried since, at most.
        reason: Why, the last time; or why deletions wait.
        held: Endpoints that are loaded but for deletions that wait for a decision.
        held_since: The first run since which they wait.
    """

    estab: str
    rows: int
    cursors: Mapping[str, Mapping[str, str | None]]
    stale: bool = True
    last_good_load: datetime | None = None
    last_full_read: datetime | None = None
    failing: int = 0
    failing_since: datetime | None = None
    failures_in_a_row: int = 0
    reason: str | None = None
    held: int = 0
    held_since: datetime | None = None

    @property
    def state(self) -> State:
        if self.failing or self.held:
            return "failing" if self.failing else "held"
        return "stale" if self.stale else "good"

    @property
    def urgency(self) -> tuple[Any, ...]:
        """Sorts what needs a person first: what fails for longest, then what is stalest."""
        since = self.failing_since or self.held_since or self.last_good_load
        return (STATES.index(self.state), since is not None, since, self.estab)

    def as_dict(self) -> dict[str, Any]:
        """The school as JSON types."""
        return {
            "estab": self.estab,
            "state": self.state,
            "last_good_load": text(self.last_good_load),
            "last_full_read": text(self.last_full_read),
            "failing": self.failing,
            "failing_since": text(self.failing_since),
            "failures_in_a_row": self.failures_in_a_row,
            "reason": self.reason,
            "held": self.held,
            "held_since": text(self.held_since),
            "rows": self.rows,
            "cursors": self.cursors,
        }


@dataclass(slots=True)
class Status:
    """The status of a dataset."""

    destination: str
    """Its name for people: there is no password in it."""
    dataset: str
    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    """Rows by table and estab."""
    cursors: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """Entries of the state by endpoint and estab, as `cursors.Cursors` keeps them."""
    loads: list[dict[str, Any]] = field(default_factory=list)
    """The rows of the view `school_loads`."""
    last_load: datetime | None = None

    @property
    def estabs(self) -> list[str]:
        found = {str(load["estab"]) for load in self.loads}
        found |= {estab for counts in self.rows.values() for estab in counts}
        return sorted(found | {estab for schools in self.cursors.values() for estab in schools})

    @property
    def totals(self) -> dict[str, int]:
        """Rows by table."""
        return {table: sum(counts.values()) for table, counts in self.rows.items()}

    def schools(self) -> list[SchoolStatus]:
        """Every school, those that need a person first."""
        loads = {str(load["estab"]): load for load in self.loads}
        found = [self._school(estab, loads.get(estab)) for estab in self.estabs]
        return sorted(found, key=lambda school: school.urgency)

    def _school(self, estab: str, load: Mapping[str, Any] | None) -> SchoolStatus:
        rows = sum(self.rows.get(name, {}).get(estab, 0) for name in V1P1.names)
        cursors = {
            endpoint: {name: schools[estab].get(name) for name in ("cursor", "full")}
            for endpoint, schools in self.cursors.items()
            if estab in schools
        }
        if load is None:
            return SchoolStatus(estab, rows, cursors)
        return SchoolStatus(
            estab,
            rows,
            cursors,
            stale=bool(load["stale"]),
            last_good_load=as_utc(load["last_good_load"]),
            last_full_read=as_utc(load["last_full_read"]),
            failing=int(load["failing"]),
            failing_since=as_utc(load["failing_since"]),
            failures_in_a_row=int(load["failures_in_a_row"]),
            reason=load["reason"],
            held=int(load["held"]),
            held_since=as_utc(load["held_since"]),
        )

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON types."""
        return {
            "destination": self.destination,
            "dataset": self.dataset,
            "last_load": text(self.last_load),
            "tables": self.totals,
            "schools": [school.as_dict() for school in self.schools()],
        }


def status(target: Target) -> Status:
    """Looks up the status of a dataset, also where it has no views: see `Warehouse.status`."""
    found = Status(target.name, target.dataset)
    names = [t.name for e in V1P1.endpoints for t in e.tables()] + [REJECTED_ROWS.name]
    with target.loaded() as (pipeline, opened_client):
        found.cursors = cursors(pipeline.state)
        tables = existing_tables(opened_client, [*names, SYNC_RUN_DETAILS.name])
        with pipeline.sql_client() as client:
            for name in names:
                if name in tables:
                    table = client.make_qualified_table_name(name)
                    counts = client.execute_sql(
                        f"SELECT estab, count(*) FROM {table} GROUP BY estab"
                    )
                    found.rows[name] = {str(e): int(n) for e, n in counts or ()}
            if SCHOOL_LOADS.tables.issubset(tables):
                found.loads = SCHOOL_LOADS.rows(client)
            loads = client.make_qualified_table_name("_dlt_loads")
            last = client.execute_sql(f"SELECT max(inserted_at) FROM {loads} WHERE status = 0")
            found.last_load = as_utc(last[0][0]) if last else None
    return found


def query(target: Target, statements: Iterable[Statement]) -> dict[str, list[dict[str, Any]]]:
    """Runs statements; returns their rows by name: see `Warehouse.query`."""
    wanted = tuple(statements)
    with target.loaded() as (_, opened_client):
        client = require_database(opened_client, target.name)
        tables = existing_tables(client, {table for each in wanted for table in each.tables})
        return {
            each.name: each.rows(client.sql_client) if each.tables <= tables.keys() else []
            for each in wanted
        }


def text(moment: datetime | None) -> str | None:
    """An instant in ISO 8601."""
    return None if moment is None else moment.isoformat()
