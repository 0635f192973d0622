"""`oneroster status`, and the view and queries that tell the same: which schools need a person."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import dlt
import pytest
from rich.console import Console
from support.documents import queries
from support.postgres import execute
from support.settings import settings
from support.small_school import PUPILS, STAFF, small_school
from support.truth import opened
from typer.testing import CliRunner

from oneroster_source import Report, Warehouse, oneroster
from oneroster_source.cli import render
from oneroster_source.cli.app import app
from oneroster_source.reporting.status import Status
from oneroster_source.simulator import School

NOW = datetime.now(UTC).replace(microsecond=0)
SOME = ["orgs", "users"]


def ago(days: float) -> datetime:
    return NOW - timedelta(days=days)


def status(destination: str, *words: str) -> str:
    done = CliRunner().invoke(app, ["status", "--destination", destination, *words])
    assert done.exit_code == 0, done.output
    return done.output


def standing(destination: str) -> dict[str, dict[str, Any]]:
    """The schools as the JSON tells them, in its order."""
    return {
        school["estab"]: school for school in json.loads(status(destination, "--json"))["schools"]
    }


# the view and the queries, of nights that were written by hand


def tried(
    estab: str,
    endpoint: str,
    days: float,
    outcome: str = "read",
    mode: str = "delta",
    rows: int = 1,
) -> str:
    """A row of `sync_run_details`: tried so many days ago, for a minute."""
    reason = "NULL" if outcome == "read" else f"'{endpoint} {days}'"
    return (
        f"('{days}', '{estab}', '{endpoint}', '{ago(days)}', '{ago(days) + timedelta(minutes=1)}',"
        f" '{mode}', '{outcome}', {rows}, {reason})"
    )


def nights(estab: str, endpoint: str, *days: float, **how: Any) -> list[str]:
    return [tried(estab, endpoint, day, **how) for day in days]


FAILED: dict[str, Any] = {"outcome": "failed", "mode": "full"}
HISTORY = [
    *nights("good", "orgs", 6, mode="full", rows=10),
    *nights("good", "users", 6.5, mode="full", rows=20),
    *nights("good", "orgs", 5, 0.2),
    *nights("good", "users", 5, 0.3),
    # one endpoint of two, for three nights
    *nights("failing", "orgs", 8, 4, 3, 2, 1, mode="full", rows=5),
    *nights("failing", "users", 9, **FAILED),
    *nights("failing", "users", 4, mode="full", rows=7),
    *nights("failing", "users", 3, 2, 1, **FAILED),
    # both, of which one was never read; the other has failed for longer
    *nights("never", "orgs", 1.5, 0.5, **FAILED),
    *nights("never", "users", 30, mode="full", rows=3),
    *nights("never", "users", 2.5, **FAILED),
    *nights("never", "users", 1.4, 0.4, **FAILED),
    # nobody has run it
    *nights("stale", "orgs", 5, mode="full"),
    *nights("stale", "users", 9, 5, mode="full"),
    # it is not loaded any more
    *nights("fewer", "courses", 30, 20, **FAILED),
    *nights("fewer", "users", 20, 10, 0.1, mode="full"),
    # all is loaded, but deletions wait in one of two
    *nights("waits", "orgs", 0.2, mode="full", rows=5),
    *nights("waits", "users", 6, mode="full", rows=9),
    *nights("waits", "users", 5, **FAILED),
    *nights("waits", "users", 2, 0.1, outcome="held", mode="full", rows=9),
    # it failed, and it went well again
    *nights("again", "users", 4, mode="full", rows=100),
    *nights("again", "users", 3, 2, **FAILED),
    *nights("again", "users", 0.6, mode="full", rows=80),
]
MINUTE = timedelta(minutes=1)
EXPECTED = [
    # stale, last good load, last full read, failing, since, in a row, reason, rows, held, since
    ("again", False, ago(0.6) + MINUTE, ago(0.6) + MINUTE, 0, None, 0, None, 80, 0, None),
    ("failing", True, ago(4) + MINUTE, ago(4) + MINUTE, 1, ago(3), 3, "users 1", 12, 0, None),
    ("fewer", False, ago(0.1) + MINUTE, ago(0.1) + MINUTE, 0, None, 0, None, 1, 0, None),
    ("good", False, ago(0.3) + MINUTE, ago(6.5) + MINUTE, 0, None, 0, None, 30, 0, None),
    ("never", True, None, None, 2, ago(2.5), 3, "users 0.4", 3, 0, None),
    ("stale", True, ago(5) + MINUTE, ago(5) + MINUTE, 0, None, 0, None, 2, 0, None),
    (
        *("waits", False, ago(0.2) + MINUTE, ago(0.2) + MINUTE),
        *(0, None, 0, "users 0.1", 14, 1, ago(2)),
    ),
]
ORDER = ["failing", "never", "waits", "by hand", "stale", "again", "good", "fewer", "1"]


ALERTS = {
    "failed for more than two nights": ["failing", "never"],
    "without a good load since": ["failing", "never", "stale"],
    "10 % fewer rows": ["again"],
}


@pytest.mark.sample(1)
@pytest.mark.parametrize("database", ["warehouse", "postgres"])
def test_a_history_of_nights(database: str, serve, request: pytest.FixtureRequest) -> None:
    """The view, the alerts of the guide, the JSON, and what people see: all tell the same."""
    found = request.getfixturevalue(database)
    destination = found if isinstance(found, str) else found.name
    school = small_school("1")
    report = Report()
    Warehouse(destination).load(report, **settings(serve(school), school), endpoints=SOME)
    report.raise_for_failures()
    columns = "run_id, estab, endpoint, started, ended, mode, outcome, rows_read, reason"
    rows = ", ".join(HISTORY)
    execute(destination, f"INSERT INTO oneroster.sync_run_details ({columns}) VALUES {rows}")
    columns = "estab, sourced_id, _deleted"
    execute(destination, f"INSERT INTO oneroster.orgs ({columns}) VALUES ('by hand', 'a', FALSE)")
    with opened(destination) as ask:
        view = "SELECT * FROM oneroster.school_loads WHERE estab <> '1' ORDER BY estab"
        assert ask(view) == EXPECTED
        for name, estabs in ALERTS.items():
            (query,) = (query for query in queries() if name in query.splitlines()[0])
            assert sorted(row[0] for row in ask(query)) == estabs, name
    check_json(standing(destination))
    check_screen(status(destination))
    assert "hunter2" not in status(destination) + status(destination, "--json")


def check_json(schools: dict[str, dict[str, Any]]) -> None:
    assert list(schools) == ORDER
    for estab, stale, good, full, failing, since, runs, reason, _, held, waits in EXPECTED:
        assert schools[estab] == {
            "estab": estab,
            "state": "failing" if failing else "held" if held else "stale" if stale else "good",
            "last_good_load": good and good.isoformat(),
            "last_full_read": full and full.isoformat(),
            "failing": failing,
            "failing_since": since and since.isoformat(),
            "failures_in_a_row": runs,
            "reason": reason,
            "held": held,
            "held_since": waits and waits.isoformat(),
            "rows": 0,
            "cursors": {},
        }
    by_hand = schools["by hand"]
    assert (by_hand["state"], by_hand["last_good_load"], by_hand["rows"]) == ("stale", None, 1)
    assert schools["1"]["state"] == "good" and schools["1"]["cursors"].keys() == set(SOME)


def check_screen(said: str) -> None:
    places = [said.index(f"\n {estab} ") for estab in ORDER]
    assert places == sorted(places)
    (line,) = (line for line in said.splitlines() if line.startswith(" failing "))
    assert f"{ago(3):%Y-%m-%d %H:%M}Z (3 d), 3 runs" in line
    assert line.rstrip().endswith("users 1")
    assert "9 schools: 2 failing, 1 held, 2 stale, 4 good." in said
    assert re.search(r"users +8 ", said) and "Last load: 20" in said


# real runs


@pytest.mark.slow
def test_a_school_that_fails_and_is_mended(serve, warehouse) -> None:
    schools = [small_school(estab) for estab in ("1", "2", "3")]
    server = serve(*schools)
    other = School("3", shared_secret="not-the-secret")

    def run() -> Report:
        report = Report()
        warehouse.load(report, **settings(server, *schools[:2], other), endpoints=SOME)
        return report

    run()
    schools[1].forbidden = {"users"}
    failed = [run() for _ in range(3)]
    (first, *_, last) = (o for r in failed for o in r.failed if o.estab == "2")
    found = standing(warehouse.name)
    # what was never read has failed for longer
    assert list(found) == ["3", "2", "1"]
    assert (found["3"]["state"], found["3"]["failing"]) == ("failing", 2)
    assert (found["3"]["last_good_load"], found["3"]["failures_in_a_row"]) == (None, 4)
    assert found["2"]["failing_since"] == first.started.isoformat()
    assert found["2"]["failures_in_a_row"] == 3 and found["2"]["failing"] == 1
    assert found["2"]["reason"] == last.error.partition("\n")[0] and "403" in last.error
    assert found["2"]["last_good_load"] < found["2"]["failing_since"]
    assert found["2"]["cursors"].keys() == found["1"]["cursors"].keys() == set(SOME)
    assert found["1"]["rows"] == sum(len(schools[0].rows(name)) for name in SOME)
    # nothing that a dashboard should not have
    said = status(warehouse.name) + status(warehouse.name, "--json")
    assert "403" in said and "401" in said
    names = {
        word for _, given, family in (*STAFF.values(), *PUPILS.values()) for word in (given, family)
    }
    assert not names & set(re.findall(r"\w+", said))
    assert "not-the-secret" not in said and schools[0].shared_secret not in said
    # mended
    schools[1].forbidden = set()
    run()
    found = standing(warehouse.name)
    assert next(iter(found)) == "3"
    assert (found["2"]["state"], found["2"]["failing_since"]) == ("good", None)


@pytest.mark.slow
def test_what_pipelines_of_other_names_have_loaded_is_shown(serve, tmp_path: Path) -> None:
    """Each has its own state in the dataset: a user's own, or one for each share of the schools.

    It has no views, and gets none.
    """
    schools = [small_school("1"), small_school("2")]
    server = serve(*schools)
    path = str(tmp_path / "any.duckdb")
    for school in schools:
        pipeline = dlt.pipeline(
            f"share_{school.estab}",
            destination=dlt.destinations.duckdb(path),
            dataset_name="oneroster",
            pipelines_dir=str(tmp_path / "work"),
        )
        pipeline.run(oneroster(**settings(server, school), endpoints=SOME))
    before = Path(path).read_bytes()
    found = standing(path)
    assert Path(path).read_bytes() == before and b"school_loads" not in before
    assert {estab: school["state"] for estab, school in found.items()} == {"1": "good", "2": "good"}
    assert all(school["last_full_read"] for school in found.values())


# a fleet on a screen


def shown(holdings: Status, width: int = 160, **how: bool) -> str:
    text = StringIO()
    console = Console(file=text, width=width)
    console.print(render.status(holdings, now=NOW, **how))
    return text.getvalue()


@pytest.fixture
def fleet() -> Status:
    """A hundred schools, of which the last two fail."""
    loads = [
        {
            "estab": f"e{n:03}",
            "stale": False,
            "last_good_load": ago(n / 100),
            "last_full_read": ago(n / 100),
            "failing": int(n > 97),
            "failing_since": ago(n / 100) if n > 97 else None,
            "failures_in_a_row": int(n > 97),
            "reason": "the server said [red]no[/red]" if n > 97 else None,
            "held": 0,
            "held_since": None,
        }
        for n in range(100)
    ]
    return Status("somewhere", "oneroster", loads=loads)


def test_good_schools_are_cut_where_nobody_would_read_on(fleet: Status) -> None:
    said = shown(fleet)
    lines = [line.split()[0] for line in said.splitlines() if re.match(r" e\d", line)]
    # those that fail, for longest first; then the good, of which the stalest come first
    assert lines == ["e099", "e098", *(f"e{n:03}" for n in range(97, 97 - render.MOST_GOOD, -1))]
    assert f"Not shown: {98 - render.MOST_GOOD} good; --all shows every school." in said
    every = shown(fleet, every=True)
    assert len(re.findall(r"^ e\d", every, re.M)) == 100 and "Not shown" not in every
    # words of a server are no markup
    assert said.count("[red]no[/red]") == 2


def test_a_narrow_screen_keeps_what_matters(fleet: Status) -> None:
    said = shown(fleet, width=80, narrow=True)
    (line,) = (line for line in said.splitlines() if line.startswith(" e099"))
    assert re.search(r"failing +23 h +23 h, 1 run +the server said", line)
