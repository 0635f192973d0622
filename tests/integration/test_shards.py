"""A fleet in shards that are loaded side by side, and schools that are forgotten."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import date, timedelta
from io import StringIO
from multiprocessing import get_context

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from support import later
from support.postgres import query
from support.program import PATIENCE
from support.settings import settings
from support.truth import STAGING, Truth, differences, held

from oneroster_source import Report
from oneroster_source.cli.render import summary
from oneroster_source.destination.backends import backend_of
from oneroster_source.destination.session import Target
from oneroster_source.destination.shards import Shard, balance
from oneroster_source.errors import ConfigurationError, DestinationBusy, DestinationError
from oneroster_source.simulator import School, live, secondary_school
from oneroster_source.warehouse import Warehouse

SOME = ("users", "enrollments")
FIRST_DAY = date(2026, 9, 1)


def load(place: str, shard: Shard, options: dict[str, object]) -> Report:
    """Loads a shard, in a process of its own."""
    report = Report()
    Warehouse(place).load(report, shard=shard, **options)
    return report


@pytest.fixture
def schools() -> list[School]:
    return [secondary_school(n, f"0{n}", pupils=3 * n) for n in range(1, 6)]


@given(st.dictionaries(st.text(max_size=4), st.integers(0, 10**6), max_size=40), st.integers(1, 9))
def test_every_school_is_in_one_shard_and_none_is_much_heavier(weights, count) -> None:
    parts = balance(weights, count)
    assert sorted(estab for part in parts for estab in part) == sorted(weights)
    assert len(parts) == min(count, len(weights)) and all(parts)
    loads = [sum(weights[estab] + 1 for estab in part) for part in parts]
    if parts:
        least = max(sum(loads) / count, max(weights.values()) + 1)
        # the whole is an easier mark than the best division, of which 4/3 would hold
        assert max(loads) <= least + max(weights.values()) + 1
        assert max(loads) - min(loads) <= max(weights.values()) + 1


@pytest.fixture
def others() -> Iterator[ProcessPoolExecutor]:
    """Two processes, as dlt runs one pipeline at a time in one."""
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        yield pool


@pytest.mark.slow
def test_shards_side_by_side_are_one_run(serve, schools, postgres, others) -> None:
    server = serve(*schools)
    options = {**settings(server, *schools), "endpoints": SOME, "history": True}
    warehouse = Warehouse(postgres)

    def run() -> Report:
        with warehouse.divided():
            shards = warehouse.divide(2, **options)
            whole = Report()
            parts = [others.submit(load, postgres, shard, options) for shard in shards]
            for part in parts:
                whole.outcomes += part.result(PATIENCE).outcomes
            warehouse.finish(shards, whole, history=True)
        assert whole.good, whole.problems
        return whole

    first = run()
    truth = Truth(server.base_url, schools, endpoints=SOME)
    assert differences(postgres, truth) == {}
    assert {o.mode for o in first.outcomes} == {"full"}
    runs = query(
        postgres, "SELECT run_id, count(*) FROM oneroster.sync_run_details GROUP BY run_id"
    )
    assert runs == [(first.run_id, len(schools) * len(SOME))]
    victim = schools[0].rows("users")[0]["sourcedId"]
    schools[0].change("users", victim, grades=None, familyName="Oak")
    # the division differs, since the rows of each school are known now
    second = run()
    assert differences(postgres, Truth(server.base_url, schools, endpoints=SOME)) == {}
    assert {o.mode for o in second.outcomes} == {"delta"}
    assert sum(o.changed for o in second.outcomes) == 1
    versions = query(
        postgres, "SELECT sourced_id FROM oneroster.users_history WHERE valid_to IS NULL"
    )
    assert len(versions) == sum(len(school.rows("users")) for school in schools)
    ended = "SELECT sourced_id FROM oneroster.users_history WHERE valid_to IS NOT NULL"
    assert query(postgres, ended) == [(victim,)]
    # and a run of the whole goes on from there
    report = Report()
    warehouse.load(report, **options)
    assert {(o.mode, o.changed) for o in report.outcomes} == {("delta", 0)}


@pytest.mark.slow
def test_a_shard_that_was_not_finished_loses_nothing(serve, schools, postgres) -> None:
    server = serve(*schools)
    options = {**settings(server, *schools), "endpoints": SOME}
    warehouse = Warehouse(postgres)
    shards = warehouse.divide(2, **options)
    assert load(postgres, shards[0], options).good
    # the other died, and whoever waited for it finishes
    whole = Report()
    for estab in shards[1].estabs:
        outcome = whole.outcome(estab, "users")
        outcome.begin()
        outcome.end(DestinationError("the worker died"))
    query(postgres, f"CREATE SCHEMA {STAGING}_shard_007")
    query(postgres, f"CREATE SCHEMA {STAGING}_of_somebody")
    warehouse.finish(shards, whole, whole.outcomes)
    left = query(postgres, "SELECT nspname FROM pg_namespace WHERE nspname LIKE '%staging%'")
    assert left == [(f"{STAGING}_of_somebody",)]
    lost = "SELECT estab, reason FROM oneroster.sync_run_details WHERE outcome = 'failed'"
    assert query(postgres, f"{lost} ORDER BY estab") == [
        (estab, "the worker died") for estab in sorted(shards[1].estabs)
    ]
    failing = {s.estab for s in warehouse.status().schools() if s.state == "failing"}
    assert failing == set(shards[1].estabs)
    report = Report()
    warehouse.load(report, **options)
    assert {o.estab for o in report.outcomes if o.mode == "delta"} == set(shards[0].estabs)
    assert {o.estab for o in report.outcomes if o.mode == "full"} == set(shards[1].estabs)
    assert differences(postgres, Truth(server.base_url, schools, endpoints=SOME)) == {}


@pytest.mark.slow
def test_shards_of_an_older_division_are_not_loaded_and_leave_no_cursor(
    serve, schools, postgres
) -> None:
    server = serve(*schools)
    options = {**settings(server, *schools), "endpoints": ["users"]}
    warehouse = Warehouse(postgres)
    shards = warehouse.divide(2, **options)
    # all that a shard writes to is there
    stored = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'oneroster'"
    before = query(postgres, stored)
    assert load(postgres, shards[0], options).good
    assert query(postgres, stored) == before
    with pytest.raises(ConfigurationError, match="privacy are not the same here"):
        warehouse.load(Report(), shard=shards[1], **{**options, "privacy": "no-contact"})
    warehouse.forget([shards[0].estabs[0]])
    for late in (
        lambda: warehouse.load(Report(), shard=shards[1], **options),
        lambda: warehouse.finish(shards),
    ):
        with pytest.raises(DestinationError, match="another run has loaded, divided or forgotten"):
            late()
    warehouse.load(report := Report(), **options)
    assert {o.mode for o in report.outcomes} == {"full"}
    assert differences(postgres, Truth(server.base_url, schools, endpoints=("users",))) == {}


@pytest.mark.slow
def test_the_heaviest_schools_are_spread(serve, schools, postgres) -> None:
    server = serve(*schools)
    options = {**settings(server, *schools), "endpoints": ["enrollments"]}
    warehouse = Warehouse(postgres)
    warehouse.load(Report(), **options)
    first, second = warehouse.divide(2, **options)
    assert {"05", "04"} - set(first.estabs) and {"05", "04"} - set(second.estabs)
    assert warehouse.divide(9, only=["02"], **options)[0].estabs == ("02",)


@pytest.mark.slow
def test_a_shard_and_a_run_of_the_whole_exclude_each_other(serve, schools, postgres) -> None:
    server = serve(*schools)
    options = {**settings(server, *schools), "endpoints": ["users"], "lock_timeout": 1}
    warehouse = Warehouse(postgres)
    shards = warehouse.divide(2, **options)
    other = Warehouse(postgres)
    with (
        Target(postgres, "oneroster").pipeline(shards[0]) as pipeline,
        backend_of(pipeline.destination_client()).exclusive("it", 1, shards[0].name),
        ThreadPoolExecutor(1) as thread,
    ):
        # a lock file lets the thread in again that has it
        for what in (
            lambda: other.load(Report(), **options),
            lambda: other.load(Report(), shard=shards[0], **options),
            lambda: other.finish(shards),
        ):
            with pytest.raises(DestinationBusy):
                thread.submit(what).result(PATIENCE)
        thread.submit(other.load, Report(), shard=shards[1], **options).result(PATIENCE)
    other.finish(shards)
    with warehouse.divided(), ThreadPoolExecutor(1) as thread, pytest.raises(DestinationBusy):
        thread.submit(other.divided().__enter__).result(PATIENCE)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["duckdb", "postgres"])
def test_a_school_that_is_forgotten_leaves_nothing(serve, schools, request, tmp_path, kind) -> None:
    place = (
        str(tmp_path / "roster.duckdb") if kind == "duckdb" else request.getfixturevalue("postgres")
    )
    server = serve(*schools)
    options = {**settings(server, *schools), "endpoints": SOME}
    warehouse = Warehouse(place)
    warehouse.load(Report(), **options)
    gone, kept = schools[1], [s for s in schools if s is not schools[1]]
    counts = warehouse.count([gone.estab])
    assert counts["users"] == len(gone.rows("users"))
    assert warehouse.forget([gone.estab]).rows == counts
    assert warehouse.count([gone.estab]) == {}
    assert differences(place, Truth(server.base_url, kept, endpoints=SOME)) == {}
    assert gone.estab not in warehouse.status().estabs
    report = Report()
    warehouse.load(report, **options)
    assert {o.estab for o in report.outcomes if o.mode == "full"} == {gone.estab}
    assert differences(place, Truth(server.base_url, schools, endpoints=SOME)) == {}
    assert held(place, "users")


def test_nothing_is_forgotten_where_nothing_was_loaded(warehouse) -> None:
    with pytest.raises(DestinationError, match="holds no dataset"):
        warehouse.forget(["1"])


def test_many_schools_are_summed_up_and_failures_are_told_apart(school) -> None:
    report = Report()
    for n in range(40):
        outcome = report.outcome(str(n), "users")
        outcome.rows = 1000
        outcome.end(DestinationError("down") if n < 2 else None)
    console = Console(width=120, record=True, file=StringIO())
    console.print(summary(report))
    lines = [line.split() for line in console.export_text().splitlines()]
    assert ["2", "schools", "users", "FAILED", "0", "2,000"] in [line[:6] for line in lines]
    assert ["38", "schools", "users", "full", "0", "38,000"] in [line[:6] for line in lines]
    assert len(lines) < 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("duckdb", 4),
        *(later(kind, count) for kind in ("duckdb", "postgres") for count in (10, 100, 500)),
    ],
)
def test_a_night_of_many_schools(serve, count, kind, request, tmp_path) -> None:
    """All are loaded, then what a month changes in some; one is broken on the first night."""
    place = (
        str(tmp_path / "roster.duckdb") if kind == "duckdb" else request.getfixturevalue("postgres")
    )
    schools = [secondary_school(n, f"{n:04}", pupils=60) for n in range(1, count + 1)]
    server = serve(*schools)
    schools[3].forbidden |= {"users", "orgs"}
    warehouse = Warehouse(place)

    def run(what: str) -> Report:
        report, begun = Report(), time.monotonic()
        warehouse.load(report, **settings(server, *schools))
        seconds, rows = time.monotonic() - begun, sum(o.rows for o in report.outcomes)
        print(f"{kind}, {count} schools, {what}: {rows:,} rows in {seconds:.1f} s")  # noqa: T201
        assert not report.problems
        return report

    assert {(o.estab, o.endpoint) for o in run("first load").failed} == {
        (schools[3].estab, "users"),
        (schools[3].estab, "orgs"),
    }
    schools[3].forbidden.clear()
    for school in schools[::10]:
        live(school, FIRST_DAY, FIRST_DAY + timedelta(weeks=4))
    assert run("a month later").good
    assert differences(place, Truth(server.base_url, schools)) == {}
    report = run("unchanged")
    assert {(o.mode, o.changed) for o in report.outcomes} == {("delta", 0)}
