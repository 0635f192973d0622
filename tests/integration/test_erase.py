"""A person who is erased: gone everywhere, never brought back, and nobody else touched."""

from __future__ import annotations

import base64
import json
import logging
import re
import zlib
from pathlib import Path
from typing import Any

import dlt
import pytest
from dlt.pipeline.exceptions import PipelineStepFailed
from support.postgres import execute, query
from support.program import Run
from support.settings import environment, settings
from support.small_school import day, enrollment, ref, small_school
from support.truth import STAGING, Truth, differences, opened

from oneroster_source import ConfigurationError, Report, Warehouse, oneroster
from oneroster_source.admin.person import Person
from oneroster_source.config.privacy import Key
from oneroster_source.destination.backends import Backend
from oneroster_source.model import V1P1
from oneroster_source.simulator import School, Simulator
from oneroster_source.transform.parser import PageParser
from oneroster_source.transform.suppression import Suppression, digest, suppressions

KEY = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4
ID = "kanari-1"
MARK = b"kanari"
"""Stands in all that the school says of the person, and in nothing else."""
USERS = ("users",)
SOME = (*USERS, "enrollments")
PEOPLE = ("classes", *SOME)


def marked(estab: str = "1") -> School:
    """A small school with one more pupil, in all places that a person can be in."""
    school = small_school(estab)
    school.add(
        "users",
        {
            "sourcedId": ID,
            "username": "kanari.username",
            "givenName": "Kanari-kanari",
            "familyName": "kanari-family",
            "role": "kanari-role",
            "identifier": "kanari-identifier",
            "email": "kanari@school.example",
            "sms": "kanari-sms",
            "phone": "kanari-phone",
            "password": "kanari-password",
            "enabledUser": "kanari, perhaps",
            "orgSourcedIds": ["school"],
            "userIds": [{"type": "LDAP", "identifier": "kanari-ldap"}],
            "agents": [ref("t1", "user")],
            "metadata": {"note": "kanari-note"},
            "nick": "kanari-nick",
        },
    )
    for name in ("7A", "8A/Ma"):
        school.add("enrollments", enrollment(f"{name}-kanari", "student", ID, name))
    school.change("enrollments", "7A-kanari", endDate=day(-300), note={"by": "kanari"})
    school.change(
        "users",
        "p2",
        agents=[ref("t2", "user"), ref(ID, "user")],
        metadata={"house": "red", "siblings": [{"sourcedId": ID, "name": "kanari"}, {"a": "p3"}]},
        buddy=ID,
    )
    school.change("users", "p3", agents=[ref(ID, "user")], buddy="p1")
    school.change("classes", "7A", metadata={"speaker": [ID]})
    return school


def without_them(school: School) -> School:
    """The same school, as if there had never been the person."""
    rows = {
        name: [json.loads(json.dumps(row)) for row in school.rows(name)]
        for name in ("orgs", "academicSessions", "courses", "classes", "users", "enrollments")
    }
    rows["users"] = [row for row in rows["users"] if row["sourcedId"] != ID]
    for row in rows["users"]:
        if "agents" in row:
            row["agents"] = [item for item in row["agents"] if item["sourcedId"] != ID]
    rows["enrollments"] = [r for r in rows["enrollments"] if r["user"]["sourcedId"] != ID]
    return School(school.estab, collections=rows)


@pytest.fixture(params=["duckdb", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where it all happens: a DuckDB file, and a Postgres database."""
    if request.param == "duckdb":
        return str(tmp_path / "roster.duckdb")
    return str(request.getfixturevalue("postgres"))


def load(database: str, server: Simulator, *schools: School, **options: Any) -> Report:
    report = Report()
    options = {"privacy_key": KEY, "endpoints": PEOPLE, **options}
    Warehouse(database).load(report, **settings(server, *schools) | options)
    assert report.good, (report.failed, report.problems)
    return report


def dump(database: str) -> dict[str, list[str]]:
    """Every row of every table, those of dlt too, what is packed there unpacked."""
    with opened(database) as ask:
        tables = ask(
            "SELECT table_schema, table_name FROM information_schema.tables"
            " WHERE table_type = 'BASE TABLE' AND table_schema LIKE 'oneroster%'"
        )
        found = {
            f"{s}.{t}".removeprefix("oneroster."): sorted(map(repr, ask(f"SELECT * FROM {s}.{t}")))
            for s, t in tables
        }
        states = ask("SELECT state FROM oneroster._dlt_pipeline_state")
    found["states"] = [zlib.decompress(base64.b64decode(state)).decode() for (state,) in states]
    return found


def traces(database: str, folder: Path) -> list[str]:
    """Where the mark stands, as bytes: in tables, files and statistics."""
    found = [name for name, rows in dump(database).items() if MARK.decode() in "".join(rows)]
    files = [path for path in folder.rglob("*") if path.is_file()]
    found += [path.name for path in files if MARK in path.read_bytes()]
    if database.startswith("postgresql"):
        query(database, "CHECKPOINT")
        relations = query(
            database,
            "SELECT c.oid::regclass::text, pg_read_binary_file(pg_relation_filepath(c.oid))"
            " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE pg_relation_filepath(c.oid) IS NOT NULL"
            " AND (n.nspname LIKE 'oneroster%' OR n.nspname = 'pg_toast')",
        )
        found += [f"file of {name}" for name, content in relations if MARK in bytes(content)]
        stats = query(database, "SELECT * FROM pg_stats WHERE schemaname LIKE 'oneroster%'")
        found += ["pg_stats"] if MARK.decode() in repr(stats) else []
    return found


def with_versions(database: str) -> None:
    """Adds versions as `history` keeps them: of an enrollment that was the person's once too."""
    for name in ("users", "enrollments"):
        execute(
            database,
            f"CREATE TABLE oneroster.{name}_history AS SELECT t.*,"
            " CAST(CURRENT_TIMESTAMP AS timestamptz) AS valid_from,"
            f" CAST(NULL AS timestamptz) AS valid_to FROM oneroster.{name} t",
        )
    execute(
        database,
        "INSERT INTO oneroster.enrollments_history SELECT t.estab, '7A-p1',"
        + ", ".join(
            "TIMESTAMP '2020-01-01'" if c == "valid_from" else f"t.{c}"
            for c in [c.name for c in V1P1["enrollments"].history.columns][2:]  # type: ignore[union-attr]
        )
        + " FROM oneroster.enrollments_history t WHERE t.sourced_id = '7A-kanari'",
    )


@pytest.mark.sample(1)
def test_nothing_of_an_erased_person_is_left_and_nobody_else_is_touched(
    serve,
    run: Run,
    database: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    school = marked()
    server = serve(school)
    load(database, server, school, privacy_key=None)
    Warehouse(database).check_quality()
    with_versions(database)
    before = dump(database)
    there = traces(database, tmp_path)
    assert {"users", "users__agents", "enrollments__class", "quality_results"} <= {*there}
    assert {"users_history", "rejected_rows", "classes"} <= {*there}
    files = {"file of oneroster.users", "pg_stats"}
    assert (files if database.startswith("postgresql") else {"roster.duckdb"}) <= {*there}
    exported = Warehouse(database).export("1", ID, privacy_key=KEY)
    env = environment(server, school) | {"SOURCES__ONEROSTER__PRIVACY_KEY": KEY}
    with caplog.at_level(logging.DEBUG):
        done = run(
            "erase-person",
            "--school",
            "1",
            "--user",
            ID,
            "--yes",
            "--destination",
            database,
            env=env,
        )
    assert done.returncode == 0, done.stderr
    assert MARK.decode() not in (done.stdout + done.stderr + caplog.text).lower()
    assert "Counted again: 0 rows and values." in done.stdout
    assert traces(database, tmp_path) == []
    after = dump(database)
    (listed,) = after.pop("suppressed_users")
    assert Key(KEY.encode()).name in listed and KEY not in listed
    # rows without the mark are as before, and those of others that had it have it no more
    named = {"users": 1, "users_history": 1, "classes": 1}
    named["quality_results"] = sum(MARK.decode() in row for row in before["quality_results"])
    for table, rows in before.items():
        if not table.startswith((STAGING, "states")):
            clean = [row for row in rows if MARK.decode() not in row]
            assert set(clean) <= set(after[table]), table
            assert len(after[table]) - len(clean) == named.get(table, 0), table
    assert not [table for table in after if table.startswith(STAGING)]
    with opened(database) as ask:
        ((metadata, extra),) = ask(
            "SELECT CAST(metadata AS VARCHAR), extra FROM oneroster.users WHERE sourced_id = 'p2'"
        )
        ((speaker,),) = ask("SELECT metadata FROM oneroster.classes WHERE sourced_id = '7A'")
    rest = {"house": "red", "siblings": [{"a": "p3"}]}
    assert (json.loads(metadata), extra, speaker) == (rest, None, None)
    _is_all_of_them(exported, done.stdout)
    again = Warehouse(database).export("1", ID, privacy_key=KEY)["tables"]
    assert [*again] == ["suppressed_users"]
    _never_comes_back(database, server, school, tmp_path)


def _is_all_of_them(exported: dict[str, Any], shown: str) -> None:
    """All that is held on the person, as many rows as were removed, and nothing of others."""
    assert json.loads(json.dumps(exported)) == exported
    tables = exported["tables"]
    (user,) = [row for row in tables["users"] if row["sourced_id"] == ID]
    assert (user["family_name"], user["extra"]["nick"]) == ("kanari-family", "kanari-nick")
    assert user["metadata"] == {"note": "kanari-note"}
    (p2,) = [row for row in tables["users"] if "metadata" in row and row["sourced_id"] == "p2"]
    assert p2["metadata"] == {"siblings": [{"sourcedId": ID, "name": "kanari"}]}
    agents = {(r["user_sourced_id"], r["sourced_id"]) for r in tables["users__agents"]}
    assert agents == {(ID, "t1"), ("p2", ID), ("p3", ID)}
    assert {r["class_sourced_id"] for r in tables["enrollments"]} == {"7A", "8A/Ma"}
    assert {r["sourced_id"] for r in tables["enrollments_history"]} == {
        *("7A-kanari", "8A/Ma-kanari", "7A-p1")
    }
    examples = {i for r in tables["quality_results"] for i in r["examples"]}
    assert examples == {ID, "7A-kanari", "8A/Ma-kanari"}
    assert not re.search(r'"(p1|p4|7A-p2|Fay|Fir|Gus|Gorse|red)"', json.dumps(exported))
    removed = dict(reversed(line.split()) for line in shown.split("Removed:")[1].splitlines()[1:14])
    whole = ["users__agents", "users__orgs", "enrollments", "enrollments_history", "rejected_rows"]
    assert {n: int(removed[n]) for n in whole} == {n: len(tables[n]) for n in whole}


def _never_comes_back(database: str, server: Simulator, school: School, folder: Path) -> None:
    """Neither by a delta, though all that is theirs changes, nor by a full pass."""
    school.change("users", ID, givenName="kanari again", enabledUser=True)
    school.change("enrollments", "8A/Ma-kanari", beginDate=day(-1))
    school.change("users", "p2", buddy=ID, metadata={"siblings": {ID: 1}, "house": "blue"})
    # an enrollment that becomes theirs is gone for whose it was
    lost = school.get("enrollments", "8A/Ma-p4")
    school.change("enrollments", lost["sourcedId"], user=ref(ID, "user"))
    truth = Truth(server.base_url, [without_them(school)], endpoints=PEOPLE)
    truth.with_ghosts(school.estab, {"enrollments": [lost]})
    for full in (False, True):
        report = load(database, server, school, full=full)
        assert {outcome.mode for outcome in report.outcomes} == {"full" if full else "delta"}
        assert differences(database, truth) == {}
        assert traces(database, folder) == []


@pytest.mark.slow
def test_what_cannot_be_done_right_is_refused_and_changes_nothing(
    serve,
    run: Run,
    warehouse: Warehouse,
) -> None:
    schools = marked("1"), small_school("2")
    schools[0].change("users", "p1", metadata={"teamIds": ["red"], "note": ""})
    server = serve(*schools)
    load(warehouse.name, server, *schools, endpoints=USERS)
    before = dump(warehouse.name)
    for estab, user, ask, problem in (
        ("2", ID, warehouse.erase, "nobody with this id in school 2"),
        ("1", "nobody", warehouse.export, "nobody with this id in school 1"),
        ("9", ID, warehouse.trace, "nobody with this id in school 9"),
        # others' rows have it, and it is nobody
        ("1", "red", warehouse.erase, "nobody with this id in school 1"),
        ("1", "red", warehouse.export, "nobody with this id in school 1"),
        ("1", "", warehouse.erase, "the user is empty"),
        (" ", ID, warehouse.export, "the estab is empty"),
        ("1", "\0", warehouse.trace, "the user holds what is no character"),
    ):
        with pytest.raises(ConfigurationError, match=problem):
            ask(estab, user, privacy_key=KEY)
    for whom in (("1", "\udcff"), ("\udcff", ID)):
        done = run(
            "erase-person", "--school", whom[0], "--user", whom[1], "--destination", warehouse.name
        )
        assert done.returncode == 2 and "what is no character" in done.stderr
    with pytest.raises(ConfigurationError, match=r"secrets\.token_hex"):
        warehouse.erase("1", ID)
    assert dump(warehouse.name) == before
    assert not warehouse.is_unfinished
    warehouse.erase("1", ID, privacy_key=KEY)
    server.requests.clear()
    for key in (None, OTHER):
        # who was erased cannot be known: they would come back
        with pytest.raises(ConfigurationError, match=r"school 1.*'privacy_key'"):
            load(warehouse.name, server, *schools, endpoints=USERS, privacy_key=key)
        with pytest.raises(ConfigurationError, match="'privacy_key'"):
            warehouse.erase("2", "p1", privacy_key=key)
    assert not server.requests
    # schools of which nobody was erased need none
    assert suppressions([("1", "digest", "key")], {"2"}, None, V1P1) == {}


@pytest.mark.campaign
def test_one_of_twenty_with_the_same_id_is_erased(serve, database: str) -> None:
    schools = [marked(str(n)) for n in range(20)]
    for school in schools:
        school.change("users", ID, enabledUser=True)
    server = serve(*schools)
    load(database, server, *schools, endpoints=V1P1.names)
    counts = Warehouse(database).erase("7", ID, privacy_key=KEY).rows
    assert counts["users"] == 1 and counts["enrollments"] == 2
    schools_then = [without_them(s) if s.estab == "7" else s for s in schools]
    for full in (None, False, True):
        if full is not None:
            load(database, server, *schools, endpoints=V1P1.names, full=full)
        assert differences(database, Truth(server.base_url, schools_then)) == {}


@pytest.mark.campaign
def test_an_enrollment_that_becomes_an_erased_persons_is_removed(
    serve, warehouse: Warehouse
) -> None:
    school = marked()
    server = serve(school)
    options = {"endpoints": SOME, "deleted": "remove"}
    load(warehouse.name, server, school, **options)
    warehouse.erase("1", ID, privacy_key=KEY)
    school.change("users", ID, enabledUser=True)
    school.change("enrollments", "7A-p1", user=ref(ID, "user"))
    for full in (False, True):
        load(warehouse.name, server, school, full=full, **options)
        assert differences(warehouse.name, _truth(server, school)) == {}


@pytest.mark.slow
def test_an_erasure_that_was_cut_short_is_finished_by_the_next(
    serve, warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    school = marked()
    load(warehouse.name, serve(school), school, endpoints=USERS)
    before = dump(warehouse.name)

    def killed(*_: Any) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Person, "remove", killed)
        warehouse.erase("1", ID, privacy_key=KEY)
    after = dump(warehouse.name)
    assert {n: after[n] for n in before if n in after} == {
        n: before[n] for n in before if n in after
    }
    assert "suppressed_users" not in after
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Backend, "compact", killed)
        warehouse.erase("1", ID, privacy_key=KEY)
    assert traces(warehouse.name, tmp_path) == ["roster.duckdb"]
    assert warehouse.erase("1", ID, privacy_key=KEY).rows == {}
    assert traces(warehouse.name, tmp_path) == []
    assert len(dump(warehouse.name)["suppressed_users"]) == 1


@pytest.mark.slow
def test_what_others_say_stays_but_for_what_names_the_person(
    serve,
    run: Run,
    warehouse: Warehouse,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deep, long = "[" * 600 + '{"userId":"12"},7' + "]" * 600, "9" * 5000
    read = PageParser.parse

    def parse(parser: PageParser, body: bytes) -> Any:
        # the simulator, which is Python too, could not send it
        text = bytes(body).replace(b'"DEEP"', deep.encode()).replace(b'"LONG"', long.encode())
        return read(parser, text)

    monkeypatch.setattr(PageParser, "parse", parse)
    school = small_school()
    school.add("users", school.get("users", "p1") | {"sourcedId": "12", "metadata": {"a": "DEEP"}})
    school.change(
        "users",
        "p2",
        metadata={
            "family": {"siblingIds": ["12", "p3"], "doctor": "Dr X"},
            "address": {"number": "12"},
            "yearGroup": "12",
        },
        course={"sourcedId": "12"},
        buddy={"sourcedId": "12", "type": "user", "name": "Eve"},
    )
    school.change("users", "p3", metadata={"a": "DEEP", "b": "LONG", "c": 1e300, "userId": "12"})
    school.change(
        "classes",
        "7A",
        metadata={"groups": [{"leadId": "12", "memberIds": ["p2", "12"], "note": "p2 is ill"}]},
    )
    server, endpoints = serve(school), ("classes", "users")
    load(warehouse.name, server, school, endpoints=endpoints)
    env = {"SOURCES__ONEROSTER__PRIVACY_KEY": KEY}
    whom = ("--school", "1", "--user", "12", "--destination", warehouse.name)
    given = run("export-person", *whom, env=env)
    assert given.returncode == 0, given.stderr
    tables = json.loads(given.stdout)["tables"]
    (of_class,) = tables["classes"]
    assert of_class["metadata"] == {"groups": [{"leadId": "12", "memberIds": ["12"]}]}
    users = {row["sourced_id"]: row for row in tables["users"] if "metadata" in row}
    assert users["12"]["metadata"] == f'{{"a":{deep}}}'
    assert users["p2"]["metadata"] == {"family": {"siblingIds": ["12"]}}
    told = '{"a":' + "[" * 600 + '{"userId":"12"}' + "]" * 600 + ',"userId":"12"}'
    assert users["p3"]["metadata"] == told
    (extra,) = [row["extra"] for row in tables["users"] if row.get("extra") and row != users["12"]]
    assert extra == {"buddy": {"sourcedId": "12", "type": "user", "name": "Eve"}}
    assert run("erase-person", *whom, "--yes", env=env).returncode == 0
    for again in (False, True):
        if again:
            load(warehouse.name, server, school, endpoints=endpoints, full=True)
        with opened(warehouse.name) as ask:
            rows = ask("SELECT sourced_id, metadata, extra FROM oneroster.users")
            ((groups,),) = ask("SELECT metadata FROM oneroster.classes WHERE sourced_id = '7A'")
        found = {name: (metadata, extra) for name, metadata, extra in rows}
        assert "12" not in found
        metadata, extra = map(json.loads, found["p2"])
        assert metadata["family"] == {"siblingIds": ["p3"], "doctor": "Dr X"}
        assert (metadata["address"], metadata["yearGroup"]) == ({"number": "12"}, "12")
        assert extra == {"course": {"sourcedId": "12"}}
        rest = '{"a":' + "[" * 600 + "7" + "]" * 600 + ',"b":' + long + ',"c":1e300}'
        assert found["p3"] == (rest, None)
        assert json.loads(groups) == {"groups": [{"memberIds": ["p2"], "note": "p2 is ill"}]}


@pytest.mark.slow
def test_an_enrollment_that_becomes_an_erased_persons_ends_its_version(
    serve, warehouse: Warehouse
) -> None:
    school = marked()
    server = serve(school)
    options = {"endpoints": ["enrollments"], "history": True}
    load(warehouse.name, server, school, **options)
    # by the pseudonym, where no row of users tells whose it is
    counts = warehouse.erase("1", Key(KEY.encode()).digest(ID), privacy_key=KEY).rows
    assert counts["enrollments"] == counts["enrollments_history"] == 2
    school.change("enrollments", "8A/Ma-p4", user=ref(ID, "user"))
    school.change("enrollments", "7A-p2", beginDate=day(-3))
    load(warehouse.name, server, school, **options)
    with opened(warehouse.name) as ask:
        versions = ask(
            "SELECT sourced_id, _deleted, valid_to IS NULL FROM oneroster.enrollments_history"
            " WHERE sourced_id IN ('8A/Ma-p4', '7A-p2') ORDER BY sourced_id, valid_from"
        )
    of_each = [(False, False), (False, True)], [(False, False), (True, True)]
    ids = ("7A-p2", "8A/Ma-p4")
    assert versions == [(i, *v) for i, some in zip(ids, of_each, strict=True) for v in some]


@pytest.mark.campaign
def test_people_under_pseudonyms_are_erased_by_either_id(serve, warehouse: Warehouse) -> None:
    school = marked()
    server = serve(school)
    options = {"endpoints": SOME, "privacy": "pseudonymous"}
    load(warehouse.name, server, school, **options)
    key = Key(KEY.encode())
    for given in (ID, key.digest("p2")):
        assert warehouse.erase("1", given, privacy_key=KEY).rows["users"] == 1
    load(warehouse.name, server, school, full=True, **options)
    with opened(warehouse.name) as ask:
        users = {user for (user,) in ask("SELECT sourced_id FROM oneroster.users")}
        enrolled = {user for (user,) in ask("SELECT user_sourced_id FROM oneroster.enrollments")}
    assert len(users) == 7
    assert not (users | enrolled) & {key.digest(ID), key.digest("p2")}
    # also where ids are no pseudonyms any more: a school that is forgotten keeps its list
    warehouse.forget(["1"])
    load(warehouse.name, server, school, endpoints=SOME)
    with opened(warehouse.name) as ask:
        users = {user for (user,) in ask("SELECT sourced_id FROM oneroster.users")}
    assert "p1" in users and not users & {ID, "p2"}


def test_an_erased_person_is_known_in_every_form_of_the_id() -> None:
    key = Key(KEY.encode())
    pseudonym = key.digest("a")
    for named in ("a", pseudonym):
        erased = Suppression(key, "1", [digest(key, "1", named)], V1P1)
        assert "a" in erased and pseudonym in erased and "b" not in erased
        assert "a" not in Suppression(key, "2", [digest(key, "1", named)], V1P1)


@pytest.mark.campaign
def test_a_pipeline_of_ones_own_brings_nobody_back(serve, pipeline: dlt.Pipeline) -> None:
    school = marked()
    server = serve(school)
    chosen = settings(server, school) | {"endpoints": SOME}
    pipeline.run(oneroster(**chosen))
    database = pipeline.sql_client().credentials.database
    warehouse = Warehouse(database)
    assert warehouse.erase("1", ID, privacy_key=KEY).rows["enrollments"] == 2
    with pytest.raises(PipelineStepFailed, match="'privacy_key' is missing"):
        pipeline.run(oneroster(**chosen))
    pipeline.abort_packages()
    pipeline.run(oneroster(full=True, privacy_key=KEY, **chosen))
    assert differences(database, _truth(server, school)) == {}


@pytest.mark.campaign
def test_a_shard_brings_nobody_back(serve, warehouse: Warehouse) -> None:
    school = marked()
    server = serve(school)
    load(warehouse.name, server, school, endpoints=SOME)
    warehouse.erase("1", ID, privacy_key=KEY)
    chosen = settings(server, school) | {"endpoints": SOME, "privacy_key": KEY, "full": True}
    shards = warehouse.divide(1, **chosen)
    report = Report()
    warehouse.load(report, shard=shards[0], **{k: v for k, v in chosen.items() if k != "only"})
    warehouse.finish(shards, report)
    assert report.good
    assert differences(warehouse.name, _truth(server, school)) == {}


@pytest.mark.campaign
def test_versions_of_a_person_go_and_make_no_others(serve, database: str, tmp_path: Path) -> None:
    school = marked()
    server = serve(school)
    load(database, server, school, history=True)
    # one enrollment becomes somebody else's, one the person's
    school.change("enrollments", "7A-kanari", user=ref("p1", "user"))
    school.change("enrollments", "8A/Ma-p4", user=ref(ID, "user"))
    school.change("users", ID, givenName="kanari II")
    load(database, server, school, history=True)
    school.change("enrollments", "7A-kanari", user=ref("p2", "user"), note=None)
    load(database, server, school, history=True)
    versions = "SELECT * FROM oneroster.{}_history WHERE {} ORDER BY sourced_id, valid_from"
    theirs = {"users": f"sourced_id = '{ID}'", "enrollments": f"user_sourced_id = '{ID}'"}
    with opened(database) as ask:
        before = {n: ask(versions.format(n, f"NOT {where}")) for n, where in theirs.items()}
        gone = {n: len(ask(versions.format(n, where))) for n, where in theirs.items()}
    assert gone == {"users": 2, "enrollments": 3}
    counts = Warehouse(database).erase("1", ID, privacy_key=KEY).rows
    assert {n: counts[f"{n}_history"] for n in gone} == gone
    for full in (False, True):
        school.change("users", ID, givenName=f"kanari {full}")
        load(database, server, school, history=True, full=full)
        with opened(database) as ask:
            after = {n: ask(versions.format(n, "TRUE")) for n in theirs}
        assert after["enrollments"] == before["enrollments"]
        # those that name the person do not any more
        keys = [[(row[1], *row[-2:]) for row in rows["users"]] for rows in (before, after)]
        assert keys[0] == keys[1]
    assert not [name for name in traces(database, tmp_path) if name.startswith("users")]


def _truth(server: Simulator, school: School) -> Truth:
    return Truth(server.base_url, [without_them(school)], endpoints=SOME)


@pytest.mark.campaign
def test_the_demo_can_be_exported_from_and_erased_from(
    run: Run,
    tmp_path: Path,
) -> None:
    env = {"SOURCES__ONEROSTER__PRIVACY_KEY": KEY}
    assert run("demo", "--pupils", "20", "--weeks", "0", env=env).returncode == 0
    database = str(tmp_path / "roster.duckdb")
    with opened(database) as ask:
        ((user,),) = ask(
            "SELECT min(user_sourced_id) FROM oneroster.enrollments WHERE estab = '9990001'"
        )
    whom = ("--school", "9990001", "--user", user)
    asked = run("export-person", *whom, "--output", "one.json")
    assert asked.returncode == 0, asked.stderr
    file = tmp_path / "one.json"
    assert json.loads(file.read_text("utf-8"))["tables"]["users"][0]["sourced_id"] == user
    assert file.stat().st_mode & 0o77 == 0
    assert json.loads(run("export-person", *whom).stdout)["user"] == user
    refused = run("erase-person", *whom)
    assert refused.returncode == 2 and "add --yes" in refused.stderr
    # a second time too
    for _ in range(2):
        done = run("erase-person", *whom, "--yes")
        assert done.returncode == 0, done.stderr
        assert "Counted again: 0" in done.stdout
    stranger = run("erase-person", "--school", "9990001", "--user", "nobody", "--yes")
    assert stranger.returncode == 2 and "nobody with this id" in stranger.stderr
