"""A school that gets another estab is noticed; schools whose ids only look alike are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support import later
from support.settings import settings
from support.small_school import small_school

from oneroster_source import Report, Warehouse
from oneroster_source.simulator import School, Simulator

SOME = ["orgs", "users", "classes", "enrollments"]
Load = Callable[..., Report]


@pytest.fixture
def load(serve, warehouse: Warehouse, request: pytest.FixtureRequest) -> Load:
    """Loads schools as they are configured now: the others are not any more."""

    def run(*schools: School, to: str = "", **options: Any) -> Report:
        server: Simulator = serve(*schools)
        report = Report()
        place = Warehouse(to) if to else warehouse
        place.load(report, **{**settings(server, *schools), "endpoints": SOME, **options})
        report.raise_for_failures()
        return report

    return run


def same_as(school: School, estab: str) -> School:
    """The same school under another estab."""
    names = ("orgs", "academicSessions", "courses", "classes", "users", "enrollments")
    return School(estab, collections={name: school.rows(name) for name in names})


def numbered(estab: str, seed: int) -> School:
    """A school whose provider gives small numbers as ids, and one stamp to all rows."""
    own = small_school(estab)
    ids: dict[tuple[str, str], str] = {}

    def number(kind: str, name: str) -> str:
        return ids.setdefault((kind, name), str(sum(k == kind for k, _ in ids) + 1))

    kinds = {"org": "orgs", "academicSession": "academicSessions", "user": "users"}
    kinds |= {"class": "classes", "course": "courses"}

    def renamed(value: Any) -> Any:
        if isinstance(value, dict) and "sourcedId" in value and "type" in value:
            return {**value, "sourcedId": number(kinds[value["type"]], value["sourcedId"])}
        return [renamed(item) for item in value] if isinstance(value, list) else value

    collections = {}
    for name in ("orgs", "academicSessions", "courses", "classes", "users", "enrollments"):
        rows = own.rows(name)
        # every school has another order
        rows = rows[seed:] + rows[:seed]
        collections[name] = [
            {key: renamed(value) for key, value in row.items()}
            | {"sourcedId": number(name, row["sourcedId"])}
            | {"dateLastModified": "2026-01-01T00:00:00.000Z"}
            | ({"familyName": f"{row['familyName']}-{seed}"} if name == "users" else {})
            for row in rows
        ]
    return School(estab, collections=collections)


def warned(report: Report) -> dict[str, list[str]]:
    """The warnings of another estab, by the school that was loaded."""
    found: dict[str, list[str]] = {}
    for outcome in report.outcomes:
        for warning in outcome.warnings:
            if "oneroster remove-school" in warning:
                found.setdefault(outcome.estab, []).append(warning)
    return found


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"privacy": "pseudonymous", "privacy_key": "0123456789abcdef" * 4},
        later({"endpoints": ["users"]}),
        later({"endpoints": ["enrollments"]}),
        later({"history": True}),
    ],
    ids=str,
)
def test_a_school_that_gets_another_estab_is_told_once(load, options) -> None:
    old, other = small_school("1"), numbered("7", 3)
    assert warned(load(old, other, **options)) == {}
    new = same_as(old, "2")
    report = load(new, other, **options)
    (warning,) = warned(report)["2"]
    assert "school 1" in warning and "`oneroster remove-school --school 1`" in warning
    assert report.good and warned(report).keys() == {"2"}
    assert warned(load(new, other, full=True, **options)) == {}


@pytest.mark.slow
def test_it_is_told_on_postgres_too(load, postgres) -> None:
    old = small_school("1")
    assert warned(load(old, to=postgres)) == {}
    assert warned(load(same_as(old, "2"), to=postgres)).keys() == {"2"}


@pytest.mark.slow
def test_a_school_that_has_changed_much_since_is_still_known(load) -> None:
    old = small_school("1")
    load(old)
    new = same_as(old, "2")
    for row in new.rows("enrollments"):
        new.purge("enrollments", row["sourcedId"])
    for row in new.rows("users")[:3]:
        new.purge("users", row["sourcedId"])
    new.change("users", new.rows("users")[0]["sourcedId"], familyName="Other")
    assert warned(load(new)).keys() == {"2"}


@pytest.mark.slow
def test_schools_whose_ids_are_small_numbers_stay_silent(load) -> None:
    """Those that are configured, and those that another configuration loads into the dataset."""
    load(numbered("1", 0), numbered("2", 1))
    assert warned(load(numbered("3", 2), numbered("4", 4))) == {}
    # and where one of the fleet is left out
    assert warned(load(numbered("3", 2), numbered("5", 5), only=["5"])) == {}


@pytest.mark.slow
def test_configured_schools_that_share_people_stay_silent(load) -> None:
    one = small_school("1")
    two = same_as(one, "2")
    load(one)
    assert warned(load(one, two)) == {}


@pytest.mark.slow
def test_a_teacher_at_two_schools_makes_no_other_school(load) -> None:
    one, two = small_school("1"), numbered("2", 2)
    for row in one.rows("users")[:2]:
        two.add("users", row)
    load(one)
    assert warned(load(two)) == {}
