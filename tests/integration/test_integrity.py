"""What is checked in the destination after a load, one fault at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import dlt
import duckdb
import pytest

from oneroster_source.destination.integrity import Written, problems
from oneroster_source.model import V1P1
from oneroster_source.run_report import Report

SCHEMA = {
    "users": "estab VARCHAR, sourced_id VARCHAR, _deleted BOOLEAN",
    "users__grades": "estab VARCHAR, user_sourced_id VARCHAR, position INTEGER",
}
ROWS = {
    "users": "('1', 'a', false), ('1', 'b', false), ('1', 'c', true), ('2', 'a', false)",
    "users__grades": "('1', 'a', 0), ('1', 'a', 1), ('1', 'c', 0), ('2', 'a', 0)",
}


@pytest.fixture
def told(tmp_path) -> Iterator[Callable[..., list[str]]]:
    """What the checks say after some SQL; two users of school 1 were read."""
    path = str(tmp_path / "roster.duckdb")
    with duckdb.connect(path) as connection:
        connection.execute("CREATE SCHEMA oneroster; USE oneroster")
        for table, columns in SCHEMA.items():
            connection.execute(f"CREATE TABLE {table} ({columns})")
            connection.execute(f"INSERT INTO {table} VALUES {ROWS[table]}")
    pipeline = dlt.pipeline(
        "checks",
        destination=dlt.destinations.duckdb(path),
        dataset_name="oneroster",
        pipelines_dir=str(tmp_path / "pipelines"),
    )
    # dlt gives a client only to a pipeline that has a schema
    pipeline.extract([{"a": 1}], table_name="any")

    def told(  # type: ignore[no-untyped-def]
        sql: str,
        *,
        live: int = 2,
        kept: int = 0,
        mode: str = "full",
        changed=SCHEMA,
        ids=None,
        filled=None,
    ) -> list[str]:
        with duckdb.connect(path) as connection:
            connection.execute(f"USE oneroster; {sql}")
        report = Report()
        keys = {"users": {("1", key) for key in ids}} if ids else {}
        written = Written(keys, filled or {})
        outcome = report.outcome("1", "users")
        outcome.mode, outcome.state, outcome.live, outcome.kept = mode, "read", live, kept
        # one that failed says nothing
        report.outcome("2", "users").mode = "full"
        with pipeline.sql_client() as client:
            return list(problems(client, V1P1.endpoints, set(changed), report, written))

    return told


def test_what_is_sound_is_not_told(told) -> None:
    assert told("SELECT 1") == []
    assert told("SELECT 1", mode="delta", live=1) == []


@pytest.mark.parametrize(
    ("sql", "problem"),
    {
        "INSERT INTO users VALUES ('1', 'c', true)": "users: 1 duplicate keys",
        "INSERT INTO users VALUES ('2', NULL, true)": "users: 1 rows have no key",
        "INSERT INTO users VALUES (NULL, 'z', true)": "users: 1 rows have no key",
        "INSERT INTO users__grades VALUES ('1', 'a', 1)": ("users__grades: 1 duplicate keys"),
        "INSERT INTO users__grades VALUES ('1', 'a', NULL)": "users__grades: 1 rows have no key",
        "INSERT INTO users__grades VALUES ('1', 'x', 0), ('1', 'x', 1), ('2', 'b', 0)": (
            "users__grades: 3 orphaned rows (no parent in users)"
        ),
        "DELETE FROM users WHERE sourced_id = 'b'": ("users: school 1 has 1 rows, and 2 were read"),
        "UPDATE users SET _deleted = true WHERE sourced_id = 'b'": (
            "users: school 1 has 1 rows, and 2 were read"
        ),
        "INSERT INTO users VALUES ('1', 'd', false)": (
            "users: school 1 has 3 rows, and 2 were read"
        ),
    }.items(),
)
def test_what_is_not_sound_is_told_alone(told, sql, problem) -> None:
    (found,) = told(sql)
    assert found.startswith(problem) and "oneroster sync --full" in found


def test_a_delta_reads_fewer_rows_than_there_are(told) -> None:
    assert told("INSERT INTO users VALUES ('1', 'd', false)", mode="delta") == []
    assert told("DELETE FROM users WHERE sourced_id IN ('b', 'd')", mode="delta") != []


def test_rows_that_were_kept_on_purpose_are_not_too_many(told) -> None:
    more = "INSERT INTO users VALUES ('1', 'd', false)"
    assert told(more, kept=1) == []
    assert len(told("SELECT 1", kept=0)) == 1


def test_only_what_was_changed_is_looked_at(told) -> None:
    broken = "INSERT INTO users VALUES ('1', 'a', false), ('1', NULL, false)"
    assert told(broken, changed=["users__grades"]) == []
    assert len(told("SELECT 1", changed=["users"])) == 3


def test_of_a_large_table_the_rows_that_were_loaded_are_looked_at(told, monkeypatch) -> None:
    twice = "INSERT INTO users VALUES ('1', 'a', false)"
    assert len(told(twice, mode="delta", live=1, ids={"c"})) == 1
    monkeypatch.setattr("oneroster_source.destination.integrity.LARGE", 3)
    assert told("SELECT 1", mode="delta", live=0, ids={"b", "c"}) == []
    (found,) = told("SELECT 1", mode="delta", live=1, ids={"a", "b"})
    assert found.startswith("users: 1 duplicate keys")
    (orphans,) = told("DELETE FROM users WHERE sourced_id = 'c'", mode="delta", live=0, ids={"c"})
    assert orphans.startswith("users__grades: 1 orphaned rows (no parent in users)")
    (lost,) = told("SELECT 1", mode="delta", live=1, ids={"none"})
    assert lost.startswith("users: school 1 has 0 rows, and 1 were read")


def test_a_table_that_was_empty_has_the_rows_that_were_loaded(told) -> None:
    filled = {"users": 4, "users__grades": 4}
    assert told("SELECT 1", filled=filled) == []
    lost, more, fewer = told(
        "DELETE FROM users WHERE sourced_id = 'a'; INSERT INTO users__grades VALUES ('1', 'b', 0)",
        filled=filled,
    )
    assert lost.startswith("users: has 2 rows, and 4 were loaded")
    assert more.startswith("users__grades: has 5 rows, and 4 were loaded")
    assert fewer.startswith("users: school 1 has 1 rows, and 2 were read")
