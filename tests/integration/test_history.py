"""Versions of users, classes and enrollments, against what the server had each time."""

from __future__ import annotations

import copy
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from tempfile import TemporaryDirectory
from typing import Any

import dlt
import duckdb
import pytest
from hypothesis import HealthCheck, Phase, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from support import postgres as postgres_server
from support.program import PATIENCE
from support.settings import settings
from support.small_school import enrollment, small_school
from support.truth import opened

from oneroster_source import ConfigurationError, DestinationError, Report, Warehouse, oneroster
from oneroster_source.destination.history import keep
from oneroster_source.errors import chain
from oneroster_source.simulator import School, Simulator
from oneroster_source.sync import load as load_module

SOME = ("classes", "users", "enrollments")
Row = tuple[Any, ...]
DATABASES = ("duckdb", "postgres")


@contextmanager
def database(kind: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """A new database."""
    if kind == "postgres":
        with postgres_server.fresh(request.getfixturevalue("server_url")) as url:
            yield url
    else:
        with TemporaryDirectory() as folder:
            yield f"{folder}/roster.duckdb"


@pytest.fixture(params=DATABASES)
def place(request: pytest.FixtureRequest) -> Iterator[str]:
    with database(request.param, request) as place:
        yield place


# random changes over random runs

MOVES = (
    *("rename a user", "rename a class", "move", "enroll", "drop", "restamp", "rehire"),
    *("delete a user", "delete a class", "purge a user", "purge an enrollment", "bring back"),
)
NIGHTS = st.lists(
    st.fixed_dictionaries(
        {
            "moves": st.lists(
                st.tuples(st.sampled_from(MOVES), st.integers(0, 99), st.integers(0, 99)),
                min_size=1,
                max_size=5,
            ),
            "full": st.booleans(),
            "failing": st.sampled_from([None, None, None, *SOME]),
            "lag": st.sampled_from([0, 86_400]),
            "kept": st.sampled_from(["at once", "at once", "at once", "killed before", "not"]),
        }
    ),
    min_size=3,
    max_size=6,
)


def night(*moves: tuple[str, int, int], **how: Any) -> dict[str, Any]:
    return {"moves": moves, "full": False, "failing": None, "lag": 0, "kept": "at once", **how}


A_STORY = [
    night(("delete a class", 0, 1)),
    night(("rename a user", 1, 5), ("drop", 0, 3), ("purge an enrollment", 0, 6), ("enroll", 1, 2)),
    night(("move", 1, 2), ("delete a user", 0, 6), failing="users", kept="killed before"),
    night(("bring back", 0, 0), ("rename a class", 2, 0), ("purge a user", 0, 4), full=True),
    night(("bring back", 0, 1), ("rename a user", 2, 5), ("restamp", 0, 7), kept="not"),
    night(("bring back", 0, 0), ("rehire", 0, 4), ("rename a user", 3, 5), lag=86_400),
]
"""One of everything: the default suite has time for no more."""


class Killed(Exception):
    """Stands for the end of the process."""


def _be_killed(*args: object) -> set[str]:
    raise Killed


@dataclass
class Night:
    """What a warehouse could know after a run."""

    moment: datetime
    known: dict[tuple[str, str], dict[str, dict[str, Any]]]


@dataclass
class Story:
    """Schools that change between runs, and all that the runs could know of them."""

    server: Simulator
    schools: list[School]
    warehouse: Warehouse
    deleted: str = "keep"
    nights: list[Night] = field(default_factory=list)
    behind: bool = False
    """Whether the last run kept no versions."""
    begun: bool = False
    """Whether any has."""
    lost: list[tuple[School, str, dict[str, Any]]] = field(default_factory=list)
    added: int = 0

    def move(self, what: str, one: int, other: int) -> None:
        """Something happens in one of the schools."""
        school = self.schools[one % len(self.schools)]

        def some(collection: str, number: int) -> str:
            rows = school.rows(collection)
            return rows[number % len(rows)]["sourcedId"]

        def lose(collection: str, how: Callable[[str, str], None]) -> None:
            if len(school.rows(collection)) > 2:
                row = some(collection, other)
                self.lost.append((school, collection, school.get(collection, row)))
                how(collection, row)

        if what == "rename a user":
            school.change("users", some("users", other), familyName=f"Name {one}")
        elif what == "rename a class":
            school.change("classes", some("classes", other), title=f"Class {one}")
        elif what == "move":
            place = {"sourcedId": some("classes", one), "type": "class"}
            school.change("enrollments", some("enrollments", other), **{"class": place})
        elif what == "rehire":
            school.change(
                "enrollments", some("enrollments", other), role=("aide", "student")[one % 2]
            )
        elif what == "restamp":
            for collection in SOME:
                school.change(collection, some(collection, other))
        elif what == "enroll":
            self.added += 1
            user, of = some("users", one), some("classes", other)
            row = enrollment(f"new {self.added}", "student", user, of)
            del row["dateLastModified"]
            school.add("enrollments", row)
        elif what == "drop":
            lose("enrollments", school.delete)
        elif what == "delete a user":
            lose("users", school.delete)
        elif what == "delete a class":
            lose("classes", school.delete)
        elif what == "purge a user":
            lose("users", school.purge)
        elif what == "purge an enrollment":
            lose("enrollments", school.purge)
        elif self.lost:
            self._bring_back(*self.lost.pop(other % len(self.lost)))

    def _bring_back(self, school: School, collection: str, row: dict[str, Any]) -> None:
        row = {k: v for k, v in row.items() if k != "dateLastModified"}
        if any(r["sourcedId"] == row["sourcedId"] for r in school.rows(collection)):
            school.change(collection, row.pop("sourcedId"), **row)
        else:
            school.add(collection, row)

    def run(self, *, kept: str = "at once", **options: Any) -> Report:
        """A run, and what it could know: a delta does not see what was purged."""
        report, reach = Report(), settings(self.server, *self.schools)
        options = {**reach, "endpoints": SOME, "allow_deletes": True, **options}
        with pytest.MonkeyPatch.context() as patched:
            if kept == "killed before":
                patched.setattr(load_module, "keep_versions", _be_killed)
            with pytest.raises(Killed) if kept == "killed before" else nullcontext():
                self.warehouse.load(report, deleted=self.deleted, history=kept != "not", **options)
        assert not report.problems
        known = copy.deepcopy(self.nights[-1].known) if self.nights else {}
        for outcome in report.outcomes:
            if outcome.state == "read":
                (school,) = (s for s in self.schools if s.estab == outcome.estab)
                found = {row["sourcedId"]: row for row in school.rows(outcome.endpoint)}
                key = (outcome.estab, outcome.endpoint)
                known[key] = found if outcome.mode == "full" else known.get(key, {}) | found
        if self.behind and (kept == "not" or not self.begun):
            # of runs that keep no versions the next one makes up for the last, and for none before
            # there were any
            self.nights.pop()
        self.behind = kept != "at once"
        self.begun |= not self.behind
        self.nights.append(Night(datetime.now(UTC), known))
        return report

    def check(self) -> None:
        """Compares every answer of every night, whole, and the tables of versions."""
        with opened(self.warehouse.place) as ask:
            for night in self.nights:
                assert as_of(ask, night.moment) == roster(night.known)
                for table in SOME:
                    assert versions_as_of(ask, table, night.moment) == live(night.known, table)
            for table in SOME:
                self._check_versions(ask, table)

    def _check_versions(self, ask: Callable[[str], list[Row]], table: str) -> None:
        rows = ask(
            "SELECT estab, sourced_id, valid_from, valid_to"
            f" FROM oneroster.{table}_history ORDER BY 1, 2, 3"
        )
        for before, after in pairwise(rows):
            if before[:2] == after[:2]:
                # what is deleted has a version too, unless it is removed
                assert before[3] is not None and before[3] <= after[2]
                assert self.deleted == "remove" or before[3] == after[2]
        assert all(end is None or begin < end for *_, begin, end in rows)
        stamps = {"date_last_modified", "_deleted_at", "valid_from", "valid_to"}
        columns = ", ".join(
            f'CAST("{name}" AS VARCHAR)'
            for (name,) in ask(
                "SELECT column_name FROM information_schema.columns"
                f" WHERE table_schema = 'oneroster' AND table_name = '{table}_history'"
            )
            if name not in stamps
        )
        now = ask(f"SELECT {columns} FROM oneroster.{table}")
        still = ask(f"SELECT {columns} FROM oneroster.{table}_history WHERE valid_to IS NULL")
        assert sorted(map(str, now)) == sorted(map(str, still))


def roster(known: dict[tuple[str, str], dict[str, dict[str, Any]]]) -> set[Row]:
    """Who is in which class, worked out from the server's rows."""
    found = set()
    for estab in {estab for estab, _ in known}:
        classes, users, enrollments = (known.get((estab, name), {}) for name in SOME)
        for key, row in enrollments.items():
            user = users.get(row["user"]["sourcedId"])
            of = classes.get(row["class"]["sourcedId"])
            if user and of and all(r["status"] == "active" for r in (row, user, of)):
                who = (user["sourcedId"], user["givenName"], user["familyName"])
                found.add((estab, key, row["role"], *who, of["sourcedId"], of["title"]))
    return found


def as_of(ask: Callable[[str], list[Row]], moment: datetime) -> set[Row]:
    """The same, asked of the warehouse."""
    rows = ask(
        "SELECT estab, enrollment_sourced_id, role, user_sourced_id, given_name, family_name,"
        f" class_sourced_id, class_title FROM oneroster.enrollments_as_of WHERE {held_at(moment)}"
    )
    assert len(rows) == len(set(rows))
    return set(rows)


def held_at(moment: datetime) -> str:
    at = f"TIMESTAMPTZ '{moment.isoformat()}'"
    return f"valid_from <= {at} AND (valid_to IS NULL OR valid_to > {at})"


def live(known: dict[tuple[str, str], dict[str, dict[str, Any]]], table: str) -> set[Row]:
    tells = {"users": "familyName", "classes": "title", "enrollments": "role"}[table]
    return {
        (estab, key, row[tells])
        for (estab, name), rows in known.items()
        for key, row in rows.items()
        if name == table and row["status"] == "active"
    }


def versions_as_of(ask: Callable[[str], list[Row]], table: str, moment: datetime) -> set[Row]:
    tells = {"users": "family_name", "classes": "title", "enrollments": "role"}[table]
    rows = ask(
        f"SELECT estab, sourced_id, {tells} FROM oneroster.{table}_history"
        f" WHERE NOT _deleted AND {held_at(moment)}"
    )
    assert len(rows) == len(set(rows))
    return set(rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "examples"),
    [
        pytest.param("duckdb", 0, id="one of everything"),
        pytest.param("duckdb", 100, marks=pytest.mark.campaign),
        pytest.param("postgres", 30, marks=pytest.mark.campaign),
    ],
)
def test_every_answer_of_every_night_is_what_the_run_could_know(kind, examples, request) -> None:
    told = {"examples": 0, "runs": 0, "answers": 0, "modes": {}}

    # without shrinking, a failure takes no longer than the test
    @hypothesis_settings(
        max_examples=examples or 1,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate] if examples else [Phase.explicit],
        suppress_health_check=list(HealthCheck),
    )
    @given(NIGHTS, st.sampled_from(["keep", "keep", "remove"]))
    @example(A_STORY, "keep")
    def nights_go_by(nights: list[dict[str, Any]], deleted: str) -> None:
        school = small_school()
        with Simulator([school]) as server, database(kind, request) as place:
            story = Story(server, [school], Warehouse(place), deleted)
            for night in nights:
                for move in night["moves"]:
                    story.move(*move)
                school.forbidden = {night["failing"]}
                report = story.run(**{name: night[name] for name in ("full", "lag", "kept")})
                for outcome in report.outcomes:
                    what = outcome.mode if outcome.state == "read" else "failed"
                    told["modes"][what] = told["modes"].get(what, 0) + 1
            # tables are there, and versions of all that was loaded
            school.forbidden = set()
            story.run()
            story.check()
            told["examples"] += 1
            told["runs"] += len(story.nights)
            told["answers"] += sum(len(roster(night.known)) for night in story.nights)

    nights_go_by()
    print(f"{kind}: {told}")  # noqa: T201


@pytest.mark.slow
def test_a_fleet_keeps_its_versions_in_one_dataset(place: str) -> None:
    schools = [small_school(f"{n:02}") for n in range(20)]
    with Simulator(schools) as server:
        story = Story(server, schools, Warehouse(place))
        story.run()
        for one, what in enumerate((*MOVES, *MOVES)):
            story.move(what, one, 3 * one)
        schools[5].forbidden = {"users"}
        assert len(story.run().failed) == 1
        schools[5].forbidden = set()
        story.warehouse.forget(["07"])
        with opened(place) as ask:
            for table in SOME:
                assert ask(f"SELECT 1 FROM oneroster.{table}_history WHERE estab = '07'") == []
        for night in story.nights:
            night.known = {key: rows for key, rows in night.known.items() if key[0] != "07"}
        story.check()


def test_versions_begin_as_the_rows_are_and_a_new_stamp_makes_none(serve, pipeline) -> None:
    school = small_school()
    options = settings(serve(school), school) | {"endpoints": SOME}
    pipeline.run(oneroster(**options))
    with pipeline.destination_client() as client, pytest.raises(DestinationError, match="history"):
        keep(client)
    pipeline.run(oneroster(**options, history=True))
    at = datetime.now(UTC)
    with pipeline.destination_client() as client:
        counts = {f"{name}_history": len(school.rows(name)) for name in SOME}
        assert keep(client, at=at) == counts and keep(client) == {}
    with pipeline.sql_client() as sql:
        for table in SOME:
            rows = sql.execute_sql(f"SELECT * FROM {table} ORDER BY sourced_id")
            versions = sql.execute_sql(f"SELECT * FROM {table}_history ORDER BY sourced_id")
            assert versions == [(*row, at, None) for row in rows]
    for table in SOME:
        for row in school.rows(table):
            school.change(table, row["sourcedId"])
    school.change("users", "p1", familyName="Oak")
    pipeline.run(oneroster(**options, history=True))
    with pipeline.destination_client() as client:
        # a clock that goes back
        assert keep(client, at=at - timedelta(days=1)) == {"users_history": 1}
        query = "SELECT valid_from, valid_to FROM users_history WHERE sourced_id = 'p1' ORDER BY 1"
        later = at + timedelta(microseconds=1)
        assert client.sql_client.execute_sql(query) == [(at, later), (later, None)]


@pytest.mark.slow
def test_versions_that_are_wanted_later_or_were_dropped_begin_with_all_rows(
    serve, sync, warehouse
) -> None:
    school = small_school()
    server = serve(school)
    story = Story(server, [school], warehouse)
    # of orgs there are none
    assert sync(server, school, endpoints=["orgs"], history=True).good
    sync(server, school, endpoints=SOME)
    sync(server, school, endpoints=["users"], history=True)
    story.move("rename a user", 0, 1)
    assert {o.mode for o in story.run().outcomes} == {"delta"}
    story.check()
    story.nights.clear()
    with duckdb.connect(warehouse.name) as connection:
        connection.execute("DROP TABLE oneroster.enrollments_history")
    story.move("move", 0, 1)
    story.run(lag=0)
    story.check()


@pytest.mark.slow
def test_a_table_that_was_dropped_after_a_kill_ends_no_version(serve, warehouse) -> None:
    school = small_school()
    story = Story(serve(school), [school], warehouse)
    story.run()
    story.move("rename a user", 0, 1)
    story.run(kept="killed before")
    with duckdb.connect(warehouse.name) as connection:
        connection.execute("DROP TABLE oneroster.users")
    story.run()
    # what the killed run knew of them went with the table
    del story.nights[1]
    story.check()
    with opened(warehouse.name) as ask:
        ((known,),) = ask(
            "SELECT count(*) FROM (SELECT valid_from, count(*) OVER (PARTITION BY sourced_id) AS n"
            " FROM oneroster.users_history) AS versions WHERE n = 1"
        )
    assert known == len(school.rows("users")) - 1


OLDER = """
import dataclasses, json, sys
import oneroster_source.model as spec, oneroster_source.model.v1p1 as v1p1

users = v1p1.V1P1["users"]
older = dataclasses.replace(
    users, fields=tuple(field for field in users.fields if field.name != "middleName")
)
endpoints = tuple(older if e is users else e for e in v1p1.V1P1.endpoints)
v1p1.V1P1 = spec.V1P1 = dataclasses.replace(v1p1.V1P1, endpoints=endpoints)

from oneroster_source import Report, Warehouse
Warehouse(sys.argv[1]).load(Report(), **json.loads(sys.argv[2]))
"""
"""A load by a version that knew one attribute less."""


@pytest.mark.slow
def test_a_column_that_is_new_gets_into_the_versions_too(serve, warehouse) -> None:
    school = small_school()
    school.change("users", "p1", middleName="Quill")
    story = Story(serve(school), [school], warehouse)
    chosen = settings(story.server, school) | {"endpoints": SOME, "history": True}
    command = [sys.executable, "-c", OLDER, warehouse.name, json.dumps(chosen)]
    subprocess.run(command, check=True, timeout=PATIENCE, capture_output=True)
    story.run()
    story.check()
    with opened(warehouse.name) as ask:
        query = "SELECT middle_name FROM oneroster.users_history WHERE sourced_id = 'p1' ORDER BY "
        assert ask(query + "valid_from") == [(None,), ("Quill",)]


def test_history_that_stands_still_is_told(serve, sync, caplog) -> None:
    school = small_school()
    server = serve(school)
    with caplog.at_level(logging.WARNING, "oneroster_source"):
        sync(server, school, endpoints=["users"], history=True)
        assert "history" not in caplog.text
        sync(server, school, endpoints=["users"])
    assert "of this load no versions are kept" in caplog.text


@pytest.mark.slow
def test_files_keep_no_versions(serve, school, tmp_path) -> None:
    pytest.importorskip("deltalake", reason="Delta tables need oneroster-source[delta]")
    from oneroster_source.destination.backends.delta import Delta

    server = serve(school)
    place = Delta(str(tmp_path / "lake"))
    pipeline = dlt.pipeline("anybody", destination=place, pipelines_dir=str(tmp_path / "work"))
    with pytest.raises(Exception) as caught:
        pipeline.run(oneroster(**settings(server, school), history=True))
    (error,) = (e for e in chain(caught.value) if isinstance(e, ConfigurationError))
    assert "keeps no versions" in str(error) and server.requests == []
