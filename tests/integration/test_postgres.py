"""From a real server to a real Postgres: whole tables against the server's own truth."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support import later
from support.changes import change, purge
from support.postgres import query
from support.truth import REFERENCE_TABLES, Truth, differences, held, staged

from oneroster_source import Report
from oneroster_source.simulator import Fault, School, Simulator, secondary_school
from oneroster_source.warehouse import Warehouse

SOME = ("users", "classes", "enrollments")
ALL = ("orgs", "academic_sessions", "courses", *SOME)


@pytest.fixture
def warehouse(postgres: str) -> Warehouse:
    """What `sync` loads into, here."""
    return Warehouse(postgres)


@pytest.fixture
def sync(sync: Callable[..., Report]) -> Callable[..., Report]:
    """Loads some endpoints, unless told otherwise: a load of all takes longer than it shows."""
    return lambda *which, **options: sync(*which, **{"endpoints": SOME, **options})


@pytest.fixture
def differ(postgres: str) -> Callable[..., dict[str, object]]:
    """How the tables differ from what a server holds; the staging dataset holds nothing."""

    def differ(server: Simulator, *schools: School, **options: object) -> dict[str, object]:
        assert staged(postgres) == []
        some = {"endpoints": SOME, **options}
        return dict(differences(postgres, Truth(server.base_url, schools, **some)))

    return differ


@pytest.mark.slow
def test_a_first_load_and_a_second_of_unchanged_data(serve, sync, school, differ) -> None:
    server = serve(school)
    assert sync(server, school, page_size=100, endpoints=ALL).good
    assert differ(server, school, endpoints=ALL) == {}
    report = sync(server, school, endpoints=ALL)
    assert {o.mode for o in report.outcomes} == {"delta"}
    assert sum(o.changed for o in report.outcomes) == 0
    assert differ(server, school, endpoints=ALL) == {}


def test_a_delta_updates_marks_adds_and_lets_lists_shrink(serve, sync, school, differ) -> None:
    server = serve(school)
    sync(server, school)
    change(school)
    report = sync(server, school)
    assert differ(server, school) == {}
    changed = {o.endpoint: (o.mode, o.changed, o.deleted) for o in report.outcomes if o.changed}
    assert changed == {
        "users": ("delta", 4, 1),
        "classes": ("delta", 2, 0),
        "enrollments": ("delta", 1, 0),
    }


@pytest.mark.campaign
def test_deleted_rows_are_removed_kept_and_removed_again(serve, sync, school, differ) -> None:
    server = serve(school)
    sync(server, school, deleted="remove")
    assert differ(server, school, keep=False) == {}
    victims = [u["sourcedId"] for u in school.rows("users") if u["status"] == "active"][:5]
    for victim in victims:
        school.delete("users", victim)
    sync(server, school, deleted="remove")
    assert differ(server, school, keep=False) == {}
    school.change("users", victims[0], status="active")
    sync(server, school)
    assert differ(server, school) == {}
    sync(server, school, deleted="remove")
    assert differ(server, school, keep=False) == {}


@pytest.mark.slow
def test_schools_with_the_same_ids_do_not_meet(serve, sync, differ) -> None:
    schools = [secondary_school(7, estab, pupils=10) for estab in ("1", "2")]
    server = serve(*schools)
    sync(server, *schools)
    assert differ(server, *schools) == {}
    first, second = (user["sourcedId"] for user in schools[1].rows("users")[:2])
    schools[1].change("users", first, grades=None, orgSourcedIds=None)
    schools[1].delete("users", second)
    # a run of one school leaves the other as it is
    sync(server, schools[1])
    assert differ(server, *schools) == {}


@pytest.mark.sample(1)
@pytest.mark.parametrize("how", ["keep", later("remove")])
def test_what_a_full_pass_does_not_contain_is_deleted(
    serve, sync, postgres, warehouse, how
) -> None:
    schools = [secondary_school(7, estab, pupils=10) for estab in ("1", "2")]
    server = serve(*schools)
    sync(server, *schools, deleted=how)
    name = schools[1].rows("users")[0]["sourcedId"]
    schools[1].change("users", name, metadata={"é": [1, None, 1.5e300]}, nick="x", status="active")
    sync(server, *schools, deleted=how)
    ghosts = {name: purge(schools[1], name, 3) for name in ("users", "classes", "enrollments")}
    report = sync(server, *schools, deleted=how, full=True)
    assert {(o.estab, o.endpoint): o.gone for o in report.outcomes if o.gone} == {
        ("2", endpoint): 3 for endpoint in ghosts
    }
    assert report.good
    truth = Truth(server.base_url, schools, keep=how == "keep", endpoints=SOME)
    if how == "keep":
        truth.with_ghosts("2", ghosts)
    assert differences(postgres, truth) == {}
    for row in ghosts["users"]:
        schools[1].add("users", {k: v for k, v in row.items() if k != "dateLastModified"})
    sync(server, *schools, deleted=how)
    ghosts["users"] = []
    truth = Truth(server.base_url, schools, keep=how == "keep", endpoints=SOME)
    if how == "keep":
        truth.with_ghosts("2", ghosts)
    assert differences(postgres, truth) == {}


@pytest.mark.slow
def test_what_is_not_sound_is_told_and_a_full_pass_heals_it(
    serve, sync, school, differ, postgres
) -> None:
    server = serve(school)
    sync(server, school)
    damage = {
        "users: 1 duplicate keys": "INSERT INTO oneroster.users"
        " SELECT * FROM oneroster.users ORDER BY sourced_id DESC LIMIT 1",
        "users__grades: 1 orphaned rows (no parent in users)": "INSERT INTO oneroster.users__grades"
        " (estab, user_sourced_id, position, value) VALUES ('3281110', 'nobody', 0, '7')",
    }
    for told, sql in damage.items():
        query(postgres, sql)
        pupil = next(u for u in school.rows("users") if u["role"] == "student")
        school.change("users", pupil["sourcedId"], grades=[told[:3]])
        report = sync(server, school)
        assert not report.failed and told in " ".join(report.problems)
        assert sync(server, school, full=True).good
        assert differ(server, school) == {}


@pytest.mark.campaign
def test_tables_of_references_can_be_left_out_and_come_back(
    serve, sync, school, differ, postgres
) -> None:
    server = serve(school)
    sync(server, school, reference_tables=False)
    there = query(
        postgres, "SELECT table_name FROM information_schema.tables WHERE table_schema='oneroster'"
    )
    assert not REFERENCE_TABLES & {name for (name,) in there}
    assert differ(server, school, references=False) == {}
    sync(server, school)
    assert differ(server, school) == {}


def test_characters_that_postgres_refuses_stop_no_load(
    serve, sync, school, differ, postgres
) -> None:
    server = serve(school)
    name = school.rows("users")[0]["sourcedId"]
    nul = {"familyName": "O\0Brien", "metadata": {"note": "a\0b", "key\0": 1}, "nick": "c\0d"}
    school.change("users", name, **nul)
    assert sync(server, school).good
    found = query(
        postgres,
        "SELECT family_name, metadata::text, extra::text FROM oneroster.users"
        " WHERE sourced_id = %s",
        name,
    )
    assert found == [
        ("O\ufffdBrien", '{"note": "a\ufffdb", "key\ufffd": 1}', '{"nick": "c\ufffdd"}')
    ]
    stamp = school.get("users", name)["dateLastModified"]
    school.change("users", name, familyName="O\ufffdBrien", dateLastModified=stamp)
    assert differ(server, school) == {}


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "sent",
    ["1e200000", "[" * 9000 + "]" * 9000, "9" * 5000],
    ids=["a large number", "deep lists", "many digits"],
)
def test_json_that_postgres_or_python_refuses_stops_no_load(serve, sync, postgres, sent) -> None:
    school = School("1", collections={"users": [{"sourcedId": "a"}]})
    body = f'{{"users": [{{"sourcedId": "a", "metadata": {sent}, "nick": {sent}}}]}}'
    school.faults.append(Fault("users", status=200, body=body.encode()))
    server = serve(school)
    # then it is gone, and stays as it was
    for deleted in (False, True):
        assert sync(server, school, endpoints=["users"], full=True, allow_deletes=True).good
        found = query(
            postgres, "SELECT metadata #>> '{}', extra ->> 'nick', _deleted FROM oneroster.users"
        )
        assert found == [(sent, sent, deleted)]
        if not deleted:
            school.purge("users", "a")


@pytest.mark.slow
def test_one_school_that_fails_leaves_the_rows_and_cursors_of_the_others(
    serve, sync, differ, warehouse, postgres
) -> None:
    schools = [secondary_school(seed, str(seed), pupils=10) for seed in (1, 2)]
    server = serve(*schools)
    schools[1].forbidden.add("users")
    assert [(o.estab, o.endpoint) for o in sync(server, *schools).failed] == [("2", "users")]
    assert {row[0] for row in held(postgres, "users")} == {"1"}
    assert set(warehouse.status().cursors["users"]) == {"1"}
    schools[1].forbidden.clear()
    assert sync(server, *schools).good
    assert differ(server, *schools) == {}


@pytest.mark.campaign
def test_the_comparison_itself_sees_a_row_that_is_lost_doubled_or_changed(
    serve, sync, school, differ, postgres
) -> None:
    server = serve(school)
    sync(server, school)
    for table in ("users", "users__orgs"):
        clean = differ(server, school)
        one = f"ctid = (SELECT min(ctid) FROM oneroster.{table})"
        for damage in (
            f"INSERT INTO oneroster.{table} SELECT * FROM oneroster.{table} WHERE {one}",
            f"UPDATE oneroster.{table} SET sourced_id = 'x' WHERE {one}",
            f"DELETE FROM oneroster.{table} WHERE {one}",
        ):
            query(postgres, damage)
            found = differ(server, school)
            assert found[table] != clean.get(table), damage
            clean = found


def _gone_through(plan: dict[str, Any]) -> int:
    """The rows that a part of a plan has looked at, and the parts below it."""
    kept = plan["Actual Rows"] + sum(n for k, n in plan.items() if k.startswith("Rows Removed"))
    below = sum(map(_gone_through, plan.get("Plans", ())))
    return int(kept * plan["Actual Loops"]) + below


@pytest.fixture
def plans(postgres: str) -> Callable[[], Iterator[tuple[int, str]]]:
    """All statements of which the server has told since the last time, each with the rows that it
    has gone through. It has so little memory for each that a few rows do not fit."""
    try:
        query(postgres, "LOAD 'auto_explain'")
    except Exception:
        pytest.skip("this Postgres server has no auto_explain")
    name = postgres.rpartition("/")[2]
    for setting in (
        "work_mem = '64kB'",
        "session_preload_libraries = 'auto_explain'",
        "auto_explain.log_min_duration = 0",
        "auto_explain.log_analyze = on",
        "auto_explain.log_timing = off",
        "auto_explain.log_format = json",
    ):
        query(postgres, f"ALTER DATABASE {name} SET {setting}")
    ((folder,),) = query(postgres, "SHOW data_directory")
    log = Path(folder).parent / "log"
    seen = log.stat().st_size

    def plans() -> Iterator[tuple[int, str]]:
        nonlocal seen
        with log.open("rb") as file:
            file.seek(seen)
            told = file.read()
        seen += len(told)
        for text in re.findall(r" plan:\n((?:\t.*\n)+)", told.decode()):
            found = json.loads(text.replace("\n\t", "\n"))
            yield _gone_through(found["Plan"]), found["Query Text"]

    return plans


@pytest.mark.slow
def test_no_statement_goes_through_all_staged_rows_for_each_row(
    serve, sync, warehouse, postgres, plans
) -> None:
    stamp = {"status": "active", "dateLastModified": "2026-01-01T00:00:00.000Z"}

    def ref(kind: str, i: int) -> dict[str, str]:
        return {"sourcedId": f"{kind}-{i:08d}-8c2b-4a57-9f0e-3b1d5a7c9e21", "type": kind}

    def row(kind: str, i: int, **more: object) -> dict[str, object]:
        return {"sourcedId": ref(kind, i)["sourcedId"], **stamp, **more}

    school = School(
        "3281110",
        collections={
            "users": [
                row("user", i, orgs=[ref("org", 1)], grades=["7"], role="student", enabledUser=True)
                for i in range(1500)
            ],
            "enrollments": [
                {**row("enrollment", i, role="student"), "class": ref("class", i // 20)}
                | {"user": ref("user", i % 1500), "school": ref("org", 1)}
                for i in range(4000)
            ],
        },
    )
    server = serve(school)
    some = {"endpoints": ["users", "enrollments"], "history": True}
    assert sync(server, school, **some).good

    def change() -> None:
        for name in ("users", "enrollments"):
            for old in list(school.rows(name)):
                school.change(name, old["sourcedId"], extra=str(datetime.now(UTC)))

    def shrink() -> None:
        # a delta leaves statistics of few rows behind
        for old in school.rows("users")[:3]:
            school.change("users", old["sourcedId"], grades=[])
        sync(server, school, **some)
        query(postgres, "ANALYZE")

    def leave() -> None:
        for name in ("users", "enrollments"):
            for old in list(school.rows(name))[:300]:
                school.delete(name, old["sourcedId"])

    nobody = school.rows("users")[700]["sourcedId"]
    work: dict[str, Callable[[], object]] = {
        "full": lambda: sync(server, school, **some, full=True),
        "changed": lambda: (change(), sync(server, school, **some)),
        "after a small one": lambda: (shrink(), change(), sync(server, school, **some)),
        "deleted": lambda: (leave(), sync(server, school, **some, allow_deletes=True)),
        "prune": lambda: warehouse.prune(datetime.now(UTC)),
        "erase": lambda: warehouse.erase(
            "3281110", nobody, privacy_key="correct horse battery staple, again"
        ),
        "forget": lambda: warehouse.forget(["3281110"]),
    }
    list(plans())
    for name, do in work.items():
        do()
        # every table has 4,000 rows at most, but for versions: 16,000; for each of them all that
        # is staged would be millions
        worst = max(plans())
        assert worst[0] < 250_000, f"{name}: {worst[1]}"
    assert query(postgres, "SELECT count(*) FROM oneroster.enrollments") == [(0,)]
