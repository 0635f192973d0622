"""What people see: tables and progress, made from reports and holdings. Prints nothing itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from oneroster_source.check import Finding
from oneroster_source.quality import SEVERITIES, Result
from oneroster_source.report import Outcome, Report
from oneroster_source.statement import Statement
from oneroster_source.warehouse import Holdings

_SEVERITIES = {"error": "red", "warning": "yellow", "info": "cyan"}
_STATES = {"waiting": "dim", "reading": "cyan", "read": "green", "failed": "red"}


def number(value: int) -> str:
    return f"{value:,}"


def progress(report: Report, *, lines: int) -> RenderableType:
    """What is being read at this moment; one line for each collection, if they are few."""
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
    """How far a run is, in a line."""
    outcomes = list(report.outcomes)
    done = sum(o.state in ("read", "failed") for o in outcomes)
    rows = sum(o.rows for o in outcomes)
    what = "Loading" if outcomes and done == len(outcomes) else "Reading"
    return f"{what}: {done} of {len(outcomes)} collections read, {number(rows)} rows"


def summary(report: Report, *, narrow: bool = False) -> RenderableType:
    """The run, a line for each collection; on a `narrow` screen without requests and seconds."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 0 if narrow else 1))
    for heading in ("school", "endpoint", "mode"):
        table.add_column(heading, no_wrap=True)
    numbers = ["rows", "changed", "deleted", "gone", "rejected", "warnings"]
    if not narrow:
        numbers = ["requests", *numbers[:-1], "seconds", "warnings"]
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    for outcome in sorted(report.outcomes, key=lambda o: o.estab):
        failed = outcome.state == "failed"
        values = {
            "requests": number(outcome.requests),
            "rows": number(outcome.rows),
            "changed": number(outcome.changed),
            "deleted": number(outcome.deleted),
            "gone": number(outcome.gone),
            "rejected": number(outcome.rejected),
            "seconds": f"{outcome.seconds:.1f}",
            "warnings": str(len(remarks(outcome)) or ""),
        }
        table.add_row(
            outcome.estab,
            outcome.endpoint,
            "FAILED" if failed else outcome.mode,
            *(values[heading] for heading in numbers),
            style="red" if failed else None,
        )
    return table


def remarks(outcome: Outcome) -> list[str]:
    """What is worth knowing of a collection that was read."""
    found = list(outcome.warnings)
    if outcome.rejected:
        what = "value or row" if outcome.rejected == 1 else "values or rows"
        found.append(f"{number(outcome.rejected)} {what} could not be read: see rejected_rows")
    if outcome.undeclared:
        found.append(f"kept in the column extra: {', '.join(outcome.undeclared)}")
    return found


def warnings(report: Report) -> Iterable[tuple[str, str, list[str]]]:
    """What is worth knowing of a run, with the endpoint and the schools that it is true of."""
    said: dict[tuple[str, str], list[str]] = {}
    for outcome in report.outcomes:
        for remark in remarks(outcome):
            said.setdefault((outcome.endpoint, remark), []).append(outcome.estab)
    for (endpoint, remark), estabs in said.items():
        who = ", ".join(estabs[:3]) + (f" and {len(estabs) - 3} more" if len(estabs) > 3 else "")
        yield f"school {who}, {endpoint}: {remark}", endpoint, estabs


def lines(report: Report) -> Iterable[str]:
    """What of a run needs a person's eye: warnings, then failures."""
    for warning, _, _ in warnings(report):
        yield f"Warning: {warning}"
    failed: dict[str, list[str]] = {}
    for outcome in report.failed:
        failed.setdefault(outcome.error, []).append(outcome.endpoint)
    for error, endpoints in failed.items():
        # one cause may fail all endpoints of a school
        yield f"Failed: {', '.join(endpoints)}: {error}"
    for problem in report.problems:
        yield f"Failed: {problem}"


def findings(found: Iterable[Finding]) -> RenderableType:
    """What servers allow, a line for each question."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("school", "question", "", "answer"):
        table.add_column(heading, overflow="fold")
    for finding in found:
        mark = Text("ok", style="green") if finding.good else Text("FAILED", style="red")
        table.add_row(finding.estab, finding.subject, mark, Text(finding.detail))
    return table


def guide(views: Iterable[Statement]) -> RenderableType:
    """What each view answers."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("view", "question", "one row per"):
        table.add_column(heading, overflow="fold")
    for view in views:
        table.add_row(
            view.name, view.about["question"], view.about["grain"].removeprefix("one row per ")
        )
    return table


def quality(results: Sequence[Result]) -> RenderableType:
    """What was found, a line for each check, the gravest first."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("severity", no_wrap=True)
    table.add_column("question", overflow="fold", ratio=3)
    for heading in ("rows", "of", "schools"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("such as", overflow="fold", ratio=2)
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


def holdings(found: Holdings) -> RenderableType:
    """A dataset: rows by table and school, then the cursors."""
    rows = Table(box=SIMPLE_HEAD, pad_edge=False)
    rows.add_column("table", no_wrap=True)
    estabs = found.estabs
    shown = estabs[:6]
    for estab in shown:
        rows.add_column(estab, justify="right")
    rows.add_column("all", justify="right")
    for name, counts in found.rows.items():
        rows.add_row(name, *(number(counts.get(e, 0)) for e in shown), number(sum(counts.values())))
    cursors = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("school", "endpoint", "changes known up to", "last full read"):
        cursors.add_column(heading, no_wrap=True)
    for estab in estabs:
        for endpoint, schools in found.cursors.items():
            entry = schools.get(estab)
            if entry is not None:
                cursors.add_row(
                    estab, endpoint, _time(entry.get("cursor")), _time(entry.get("full"))
                )
    parts: list[RenderableType] = [rows]
    if len(estabs) > len(shown):
        parts.append(Text(f"{len(estabs)} schools in all; the first {len(shown)} are shown."))
    parts += [cursors, Text(f"Last load: {_time(found.last_load)}")]
    return Group(*parts)


def _time(value: str | datetime | None) -> str:
    if not value:
        return "-"
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment.strftime("%Y-%m-%d %H:%M:%S %Z").strip()
