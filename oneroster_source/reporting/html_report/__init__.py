"""The HTML report: one file about a dataset, with its charts in it, for any browser.

`QUERIES` are run on the dataset; `page` makes the file from their rows. It holds counts, and ids of
schools and classes, but neither names nor ids of people: it is sent around, and nobody erases
anything in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from oneroster_source.errors import MOST_LETTERS, clean
from oneroster_source.model import V1P1
from oneroster_source.reporting.html_report import charts
from oneroster_source.reporting.html_report.charts import Row
from oneroster_source.reporting.quality import SEVERITIES, ids_shown
from oneroster_source.reporting.sql_files import statements

QUERIES = tuple(statements(__name__))
MOST_SCHOOLS = 200
"""Most schools that get a line each: the most urgent come first."""

_NONE = "\N{EN DASH}"
"""Stands where there is no value."""

Answers = Mapping[str, Sequence[Row]]


def page(answers: Answers, *, source: str, now: datetime) -> str:
    """Makes the page as HTML.

    Args:
        answers: Rows by the name of the query; none for a query whose tables are not there.
        source: Where the rows come from, for people.
        now: When it is made.
    """
    schools, faults = answers["schools"], _by_school(answers["faults"])
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, finalize=_fit
    )
    template = environment.from_string(files(__name__).joinpath("template.html").read_text("utf-8"))
    one = len(schools) == 1
    checked = _first(answers["checks"]).get("checked_at") is not None
    shown = sorted(schools, key=lambda s: (_gravity(faults.get(s["estab"], ())), s["estab"]))
    return template.render(
        title=f"Rosters of {schools[0]['school_name'] or schools[0]['estab']}"
        if one
        else f"Rosters of {len(schools):,} schools",
        source=source,
        made=_time(now),
        tiles=_tiles(schools, answers["runs"]),
        schools=[_school(s, faults.get(s["estab"], ()), checked) for s in shown[:MOST_SCHOOLS]],
        schools_note=_schools_note(len(schools), checked),
        charts=list(_charts(answers)),
        faults=list(_faults(answers["faults"])),
        quality_note=_quality_note(answers),
        runs=[_run(run) for run in answers["runs"]],
    )


def _fit(value: Any) -> Any:
    """Escapes and shortens what the template writes."""
    return value if isinstance(value, Markup) else clean(value, limit=MOST_LETTERS)


def _first(rows: Sequence[Row]) -> Row:
    return rows[0] if rows else {}


def _by_school(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["estab"], []).append(row)
    return found


def _count(faults: Iterable[Row], severity: str) -> int:
    return sum(fault["severity"] == severity for fault in faults)


def _gravity(faults: Sequence[Row]) -> tuple[int, ...]:
    """Sorts the most urgent first."""
    return tuple(-_count(faults, severity) for severity in SEVERITIES)


def _number(value: Any) -> str:
    return _NONE if value is None else f"{value:,}"


def _time(value: datetime | None) -> str:
    return _NONE if value is None else f"{value.astimezone(UTC):%d %b %Y, %H:%M}"


def _plural(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def _tiles(schools: Sequence[Row], runs: Sequence[Row]) -> list[dict[str, str]]:
    def total(name: str) -> int:
        return sum(school[name] or 0 for school in schools)

    classes = total("classes")
    seats = sum(
        float(s["average_class_size"]) * s["classes"] for s in schools if s["average_class_size"]
    )
    tiles = {
        "school" if len(schools) == 1 else "schools": _number(len(schools)),
        "pupils": _number(total("students")),
        "staff": _number(total("staff")),
        "classes with pupils": _number(classes),
        "pupils in a class": f"{seats / classes:.1f}" if classes else _NONE,
        "last load": f"{runs[0]['started'].astimezone(UTC):%d %b}" if runs else _NONE,
    }
    return [{"label": label, "value": value} for label, value in tiles.items()]


def _school(school: Row, faults: Sequence[Row], checked: bool) -> dict[str, str]:
    counts = [(severity, _count(faults, severity)) for severity in SEVERITIES]
    worst: tuple[str, int] | None = next((found for found in counts if found[1]), None)
    mark, said = ("good", "good") if checked else ("info", "not checked")
    if worst is not None:
        mark, count = worst
        said = _plural(count, "note" if mark == "info" else mark)
    size = school["average_class_size"]
    return {
        "estab": school["estab"],
        "name": school["school_name"] or school["estab"],
        "students": _number(school["students"]),
        "staff": _number(school["staff"]),
        "classes": _number(school["classes"]),
        "size": _NONE if size is None else f"{size:.1f}",
        "changed": _time(school["last_change"]),
        "loaded": _time(school["last_load"]),
        "faults": said,
        "mark": mark,
    }


def _schools_note(count: int, checked: bool) -> str:
    note = "Classes are those with pupils today"
    if checked and count > 1:
        note += "; schools with errors come first"
    if count > MOST_SCHOOLS:
        note += f"; the first {MOST_SCHOOLS} of {count:,}"
    return note + "."


def _charts(answers: Answers) -> Iterable[dict[str, str]]:
    # a picture is of our own making, and as long as it is
    if answers["sizes"]:
        yield {
            "title": "How large the classes are",
            "note": "Classes by the number of pupils who are in them today.",
            "picture": Markup(charts.sizes(answers["sizes"])),  # noqa: S704 - of escaped parts
            "told": "Bars: the number of classes for each size.",
        }
    if answers["years"]:
        yield {
            "title": "Pupils in each year",
            "note": "Every pupil once, by the year group that the school states.",
            "picture": Markup(charts.years(answers["years"])),  # noqa: S704 - of escaped parts
            "told": "Bars: the number of pupils in each year group.",
        }
    if answers["changes"]:
        yield {
            "title": "Who joined and left classes",
            "note": "Pupils week by week, without the weeks in which a term begins.",
            "picture": Markup(charts.changes(answers["changes"])),  # noqa: S704 - of escaped parts
            "told": "Bars: pupils who joined above the line, and who left below it, in each week.",
        }


def _faults(rows: Iterable[Row]) -> Iterable[dict[str, str]]:
    """A line for each check, the gravest first."""
    by_check: dict[tuple[int, str], list[Row]] = {}
    for row in rows:
        by_check.setdefault((SEVERITIES.index(row["severity"]), row["check_id"]), []).append(row)
    for _, found in sorted(by_check.items()):
        first = found[0]
        # JSON is read by some drivers, and not by others
        ids = first["examples"]
        ids = json.loads(ids) if isinstance(ids, str) else ids
        # ids of people are for nobody who reads a page
        shown = ids and not any(V1P1[name].personal for name in ids_shown(first["check_id"]))
        yield {
            "severity": first["severity"],
            "question": first["question"],
            "rows": _number(sum(row["rows_found"] for row in found)),
            "example": f"{first['estab']} {ids[0]}" if shown else first["estab"],
        }


def _quality_note(answers: Answers) -> str:
    last = _first(answers["checks"])
    if last.get("checked_at") is None:
        return "Nothing was checked yet: run `oneroster quality`."
    failing = {row["check_id"] for row in answers["faults"]}
    return (
        f"{last['checks'] - len(failing)} of {last['checks']} checks found nothing on"
        f" {_time(last['checked_at'])}."
    )


def _run(run: Row) -> dict[str, str]:
    failed, waiting = run["failed"], run["held"]
    said = [f"{_plural(failed, 'collection')} failed"] if failed else []
    said += [f"deletions of {_plural(waiting, 'collection')} wait"] if waiting else []
    return {
        "started": _time(run["started"]),
        "seconds": f"{run['seconds']:.1f}",
        "outcome": ", ".join(said) or "good",
        "mark": "error" if failed else "warning" if waiting else "good",
        **{
            name: _number(run[name])
            for name in ("schools", "rows_read", "changed", "deleted", "gone")
        },
    }
