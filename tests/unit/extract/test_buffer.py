"""Where collections wait: nothing is lost on the way, and every sourcedId comes out once."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from oneroster_source.extract import buffer as spools
from oneroster_source.extract.buffer import Buffer
from oneroster_source.model import V1P1
from oneroster_source.transform.duckdb_engine import Engine
from oneroster_source.transform.flatten import flatten
from oneroster_source.transform.parser import PageParser

PARSER = PageParser(V1P1["users"], Engine())


def wide(*users: dict[str, Any]) -> pa.Table:
    return PARSER.parse(json.dumps({"users": users}).encode())


def user(key: str, day: int | None = 1, grades: str = "") -> dict[str, Any]:
    stamp = {} if day is None else {"dateLastModified": f"2026-01-{day:02}T00:00:00Z"}
    return {"sourcedId": key, "grades": list(grades), **stamp}


def given_out(buffer: Buffer) -> list[tuple[str, str]]:
    """Each user that comes out, with the grades that do."""
    found = []
    for table in buffer.tables():
        tables = {
            name: rows.to_pylist() for name, rows in flatten(table, PARSER.endpoint, "1").items()
        }
        for row in tables["users"]:
            grades = [
                g for g in tables["users__grades"] if g["user_sourced_id"] == row["sourced_id"]
            ]
            found.append((row["sourced_id"], "".join(g["value"] for g in grades)))
    return found


@pytest.fixture
def buffer() -> Any:
    made = Buffer()
    yield made
    made.close()


def test_rows_come_out_as_they_went_in_without_those_that_are_known(buffer: Buffer) -> None:
    buffer.add(wide(user("a"), user("b")), 0)
    buffer.add(wide(user("b"), user("c", grades="89")), 1)
    assert given_out(buffer) == [("a", ""), ("b", ""), ("c", "89")]
    assert buffer.rows == 3
    assert buffer.keys() == {"a", "b", "c"}


@pytest.mark.parametrize("newer_first", [True, False])
@pytest.mark.parametrize("same_page", [True, False])
def test_of_one_id_that_comes_twice_the_newest_is_kept_with_its_children(
    buffer: Buffer, newer_first: bool, same_page: bool
) -> None:
    twins = [user("b", 1, grades="789"), user("b", 2, grades="1")]
    if newer_first:
        twins.reverse()
    if same_page:
        buffer.add(wide(user("a"), *twins, user("c")), 0)
    else:
        buffer.add(wide(user("a"), twins[0]), 0)
        buffer.add(wide(twins[1], user("c")), 0)
    assert sorted(given_out(buffer)) == [("a", ""), ("b", "1"), ("c", "")]


def test_repeats_that_are_far_apart_are_found_when_they_are_expected(buffer: Buffer) -> None:
    buffer.add(wide(user("a", None, grades="7"), user("b")), 0)
    buffer.add(wide(user("c"), user("a", 5, grades="8")), 0)
    buffer.expect_repeats()
    assert sorted(given_out(buffer)) == [("a", "8"), ("b", ""), ("c", "")]


def problems(buffer: Buffer) -> list[tuple[str, str]]:
    """What `rejected_rows` gets, by sourcedId."""
    rejected = (flatten(table, PARSER.endpoint, "1")["rejected_rows"] for table in buffer.tables())
    rows = (row for table in rejected for row in table.to_pylist())
    return sorted((row["sourced_id"], row["reason"]) for row in rows)


TWINS = user("b", 1, "7"), user("b", 2, "8"), user("b", 2, "9")


@pytest.mark.parametrize("page_size", [1, 2, 3, 5])
def test_ids_on_several_rows_with_different_content_are_told_once(
    buffer: Buffer, page_size: int
) -> None:
    users = [user("a"), *TWINS, user("c")]
    for begin in range(0, len(users), page_size):
        # with the last row of the page before, as the reader asks for pages
        page = users[max(begin - 1, 0) : begin + page_size]
        buffer.add(wide(*page), 1 if begin else 0)
    assert buffer.conflicting_ids() == {"b"}
    assert problems(buffer) == [("b", "sent more than once")]
    assert sorted(given_out(buffer)) == [("a", ""), ("b", "9"), ("c", "")]


def test_rows_that_differ_in_nothing_but_their_stamps_are_no_finding(buffer: Buffer) -> None:
    buffer.add(wide(user("a"), user("a"), user("b", 1), user("b", 2)), 0)
    assert buffer.conflicting_ids() == set() and problems(buffer) == []
    assert sorted(given_out(buffer)) == [("a", ""), ("b", "")]


def test_rows_that_the_reading_brought_twice_are_no_finding_unless_one_page_holds_both(
    buffer: Buffer,
) -> None:
    buffer.add(wide(user("a", 1, "7"), user("b"), *TWINS[1:]), 0)
    buffer.add(wide(user("a", 2, "8"), user("c", 1, "7")), 0)
    buffer.add(wide(user("c", 1, "7"), user("c", 1, "8")), 1)
    buffer.expect_repeats()
    assert problems(buffer) == [(key, "sent more than once") for key in "bc"]
    assert sorted(given_out(buffer)) == [("a", "8"), ("b", "9"), ("c", "8")]


def test_a_problem_of_the_row_itself_stays_beside(buffer: Buffer) -> None:
    odd = [user("b") | {"enabledUser": text} for text in ("perhaps", "never")]
    buffer.add(wide(*odd), 0)
    assert problems(buffer) == [("b", "enabledUser: not a boolean"), ("b", "sent more than once")]


def test_twins_of_a_pass_that_begins_again_are_forgotten(buffer: Buffer) -> None:
    buffer.add(wide(*TWINS), 0)
    buffer.expect_repeats()
    buffer.clear()
    buffer.add(wide(TWINS[0]), 0)
    assert buffer.conflicting_ids() == set() and problems(buffer) == []


def test_whether_no_row_has_an_id(buffer: Buffer) -> None:
    assert not buffer.has_no_ids
    buffer.add(wide({"username": "x"}, {"sourcedId": "x" * 1001}), 0)
    assert buffer.has_no_ids
    assert buffer.problems() == {"no sourcedId": 1, "sourcedId: too long": 1}
    buffer.add(wide(user("a")), 0)
    assert not buffer.has_no_ids
    buffer.clear()
    assert not buffer.has_no_ids


def test_rows_without_an_id_are_not_taken_for_repeats(buffer: Buffer) -> None:
    buffer.add(wide({"username": "x"}, {"username": "x"}, user("a")), 0)
    [table] = buffer.tables()
    assert len(flatten(table, PARSER.endpoint, "1")["rejected_rows"]) == 2


def test_a_pass_that_begins_again_forgets_the_rows_before(buffer: Buffer) -> None:
    buffer.add(wide(user("a", 3), user("a", 4)), 0)
    buffer.clear()
    buffer.add(wide(user("b", 2)), 0)
    assert given_out(buffer) == [("b", "")]
    newest = buffer.newest(datetime.max.replace(tzinfo=UTC))
    assert newest is not None and newest.day == 2


def test_the_newest_row_is_none_of_the_future(buffer: Buffer) -> None:
    buffer.add(wide(user("a", 3), user("b", 20), user("c", 5)), 0)
    until = datetime(2026, 1, 6, tzinfo=UTC)
    newest = buffer.newest(until)
    assert newest is not None and newest.day == 5
    assert buffer.newest(datetime(2026, 1, 1, tzinfo=UTC)) is None


def test_what_is_too_much_for_memory_goes_to_a_file_and_small_pages_come_out_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spools, "IN_MEMORY", 1000)
    monkeypatch.setattr(spools, "FEW_ROWS", 40)
    buffer = Buffer()
    for page in range(10):
        buffer.add(wide(*(user(f"{page:02}{i:02}") for i in range(10))), 0)
    sizes = [len(table) for table in buffer.tables()]
    assert sizes == [40, 40, 20]
    buffer.close()


def test_an_empty_collection_gives_nothing_out(buffer: Buffer) -> None:
    assert list(buffer.tables()) == []
    assert buffer.keys() == set()
