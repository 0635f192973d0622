"""Deletions that may be a mistake wait for a decision; everything else is loaded."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from support import later
from support.changes import _now, next_year, purge, restore, storm
from support.settings import ESTAB, environment, settings
from support.truth import Truth, deleted, held, live, outcome, wrong
from typer.testing import CliRunner

from oneroster_source.cli.app import app
from oneroster_source.simulator import secondary_school

LONG_AGO = datetime(2025, 1, 1, tzinfo=UTC)


@pytest.fixture
def sync(sync):  # type: ignore[no-untyped-def]
    """Loads users, unless told otherwise."""
    return lambda *which, **options: sync(*which, **{"endpoints": ["users"], **options})


def all_rows(warehouse) -> list[list[tuple[Any, ...]]]:  # type: ignore[no-untyped-def]
    tables = ("users", "users__grades", "users__orgs", "users__user_ids")
    return [sorted(held(warehouse.name, table), key=repr) for table in tables]


WINDOW = {"since": LONG_AGO}


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("how", "options", "status"),
    [
        ("keep", {}, "tobedeleted"),
        ("remove", {"full": True}, "inactive"),
        ("remove", WINDOW, "tobedeleted"),
        later("keep", {"full": True}, "tobedeleted"),
        later("remove", {}, "tobedeleted"),
        later("keep", WINDOW, "inactive"),
    ],
    ids=str,
)
def test_a_storm_of_marks_deletes_nothing_and_a_backup_brings_nothing_back_to_bring(
    serve, sync, school, warehouse, how, options, status
) -> None:
    server = serve(school)
    sync(server, school, deleted=how)
    before, rows = all_rows(warehouse), school.rows("users")
    count = len(live(warehouse))
    storm(school, status=status)
    for night in range(3):
        report = sync(server, school, deleted=how, **(options if not night else {}))
        users = outcome(report, "users")
        assert (users.state, users.held, users.gone) == ("held", count, 0)
        assert not report.good and not report.failed and report.held == [users]
        assert not report.problems
        assert f"{count:,}" in users.error and "--allow-deletes" in users.error
        assert f"--school {ESTAB} --endpoint users" in users.error
        assert all_rows(warehouse) == before
    restore(school, rows)
    assert sync(server, school, deleted=how).good
    assert all_rows(warehouse) == before
    assert outcome(sync(server, school, deleted=how), "users").mode == "delta"
    truth = Truth(server.base_url, [school], keep=how == "keep")
    assert wrong(warehouse, truth) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x" * 1100, None])
def test_a_row_without_an_id_that_can_be_read_makes_no_yes_vain(
    serve, sync, school, warehouse, name
) -> None:
    server = serve(school)
    sync(server, school)
    rows = [row for row in school.rows("users") if row["status"] == "active"]
    purge(school, "users", 30)
    school.add("users", {**rows[0], "sourcedId": name or "unnamed"})
    if name is None:
        page = school.page
        school.page = lambda *of: replace(
            page(*of), body=page(*of).body.replace(b'"sourcedId":"unnamed",', b"")
        )
    assert outcome(sync(server, school, full=True), "users").held == 30
    yes = outcome(sync(server, school, full=True, allow_deletes=True), "users")
    assert (yes.state, yes.held, yes.kept, yes.gone) == ("read", 0, 0, 30)
    assert len(live(warehouse)) == len(rows) - 30


@pytest.mark.slow
@pytest.mark.parametrize("how", ["keep", "remove"])
def test_what_is_held_goes_when_somebody_says_yes(serve, sync, school, warehouse, how) -> None:
    server = serve(school)
    sync(server, school, deleted=how)
    rows = [row for row in school.rows("users") if row["status"] == "active"]
    for row in rows[:30]:
        school.delete("users", row["sourcedId"])
    school.change("users", rows[40]["sourcedId"], familyName="Changed", grades=["1", "2"])
    school.add("users", {**rows[41], "sourcedId": "new", "dateLastModified": _now()})
    assert outcome(sync(server, school, deleted=how), "users").held == 30
    # all but the deletions is there
    assert {"new", *(row["sourcedId"] for row in rows)} == live(warehouse)
    names = {row[1]: row for row in held(warehouse.name, "users")}
    assert "Changed" in names[rows[40]["sourcedId"]]
    ghosts = purge(school, "users", 3)
    assert outcome(sync(server, school, deleted=how), "users").held == 33
    report = sync(server, school, deleted=how, allow_deletes=True)
    users = outcome(report, "users")
    assert report.good and (users.deleted, users.gone) == (30, 3)
    truth = Truth(server.base_url, [school], keep=how == "keep")
    if how == "keep":
        truth = truth.with_ghosts(ESTAB, {"users": ghosts})
    assert wrong(warehouse, truth) == {}
    # the permission was for that run
    storm(school)
    assert sync(server, school, deleted=how).held


@pytest.mark.slow
def test_few_deletions_are_believed_however_they_are_told(serve, sync, school, warehouse) -> None:
    server = serve(school)
    sync(server, school)
    rows = [row for row in school.rows("users") if row["status"] == "active"]
    for row in rows[:20]:
        school.delete("users", row["sourcedId"])
    assert sync(server, school).good
    assert {row["sourcedId"] for row in rows[:20]} <= deleted(warehouse)
    # restored with old stamps, which no delta tells: found by the next full pass
    restore(school, rows[:20])
    assert sync(server, school, full=True).good
    assert wrong(warehouse, Truth(server.base_url, [school])) == {}


@pytest.mark.sample(1)
@pytest.mark.parametrize("how", ["marked", "purged", later("deltas")])
def test_a_small_collection_is_not_emptied_either(serve, sync, school, warehouse, how) -> None:
    server = serve(school)
    sync(server, school, endpoints=["orgs"])
    before = live(warehouse, "orgs")
    assert 0 < len(before) <= 20
    for row in school.rows("orgs"):
        if how == "purged":
            school.purge("orgs", row["sourcedId"])
        else:
            school.delete("orgs", row["sourcedId"])
    report = sync(server, school, endpoints=["orgs"], full=how != "deltas")
    assert outcome(report, "orgs").held == len(before)
    assert live(warehouse, "orgs") == before
    # one that takes their place is enough
    school.add("orgs", {"sourcedId": "another", "name": "Another", "type": "school"})
    assert sync(server, school, endpoints=["orgs"]).good
    assert live(warehouse, "orgs") == {"another"}


@pytest.mark.slow
def test_a_first_load_of_deleted_rows_is_no_deletion(serve, sync, school, warehouse) -> None:
    storm(school)
    server = serve(school)
    assert sync(server, school).good
    other = secondary_school(8, "2", pupils=40)
    storm(other)
    assert sync(serve(other), other).good
    assert live(warehouse) == set()


@pytest.mark.slow
def test_marks_and_absences_count_together(serve, sync, school, warehouse) -> None:
    server = serve(school)
    sync(server, school)
    count = len(live(warehouse))
    share = 24.5 / count
    rows = [row for row in school.rows("users") if row["status"] == "active"]
    for row in rows[:12]:
        school.delete("users", row["sourcedId"])
    purge(school, "users", 13)
    report = sync(server, school, full=True, max_delete_share=share)
    assert outcome(report, "users").held == 25
    assert sync(server, school, full=True, max_delete_share=25 / count).good


@pytest.mark.slow
def test_marks_that_came_a_night_before_do_not_count(serve, sync, school, warehouse) -> None:
    server = serve(school)
    sync(server, school)
    rows = [row for row in school.rows("users") if row["status"] == "active"]
    for night in range(2):
        for row in rows[20 * night : 20 * night + 20]:
            school.delete("users", row["sourcedId"])
        # the last nights' marks come again, as a delta reaches back
        assert sync(server, school, max_delete_share=0).good
    assert wrong(warehouse, Truth(server.base_url, [school])) == {}


@pytest.mark.slow
def test_marks_of_rows_that_never_were_there_hide_no_emptied_table(
    serve, sync, school, warehouse
) -> None:
    server = serve(school)
    sync(server, school, endpoints=["orgs"])
    before = live(warehouse, "orgs")
    storm(school, "orgs")
    for number in range(3):
        school.add("orgs", {"sourcedId": f"unknown{number}", "status": "tobedeleted"})
    report = sync(server, school, endpoints=["orgs"])
    assert outcome(report, "orgs").held == len(before)
    assert live(warehouse, "orgs") == before


# a change of year


@pytest.mark.sample(1)
@pytest.mark.parametrize("how", ["keep", "remove"])
@pytest.mark.slow
def test_a_new_year_is_loaded_and_the_old_one_waits(serve, sync, school, warehouse, how) -> None:
    server = serve(school)
    chosen = {"endpoints": ["orgs", "enrollments"], "deleted": how, "history": True}
    sync(server, school, **chosen)
    before = held(warehouse.name, "enrollments")
    old, new = next_year(school)
    for _ in range(2):
        report = sync(server, school, full=True, **chosen)
        found = outcome(report, "enrollments")
        assert (found.state, found.held, found.live) == ("held", len(old), new)
        # what was loaded meanwhile makes the deletions no smaller a share
        assert f"{len(old):,} of {len(old):,}" in found.error
        assert not report.problems
        after = held(warehouse.name, "enrollments")
        assert set(before) <= set(after)
        assert len(live(warehouse, "enrollments")) == len(old) + new
    report = sync(server, school, allow_deletes=True, **chosen)
    assert report.good and outcome(report, "enrollments").gone == len(old)
    truth = Truth(server.base_url, [school], keep=how == "keep")
    if how == "remove":
        assert wrong(warehouse, truth) == {}
    assert len(live(warehouse, "enrollments")) == new


# where it shows


@pytest.mark.slow
def test_a_decision_is_for_the_schools_and_endpoints_of_its_run(serve, sync, warehouse) -> None:
    schools = [secondary_school(7, estab, pupils=20) for estab in ("1", "2")]
    server = serve(*schools)
    chosen = {"endpoints": ["users", "classes"]}
    sync(server, *schools, **chosen)
    for school in schools:
        storm(school)
        storm(school, "classes")
    every = {(estab, name) for estab in ("1", "2") for name in ("users", "classes")}

    def waiting(**options: Any) -> set[tuple[str, str]]:
        report = sync(server, *schools, **{**chosen, **options})
        return {(o.estab, o.endpoint) for o in report.held}

    assert waiting() == every
    assert waiting(only=["1"], endpoints=["users"], full=True, allow_deletes=True) == set()
    assert {row[0] for row in held(warehouse.name, "users") if not row[-1]} == {"2"}
    assert waiting() == every - {("1", "users")}
    standing = {school.estab: school for school in warehouse.status().schools()}
    assert {estab: school.state for estab, school in standing.items()} == {"1": "held", "2": "held"}
    assert (standing["1"].held, standing["2"].held) == (1, 2)
    assert standing["2"].stale is False and "wait" in str(standing["2"].reason)


@pytest.mark.slow
def test_the_command_says_what_waits_and_ends_with_one(
    serve, school, tmp_path, monkeypatch
) -> None:
    server = serve(school)
    for name, value in environment(server, school).items():
        monkeypatch.setenv(name, value)

    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, [*words])
        return done.exit_code, done.output

    assert run("sync", "--endpoint", "users,orgs")[0] == 0
    storm(school)
    code, said = run("sync", "--endpoint", "users,orgs", "--report", "report.json")
    assert code == 1 and "HELD" in said and "2 of 2 collections loaded" in said
    command = f"sync --full --allow-deletes --school {ESTAB} --endpoint users"
    assert f"Waiting for a decision: school {ESTAB}, users: " in said and command in said
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    states = {c["endpoint"]: (c["state"], c["held"] > 0) for c in report["collections"]}
    assert states == {"orgs": ("read", False), "users": ("held", True)} and not report["good"]
    code, said = run("status")
    assert code == 0 and f"School {ESTAB}: held" in said
    assert run(*command.split())[0] == 0
    assert "held" not in run("status")[1]


@pytest.mark.slow
def test_shards_hold_too(serve, school, postgres) -> None:
    from oneroster_source import Report, Warehouse

    other = secondary_school(8, "2", pupils=20)
    server = serve(school, other)
    options = {**settings(server, school, other), "endpoints": ["users"]}
    warehouse = Warehouse(postgres)

    def run() -> list[str]:
        shards, whole = warehouse.divide(2, **options), Report()
        for shard in shards:
            part = Report()
            warehouse.load(part, shard=shard, **options)
            whole.outcomes += part.outcomes
            whole.problems += part.problems
        warehouse.finish(shards, whole)
        assert not whole.problems and not whole.failed
        return [outcome.estab for outcome in whole.held]

    assert run() == []
    storm(school)
    for _ in range(2):
        assert run() == [ESTAB]
    restored = {s.estab: s.state for s in warehouse.status().schools()}
    assert restored == {ESTAB: "held", "2": "good"}
