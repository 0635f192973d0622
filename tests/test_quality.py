"""Each check: a fault is planted in a school in which nothing is wrong, and it alone is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import dlt
import pytest
from conftest import settings
from small_school import small_school
from test_kills import execute
from test_views import load
from truth import opened
from typer.testing import CliRunner

from oneroster_source import DestinationError, Report, Warehouse
from oneroster_source.cli.app import app
from oneroster_source.model import V1P1
from oneroster_source.reporting.quality import CHECKS, SEVERITIES, examine, worst

# what they share is loaded once
pytestmark = pytest.mark.xdist_group("quality")

NAMES = {check.name for check in CHECKS}
OTHERS = "estab = '2' AND sourced_id"
"""All faults are planted in the second of two schools."""


def enrollment(name: str, user: str, of: str, **more: str) -> str:
    values = {
        "estab": "'2'",
        "sourced_id": f"'{name}'",
        "role": "'student'",
        "user_sourced_id": f"'{user}'",
        "class_sourced_id": f"'{of}'",
        "school_sourced_id": "'school'",
        "date_last_modified": "CURRENT_TIMESTAMP",
        "_deleted": "FALSE",
        **more,
    }
    return f"INSERT INTO enrollments ({', '.join(values)}) VALUES ({', '.join(values.values())})"


def put(table: str, column: str, value: str, *names: str) -> str:
    listed = ", ".join(f"'{name}'" for name in names)
    return f"UPDATE {table} SET {column} = {value} WHERE {OTHERS} IN ({listed})"


MANY = " UNION ALL ".join(f"SELECT 'x{n:02}' AS name" for n in range(41))
FAULTS: dict[str, tuple[list[str], list[str]]] = {
    # check: what is done, and the ids that it is to find
    "enrollment_user_missing": ([enrollment("new", "nobody", "7A")], ["new"]),
    "enrollment_class_missing": ([enrollment("new", "p4", "none")], ["new"]),
    "enrollment_school_missing": (
        [put("enrollments", "school_sourced_id", "'none'", "7A-p1", "7A-p2")],
        ["7A-p1", "7A-p2"],
    ),
    "class_school_missing": ([put("classes", "school_sourced_id", "NULL", "7A")], ["7A"]),
    "class_course_missing": ([put("classes", "course_sourced_id", "'none'", "7A")], ["7A"]),
    "class_term_missing": (
        [
            "INSERT INTO classes__terms (estab, class_sourced_id, position, sourced_id)"
            " VALUES ('2', '7A', 8, 'none'), ('2', '7A', 9, 'nor')"
        ],
        ["7A"],
    ),
    "user_org_missing": (
        ["UPDATE users__orgs SET sourced_id = 'no' WHERE estab = '2' AND user_sourced_id = 'a1'"],
        ["a1"],
    ),
    "user_without_org": (
        ["DELETE FROM users__orgs WHERE estab = '2' AND user_sourced_id IN ('p1', 't2')"],
        ["p1", "t2"],
    ),
    "class_without_teacher": (
        [put("enrollments", "end_date", "CURRENT_DATE - 1", "7A-t1")],
        ["7A"],
    ),
    "class_without_pupils": (
        [
            put("enrollments", "_deleted", "TRUE", "8A/Ma-p4"),
            enrollment("new", "p4", "7A"),
        ],
        ["8A/Ma"],
    ),
    "pupil_without_class": (
        [
            put("enrollments", "user_sourced_id", "'p3'", "8A/Ma-p4"),
        ],
        ["p4"],
    ),
    "teacher_without_class": (
        [put("enrollments", "user_sourced_id", "'t1'", "7A/En-t2", "8A/Ma-t2")],
        ["t2"],
    ),
    "pupil_without_year_group": (
        ["DELETE FROM users__grades WHERE estab = '2' AND user_sourced_id = 'p2'"],
        ["p2"],
    ),
    "pupil_in_several_year_groups": (
        [
            "INSERT INTO users__grades (estab, user_sourced_id, position, value)"
            " VALUES ('2', 'p2', 1, '8')"
        ],
        ["p2"],
    ),
    "duplicate_username": ([put("users", "username", "'EVE.Elm'", "t1")], ["p1", "t1"]),
    "duplicate_identifier": (
        [put("users", "identifier", "'id-p4'", "p1", "p2")],
        ["p1", "p2", "p4"],
    ),
    "duplicate_email": ([put("users", "email", "'P4@school.example'", "h1")], ["h1", "p4"]),
    "user_without_name": (
        [put("users", "given_name", "NULL", "p1"), put("users", "family_name", "NULL", "t1")],
        ["p1", "t1"],
    ),
    "enrollment_ends_before_it_begins": (
        [
            put("enrollments", "begin_date", "CURRENT_DATE + 9", "7A-p1"),
            put("enrollments", "end_date", "CURRENT_DATE + 8", "7A-p1"),
        ],
        ["7A-p1"],
    ),
    "session_ends_before_it_begins": (
        [
            put("academic_sessions", "parent_sourced_id", "NULL", "autumn", "spring"),
            put("academic_sessions", "end_date", "start_date - 1", "year"),
        ],
        ["year"],
    ),
    "session_outside_its_parent": (
        [put("academic_sessions", "end_date", "end_date - 1", "year")],
        ["spring"],
    ),
    "enrollment_outside_its_terms": (
        [
            put("enrollments", "begin_date", "begin_date - 1", "7A-p1"),
            put("enrollments", "end_date", "end_date + 1", "7A-p2"),
        ],
        ["7A-p1", "7A-p2"],
    ),
    "enrollment_of_deleted_user": (
        [put("users", "_deleted", "TRUE", "a1")],
        ["7A-a1"],
    ),
    "enrollment_in_deleted_class": (
        [put("classes", "_deleted", "TRUE", "7A/En")],
        ["7A/En-p1", "7A/En-p2", "7A/En-t2"],
    ),
    "enrollment_twice": ([enrollment("again", "p1", "7A")], ["7A-p1", "again"]),
    "enrollment_role_differs": (
        [
            put("enrollments", "role", "'student'", "7A-a1"),
        ],
        ["7A-a1"],
    ),
    "unknown_status": (
        [put("users", "status", "'on holiday'", "p1"), put("orgs", "status", "'?'", "school")],
        ["p1", "school"],
    ),
    "unknown_user_role": ([put("users", "role", "'governor'", "h1")], ["h1"]),
    "unknown_enrollment_role": ([put("enrollments", "role", "'helper'", "7A-a1")], ["7A-a1"]),
    "unknown_type": (
        [
            put("orgs", "type", "'trust'", "authority"),
            put("classes", "class_type", "'club'", "7A"),
            put("academic_sessions", "type", "'half'", "autumn"),
        ],
        ["7A", "authority", "autumn"],
    ),
    "date_last_modified_missing": (
        [put("courses", "date_last_modified", "NULL", "ma7")],
        ["ma7"],
    ),
    "date_last_modified_in_future": (
        [put("users", "date_last_modified", "CURRENT_TIMESTAMP + INTERVAL '2' DAY", "p1")],
        ["p1"],
    ),
    "value_not_read": (
        [
            "INSERT INTO rejected_rows (estab, endpoint, sourced_id, position, reason)"
            " VALUES ('2', 'users', 'p1', 0, 'a'), ('2', 'users', 'p1', 1, 'b'),"
            " ('2', 'classes', NULL, 0, 'c')"
        ],
        ["classes", "p1"],
    ),
    "class_too_large": (
        [
            "INSERT INTO users (estab, sourced_id, given_name, family_name, role,"
            " date_last_modified, _deleted)"
            f" SELECT '2', name, 'A', 'B', 'student', CURRENT_TIMESTAMP, FALSE FROM ({MANY}) AS m",
            "INSERT INTO users__orgs (estab, user_sourced_id, position, sourced_id)"
            f" SELECT '2', name, 0, 'school' FROM ({MANY}) AS m",
            "INSERT INTO users__grades (estab, user_sourced_id, position, value)"
            f" SELECT '2', name, 0, '8' FROM ({MANY}) AS m",
            "INSERT INTO enrollments (estab, sourced_id, role, user_sourced_id, class_sourced_id,"
            " school_sourced_id, date_last_modified, _deleted)"
            " SELECT '2', name, 'student', name, '8A/Ma', 'school', CURRENT_TIMESTAMP, FALSE"
            f" FROM ({MANY}) AS m",
        ],
        ["8A/Ma"],
    ),
    "class_with_several_main_teachers": (
        [enrollment("new", "t2", "7A", role="'teacher'", **{'"primary"': "TRUE"})],
        ["7A"],
    ),
    "school_without_pupils": (
        [
            "INSERT INTO orgs (estab, sourced_id, date_last_modified, _deleted)"
            " VALUES ('2', 'other', CURRENT_TIMESTAMP, FALSE)",
            "UPDATE users SET role = 'parent' WHERE estab = '2' AND role = 'student'",
            "UPDATE enrollments SET role = 'parent' WHERE estab = '2' AND role = 'student'",
        ],
        ["2"],
    ),
    "school_not_loaded_lately": (
        ["UPDATE sync_run_details SET ended = ended - INTERVAL '4' DAY WHERE estab = '2'"],
        ["2"],
    ),
    "deletions_held": (
        [
            "INSERT INTO sync_run_details (run_id, estab, endpoint, started, ended, outcome) VALUES"
            " ('z', '2', 'classes', CURRENT_TIMESTAMP, CURRENT_TIMESTAMP, 'held'),"
            " ('a', '2', 'users', CURRENT_TIMESTAMP - INTERVAL '9' DAY, NULL, 'held')"
        ],
        ["classes"],
    ),
    "collection_failed": (
        [
            "INSERT INTO sync_run_details (run_id, estab, endpoint, started, outcome)"
            " VALUES ('z', '2', 'classes', CURRENT_TIMESTAMP, 'failed'),"
            " ('a', '2', 'users', CURRENT_TIMESTAMP - INTERVAL '9' DAY, 'failed')"
        ],
        ["classes"],
    ),
}
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
    assert not [result for result in Warehouse(str(path)).examine() if result.found]
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
                results = list(examine(client))  # type: ignore[arg-type]
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


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_nothing_else(found_after: Ask, name: str) -> None:
    assert found_after(*FAULTS[name][0]) == expected(name)


def test_all_faults_are_found_on_postgres_too(postgres: str, tmp_path: Path) -> None:
    load(postgres, small_school("1"), small_school("2"))
    Warehouse(postgres).examine()
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
    results = Warehouse(path).examine()
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
    results = warehouse.examine()
    names = {result.check.name for result in results}
    assert "duplicate_username" in names and not [n for n in names if "enrollment" in n]
    # nobody has a name here
    assert "user_without_name" not in names and worst(results) != "error"


def test_what_was_never_loaded_cannot_be_checked(warehouse) -> None:
    with pytest.raises(DestinationError, match="holds no dataset"):
        warehouse.examine()


def test_a_load_after_a_check_is_as_any_other(serve, warehouse) -> None:
    school = small_school()
    found = settings(serve(school), school)
    warehouse.load(Report(), **found)
    warehouse.examine()
    school.change("users", "p1", givenName="Evelyn")
    report = Report()
    warehouse.load(report, **found)
    assert report.good and {o.mode for o in report.outcomes} == {"delta"}
    assert V1P1.names == tuple(dict.fromkeys(o.endpoint for o in report.outcomes))
    assert worst(warehouse.examine()) is None
