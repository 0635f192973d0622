"""From a real server to DuckDB: whole tables against the server's own truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support.changes import change
from support.settings import settings
from support.truth import REFERENCE_TABLES, Truth, differences, held

from oneroster_source import Report, Warehouse
from oneroster_source.simulator import Quirks, School, Simulator, csv_school, secondary_school

CASES = {
    "the vendor's text to the letter": (Quirks(), {}),
    "pages of 7": (Quirks(), {"page_size": 7}),
    "pages of 100": (Quirks(), {"page_size": 100}),
    "a cap of 100 when 1,000 were asked for": (Quirks(cap=100), {}),
    "a cap and no total": (Quirks(cap=30, total="none"), {}),
    "a cap and the page as the total": (Quirks(cap=30, total="page"), {}),
    "no total": (Quirks(total="none"), {"page_size": 50}),
    "a total too low": (Quirks(total="low"), {"page_size": 50}),
    "a total too high": (Quirks(total="high"), {"page_size": 50}),
    "a total of 0": (Quirks(total="zero"), {"page_size": 50}),
    "a total that is no number": (Quirks(total="text"), {"page_size": 50}),
    "references as ids": (Quirks(refs="string"), {}),
    "references with sourceId": (Quirks(refs="sourceId"), {}),
    "missing values as null": (Quirks(empty="null"), {}),
    "missing values as blanks": (Quirks(empty="blank"), {}),
    "booleans as text": (Quirks(flags="text"), {}),
    "stamps of whole seconds": (Quirks(stamps="seconds"), {}),
    "stamps with +01:00": (Quirks(stamps="offset"), {}),
    "stamps with seven digits": (Quirks(stamps="seven"), {}),
    "a bare list": (Quirks(envelope="bare"), {}),
    "the envelope in lower case": (Quirks(envelope="lower"), {}),
    "a server that ignores limit": (Quirks(ignore_limit=True), {"page_size": 50}),
    "a server that ignores offset and limit": (
        Quirks(ignore_offset=True, ignore_limit=True),
        {"page_size": 50},
    ),
    "a server that ignores offset": (Quirks(ignore_offset=True), {"page_size": 50}),
    "a server that ignores sort": (Quirks(ignore_sort=True, order="inserted"), {"page_size": 50}),
    "a server that refuses sort": (Quirks(refuse_sort=True), {"page_size": 50}),
    "a server that ignores everything": (
        Quirks(
            ignore_sort=True,
            ignore_offset=True,
            ignore_limit=True,
            ignore_filter=True,
            total="none",
        ),
        {},
    ),
    "a server that repeats pages": (Quirks(repeat_page=True), {"page_size": 50}),
}


USERS = ("users", "orgs")
"""What is loaded where it does not matter what: a load of all takes longer."""


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> Iterator[Callable[[str], Case]]:
    """Each case as a school, loaded by the side of those that are asked for in the same way."""
    schools = {
        name: secondary_school(7, str(number), pupils=40, quirks=quirks)
        for number, (name, (quirks, _)) in enumerate(CASES.items(), 1)
    }
    loaded: dict[str, tuple[str, Report]] = {}
    with Simulator(schools.values()) as server:

        def case(name: str) -> Case:
            options = CASES[name][1]
            if str(options) not in loaded:
                database = str(tmp_path_factory.mktemp("cases") / "roster.duckdb")
                same = [school for n, school in schools.items() if CASES[n][1] == options]
                report = Report()
                Warehouse(database).load(report, **settings(server, *same), **options)
                loaded[str(options)] = (database, report)
            return Case(schools[name], server, *loaded[str(options)])

        yield case


class Case(NamedTuple):
    school: School
    server: Simulator
    database: str
    report: Report


@pytest.mark.sample(6)
@pytest.mark.xdist_group("cases")
@pytest.mark.parametrize("name", CASES)
def test_every_table_equals_the_servers_rows(cases, name) -> None:
    school, server, database, report = cases(name)
    mine = [outcome for outcome in report.outcomes if outcome.estab == school.estab]
    assert [o.error for o in mine if o.state != "read"] == [] and len(mine) == 6
    truth = Truth(server.base_url, [school], style=school.quirks.refs)
    if school.quirks.stamps == "seconds":
        truth = _whole_seconds(truth)
    assert differences(database, truth, estab=school.estab) == {}


@pytest.mark.slow
def test_pages_of_one_row(serve, sync, warehouse) -> None:
    school = secondary_school(3, "3281110", pupils=4)
    server = serve(school)
    assert sync(server, school, page_size=1).good
    assert differences(warehouse.name, Truth(server.base_url, [school])) == {}


def test_rows_in_a_new_order_at_every_request_are_an_error_and_not_loaded(
    serve, sync, school, warehouse
) -> None:
    school.quirks = Quirks(ignore_sort=True, order="random")
    report = sync(serve(school), school, page_size=50, endpoints=["enrollments", "orgs"])
    assert [o.endpoint for o in report.failed] == ["enrollments"]
    assert "order" in report.failed[0].error
    assert held(warehouse.name, "enrollments") == []
    assert len(held(warehouse.name, "orgs")) == len(school.rows("orgs"))


@pytest.mark.parametrize(
    "folder",
    ["generated/district-medium", "generated/school-small"]
    + [f"lms-toolkit/oneroster-{version}" for version in ("1.0", "1.1")],
)
def test_real_sets_come_out_row_by_row(
    serve, sync, warehouse, data_sets: Path, folder: str
) -> None:
    school = csv_school(data_sets / folder, "1000")
    server = serve(school)
    assert sync(server, school, page_size=500).good
    assert differences(warehouse.name, Truth(server.base_url, [school])) == {}


@pytest.mark.slow
def test_a_second_run_of_unchanged_data_changes_nothing(serve, sync, school, warehouse) -> None:
    server = serve(school)
    sync(server, school)
    report = sync(server, school)
    assert {o.mode for o in report.outcomes} == {"delta"}
    assert sum(o.changed for o in report.outcomes) == 0
    assert differences(warehouse.name, Truth(server.base_url, [school])) == {}


def test_a_year_in_the_life_of_a_school(serve, sync, school, warehouse) -> None:
    """Joins, leaves, lists that shrink and empty: each by a delta, each exact."""
    server = serve(school)
    sync(server, school)
    change(school)
    report = sync(server, school)
    assert differences(warehouse.name, Truth(server.base_url, [school])) == {}
    modes = {o.endpoint: (o.mode, o.changed, o.deleted) for o in report.outcomes}
    assert modes["users"] == ("delta", 4, 1)
    assert modes["classes"] == ("delta", 2, 0)
    assert modes["enrollments"] == ("delta", 1, 0)
    assert modes["orgs"] == ("delta", 0, 0)


@pytest.mark.slow
def test_deleted_rows_and_all_that_hangs_on_them_can_be_removed(
    serve, sync, school, warehouse
) -> None:
    server = serve(school)
    sync(server, school, endpoints=USERS, deleted="remove")
    assert (
        differences(warehouse.name, Truth(server.base_url, [school], endpoints=USERS, keep=False))
        == {}
    )
    victims = [u["sourcedId"] for u in school.rows("users") if u["status"] == "active"][:5]
    for victim in victims:
        school.delete("users", victim)
    sync(server, school, endpoints=USERS, deleted="remove")
    assert (
        differences(warehouse.name, Truth(server.base_url, [school], endpoints=USERS, keep=False))
        == {}
    )
    # back to life, and back to keeping them
    school.change("users", victims[0], status="active")
    sync(server, school, endpoints=USERS)
    assert differences(warehouse.name, Truth(server.base_url, [school], endpoints=USERS)) == {}
    sync(server, school, endpoints=USERS, deleted="remove")
    assert (
        differences(warehouse.name, Truth(server.base_url, [school], endpoints=USERS, keep=False))
        == {}
    )


@pytest.mark.slow
def test_reference_tables_can_be_left_out_and_come_back(serve, sync, school, warehouse) -> None:
    server = serve(school)
    sync(server, school, reference_tables=False)
    truth = Truth(server.base_url, [school], references=False)
    assert not REFERENCE_TABLES & truth.tables.keys()
    assert differences(warehouse.name, truth) == {}
    sync(server, school)
    assert differences(warehouse.name, Truth(server.base_url, [school])) == {}


def test_schools_with_the_same_ids_do_not_meet(serve, sync, warehouse) -> None:
    schools = [secondary_school(7, estab, pupils=20) for estab in ("1", "2", "3")]
    server = serve(*schools)
    sync(server, *schools)
    assert differences(warehouse.name, Truth(server.base_url, schools)) == {}
    user = schools[1].rows("users")[0]["sourcedId"]
    schools[1].change("users", user, grades=None, orgSourcedIds=None)
    sync(server, *schools)
    assert differences(warehouse.name, Truth(server.base_url, schools)) == {}


def test_one_school_that_fails_stops_no_other_and_keeps_its_cursor(serve, sync, warehouse) -> None:
    schools = [secondary_school(seed, str(seed), pupils=20) for seed in (1, 2)]
    server = serve(*schools)
    schools[1].forbidden.add("users")
    report = sync(server, *schools, endpoints=USERS)
    assert [(o.estab, o.endpoint) for o in report.failed] == [("2", "users")]
    assert {r[0] for r in held(warehouse.name, "users")} == {"1"}
    schools[1].forbidden.clear()
    report = sync(server, *schools, endpoints=USERS)
    assert report.good
    modes = {(o.estab, o.mode) for o in report.outcomes if o.endpoint == "users"}
    assert modes == {("1", "delta"), ("2", "full")}
    assert differences(warehouse.name, Truth(server.base_url, schools, endpoints=USERS)) == {}


@pytest.mark.slow
def test_a_filter_of_ones_own_goes_along_and_a_change_of_it_reads_everything_again(
    serve, sync, school, warehouse
) -> None:
    server = serve(school)
    sync(server, school, endpoints=["users"], filters={"users": "role='teacher'"})
    assert {u[8] for u in held(warehouse.name, "users")} == {"teacher"}
    report = sync(server, school, endpoints=["users"])
    assert report.outcomes[0].mode == "full"
    assert len(held(warehouse.name, "users")) == len(school.rows("users"))


@pytest.mark.slow
def test_full_reads_everything_again(serve, sync, school, warehouse) -> None:
    server = serve(school)
    sync(server, school, endpoints=USERS)
    school.change(
        "users", school.rows("users")[0]["sourcedId"], phone="1", dateLastModified="2001-01-01"
    )
    sync(server, school, endpoints=USERS)
    assert differences(warehouse.name, Truth(server.base_url, [school], endpoints=USERS)) != {}
    report = sync(server, school, endpoints=USERS, full=True)
    assert {o.mode for o in report.outcomes} == {"full"}
    assert differences(warehouse.name, Truth(server.base_url, [school], endpoints=USERS)) == {}


def _whole_seconds(truth: Truth) -> Truth:
    for table, rows in truth.tables.items():
        if "__" not in table and table != "rejected_rows":
            truth.tables[table] = [
                (*row[:3], row[3].replace(microsecond=0), *row[4:]) for row in rows
            ]
    return truth
