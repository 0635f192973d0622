"""What a run did, for each school and endpoint: the table on screen and the JSON show this."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pyarrow as pa

from oneroster_source import log
from oneroster_source.errors import MassDeletion, OneRosterError, label, shown, told
from oneroster_source.model import SYNC_RUN_DETAILS
from oneroster_source.model.type_map import arrow_schema

Mode = Literal["full", "delta", "window"]
MOST_NAMES = 1_000
"""Names of attributes that are kept of a collection."""
State = Literal["waiting", "reading", "read", "held", "failed"]
"""The state of a collection; one that is `held` is loaded, except for deletions that wait for a
decision."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a load would do to the rows of one collection that are not deleted."""

    added: int | None = None
    """None where the destination takes no queries."""
    changed: int | None = None
    """Rows whose content differs, or that are no longer deleted."""
    deleted: int = 0


@dataclass(slots=True)
class Outcome:
    """What a run did with one endpoint of one school. Filled in while it is read.

    Holds counts, times and messages, and no personal data.

    Examples:
        >>> from oneroster_source import Warehouse
        >>> report = Warehouse("roster.duckdb").load(endpoints=["users"])
        >>> outcome, = report.outcomes
        >>> outcome.endpoint, outcome.mode, outcome.state
        ('users', 'full', 'read')
        >>> outcome.rows > 0 and outcome.requests > 0 and not outcome.error
        True
    """

    estab: str
    endpoint: str
    mode: Mode = "full"
    first: bool = False
    """Whether it was never loaded before."""
    state: State = "waiting"
    requests: int = 0
    pages: int = 0
    rows: int = 0
    """Rows read."""
    changed: int = 0
    """Of these, rows that changed since the school's last good run; all of them in the first."""
    deleted: int = 0
    """Of the changed, rows that the provider marks as deleted."""
    gone: int = 0
    """Rows that a full pass found missing at the server, and that are deleted now."""
    kept: int = 0
    """Rows that a full pass did not contain, and that stay, because rows without a
    sourcedId may be these."""
    held: int = 0
    """Rows whose deletion waits for a decision, and that stay as they were."""
    live: int = 0
    """Distinct rows read that have a sourcedId and are not deleted."""
    rejected: int = 0
    """Values and rows that could not be read; see the table `rejected_rows`."""
    started: datetime | None = None
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    undeclared: list[str] = field(default_factory=list)
    """Attributes that are not in the standard, or hold more than it allows: see column `extra`."""
    keeps_extra: bool = True
    """Whether the column `extra` is kept."""
    error: str = ""
    """Why it failed, or why its deletions wait."""
    cursor: str = ""
    """Where the next delta begins."""
    plan: Plan | None = None
    """What would be done, where it was not."""
    _begun: float = 0.0

    def begin(self) -> None:
        """Notes that reading has begun."""
        self.state, self._begun = "reading", time.monotonic()
        self.started = datetime.now(UTC)

    def end(self, error: OneRosterError | None = None) -> None:
        """Notes how it ended: with an error, or well."""
        self.seconds = round(time.monotonic() - self._begun, 3) if self._begun else 0.0
        self.state = "read"
        if error is not None:
            self.state = "held" if isinstance(error, MassDeletion) else "failed"
        self.error = str(error) if error else ""

    @property
    def loaded(self) -> bool:
        """Whether its rows are loaded, though deletions among them may wait."""
        return self.state in ("read", "held")

    @property
    def ended(self) -> bool:
        """Whether it was read, or has failed."""
        return self.loaded or self.state == "failed"

    def warn(self, text: str) -> None:
        """Adds a warning, once."""
        said = told(text)
        if said not in self.warnings:
            self.warnings.append(said)

    def undeclare(self, names: Iterable[str]) -> None:
        """Notes attributes that are not in the standard."""
        found = {*self.undeclared, *map(label, names)}
        self.undeclared = sorted(found)[:MOST_NAMES]


def new_run_id(begun: datetime) -> str:
    """A name for a run, which sorts by time."""
    return f"{begun:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"


@dataclass(slots=True)
class Report:
    """What a run did. Given to the source, collections that fail do not stop the others.

    Examples:
        >>> from oneroster_source import Report, Warehouse
        >>> report = Report()
        >>> report is Warehouse("roster.duckdb").load(report, endpoints=["orgs", "users"])
        True
        >>> report.raise_for_failures()
        >>> report.good, [outcome.endpoint for outcome in report.outcomes]
        (True, ['orgs', 'users'])
    """

    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    run_id: str = ""
    """Names the run in the destination, and sorts by time."""
    outcomes: list[Outcome] = field(default_factory=list)
    seconds: float = 0.0
    error: str = ""
    """Why the run as a whole failed, if it did."""
    problems: list[str] = field(default_factory=list)
    """Integrity checks that failed after the load."""
    privacy: str = ""
    """What was kept of people, in words."""
    pauses: dict[str, datetime] = field(default_factory=dict, repr=False)
    """When the last pause that a server asked for ends, by server: what a run is waiting for."""
    _unfinished: dict[str, list[Outcome]] = field(default_factory=dict, repr=False)
    """Outcomes of schools still in progress."""
    _expected: int = field(default=1, repr=False)
    """Outcomes of each school, as far as that is known: `expect`."""

    def __post_init__(self) -> None:
        self.run_id = self.run_id or new_run_id(self.started)

    def outcome(self, estab: str, endpoint: str) -> Outcome:
        """A new outcome, listed in this report."""
        outcome = Outcome(estab, endpoint)
        self.outcomes.append(outcome)
        self._unfinished.setdefault(estab, []).append(outcome)
        return outcome

    def expect(self, endpoints: int) -> None:
        """Notes how many outcomes each school will have: it is logged when all have ended."""
        self._expected = endpoints

    def end(self, outcome: Outcome, error: OneRosterError | None = None) -> None:
        """Ends an outcome; with the last one of a school, logs all of them."""
        outcome.end(error)
        found = self._unfinished[outcome.estab]
        if len(found) >= self._expected and all(each.ended for each in found):
            self._log(outcome.estab)

    def end_reading(self) -> None:
        """Logs the schools of which fewer endpoints were read than expected."""
        for estab, found in list(self._unfinished.items()):
            if all(each.ended for each in found):
                self._log(estab)

    def _log(self, estab: str) -> None:
        _tell(self.run_id, estab, self._unfinished.pop(estab))

    def tell(self, estabs: Iterable[str]) -> None:
        """Logs schools that were read by other processes."""
        found: dict[str, list[Outcome]] = {estab: [] for estab in estabs}
        for outcome in self.outcomes:
            if outcome.estab in found:
                found[outcome.estab].append(outcome)
        for estab, outcomes in found.items():
            _tell(self.run_id, estab, outcomes)

    @property
    def failed(self) -> list[Outcome]:
        """The outcomes of what could not be read."""
        return [outcome for outcome in self.outcomes if outcome.state == "failed"]

    @property
    def held(self) -> list[Outcome]:
        """The outcomes of what is loaded, except for deletions that wait for a decision."""
        return [outcome for outcome in self.outcomes if outcome.state == "held"]

    @property
    def good(self) -> bool:
        """Whether everything was read and loaded, and the destination is as it should be."""
        return not (self.error or self.failed or self.held or self.problems)

    def raise_for_failures(self) -> None:
        """Raises an error that names what failed, if anything did.

        Raises:
            OneRosterError: A school's endpoint could not be read, or the checks after the load
                failed, or deletions wait for a decision.
        """
        if self.problems:
            raise OneRosterError(
                "the integrity checks after the load failed", todo="; ".join(self.problems[:3])
            )
        if self.failed:
            raise OneRosterError(
                f"{len(self.failed)} of {len(self.outcomes)} collections failed",
                todo="; ".join(outcome.error for outcome in self.failed[:3]),
            )
        if self.held:
            raise MassDeletion(
                f"deletions of {len(self.held)} of {len(self.outcomes)} collections wait for a"
                " decision",
                todo="; ".join(outcome.error for outcome in self.held[:3]),
            )

    def details(self, outcomes: Iterable[Outcome]) -> pa.Table:
        """The rows of `sync_run_details` for some of the outcomes."""
        rows = [self._detail(outcome) for outcome in outcomes]
        return pa.Table.from_pylist(rows, schema=arrow_schema(SYNC_RUN_DETAILS))

    def _detail(self, outcome: Outcome) -> dict[str, Any]:
        return {
            "run_id": self.run_id,
            "estab": outcome.estab,
            "endpoint": outcome.endpoint,
            "started": outcome.started,
            "ended": outcome.started and outcome.started + timedelta(seconds=outcome.seconds),
            "seconds": outcome.seconds,
            "mode": outcome.mode,
            "outcome": outcome.state,
            "requests": outcome.requests,
            "rows_read": outcome.rows,
            "changed": outcome.changed,
            "deleted": outcome.deleted,
            "gone": outcome.gone,
            "rejected": outcome.rejected,
            "reason": outcome.error.partition("\n")[0] or None,
        }

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON types."""
        outcomes = [asdict(outcome) for outcome in self.outcomes]
        for outcome in outcomes:
            del outcome["_begun"], outcome["plan"]
            outcome["started"] = outcome["started"] and outcome["started"].isoformat()
        found: dict[str, Any] = {
            "run_id": self.run_id,
            "started": self.started.isoformat(),
            "seconds": round(self.seconds, 3),
            "good": self.good,
            "error": self.error,
            "problems": self.problems,
            "collections": outcomes,
        }
        return {name: shown(value) for name, value in found.items()}

    def plan_as_dict(self) -> dict[str, Any]:
        """What a load would do, as JSON types."""
        return {
            "started": self.started.isoformat(),
            "good": self.good,
            "error": self.error,
            "collections": [
                {
                    **{name: getattr(outcome, name) for name in ("estab", "endpoint", "mode")},
                    "state": outcome.state,
                    "rows": outcome.rows,
                    **asdict(outcome.plan or Plan()),
                    "held": outcome.held,
                    "reason": outcome.error,
                    "warnings": outcome.warnings,
                }
                for outcome in self.outcomes
            ],
        }

    def totals(self) -> dict[str, int]:
        """Totals of the run."""
        return {
            "schools": len({outcome.estab for outcome in self.outcomes}),
            "schools_failed": len({outcome.estab for outcome in self.failed}),
            "schools_held": len({outcome.estab for outcome in self.held}),
            **_sums(self.outcomes),
        }


def _tell(run_id: str, estab: str, outcomes: list[Outcome]) -> None:
    """Logs how a school went, in one line, however many of its collections failed."""
    sums = _sums(outcomes)
    begun = [outcome.started for outcome in outcomes if outcome.started]
    seconds = round((datetime.now(UTC) - min(begun)).total_seconds(), 3) if begun else 0.0
    said = (
        f"school {estab}: {sums['collections'] - sums['failed']} of {sums['collections']} read,"
        f" {sums['rows']:,} rows, {sums['changed']:,} changed, in {seconds:.1f} s"
    )
    fields: dict[str, Any] = {
        "run_id": run_id,
        "estab": estab,
        "modes": sorted({outcome.mode for outcome in outcomes}),
        **sums,
        "seconds": seconds,
    }
    reasons = {outcome.endpoint: outcome.error for outcome in outcomes if outcome.error}
    if not reasons:
        log.event("school_read", said, **fields)
        return
    # one cause mostly fails all of a school
    first, *others = dict.fromkeys(reasons.values())
    said += f"; {first}" + (f"; and {len(others)} more reasons" if others else "")
    if sums["failed"]:
        log.event("school_failed", said, level=logging.ERROR, **fields, reasons=reasons)
    else:
        log.event("school_held", said, level=logging.WARNING, **fields, reasons=reasons)


def _sums(outcomes: list[Outcome]) -> dict[str, int]:
    counted = ("requests", "rows", "changed", "deleted", "gone", "rejected")
    return {
        "collections": len(outcomes),
        "failed": sum(outcome.state == "failed" for outcome in outcomes),
        "held": sum(outcome.state == "held" for outcome in outcomes),
        **{name: sum(getattr(outcome, name) for outcome in outcomes) for name in counted},
    }
