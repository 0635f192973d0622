"""Filters: built, parsed, refused, encoded, and understood by an independent server."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oneroster_source.client.client import Client
from oneroster_source.client.transport import Server
from oneroster_source.config.settings import resolve
from oneroster_source.errors import ConfigurationError, FilterError
from oneroster_source.model import V1P1
from oneroster_source.model.filters import (
    NESTED,
    OPERATORS,
    Filter,
    Predicate,
    encode,
    parse,
    where,
)
from oneroster_source.simulator import School, Simulator, secondary_school

COMPARE = {
    "=": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
SCHOOL = secondary_school(7, pupils=10)
FIELDS = {
    "users": (
        *("sourcedId", "status", "dateLastModified", "givenName", "role", "email", "middleName"),
        *("enabledUser", "grades", "phone"),
    ),
    "enrollments": (*NESTED, "role", "beginDate", "endDate", "primary", "dateLastModified"),
}


def text_of(row: dict[str, Any], field: str) -> str | None:
    """A row's value as the standard writes it in a filter; None where the row has none."""
    value: Any = row
    for name in field.split("."):
        value = value.get(name) if value is not None else None
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, list) else value


def holds(row: dict[str, Any], predicate: Predicate) -> bool:
    """Whether a row passes, reckoned without any code of the package or the simulator."""
    found = text_of(row, predicate.field)
    if found is None:
        return predicate.operator == "!="
    compare = COMPARE[predicate.operator]
    if predicate.field == "dateLastModified":
        return compare(datetime.fromisoformat(found), datetime.fromisoformat(predicate.value))
    return compare(found, predicate.value)


def ids(collection: str, wanted: Filter) -> list[str]:
    rows = SCHOOL.rows(collection)
    return [r["sourcedId"] for r in rows if all(holds(r, p) for p in wanted.predicates)]


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator([SCHOOL]) as running:
        yield running


@pytest.fixture(scope="module")
def ask(simulator: Simulator) -> Iterator[Callable[[str, Filter], list[str]]]:
    """Asks the server for the ids of the rows of a collection that pass a filter."""
    own = resolve(
        base_url=simulator.base_url, estab=SCHOOL.estab, rp=SCHOOL.rp, shared_secret="super-secret"
    )
    server = Server(concurrency=1, timeout=10, max_bytes=1 << 24)
    client = Client(own.schools[0], own, server)

    def answer(collection: str, wanted: Filter) -> list[str]:
        def read(body: bytes) -> list[str]:
            return [row["sourcedId"] for row in orjson.loads(body)[collection]]

        return client.get(f"/{collection}", {"filter": str(wanted)}, read).value

    yield answer
    server.close()


# the grammar


@pytest.mark.parametrize("sign", OPERATORS)
def test_every_operator_is_built_and_parsed(sign: str) -> None:
    built = where("status", sign, "active")
    assert str(built) == f"status{sign}'active'"
    assert parse(str(built)) == built == parse(f"  status {sign} 'active' ")


def test_the_operators_are_those_that_the_vendor_names() -> None:
    assert set(OPERATORS) == {"=", "!=", ">", ">=", "<", "<="}


@pytest.mark.parametrize("path", NESTED)
def test_every_nested_path_of_the_vendor_is_built_and_parsed(path: str) -> None:
    assert str(parse(f"{path}='x11BSAT6S'")) == str(where(path, "=", "x11BSAT6S"))


@pytest.mark.parametrize(
    "text",
    [
        "status='active'",
        "status='tobedeleted'",
        "sourcedId='x42Y7TNMV'",
        "dateLastModified>'2026-01-01T00:00:00Z'",
        "class.sourcedId='x11BSAT6S' and role='student'",
    ],
)
def test_the_vendors_examples_come_out_as_they_went_in(text: str) -> None:
    assert str(parse(text)) == text


def test_filters_are_joined_by_and() -> None:
    joined = where("status", "=", "active") & where("role", "!=", "aide") & Filter()
    assert str(joined) == "status='active' and role!='aide'"
    assert parse("status='active'  AND\trole!='aide'") == joined


@pytest.mark.parametrize("value", ["rock and roll", "a='b", "=", "<>!", "", " ", "é ∑ 日本", '"'])
def test_a_value_may_look_like_grammar(value: str) -> None:
    value = value.replace("'", "")
    built = where("title", "=", value) & where("status", "=", "active")
    assert [p.value for p in parse(str(built)).predicates] == [value, "active"]


def test_no_predicate_means_everything() -> None:
    assert not Filter() and str(Filter()) == ""
    assert bool(where("status", "=", "active"))


# values


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param(True, "true", id="a boolean"),
        pytest.param(7, "7", id="a number"),
        pytest.param(date(2026, 9, 1), "2026-09-01", id="a date"),
        pytest.param(datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00Z", id="whole seconds"),
        pytest.param(
            datetime(2026, 3, 21, 3, 35, 42, 17_000, tzinfo=UTC),
            "2026-03-21T03:35:42.017Z",
            id="milliseconds, as the vendor writes them",
        ),
        pytest.param(
            datetime(2026, 7, 1, 1, tzinfo=timezone(timedelta(hours=1))),
            "2026-07-01T00:00:00Z",
            id="summer time",
        ),
    ],
)
def test_a_value_is_written_as_the_vendor_writes_it(value: Any, text: str) -> None:
    assert where("dateLastModified", ">", value).predicates[0].value == text


# refusals


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("   ", id="blanks"),
        pytest.param("status", id="a field alone"),
        pytest.param("status=", id="no value"),
        pytest.param("status=active", id="no quotes"),
        pytest.param('status="active"', id="double quotes"),
        pytest.param("status='active", id="an open quote"),
        pytest.param("='active'", id="no field"),
        pytest.param("status 'active'", id="no operator"),
        pytest.param("status=='a'", id="=="),
        pytest.param("status=>'a'", id="=>"),
        pytest.param("status<>'a'", id="<>"),
        pytest.param("status~'a'", id="the standard's ~"),
        pytest.param("status='a' or role='b'", id="or"),
        pytest.param("status='a' and", id="an and with nothing after it"),
        pytest.param("status='a' and ", id="an and with a blank after it"),
        pytest.param("and status='a'", id="an and with nothing before it"),
        pytest.param("status='a'and role='b'", id="no blank before and"),
        pytest.param("status='a' role='b'", id="no and"),
        pytest.param("(status='a')", id="brackets"),
        pytest.param("familyName='O''Neill'", id="a doubled quote"),
        pytest.param("familyName='O\\'Neill'", id="an escaped quote"),
        pytest.param("title='a\nb'", id="a line break"),
        pytest.param("title='a\x00b'", id="a zero byte"),
        pytest.param("family_name='a'", id="an underscore"),
        pytest.param("course.sourcedId='a'", id="a path that the vendor does not name"),
        pytest.param("class.title='a'", id="a path to another attribute"),
        pytest.param("class.sourcedId.x='a'", id="a path of three"),
        pytest.param("class.='a'", id="half a path"),
        pytest.param("naïve='a'", id="a field that is not ASCII"),
    ],
)
def test_what_is_not_in_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(FilterError) as caught:
        parse(text)
    assert "What to do: " in str(caught.value)


@pytest.mark.parametrize(
    ("field", "sign", "value", "named"),
    [
        pytest.param("no such", "=", "a", "no such", id="a field with a blank"),
        pytest.param("", "=", "a", "''", id="no field"),
        pytest.param("a='b' and c", "=", "a", "field", id="a field that smuggles a predicate in"),
        pytest.param("course.sourcedId", "=", "a", "class.sourcedId", id="an unknown path"),
        pytest.param("status", "~", "a", "= != > >= < <=", id="an unknown operator"),
        pytest.param("status", "==", "a", "= != > >= < <=", id="a doubled operator"),
        pytest.param("status", "=", "O'Neill", "status", id="a quote"),
        pytest.param("status", "=", "a\nb", "status", id="a line break"),
        pytest.param("status", "=", "a\u2028b", "status", id="a line separator"),
        pytest.param("status", "=", "a\ud800", "status", id="half a character"),
        pytest.param("status", ">", datetime(2026, 1, 1), "time zone", id="no time zone"),  # noqa: DTZ001
    ],
)
def test_what_cannot_be_written_cannot_be_built(
    field: str, sign: str, value: Any, named: str
) -> None:
    with pytest.raises(FilterError) as caught:
        where(field, sign, value)
    assert named in str(caught.value)
    assert isinstance(caught.value, ConfigurationError)


def test_a_refusal_says_from_which_character() -> None:
    with pytest.raises(FilterError, match="from character 21"):
        parse("status='active' and role~'student'")


# collections


@pytest.mark.parametrize("endpoint", V1P1.endpoints, ids=lambda endpoint: endpoint.name)
def test_a_filter_is_checked_against_the_attributes_of_its_collection(endpoint) -> None:
    good = where("status", "=", "active") & where("dateLastModified", ">", "2026-01-01T00:00:00Z")
    assert good.checked_for(endpoint) is good
    with pytest.raises(FilterError) as caught:
        (good & where("shoeSize", "=", "9")).checked_for(endpoint)
    assert all(name in str(caught.value) for name in (endpoint.collection, "shoeSize", "sourcedId"))


@pytest.mark.parametrize("path", NESTED)
def test_a_nested_path_is_for_collections_that_have_the_reference(path: str) -> None:
    assert where(path, "=", "x").checked_for(V1P1["enrollments"])
    with pytest.raises(FilterError):
        where(path, "=", "x").checked_for(V1P1["users"])


# the wire


def test_a_blank_is_percent_20_and_never_a_plus() -> None:
    query = encode({"filter": "role='a b+c&d=e%20f' and status='é'", "limit": "10"})
    assert query == (
        "filter=role%3D%27a%20b%2Bc%26d%3De%2520f%27%20and%20status%3D%27%C3%A9%27&limit=10"
    )


def test_the_server_receives_the_query_as_it_was_encoded(simulator, ask) -> None:
    wanted = parse("givenName='a b+c&d=e%20f#~é' and role='student'")
    assert ask("users", wanted) == []
    received = simulator.requests[-1]
    assert "+" not in received.query
    assert received.query == encode({"filter": str(wanted)})
    assert received.params == {"filter": str(wanted)}


@pytest.mark.parametrize("sign", OPERATORS)
@pytest.mark.parametrize(
    ("collection", "field"), [(c, f) for c, fields in FIELDS.items() for f in fields]
)
def test_every_operator_means_the_same_to_the_server(ask, collection, field, sign) -> None:
    values = sorted({text_of(row, field) for row in SCHOOL.rows(collection)} - {None}) or ["x"]
    wanted = where(field, sign, values[len(values) // 2])
    assert ask(collection, wanted) == ids(collection, wanted)


plain_text = st.text(max_size=12).filter(lambda text: text.isprintable() and "'" not in text)
instants = st.datetimes(datetime(2025, 6, 1), datetime(2026, 10, 1), timezones=st.just(UTC))  # noqa: DTZ001


@st.composite
def predicates(draw: st.DrawFn, collection: str) -> Filter:
    """A comparison of a field with a value that a row has, or with any other legal value."""
    field = draw(st.sampled_from(FIELDS[collection]))
    held = {text_of(row, field) for row in SCHOOL.rows(collection)} - {None}
    other = instants if field == "dateLastModified" else plain_text
    values = st.sampled_from(sorted(held)) | other if held else other
    return where(field, draw(st.sampled_from(OPERATORS)), draw(values))


@st.composite
def filters(draw: st.DrawFn) -> tuple[str, Filter]:
    collection = draw(st.sampled_from(sorted(FIELDS)))
    parts = draw(st.lists(predicates(collection), min_size=1, max_size=4))
    whole = Filter()
    for part in parts:
        whole &= part
    return collection, whole


@settings(max_examples=60, deadline=None, database=None)
@given(filters())
def test_a_filter_of_legal_parts_is_what_it_was_after_parsing_and_at_the_server(
    ask, wanted: tuple[str, Filter]
) -> None:
    collection, built = wanted
    assert parse(str(built)) == built
    assert ask(collection, built) == ids(collection, built)


def test_the_school_is_one_that_tells_filters_apart() -> None:
    assert isinstance(SCHOOL, School)
    active, deleted = where("status", "=", "active"), where("status", "=", "tobedeleted")
    assert ids("users", active) and ids("enrollments", active & where("role", "=", "student"))
    assert sorted(ids("users", active) + ids("users", deleted)) == ids("users", Filter())
