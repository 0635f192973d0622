"""Each check: a fault is planted in a school in which nothing is wrong, and it alone is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import dlt
import pytest
from support.faulty_rosters import FAULTS, put
from support.postgres import execute
from support.settings import settings
from support.small_school import load, small_school
from support.truth import opened
from typer.testing import CliRunner

from oneroster_source import DestinationError, Report, Warehouse
from oneroster_source.cli.app import app
from oneroster_source.model import V1P1
from oneroster_source.reporting.quality import CHECKS, SEVERITIES, run_checks, worst

# what they share is loaded once
pytestmark = pytest.mark.xdist_group("quality")

NAMES = {check.name for check in CHECKS}
ALSO = {
    "school_without_pupils": {
        # a class of parents
        "class_without_pupils": ["7A", "7A/En", "7A/Ma", "8A/Ma"],
    },
}
"""What cannot be without another fault."""


def expected(name: str) -> dict[tuple[str, str], list[str]]:
    found = {name: FAULTS[name][1]} | ALSO.get(name, {})
    return {(check, "2"): ids for check, ids in found.items()}


Ask = Callable[..., dict[tuple[str, str], list[str]]]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two schools with nothing wrong in them, and what one quality run found: nothing."""
    path = tmp_path_factory.mktemp("quality") / "roster.duckdb"
    load(str(path), small_school("1"), small_school("2"))
    assert not [result for result in Warehouse(str(path)).check_quality() if result.found]
    return path


@pytest.fixture(scope="module")
def found_after(clean: Path, tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """What the checks find, by check and school, after some statements, which are undone."""
    folder = tmp_path_factory.mktemp("found")
    path = folder / "roster.duckdb"
    shutil.copy(clean, path)
    return finder(str(path), dlt.destinations.duckdb(str(path)), folder)


def finder(database: str, destination: object, folder: Path) -> Ask:
    pipeline = dlt.pipeline(
        "any",
        destination=destination,  # type: ignore[arg-type]
        dataset_name="oneroster",
        pipelines_dir=str(folder / "pipelines"),
    )
    # dlt gives a client only to a pipeline that has a schema
    pipeline.extract([{"a": 1}], table_name="any")

    def found(*statements: str) -> dict[tuple[str, str], list[str]]:
        with pipeline.destination_client() as client, suppress(_Undone):
            sql = client.sql_client  # type: ignore[attr-defined]
            with sql.begin_transaction():
                path = "search_path" if "://" in database else "schema"
                sql.execute_sql(f"SET {path} = 'oneroster'")
                for statement in statements:
                    sql.execute_sql(statement)
                results = list(run_checks(client))  # type: ignore[arg-type]
                raise _Undone
        for result in results:
            assert len(result.examples) == min(result.found, 5), result
        return {(r.check.name, r.estab): list(r.examples) for r in results if r.found}

    return found


class _Undone(Exception):
    """Ends a transaction with none of it done."""


def test_there_is_a_fault_for_every_check() -> None:
    assert FAULTS.keys() | {"rows_dropped"} == NAMES
    assert len(NAMES) >= 20
    for check in CHECKS:
        assert check.about["question"].endswith("?"), check.name
        assert check.about["severity"] in SEVERITIES, check.name


@pytest.mark.sample(12)
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_nothing_else(found_after: Ask, name: str) -> None:
    assert found_after(*FAULTS[name][0]) == expected(name)


@pytest.mark.slow
def test_all_faults_are_found_on_postgres_too(postgres: str, tmp_path: Path) -> None:
    load(postgres, small_school("1"), small_school("2"))
    Warehouse(postgres).check_quality()
    ask = finder(postgres, dlt.destinations.postgres(postgres), tmp_path)
    assert ask() == {}
    for name, (statements, _) in FAULTS.items():
        assert ask(*statements) == expected(name)


def test_deleted_rows_are_not_at_fault(found_after: Ask) -> None:
    deleted = [put("enrollments", "_deleted", "TRUE", "new")]
    for name in ("enrollment_user_missing", "enrollment_class_missing"):
        assert found_after(*FAULTS[name][0], *deleted) == {}


def test_five_examples_are_shown_of_many(found_after: Ask) -> None:
    names = [f"7A-p{n}" for n in (1, 2, 3)] + [f"7A/Ma-p{n}" for n in (1, 2, 3)]
    found = found_after(put("enrollments", "school_sourced_id", "NULL", *names))
    assert found == {("enrollment_school_missing", "2"): names[:5]}


def test_a_sudden_drop_is_found_against_the_last_five_runs(found_after: Ask) -> None:
    def before(runs_ago: int, rows: int, relation: str = "students") -> str:
        return (
            "INSERT INTO quality_results (run_id, checked_at, estab, check_id, severity, question,"
            " relation, rows_checked, rows_found, examples) VALUES"
            f" ('r{runs_ago}', CURRENT_TIMESTAMP - INTERVAL '{runs_ago}' DAY, '2', 'any', 'info',"
            f" '?', '{relation}', {rows}, 0, '[]')"
        )

    def quiet(runs: int) -> list[str]:
        return [before(1 + n, 4) for n in range(runs)]

    assert found_after(before(1, 25)) == {("rows_dropped", "2"): ["students"]}
    # one run has been made before, and is one of the five
    assert found_after(*quiet(3), before(4, 25)) == {("rows_dropped", "2"): ["students"]}
    assert found_after(*quiet(4), before(5, 25)) == {}
    assert found_after(before(1, 24)) == {}
    # a whole school
    gone = [f"UPDATE {t} SET estab = '1' WHERE estab = '3'" for t in ("users",)]
    assert found_after(before(1, 99).replace("'2'", "'3'"), *gone) == {
        ("rows_dropped", "3"): ["students"]
    }
    assert found_after(before(1, 99, "classes"), before(1, 99, "orgs")) == {
        ("rows_dropped", "2"): ["classes"]
    }


# the command, and what it leaves


def test_results_are_in_the_dataset_run_by_run(clean: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "roster.duckdb")
    shutil.copy(clean, path)
    for statement in FAULTS["duplicate_username"][0]:
        execute(path, f"USE oneroster; {statement}")
    results = Warehouse(path).check_quality()
    with opened(path) as ask:
        runs = ask(
            "SELECT count(*), count(DISTINCT (estab, check_id)), sum(rows_found), max(examples)"
            " FROM oneroster.quality_results GROUP BY run_id ORDER BY run_id"
        )
        columns = (
            "estab, check_id, severity, question, relation, rows_checked, rows_found, examples"
        )
        rows = ask(
            f"SELECT {columns} FROM oneroster.quality_results WHERE run_id ="
            " (SELECT max(run_id) FROM oneroster.quality_results)"
        )
    assert [run[:3] for run in runs] == [
        # what is compared with earlier runs cannot be checked at first
        (2 * (len(NAMES) - 1),) * 2 + (0,),
        (2 * len(NAMES),) * 2 + (2,),
    ]
    assert sorted(rows) == sorted(
        (
            *(r.estab, r.check.name, r.severity, r.check.about["question"], r.check.about["of"]),
            *(r.checked, r.found, json.dumps(r.examples)),
        )
        for r in results
    )
    with opened(path) as ask:
        assert ("2", "duplicate_username", 8, 2) in ask(
            "SELECT estab, check_id, rows_checked, rows_found FROM oneroster.quality_results"
        )


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (None, 0, f"{len(NAMES)} of {len(NAMES)} checks found nothing in 2 schools."),
        ("duplicate_username", 4, "Which users of a school have the same username?"),
        ("user_without_org", 3, "Which users belong to no org?"),
        ("class_too_large", 0, "Which classes have more than 40 pupils today?"),
    ],
)
@pytest.mark.sample(2)
def test_the_command_ends_as_grave_as_what_it_found(
    clean: Path, tmp_path: Path, fault: str | None, code: int, said: str
) -> None:
    path = str(tmp_path / "roster.duckdb")
    shutil.copy(clean, path)
    for statement in FAULTS[fault][0] if fault else []:
        execute(path, f"USE oneroster; {statement}")
    done = CliRunner().invoke(app, ["quality", "--destination", path])
    assert done.exit_code == code, done.output
    assert said in " ".join(done.output.split())
    if fault:
        assert f"{len(NAMES) - 1} of {len(NAMES)} checks found nothing" in done.output
        # ids only
        assert "elm" not in done.output.lower()


def test_a_dataset_without_some_tables_is_checked_as_far_as_it_goes(serve, sync, warehouse) -> None:
    school = small_school()
    chosen = {"privacy": "pseudonymous", "privacy_key": "0123456789abcdef" * 4}
    assert sync(serve(school), school, endpoints=["users", "orgs"], **chosen).good
    results = warehouse.check_quality()
    names = {result.check.name for result in results}
    assert "duplicate_username" in names and not [n for n in names if "enrollment" in n]
    # nobody has a name here
    assert "user_without_name" not in names and worst(results) != "error"


def test_what_was_never_loaded_cannot_be_checked(warehouse) -> None:
    with pytest.raises(DestinationError, match="holds no dataset"):
        warehouse.check_quality()


@pytest.mark.slow
def test_a_load_after_a_check_is_as_any_other(serve, warehouse) -> None:
    school = small_school()
    found = settings(serve(school), school)
    warehouse.load(Report(), **found)
    warehouse.check_quality()
    school.change("users", "p1", givenName="Evelyn")
    report = Report()
    warehouse.load(report, **found)
    assert report.good and {o.mode for o in report.outcomes} == {"delta"}
    assert V1P1.names == tuple(dict.fromkeys(o.endpoint for o in report.outcomes))
    assert worst(warehouse.check_quality()) is None
