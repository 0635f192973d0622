"""`oneroster sync --dry-run` tells what a load would do, and does none of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support import later
from support.changes import change, purge, restore, storm
from support.settings import ESTAB, environment, settings
from support.small_school import PUPILS, STAFF, small_school
from support.truth import live, opened
from typer.testing import CliRunner

from oneroster_source import Report, Warehouse
from oneroster_source.cli.app import app
from oneroster_source.simulator import School

SOME = ["classes", "users", "enrollments"]
Found = dict[tuple[str, str], tuple[Any, ...]]


def preview(warehouse: Warehouse, server, *schools: School, **options: Any) -> Report:  # type: ignore[no-untyped-def]
    report = Report()
    chosen = {**settings(server, *schools), "endpoints": SOME, **options}
    warehouse.preview(report, **chosen)
    return report


def numbers(report: Report) -> Found:
    """What would be done, of collections of which anything would."""
    return {
        (o.estab, o.endpoint): (o.plan.added, o.plan.changed, o.plan.deleted, o.held)
        for o in report.outcomes
        if o.plan is not None and (o.plan.added, o.plan.changed, o.plan.deleted, o.held) != (0,) * 4
    }


def contents(destination: str) -> dict[str, Any]:
    """Every row of every table, dlt's own among them."""
    with opened(destination) as ask:
        tables = ask(
            "SELECT table_schema, table_name FROM information_schema.tables"
            " WHERE table_schema LIKE 'oneroster%' AND table_type = 'BASE TABLE'"
        )
        return {f"{s}.{t}": sorted(map(repr, ask(f'SELECT * FROM {s}."{t}"'))) for s, t in tables}


def test_a_destination_that_does_not_exist_is_not_made(serve, school, tmp_path) -> None:
    place = tmp_path / "empty" / "roster.duckdb"
    place.parent.mkdir()
    report = preview(Warehouse(str(place)), serve(school), school)
    assert report.good and list(place.parent.iterdir()) == []
    assert numbers(report) == {
        (ESTAB, name): (sum(r["status"] == "active" for r in school.rows(name)), 0, 0, 0)
        for name in SOME
    }


@pytest.mark.sample(1)
@pytest.mark.parametrize("database", ["warehouse", "postgres"])
@pytest.mark.parametrize("how", ["keep", later("remove")])
def test_a_plan_is_what_the_load_then_does_and_writes_nothing(
    serve, school, database, how, request
) -> None:
    found = request.getfixturevalue(database)
    warehouse = Warehouse(found) if isinstance(found, str) else found
    place = str(warehouse.place)
    server = serve(school)
    chosen = {"deleted": how, "history": True}
    report = Report()
    warehouse.load(report, **settings(server, school), endpoints=SOME, **chosen)
    assert report.good
    change(school)
    # stamped again, and nothing else
    same = [row for row in school.rows("users") if row["status"] == "active"][-1]
    school.change("users", same["sourcedId"], phone=same.get("phone"))
    purge(school, "enrollments", 4)
    before = contents(place)
    content = b"" if isinstance(found, str) else Path(place).read_bytes()
    planned = preview(warehouse, server, school, full=True, **chosen)
    assert planned.good and numbers(planned) == {
        (ESTAB, "classes"): (0, 2, 0, 0),
        (ESTAB, "users"): (1, 2, 1, 0),
        (ESTAB, "enrollments"): (0, 0, 4, 0),
    }
    assert contents(place) == before
    if content:
        assert Path(place).read_bytes() == content
    assert {o.mode for o in preview(warehouse, server, school, **chosen).outcomes} == {"delta"}
    report = Report()
    warehouse.load(report, **settings(server, school), endpoints=SOME, full=True, **chosen)
    assert report.good
    for name in SOME:
        assert numbers(preview(warehouse, server, school, endpoints=[name], **chosen)) == {}
    assert numbers(preview(warehouse, server, school, full=True, **chosen)) == {}


@pytest.mark.slow
def test_a_plan_says_what_would_wait_and_why(serve, school, sync, warehouse) -> None:
    server = serve(school)
    sync(server, school, endpoints=SOME)
    rows, count = school.rows("users"), len(live(warehouse))
    storm(school)
    before = Path(warehouse.name).read_bytes()
    report = preview(warehouse, server, school)
    assert numbers(report) == {(ESTAB, "users"): (0, 0, 0, count)}
    (users,) = report.held
    assert not report.good and f"a load would let these {count:,} deletions wait" in users.error
    allowed = preview(warehouse, server, school, allow_deletes=True)
    assert allowed.good and numbers(allowed) == {(ESTAB, "users"): (0, 0, count, 0)}
    assert Path(warehouse.name).read_bytes() == before
    # it has left no trace: the load finds the same, and holds it
    assert sync(server, school, endpoints=SOME).held[0].held == count
    restore(school, rows)
    assert numbers(preview(warehouse, server, school)) == {}


@pytest.mark.slow
def test_rows_that_come_back_live_again(serve, school, sync, warehouse) -> None:
    server = serve(school)
    sync(server, school, endpoints=SOME)
    rows = purge(school, "users", 3)
    sync(server, school, endpoints=SOME, full=True)
    for row in rows:
        school.add("users", row)
    report = preview(warehouse, server, school, full=True)
    assert numbers(report) == {(ESTAB, "users"): (0, 3, 0, 0)}


@pytest.mark.slow
def test_a_table_that_was_dropped_is_planned_as_it_would_be_read(
    serve, school, sync, warehouse
) -> None:
    import duckdb

    server = serve(school)
    sync(server, school, endpoints=SOME)
    with duckdb.connect(warehouse.name) as connection:
        connection.execute("DROP TABLE oneroster.users")
    (users, *others) = preview(warehouse, server, school, endpoints=["users"]).outcomes
    assert not others and users.mode == "full"
    assert users.plan is not None and users.plan.added == users.live


@pytest.mark.slow
def test_the_command_shows_counts_and_no_person(serve, monkeypatch, tmp_path) -> None:
    schools = [small_school("1"), small_school("2")]
    server = serve(*schools)
    for name, value in environment(server, *schools).items():
        monkeypatch.setenv(name, value)

    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["sync", *words])
        return done.exit_code, done.output

    code, said = run("--dry-run", "--school", "2", "--endpoint", "users,orgs")
    assert code == 0 and "Nothing was loaded" in said
    assert "\n 2 " in said and "\n 1 " not in said
    assert not (tmp_path / "roster.duckdb").exists()
    assert run()[0] == 0
    for row in schools[0].rows("users"):
        schools[0].delete("users", row["sourcedId"])
    code, said = run("--dry-run")
    assert code == 1 and "HELD" in said and "Waiting for a decision: school 1, users" in said
    code, printed = run("--dry-run", "--json", "--full")
    assert code == 1
    found = json.loads(printed)
    held = {(c["estab"], c["endpoint"]): c["held"] for c in found["collections"] if c["held"]}
    assert held == {("1", "users"): len(STAFF) + len(PUPILS)} and found["good"] is False
    names = {word for _, *some in (*STAFF.values(), *PUPILS.values()) for word in some}
    for text in (said, printed):
        assert not names & set(text.replace('"', " ").split())
        assert not any(f" {name} " in text for name in (*STAFF, *PUPILS))
    code, printed = run("--dry-run", "--json", "--allow-deletes")
    assert code == 0 and all(not c["held"] for c in json.loads(printed)["collections"])
    for words in (["--dry-run", "--report", "x.json"], ["--dry-run", "--shards", "2"], ["--json"]):
        assert run(*words)[0] != 0
