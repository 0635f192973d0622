"""Answers in other charsets than UTF-8: read as what they are, with a word of warning, or not."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.line import Line
from support.settings import ESTAB
from support.truth import held

from oneroster_source.errors import BadResponse
from oneroster_source.model import V1P1
from oneroster_source.simulator import Fault, School
from oneroster_source.transform.charset import as_utf8, is_utf8
from oneroster_source.transform.duckdb_engine import Engine
from oneroster_source.transform.parser import PageParser

PARSER = PageParser(V1P1["users"], Engine())
NAMES = ["Zoë", "O\u2019Brien", "Łukasz", "Adam"]
JSON = "application/json"


@pytest.fixture
def line(serve) -> Iterator[Line]:
    school = School(ESTAB, collections={"users": []})
    made = Line(serve(school), school, retry_budget=0)
    yield made
    made.server.close()


def users(*names: str) -> str:
    rows = [{"sourcedId": f"x{n}", "givenName": name} for n, name in enumerate(names)]
    return json.dumps({"users": rows}, ensure_ascii=False)


def names(body: bytes) -> list[str]:
    return PARSER.parse(body).column("given_name").to_pylist()


def answer(body: bytes, content_type: str = JSON, **more: Any) -> Fault:
    return Fault("users", status=200, body=body, headers=(("content-type", content_type),), **more)


GUESSED = "the answer is not UTF-8; it was read as cp1252"
MARKED = {
    "UTF-8": codecs.BOM_UTF8 + users(*NAMES).encode(),
    "UTF-16": users(*NAMES).encode("utf-16"),
    "UTF-16, the other way": codecs.BOM_UTF16_BE + users(*NAMES).encode("utf-16-be"),
    "UTF-32": users(*NAMES).encode("utf-32"),
    "UTF-16 without a mark": users(*NAMES).encode("utf-16-le"),
    "UTF-16 of nothing but ASCII": users("Adam").encode("utf-16-be"),
}
READ = {
    # name: text, its charset, Content-Type, warning
    "UTF-8": (users(*NAMES), "utf-8", JSON, ""),
    "UTF-8 that is named": (users(*NAMES), "utf-8", f"{JSON}; charset=utf-8", ""),
    "UTF-8 in quotes": (users(*NAMES), "utf-8", f'{JSON};odata=x; CharSet="UTF8" ; a=b', ""),
    "no name of a charset": (users(*NAMES), "utf-8", f"{JSON}; charset=", ""),
    "no Content-Type": (users(*NAMES), "utf-8", "", ""),
    "ASCII that is named": (users("Adam"), "ascii", f"{JSON}; charset=us-ascii", ""),
    "ASCII, by another name": (users("Adam"), "ascii", f"{JSON}; charset=iso-8859-1", ""),
    "Latin-1": (users("Zoë"), "latin-1", JSON, GUESSED),
    "cp1252": (users("Zoë", "O\u2019Brien"), "cp1252", JSON, GUESSED),
    "cp1252 in no type": (users("Zoë", "O\u2019Brien"), "cp1252", "text/html", GUESSED),
    "Latin-1 that is named": (users("Zoë"), "latin-1", f"{JSON}; charset=ISO-8859-1", ""),
    "cp1252 that is named": (users("O\u2019Brien"), "cp1252", f"{JSON};charset=windows-1252", ""),
    "cp1252, named Latin-1": (
        users("Zoë", "O\u2019Brien"),
        "cp1252",
        f"{JSON}; charset=iso-8859-1",
        "the answer is not ISO 8859-1, as the server says; it was read as cp1252",
    ),
    "Latin-2": (users("Łukasz"), "iso-8859-2", f"{JSON}; charset=iso-8859-2", ""),
    "Latin-9": (users("Zoë"), "iso-8859-15", f"{JSON}; charset=latin9", ""),
    "Japanese": (users("山田"), "shift_jis", f"{JSON}; charset=Shift_JIS", ""),
    "Chinese": (users("王伟"), "gbk", f"{JSON}; charset=gbk", ""),
    "Chinese that may be UTF-8": (
        users("模瞻"),
        "gbk",
        f"{JSON}; charset=gbk",
        "the answer may be UTF-8, though the server says gbk; it was read as gbk",
    ),
    "Japanese in seven bits": (users("山田"), "iso2022_jp", f"{JSON}; charset=iso-2022-jp", ""),
    "UTF-16 that is named": (users(*NAMES), "utf-16-le", f"{JSON}; charset=utf-16le", ""),
    **{
        f"UTF-8, named {name}": (
            users(*NAMES),
            "utf-8",
            f"{JSON}; charset={name}",
            f"the server says that its answer is {name}; it is UTF-8, and was read as that",
        )
        for name in ("iso-8859-1", "windows-1252", "us-ascii", "ISO_8859-15", "koi8-r", "cp850")
    },
}


@pytest.mark.parametrize(("said", "charset", "content_type", "warning"), READ.values(), ids=READ)
def test_an_answer_is_read_in_its_charset(line, said, charset, content_type, warning) -> None:
    line.happens(answer(said.encode(charset), content_type))
    reply = line.client.get("/users", {}, names)
    assert reply.value == [row["givenName"] for row in json.loads(said)["users"]]
    assert reply.warning == warning and line.waits == []


@pytest.mark.parametrize("content_type", [JSON, f"{JSON}; charset=utf-8", ""])
@pytest.mark.parametrize("body", MARKED.values(), ids=MARKED)
def test_an_answer_that_shows_its_charset_is_read(line, body, content_type) -> None:
    line.happens(answer(body, content_type))
    reply = line.client.get("/users", {}, names)
    assert reply.value in (NAMES, ["Adam"]) and reply.warning == ""


WRONG = {
    # name: body, Content-Type, what is said
    "a charset that nobody knows": (users("Adam").encode(), "charset=x-\x9bnone", "'x- none'"),
    "one that is no charset": (b"7b7d", "charset=hex", "'hex'"),
    "one with escapes": (users("Adam").encode(), "charset=unicode_escape", "'unicode_escape'"),
    "a long one": (users("Adam").encode(), "charset=" + "x" * 999, "'xxx"),
    "Latin-1, named UTF-8": (users("Zoë").encode("latin-1"), "charset=utf-8", "not utf-8 text"),
    "Latin-1, named ASCII": (users("Zoë").encode("latin-1"), "charset=us-ascii", "not ascii text"),
    "half a letter": (users("Zoë").encode("utf-16")[:-1], "", "not utf-16 text"),
    "half a surrogate": (users("\ud800").encode("utf-16", "surrogatepass"), "", "not utf-16 text"),
    "a mark of UTF-8": (codecs.BOM_UTF8 + users("Zoë").encode("latin-1"), "", "not utf-8 text"),
    "in no charset": (users("Zo").encode() + b"\x81", "", "not cp1252 text"),
}


@pytest.mark.parametrize(("body", "content_type", "said"), WRONG.values(), ids=WRONG)
def test_an_answer_of_which_no_charset_is_sure_is_an_error(line, body, content_type, said) -> None:
    line.happens(answer(body, f"{JSON}; {content_type}"))
    with pytest.raises(BadResponse) as caught:
        line.client.get("/users", {}, names)
    error = caught.value
    assert said in error.what and f"school {ESTAB}, users" in error.where and error.todo
    assert "Zo" not in repr(vars(error)) and len(str(error)) < 400
    assert error.__cause__ is None and error.__context__ is None


def test_a_token_is_read_in_its_charset(line: Line) -> None:
    granted = {"access_token": line.school.tokens.issue(3600), "school": "Zoë"}
    for charset in ("utf-8-sig", "utf-16", "latin-1"):
        line.happens(
            Fault("auth/token", status=200, body=json.dumps(granted).encode(charset)),
            Fault("users", status=401),
        )
        line.users()


def test_a_run_says_what_it_took_an_answer_for(serve, sync, warehouse) -> None:
    rows = [
        {"sourcedId": "x1", "status": "active", "givenName": "Zoë", "familyName": "O\u2019Brien"}
    ]
    school = School(ESTAB, collections={"users": rows})
    body = json.dumps({"users": rows}, ensure_ascii=False).encode("cp1252")
    school.faults.append(answer(body, times=9))
    report = sync(serve(school), school, endpoints=["users"])
    assert report.good and GUESSED in report.outcomes[0].warnings
    assert any({"Zoë", "O\u2019Brien"} <= set(row) for row in held(warehouse.name, "users"))
    with duckdb.connect(warehouse.name, read_only=True) as connection:
        assert connection.sql("SELECT count(*) FROM oneroster.rejected_rows").fetchall() == [(0,)]


@pytest.mark.parametrize("content_type", [JSON, f"{JSON}; charset=utf-8", "text/plain"])
def test_utf8_is_not_copied(content_type) -> None:
    for said in (users(*NAMES), users("Adam"), ""):
        body = bytearray(said.encode())
        assert as_utf8(body, content_type)[0] is body


@given(st.binary(max_size=80) | st.text(max_size=40).map(str.encode))
def test_utf8_is_told_from_everything_else(body) -> None:
    try:
        body.decode()
        good = True
    except UnicodeDecodeError:
        good = False
    assert is_utf8(body) is good is is_utf8(bytearray(body))


ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be")


@given(
    st.dictionaries(st.text(), st.text() | st.integers() | st.none(), max_size=5),
    st.sampled_from((*ENCODINGS, "latin-1", "cp1252", "iso-8859-15", "koi8-r", "gb18030")),
    st.booleans(),
)
# letters whose bytes are also one of UTF-8's: unnamed, JSON is UTF-8
@example({"\u00c2\u00a0": None}, "cp1252", False)
def test_whatever_json_is_sent_in_a_charset_is_read_or_refused(value, charset, named) -> None:
    try:
        body = json.dumps(value, ensure_ascii=False).encode(charset)
    except UnicodeEncodeError:
        return
    known = named or charset in ENCODINGS or charset == "cp1252"
    if not known:
        return
    content_type = f"{JSON}; charset={charset}" if named else JSON
    try:
        read, warning = as_utf8(body, content_type)
    except BadResponse:
        # bytes that no charset of Windows has, and nothing else
        assert any(0x7F < byte < 0xA0 for byte in body) and charset in ("latin-1", "cp1252")
        return
    if charset == "cp1252" and not named and is_utf8(body):
        assert bytes(read) == body and not warning
        return
    assert json.loads(bytes(read)) == value or warning
