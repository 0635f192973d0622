"""Bodies in, tables out: pure, one case for each form in which providers write a value."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import available_timezones

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import slow

from oneroster_source.errors import BadResponse
from oneroster_source.model import V1P1, ChildList
from oneroster_source.transform.duckdb_engine import Engine
from oneroster_source.transform.flatten import flatten
from oneroster_source.transform.parser import PageParser

ENGINE = Engine()
PARSERS = {endpoint.name: PageParser(endpoint, ENGINE) for endpoint in V1P1.endpoints}


LONDON = PageParser(V1P1["enrollments"], ENGINE, time_zone="Europe/London")


def shaped(
    endpoint: str, *rows: Any, parser: PageParser | None = None, **options: bool
) -> dict[str, list[dict[str, Any]]]:
    """The tables that these objects become."""
    parser = parser or PARSERS[endpoint]
    body = json.dumps({parser.endpoint.collection: rows}).encode()
    tables = flatten(parser.parse(body), parser.endpoint, "1", **options)
    return {name: table.to_pylist() for name, table in tables.items()}


def row(endpoint: str, **attributes: Any) -> dict[str, Any]:
    """The one row that one object becomes."""
    return shaped(endpoint, {"sourcedId": "a", **attributes})[endpoint][0]


INSTANTS = {
    "2026-03-21T03:35:42.017Z": datetime(2026, 3, 21, 3, 35, 42, 17000, UTC),
    "2026-03-21T03:35:42Z": datetime(2026, 3, 21, 3, 35, 42, 0, UTC),
    "2026-03-21T04:35:42+01:00": datetime(2026, 3, 21, 3, 35, 42, 0, UTC),
    "2026-03-21T03:35:42.0171234Z": datetime(2026, 3, 21, 3, 35, 42, 17123, UTC),
    "2026-03-21T03:35:42": datetime(2026, 3, 21, 3, 35, 42, 0, UTC),
    "2026-03-21 03:35:42": datetime(2026, 3, 21, 3, 35, 42, 0, UTC),
    "2026-03-21": datetime(2026, 3, 21, 0, 0, 0, 0, UTC),
    "2026-03-21T03:35Z": datetime(2026, 3, 21, 3, 35, 0, 0, UTC),
    "2026-03-21T03": datetime(2026, 3, 21, 3, 0, 0, 0, UTC),
    "2026-03-21t03:35:42z": datetime(2026, 3, 21, 3, 35, 42, 0, UTC),
    "2026-03-21T03:35:42,5Z": datetime(2026, 3, 21, 3, 35, 42, 500_000, UTC),
    "2026-03-21T03:35:42.123456789Z": datetime(2026, 3, 21, 3, 35, 42, 123_456, UTC),
    "2026-03-21T03:35:42+0530": datetime(2026, 3, 20, 22, 5, 42, 0, UTC),
    "2026-03-21T03:35-05": datetime(2026, 3, 21, 8, 35, 0, 0, UTC),
    "2026-03-21T24:00:00Z": datetime(2026, 3, 22, 0, 0, 0, 0, UTC),
    "2026-12-31T23:59:60Z": datetime(2027, 1, 1, 0, 0, 0, 0, UTC),
    "": None,
    None: None,
}
NO_INSTANTS = [
    "yesterday",
    "infinity",
    "epoch",
    "2026-02-30T00:00:00Z",
    "0000-01-01T00:00:00Z",
    "9999-12-31T23:59:59-14:00",
    "294247-01-10T00:00:00Z",
    "20260321T033542Z",
    "2026-03-21T0335Z",
    "2026-03-21T24:00:01Z",
    "2026-03-21T03:35:60Z",
    "2026-03-21T03:35:42.Z",
    "2026-03-21T03:35:42+24:00",
    1700000000,
    {"a": 1},
]


@pytest.mark.parametrize(("sent", "read"), INSTANTS.items(), ids=map(str, INSTANTS))
def test_instants_become_utc(sent: Any, read: datetime | None) -> None:
    assert row("users", dateLastModified=sent)["date_last_modified"] == read


DATES = {
    "2026-09-01": date(2026, 9, 1),
    "2026-09-01T00:00:00": date(2026, 9, 1),
    "2026-09-01T00:00:00.000Z": date(2026, 9, 1),
    "2026-09-01T00:00:00+01:00": date(2026, 9, 1),
    "2026-09-01T00:00Z": date(2026, 9, 1),
    "2026-09-01T00": date(2026, 9, 1),
    "": None,
    None: None,
}
NO_DATES = [
    "2026-09-01T12:30:00",
    "01/09/2026",
    "infinity",
    "0000-01-01",
    "2026-13-01",
    20260901,
    "20260901",
    "2026-08-31T23:00:00Z",
    "2026-9-1  ",
    "2026-09-1Z",
    "99999-1-01",
    "1-1-1 (BC)",
    "-999-01-01",
]


@pytest.mark.parametrize(("sent", "read"), DATES.items(), ids=map(str, DATES))
def test_dates_stay_the_day_that_was_sent(sent: Any, read: date | None) -> None:
    assert row("enrollments", beginDate=sent)["begin_date"] == read


LOCAL_DATES = {
    # midnight of summer time, and of winter time, in London
    "2026-08-31T23:00:00Z": date(2026, 9, 1),
    "2026-08-31T23:00:00.000Z": date(2026, 9, 1),
    "2026-08-31T23:00Z": date(2026, 9, 1),
    "2026-08-31T22:00:00-01:00": date(2026, 9, 1),
    "2026-09-01T01:00:00+02:00": date(2026, 9, 1),
    "2026-08-31T24:00:00+01:00": date(2026, 9, 1),
    "2026-12-01T01:00:00+01:00": date(2026, 12, 1),
    # written as midnight, wherever that is
    "2026-09-01T00:00:00Z": date(2026, 9, 1),
    "2026-09-01T00:00:00": date(2026, 9, 1),
    "2026-09-01T00:00:00+05:00": date(2026, 9, 1),
    "2026-09-01": date(2026, 9, 1),
    # no midnight there
    "2026-12-31T23:00:00Z": None,
    "2026-08-31T23:00:00": None,
    "2026-08-31T23:00:01Z": None,
    "2026-09-01T12:00:00Z": None,
    "2026-08-32T23:00:00Z": None,
}


@pytest.mark.parametrize(("sent", "read"), LOCAL_DATES.items(), ids=map(str, LOCAL_DATES))
def test_an_instant_at_which_a_day_begins_where_the_school_is_is_that_day(
    sent: str, read: date | None
) -> None:
    tables = shaped("enrollments", {"sourcedId": "a", "beginDate": sent}, parser=LONDON)
    assert tables["enrollments"][0]["begin_date"] == read
    reasons = [r["reason"] for r in tables["rejected_rows"]]
    assert reasons == ([] if read else ["beginDate: not a date"])


def test_duckdb_knows_every_time_zone_that_can_be_set() -> None:
    zones = ", ".join(f"('{name}')" for name in sorted(available_timezones() - {"localtime"}))
    with duckdb.connect(":memory:", config={"enable_external_access": False}) as connection:
        query = f"SELECT timezone(z, now()) FROM (VALUES {zones}) AS zones (z)"
        assert len(connection.execute(query).fetchall()) > 400


def test_where_clocks_go_forward_at_midnight_the_day_begins_later() -> None:
    cairo = PageParser(V1P1["enrollments"], ENGINE, time_zone="Africa/Cairo")
    # 2026-04-24 began at one o'clock there
    sent = {"sourcedId": "a", "beginDate": "2026-04-23T22:00:00Z"}
    assert shaped("enrollments", sent, parser=cairo)["enrollments"][0]["begin_date"] == date(
        2026, 4, 24
    )


FLAGS: list[tuple[Any, bool | None]] = [
    (True, True),
    (False, False),
    ("true", True),
    ("False", False),
    ("1", True),
    (0, False),
    ("", None),
    (None, None),
]
NO_FLAGS = ["perhaps", 2, [True], "yes please"]


@pytest.mark.parametrize(("sent", "read"), FLAGS, ids=repr)
def test_flags_become_booleans(sent: Any, read: bool | None) -> None:
    assert row("users", enabledUser=sent)["enabled_user"] is read


@pytest.mark.parametrize(
    ("endpoint", "attribute", "column", "sent", "reason"),
    [("users", "dateLastModified", "date_last_modified", v, "a timestamp") for v in NO_INSTANTS]
    + [("enrollments", "beginDate", "begin_date", v, "a date") for v in NO_DATES]
    + [("users", "enabledUser", "enabled_user", v, "a boolean") for v in NO_FLAGS],
    ids=lambda value: repr(value)[:30],
)
def test_a_value_that_cannot_be_read_is_reported_and_kept_as_sent(
    endpoint: str, attribute: str, column: str, sent: Any, reason: str
) -> None:
    tables = shaped(endpoint, {"sourcedId": "a", attribute: sent})
    assert tables[endpoint][0][column] is None
    assert json.loads(tables[endpoint][0]["extra"]) == {attribute: sent}
    [rejected] = tables["rejected_rows"]
    assert rejected == {
        "estab": "1",
        "endpoint": endpoint,
        "sourced_id": "a",
        "position": 0,
        "reason": f"{attribute}: not {reason}",
    }


@pytest.mark.parametrize("sent", [{}, {"sourcedId": None}, {"sourcedId": ""}, 5, None, "x", [1]])
def test_a_row_without_sourced_id_is_reported_alone(sent: Any) -> None:
    tables = shaped("users", sent, {"sourcedId": "b"})
    assert [r["sourced_id"] for r in tables["users"]] == ["b"]
    assert [(r["sourced_id"], r["reason"]) for r in tables["rejected_rows"]] == [
        (None, "no sourcedId")
    ]


REFERENCES: dict[str, tuple[Any, tuple[Any, ...] | None, bool]] = {
    "an object": (
        {"href": "h", "sourcedId": "c1", "type": "class"},
        ("c1", "class", "h"),
        False,
    ),
    "an id": ("c1", ("c1", None, None), False),
    "a number": (7, ("7", None, None), False),
    "sourceId": ({"sourceId": "c1"}, ("c1", None, None), False),
    "sourceID": ({"sourceID": "c1", "type": "class"}, ("c1", "class", None), False),
    "sourcedID": ({"sourcedID": "c1"}, ("c1", None, None), False),
    "sourcedid": ({"href": "h", "sourcedid": "c1"}, ("c1", None, "h"), False),
    "names in .NET's case": (
        {"SourcedId": "c1", "Type": "class", "Href": "h"},
        ("c1", "class", "h"),
        False,
    ),
    "ID": ({"ID": 7}, ("7", None, None), False),
    "a list with sourcedID": ([{"SOURCEDID": "c1"}], ("c1", None, None), False),
    "an id in two cases": ({"sourcedid": "c2", "sourcedId": "c1"}, ("c1", None, None), True),
    "three plain values, and a name that is empty": (
        {"sourcedId": 1, "type": 2, "href": 3, "": ""},
        ("1", "2", "3"),
        True,
    ),
    "a list of one": ([{"sourcedId": "c1"}], ("c1", None, None), False),
    "a list of two": (["c1", "c2"], ("c1", None, None), True),
    "an object that says more": (
        {"sourcedId": "c1", "type": "class", "href": "h", "name": "7A"},
        ("c1", "class", "h"),
        True,
    ),
    "numbers, of the length of three texts": (
        {"sourcedId": 1, "type": 2, "href": 3, "a": 4},
        ("1", "2", "3"),
        True,
    ),
    "two ids": ({"sourcedId": "c1", "id": "c2"}, ("c1", None, None), True),
    "null": (None, None, False),
    "an empty text": ("", None, False),
    "an empty object": ({}, None, False),
    "an empty list": ([], None, False),
}


@pytest.mark.parametrize(
    ("sent", "read", "more"), REFERENCES.values(), ids=[f"as {name}" for name in REFERENCES]
)
def test_a_reference(sent: Any, read: tuple[Any, ...] | None, more: bool) -> None:
    tables = shaped("enrollments", {"sourcedId": "a", "class": sent})
    [main] = tables["enrollments"]
    assert main["class_sourced_id"] == (read[0] if read else None)
    found = [(r["sourced_id"], r["type"], r["href"]) for r in tables["enrollments__class"]]
    assert found == ([read] if read else [])
    assert (main["extra"] is not None) == more
    if more:
        assert json.loads(main["extra"]) == {"class": sent}


def test_a_reference_without_an_id_is_reported_and_kept_as_sent() -> None:
    tables = shaped("enrollments", {"sourcedId": "a", "user": {"type": "user", "href": "h"}})
    assert tables["enrollments__user"] == []
    assert tables["rejected_rows"][0]["reason"] == "user: a reference without sourcedId"
    assert json.loads(tables["enrollments"][0]["extra"])["user"]["href"] == "h"


@pytest.mark.parametrize("name", ["orgs", "orgSourcedIds", "org"])
@pytest.mark.parametrize("sent", [["o1", "o2"], [{"sourcedId": "o1"}, {"sourcedId": "o2"}]])
def test_the_orgs_of_users_under_each_name(name: str, sent: list[Any]) -> None:
    tables = shaped("users", {"sourcedId": "a", name: sent})
    assert [(r["position"], r["sourced_id"]) for r in tables["users__orgs"]] == [
        (0, "o1"),
        (1, "o2"),
    ]
    assert tables["users"][0]["extra"] is None


def test_orgs_under_two_names_at_once_are_both_kept() -> None:
    tables = shaped("users", {"sourcedId": "a", "orgs": ["o1"], "orgSourcedIds": ["o2"]})
    assert [r["sourced_id"] for r in tables["users__orgs"]] == ["o1"]
    assert json.loads(tables["users"][0]["extra"]) == {"orgSourcedIds": ["o2"]}


@pytest.mark.parametrize("name", ["sourcedID", "sourcedid", "SourcedId", "sourceId", "ID"])
def test_references_in_lists_in_every_case(name: str) -> None:
    tables = shaped("users", {"sourcedId": "a", "orgs": [{name: "o1"}, {name: "o2", "Type": "x"}]})
    found = [(r["sourced_id"], r["type"]) for r in tables["users__orgs"]]
    assert found == [("o1", None), ("o2", "x")]
    assert tables["users"][0]["extra"] is None and tables["rejected_rows"] == []


@pytest.mark.parametrize("case", [str.lower, str.upper, lambda name: name[0].upper() + name[1:]])
@pytest.mark.parametrize("more", [{}, {"nobody": "knows"}])
def test_a_provider_that_writes_all_names_in_another_case(case: Any, more: dict[str, str]) -> None:
    sent = {
        "sourcedId": "a",
        "status": "tobedeleted",
        "dateLastModified": "2026-03-21T03:35:42Z",
        "username": "al",
        "orgs": [{"sourcedId": "o1", "type": "org"}],
        "userIds": [{"type": "mis", "identifier": "1"}],
        "metadata": {"SourcedId": "as it was"},
    }

    def respelt(value: Any) -> Any:
        if isinstance(value, list):
            return [respelt(item) for item in value]
        if isinstance(value, dict) and "SourcedId" not in value:
            return {case(name): respelt(item) for name, item in value.items()}
        return value

    found = shaped("users", respelt(sent) | more, {"sourcedId": "b"})
    assert found == shaped("users", sent | more, {"sourcedId": "b"})


def test_a_name_in_two_cases_is_not_changed_and_nothing_is_lost() -> None:
    tables = shaped("users", {"sourcedId": "a", "username": "x", "UserName": "y", "Nick": 1})
    assert tables["users"][0]["username"] == "x"
    assert json.loads(tables["users"][0]["extra"]) == {"UserName": "y", "Nick": 1}
    body = body_of('"USERNAME": "x", "userName": "y"')
    [found] = PARSERS["users"].parse(body).to_pylist()
    assert (found["username"], json.loads(found["extra"])) == ("x", {"username": ["x", "y"]})
    assert found["_problems"] == ["username: sent more than once"]


TOO_LONG = ["é" * 501, "x" * 1001, "x" * 8000]


@pytest.mark.parametrize("sent", TOO_LONG, ids=len)
def test_a_row_whose_id_is_too_long_for_an_index_is_rejected_and_told(sent: str) -> None:
    rows = [{"sourcedId": sent, "grades": ["7"]}, {"sourcedId": "é" * 500}, {"sourcedId": "b"}]
    tables = shaped("users", *rows)
    assert [r["sourced_id"] for r in tables["users"]] == ["é" * 500, "b"]
    assert tables["users__grades"] == []
    [rejected] = tables["rejected_rows"]
    assert (rejected["sourced_id"], rejected["reason"]) == (None, "sourcedId: too long")


@pytest.mark.parametrize("sent", TOO_LONG, ids=len)
@pytest.mark.parametrize("form", [lambda i: i, lambda i: {"sourcedId": i}], ids=["id", "object"])
def test_a_reference_whose_id_is_too_long_is_rejected_and_kept_as_sent(
    sent: str, form: Any
) -> None:
    tables = shaped("enrollments", {"sourcedId": "a", "class": form(sent)})
    [found] = tables["enrollments"]
    assert found["class_sourced_id"] is None and tables["enrollments__class"] == []
    assert json.loads(found["extra"]) == {"class": form(sent)}
    reason = "a reference whose sourcedId is too long"
    assert [r["reason"] for r in tables["rejected_rows"]] == [f"class: {reason}"]
    tables = shaped("users", {"sourcedId": "a", "orgs": [form("o1"), form(sent)]})
    assert [r["sourced_id"] for r in tables["users__orgs"]] == ["o1"]
    assert json.loads(tables["users"][0]["extra"]) == {"orgs": [form("o1"), form(sent)]}
    assert [r["reason"] for r in tables["rejected_rows"]] == [f"orgs: {reason}"]


def test_lists_of_values_and_of_objects() -> None:
    tables = shaped(
        "users",
        {
            "sourcedId": "a",
            "grades": ["8", 9, None, ""],
            "userIds": [{"type": "mis", "identifier": "1"}, "bare", {"identifier": 2, "x": 1}],
        },
        {"sourcedId": "b", "grades": "7"},
    )
    assert [(r["user_sourced_id"], r["position"], r["value"]) for r in tables["users__grades"]] == [
        ("a", 0, "8"),
        ("a", 1, "9"),
        ("b", 0, "7"),
    ]
    assert [(r["type"], r["identifier"]) for r in tables["users__user_ids"]] == [
        ("mis", "1"),
        (None, "bare"),
        (None, "2"),
    ]
    assert "userIds" in json.loads(tables["users"][0]["extra"])


def test_undeclared_attributes_go_to_extra_whatever_their_names() -> None:
    odd = {"preferredName": "Zoë", 'we "ird/~\\key': {"a": [1, None]}, "": 1, "ключ": True}
    assert json.loads(row("users", **odd)["extra"]) == odd


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (r"a\u0000b", "a\ufffdb"),
        (r"a\ud83db", "a\ufffdb"),
        (r"a\ude00b", "a\ufffdb"),
        (r"\ud83d\ude00", "\U0001f600"),
        (r"\\u0000", r"\u0000"),
        (r"\\ud800\udc00", "\\ud800\ufffd"),
        (r"\ud800\ud83d\ude00\ude00", "\ufffd\U0001f600\ufffd"),
        (r"\\\u0000", "\\\ufffd"),
        ("Zoë", "Zoë"),
    ],
)
def test_characters_that_no_database_holds_are_replaced_in_sight(sent: str, read: str) -> None:
    body = (
        f'{{"users": [{{"sourcedId": "a", "username": "{sent}", "metadata": {{"x": "{sent}"}}}}]}}'
    )
    found = PARSERS["users"].parse(body.encode()).to_pylist()[0]
    assert found["username"] == read
    assert json.loads(found["metadata"]) == {"x": read}


@pytest.mark.parametrize("value", ["1e999", "-1e999", "[" * 2000 + "]" * 2000, '"\\u0000"'])
def test_strange_values_of_unknown_attributes_are_named_and_kept(value: str) -> None:
    body = f'{{"users": [{{"sourcedId": "a", "foo": {value}}}]}}'
    found = PARSERS["users"].parse(body.encode()).to_pylist()[0]
    assert found["_leftovers"] == ["foo"]
    assert found["extra"].startswith('{"foo":')


def body_of(attributes: str) -> bytes:
    return f'{{"users": [{{"sourcedId": "a", {attributes}}}]}}'.encode()


@pytest.mark.parametrize("sent", ["NaN", "Infinity", "-Infinity", "nan", "-inf"])
def test_numbers_that_json_does_not_have_become_texts(sent: str) -> None:
    attributes = f'"username": {sent}, "metadata": {{"x": [{sent} ]}}, "foo": {sent}\n'
    found = PARSERS["users"].parse(body_of(attributes)).to_pylist()[0]
    assert found["username"] == sent
    assert json.loads(found["metadata"]) == {"x": [sent]}
    assert json.loads(found["extra"]) == {"foo": sent}


@pytest.mark.parametrize(
    "sent",
    [
        *("1e200000", "-1.5E+0009999", '{"a":[1,2e99999]}', '{"a":' * 3000 + "1" + "}" * 3000),
        *('{"e":"1e2","a":1e99999}', '{"a\\"":-5e99999}', "[" + "7" * 140_000 + "]"),
    ],
    ids=lambda sent: sent[:20],
)
def test_json_that_is_more_than_databases_take_becomes_text(sent: str) -> None:
    found = PARSERS["users"].parse(body_of(f'"metadata": {sent}, "foo": {sent}')).to_pylist()[0]
    assert json.loads(found["metadata"]) == sent
    assert json.loads(found["extra"]) == {"foo": sent}


def test_json_of_usual_size_stays_as_it_is() -> None:
    sent = '{"a":[' + ",".join('{"b":1.5e300,"c":"e12"}' for _ in range(900)) + "]}"
    found = PARSERS["users"].parse(body_of(f'"metadata": {sent}')).to_pylist()[0]
    assert found["metadata"] == sent


@pytest.mark.parametrize(
    "sent",
    [
        {"guid": "ac2cb28e-1714-4653-aa7d-8088f314a780"},
        {"a1e9999": "1e9999", "b": ["7E12345"]},
        {'q"1e9999': 'x\\"1e9999"', "c": "\\"},
        {"a": "[{" * 3000, "{[" * 3000: 1},
        [{"a": [i]} for i in range(3000)],
        {"digits": "7" * 200_000},
        {"a": 1e300, "b": 10**4000, "c": 1e-300},
    ],
    ids=lambda sent: str(sent)[:20],
)
def test_json_in_which_texts_look_like_huge_numbers_or_depths_stays_json(sent: Any) -> None:
    body = body_of(f'"metadata": {json.dumps(sent)}, "foo": {json.dumps(sent)}')
    [found] = PARSERS["users"].parse(body).to_pylist()
    assert json.loads(found["metadata"]) == sent
    assert json.loads(found["extra"]) == {"foo": sent}


_pieces = st.sampled_from(["e", "E", "1", "9", "-", "+", ".", '"', "\\", "{", "[", ":", ",", "é"])
_odd_texts = (
    st.text(max_size=12) | st.lists(_pieces, max_size=14).map("".join) | st.uuids().map(str)
)
_stored = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _odd_texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_odd_texts, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(_stored)
def test_any_json_that_databases_hold_comes_back_as_it_was(sent: Any) -> None:
    [found] = (
        PARSERS["users"]
        .parse(body_of(f'"metadata": {json.dumps(sent)}, "foo": {json.dumps([sent])}'))
        .to_pylist()
    )
    expected = _storable(sent)
    assert (found["metadata"] is None) == (sent is None)
    assert _equal(expected, json.loads(found["metadata"] or "null"))
    assert _equal({"foo": [expected]}, json.loads(found["extra"]))


def test_texts_that_look_like_such_numbers_stay_as_they_are() -> None:
    looks = '[NaN], "nan", \\'
    body = body_of(f'"username": {json.dumps(looks)}, "foo": NaN, "bar": "')
    with pytest.raises(BadResponse):
        PARSERS["users"].parse(body)
    found = PARSERS["users"].parse(body.replace(b', "bar": "', b"")).to_pylist()[0]
    assert found["username"] == looks


def test_an_attribute_that_is_sent_twice_is_reported_and_kept_with_all_its_values() -> None:
    body = body_of('"username": "x", "email": null, "foo": 1, "username": "y", "foo": 2, "foo": []')
    tables = flatten(PARSERS["users"].parse(body), V1P1["users"], "1")
    [found] = tables["users"].to_pylist()
    assert found["username"] == "x"
    assert json.loads(found["extra"]) == {"foo": [1, 2, []], "username": ["x", "y"]}
    assert tables["rejected_rows"].column("reason").to_pylist() == [
        "foo: sent more than once",
        "username: sent more than once",
    ]


@pytest.mark.parametrize(
    "attribute",
    [
        '"orgs":[{"sourcedId":"o1","sourcedId":"o2"}]',
        '"userIds":[{"type":"mis","identifier":"1","identifier":"2"}]',
    ],
)
def test_a_list_item_that_says_something_twice_is_kept_as_sent(attribute: str) -> None:
    found = PARSERS["users"].parse(body_of(attribute)).to_pylist()[0]
    assert found["extra"] == "{" + attribute + "}"


def test_metadata_stays_json() -> None:
    assert json.loads(row("orgs", metadata={"a": {"b": [1, "x"]}})["metadata"]) == {
        "a": {"b": [1, "x"]}
    }


@pytest.mark.parametrize(
    "status", ["tobedeleted", "toBeDeleted", "to_be_deleted", "inactive", "ToBe Deleted"]
)
def test_every_spelling_of_deleted_counts_and_is_kept(status: str) -> None:
    assert (row("users", status=status)["_deleted"], row("users", status=status)["status"]) == (
        True,
        status,
    )


@pytest.mark.parametrize("status", ["active", "", None, "Active", "deleted?"])
def test_other_statuses_are_not_deleted(status: str | None) -> None:
    assert row("users", status=status)["_deleted"] is False


def test_tombstones_stand_for_rows_without_children() -> None:
    rows = ({"sourcedId": "a", "grades": ["8"]}, {"sourcedId": "b", "grades": []})
    tables = shaped("users", *rows, tombstones=True)
    found = [(r["user_sourced_id"], r["position"]) for r in tables["users__grades"]]
    assert sorted(found) == [("a", 0), ("b", -1)]


def test_a_deleted_row_keeps_its_children_only_if_asked() -> None:
    gone = {"sourcedId": "a", "status": "tobedeleted", "grades": ["8"]}
    assert len(shaped("users", gone)["users__grades"]) == 1
    tables = shaped("users", gone, tombstones=True, keep_deleted=False)
    assert [r["position"] for r in tables["users__grades"]] == [-1]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xef\xbb\xbf \n",
        b"null",
        b"{}",
        b'{"users": null}',
        b'{"Users": ""}',
        b'{"users": {}}',
        b'{"users": null, "total": 0}',
        b'{"users": [], "imsx_codeMajor": "success"}',
    ],
    ids=lambda body: body.decode("latin-1"),
)
def test_no_rows_are_said_in_many_ways(body: bytes) -> None:
    assert len(PARSERS["users"].parse(body)) == 0


@pytest.mark.parametrize(
    "body",
    [
        b"<html><body>Login</body></html>",
        b'{"users": [',
        b'{"users": {"sourcedId": "a"}}',
        b'{"data": []}',
        b'{"users": null, "rows": [{"sourcedId": "a"}]}',
        b'{"users": [], "imsx_codeMajor": "failure"}',
        b'{"users": null, "statusInfoSet": [{"codeMajor": "Unsupported"}]}',
        b"3",
        b'{"classes": []}',
        b'{"users": [], "users": []}',
        b'{"users": [], "Users": []}',
        b'"users"',
        b"[1, 2",
        b'\xff\xfe{"users": []}',
    ],
    ids=lambda body: body[:24].decode("latin-1"),
)
def test_a_body_that_is_no_collection_is_refused_without_quoting_it(body: bytes) -> None:
    with pytest.raises(BadResponse) as caught:
        PARSERS["users"].parse(body)
    assert "Login" not in str(caught.value) and "sourcedId" not in str(caught.value)


@pytest.mark.parametrize("depth", [1_000, 100_000])
def test_json_of_any_depth_is_read_or_refused(depth: int) -> None:
    nested = b"[" * depth + b"]" * depth
    for body in (nested, b'{"users": [{"sourcedId": "a", "x": ' + nested + b"}]}"):
        try:
            tables = flatten(PARSERS["users"].parse(body), V1P1["users"], "1")
        except BadResponse:
            continue
        assert len(tables["users"]) + len(tables["rejected_rows"]) == 1


@pytest.mark.parametrize(
    "body",
    [
        b'{"users": [{"sourcedId": "a"}]}',
        b'\xef\xbb\xbf{"users": [{"sourcedId": "a"}]}',
        b'{"Users":[{"sourcedId":"a"}]}',
        b'{"count": 1, "users": [{"sourcedId": "a"}]}',
        b' [ {"sourcedId": "a"} ] ',
    ],
)
def test_the_envelope_is_found_in_every_spelling(body: bytes) -> None:
    assert PARSERS["users"].parse(body).column("sourced_id").to_pylist() == ["a"]


def test_an_empty_collection_makes_empty_tables_of_the_right_columns() -> None:
    for name, parser in PARSERS.items():
        body = json.dumps({parser.endpoint.collection: []}).encode()
        tables = flatten(parser.parse(body), parser.endpoint, "1")
        assert {table.name for table in parser.endpoint.tables()} < tables.keys()
        assert all(len(table) == 0 for table in tables.values()), name


# -- the two ways in which pages are read -------------------------------------------------------

USUAL: dict[str, st.SearchStrategy[Any]] = {
    "status": st.sampled_from(["active", "tobedeleted", "inactive", "", None]),
    "dateLastModified": st.sampled_from([*INSTANTS, *NO_INSTANTS]),
    "enabledUser": st.sampled_from([True, False, "true", "false", "True", "1", "", None]),
    "beginDate": st.sampled_from(["2026-09-01", "0000-01-01", "2026-9-1", "", None]),
    "metadata": st.sampled_from([None, {}, {"a": 1}]),
}
_id = st.text(max_size=3) | st.none()
_ref = st.fixed_dictionaries({}, optional={"sourcedId": _id, "type": _id, "href": _id}) | st.none()


def _usual(endpoint: str) -> st.SearchStrategy[Any]:
    """Objects as most providers send them, and some that are nearly so."""
    spec = V1P1[endpoint]
    members = {f.name: USUAL.get(f.name, st.text(max_size=3)) for f in spec.fields}
    members |= {name: USUAL[name] for name in ("status", "dateLastModified", "metadata")}
    members |= {ref.name: _ref for ref in spec.refs}
    for child in spec.lists:
        item = _ref if child.target is not None else _id
        if child.fields:
            item = st.fixed_dictionaries({}, optional={f.name: _id for f in child.fields})
        members[child.name] = st.lists(item, max_size=3) | st.none()
        if child.ids:
            members[child.ids] = st.lists(_id, max_size=3) | st.none()
    return st.fixed_dictionaries({"sourcedId": st.text(max_size=3)}, optional=members)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_row_is_read_alike_whatever_else_is_in_its_page(data: st.DataObject) -> None:
    endpoint = data.draw(st.sampled_from(V1P1.names))
    sent = data.draw(st.lists(_usual(endpoint), max_size=3))
    # one that says what nobody has declared is read in the long way, and the few with it too
    odd = {"sourcedId": "odd one", "nobody": "knows"}
    expected = shaped(endpoint, *sent, odd)
    found = shaped(endpoint, *sent)
    for name, rows in expected.items():
        assert found[name] == [row for row in rows if "odd one" not in row.values()]


_two = st.integers(0, 61).map("{:02}".format) | st.sampled_from(["00", "23", "24", "59", "60", "7"])
_day = st.dates().map(str) | st.sampled_from(
    ["2026-08-31", "2026-09-01", "2026-02-30", "9999-12-31", "0001-01-01", "0000-01-01", "20260901"]
)
_fraction = st.builds(
    "{}{}".format, st.sampled_from([".", ","]), st.text("0123456789", max_size=11) | st.just("000")
)
_zone = st.sampled_from(
    [
        *("", "Z", "z", " Z", "UTC", "+00:00", "-00:00", "+01", "+0100", "+01:00", "-05:30"),
        *("+14:00", "+23:59", "+24:00", "+1:00", "+01:60"),
    ]
)
_clock = st.one_of(
    st.builds("{}".format, _two),
    st.builds("{}:{}".format, _two, _two),
    st.builds("{}:{}:{}".format, _two, _two, _two),
    st.builds("{}:{}:{}{}".format, _two, _two, _two, _fraction),
    st.sampled_from(["0000", "000000", "00:00:00", "23:00:00", "00:00", "23:00"]),
)
MOMENTS = _day | st.builds(
    "{}{}{}{}".format, _day, st.sampled_from(["T", " ", "t", "  ", ""]), _clock, _zone
)


@pytest.mark.slow
@pytest.mark.parametrize("examples", [50, slow(300)])
def test_a_moment_is_read_alike_alone_and_next_to_an_odd_row(examples: int) -> None:
    settings(max_examples=examples, deadline=None)(given(MOMENTS)(_is_read_alike))()


def _is_read_alike(sent: str) -> None:
    attributes = {"dateLastModified": sent, "beginDate": sent}
    odd = {"sourcedId": "odd one", "nobody": "knows"}
    alone = shaped("enrollments", {"sourcedId": "a", **attributes}, parser=LONDON)
    beside = shaped("enrollments", {"sourcedId": "a", **attributes}, odd, parser=LONDON)
    assert alone["enrollments"] == beside["enrollments"][:1]
    assert alone["rejected_rows"] == beside["rejected_rows"]
    # each by itself, since one that is odd lets the other be read in the long way
    for attribute in attributes:
        found = shaped("enrollments", {"sourcedId": "a", attribute: sent}, parser=LONDON)
        column = {"dateLastModified": "date_last_modified", "beginDate": "begin_date"}[attribute]
        assert found["enrollments"][0][column] == beside["enrollments"][0][column]
    # and texts beside a form that Arrow takes from texts alone
    texts = {"dateLastModified": "2026-03-21T03:35:42.0171239Z", "sourcedId": "b"}
    among = shaped(
        "enrollments", {"sourcedId": "a", "dateLastModified": sent}, texts, parser=LONDON
    )
    assert (
        among["enrollments"][0]["date_last_modified"]
        == beside["enrollments"][0]["date_last_modified"]
    )


def test_of_a_large_page_the_odd_rows_keep_their_places() -> None:
    odd = {3: {"nickname": "Al"}, 180: {"enabledUser": "perhaps"}, 181: {"grades": 9}}
    sent = [{"sourcedId": f"u{i:03}", "username": str(i), **odd.get(i, {})} for i in range(260)]
    found = shaped("users", *sent)
    assert [(r["sourced_id"], r["username"]) for r in found["users"]] == [
        (row["sourcedId"], row["username"]) for row in sent
    ]
    kept = {i: row["extra"] for i, row in enumerate(found["users"]) if row["extra"]}
    assert kept == {3: '{"nickname":"Al"}', 180: '{"enabledUser":"perhaps"}'}
    assert [(r["user_sourced_id"], r["value"]) for r in found["users__grades"]] == [("u181", "9")]


@pytest.mark.parametrize("rows", [2, 200])
def test_flags_and_stamps_in_the_form_of_other_providers_need_no_long_way(rows: int) -> None:
    sent = {"enabledUser": "false", "dateLastModified": "2026-03-21T03:35:42.0171239Z"}
    body = json.dumps({"users": [{"sourcedId": str(i), **sent} for i in range(rows)]}).encode()
    wide = PageParser(V1P1["users"], NoEngine()).parse(body)  # type: ignore[arg-type]
    assert set(wide.column("enabled_user").to_pylist()) == {False}
    stamp = datetime(2026, 3, 21, 3, 35, 42, 17123, UTC)
    assert set(wide.column("date_last_modified").to_pylist()) == {stamp}
    assert INSTANTS["2026-03-21T03:35:42.0171234Z"] == stamp


class NoEngine:
    """An engine that reads nothing in the long way."""

    threads = ThreadPoolExecutor(1)


# -- any JSON that a server may send ------------------------------------------------------------

_scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=8)
_numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)
_json = st.recursive(
    _scalars | _numbers,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
_reference = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("sourcedId", "sourceId", "id", "type", "href", "name"), _json)
)
_likely = (
    _json
    | _reference
    | st.lists(_reference | _scalars, max_size=3)
    | st.sampled_from(["2026-09-01", "2026-03-21T03:35:42.017Z", "true", "active", "tobedeleted"])
)


def _objects(endpoint: str) -> st.SearchStrategy[Any]:
    names = sorted(V1P1[endpoint].attributes - {"sourcedId"})
    known = st.dictionaries(st.sampled_from(names), _likely, max_size=6)
    other = st.dictionaries(st.text(max_size=6), _json, max_size=2)
    ids = st.fixed_dictionaries({}, optional={"sourcedId": st.text(max_size=4) | _json})
    return st.builds(lambda a, b, c: {**b, **a, **c}, known, other, ids) | _json


def _storable(value: Any) -> Any:
    """What was sent, as databases can hold it: without NUL."""
    if isinstance(value, str):
        return value.replace("\x00", "\ufffd")
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        return {_storable(key): _storable(item) for key, item in value.items()}
    return value


def _empty(value: Any) -> bool:
    return value in (None, "", [], {}) and value is not False


def _same(sent: Any, text: str | None) -> bool:
    """Whether a text column holds what was sent, which need not have been a text."""
    if isinstance(sent, str):
        return text == sent
    try:
        return _equal(sent, json.loads(text or "null"))
    except json.JSONDecodeError:
        return False


def _equal(sent: Any, read: Any) -> bool:
    """Equality of JSON values, down to the last digit or so of a number."""
    if isinstance(sent, list) and isinstance(read, list):
        return len(sent) == len(read) and all(map(_equal, sent, read))
    if isinstance(sent, dict) and isinstance(read, dict):
        return sent.keys() == read.keys() and all(_equal(sent[k], read[k]) for k in sent)
    if isinstance(sent, int | float) and isinstance(read, int | float):
        return math.isclose(sent, read, rel_tol=1e-6)
    return bool(sent == read)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_json_loads_whole_or_is_reported(data: st.DataObject) -> None:
    endpoint = V1P1[data.draw(st.sampled_from(V1P1.names))]
    sent = data.draw(st.lists(_objects(endpoint.name), min_size=1, max_size=4))
    tables = shaped(endpoint.name, *sent)
    loaded = iter(tables[endpoint.name])
    nameless = 0
    for item in _storable(sent):
        if not isinstance(item, dict) or (
            _empty(item.get("sourcedId"))
            and "sourcedId" not in (key for key, value in item.items() if value in ([], {}))
        ):
            nameless += 1
            continue
        _check_row(endpoint, item, next(loaded), tables)
    assert next(loaded, None) is None
    reasons = [r["reason"] for r in tables["rejected_rows"] if r["sourced_id"] is None]
    assert reasons.count("no sourcedId") == nameless


def _check_row(endpoint: Any, item: dict[str, Any], found: dict[str, Any], tables: Any) -> None:
    assert _same(item["sourcedId"], found["sourced_id"])
    extra = json.loads(found["extra"] or "{}")
    reported = " ".join(
        r["reason"] for r in tables["rejected_rows"] if r["sourced_id"] == found["sourced_id"]
    )
    fields = {f.name: f for f in endpoint.fields}
    nested = {n: a for a in endpoint.nested for n in a.names}
    for name, value in item.items():
        if name in extra:
            assert _equal(value, extra[name]), name
        elif name == "sourcedId":
            continue
        elif name == "metadata":
            assert value is None or _equal(value, json.loads(found["metadata"]))
        elif name in nested:
            _check_nested(endpoint, nested[name], value, found, tables)
        elif name in fields or name in ("status", "dateLastModified"):
            kind = fields[name].kind if name in fields else "text"
            column = fields[name].column.name if name in fields else name
            if name == "dateLastModified":
                kind, column = "instant", "date_last_modified"
            if kind == "text":
                assert value in (None, "") or _same(value, found[column]), name
            else:
                assert value in (None, "") or found[column] is not None, (name, reported)
        else:
            raise AssertionError(f"{name!r} vanished")


def _check_nested(
    endpoint: Any, attribute: Any, value: Any, found: dict[str, Any], tables: Any
) -> None:
    """An attribute that is not in `extra` is in the child table, item by item."""
    table = tables[endpoint.child_name(attribute)]
    rows = [r for r in table if r[f"{endpoint.singular}_sourced_id"] == found["sourced_id"]]
    items = [i for i in (value if isinstance(value, list) else [value]) if i not in (None, "")]
    if value in ([], {}) or value is None:
        items = []
    assert len(rows) >= len(items), attribute.name
    if isinstance(attribute, ChildList) and attribute.target is None and not attribute.fields:
        for item in items:
            assert any(_same(item, r["value"]) for r in rows), attribute.name
