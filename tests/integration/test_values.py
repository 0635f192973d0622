"""What values become on the whole way, from a server into a database."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from support.settings import settings
from support.small_school import MODIFIED, enrollment, small_school
from support.truth import Truth, differences, opened

from oneroster_source import Report, Warehouse
from oneroster_source.errors import OneRosterError
from oneroster_source.simulator import School, Simulator
from oneroster_source.simulator.options import Options
from oneroster_source.simulator.pages import Page


class Listed(School):
    """A small school that serves some collections as lists of any rows, in their order."""

    lists: dict[str, list[Any]]

    def page(self, collection: str, options: Options, base_url: str) -> Page:
        if collection not in self.lists:
            return super().page(collection, options, base_url)
        rows = self.lists[collection]
        sent = rows[options.offset :][: options.limit]
        body = json.dumps({collection: sent}).encode()
        return Page(body, len(sent), str(len(rows)))


def listed(estab: str = "1", **lists: list[Any]) -> Listed:
    small = small_school(estab)
    names = ("orgs", "academicSessions", "courses", "classes", "users", "enrollments")
    school = Listed(estab, collections={name: small.rows(name) for name in names})
    school.lists = lists
    return school


def ask(name: str, query: str) -> list[tuple[Any, ...]]:
    with opened(name) as connected:
        return connected(query)


def load(name: str, server: Simulator, *schools: School, **options: Any) -> Report:
    report = Report()
    Warehouse(name).load(report, **settings(server, *schools), **options)
    return report


def test_dates_as_instants_are_days_where_the_school_is(serve, sync, warehouse) -> None:
    school = small_school()
    school.add(
        "enrollments",
        enrollment("x", "student", "p1", "7A", beginDate="2026-08-31T23:00:00Z", endDate=None),
    )
    server = serve(school)
    dates = "SELECT begin_date FROM oneroster.enrollments WHERE sourced_id = 'x'"
    assert sync(server, school, time_zone="UTC").good
    assert ask(warehouse.name, dates) == [(None,)]
    # nothing has changed at the server but how it is read
    modes = {o.endpoint: o.mode for o in sync(server, school).outcomes}
    assert {name for name, mode in modes.items() if mode == "full"} == {
        "academic_sessions",
        "enrollments",
    }
    assert [str(day) for (day,) in ask(warehouse.name, dates)] == ["2026-09-01"]
    assert ask(warehouse.name, "FROM oneroster.rejected_rows") == []


def test_metadata_stays_an_object_in_the_database(serve, sync, warehouse) -> None:
    school = small_school()
    sent = {"guid": "ac2cb28e-1714-4653-aa7d-8088f314a780"}
    school.change("users", "p1", metadata=sent, preferredName=sent)
    assert sync(serve(school), school).good
    query = "SELECT metadata, extra FROM oneroster.users WHERE sourced_id = 'p1'"
    ((metadata, extra),) = ask(warehouse.name, query)
    assert (json.loads(metadata), json.loads(extra)) == (sent, {"preferredName": sent})


# rows that cannot be told from others

NAMELESS = [
    {"status": "active", "dateLastModified": MODIFIED, "givenName": f"n{i}"} for i in range(3)
]


@pytest.mark.sample(1)
@pytest.mark.parametrize("full", [False, True])
def test_a_collection_of_which_nothing_can_be_read_fails_and_says_why(serve, sync, full) -> None:
    long = {"sourcedId": "x" * 1001, "dateLastModified": MODIFIED}
    school = listed("1", users=[*NAMELESS, long])
    other = small_school("2")
    server = serve(school, other)
    # the first load, and later ones
    for again in range(2):
        report = sync(server, school, other, **({"full": True} if again and full else {}))
        [failed] = report.failed
        assert (failed.estab, failed.endpoint) == ("1", "users")
        assert "no row could be read, of 4 that came" in failed.error
        assert "no sourcedId (rows: 3); sourcedId: too long (rows: 1)" in failed.error
        assert "n0" not in failed.error
    with pytest.raises(OneRosterError, match="school 1, users"):
        report.raise_for_failures()


@pytest.mark.slow
@pytest.mark.parametrize("full", [False, True])
def test_rows_that_lose_all_their_ids_fail_and_leave_what_is_there(
    serve, sync, warehouse, full
) -> None:
    school = listed("1")
    server = serve(school)
    assert sync(server, school).good
    there = ask(warehouse.name, "SELECT sourced_id, _deleted FROM oneroster.users ORDER BY ALL")
    school.lists = {"users": NAMELESS}
    for _ in range(2):
        [failed] = sync(server, school, full=full).failed
        assert "no row could be read, of 3 that came" in failed.error
    now = ask(warehouse.name, "SELECT sourced_id, _deleted FROM oneroster.users ORDER BY ALL")
    assert now == there


@pytest.mark.slow
def test_a_delta_of_which_nothing_can_be_read_is_made_up_for(serve, sync, warehouse) -> None:
    school = listed("1")
    users = school.rows("users")
    server = serve(school)
    assert sync(server, school, lag=0).good

    def page(collection: str, options: Options, base_url: str) -> Page:
        if collection != "users":
            return School.page(school, collection, options, base_url)
        rows = [new] if options.predicates else [*users, new]
        body = json.dumps({collection: rows[options.offset :]}).encode()
        return Page(body, len(rows), str(len(rows)))

    new = {"status": "active", "dateLastModified": MODIFIED.replace("12:00", "13:00")}
    school.page = page  # type: ignore[method-assign]
    report = sync(server, school, lag=0)
    assert report.good
    [found] = [o for o in report.outcomes if o.endpoint == "users"]
    assert (found.mode, found.rejected) == ("full", 1)
    assert "none of the rows that changed could be read; all rows were read" in found.warnings
    assert ask(warehouse.name, "SELECT reason FROM oneroster.rejected_rows") == [("no sourcedId",)]
    assert ask(warehouse.name, "SELECT count(*) FROM oneroster.users") == [(len(users),)]


@pytest.fixture(params=["duckdb", "postgres"])
def database(request, tmp_path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres"))
    return str(tmp_path / "roster.duckdb")


@pytest.mark.slow
def test_ids_that_are_too_long_for_an_index_stop_nothing_else(serve, database) -> None:
    # random, since Postgres would compress others
    long = random.Random(1).randbytes(4000).hex()
    just = random.Random(2).randbytes(500).hex()
    school, plain = small_school("1"), small_school("1")
    for one in (school, plain):
        one.add("users", {"sourcedId": just, "role": "student", "dateLastModified": MODIFIED})
        one.add("enrollments", enrollment("just", "student", just, "7A"))
    school.add("users", {"sourcedId": long, "role": "student", "grades": ["7"]})
    school.add("enrollments", enrollment("x", "student", long, "7A"))
    school.add("classes", {"sourcedId": long, "title": "Long", "periods": ["1"]})
    server = serve(school, small_school("2"))
    expected = Truth(server.base_url, [plain, small_school("2")])
    rejected = [
        ("1", "classes", None, "sourcedId: too long"),
        ("1", "enrollments", "x", "user: a reference whose sourcedId is too long"),
        ("1", "users", None, "sourcedId: too long"),
    ]
    expected.tables["rejected_rows"] = list(rejected)
    for options in ({}, {}, {"full": True}):
        report = load(database, server, school, small_school("2"), history=True, **options)
        report.raise_for_failures()
        found = differences(database, expected)
        # the enrollment itself is there, without the reference
        for table, (missing, more) in found.items():
            assert not missing and {row[1] for row in more} == {"x"}, table
        assert set(found) == {"enrollments", "enrollments__class", "enrollments__school"}


# one id on several rows


def twins() -> list[dict[str, Any]]:
    """Users of whom two come once for each of their orgs, and one comes twice as it is."""
    common = {"status": "active", "dateLastModified": MODIFIED, "role": "teacher"}
    rows = [
        common | {"sourcedId": f"t{i:02}", "orgs": [{"sourcedId": org, "type": "org"}]}
        for i in range(40)
        for org in (("school", "authority") if i in (9, 30) else ("school",))
    ]
    return [*rows, rows[-1]]


@pytest.mark.sample(1)
@pytest.mark.parametrize("page_size", [3, 10, 1000])
@pytest.mark.slow
def test_ids_that_come_on_several_rows_are_told(serve, database, page_size) -> None:
    school = listed("1", users=twins())
    server = serve(school)
    for options in ({}, {"full": True}):
        report = load(database, server, school, page_size=page_size, **options)
        report.raise_for_failures()
        [found] = [o for o in report.outcomes if o.endpoint == "users"]
        assert found.rejected == 2
        said = "2 ids came on more than one row with different content; the newest row was kept"
        assert said in found.warnings
        rows = ask(database, "SELECT sourced_id FROM oneroster.users ORDER BY 1")
        assert rows == [(f"t{i:02}",) for i in range(40)]
        rejected = ask(
            database, "SELECT endpoint, sourced_id, reason FROM oneroster.rejected_rows ORDER BY 2"
        )
        assert rejected == [("users", i, "sent more than once") for i in ("t09", "t30")]
        query = "SELECT sourced_id FROM oneroster.users__orgs WHERE user_sourced_id = 't09'"
        assert ask(database, query) == [("authority",)]
    # once each comes once, nothing is left of it
    school.lists = {
        "users": [row for row in twins()[:-1] if row["orgs"][0]["sourcedId"] == "school"]
    }
    report = load(database, server, school, full=True)
    assert report.good and ask(database, "SELECT * FROM oneroster.rejected_rows") == []


@pytest.mark.slow
def test_what_was_rejected_is_forgotten_once_a_full_pass_reads_it_well(serve, database) -> None:
    school, other = small_school("1"), small_school("2")
    server = serve(school, other)
    for one in (school, other):
        one.change("users", "p1", enabledUser="perhaps")
        one.change("enrollments", "7A-p1", beginDate="soon")
    load(database, server, school, other).raise_for_failures()
    school.change("users", "p1", enabledUser=True)
    load(database, server, school, other, full=True).raise_for_failures()
    rejected = ask(database, "SELECT estab, endpoint FROM oneroster.rejected_rows ORDER BY 1, 2")
    assert rejected == [("1", "enrollments"), ("2", "enrollments"), ("2", "users")]
