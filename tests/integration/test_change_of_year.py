"""The setting `rollover`, and an August over a fleet: what waits for a decision, and what is lost.

uv run pytest -n0 -s -m campaign tests/integration/test_change_of_year.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import later
from support.changes import next_year
from support.settings import settings
from support.truth import opened

from oneroster_source import ConfigurationError, Report, Warehouse
from oneroster_source.config.rollover import rollover
from oneroster_source.config.settings import resolve
from oneroster_source.model import V1P1
from oneroster_source.simulator import School

TODAY = datetime.now(UTC).date()
NOW = f"{TODAY - timedelta(days=1)}..{TODAY + timedelta(days=1)}"
ONE = {"estab": "1", "rp": "me", "shared_secret": "secret"}


# the setting


@pytest.mark.parametrize(
    ("text", "day", "since"),
    [
        ("08-15..09-15", "2026-08-15", "2026-08-15"),
        ("08-15..09-15", "2027-09-15", "2027-08-15"),
        ("08-15..09-15", "2026-08-14", None),
        ("08-15..09-15", "2026-09-16", None),
        ("12-20..01-10", "2026-12-31", "2026-12-20"),
        ("12-20..01-10", "2027-01-10", "2026-12-20"),
        ("12-20..01-10", "2027-01-11", None),
        ("02-29..03-02", "2027-03-01", "2027-03-01"),
        ("2026-08-15..2026-09-15", "2026-09-01", "2026-08-15"),
        ("2026-08-15..2026-09-15", "2027-09-01", None),
        (" 01-01..01-02 , 08-15 .. 09-15", "2026-09-01", "2026-08-15"),
    ],
)
def test_when_a_new_year_is_expected(text: str, day: str, since: str | None) -> None:
    found = resolve(**ONE, rollover=text).rollover.since(date.fromisoformat(day))
    assert found == (since and date.fromisoformat(since))


days = st.dates(date(2020, 1, 1), date(2030, 12, 31))


@given(days, days, days)
def test_a_span_holds_its_ends_and_what_is_between(first: date, last: date, day: date) -> None:
    yearly = rollover(f"{first:%m-%d}..{last:%m-%d}")
    since = yearly.since(day)
    ends, now = (first.month, first.day), (day.month, day.day)
    within = [ends <= now, now <= (last.month, last.day)]
    assert (since is not None) == (all if ends <= (last.month, last.day) else any)(within)
    assert since is None or timedelta() <= day - since < timedelta(days=367)
    if first <= last:
        assert bool(rollover(f"{first}..{last}").since(day)) == (first <= day <= last)


@pytest.mark.parametrize(
    "text",
    [
        *("", "august", "08-15", "08-15..", "..09-15", "08-15..09-15..10-15", "08-15-09-15"),
        *("08-15..2026-09-15", "08-32..09-15", "02-30..03-01", "2026-09-15..2026-08-15"),
        *("8-15..9-15", "08-15..09-15,", "08-15..09-15;10-01..10-02", "٠٨-15..09-15"),
        *(815, True),
    ],
    ids=str,
)
def test_a_span_that_cannot_be_read_is_refused(text: Any) -> None:
    with pytest.raises(ConfigurationError, match="the setting 'rollover'") as refused:
        resolve(**ONE, rollover=text)
    assert "08-15..09-15" in refused.value.todo


def test_rows_of_people_and_orgs_are_never_expected_to_be_replaced() -> None:
    yearly = [endpoint.name for endpoint in V1P1.endpoints if endpoint.yearly]
    assert yearly == ["academic_sessions", "courses", "classes", "enrollments"]


# the rule

ENROLLMENTS: dict[str, Any] = {"endpoints": ["enrollments"], "rollover": NOW}


def state(report: Report) -> tuple[str, int]:
    (outcome,) = report.outcomes
    return outcome.state, outcome.held


@pytest.mark.slow
def test_a_new_year_replaces_the_old_one(serve, sync, school) -> None:
    server = serve(school)
    sync(server, school, **ENROLLMENTS)
    old, _ = next_year(school)
    report = sync(server, school, full=True, **ENROLLMENTS)
    assert state(report) == ("read", 0) and report.outcomes[0].gone == len(old)
    # what then disappears is no change of year any more
    left = [row["sourcedId"] for row in school.rows("enrollments")]
    for name in left[:-1]:
        school.purge("enrollments", name)
    assert state(sync(server, school, full=True, **ENROLLMENTS)) == ("held", len(left) - 1)


@pytest.mark.slow
def test_new_rows_that_came_some_nights_before_count(serve, sync, school) -> None:
    server = serve(school)
    sync(server, school, **ENROLLMENTS)
    old = [row for row in school.rows("enrollments") if row["status"] == "active"]
    for number, row in enumerate(old):
        new = {name: value for name, value in row.items() if name != "dateLastModified"}
        school.add("enrollments", {**new, "sourcedId": f"next-{number:05}"})
    for _ in range(2):
        assert sync(server, school, **ENROLLMENTS).good
    for row in old:
        school.delete("enrollments", row["sourcedId"])
    assert state(sync(server, school, **ENROLLMENTS)) == ("read", 0)


def test_a_year_that_disappears_waits_for_the_next_one(serve, sync, school) -> None:
    server = serve(school)
    sync(server, school, **ENROLLMENTS)
    old = [row for row in school.rows("enrollments") if row["status"] == "active"]
    for row in school.rows("enrollments"):
        school.purge("enrollments", row["sourcedId"])
    assert state(sync(server, school, full=True, **ENROLLMENTS)) == ("held", len(old))
    for number, row in enumerate(old):
        new = {name: value for name, value in row.items() if name != "dateLastModified"}
        school.add("enrollments", {**new, "sourcedId": f"next-{number:05}"})
        if number + 1 == len(old) // 2 - 1:
            # not yet half
            assert state(sync(server, school, **ENROLLMENTS)) == ("held", len(old))
    assert state(sync(server, school, **ENROLLMENTS)) == ("read", 0)


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "chosen",
    [
        {"endpoints": ["users"], "rollover": NOW},
        {"endpoints": ["enrollments"], "rollover": f"{TODAY:%Y}-01-01..{TODAY:%Y}-01-01"},
    ],
    ids=["users", "outside the span"],
)
def test_the_guard_stays_for_users_and_outside_the_span(serve, sync, school, chosen) -> None:
    (name,) = chosen["endpoints"]
    server = serve(school)
    sync(server, school, **chosen)
    old = [row for row in school.rows(name) if row["status"] == "active"]
    for number, row in enumerate(old):
        school.purge(name, row["sourcedId"])
        school.add(name, {**row, "sourcedId": f"next-{number:05}"})
    assert state(sync(server, school, full=True, **chosen)) == ("held", len(old))


# the rehearsal

PUPILS, STAFF, CLASSES, IN_CLASS = 30, 6, 25, 6
YEARLY = ["classes", "enrollments"]
LOADED = ["users", *YEARLY]
NIGHTS = 6
FULL = (2, 6)
"""Nights on which everything is read, as a full refresh is due: what disappeared is found then, if
it was not before."""
KINDS = ("at once", "marked", "new first", "old first", "in parts")


class Autumn:
    """One school, and what August does to it."""

    def __init__(self, number: int, kind: str) -> None:
        self.estab, self.kind = f"{number:04}", kind
        users = [self._user(f"p{i}", "student") for i in range(PUPILS)]
        users += [self._user(f"t{i}", "teacher") for i in range(STAFF)]
        self.school = School(self.estab, collections={"users": users})
        self.year = 0
        self.pupils = [f"p{i}" for i in range(PUPILS)]
        self.old: dict[str, list[str]] = {}
        self._new_year()
        self.ever = {name: self._live(name) for name in LOADED}
        self.first_night = number % 3 + 1

    def _user(self, name: str, role: str) -> dict[str, Any]:
        stamp = "2026-03-01T10:00:00.000Z"
        return {
            **{"sourcedId": name, "status": "active", "dateLastModified": stamp},
            **{"username": f"{name}-{self.estab}", "givenName": name, "familyName": self.estab},
            **{"role": role, "enabledUser": True},
        }

    def _live(self, name: str) -> set[str]:
        return {r["sourcedId"] for r in self.school.rows(name) if r["status"] == "active"}

    def _new_year(self, part: slice = slice(None)) -> None:
        year = self.year
        for number in range(CLASSES)[part]:
            name = f"c{year}-{number}"
            self.school.add("classes", {"sourcedId": name, "title": name})
            for place in range(IN_CLASS):
                pupil = self.pupils[(number * IN_CLASS + place) % len(self.pupils)]
                self.school.add(
                    "enrollments",
                    {
                        "sourcedId": f"e{year}-{number}-{place}",
                        "role": "student",
                        "user": {"sourcedId": pupil, "type": "user"},
                        "class": {"sourcedId": name, "type": "class"},
                    },
                )

    def _old_year(self, end: Callable[[str, str], None], part: slice = slice(None)) -> None:
        year = self.year - 1
        for number in range(CLASSES)[part]:
            for place in range(IN_CLASS):
                end("enrollments", f"e{year}-{number}-{place}")
            end("classes", f"c{year}-{number}")

    def _turn(self) -> None:
        """Leavers and the new intake."""
        leavers, self.pupils = self.pupils[:6], self.pupils[6:]
        end = self.school.delete if self.kind in ("marked", "new first") else self.school.purge
        for name in leavers:
            end("users", name)
        for number in range(6):
            name = f"n{number}"
            self.school.add("users", self._user(name, "student") | {"dateLastModified": _stamp()})
            self.pupils.append(name)
        self.year += 1

    def night(self, night: int) -> None:
        """What the day before this night has brought."""
        step = night - self.first_night
        delete, purge = self.school.delete, self.school.purge
        if step == 0 and self.kind != "broken":
            self._turn()
        if self.kind == "at once" and step == 0:
            self._new_year()
            self._old_year(purge)
        elif self.kind == "marked" and step == 0:
            self._new_year()
            self._old_year(delete)
        elif self.kind == "new first" and step in (0, 2):
            self._old_year(purge) if step else self._new_year()
        elif self.kind == "old first" and step in (0, 2):
            self._new_year() if step else self._old_year(purge)
        elif self.kind == "in parts" and step in (0, 2):
            half = CLASSES // 2
            part = slice(half, None) if step else slice(0, half)
            self._new_year(part)
            self._old_year(delete, part)
        elif self.kind == "broken" and step == 1:
            for name in LOADED:
                for row in self.school.rows(name):
                    self.school.purge(name, row["sourcedId"])
        for name in LOADED:
            self.ever[name] |= self._live(name)


def _stamp() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def decisions(waits: list[set[tuple[str, str]]]) -> dict[tuple[str, str], int]:
    """How often it began, by school and collection, that deletions waited."""
    found: dict[tuple[str, str], int] = {}
    before: set[tuple[str, str]] = set()
    for now in waits:
        for which in now - before:
            found[which] = found.get(which, 0) + 1
        before = now
    return found


def august(
    serve: Any, warehouse: Warehouse, count: int, **chosen: Any
) -> tuple[list[Autumn], list[set[tuple[str, str]]], Callable[..., Report]]:
    """Lives through it; returns the schools, what waited after each night, and the sync."""
    kinds = [KINDS[n % len(KINDS)] for n in range(count - 1)] + ["broken"]
    schools = [Autumn(number, kind) for number, kind in enumerate(kinds)]
    server = serve(*(s.school for s in schools))

    def sync(**options: Any) -> Report:
        report = Report()
        reached = settings(server, *(s.school for s in schools))
        given = {"endpoints": LOADED, "history": True, **chosen, **options}
        warehouse.load(report, **{**reached, **given})
        assert not report.failed and not report.problems and not report.error
        return report

    assert sync().good
    waits = []
    for night in range(1, NIGHTS + 1):
        for school in schools:
            school.night(night)
        report = sync(full=night in FULL)
        waits.append({(o.estab, o.endpoint) for o in report.held})
    return schools, waits, sync


def check(warehouse: Warehouse, schools: list[Autumn]) -> Iterator[str]:
    """What is lost, or there though it should not be."""
    with opened(warehouse.name) as ask:
        for name in LOADED:
            live: dict[str, set[str]] = {}
            every: dict[str, set[str]] = {}
            for estab, row, dead in ask(
                f"SELECT estab, sourced_id, _deleted FROM oneroster.{name}"
            ):
                every.setdefault(estab, set()).add(row)
                if not dead:
                    live.setdefault(estab, set()).add(row)
            versions = ask(
                "SELECT estab, sourced_id, bool_or(NOT _deleted AND valid_to IS NOT NULL),"
                " count(*) FILTER (valid_to IS NULL AND NOT _deleted)"
                f" FROM oneroster.{name}_history GROUP BY ALL"
            )
            closed = {(estab, row) for estab, row, was, _ in versions if was}
            still = {(estab, row) for estab, row, _, now in versions if now}
            for school in schools:
                now = school.ever[name] if school.kind == "broken" else school._live(name)
                if live.get(school.estab) != now:
                    yield f"{school.estab} {school.kind} {name}: live rows differ"
                if every.get(school.estab) != school.ever[name]:
                    yield f"{school.estab} {school.kind} {name}: rows were removed"
                for row in school.ever[name]:
                    if ((school.estab, row) in still) != (row in now):
                        yield f"{school.estab} {school.kind} {name}: an open version is wrong"
                    if row not in now and (school.estab, row) not in closed:
                        yield f"{school.estab} {school.kind} {name}: a leaver's history is lost"


@pytest.mark.slow
@pytest.mark.parametrize("count", [6, later(200)])
def test_an_august_with_rollover_asks_for_one_decision_per_broken_school(
    serve, warehouse, count
) -> None:
    schools, waits, _ = august(serve, warehouse, count, rollover=NOW)
    broken = schools[-1]
    # only what is broken waits in the end
    assert {estab for estab, _ in waits[-1]} == {broken.estab}
    assert {name for _, name in waits[-1]} == set(LOADED)
    by_school = [{estab for estab, _ in night} for night in waits]
    asked = decisions([{(estab, "") for estab in night} for night in by_school])
    assert set(asked.values()) == {1}
    # the others waited only where the old year disappeared before the new one came
    kinds = {s.estab: s.kind for s in schools}
    assert {kinds[estab] for estab, _ in asked} == {"broken", "old first"}
    assert list(check(warehouse, schools)) == []
    print(f"{count} schools, rollover: {len(asked)} waited, 1 at the end")  # noqa: T201


@pytest.mark.slow
@pytest.mark.parametrize("count", [6, later(200)])
def test_an_august_without_rollover_asks_once_for_each_collection(serve, warehouse, count) -> None:
    schools, waits, sync = august(serve, warehouse, count)
    asked = decisions(waits)
    assert set(asked.values()) == {1}
    affected = {(s.estab, name) for s in schools for name in YEARLY}
    affected.add((schools[-1].estab, "users"))
    # a dozen classes at once are few, and go
    few = {(s.estab, "classes") for s in schools if s.kind == "in parts"}
    assert set(asked) == affected - few
    assert waits[-1] == set(asked)
    # somebody says yes, to all but the school that is broken
    only = [s.estab for s in schools[:-1]]
    assert sync(only=only, endpoints=YEARLY, full=True, allow_deletes=True).good
    assert list(check(warehouse, schools)) == []
    print(f"{count} schools, no rollover: {len(asked)} collections waited")  # noqa: T201
