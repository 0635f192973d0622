"""One suite for every kind of destination: whole tables against the server's own truth.

A short part runs by default, for DuckDB; DuckDB and Postgres have suites of their own in the other
files. The rest takes packages that this project does not need, and runs by the commands in
docs/evidence/campaigns.md.
"""

from __future__ import annotations

import json
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dlt
import duckdb
import pytest
import sqlglot
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from support.changes import change, purge
from support.program import PATIENCE, spawn
from support.settings import settings
from support.truth import Truth, differences, held

from oneroster_source import ConfigurationError, Report, Warehouse, oneroster
from oneroster_source.destination.backends.duckdb_file import catalog
from oneroster_source.destination.hints import REJECTED_MERGE, child_merge, row_merge
from oneroster_source.errors import chain
from oneroster_source.model import V1P1
from oneroster_source.reporting.quality import CHECKS
from oneroster_source.reporting.views import VIEWS
from oneroster_source.simulator import Fault, School, Simulator, secondary_school

SOME = ("users", "classes", "enrollments")


def _duckdb(folder: Path, environment: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    yield "roster.duckdb", "roster.duckdb"


def _delta(folder: Path, environment: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    pytest.importorskip("deltalake", reason="Delta tables need oneroster-source[delta]")
    environment.setenv("DESTINATION__FILESYSTEM__BUCKET_URL", str(folder / "the lake"))
    yield "filesystem", str(folder / "the lake")


def _delta_on_s3(folder: Path, environment: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    pytest.importorskip("deltalake", reason="Delta tables need oneroster-source[delta]")
    s3fs = pytest.importorskip("s3fs", reason="S3 needs dlt[s3]")
    pytest.importorskip("moto.server", reason="S3 is tested against moto[server]")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = {
        "AWS_ACCESS_KEY_ID": "loader",
        "AWS_SECRET_ACCESS_KEY": "hunter2",
        "REGION_NAME": "eu-west-2",
        "ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }
    for name, value in told.items():
        environment.setenv(f"DESTINATION__FILESYSTEM__CREDENTIALS__{name}", value)
        # what the truth reads by, which knows nothing of dlt
        environment.setenv(name if name.startswith("AWS_") else f"AWS_{name}", value)
    environment.setenv("AWS_REGION", told["REGION_NAME"])
    environment.setenv("AWS_ALLOW_HTTP", "true")
    bucket = f"s3://rosters-{port}"
    environment.setenv("DESTINATION__FILESYSTEM__BUCKET_URL", f"{bucket}/lake")
    # a process of its own: deltalake lets no other thread run while it waits for an answer
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (folder / "moto.log").open("wb") as log:
        server = spawn(command, stdout=log, stderr=log)
    try:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < end, "moto does not start"
                time.sleep(0.1)
        s3fs.S3FileSystem(endpoint_url=told["ENDPOINT_URL"]).mkdir(bucket)
        yield "filesystem", f"{bucket}/lake"
    finally:
        server.kill()
        server.wait(timeout=PATIENCE)


def _ducklake(folder: Path, environment: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    # DuckDB keeps its extensions there: those that are found are left out of the user's own
    environment.setenv("HOME", str(folder))
    packaged = (Path(place, "duckdb_extension_ducklake/extensions") for place in sys.path)
    found = next((f for p in packaged for f in p.glob(f"v{duckdb.__version__}/*")), "ducklake")
    try:
        duckdb.connect().execute(f"INSTALL '{found}'; LOAD ducklake")
    except duckdb.Error as error:
        pytest.skip(f"DuckDB's extension ducklake cannot be had: {str(error)[:150]}")
    lake = "DESTINATION__DUCKLAKE__CREDENTIALS"
    environment.setenv(f"{lake}__CATALOG", f"duckdb:///{folder}/catalog.duckdb")
    environment.setenv(f"{lake}__STORAGE__BUCKET_URL", str(folder / "lake"))
    environment.setenv(f"{lake}__METADATA_SCHEMA", "main")
    yield "ducklake", f"ducklake:duckdb:{folder}/catalog.duckdb"


PLACES: dict[str, Callable[[Path, pytest.MonkeyPatch], Iterator[tuple[str, str]]]] = {
    "duckdb": _duckdb,
    "delta": _delta,
    "delta on s3": _delta_on_s3,
    "ducklake": _ducklake,
}


@pytest.fixture(
    params=[
        pytest.param(name, marks=() if name == "duckdb" else pytest.mark.campaign)
        for name in PLACES
    ]
)
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, str]]:
    """What `--destination` takes, and where the truth finds the same tables."""
    yield from PLACES[request.param](tmp_path, monkeypatch)


@pytest.fixture
def warehouse(place: tuple[str, str]) -> Warehouse:
    return Warehouse(place[0])


@pytest.fixture
def sync(sync: Callable[..., Report]) -> Callable[..., Report]:
    """Loads some endpoints, unless told otherwise: a load of all takes longer than it shows."""
    return lambda *which, **options: sync(*which, **{"endpoints": SOME, **options})


@pytest.fixture
def wrong(place: tuple[str, str]) -> Callable[..., dict[str, object]]:
    """How the tables differ from what a server holds."""

    def wrong(server: Simulator, *schools: School, **options: Any) -> dict[str, object]:
        ghosts = options.pop("ghosts", {})
        truth = Truth(server.base_url, schools, **{"endpoints": SOME, **options})
        for estab, rows in ghosts.items():
            truth.with_ghosts(estab, rows)
        return dict(differences(place[1], truth))

    return wrong


def test_a_first_load_a_delta_and_lists_that_shrink_and_empty(
    serve, sync, school, wrong, warehouse
) -> None:
    server = serve(school)
    assert sync(server, school, page_size=100).good
    assert wrong(server, school) == {}
    change(school)
    assert {"users", "users__grades", "classes__terms"} <= wrong(server, school).keys()
    report = sync(server, school)
    assert report.good and {o.mode for o in report.outcomes} == {"delta"}
    assert wrong(server, school) == {}
    rows = warehouse.status().rows
    assert rows["users"] == {school.estab: len(school.rows("users"))}


@pytest.mark.campaign
@pytest.mark.parametrize("how", ["keep", "remove"])
def test_what_is_deleted_or_gone_goes_and_comes_back(serve, sync, wrong, how) -> None:
    schools = [secondary_school(7, estab, pupils=10) for estab in ("1", "2")]
    server, keep = serve(*schools), how == "keep"
    sync(server, *schools, deleted=how)
    assert wrong(server, *schools, keep=keep) == {}
    victims = [u["sourcedId"] for u in schools[0].rows("users") if u["status"] == "active"][:5]
    for victim in victims:
        schools[0].delete("users", victim)
    assert sync(server, *schools, deleted=how).good
    assert wrong(server, *schools, keep=keep) == {}
    schools[0].change("users", victims[0], status="active")
    ghosts = {name: purge(schools[1], name, 3) for name in SOME}
    report = sync(server, *schools, deleted=how, full=True)
    gone = {(o.estab, o.endpoint): o.gone for o in report.outcomes if o.gone}
    assert report.good and gone == {("2", endpoint): 3 for endpoint in SOME}
    assert wrong(server, *schools, keep=keep, ghosts={"2": ghosts} if keep else {}) == {}
    for row in ghosts["users"]:
        schools[1].add("users", {k: v for k, v in row.items() if k != "dateLastModified"})
    ghosts["users"] = []
    assert sync(server, *schools, deleted=how).good
    assert wrong(server, *schools, keep=keep, ghosts={"2": ghosts} if keep else {}) == {}


@pytest.mark.campaign
def test_the_guards_delete_nothing_and_one_school_that_fails_stops_no_other(
    serve, sync, wrong, warehouse, place
) -> None:
    schools = [secondary_school(seed, str(seed), pupils=10) for seed in (1, 2, 3)]
    server = serve(*schools)
    schools[1].forbidden.add("users")
    assert [(o.estab, o.endpoint) for o in sync(server, *schools).failed] == [("2", "users")]
    assert set(warehouse.status().cursors["users"]) == {"1", "3"}
    schools[1].forbidden.clear()
    assert sync(server, *schools).good
    assert wrong(server, *schools) == {}
    before = Truth(server.base_url, schools, endpoints=SOME)
    purge(schools[0], "enrollments", 9999)
    purge(schools[1], "enrollments", len(schools[1].rows("enrollments")) // 2)
    report = sync(server, *schools, full=True)
    waits = {o.estab: o.error for o in report.held if o.endpoint == "enrollments"}
    assert set(waits) == {"1", "2"} and len(report.held) == 2 and not report.failed
    assert "max_delete_share" in waits["2"]
    assert wrong(server, *schools).keys() >= {"enrollments"}
    truth = Truth(server.base_url, schools, endpoints=SOME)
    truth.tables |= {t: r for t, r in before.tables.items() if t.startswith("enrollments")}
    assert differences(place[1], truth) == {}


@pytest.mark.campaign
def test_rejected_values_come_once_and_go_when_they_are_mended(serve, sync, school, place) -> None:
    server = serve(school)
    one = school.rows("enrollments")[0]["sourcedId"]
    school.change("enrollments", one, beginDate="soon")
    rows = sorted(school.rows("enrollments"), key=lambda row: str(row["sourcedId"]))
    nameless = {"enrollments": [{"sourcedId": "", "role": "student"}, *rows]}
    for _ in range(2):
        school.faults.append(Fault("enrollments", status=200, body=json.dumps(nameless).encode()))
        assert sync(server, school, endpoints=["enrollments"], full=True).good
        rejected = held(place[1], "rejected_rows")
        assert sorted(row[2] or "" for row in rejected) == ["", one]
    school.change("enrollments", one, beginDate="2026-09-01")
    assert sync(server, school, endpoints=["enrollments"]).good
    assert [row[2] for row in held(place[1], "rejected_rows")] == [None]
    assert sync(server, school, endpoints=["enrollments"], full=True).good
    assert held(place[1], "rejected_rows") == []


def refused(pipeline: dlt.Pipeline, server: Simulator, school: School, **how: Any) -> str:
    """Why a run is refused: as a setting that is wrong, and before anything was asked."""
    with pytest.raises(Exception) as caught:
        pipeline.run(oneroster(**settings(server, school), endpoints=["users"]), **how)
    (error,) = (e for e in chain(caught.value) if isinstance(e, ConfigurationError))
    assert server.requests == []
    return str(error)


@pytest.mark.slow
@pytest.mark.parametrize("table_format", [None, "native", "delta", "iceberg"])
def test_files_of_which_dlt_would_make_no_merge_are_refused(
    serve, school, tmp_path, table_format
) -> None:
    pipeline = dlt.pipeline(
        "anybody",
        destination=dlt.destinations.filesystem(str(tmp_path / "lake")),
        pipelines_dir=str(tmp_path / "work"),
    )
    why = refused(pipeline, serve(school), school, table_format=table_format)
    assert "'filesystem' cannot replace and delete rows" in why
    assert "oneroster_source.Delta" in why
    assert not any((tmp_path / "lake").rglob("users*"))


def test_a_destination_that_only_adds_is_refused(serve, school, tmp_path) -> None:
    @dlt.destination
    def sink(items: Any, table: Any) -> None:
        raise AssertionError("nothing is to come here")

    pipeline = dlt.pipeline("anybody", destination=sink, pipelines_dir=str(tmp_path / "work"))
    assert "'sink' cannot replace" in refused(pipeline, serve(school), school)


@pytest.mark.skipif(find_spec("deltalake") is not None, reason="deltalake is installed")
def test_files_without_deltalake_are_refused_before_anything_is_asked(
    serve, school, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("DESTINATION__FILESYSTEM__BUCKET_URL", str(tmp_path / "lake"))
    server = serve(school)
    with pytest.raises(ConfigurationError, match=r"install oneroster-source\[delta\]"):
        Warehouse("filesystem").load(Report(), **settings(server, school))
    assert server.requests == []


NAMES = (
    # file, dataset, and what is to be named differently
    ("oneroster.duckdb", "oneroster", "same name"),
    ("ONEROSTER.duckdb", "oneroster", "same name"),
    ("oneroster.v2.duckdb", "oneroster", "same name"),
    ("roster.duckdb", "Roster", "same name"),
    # dlt makes this my_data
    ("my_data.duckdb", "My Data", "same name"),
    ("main.duckdb", "main_db", "same name"),
    ("oneroster_oneroster_source_staging.duckdb", "oneroster", "same name"),
    ("Temp.duckdb", "oneroster", "keeps for itself"),
    ("roster.duckdb", "system", "keeps for itself"),
    ("roster.duckdb", "information_schema", "keeps for itself"),
)


@pytest.mark.sample(4)
@pytest.mark.parametrize("configured", [False, True])
@pytest.mark.parametrize(("file", "dataset", "why"), NAMES)
def test_names_that_duckdb_cannot_tell_apart_are_refused_before_anything_is_read(
    serve, school, tmp_path, monkeypatch, file, dataset, why, configured
) -> None:
    server = serve(school)
    place = file
    if configured:
        # what dlt alone can tell
        monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", f"duckdb:///{tmp_path / file}")
        place = "duckdb"
    with pytest.raises(ConfigurationError, match=why) as caught:
        Warehouse(place, dataset).load(Report(), **settings(server, school))
    assert "name the" in str(caught.value)
    assert file in str(caught.value) or repr(dataset) in str(caught.value)
    assert server.requests == [] and list(tmp_path.glob("*.duckdb")) == []
    for command in ("check_quality", "make_views", "status"):
        # a file that somebody else has made
        duckdb.connect(str(tmp_path / file)).close()
        with pytest.raises(ConfigurationError, match=why):
            getattr(Warehouse(place, dataset), command)()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "dataset"),
    [
        ("main.duckdb", "oneroster"),
        ("temp.duckdb", "oneroster"),
        ("memory.duckdb", "main"),
        (".roster.duckdb", "oneroster"),
        ("oneroster_rewritten.duckdb", "oneroster"),
        ("one roster.v2.duckdb", "oneroster_rewritten"),
    ],
)
def test_names_that_duckdb_can_tell_apart_work(serve, school, file, dataset) -> None:
    server, warehouse = serve(school), Warehouse(file, dataset)
    some = {**settings(server, school), "endpoints": ["users"]}
    for full in (False, True):
        warehouse.load(report := Report(), **some, full=full)
        assert report.good
    assert warehouse.make_views()
    warehouse.check_quality()
    assert warehouse.status().rows["users"] == {school.estab: len(school.rows("users"))}
    assert "compacted" in warehouse.forget([school.estab]).bytes


@given(
    st.from_regex(r"[A-Za-z._ -]{1,12}", fullmatch=True)
    | st.sampled_from(
        ["main", "temp", "system", "Main", "TEMP", "memory", "system.a", "a.b", ".a", "..a.b"]
    )
)
@settings_of_hypothesis(max_examples=60, deadline=None)
def test_a_file_is_called_what_duckdb_calls_it(name) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/{name}.duckdb"
        with duckdb.connect(path) as connection:
            ((found,),) = connection.execute("SELECT current_database()").fetchall()
    assert catalog(path) == found


DIALECTS = ("snowflake", "bigquery", "databricks", "redshift", "clickhouse", "athena", "mssql")
"""Destinations that are not here to be tested: at least, their SQL is SQL."""
TOO_MUCH = {"mssql": {"user_schools"}}
"""Views that a destination has no words for."""


@pytest.mark.parametrize("name", DIALECTS)
def test_what_we_write_can_be_read_by_other_databases(name) -> None:
    dialect = getattr(dlt.destinations, name)().capabilities().sqlglot_dialect
    merges = [row_merge(keep_deleted=False), REJECTED_MERGE]
    merges += [child_merge(child) for e in V1P1.endpoints for child in e.child_tables()]
    for merge in merges:
        scope = merge["destination_scope"].format(staging_table="staging", table="a.b")
        deletion = sqlglot.parse_one(f"DELETE FROM a.b WHERE {scope}", read=dialect)
        # to BigQuery, a column with its table's full name is a column that is not there
        assert {c.table for c in deletion.find_all(sqlglot.exp.Column)} <= {"", "s"}
        filtered = f"SELECT 1 FROM a WHERE {merge['source_filter']}"
        assert "FALSE" not in sqlglot.transpile(filtered, read=dialect, write=dialect)[0]
    refused = set()
    for query in (*VIEWS, *CHECKS):
        (written,) = sqlglot.transpile(query.sql, read="duckdb", write=dialect)
        try:
            sqlglot.parse_one(written, read=dialect)
        except sqlglot.ParseError:
            refused.add(query.name)
    assert refused == TOO_MUCH.get(name, set())
