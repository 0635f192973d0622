"""What is gone at the server goes in the destination, and nothing else does."""

from __future__ import annotations

import json

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import later
from support.changes import purge
from support.settings import ESTAB, settings
from support.truth import REFERENCE_TABLES, STAGING, Row, Truth, deleted, held, outcome, wrong

from oneroster_source import DestinationError, MassDeletion
from oneroster_source.errors import chain
from oneroster_source.extract.deletions import objection
from oneroster_source.simulator import Fault, Quirks, School, secondary_school

SEVERAL = ["users", "classes", "enrollments"]


@pytest.fixture
def sync(sync):  # type: ignore[no-untyped-def]
    """Loads users, unless told otherwise: a load of all takes longer than it shows."""
    return lambda *which, **options: sync(*which, **{"endpoints": ["users"], **options})


# what a full pass finds


@pytest.mark.slow
def test_what_is_gone_is_marked_and_keeps_what_hangs_on_it(serve, sync, school, warehouse) -> None:
    server = serve(school)
    sync(server, school, endpoints=SEVERAL)
    ghosts = {name: purge(school, name, 3) for name in SEVERAL}
    assert sum(o.gone for o in sync(server, school, endpoints=SEVERAL).outcomes) == 0
    report = sync(server, school, endpoints=SEVERAL, full=True)
    assert {o.endpoint: o.gone for o in report.outcomes if o.gone} == dict.fromkeys(ghosts, 3)
    assert report.good
    truth = Truth(server.base_url, [school]).with_ghosts(ESTAB, ghosts)
    assert wrong(warehouse, truth) == {}
    # it is told once, and stays
    report = sync(server, school, endpoints=SEVERAL, full=True)
    assert sum(o.gone for o in report.outcomes) == 0
    assert wrong(warehouse, truth) == {}


def test_what_is_gone_is_removed_with_all_that_hangs_on_it(serve, sync, school, warehouse) -> None:
    server = serve(school)
    sync(server, school, deleted="remove", endpoints=SEVERAL)
    for name in SEVERAL:
        purge(school, name, 3)
    report = sync(server, school, full=True, deleted="remove", endpoints=SEVERAL)
    assert sum(o.gone for o in report.outcomes) == 9 and report.good
    truth = Truth(server.base_url, [school], keep=False)
    assert wrong(warehouse, truth) == {}


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("how", "full"),
    [("keep", False), ("remove", True), later("keep", True), later("remove", False)],
    ids=lambda how: {True: "a full pass", False: "a delta"}.get(how, how),
)
def test_what_comes_back_lives_again(serve, sync, school, warehouse, how, full) -> None:
    server = serve(school)
    sync(server, school, deleted=how)
    rows = purge(school, "users", 4)
    sync(server, school, full=True, deleted=how)
    for row in rows:
        school.add("users", {k: v for k, v in row.items() if k != "dateLastModified"})
    report = sync(server, school, full=full, deleted=how)
    assert outcome(report, "users").mode == ("full" if full else "delta")
    truth = Truth(server.base_url, [school], keep=how == "keep")
    assert wrong(warehouse, truth) == {}


@pytest.mark.slow
def test_what_was_kept_goes_when_it_is_to_be_removed(serve, sync, school, warehouse) -> None:
    server = serve(school)
    sync(server, school)
    purge(school, "users", 4)
    sync(server, school, full=True)
    assert len(deleted(warehouse)) >= 4
    sync(server, school, deleted="remove")
    truth = Truth(server.base_url, [school], keep=False)
    assert wrong(warehouse, truth) == {}


@pytest.mark.slow
def test_one_school_among_many_loses_only_its_own(serve, sync, warehouse) -> None:
    schools = [secondary_school(7, estab, pupils=20) for estab in ("1", "2", "3")]
    server = serve(*schools)
    sync(server, *schools, deleted="remove")
    purge(schools[1], "users", 3)
    report = sync(server, *schools, full=True, deleted="remove")
    assert {(o.estab, o.endpoint) for o in report.outcomes if o.gone} == {("2", "users")}
    truth = Truth(server.base_url, schools, keep=False)
    assert wrong(warehouse, truth) == {}


@pytest.mark.slow
def test_more_is_gone_than_one_query_can_name(serve, sync, school, warehouse) -> None:
    server = serve(school)
    for n in range(1200):
        school.add("orgs", {"sourcedId": f"x{n:04}", "name": "'; -- %s {x}", "type": "school"})
    sync(server, school, endpoints=["orgs"])
    ghosts = [row for row in school.rows("orgs") if row["sourcedId"].startswith("x")]
    for row in ghosts:
        school.purge("orgs", row["sourcedId"])
    sync(server, school, endpoints=["orgs"], full=True, allow_deletes=True)
    truth = Truth(server.base_url, [school]).with_ghosts(ESTAB, {"orgs": ghosts})
    assert wrong(warehouse, truth) == {}


@pytest.mark.slow
def test_a_kept_row_stays_as_it_was_to_the_last_value(serve, sync, warehouse) -> None:
    """Also what was undeclared, or of an odd type."""
    odd = {
        "sourcedId": "é'\"%s\\{x}\n",
        "status": "active",
        "dateLastModified": "2026-01-02T03:04:05.678901Z",
        "metadata": {"a": [1, None, "x\u0000y", 1.5e300], "é": "ü"},
        "favourite": "green",
        "grades": ["1", "2"],
    }
    school = School(ESTAB, collections={"users": [odd, {"sourcedId": "other"}]})
    server = serve(school)
    sync(server, school)

    def all_rows() -> list[Row]:
        with duckdb.connect(warehouse.name, read_only=True) as connection:
            return connection.execute(
                "SELECT * EXCLUDE (_deleted, _deleted_at) FROM oneroster.users ORDER BY ALL"
            ).fetchall()

    before = all_rows()
    school.purge("users", odd["sourcedId"])
    report = sync(server, school, full=True)
    assert report.outcomes[0].gone == 1 and report.good
    assert all_rows() == before and deleted(warehouse) == {odd["sourcedId"]}
    assert len(held(warehouse.name, "users__grades")) == 2


# when a pass is full


@pytest.mark.slow
def test_a_full_pass_comes_by_itself_when_the_last_one_is_old(serve, sync, school) -> None:
    server = serve(school)
    seen = [
        outcome(sync(server, school, full_refresh_days=days), "users").mode
        for days in (7, 7, 1e-7, 7, 0, 0, 7)
    ]
    assert seen == ["full", "delta", "full", "delta", "full", "full", "delta"]


@pytest.mark.sample(1)
@pytest.mark.parametrize("quirk", ["ignore_filter", "refuse_filter"])
def test_where_no_delta_can_be_had_every_pass_is_full(
    serve, sync, school, warehouse, quirk
) -> None:
    server = serve(school)
    sync(server, school, deleted="remove")
    school.quirks = Quirks(**{quirk: True})
    purge(school, "users", 3)
    report = sync(server, school, deleted="remove")
    assert {o.mode for o in report.outcomes if o.rows} == {"full"} and report.good
    assert outcome(report, "users").gone == 3
    assert all("filter" in " ".join(o.warnings) for o in report.outcomes)
    truth = Truth(server.base_url, [school], keep=False)
    assert wrong(warehouse, truth) == {}


@pytest.mark.slow
def test_a_window_deletes_nothing(serve, sync, school, warehouse) -> None:
    from datetime import UTC, datetime

    server = serve(school)
    sync(server, school)
    purge(school, "users", 3)
    for quirks in (Quirks(), Quirks(ignore_filter=True), Quirks(refuse_filter=True)):
        school.quirks = quirks
        report = sync(server, school, since=datetime(2026, 1, 1, tzinfo=UTC))
        assert {o.mode for o in report.outcomes} == {"window"}
        assert sum(o.gone for o in report.outcomes) == 0
    assert len(held(warehouse.name, "users")) == len(school.rows("users")) + 3


# guards


@pytest.mark.parametrize("how", ["keep", later("remove")])
@pytest.mark.slow
def test_an_empty_collection_deletes_nothing_until_it_is_allowed(
    serve, sync, school, warehouse, how
) -> None:
    server = serve(school)
    sync(server, school, deleted=how)
    before, cursors = held(warehouse.name, "users"), warehouse.status().cursors["users"]
    for row in school.rows("users"):
        school.purge("users", row["sourcedId"])
    report = sync(server, school, full=True, deleted=how)
    (waits,) = report.held
    assert waits.endpoint == "users" and "gives no rows where" in waits.error
    assert ESTAB in waits.error and "--allow-deletes" in waits.error
    assert held(warehouse.name, "users") == before
    (entry,) = warehouse.status().cursors["users"].values()
    assert entry == {**cursors[ESTAB], "held": sum(not row[-1] for row in before)}
    report = sync(server, school, full=True, deleted=how, allow_deletes=True)
    assert report.good
    assert {r for r in held(warehouse.name, "users") if not r[-1]} == set()
    if how == "remove":
        truth = Truth(server.base_url, [school], keep=False)
        assert wrong(warehouse, truth) == {}


def test_too_large_a_share_deletes_nothing_until_it_is_allowed(
    serve, sync, school, warehouse
) -> None:
    server = serve(school)
    sync(server, school, deleted="remove", endpoints=SEVERAL)
    live = len([r for r in school.rows("enrollments") if r["status"] == "active"])
    before = Truth(server.base_url, [school], keep=False)
    lost = purge(school, "enrollments", live // 4)
    purge(school, "users", 1)
    changed = school.rows("enrollments")[-1]["sourcedId"]
    school.change("enrollments", changed, primary=True)
    report = sync(server, school, full=True, deleted="remove", endpoints=SEVERAL)
    (waits,) = report.held
    assert waits.endpoint == "enrollments" and (waits.gone, waits.held) == (0, len(lost))
    for words in (f"{len(lost):,} of {live:,}", "max_delete_share (20%)", "--allow-deletes"):
        assert words in waits.error
    # all is loaded, its changes too; only what disappeared is as it was
    truth = Truth(server.base_url, [school], keep=False)
    missing = {row["sourcedId"] for row in lost}
    for table, rows in before.tables.items():
        if table.partition("__")[0] == "enrollments":
            truth.tables[table] += [row for row in rows if row[1] in missing]
    assert wrong(warehouse, truth) == {}
    # a share of one's own, or the switch
    report = sync(
        server, school, full=True, deleted="remove", endpoints=SEVERAL, max_delete_share=0.3
    )
    assert report.good and outcome(report, "enrollments").gone == len(lost)
    truth = Truth(server.base_url, [school], keep=False)
    assert wrong(warehouse, truth) == {}


@pytest.mark.slow
def test_a_run_without_a_report_raises_and_loads_nothing(serve, sync, school) -> None:
    import dlt

    from oneroster_source import oneroster

    server = serve(school)
    pipeline = dlt.pipeline(
        "alone", destination=dlt.destinations.duckdb("alone.duckdb"), pipelines_dir="pipelines"
    )
    pipeline.run(oneroster(**settings(server, school), endpoints=["orgs", "users"]))
    for row in school.rows("users"):
        school.purge("users", row["sourcedId"])
    with pytest.raises(Exception, match="gives no rows where") as caught:
        pipeline.run(oneroster(**settings(server, school), full=True))
    (refused,) = (error for error in chain(caught.value) if isinstance(error, MassDeletion))
    assert "nothing was loaded" in str(refused)
    pipeline.run(
        oneroster(**settings(server, school), endpoints=["users"], full=True, allow_deletes=True)
    )


@pytest.mark.parametrize("fault", ["an error", later("a gap")])
def test_a_pass_that_is_not_complete_deletes_nothing(serve, sync, school, warehouse, fault) -> None:
    server = serve(school)
    sync(server, school)
    before = held(warehouse.name, "users")
    purge(school, "users", 3)
    if fault == "an error":
        school.faults.append(Fault("users", status=500, times=99))
    else:
        school.faults.append(Fault("users", status=200, body=b'{"users":[]}', times=99))
        school.quirks = Quirks(total="right")
    report = sync(server, school, full=True, retry_budget=0, page_size=50)
    assert [o.endpoint for o in report.failed] == ["users"]
    assert held(warehouse.name, "users") == before


def test_rows_without_an_id_may_be_those_that_seem_to_be_gone(
    serve, sync, school, warehouse
) -> None:
    server = serve(school)
    sync(server, school)
    rows = sorted(school.rows("users"), key=lambda row: str(row["sourcedId"]))
    active = [row for row in rows if row["status"] == "active"]
    for row in active[:2]:
        row["sourcedId"] = ""
    school.faults.append(Fault("users", status=200, body=json.dumps({"users": rows}).encode()))
    report = sync(server, school, full=True)
    (users,) = report.outcomes
    assert report.good and (users.gone, users.kept, users.rejected) == (0, 2, 2)
    assert "2 rows came without sourcedId" in " ".join(users.warnings)
    names = {row["sourcedId"] for row in school.rows("users") if row["status"] == "active"}
    assert {row[1] for row in held(warehouse.name, "users") if not row[-1]} == names


@given(st.integers(0, 400), st.integers(0, 400), st.integers(0, 400), st.floats(0, 1))
def test_what_may_be_deleted_at_once(stay, ending, fresh, share) -> None:
    live = stay + ending
    why = objection(live=live, ending=ending, left=stay + fresh, share=share)
    many = ending > 20 and ending > share * live
    assert bool(why) == bool(ending and (not stay + fresh or many))
    assert f"{live:,}" in why or not why


@pytest.mark.parametrize(
    ("live", "lost", "share", "believed"),
    [
        (100, 21, 0.21, True),
        (100, 21, 0.2, False),
        (20, 19, 0.2, True),
        (20, 20, 0.2, False),
        (0, 0, 0.2, True),
        (21, 20, 0, True),
        (1000, 999, 1, True),
        (1, 1, 1, False),
    ],
)
def test_how_many_may_be_deleted(live, lost, share, believed) -> None:
    assert (objection(live=live, ending=lost, left=live - lost, share=share) == "") == believed


# what should not be there


@pytest.mark.slow
def test_child_rows_of_nothing_are_told_and_a_full_pass_heals_them(
    serve, sync, school, warehouse
) -> None:
    server = serve(school)
    sync(server, school)
    with duckdb.connect(warehouse.name) as connection:
        connection.execute(
            "INSERT INTO oneroster.users__grades (estab, user_sourced_id, position, value)"
            f" VALUES ('{ESTAB}', 'nobody', 0, '7')"
        )
    school.change("users", school.rows("users")[0]["sourcedId"], phone="1")
    report = sync(server, school)
    assert not report.good and not report.failed
    (problem,) = report.problems
    assert "users__grades: 1 orphaned rows (no parent in users)" in problem and "--full" in problem
    ghosts = {"users": purge(school, "users", 2)}
    assert sync(server, school, full=True).good
    truth = Truth(server.base_url, [school]).with_ghosts(ESTAB, ghosts)
    assert wrong(warehouse, truth) == {}


@pytest.mark.slow
def test_a_row_twice_is_told_and_a_full_pass_heals_it(serve, sync, school, warehouse) -> None:
    server = serve(school)
    sync(server, school)
    with duckdb.connect(warehouse.name) as connection:
        connection.execute("INSERT INTO oneroster.users SELECT * FROM oneroster.users LIMIT 1")
    school.change("users", school.rows("users")[-1]["sourcedId"], phone="1", grades=["3"])
    report = sync(server, school)
    assert not report.good and not report.failed
    assert "users: 1 duplicate keys" in " ".join(report.problems)
    assert report.as_dict()["problems"] == report.problems
    assert sync(server, school, full=True).good
    assert wrong(warehouse, Truth(server.base_url, [school])) == {}


@pytest.mark.slow
def test_reference_tables_that_are_not_loaded_any_more_are_emptied(
    serve, sync, school, warehouse
) -> None:
    server = serve(school)
    tables = [t for t in REFERENCE_TABLES if t.partition("__")[0] in SEVERAL]
    sync(server, school, endpoints=SEVERAL)
    assert any(held(warehouse.name, table) for table in tables)
    assert sync(server, school, endpoints=SEVERAL, reference_tables=False).good
    assert not any(held(warehouse.name, table) for table in tables)
    sync(server, school, endpoints=SEVERAL)
    assert wrong(warehouse, Truth(server.base_url, [school])) == {}


DROPPED = ["users", later("users__grades"), later("rejected_rows")]


@pytest.mark.parametrize("table", DROPPED)
def test_a_table_that_was_dropped_is_read_again(serve, sync, school, warehouse, table) -> None:
    server = serve(school)
    sync(server, school)
    with duckdb.connect(warehouse.name) as connection:
        connection.execute(f"DROP TABLE oneroster.{table}")
    school.change("users", school.rows("users")[0]["sourcedId"], familyName="New")
    assert sync(server, school).good
    assert wrong(warehouse, Truth(server.base_url, [school])) == {}
    report = sync(server, school)
    assert report.good and {o.mode for o in report.outcomes} == {"delta"}


OWN = ["_dlt_loads", "_dlt_pipeline_state", "_dlt_version"]


@pytest.mark.slow
@pytest.mark.parametrize("dropped", [OWN[1], later(OWN[0])])
def test_dlts_own_record_that_was_dropped_is_told_with_what_to_do(
    serve, sync, school, warehouse, dropped
) -> None:
    server = serve(school)
    # twice: the second run changes dlt's schema, and with it dlt makes its own tables anew
    for _ in range(2):
        sync(server, school, full=True)
    with duckdb.connect(warehouse.name) as connection:
        connection.execute(f"DROP TABLE oneroster.{dropped}")
    with pytest.raises(DestinationError, match="names begin with _dlt_, then run"):
        sync(server, school)
    with duckdb.connect(warehouse.name) as connection:
        for table in OWN:
            connection.execute(f"DROP TABLE IF EXISTS oneroster.{table}")
    # dlt knows of no table now, and rows that are gone are found in them all the same
    ghosts = {"users": purge(school, "users", 1)}
    report = sync(server, school)
    assert report.good and outcome(report, "users").gone == 1
    truth = Truth(server.base_url, [school]).with_ghosts(ESTAB, ghosts)
    assert wrong(warehouse, truth) == {}


@pytest.mark.slow
def test_a_dataset_that_was_dropped_is_loaded_anew(serve, sync, school, warehouse) -> None:
    server = serve(school)
    sync(server, school)
    with duckdb.connect(warehouse.name) as connection:
        connection.execute("DROP SCHEMA oneroster CASCADE")
    assert sync(server, school).good
    assert wrong(warehouse, Truth(server.base_url, [school])) == {}


@pytest.mark.slow
def test_a_staging_dataset_that_was_dropped_is_made_anew(serve, sync, school, warehouse) -> None:
    server = serve(school)
    sync(server, school)
    with duckdb.connect(warehouse.name) as connection:
        connection.execute(f"DROP SCHEMA {STAGING} CASCADE")
    school.change("users", school.rows("users")[0]["sourcedId"], phone="1")
    assert sync(server, school).good
    assert wrong(warehouse, Truth(server.base_url, [school])) == {}
