"""Retention: what was deleted at the source long ago goes for good, with all that hangs on it.

Shards, a fleet of 20 schools and the demo:
`uv run pytest -m campaign tests/integration/test_prune.py`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import psycopg2
import pytest
from support import later
from support.program import PATIENCE
from support.settings import settings
from support.small_school import enrollment, ref, small_school
from support.truth import opened
from typer.testing import CliRunner

from oneroster_source import ConfigurationError, DestinationError, Report, Warehouse, oneroster
from oneroster_source.admin.prune import duration
from oneroster_source.cli.app import app
from oneroster_source.model import V1P1
from oneroster_source.reporting.quality import CHECKS, ids_shown
from oneroster_source.simulator import School, Simulator

NOW = datetime.now(UTC)
YEAR = timedelta(days=365)
MARK = "canary-marked-name"
SOME = ("users", "enrollments", "courses", "classes")

Tables = dict[str, list[dict[str, Any]]]


def ago(days: float) -> str:
    return (NOW - timedelta(days=days)).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def leaver(school: School, name: str, when: str | None, **more: Any) -> None:
    """A pupil of the school who was deleted at some time, with two enrollments."""
    stamp = {"status": "tobedeleted", "dateLastModified": when}
    user = school.get("users", "p1") | {"sourcedId": name, "familyName": f"{MARK} {name}"}
    school.add("users", user | stamp | more)
    for of in ("7A", "7A/Ma"):
        row = enrollment(f"{of}-{name}", "student", name, of)
        school.add("enrollments", row | stamp)


def make(estab: str) -> School:
    school = small_school(estab)
    # something that is not read, a list, one that names the leaver again, and a reference from
    # somebody who stays
    more = {"enabledUser": "perhaps", "grades": ["7", "8"], "agents": [ref("old", "user")]}
    leaver(school, "old", ago(400), **more, userIds=None)
    school.change("users", "p3", agents=[ref("old", "user"), ref("p2", "user")])
    # of somebody who left long ago: ended later, and never ended
    school.change("enrollments", "7A-old", dateLastModified=ago(100))
    school.add("enrollments", enrollment("7A/En-old", "student", "old", "7A/En"))
    leaver(school, "recent", ago(300))
    for name, when in UNDATED.items():
        leaver(school, name, when)
    # long unchanged: found gone by the second pass
    school.change("users", "p4", dateLastModified=ago(900))
    school.change("courses", "en7", status="tobedeleted", dateLastModified=ago(500))
    # a class has the id of a pupil who stays, and is an example of two who share an address
    name = {"sourcedId": "p2", "status": "tobedeleted", "dateLastModified": ago(500)}
    school.add("classes", school.get("classes", "7A") | name)
    school.change("users", "p2", email="p3@school.example")
    return school


UNDATED = {
    "undated": None,
    "year 1": "0001-01-01T00:00:00.000Z",
    "epoch": "1970-01-01T01:00:00.000Z",
    "year 2999": "2999-01-01T00:00:00.000Z",
}
NEVER = {"status": "tobedeleted", "dateLastModified": UNDATED["year 2999"]}
GOES = {
    "users": {"old"},
    "enrollments": {"7A-old", "7A/Ma-old", "7A/En-old"},
    "courses": {"en7"},
    "classes": {"p2"},
}


@contextmanager
def writing(place: str) -> Iterator[Callable[[str], Any]]:
    if place.startswith("postgresql://"):
        connection = psycopg2.connect(place)
        with connection, connection.cursor() as cursor:
            yield cursor.execute
        connection.close()
    else:
        with duckdb.connect(place) as database:
            yield database.execute


def tables(place: str) -> Tables:
    """Every table of the dataset, but those of dlt."""
    with opened(place) as ask:
        columns = ask(
            "SELECT table_name, column_name FROM information_schema.columns JOIN"
            " information_schema.tables USING (table_schema, table_name)"
            " WHERE table_schema = 'oneroster' AND table_type = 'BASE TABLE'"
            " AND table_name NOT LIKE '%dlt%' ORDER BY ordinal_position"
        )
        found: Tables = {}
        for table in sorted({table for table, _ in columns}):
            names = [name for of, name in columns if of == table]
            listed = ", ".join(f'"{name}"' for name in names)
            rows = ask(f"SELECT {listed} FROM oneroster.{table}")
            found[table] = sorted((dict(zip(names, row, strict=True)) for row in rows), key=str)
    return found


def remaining(before: Tables, estabs: set[str]) -> Tables:
    """What must be left, told row by row."""
    singular = {e.name: e.singular for e in V1P1.endpoints}

    def goes(table: str, row: dict[str, Any]) -> bool:
        if row["estab"] not in estabs:
            return False
        if table == "rejected_rows":
            return row["sourced_id"] in GOES.get(row["endpoint"], ())
        endpoint, _, child = table.removesuffix("_history").partition("__")
        own = row.get(f"{singular.get(endpoint)}_sourced_id" if child else "sourced_id")
        if table == "users__agents" and row["sourced_id"] == "old":
            return True
        if table == "enrollments_history" and row["user_sourced_id"] == "old":
            return True
        if table == "users_history" and own == "lost":
            return True
        return own in GOES.get(endpoint, ())

    found = {t: [dict(row) for row in rows if not goes(t, row)] for t, rows in before.items()}
    for row in found["quality_results"]:
        if row["estab"] in estabs:
            names = row["examples"]
            names = json.loads(names) if isinstance(names, str) else names
            gone = {name for of in row["relation"].split(", ") for name in GOES.get(of, ())}
            left = [name for name in names if name not in gone]
            row["examples"] = left if isinstance(row["examples"], list) else json.dumps(left)
    return found


def history(place: str) -> None:
    """Tables of versions, as `history` keeps them: each row had another version before."""
    with writing(place) as do:
        for name in ("users", "enrollments"):
            table = f"oneroster.{name}_history"
            if place.startswith("postgresql://"):
                do("SET TIME ZONE 'UTC'")
            do(
                f"CREATE TABLE {table} AS SELECT *, TIMESTAMPTZ '2019-01-01 00:00:00+00' AS"
                " valid_from, TIMESTAMPTZ '2020-01-01 00:00:00+00' AS valid_to"
                f" FROM oneroster.{name}"
            )
            do(
                f"INSERT INTO {table} SELECT *, TIMESTAMPTZ '2020-01-01 00:00:00+00', NULL"
                f" FROM oneroster.{name}"
            )
        # whom a load has removed, and whose versions are all that is left: long ago, and lately
        columns = "estab, sourced_id, _deleted, valid_from, valid_to"
        for name, ended in (("lost", ago(500)), ("lost lately", ago(20))):
            do(
                f"INSERT INTO oneroster.users_history ({columns}) SELECT estab, '{name}', FALSE,"
                f" TIMESTAMPTZ '2019-01-01 00:00:00+00', TIMESTAMPTZ '{ended}'"
                " FROM oneroster.users WHERE estab = '1' AND sourced_id = 'p1'"
            )

        # once of somebody who left long ago
        do(
            f"INSERT INTO oneroster.enrollments_history ({columns}, user_sourced_id) SELECT estab,"
            " sourced_id, FALSE, TIMESTAMPTZ '2018-01-01 00:00:00+00',"
            " TIMESTAMPTZ '2019-01-01 00:00:00+00', 'old' FROM oneroster.enrollments"
            " WHERE sourced_id = '7A-p2'"
        )


@pytest.fixture(params=["duckdb", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "duckdb":
        return str(tmp_path / "roster.duckdb")
    return str(request.getfixturevalue("postgres"))


def load(place: str, server: Simulator, *schools: School, **options: Any) -> Report:
    report = Report()
    Warehouse(place).load(report, **settings(server, *schools), **options)
    assert report.good, (report.problems, report.failed)
    return report


@pytest.mark.slow
def test_leavers_go_with_all_that_hangs_on_them_and_stay_away(serve, place) -> None:
    school = make("1")
    server = serve(school)
    load(place, server, school, endpoints=["users"])
    school.purge("users", "p4")
    load(place, server, school, endpoints=SOME, full=True)
    warehouse = Warehouse(place)
    warehouse.check_quality()
    history(place)
    before = tables(place)
    assert {row["sourced_id"] for row in before["rejected_rows"]} >= {"old"}
    examples = {row["check_id"]: row["examples"] for row in before["quality_results"]}
    assert "7A/En-old" in str(examples), "an id is among the examples"
    assert "p2" in examples["duplicate_email"], "and so is one that a class has that goes"

    found = warehouse.leavers(NOW - YEAR)
    # a user, and two enrollments
    assert found.undated == 3 * len(UNDATED) and found.examples > 0
    assert tables(place) == before, "to look is not to change"

    removed = warehouse.prune(NOW - YEAR)
    after, wanted = tables(place), remaining(before, {"1"})
    for table, rows in wanted.items():
        assert after[table] == sorted(rows, key=str), table
    counts = {t: len(before[t]) - len(after[t]) for t in before if len(before[t]) != len(after[t])}
    assert removed.rows == counts == found.rows
    again = warehouse.leavers(NOW - YEAR)
    assert (again.rows, again.examples, again.undated) == ({}, 0, found.undated)
    if place.endswith(".duckdb"):
        content = Path(place).read_bytes()
        assert f"{MARK} recent".encode() in content and f"{MARK} old".encode() not in content

    # a row that the destination holds is told when it is deleted, whenever that was; one that it
    # does not hold, and of which no time is known, may be of somebody who was removed
    school.change("users", "p2", status="tobedeleted", dateLastModified=ago(700))
    school.add("enrollments", enrollment("new", "student", "old", "7A", **NEVER))
    for mode in ("delta", "full"):
        report = load(place, server, school, endpoints=SOME, full=mode == "full")
        assert {o.mode for o in report.outcomes} == {mode}
    back = tables(place)
    (told,) = (row for row in back["users"] if row["sourced_id"] == "p2")
    assert told["_deleted"]
    # but for what the server tells of the living: a pupil's agents, an enrollment that never ended
    for table in (name for name in wanted if name.partition("__")[0] in SOME):
        own = "enrollment_sourced_id" if "__" in table else "sourced_id"
        kept = [row for row in back[table] if row.get(own) != "7A/En-old"]
        if table == "users__agents":
            kept = [row for row in kept if row["sourced_id"] != "old"]
        if table == "users":
            kept, wanted[table] = (
                [row for row in rows if row["sourced_id"] != "p2"] for rows in (kept, wanted[table])
            )
        assert _bare(kept) == _bare(wanted[table]), table


def _bare(rows: list[dict[str, Any]]) -> list[str]:
    dlts = ("_dlt_id", "_dlt_load_id")
    return sorted(str({k: v for k, v in row.items() if k not in dlts}) for row in rows)


@pytest.mark.slow
def test_a_table_of_an_earlier_version_is_pruned_by_its_stamps(serve, place) -> None:
    school = make("1")
    load(place, serve(school), school, endpoints=["users"])
    with writing(place) as do:
        do("UPDATE oneroster.users SET _deleted_at = NULL")
        do("UPDATE oneroster.users SET status = ' To-be_\tdeleted' WHERE sourced_id = 'old'")
        # found gone, at some time
        do("UPDATE oneroster.users SET _deleted = TRUE WHERE sourced_id = 'p4'")
    warehouse = Warehouse(place)
    found = warehouse.leavers(NOW - YEAR)
    assert (found.rows["users"], found.undated) == (1, 1 + len(UNDATED))
    with writing(place) as do:
        cascade = "CASCADE" if place.startswith("postgresql") else ""
        do(f"ALTER TABLE oneroster.users DROP COLUMN _deleted_at {cascade}")
    assert warehouse.leavers(NOW - YEAR) == found


@pytest.mark.slow
def test_what_is_deleted_after_a_prune_is_told(serve, warehouse) -> None:
    school = make("1")
    server = serve(school)
    # the teachers are never in the destination
    some = {"endpoints": ["users", "enrollments"], "filters": {"users": "role='student'"}}
    load(warehouse.name, server, school, **some)
    warehouse.prune(NOW - YEAR)
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    now = {"status": "tobedeleted", "dateLastModified": stamp}
    school.add("users", school.get("users", "p1") | {"sourcedId": "new", "dateLastModified": stamp})
    ended = {"7A-new": "new", "8A/Ma-t1": "t1", "7A/Ma-nobody": "nobody"}
    for name, user in ended.items():
        school.add("enrollments", enrollment(name, "student", user, "7A", **now))
    # of somebody who was removed: ended before and sent only now, and only since
    before = now | {"dateLastModified": ago(5)}
    school.add("enrollments", enrollment("8A/Ma-old", "student", "old", "8A/Ma", **before))
    school.change("enrollments", "7A/En-old", **now)
    for mode in ("delta", "delta", "full"):
        report = load(warehouse.name, server, school, full=mode == "full", **some)
        assert {o.mode for o in report.outcomes} == {mode}
        rows = tables(warehouse.name)["enrollments"]
        told = {row["sourced_id"] for row in rows if row["_deleted"]}
        assert told >= {*ended, "7A/En-old"}
        assert not told & {"7A-old", "7A/Ma-old", "8A/Ma-old"}


@pytest.mark.slow
@pytest.mark.parametrize("place", ["duckdb", later("postgres")], indirect=True)
def test_examples_that_no_row_has_any_more_go_when_they_are_old(serve, place) -> None:
    school = small_school("1")
    school.change("users", "p1", email="p2@school.example")
    own = dict.fromkeys(("sourcedId", "username", "identifier", "email"), "alone")
    school.add("users", school.get("users", "p3") | own)
    server = serve(school)
    load(place, server, school, deleted="remove")
    warehouse = Warehouse(place)
    warehouse.check_quality()
    for name in ("p1", "alone"):
        school.purge("users", name)
    for row in school.rows("enrollments"):
        if row["user"]["sourcedId"] == "p1":
            school.purge("enrollments", row["sourcedId"])
    load(place, server, school, deleted="remove", full=True)
    with writing(place) as do:
        # one of whose examples are no ids
        do(
            "UPDATE oneroster.quality_results SET rows_found = 1, examples = '[\"users\"]'"
            " WHERE check_id = 'collection_failed'"
        )
    assert warehouse.leavers(datetime.now(UTC) - timedelta(days=1)).examples == 0
    soon = datetime.now(UTC) + timedelta(days=1)
    found = warehouse.leavers(soon)
    assert (found.rows, found.examples) == ({}, 2)
    assert warehouse.prune(soon).rows == {}
    results = tables(place)["quality_results"]
    examples = {row["check_id"]: row["examples"] for row in results if row["rows_found"]}
    examples = {c: json.loads(e) if isinstance(e, str) else e for c, e in examples.items()}
    assert examples == {
        "collection_failed": ["users"],
        "duplicate_email": ["p2"],
        "pupil_without_class": [],
    }
    assert warehouse.leavers(soon).examples == 0


def test_each_check_tells_whose_ids_it_shows() -> None:
    told = {check.name: ids_shown(check.name) for check in CHECKS}
    assert set(V1P1.names).issuperset(name for names in told.values() for name in names)
    assert {name for name, names in told.items() if not names} == {
        check.name for check in CHECKS if check.about["of"] == "school_summary"
    }


@pytest.mark.slow
def test_postgres_compares_no_row_with_each(serve, postgres) -> None:
    school = small_school("1")
    some = {"endpoints": ["users", "enrollments"], "history": True}
    load(postgres, serve(school), school, **some)
    rows, old = 20_000, "TIMESTAMPTZ '2020-01-01 00:00:00+00'"
    with writing(postgres) as do:
        do(
            "INSERT INTO oneroster.users (estab, sourced_id, _deleted, _deleted_at)"
            f" SELECT '1', 'u' || i, i % 2 = 0, {old} FROM generate_series(1, {rows}) i"
        )
        do(
            "INSERT INTO oneroster.enrollments (estab, sourced_id, user_sourced_id, _deleted,"
            f" _deleted_at) SELECT '1', 'e' || i, 'u' || i, i % 3 = 0, {old}"
            f" FROM generate_series(1, {rows}) i"
        )
        for name, columns in (("users", ""), ("enrollments", "user_sourced_id, ")):
            do(
                f"INSERT INTO oneroster.{name}_history (estab, sourced_id, {columns}_deleted,"
                f" valid_from) SELECT estab, sourced_id, {columns}_deleted, {old}"
                f" FROM oneroster.{name} WHERE _deleted_at IS NOT NULL"
            )
        # keys that do not fit into it were looked up one by one in all of them, for minutes
        name = postgres.rpartition("/")[2]
        do(f"ALTER DATABASE {name} SET work_mem = '64kB'")
        do(f"ALTER DATABASE {name} SET statement_timeout = '5s'")
        do("ANALYZE")
    warehouse = Warehouse(postgres)
    found = warehouse.leavers(NOW - YEAR)
    people = rows // 2
    ended = sum(i % 2 == 0 or i % 3 == 0 for i in range(1, rows + 1))
    assert found.rows == {
        "users": people,
        "users_history": people,
        "enrollments": ended,
        "enrollments_history": ended,
    }
    assert warehouse.prune(NOW - YEAR).rows == found.rows


def test_what_another_pipeline_loads_is_not_pruned(serve, pipeline) -> None:
    school = small_school("1")
    leaver(school, "old", ago(400))
    pipeline.run(oneroster(**settings(serve(school), school), endpoints=["users"]))
    warehouse = Warehouse(str(pipeline.sql_client().credentials.database))
    for refused in (warehouse.leavers, warehouse.prune):
        with pytest.raises(DestinationError, match="was loaded by another pipeline"):
            refused(NOW - YEAR)
    assert "old" in {row["sourced_id"] for row in tables(warehouse.name)["users"]}


@pytest.mark.campaign
def test_shards_know_what_was_pruned(serve, postgres) -> None:
    schools = [make(str(n)) for n in range(1, 4)]
    server = serve(*schools)
    options = settings(server, *schools)
    load(postgres, server, *schools)
    warehouse = Warehouse(postgres)
    warehouse.prune(NOW - YEAR)
    shards = warehouse.divide(2, **options)
    whole = Report()
    for shard in shards:
        report = Report()
        warehouse.load(report, shard=shard, **options, full=True)
        whole.outcomes += report.outcomes
    warehouse.finish(shards, whole)
    assert whole.good and {o.mode for o in whole.outcomes} == {"full"}
    assert warehouse.leavers(NOW - YEAR).rows == {}
    load(postgres, server, *schools, full=True)
    assert warehouse.leavers(NOW - YEAR).rows == {}
    # a school that was forgotten is a new one
    warehouse.forget(["1"])
    load(postgres, server, *schools)
    assert warehouse.leavers(NOW - YEAR, ["1"]).rows["users"] == 1


@pytest.mark.campaign
def test_a_fleet_of_20_schools_is_pruned(serve, place) -> None:
    schools = [small_school(f"{n:02}") for n in range(20)]
    for school in schools[:15]:
        leaver(school, "old", ago(400))
    server = serve(*schools)
    some = {"endpoints": ["users", "enrollments"]}
    load(place, server, *schools, **some)
    warehouse = Warehouse(place)
    removed = warehouse.prune(NOW - YEAR, [school.estab for school in schools[:10]])
    assert (removed.rows["users"], removed.rows["enrollments"]) == (10, 20)
    load(place, server, *schools, full=True, **some)
    assert warehouse.leavers(NOW - YEAR).rows["users"] == 5


@pytest.mark.parametrize(
    ("text", "days"), [("365d", 365), ("52w", 364), ("2y", 730), ("0d", 0), (" 3 D ", 3)]
)
def test_spans_of_time(text: str, days: int) -> None:
    assert duration(text) == timedelta(days=days)


@pytest.mark.parametrize("text", ["", "365", "d", "-1d", "1.5y", "1m", "9999999y", "٣d", "1d2w"])
def test_what_is_no_span_of_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"write 365d, 52w or 2y"):
        duration(text)


@pytest.mark.slow
def test_the_command_shows_first_and_then_counts_again(serve, tmp_path) -> None:
    school = make("1")
    load("roster.duckdb", serve(school), school, endpoints=["users"])

    def run(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, ["purge-deleted", "--older-than", *words])
        if code == 0:
            assert done.exit_code == 0, done.output
            return done.output
        assert isinstance(done.exception, ConfigurationError)
        return str(done.exception)

    content = Path("roster.duckdb").read_bytes()
    shown = run("365d")
    assert re.search(r"(?m)^ +1  users$", shown)
    assert f"{len(UNDATED)} deleted rows stay, because it is not known" in shown
    assert "rows would be removed" in shown and "Nothing was removed: add --yes." in shown
    assert Path("roster.duckdb").read_bytes() == content
    done = run("365d", "--yes")
    assert "rows removed. The file roster.duckdb was compacted" in done
    assert "Counted again: 0 rows are left" in done
    assert "0 rows removed. There is nothing" in run("365d", "--school", "1", "--yes")
    assert "'soon' is no time span" in run("soon", code=2)
    assert "holds no school '7'" in run("1y", "--school", "7", code=2)


@pytest.mark.campaign
def test_the_demo_is_pruned(tmp_path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "oneroster_source", *words]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    assert run("demo", "--pupils", "20", "--weeks", "1").returncode == 0
    before = tables("roster.duckdb")
    content = Path("roster.duckdb").read_bytes()
    shown = run("purge-deleted", "--older-than", "0d")
    assert shown.returncode == 0, shown.stderr
    assert "Nothing was removed: add --yes." in shown.stdout
    assert Path("roster.duckdb").read_bytes() == content
    counts = {
        t: int(n.replace(",", "")) for n, t in re.findall(r"(?m)^ +([\d,]+)  (\w+)$", shown.stdout)
    }
    done = run("purge-deleted", "--older-than", "0d", "--yes")
    assert done.returncode == 0, done.stderr
    assert (
        f"{sum(counts.values()):,} rows removed. The file roster.duckdb was written" in done.stdout
    )
    assert "Counted again: 0 rows are left" in done.stdout
    after = tables("roster.duckdb")
    assert counts == {t: len(before[t]) - len(after[t]) for t in before if before[t] != after[t]}
    assert "users" in counts and not any(row["_deleted"] for row in after["users"])
    nothing = run("purge-deleted", "--older-than", "0d", "--yes")
    assert nothing.returncode == 0 and "0 rows removed. There is nothing" in nothing.stdout
