"""dlt's own columns, switched on and off: rows and versions are right, and people can be erased."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.changes import change
from support.settings import settings
from support.truth import Truth, differences, opened

from oneroster_source import Report, Warehouse

KEY = "correct horse battery staple, again"
ID, LOAD_ID = "_dlt_id", "_dlt_load_id"


@pytest.fixture(params=["duckdb", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of either kind."""
    if request.param == "duckdb":
        return str(tmp_path / "roster.duckdb")
    found: str = request.getfixturevalue("postgres")
    return found


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "nights",
    [
        [{ID, LOAD_ID}, {ID, LOAD_ID}, set(), {LOAD_ID}],
        [set(), {ID}, {ID, LOAD_ID}, set()],
    ],
    ids=["on from the start", "switched on later"],
)
def test_dlts_own_columns_may_be_switched_on_and_off(
    serve, school, place, monkeypatch, nights
) -> None:
    server = serve(school)
    found = {**settings(server, school), "endpoints": ["users"], "history": True}
    versions = 0
    for number, wanted in enumerate(nights):
        for column in (ID, LOAD_ID):
            name = f"NORMALIZE__PARQUET_NORMALIZER__ADD{column.upper()}"
            monkeypatch.setenv(name, str(column in wanted).lower())
        if number == 1:
            change(school)
        key = school.rows("users")[5]["sourcedId"]
        school.change("users", key, familyName=f"Name {number}")
        Warehouse(place).load(report := Report(), **found)
        assert report.good, (report.failed, report.problems)
        truth = Truth(server.base_url, [school], endpoints=["users"])
        assert differences(place, truth) == {}
        with opened(place) as ask:
            ((now, names),) = ask(
                "SELECT count(*), count(DISTINCT family_name) FROM oneroster.users_history"
                f" WHERE sourced_id = '{key}'"
            )
            there = ask(
                "SELECT table_name, column_name FROM information_schema.columns"
                " WHERE table_schema = 'oneroster' AND table_name IN ('users', 'users__orgs')"
            )
            for column in wanted:
                assert ("users", column) in there and ("users__orgs", column) in there
                ((filled,),) = ask(
                    f"SELECT count(*) FROM oneroster.users WHERE sourced_id = '{key}'"
                    f" AND {column} IS NOT NULL"
                )
                assert filled == 1
        assert now == names == versions + 1
        versions = now
    assert Warehouse(place).erase(school.estab, key, privacy_key=KEY).rows["users_history"] == 4
