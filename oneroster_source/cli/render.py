"""Makes the tables, progress and lines that the commands print; prints nothing itself.

`Table` and `Screen` clean all texts from elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from rich import table as rich_table
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.spinner import Spinner
from rich.text import Text

from oneroster_source.errors import MOST_LETTERS, clean, listed
from oneroster_source.extract.check import Finding
from oneroster_source.reporting.fields import Entry
from oneroster_source.reporting.quality import SEVERITIES, Result
from oneroster_source.reporting.sql_files import Statement
from oneroster_source.reporting.status import STATES, SchoolStatus, Status
from oneroster_source.run_report import Outcome, Plan, Report

_SEVERITIES = {"error": "red", "warning": "yellow", "info": "cyan"}
_STATES = {
    "waiting": "dim",
    "reading": "cyan",
    "read": "green",
    "held": "yellow",
    "failed": "red",
}
_MODES = {"held": "HELD", "failed": "FAILED"}
_KEPT = {"kept": "", "left out": "dim", "pseudonym": "cyan"}
_STANDINGS = {"failing": "red", "held": "yellow", "stale": "yellow", "good": "green"}
WIDE = 112
"""The width, in characters, from which a table has all its columns."""
MOST_GOOD, MOST_OTHERS = 20, 200
"""The most good schools, and other schools, that `status` shows without `--all`."""


class Screen(Console):
    """A console that takes no text for markup."""

    def __init__(self, width: int | None) -> None:
        super().__init__(width=width, markup=False, emoji=False, highlight=False)


class Table(rich_table.Table):
    """A table that cleans and shortens its texts."""

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        super().add_row(*map(_cell, cells), **options)


def _cell(cell: RenderableType | None) -> Text:
    style = cell.style if isinstance(cell, Text) else ""
    return Text(clean("" if cell is None else cell, limit=MOST_LETTERS), style=style)


def number(value: int) -> str:
    return f"{value:,}"


def progress(report: Report, *, lines: int) -> RenderableType:
    """Shows what is being read: all collections if there are `lines` for them, else busy ones."""
    table = Table(box=None, pad_edge=False)
    for heading in ("school", "endpoint", ""):
        table.add_column(heading)
    for heading in ("pages", "rows"):
        table.add_column(heading, justify="right")
    outcomes = list(report.outcomes)
    busy = [o for o in outcomes if o.state == "reading"]
    for outcome in (outcomes if len(outcomes) <= lines else busy)[: max(lines, 0)]:
        table.add_row(
            outcome.estab,
            outcome.endpoint,
            Text(outcome.state, style=_STATES[outcome.state]),
            number(outcome.pages),
            number(outcome.rows),
        )
    return Group(table, Spinner("dots", f" {doing(report)}"))


def doing(report: Report) -> str:
    """Describes the progress of a run in a line."""
    outcomes = list(report.outcomes)
    done = sum(o.ended for o in outcomes)
    rows = sum(o.rows for o in outcomes)
    what = "Loading" if outcomes and done == len(outcomes) else "Reading"
    now = datetime.now(UTC)
    waits = [
        f"; waiting for {server} until {until:%H:%M:%S}Z"
        for server, until in list(report.pauses.items())
        if until > now
    ]
    said = f"{what}: {done} of {len(outcomes)} collections read, {number(rows)} rows"
    return said + "".join(waits[:3])


FEW_SCHOOLS = 10
"""Up to so many schools, a summary has a line for each collection."""


def summary(report: Report, *, narrow: bool = False) -> RenderableType:
    """Shows a run: a line for each collection, or for each endpoint of many schools.

    A `narrow` screen leaves out requests and seconds.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 0 if narrow else 1))
    for heading in ("school", "endpoint", "mode"):
        table.add_column(heading, no_wrap=True)
    numbers = ["rows", "changed", "deleted", "missing", "rejected", "warnings"]
    if not narrow:
        numbers = ["requests", *numbers[:-1], "seconds", "warnings"]
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    groups: dict[tuple[str, str, str], list[Outcome]] = {}
    few = len({outcome.estab for outcome in report.outcomes}) <= FEW_SCHOOLS
    for outcome in sorted(report.outcomes, key=lambda o: o.estab) if few else report.outcomes:
        mode: str = _MODES.get(outcome.state, outcome.mode)
        key = (outcome.estab if few else "", outcome.endpoint, mode)
        groups.setdefault(key, []).append(outcome)
    for (estab, endpoint, mode), found in groups.items():
        values = {
            heading: number(sum(getattr(outcome, heading) for outcome in found))
            for heading in ("requests", "rows", "changed", "deleted", "rejected")
        }
        values["missing"] = number(sum(outcome.gone for outcome in found))
        values["seconds"] = f"{sum(outcome.seconds for outcome in found):.1f}"
        warnings = sum(len(remarks(outcome)) for outcome in found)
        values["warnings"] = number(warnings) if warnings else ""
        table.add_row(
            estab or f"{number(len(found))} schools",
            endpoint,
            mode,
            *(values[heading] for heading in numbers),
            style={"FAILED": "red", "HELD": "yellow"}.get(mode),
        )
    return table


def plan(report: Report) -> RenderableType:
    """Shows what a load would do: a line for each collection that it would change."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("school", "endpoint", "mode"):
        table.add_column(heading, no_wrap=True)
    for heading in ("rows", "added", "changed", "deleted", "held"):
        table.add_column(heading, justify="right", no_wrap=True)
    nothing = 0
    for outcome in sorted(report.outcomes, key=lambda o: o.estab):
        found = outcome.plan or Plan()
        numbers = (found.added, found.changed, found.deleted, outcome.held)
        if outcome.state == "read" and not any(number != 0 for number in numbers):
            nothing += 1
            continue
        shown = ["?" if value is None else number(value) for value in (outcome.rows, *numbers)]
        table.add_row(
            outcome.estab,
            outcome.endpoint,
            Text(_MODES.get(outcome.state, outcome.mode), style=_STATES[outcome.state]),
            *shown,
        )
    said = f"{number(nothing)} of {number(len(report.outcomes))} collections would not change."
    return Group(*([table] if table.row_count else []), Text(said))


def remarks(outcome: Outcome) -> list[str]:
    """Returns what people should know about a collection that was read."""
    found = list(outcome.warnings)
    if outcome.rejected:
        what = "value or row" if outcome.rejected == 1 else "values or rows"
        found.append(f"{number(outcome.rejected)} {what} could not be read: see rejected_rows")
    if outcome.undeclared:
        kept = "kept in" if outcome.keeps_extra else "left out along with"
        found.append(f"{kept} the column extra: {listed(outcome.undeclared)}")
    return found


def warnings(report: Report) -> Iterable[tuple[str, str, list[str]]]:
    """Yields the remarks of a run, each with its endpoint and its schools."""
    said: dict[tuple[str, str], list[str]] = {}
    for outcome in report.outcomes:
        for remark in remarks(outcome):
            said.setdefault((outcome.endpoint, remark), []).append(outcome.estab)
    for (endpoint, remark), estabs in said.items():
        who = ", ".join(estabs[:3]) + (f" and {len(estabs) - 3} more" if len(estabs) > 3 else "")
        yield f"school {who}, {endpoint}: {remark}", endpoint, estabs


def lines(report: Report) -> Iterable[str]:
    """Yields what needs attention: warnings, failures, then what waits for a decision."""
    for warning, _, _ in warnings(report):
        yield f"Warning: {warning}"
    failed: dict[str, list[str]] = {}
    for outcome in report.failed:
        failed.setdefault(outcome.error, []).append(outcome.endpoint)
    for error, endpoints in failed.items():
        # one cause may fail all endpoints of a school
        yield f"Failed: {', '.join(endpoints)}: {error}"
    for outcome in report.held:
        yield f"Waiting for a decision: {outcome.error}"
    for problem in report.problems:
        yield f"Failed: {problem}"


def findings(found: Iterable[Finding]) -> RenderableType:
    """Shows what servers allow: a line for each question."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("school", "question", "", "answer"):
        table.add_column(heading, overflow="fold")
    for finding in found:
        mark = Text("ok", style="green") if finding.good else Text("FAILED", style="red")
        table.add_row(finding.estab, finding.subject, mark, Text(finding.detail))
    return table


def views(found: Iterable[Statement]) -> RenderableType:
    """Shows the question that each view answers."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("view", "question", "one row per"):
        table.add_column(heading, overflow="fold")
    for view in found:
        table.add_row(
            view.name, view.about["question"], view.about["grain"].removeprefix("one row per ")
        )
    return table


def fields(found: Sequence[Entry], *, narrow: bool = False) -> RenderableType:
    """Shows every column under its table; a `narrow` screen leaves out types and sources."""
    shown: list[RenderableType] = []
    longest = {
        name: max(len(getattr(entry, name)) for entry in found)
        for name in ("column", "type", "source", "kept")
    }
    for name, entries in groupby(found, key=lambda entry: entry.table):
        table = Table(
            box=SIMPLE_HEAD, pad_edge=False, title=name, title_justify="left", expand=True
        )
        table.add_column("column", no_wrap=True, width=longest["column"])
        if not narrow:
            table.add_column("type", no_wrap=True, width=longest["type"])
            table.add_column("source", no_wrap=True, width=longest["source"])
        table.add_column("meaning", overflow="fold", ratio=1)
        table.add_column("", overflow="fold", width=9 if narrow else 19)
        table.add_column("kept", no_wrap=True, width=longest["kept"])
        for entry in entries:
            marks = [mark for mark in ("key", "personal", "sensitive") if getattr(entry, mark)]
            more = [] if narrow else [entry.type, entry.source]
            kept = Text(entry.kept, style=_KEPT[entry.kept])
            table.add_row(entry.column, *more, entry.meaning, ", ".join(marks), kept)
        shown.append(table)
    return Group(*shown)


def quality(results: Sequence[Result]) -> RenderableType:
    """Shows what the checks found: a line for each that failed, the most severe first."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("severity", no_wrap=True)
    table.add_column("question", overflow="fold", ratio=3)
    for heading in ("rows", "of", "schools"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("examples", overflow="fold", ratio=2)
    by_check: dict[str, list[Result]] = {}
    for result in results:
        by_check.setdefault(result.check.name, []).append(result)
    failing = [found for found in by_check.values() if any(r.found for r in found)]
    for found in sorted(failing, key=lambda found: SEVERITIES.index(found[0].severity)):
        bad = [r for r in found if r.found]
        table.add_row(
            Text(bad[0].severity, style=_SEVERITIES[bad[0].severity]),
            bad[0].check.about["question"],
            number(sum(r.found for r in bad)),
            number(sum(r.checked for r in found)),
            number(len(bad)),
            ", ".join(f"{r.estab} {r.examples[0]}" for r in bad[:2]),
        )
    schools = {result.estab for result in results}
    good = len(by_check) - len(failing)
    said = f"{good} of {len(by_check)} checks found nothing in {number(len(schools))} schools."
    return Group(*([table] if failing else []), Text(said))


def status(
    found: Status, *, now: datetime, every: bool = False, narrow: bool = False
) -> RenderableType:
    """Shows a dataset: rows by table, then its schools.

    Args:
        found: The status of the dataset.
        now: The current time, for ages.
        every: Whether to show all schools, however many.
        narrow: Whether to leave out some columns, and times beside ages.
    """
    rows = Table(box=SIMPLE_HEAD, pad_edge=False)
    rows.add_column("table", no_wrap=True)
    rows.add_column("rows", justify="right")
    for name, count in found.totals.items():
        rows.add_row(name, number(count))
    schools = found.schools()
    show = _one_school if len(schools) == 1 else _many_schools
    last = Text(f"Last load: {_time(found.last_load)}")
    return Group(rows, *show(schools, now=now, every=every, narrow=narrow), last)


def _one_school(
    schools: Sequence[SchoolStatus], *, now: datetime, **_: bool
) -> Iterable[RenderableType]:
    (school,) = schools
    cursors = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("school", "endpoint", "changes loaded up to", "last full read"):
        cursors.add_column(heading, no_wrap=True)
    for endpoint, entry in school.cursors.items():
        cursors.add_row(
            school.estab, endpoint, _time(entry.get("cursor")), _time(entry.get("full"))
        )
    yield cursors
    yield Text.assemble(
        f"School {school.estab}: ",
        _state(school),
        f"; last good load: {_when(school.last_good_load, now)}",
    )
    if school.failing:
        yield Text(f"Failing since {_failing(school, now)}: {_reason(school)}")
    elif school.held:
        since = _when(school.held_since, now)
        yield Text(f"Deletions wait for a decision since {since}: {_reason(school)}")


def _reason(school: SchoolStatus) -> str:
    return clean(school.reason or "", limit=MOST_LETTERS)


def _many_schools(
    schools: Sequence[SchoolStatus], *, now: datetime, every: bool, narrow: bool
) -> Iterable[RenderableType]:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 0 if narrow else 1))
    for heading in ("school", "state", "last good load", "failing since"):
        table.add_column(heading, no_wrap=True)
    if not narrow:
        table.add_column("rows", justify="right", no_wrap=True)
        table.add_column("last full read", no_wrap=True)
    table.add_column("reason", overflow="fold")
    good = [school for school in schools if school.state == "good"]
    others = [school for school in schools if school.state != "good"]
    shown = schools if every else [*others[:MOST_OTHERS], *good[:MOST_GOOD]]
    for school in shown:
        full = school.last_full_read
        more = [] if narrow else [number(school.rows), f"{full:%Y-%m-%d}" if full else "never"]
        table.add_row(
            school.estab,
            _state(school),
            _when(school.last_good_load, now, narrow=narrow),
            _failing(school, now, narrow=narrow) if school.failing else "",
            *more,
            school.reason or "",
        )
    yield table
    counts = Counter(school.state for school in schools)
    told = [state for state in STATES if counts[state] or state != "held"]
    said = ", ".join(f"{number(counts[state])} {state}" for state in told)
    yield Text(f"{number(len(schools))} schools: {said}.")
    if len(shown) < len(schools):
        left = Counter(school.state for school in schools)
        left.subtract(school.state for school in shown)
        said = ", ".join(f"{number(left[state])} {state}" for state in STATES if left[state])
        yield Text(f"Not shown: {said}; --all shows every school.")


def _state(school: SchoolStatus) -> Text:
    return Text(school.state, style=_STANDINGS[school.state])


def _failing(school: SchoolStatus, now: datetime, *, narrow: bool = False) -> str:
    runs = school.failures_in_a_row
    tries = f"{number(runs)} run" + ("" if runs == 1 else "s")
    return f"{_when(school.failing_since, now, narrow=narrow)}, {tries}"


def _when(moment: datetime | None, now: datetime, *, narrow: bool = False) -> str:
    """Formats an instant and its age, or only the age if `narrow`."""
    if moment is None:
        return "never"
    minutes = max(int((now - moment).total_seconds()) // 60, 0)
    hours = minutes // 60
    age = f"{minutes} min" if hours < 2 else f"{hours} h" if hours < 48 else f"{hours // 24} d"
    return age if narrow else f"{moment:%Y-%m-%d %H:%MZ} ({age})"


def _time(value: str | datetime | None) -> str:
    if not value:
        return "-"
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.strftime("%Y-%m-%d %H:%M:%S %Z").strip()
