"""Datasets in which rows wait to be merged: they have names of their own, and nobody else's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from support.changes import change, purge
from support.postgres import query
from support.settings import settings
from support.truth import Row, Truth, differences, opened

from oneroster_source import ConfigurationError, Report, Warehouse
from oneroster_source.simulator import School, Simulator, secondary_school

SOME = ("users", "enrollments")
KEY = "correct horse battery staple, again"
LAYOUT = "STAGING_DATASET_NAME_LAYOUT"
OLD = "%s_staging"


@pytest.fixture(params=["duckdb", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of either kind."""
    if request.param == "duckdb":
        return str(tmp_path / "shared.duckdb")
    found: str = request.getfixturevalue("postgres")
    return found


def load(
    place: str, dataset: str, server: Simulator, *schools: School, **options: object
) -> Report:
    report = Report()
    found = {**settings(server, *schools), "endpoints": SOME, **options}
    Warehouse(place, dataset).load(report, **found)
    assert report.good, report.problems
    return report


def datasets(place: str) -> set[str]:
    with opened(place) as ask:
        return {name for (name,) in ask("SELECT schema_name FROM information_schema.schemata")}


def dump(place: str, dataset: str) -> dict[str, list[Row]]:
    """All rows of all tables of a dataset, dlt's own too."""
    tables = (
        "SELECT table_name FROM information_schema.tables WHERE table_type = 'BASE TABLE'"
        f" AND table_schema = '{dataset}'"
    )
    with opened(place) as ask:
        return {
            table: sorted(ask(f"SELECT * FROM {dataset}.{table}"), key=repr)
            for (table,) in ask(tables)
        }


def write(place: str, text: str) -> None:
    if "://" in place:
        query(place, text)
    else:
        with duckdb.connect(place) as connection:
            connection.execute(text)


@pytest.mark.slow
def test_a_dataset_may_have_the_name_of_anothers_staging(serve, place) -> None:
    names = ("oneroster", "oneroster_staging")
    schools = {
        name: secondary_school(seed, "1", pupils=8) for seed, name in enumerate(names, start=1)
    }
    servers = {name: serve(school) for name, school in schools.items()}

    def wrong(name: str, *, keep: bool) -> object:
        truth = Truth(servers[name].base_url, [schools[name]], keep=keep, endpoints=SOME)
        return differences(place, truth, dataset=name)

    def delta(name: str) -> None:
        change(schools[name])
        load(place, name, servers[name], schools[name])

    def full(name: str) -> None:
        purge(schools[name], "enrollments", 2)
        load(place, name, servers[name], schools[name], full=True, deleted="remove")

    def erase(name: str) -> None:
        user = schools[name].rows("users")[-1]["sourcedId"]
        assert Warehouse(place, name).erase("1", user, privacy_key=KEY).rows

    def prune(name: str) -> None:
        user = schools[name].rows("users")[-2]["sourcedId"]
        schools[name].delete("users", user)
        load(place, name, servers[name], schools[name], privacy_key=KEY)
        Warehouse(place, name).prune(datetime.now(UTC) + timedelta(days=1))

    def forget(name: str) -> None:
        assert Warehouse(place, name).forget(["1"]).rows

    for name in names:
        load(place, name, servers[name], schools[name])
    for act in (delta, full, erase, prune, forget):
        for name in names:
            (other,) = set(names) - {name}
            before = dump(place, other)
            act(name)
            assert dump(place, other) == before, f"{act.__name__} of {name}"
            if act in (delta, full):
                assert wrong(name, keep=act is delta) == {}, f"{act.__name__} of {name}"


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_what_an_earlier_version_has_staged_is_dropped(
    serve, school, place, monkeypatch, killed
) -> None:
    server = serve(school)
    kind = "POSTGRES" if "://" in place else "DUCKDB"
    monkeypatch.setenv(f"DESTINATION__{kind}__{LAYOUT}", OLD)
    load(place, "oneroster", server, school)
    load(place, "oneroster", server, school, full=True)
    assert "oneroster_staging" in datasets(place)
    monkeypatch.delenv(f"DESTINATION__{kind}__{LAYOUT}")
    if killed:
        write(place, "INSERT INTO oneroster_staging.users SELECT * FROM oneroster.users")
    change(school)
    load(place, "oneroster", server, school)
    assert "oneroster_staging" not in datasets(place)
    truth = Truth(server.base_url, [school], endpoints=SOME)
    assert differences(place, truth) == {}


@pytest.mark.sample(1)
def test_a_dataset_that_looks_like_staging_by_its_name_alone_is_left_alone(
    serve, school, place
) -> None:
    server = serve(school)
    load(place, "oneroster", server, school)
    write(
        place,
        "CREATE SCHEMA oneroster_staging;"
        " CREATE TABLE oneroster_staging.users AS SELECT * FROM oneroster.users;"
        " CREATE SCHEMA oneroster_staging_shard_003;"
        " CREATE TABLE oneroster_staging_shard_003.notes AS SELECT 1 AS a",
    )
    before = [dump(place, f"oneroster_staging{part}") for part in ("", "_shard_003")]
    load(place, "oneroster", server, school, full=True)
    user = school.rows("users")[-1]["sourcedId"]
    Warehouse(place).erase(school.estab, user, privacy_key=KEY)
    Warehouse(place).forget([school.estab])
    after = [dump(place, f"oneroster_staging{part}") for part in ("", "_shard_003")]
    assert after == before


@pytest.mark.sample(1)
def test_rows_are_not_staged_where_something_was_loaded(serve, school, place, monkeypatch) -> None:
    server = serve(school)
    load(place, "oneroster_staging", server, school)
    before = dump(place, "oneroster_staging")
    monkeypatch.setenv(f"DESTINATION__{LAYOUT}", OLD)
    requests = len(server.requests)
    with pytest.raises(ConfigurationError, match="'oneroster_staging', and something was loaded"):
        load(place, "oneroster", server, school)
    assert len(server.requests) == requests
    assert dump(place, "oneroster_staging") == before


@pytest.mark.sample(1)
@pytest.mark.parametrize("layout", [None, OLD], ids=["ours", "of an earlier version"])
@pytest.mark.parametrize("name", ["oneroster", "trust_" * 9 + "x", "trust_" * 10])
@pytest.mark.slow
def test_erased_bytes_stay_in_no_staging_dataset_however_long_its_name(
    serve, postgres, monkeypatch, name, layout
) -> None:
    schools = [secondary_school(n, f"0{n}", pupils=3) for n in (1, 2)]
    server = serve(*schools)
    options = {**settings(server, *schools), "endpoints": SOME}
    if layout:
        monkeypatch.setenv(f"DESTINATION__POSTGRES__{LAYOUT}", layout)
    warehouse = Warehouse(postgres, name)
    before = datasets(postgres)
    load(postgres, name, server, *schools)
    load(postgres, name, server, *schools, full=True)
    for shard in warehouse.divide(2, **options):
        # whoever waits for them is killed before they are put together
        warehouse.load(report := Report(), shard=shard, full=True, **options)
        assert report.good
    (dataset,) = query(
        postgres,
        "SELECT table_schema FROM information_schema.tables WHERE table_name = '_dlt_loads'",
    )[0]
    staged = datasets(postgres) - before - {dataset}
    assert len(staged) == 3 and all(len(found) <= 63 for found in staged)
    for found in staged:
        query(postgres, f"INSERT INTO {found}.users SELECT * FROM {dataset}.users")
    if layout:
        monkeypatch.delenv(f"DESTINATION__POSTGRES__{LAYOUT}")
    user = schools[0].rows("users")[0]["sourcedId"]
    Warehouse(postgres, name).erase("01", user, privacy_key=KEY)
    assert datasets(postgres) == before | {dataset}
