"""The register of columns: whole, true of a database, and careful about people."""

from __future__ import annotations

import re
from typing import Any

import duckdb
import pytest
from support.settings import settings

from oneroster_source.config.options import Options
from oneroster_source.config.privacy import privacy
from oneroster_source.model import V1P1
from oneroster_source.reporting.fields import Entry, entries
from oneroster_source.run_report import Report
from oneroster_source.simulator import Simulator, secondary_school, spoil
from oneroster_source.warehouse import Warehouse

# what they share is loaded once
pytestmark = pytest.mark.xdist_group("register")

KEY = "a key that no school has ever used"
TYPES = {
    "text": "VARCHAR",
    "bool": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP WITH TIME ZONE",
    "json": "JSON",
    "bigint": "BIGINT",
    "double": "DOUBLE",
}
NOT_MADE = re.compile(r".*_history|suppressed_users")
"""Tables that are made only where somebody wants versions, or was erased."""
OF_PEOPLE = re.compile(
    r"user|enrol|person|pupil|student|teacher|agent|(given|middle|family)_name|mail|phone|sms"
    r"|password|birth|digest|metadata|extra"
)
Loaded = dict[str, dict[tuple[str, str], tuple[str, list[Any]]]]


def register(**options: Any) -> list[Entry]:
    return list(entries(privacy(Options(**options), V1P1)))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """Type and values of each column of two databases, by profile and place."""
    school = secondary_school(3, pupils=30)
    spoil(school)
    for user in school.rows("users")[:3]:
        school.change(
            "users",
            user["sourcedId"],
            password="pass",
            sms="07700 900001",
            metadata={"of": "a person"},
            agents=[{"sourcedId": "x1", "type": "user", "href": "https://any/users/x1"}],
            enabledUser="perhaps",
        )
    warehouses = {
        profile: Warehouse(str(tmp_path_factory.mktemp(profile) / "roster.duckdb"))
        for profile in ("full", "pseudonymous")
    }
    with Simulator([school]) as server:
        for profile, warehouse in warehouses.items():
            chosen = {**settings(server, school), "privacy": profile, "privacy_key": KEY}
            warehouse.load(Report(), **chosen, history=True)
    warehouses["pseudonymous"].check_quality()
    found = {}
    for profile, warehouse in warehouses.items():
        with duckdb.connect(warehouse.name, read_only=True) as connection:
            found[profile] = {
                (table, column): (kind, _values(connection, table, column))
                for table, column, kind in connection.sql(
                    "SELECT table_name, column_name, data_type FROM information_schema.columns"
                    " JOIN information_schema.tables USING (table_schema, table_name)"
                    " WHERE table_schema = 'oneroster' AND table_type = 'BASE TABLE'"
                    " AND table_name NOT LIKE '\\_dlt%' ESCAPE '\\'"
                    " AND column_name NOT LIKE '\\_dlt%' ESCAPE '\\'"
                ).fetchall()
            }
    return found


def _values(connection: duckdb.DuckDBPyConnection, table: str, column: str) -> list[Any]:
    query = f'SELECT "{column}" AS c FROM oneroster.{table} WHERE c IS NOT NULL ORDER BY c'
    return [value for (value,) in connection.sql(query).fetchall()]


def test_every_column_of_every_table_has_a_meaning() -> None:
    for table in V1P1.tables:
        for column in table.columns:
            assert column.about, f"{table.name}.{column.name}"
            assert not column.about.endswith((".", " ")), f"{table.name}.{column.name}"


def test_it_covers_exactly_the_columns_of_a_database(loaded: Loaded) -> None:
    there = {place: kind for place, (kind, _) in loaded["pseudonymous"].items()}
    tables = {table for table, _ in there}
    expected = {(e.table, e.column): TYPES[e.type] for e in register(privacy="full")}
    assert {p: kind for p, kind in expected.items() if p[0] in tables} == there
    assert all(NOT_MADE.fullmatch(table) for table, _ in expected if table not in tables)


def test_a_database_holds_what_is_kept_and_nothing_else(loaded: Loaded) -> None:
    whole, held = loaded["full"], loaded["pseudonymous"]
    # of each run
    own = {"sync_run_details", "quality_results", "history_kept"}
    for entry in register(privacy="pseudonymous", privacy_key=KEY):
        place = (entry.table, entry.column)
        if place not in held:
            continue
        values = held[place][1]
        if entry.kept == "left out":
            assert values == [], place
        elif entry.kept == "kept":
            assert place[0] in own or place[1].startswith("valid_") or values == whole[place][1], (
                place
            )
        elif entry.table not in ("rejected_rows", "quality_results"):
            # those two hold ids of other rows too
            assert len(values) == len(whole[place][1]), place
            assert all(re.fullmatch(r"[0-9a-f]{64}", value) for value in values), place


def test_what_is_told_of_a_profile_is_told_of_columns_that_hold_something(loaded: Loaded) -> None:
    changed = {
        (e.table, e.column)
        for e in register(privacy="pseudonymous", privacy_key=KEY)
        if e.kept != "kept" and (e.table, e.column) in loaded["full"]
    }
    empty = {place for place in changed if not loaded["full"][place][1]}
    assert {table for table, _ in empty}.isdisjoint({"users", "users__agents", "enrollments__user"})


def test_no_id_of_a_person_is_anywhere_that_says_pseudonym(loaded: Loaded) -> None:
    people = set(loaded["full"]["users", "sourced_id"][1])
    people |= set(loaded["full"]["enrollments", "sourced_id"][1])
    assert people.intersection(loaded["full"]["rejected_rows", "sourced_id"][1])
    assert loaded["pseudonymous"]["quality_results", "examples"][1]
    for place, (_, values) in loaded["pseudonymous"].items():
        for value in filter(lambda value: isinstance(value, str), values):
            assert people.isdisjoint(re.split(r"[\s\"\[\],/]+", value)), place


def test_what_can_tell_of_a_person_is_personal() -> None:
    for entry in register(privacy="full"):
        named = OF_PEOPLE.search(f"{entry.table}.{entry.column}.{entry.source}")
        if named and entry.column not in ("estab", "position"):
            assert entry.personal, f"{entry.table}.{entry.column}"
    for table in V1P1.tables:
        assert all(table.is_personal(column) for column in table.columns if column.holds)


def test_what_is_personal_in_tables_about_others() -> None:
    personal = {f"{e.table}.{e.column}" for e in register(privacy="full") if e.personal}
    about = re.compile(r"(users|enrollments|suppressed_users)(_|\.)")
    assert {place for place in personal if not about.match(place)} == {
        *(
            f"{table}.{column}"
            for table in ("orgs", "academic_sessions", "courses")
            for column in ("metadata", "extra")
        ),
        *(
            f"{table}.{column}"
            for table in ("classes", "classes_history")
            for column in ("title", "metadata", "extra")
        ),
        "rejected_rows.sourced_id",
        "quality_results.examples",
    }


def test_what_is_sensitive() -> None:
    own = ("username", "identifier", "email", "sms", "phone", "password", "metadata", "extra")
    assert {f"{e.table}.{e.column}" for e in register(privacy="full") if e.sensitive} == {
        "users__user_ids.identifier",
        *(f"{table}.{column}" for table in ("users", "users_history") for column in own),
        *(
            f"{table}.{column}"
            for table in ("enrollments", "enrollments_history")
            for column in ("metadata", "extra")
        ),
    }


def test_where_a_column_comes_from() -> None:
    source = {(e.table, e.column): e.source for e in register(privacy="full")}
    assert source["academic_sessions", "start_date"] == "academicSessions.startDate"
    assert source["users_history", "family_name"] == "users.familyName"
    assert source["enrollments", "user_sourced_id"] == "enrollments.user.sourcedId"
    assert source["users__orgs", "user_sourced_id"] == "users.sourcedId"
    assert source["users__orgs", "sourced_id"] == "users.orgs.sourcedId"
    assert source["users__user_ids", "identifier"] == "users.userIds.identifier"
    assert source["users__grades", "value"] == "users.grades"
    assert source["users", "extra"] == source["users", "estab"] == ""


def test_versions_are_kept_as_the_rows_that_they_are_of() -> None:
    kept = {(e.table, e.column): e.kept for e in register(privacy="pseudonymous", privacy_key=KEY)}
    for (table, column), state in kept.items():
        if table.endswith("_history") and not column.startswith("valid_"):
            assert state == kept[table.removesuffix("_history"), column], (table, column)


def test_ids_of_all_people_must_be_pseudonyms_for_those_in_reports_to_be_called_so() -> None:
    def kept(*columns: str) -> str:
        found = register(privacy="full", pseudonymize=list(columns), privacy_key=KEY)
        return next(e.kept for e in found if (e.table, e.column) == ("rejected_rows", "sourced_id"))

    assert kept("users.sourced_id") == "kept"
    assert kept("users.sourced_id", "enrollments.sourced_id") == "pseudonym"
