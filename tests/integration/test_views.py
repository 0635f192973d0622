"""Each view: its grain, rows that were checked by hand, and the same on Postgres as on DuckDB."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from typing import Any

import duckdb
import pytest
from support.postgres import execute
from support.settings import settings
from support.small_school import (
    CLASSES,
    PUPILS,
    STAFF,
    TERMS,
    TODAY,
    YEAR,
    day,
    enrollment,
    load,
    moved,
    small_school,
)
from support.truth import opened

from oneroster_source import Report, Warehouse
from oneroster_source.reporting.sql_files import in_order
from oneroster_source.reporting.views import GUIDE, VIEWS
from oneroster_source.simulator import School, secondary_school

NAMES = [view.name for view in VIEWS]
BEGIN, END = YEAR


@pytest.fixture(scope="module")
def fleet() -> list[School]:
    """The same school five times, of which four have changed, and a made-up one."""
    return [
        small_school("1"),
        moved(small_school("2")),
        secondary_school(3, "3", pupils=30),
        dated(small_school("4")),
        returned(small_school("5")),
        spread(small_school("6")),
        unread(small_school("7")),
    ]


@pytest.fixture(scope="module")
def database(fleet: list[School], tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("views") / "roster.duckdb")
    load(path, *fleet)
    return path


@pytest.fixture
def ask(database: str) -> Iterator[Callable[..., list[tuple[Any, ...]]]]:
    """Columns of a view, of some rows, sorted."""
    with opened(database) as connected:

        def asked(view: str, columns: str, where: str = "estab = '2'") -> list[tuple[Any, ...]]:
            return connected(f"SELECT {columns} FROM oneroster.{view} WHERE {where} ORDER BY ALL")

        yield asked


def tuesday_of(moment: date) -> date:
    return moment - timedelta(days=moment.weekday())


# what each view says


@pytest.mark.sample(6)
@pytest.mark.parametrize("view", VIEWS, ids=NAMES)
def test_a_view_has_the_grain_that_it_states(view, database: str) -> None:
    assert view.about["question"].endswith("?") and view.about["grain"].startswith("one row per ")
    with opened(database) as connected:
        (rows, keys), *_ = connected(
            f"SELECT count(*), count(DISTINCT ({view.about['key']})) FROM oneroster.{view.name}"
        )
        assert rows == keys > 0
        if "estab" in view.about["key"]:
            found = connected(f"SELECT DISTINCT estab FROM oneroster.{view.name} ORDER BY 1")
            assert found == [(f"{n}",) for n in range(1, 8)]


def test_students(ask) -> None:
    expected = [
        ("1", name, given, family, grade, "school", "School 1")
        for name, (grade, given, family) in PUPILS.items()
    ]
    columns = "estab, sourced_id, given_name, family_name, year_group, school_sourced_id,"
    assert ask("students", f"{columns} school_name", "estab = '1'") == expected
    assert ask("students", "sourced_id") == [("p1",), ("p2",), ("p3",)]


def spread(school: School) -> School:
    school.add("orgs", {"sourcedId": "other", "name": "Other", "type": "School"})
    orgs = {"p1": ["authority", "other", "school"], "p2": ["authority"], "p3": None}
    for name, ids in orgs.items():
        school.change("users", name, orgSourcedIds=ids)
    return school


def test_a_user_belongs_to_the_first_org_that_is_a_school(ask) -> None:
    columns = "sourced_id, school_sourced_id, school_name"
    assert ask("students", columns, "estab = '6'") == [
        ("p1", "other", "Other"),
        ("p2", "authority", "Westmere"),
        ("p3", None, None),
        ("p4", "school", "School 6"),
    ]


def test_staff(ask) -> None:
    expected = sorted((name, role, given) for name, (role, given, _) in STAFF.items())
    assert ask("staff", "sourced_id, role, given_name") == expected


def test_current_enrollments(ask) -> None:
    before = {
        f"{name}-{who}"
        for name, (_, teacher, pupils) in CLASSES.items()
        for who in (teacher, *pupils)
    } | {"7A-a1"}
    assert ask("current_enrollments", "sourced_id", "estab = '1'") == sorted((n,) for n in before)
    now = before - {"7A/En-p1", "7A/Ma-p3", "8A/Ma-p4", "8A/Ma-t2"} | {"8A/Ma-t1", "7A-t2"}
    assert ask("current_enrollments", "sourced_id") == sorted((name,) for name in now)


DATES = {
    # enrollment: first day, last day, whether it holds today
    "7A-p1": (None, None, True),
    "7A-p2": (None, day(0), True),
    "7A-p3": (day(0), None, True),
    "7A/Ma-p1": (day(0), day(0), True),
    "7A/Ma-p2": (day(1), None, False),
    "7A/Ma-p3": (None, day(-1), False),
}


def dated(school: School) -> School:
    for name, (begin, end, _) in DATES.items():
        school.change("enrollments", name, beginDate=begin, endDate=end)
    return school


def test_an_enrollment_without_dates_counts_and_its_last_day_too(ask) -> None:
    found = {name for (name,) in ask("current_enrollments", "sourced_id", "estab = '4'")}
    assert {name: name in found for name in DATES} == {n: now for n, (*_, now) in DATES.items()}


UNREAD = {
    # enrollment: first day, last day, state
    "7A-p1": ("soon", None, "unknown"),
    "7A-p2": (None, "31/07/2026", "unknown"),
    "7A-p3": (day(0), "later", "unknown"),
    "7A-t1": ("soon", day(5), "unknown"),
    "7A-a1": ("2026-09-01T12:00:00Z", "never", "unknown"),
    "7A/Ma-p1": ("soon", day(-1), "past"),
    "7A/Ma-p2": (day(1), "later", "upcoming"),
    # something else could not be read
    "7A/Ma-p3": (None, None, "current"),
    "7A/Ma-t1": ("", "", "current"),
    # deleted ones are in no view
    "7A/En-p1": ("soon", None, None),
    "8A/Ma-p4": ("soon", None, "unknown"),
}


def unread(school: School) -> School:
    for name, (begin, end, _) in UNREAD.items():
        school.change("enrollments", name, beginDate=begin, endDate=end)
    school.change("enrollments", "7A/Ma-p3", primary="perhaps", dateLastModified="yesterday")
    # of a row with the same id, but no enrollment, and of one at another school
    school.change("users", "p4", enabledUser="perhaps")
    school.delete("enrollments", "7A/En-p1")
    return school


def test_where_a_date_could_not_be_read_the_state_is_unknown_and_nobody_is_counted(ask) -> None:
    here = "estab = '7'"
    states = dict(ask("enrollment_states", "sourced_id, state", here))
    assert {name: states.get(name) for name in UNREAD} == {n: s for n, (*_, s) in UNREAD.items()}
    rest = {name: state for name, state in states.items() if name not in UNREAD}
    assert len(rest) == 3 and set(rest.values()) == {"current"}
    now = {name for (name,) in ask("current_enrollments", "sourced_id", here)}
    assert now == {name for name, state in states.items() if state == "current"}
    timeline = dict(ask("pupil_timeline", "enrollment_sourced_id, state", here))
    assert timeline == {n: s for n, s in states.items() if n.partition("-")[2].startswith("p")}
    columns = "class_title, students, students_ever, teachers"
    assert ask("class_sizes", columns, here) == [
        ("7A", 0, 3, 0),
        ("7A/En", 1, 1, 1),
        ("7A/Ma", 1, 3, 1),
        ("8A/Ma", 0, 1, 1),
    ]
    rosters = ask("class_rosters", "class_title, teachers, student_sourced_id, is_current", here)
    assert rosters == [
        ("7A", None, "p1", False),
        ("7A", None, "p2", False),
        ("7A", None, "p3", False),
        ("7A/En", "Bo Birch", "p2", True),
        ("7A/Ma", "Ada Ash", "p1", False),
        ("7A/Ma", "Ada Ash", "p2", False),
        ("7A/Ma", "Ada Ash", "p3", True),
        ("8A/Ma", "Bo Birch", "p4", False),
    ]
    taught = ask("teacher_timetables", "teacher_sourced_id, class_title, is_current", here)
    assert taught == [
        ("t1", "7A", False),
        ("t1", "7A/Ma", True),
        ("t2", "7A/En", True),
        ("t2", "8A/Ma", True),
    ]
    assert ask("year_groups", "year_group, students, classes", here) == [("7", 3, 2), ("8", 1, 0)]
    as_of = dict(ask("enrollments_as_of", "enrollment_sourced_id, are_dates_known", here))
    unknown = {
        n for n, (*dates, s) in UNREAD.items() if s and {*dates} & {"soon", "later", "never"}
    }
    assert {n for n, known in as_of.items() if not known} == {*unknown, "7A-p2"}
    # elsewhere the same enrollments are known
    assert {s for (s,) in ask("enrollment_states", "state", "estab = '1'")} == {"current"}


@pytest.mark.slow
def test_an_enrollment_whose_dates_are_mended_counts_again(serve, sync, warehouse) -> None:
    school = unread(small_school("7"))
    server = serve(school)
    query = "SELECT sourced_id FROM oneroster.current_enrollments WHERE sourced_id = '7A-p1'"
    for options in ({}, {"full": True}):
        school.change("enrollments", "7A-p1", beginDate="soon")
        sync(server, school)
        with opened(warehouse.name) as connected:
            assert connected(query) == []
        school.change("enrollments", "7A-p1", beginDate=day(-1))
        sync(server, school, **options)
        with opened(warehouse.name) as connected:
            assert connected(query) == [("7A-p1",)]


def test_class_rosters(ask) -> None:
    columns = "class_title, course_title, terms, teachers, student_sourced_id, begin_date,"
    columns += " end_date, is_current"
    terms = ", ".join(TERMS)
    assert ask("class_rosters", columns) == [
        ("7A", None, terms, "Ada Ash, Bo Birch", "p1", BEGIN, END, True),
        ("7A", None, terms, "Ada Ash, Bo Birch", "p2", BEGIN, END, True),
        ("7A", None, terms, "Ada Ash, Bo Birch", "p3", BEGIN, END, True),
        ("7A/En", "English 7", terms, "Bo Birch", "p1", BEGIN, date.fromisoformat(day(-7)), False),
        ("7A/En", "English 7", terms, "Bo Birch", "p2", BEGIN, END, True),
        ("7A/Ma", "Mathematics 7", terms, "Ada Ash", "p1", BEGIN, END, True),
        ("7A/Ma", "Mathematics 7", terms, "Ada Ash", "p2", BEGIN, END, True),
        ("Art", None, None, None, "p2", date.fromisoformat(day(7)), END, False),
    ]


def returned(school: School) -> School:
    school.change("enrollments", "7A-p1", endDate=day(-40))
    school.add("enrollments", enrollment("again", "student", "p1", "7A", beginDate=day(-20)))
    return school


def test_a_pupil_who_left_and_came_back_is_on_the_roster_once(ask) -> None:
    p1 = "estab = '5' AND class_title = '7A' AND student_sourced_id = 'p1'"
    assert ask("class_rosters", "begin_date, end_date, is_current", p1) == [(BEGIN, END, True)]


def test_class_sizes(ask) -> None:
    assert ask("class_sizes", "class_title, students, students_ever, teachers") == [
        ("7A", 3, 3, 2),
        ("7A/En", 1, 2, 1),
        ("7A/Ma", 2, 2, 1),
        ("8A/Ma", 0, 0, 1),
        ("Art", 0, 1, 0),
    ]


def test_teacher_timetables(ask) -> None:
    columns = "teacher_sourced_id, class_title, periods, students, is_primary, is_current"
    assert ask("teacher_timetables", columns) == [
        ("t1", "7A", "1, 3", 3, True, True),
        ("t1", "7A/Ma", "1, 3", 2, True, True),
        ("t1", "8A/Ma", "1, 3", 0, False, True),
        ("t2", "7A", "1, 3", 3, False, True),
        ("t2", "7A/En", "1, 3", 1, True, True),
        ("t2", "8A/Ma", "1, 3", 0, True, False),
    ]


def test_enrollment_changes(ask) -> None:
    """Who joins does so on the first day; who leaves, on the last one, or when it was deleted."""
    joins = {("student", BEGIN): 9, ("teacher", BEGIN): 5, ("aide", BEGIN): 1}
    joins["teacher", TODAY - timedelta(days=29)] = 1
    leaves = {
        ("student", TODAY - timedelta(days=7)): 1,
        ("student", TODAY - timedelta(days=9)): 1,
        ("teacher", TODAY - timedelta(days=30)): 1,
    }
    weeks: dict[tuple[date, str], list[int]] = {}
    for place, events in enumerate((joins, leaves)):
        for (role, when), count in events.items():
            weeks.setdefault((tuesday_of(when), role), [0, 0])[place] += count
    expected = sorted((week, role, j, n, j - n) for (week, role), (j, n) in weeks.items())
    assert ask("enrollment_changes", "week, role, joins, leaves, net") == expected


def test_pupil_timeline(ask) -> None:
    columns = "student_sourced_id, class_title, state"
    assert ask("pupil_timeline", columns, "estab = '2' AND student_sourced_id < 'p3'") == [
        ("p1", "7A", "current"),
        ("p1", "7A/En", "past"),
        ("p1", "7A/Ma", "current"),
        ("p2", "7A", "current"),
        ("p2", "7A/En", "current"),
        ("p2", "7A/Ma", "current"),
        ("p2", "Art", "upcoming"),
    ]


def test_year_groups(ask) -> None:
    assert ask("year_groups", "year_group, students, classes", "estab = '1'") == [
        ("7", 3, 3),
        ("8", 1, 1),
    ]
    assert ask("year_groups", "year_group, students, classes") == [("7", 3, 3)]


def test_school_summary(ask) -> None:
    columns = "school_name, students, staff, teachers, classes, average_class_size"
    ((name, *counts, average),) = ask("school_summary", columns, "estab = '1'")
    assert (name, counts, float(average)) == ("School 1", [4, 4, 2, 4], 2.3)
    ((name, *counts, average),) = ask("school_summary", columns)
    assert (name, counts, float(average)) == ("School 2", [3, 4, 2, 3], 2.0)
    ((change, load_),) = ask("school_summary", "last_change, last_load", "estab = '1'")
    assert change == datetime.fromisoformat(f"{TODAY - timedelta(days=60)}T12:00:00+00:00")
    assert load_.date() >= TODAY


def test_sync_runs_and_their_details(serve, sync, warehouse) -> None:
    schools = [small_school("1"), small_school("2")]
    server = serve(*schools)
    schools[1].forbidden = {"users"}
    reports = [sync(server, *schools) for _ in range(2)]
    columns = "run_id, estab, endpoint, mode, outcome, requests, rows_read, changed, deleted, gone,"
    with opened(warehouse.name) as connected:
        found = connected(f"SELECT {columns} rejected FROM oneroster.sync_run_details ORDER BY ALL")
        ((reason, when),) = connected(
            "SELECT DISTINCT reason, outcome FROM oneroster.sync_run_details"
            " WHERE outcome <> 'read'"
        )
        runs = connected(
            "SELECT run_id, schools, collections, failed, read_in_full, requests, rows_read"
            " FROM oneroster.sync_runs ORDER BY started"
        )
    assert found == sorted(
        (
            *(r.run_id, o.estab, o.endpoint, o.mode, o.state, o.requests),
            *(o.rows, o.changed, o.deleted, o.gone, o.rejected),
        )
        for r in reports
        for o in r.outcomes
    )
    assert when == "failed" and reason.startswith("school 2, users") and "403" in reason
    assert runs == [
        (
            r.run_id,
            2,
            12,
            1,
            sum(o.mode == "full" for o in r.outcomes),
            sum(o.requests for o in r.outcomes),
            sum(o.rows for o in r.outcomes),
        )
        for r in reports
    ]


# deleted rows


SHOWS_DELETED = {"enrollment_changes", "school_loads", "school_summary", "sync_runs"}
"""Counts only: who left is told by what was deleted."""


TELLS = {
    "orgs": ["School 1"],
    "users": [given for _, given, _ in (*STAFF.values(), *PUPILS.values())],
    "classes": [f"'{name}'" for name in CLASSES],
    "courses": ["Mathematics", "English"],
    "academic_sessions": list(TERMS),
    "enrollments": ["7A/En-p1"],
}
"""Words by which a row of a table is known."""
VERSIONED = {"users", "classes", "enrollments"}
REFERS = {("classes", "enrollment_states")}
"""The ids of these rows are known from others, which refer to them."""


@pytest.mark.slow
def test_deleted_rows_show_in_no_view(tmp_path) -> None:
    path = str(tmp_path / "roster.duckdb")
    load(path, small_school())
    with duckdb.connect(path) as connection:
        for table, words in TELLS.items():
            connection.execute("BEGIN")
            connection.execute(f"UPDATE oneroster.{table} SET _deleted = TRUE")
            if table in VERSIONED:
                connection.execute(f"UPDATE oneroster.{table}_history SET _deleted = TRUE")
            for view in sorted(set(NAMES) - SHOWS_DELETED):
                if (table, view) in REFERS:
                    continue
                text = str(connection.execute(f"FROM oneroster.{view}").fetchall())
                # what hangs on it may go with it, or stay without it
                assert not [word for word in words if word in text], (table, view)
            connection.execute("ROLLBACK")
        every = "".join(
            str(connection.execute(f"FROM oneroster.{view}").fetchall()) for view in NAMES
        )
    assert all(word in every for words in TELLS.values() for word in words)


# how they are made


def test_they_are_the_same_on_postgres(fleet, database: str, postgres: str) -> None:
    load(postgres, *fleet)
    when = {"last_load", "run_id", "started", "ended", "seconds", "made_of"}
    when |= {"last_good_load", "last_full_read", "valid_from", "valid_to"}
    with opened(database) as duckdb_says, opened(postgres) as postgres_says:
        for name in [*NAMES, GUIDE]:
            columns = [
                f'"{column}"'
                for (column,) in duckdb_says(
                    "SELECT column_name FROM information_schema.columns"
                    f" WHERE table_name = '{name}' ORDER BY ordinal_position"
                )
                if column not in when
            ]
            rows = [
                sorted(says(f"SELECT {', '.join(columns)} FROM oneroster.{name}"), key=_as_text)
                for says in (duckdb_says, postgres_says)
            ]
            assert rows[0] == rows[1], name


def _as_text(row: tuple[Any, ...]) -> list[str]:
    return list(map(str, row))


@pytest.mark.slow
def test_a_view_is_made_where_its_tables_are(serve, sync, warehouse) -> None:
    school = small_school()
    server = serve(school)
    assert sync(server, school, endpoints=["users", "orgs"]).good
    with opened(warehouse.name) as connected:
        some = {n for (n,) in connected(f"SELECT view_name FROM oneroster.{GUIDE}")}
    assert some == {"school_loads", "students", "staff", "sync_runs", "user_schools"}
    assert sync(server, school, history=True).good
    with opened(warehouse.name) as connected:
        assert sorted(connected(f"SELECT view_name FROM oneroster.{GUIDE}")) == [
            (name,) for name in sorted(NAMES)
        ]


def test_a_view_that_reads_another_comes_after_it() -> None:
    tables = {t for view in VIEWS for t in view.tables} - set(NAMES)
    made: set[str] = set()
    for view in in_order(reversed(VIEWS), tables):
        assert view.tables <= made | tables
        made.add(view.name)
    assert made == set(NAMES)


def identities(url: str) -> dict[str, int]:
    with opened(url) as connected:
        return dict(connected("SELECT relname, oid::int FROM pg_class WHERE relkind = 'v'"))


def test_what_has_not_changed_is_left_alone_and_what_is_missing_comes_back(
    serve, postgres: str
) -> None:
    school = small_school()
    found = settings(serve(school), school) | {"history": True}
    warehouse = Warehouse(postgres)
    warehouse.load(Report(), **found)

    def versions() -> dict[str, str]:
        with opened(postgres) as connected:
            query = "SELECT c.relname, r.xmin::text FROM pg_class c JOIN pg_rewrite r"
            return dict(
                connected(
                    f"{query} ON r.ev_class = c.oid WHERE c.relkind = 'v'"
                    " AND c.relnamespace = 'oneroster'::regnamespace"
                )
            )

    before = versions()
    assert before.keys() == {*NAMES, GUIDE}
    warehouse.load(Report(), **found)
    assert versions() == before
    execute(postgres, "DROP VIEW oneroster.year_groups")
    warehouse.load(Report(), **found)
    assert versions().keys() == before.keys()


@pytest.mark.slow
def test_views_of_an_older_kind_are_replaced(serve, postgres: str) -> None:
    school = small_school()
    found = settings(serve(school), school)
    Warehouse(postgres).load(Report(), **found)
    execute(postgres, "DROP VIEW oneroster.year_groups, oneroster.students")
    execute(postgres, "CREATE VIEW oneroster.students AS SELECT 1 AS other")
    report = Report()
    Warehouse(postgres).load(report, **found)
    assert report.good
    with opened(postgres) as connected:
        assert connected("SELECT count(*) FROM oneroster.students") == [(len(PUPILS),)]


@pytest.mark.slow
def test_a_view_that_cannot_be_made_is_told_and_the_rows_are_loaded(serve, postgres: str) -> None:
    school = small_school()
    found = settings(serve(school), school)
    Warehouse(postgres).load(Report(), **found)
    execute(postgres, "DROP VIEW oneroster.year_groups, oneroster.students")
    execute(postgres, "CREATE VIEW oneroster.students AS SELECT 1 AS other")
    execute(postgres, "CREATE VIEW public.mine AS SELECT * FROM oneroster.students")
    school.change("users", "p1", givenName="Evelyn")
    report = Report()
    Warehouse(postgres).load(report, **found)
    (problem,) = report.problems
    assert "the views could not be made" in problem and "oneroster views" in problem
    with opened(postgres) as connected:
        names = connected("SELECT given_name FROM oneroster.users WHERE sourced_id = 'p1'")
        assert names == [("Evelyn",)]
        assert connected("SELECT count(*) FROM oneroster.staff") == [(len(STAFF),)]


@pytest.mark.slow
def test_postgres_gets_its_indexes_once_and_statistics_of_what_was_loaded(
    serve, postgres: str
) -> None:
    school = small_school()
    found = settings(serve(school), school)
    Warehouse(postgres).load(Report(), **found)
    query = "SELECT indexrelname FROM pg_stat_user_indexes WHERE schemaname = 'oneroster'"
    with opened(postgres) as connected:
        before = set(connected(query))
        analyzed = "SELECT relname FROM pg_stat_user_tables WHERE last_analyze IS NOT NULL"
        assert {"users", "enrollments", "users__grades"} <= {n for (n,) in connected(analyzed)}
    assert {("users__by_sourced_id",), ("enrollments__by_user_sourced_id",)} <= before
    school.change("users", "p1", givenName="Evelyn")
    report = Report()
    Warehouse(postgres).load(report, **found)
    with opened(postgres) as connected:
        assert report.good and set(connected(query)) == before
