"""Pages that no server should send: each row of them is loaded, or counted, or the page refused.

Seeded mutations of a school's pages go the way that pages go, and what comes out is compared with
a reading of the same bytes in plain Python, which shares nothing with `shape` or `spec`.

Ten thousand pages: `uv run pytest -m campaign tests/resilience/test_fuzz.py -s -n 0`.
"""

from __future__ import annotations

import codecs
import copy
import json
import random
import re
import time
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pytest
from support import later
from support.settings import ESTAB

from oneroster_source import Report, Warehouse
from oneroster_source.config.options import Options as Settings
from oneroster_source.config.privacy import privacy
from oneroster_source.errors import BadResponse, label
from oneroster_source.extract.buffer import Buffer
from oneroster_source.extract.collection import Collection
from oneroster_source.extract.page_requests import ReadRequest
from oneroster_source.model import V1P1
from oneroster_source.run_report import Outcome
from oneroster_source.simulator import School, Simulator, secondary_school
from oneroster_source.simulator.options import Options
from oneroster_source.simulator.pages import Page as Answer
from oneroster_source.transform.charset import as_utf8
from oneroster_source.transform.duckdb_engine import Engine
from oneroster_source.transform.flatten import flatten
from oneroster_source.transform.parser import PageParser
from oneroster_source.transform.redaction import Redaction

ENGINE = Engine()
PARSERS = {endpoint.name: PageParser(endpoint, ENGINE) for endpoint in V1P1.endpoints}
ALL = {e.name: Redaction(e, privacy(Settings(privacy="full"), V1P1)) for e in V1P1.endpoints}
# a day begins at midnight UTC, for the model too
SETTINGS = {"retry_budget": 0, "privacy": "full", "time_zone": "UTC"}


# -- what the standard says ---------------------------------------------------------------------


@dataclass(frozen=True)
class Standard:
    """One collection; references and lists by the names under which they may come."""

    path: str
    singular: str
    texts: str
    flags: str = ""
    dates: str = ""
    references: tuple[str, ...] = ()
    reference_lists: tuple[str, ...] = ()
    value_lists: tuple[str, ...] = ()
    object_lists: tuple[str, ...] = ()

    @property
    def nested(self) -> tuple[str, ...]:
        lists = self.reference_lists + self.value_lists + self.object_lists
        return self.references + lists

    @property
    def attributes(self) -> list[str]:
        names = f"status dateLastModified metadata {self.texts} {self.flags} {self.dates}"
        return names.split() + " ".join(self.nested).split()


STANDARD = {
    "orgs": Standard(
        "orgs", "org", "name type identifier", references=("parent",), reference_lists=("children",)
    ),
    "academic_sessions": Standard(
        "academicSessions",
        "academic_session",
        "title type schoolYear",
        dates="startDate endDate",
        references=("parent",),
        reference_lists=("children",),
    ),
    "courses": Standard(
        "courses",
        "course",
        "title courseCode",
        references=("schoolYear", "org orgs"),
        reference_lists=("resources",),
        value_lists=("grades", "subjects", "subjectCodes"),
    ),
    "classes": Standard(
        "classes",
        "class",
        "title classCode classType location",
        references=("course", "school"),
        reference_lists=("terms", "resources"),
        value_lists=("grades", "subjects", "subjectCodes", "periods"),
    ),
    "users": Standard(
        "users",
        "user",
        "username givenName middleName familyName role identifier email sms phone password",
        flags="enabledUser",
        reference_lists=("orgs orgSourcedIds org", "agents"),
        value_lists=("grades",),
        object_lists=("userIds",),
    ),
    "enrollments": Standard(
        "enrollments",
        "enrollment",
        "role",
        flags="primary",
        dates="beginDate endDate",
        references=("user", "class", "school"),
    ),
}


def snake(name: str) -> str:
    return "".join("_" + c.lower() if c.isupper() else c for c in name)


# -- JSON, with all that is in it -----------------------------------------------------------------


class Members(tuple[tuple[str, Any], ...]):
    """The members of an object, in order, repeated ones too."""

    def get(self, name: str) -> Any:
        """The first one that has a value of its name."""
        return next((value for key, value in self if key == name), None)

    @property
    def names(self) -> list[str]:
        return [key for key, _ in self]


class Raw(str):
    """JSON text, right or wrong, to be written as it is."""


DEEP = ["[" * depth + "]" * depth for depth in (3000, 300)]
TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')
TRAILING_COMMA = re.compile(r'("(?:[^"\\]|\\.)*"|[\[{,]\s*,)|,(?=\s*[\]}])')


def read(text: str) -> Any:
    """JSON as the promises have it: NaN a text, U+FFFD for what is no character.

    A comma after the last item does no harm, and is passed over.
    """
    text = TRAILING_COMMA.sub(lambda m: m[1] or "", shallow(text))
    return _mended(json.loads(text, object_pairs_hook=Members, parse_constant=str))


def shallow(text: str) -> str:
    """JSON without the lists that are too deep for Python, which gives up at a thousand."""
    # what is too deep for databases is there as text
    text = TEXT.sub(lambda m: json.loads(m[0]) if "[" * 300 in m[0] else m[0], text)
    for deep in DEEP:
        text = text.replace(deep, '"deep"')
    return text


def _mended(value: Any) -> Any:
    if isinstance(value, Members):
        return Members((_mended(key), _mended(item)) for key, item in value)
    if isinstance(value, list):
        return [_mended(item) for item in value]
    if isinstance(value, str):
        return re.sub("[\x00\ud800-\udfff]", "\ufffd", value)
    return value


def write(value: Any, *, ascii: bool = False, comma: str = ",", colon: str = ":") -> str:
    options: dict[str, Any] = {"ascii": ascii, "comma": comma, "colon": colon}
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, Members):
        pairs = (write(k, **options) + colon + write(v, **options) for k, v in value)
        return "{" + comma.join(pairs) + "}"
    if isinstance(value, list):
        return "[" + comma.join(write(item, **options) for item in value) + "]"
    return json.dumps(value, ensure_ascii=ascii)


def exact(value: Any) -> Any:
    """For comparison: in Python, True equals 1."""
    if isinstance(value, Members):
        return "object", [(key, exact(item)) for key, item in value]
    if isinstance(value, list):
        return "list", [exact(item) for item in value]
    return "number" if type(value) in (int, float) else type(value).__name__, value


# -- what is to be loaded -------------------------------------------------------------------------


@dataclass
class Row:
    """What one row amounts to. A column holds a value as sent, which `holds` compares."""

    sourced_id: str | None
    columns: dict[str, Any] = field(default_factory=dict)
    children: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)


def text(value: Any) -> str | None:
    """A value as text: objects and lists as JSON; blank ones are none."""
    return value or None if isinstance(value, str) else None if value is None else write(value)


def holds(found: Any, sent: Any) -> bool:
    """Whether a column holds what was sent: the text itself, or JSON of the same value."""
    if sent in (None, ""):
        return found is None
    if isinstance(sent, str) or not isinstance(found, str):
        return bool(found == sent and type(found) is type(sent))
    return bool(exact(read(found)) == exact(sent))


MIDNIGHT = re.compile(
    r"(\d{4}-\d\d-\d\d)([Tt ]00(:00(:00([.,]0+)?)?)?( ?(Z|z|UTC|[+-]\d\d(:?\d\d)?))?)?", re.ASCII
)
INSTANT = re.compile(
    # one digit for a part is no standard, and not to be misunderstood
    r"(\d{4})-(\d\d?)-(\d\d?)([Tt ](\d\d?)(?::(\d\d?)(?::(\d\d?)([.,]\d+)?)?)?"
    r"( ?(?:Z|z|UTC|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?))?)?",
    re.ASCII,
)


def as_date(value: Any) -> date | None:
    match = MIDNIGHT.fullmatch(value) if isinstance(value, str) else None
    try:
        if match:
            return date.fromisoformat(match[1])
    except ValueError:
        return None
    # an instant at which a day begins in UTC, which is where these schools are
    instant = as_instant(value)
    if instant is None or not re.fullmatch(r"\d{4}-\d\d-\d\d[Tt ].*(Z|z|UTC|[+-][\d:]+)", value):
        return None
    return instant.date() if instant.time() == time_of_day.min else None


def as_instant(value: Any) -> datetime | None:
    match = INSTANT.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    year, month, day, hour, minute, second = (
        int(part or 0) for part in match.group(1, 2, 3, 5, 6, 7)
    )
    micros = int((match[8] or ".")[1:7].ljust(6, "0"))
    zone = (match[9] or "Z").strip().replace("UTC", "Z").replace("z", "Z")
    zone += "00" if re.fullmatch(r"[+-]\d\d", zone) else ""
    later = timedelta()
    if (minute, second) == (59, 60):
        later, second, micros = timedelta(seconds=1), 59, 0
    elif (hour, minute, second, micros) == (24, 0, 0, 0):
        later, hour = timedelta(days=1), 0
    offset = datetime.strptime(zone, "%z").tzinfo
    try:
        local = datetime(year, month, day, hour, minute, second, micros, tzinfo=offset)
        return (local + later).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def as_flag(value: Any) -> bool | None:
    word = write(value).strip('"').lower() if type(value) in (bool, int, str) else ""
    return {"true": True, "1": True, "false": False, "0": False}.get(word)


def empty(value: Any) -> bool:
    return value in (None, "", [], Members())


LONGEST = 1000
IDS = ("sourcedId", "sourceId", "id")


def spelt(sent: Members, names: Iterable[str]) -> Members:
    """An object with these names as the standard writes them, unless it has both."""
    proper = {name.lower(): name for name in names}
    return Members(
        (proper[key.lower()] if proper.get(key.lower(), key) not in sent.names else key, value)
        for key, value in sent
    )


def spelt_row(standard: Standard, sent: Members) -> Members:
    """A row with all names that mean something as the standard writes them."""
    inside = dict.fromkeys(" ".join(standard.object_lists).split(), ("type", "identifier"))
    references = " ".join(standard.references + standard.reference_lists)
    inside |= dict.fromkeys(references.split(), (*IDS, "type", "href"))

    def value_of(key: str, value: Any) -> Any:
        if key in inside and isinstance(value, Members):
            return spelt(value, inside[key])
        if key in inside and isinstance(value, list):
            return [
                spelt(item, inside[key]) if isinstance(item, Members) else item for item in value
            ]
        return value

    row = spelt(sent, ("sourcedId", *standard.attributes))
    return Members((key, value_of(key, value)) for key, value in row)


def reference(value: Any) -> tuple[tuple[Any, Any, Any], bool]:
    """Id, type and href; and whether that is not all."""
    if not isinstance(value, Members):
        return (value, None, None), False
    sourced_id = next((value.get(k) for k in IDS if value.get(k) is not None), None)
    names = value.names
    more = (
        len(set(names)) < len(names)
        or not {*names} <= {*IDS, "type", "href"}
        or len({*names} & {*IDS}) > 1
    )
    return (sourced_id, value.get("type"), value.get("href")), more


def is_too_long(sourced_id: Any) -> bool:
    return len((text(sourced_id) or "").encode()) > LONGEST


def expected(standard: Standard, sent: Any) -> Row:
    """What a row of a page amounts to."""
    if not isinstance(sent, Members):
        return Row(None, reasons=["no sourcedId"])
    sent = spelt_row(standard, sent)
    row = Row(text(sent.get("sourcedId")))
    if row.sourced_id is None:
        row.reasons.append("no sourcedId")
    elif is_too_long(row.sourced_id):
        row.sourced_id = None
        row.reasons.append("sourcedId: too long")
    for name in ("status", *standard.texts.split()):
        row.columns[snake(name)] = sent.get(name)
    row.columns["metadata"] = sent.get("metadata")
    readers = {"dateLastModified": (as_instant, "a timestamp")}
    readers |= dict.fromkeys(standard.dates.split(), (as_date, "a date"))
    readers |= dict.fromkeys(standard.flags.split(), (as_flag, "a boolean"))
    for name, (reader, what) in readers.items():
        value = sent.get(name)
        row.columns[snake(name)] = reader(value)
        if value not in (None, "") and reader(value) is None:
            row.reasons.append(f"{name}: not {what}")
            row.extra[name] = value
    word = re.sub(r"[-_\s]", "", text(sent.get("status")) or "").lower()
    row.columns["_deleted"] = word in ("tobedeleted", "inactive")
    for names in standard.nested:
        _nested(standard, names, sent, row)
    for name, count in Counter(sent.names).items():
        values = [value for key, value in sent if key == name]
        if name not in ("sourcedId", *standard.attributes):
            row.extra[name] = values[0]
        if count > 1:
            row.extra[name] = values
            row.reasons.append(f"{name}: sent more than once")
    return row


def _nested(standard: Standard, names: str, sent: Members, row: Row) -> None:
    name = names.split(maxsplit=1)[0]
    given = [alias for alias in names.split() if not empty(sent.get(alias))]
    value = sent.get(given[0]) if given else []
    items = value if isinstance(value, list) else [value]
    rows: list[tuple[Any, ...]]
    more = lengthy = False
    if names in standard.references:
        (rows, more, lengthy) = _references(items[:1])
        more |= len(items) > 1 or len(rows) < len(items)
        row.columns[snake(name) + "_sourced_id"] = rows[0][0] if rows else None
        lost = bool(items) and not rows and not lengthy
    else:
        items = [item for item in items if item not in (None, "")]
        if names in standard.reference_lists:
            rows, more, lengthy = _references(items)
        elif names in standard.value_lists:
            rows = [(item,) for item in items]
        else:
            rows, more = _user_ids(items)
        lost = len(rows) < len(items) - lengthy
    if lost:
        row.reasons.append(f"{name}: a reference without sourcedId")
    if lengthy:
        row.reasons.append(f"{name}: a reference whose sourcedId is too long")
    row.children[snake(name)] = rows
    # what comes under a second name has no other place
    kept = given if more or lost or lengthy else given[1:]
    row.extra |= {alias: sent.get(alias) for alias in kept}


def _references(items: list[Any]) -> tuple[list[tuple[Any, ...]], bool, int]:
    """The references, whether they say more, and how many have an id that is too long."""
    found = [reference(item) for item in items]
    named = [cells for cells, _ in found if text(cells[0]) is not None]
    rows = [cells for cells in named if not is_too_long(cells[0])]
    return rows, any(more for _, more in found), len(named) - len(rows)


def _user_ids(items: list[Any]) -> tuple[list[tuple[Any, ...]], bool]:
    rows, more = [], False
    for item in items:
        if isinstance(item, Members):
            rows.append((item.get("type"), item.get("identifier")))
            more |= not {*item.names} <= {"type", "identifier"}
            more |= len(item.names) > len({*item.names})
        else:
            rows.append((None, item))
    return rows, more


def rows_of(standard: Standard, body: bytes) -> list[Row] | None:
    """The rows of a page; None for one that is to be refused."""
    try:
        content = read(body.decode("utf-8-sig").strip() or "[]")
    except ValueError:
        return None
    if content is None or (isinstance(content, Members) and not content):
        # some servers say so that there are none
        return []
    if isinstance(content, Members):
        found = [value for key, value in content if key.lower() == standard.path.lower()]
        lists = any(isinstance(value, list) for _, value in content)
        said = len(found) == 1 and (found[0] is None or found[0] == "" or found[0] == Members())
        if said and not lists:
            return []
        content = found[0] if len(found) == 1 else None
    return [expected(standard, row) for row in content] if isinstance(content, list) else None


def newest(rows: Iterable[Row]) -> list[Row]:
    """Each sourcedId once: the row that changed last; of two such, the later one. Where another one
    said something else, that is told."""
    rows = copy.deepcopy(list(rows))
    best: dict[str, Row] = {}
    for row in rows:
        if row.sourced_id is not None:
            other = best.get(row.sourced_id)
            mine = row.columns["date_last_modified"]
            theirs = other and other.columns["date_last_modified"]
            if theirs is None or (mine is not None and mine >= theirs):
                best[row.sourced_id] = row
    for row in rows:
        kept = row if row.sourced_id is None else best[row.sourced_id]
        if _said(row) != _said(kept) and "sent more than once" not in kept.reasons:
            kept.reasons.append("sent more than once")
    return [row for row in rows if row.sourced_id is None or best[row.sourced_id] is row]


def _said(row: Row) -> Any:
    """What a row says, but for when, to compare it with another."""
    columns = {
        k: v if isinstance(v, date) else text(v)
        for k, v in row.columns.items()
        if k != "date_last_modified"
    }
    children = {k: [tuple(map(text, cells)) for cells in v] for k, v in row.children.items()}
    reasons = [r for r in row.reasons if r != "sent more than once"]
    return columns, children, {k: exact(v) for k, v in row.extra.items()}, reasons


# -- pages ----------------------------------------------------------------------------------------

ODD = [
    *(True, False, 0, 1, -1, 7.5, 1e5, 0.1, -0.0, 2**53 + 1, 2**63, 2**64, 10**40, -(10**25)),
    *map(
        Raw,
        ("1e999", "-1e999", "NaN", "Infinity", "-Infinity", "-0", "1E+2", "0.30000000000000004"),
    ),
    *("", " ", "null", "NaN", "true", "0", "[]", '{"a":1}', "\\", '"', "'; DROP TABLE users; --"),
    *(
        "\x00",
        "a\x00b",
        "\x1f\x7f\x85\u2028\ufeff",
        "😀 Zoë \u202e",
        "x" * 20_000,
        "\\u0000",
        "n, NaN, ",
    ),
    *map(Raw, (r'"\ud800"', r'"a\uDFFFb"', r'"\\ud800\udc00"', r'"\ud83d\ude00\ude00"')),
    *([], [None], [[]], [""], ["a", 1, None, [2]], Members(), Members([("a", [None])])),
    Members([("a", 1), ("a", 2)]),
    Members([("x", [Raw("NaN")]), ("\x00", Raw("Infinity"))]),
    *(Raw(f'{{"deep":{deep}}}') for deep in DEEP),
]
STAMPS = [
    *("2026-09-01", "2026-09-01T00:00:00", "2026-09-01T00:00:00.000Z", "2026-09-01 00:00:00"),
    *("2026-03-21T03:35:42+01:00", "2026-03-21T03:35:42.0171234Z", "2020-02-29", "2021-02-29"),
    *(
        "0000-01-01",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59Z",
        "9999-12-31T23:00:00-05:00",
    ),
    *("99999-1-01", "1-1-1 (BC)", "2026-9-1  ", "2026-13-45", "01/09/2026", "epoch", "infinity"),
    *(
        "now",
        "20260901",
        "2026-W10-1",
        "2026-09-01T25:00:00Z",
        "2026-09-01T12:00",
        "2026-08-31T23:00:00-01:00",
        "2026-09-01T00:00Z",
        "2026-09-01T03+03",
        "2026-12-31T23:59:60Z",
        "2026-09-01T24:00:00Z",
        "\u0662\u0660\u0662\u0666-01-01",
    ),
    *(20260901, 1700000000000, 1.7e9, "1700000000"),
]
FLAGS = ["TRUE", "False", "yes", "no", "Y", "2", 1.0, 2, "01", " true", "t"]
STATUSES = [
    "tobedeleted",
    "toBeDeleted",
    "TO BE DELETED",
    "inactive",
    "Active",
    "deleted",
    "active\n",
]
REFERENCES = [
    *("o1", 7, True, ["o1"], ["o1", "o2"], [["o1"]], [None, "o2"], [{"sourcedId": "o1"}]),
    *({"sourceId": "o1"}, {"sourceID": "o1"}, {"id": "o1"}, {"sourcedId": ""}, {"sourcedId": None}),
    *(
        {"sourcedId": "", "id": "o1"},
        {"sourcedId": "o1", "id": "o2"},
        {"id": None, "sourcedId": "o1"},
    ),
    *({"href": "http://x/orgs/o1", "type": "org"}, {"sourcedid": "o1"}, {"sourcedId": ["o1"]}),
    *(
        {"SourcedId": "o1", "Type": "org"},
        {"ID": "o1", "sourcedID": None},
        {"sourcedId": "é" * 501},
    ),
    *({"sourcedId": "o1", "type": "org", "href": "h", "name": "Hill"}, {"sourcedId": 5, "type": 6}),
    {"sourcedId": 1, "type": 2, "href": 3, "a": 4},
    {"sourcedId": "o1", "type": {"a": 1}, "href": [1]},
    Members([("sourcedId", "o1"), ("sourcedId", "o2")]),
    [{"sourcedId": "o1"}, {}, "o2", None, "", 3, [], {"type": "org"}],
    [{"type": "mis", "identifier": "1"}, {"identifier": ""}, "bare", 5, {"Type": "x"}, {}],
    [Members([("identifier", "1"), ("identifier", "2")])],
]
NAMES = [
    *(
        "preferredName",
        "SourcedId",
        "USERNAME",
        "Status",
        "BeginDate",
        "username2",
        "",
        " ",
        "a/b",
        "a~1b",
        "$",
        "*",
        "a.b",
        'q"q',
        "ключ",
    ),
    *("k\x00", "_deleted", "extra", "estab", "position", "x" * 3000),
]
IDENTIFIERS = ["", None, " ", " a ", "a", "A", "ä", True, 0, 5, "5", 1.5, [], ["a"], {"x": 1}, "#a"]
IDENTIFIERS += [Raw("NaN"), 10**30, "x" * 5000, "a\x00", Raw(r'"a\ud800"'), "a'b\"c\\", "a\nb"]
NO_ROWS = [None, True, 5, 1.5, "row", "", [], {}, [{"sourcedId": "a"}], ["a", "b"], Raw("NaN")]


def raw(value: Any) -> Any:
    """Members for dicts, so that some may come twice."""
    if isinstance(value, dict):
        return Members((key, raw(item)) for key, item in value.items())
    return [raw(item) for item in value] if isinstance(value, list) else value


@cache
def school_rows() -> dict[str, list[Members]]:
    school = secondary_school(7, ESTAB, pupils=40)
    return {
        name: [
            raw(row)
            for row in json.loads(
                school.page(standard.path, Options(), "https://sis.example/v1p1").body
            )[standard.path]
        ]
        for name, standard in STANDARD.items()
    }


class Page:
    """One page, made of a seed: its rows, each as it is written, and the body."""

    def __init__(self, endpoint: str, seed: int, *, envelopes: bool = True) -> None:
        self.rng = rng = random.Random(f"{endpoint}/{seed}")
        self.standard = STANDARD[endpoint]
        self._style: dict[str, Any] = {
            "ascii": rng.random() < 0.5,
            "comma": rng.choice([",", ",", ", ", " ,\r\n\t"]),
            "colon": rng.choice([":", ":", ": ", "\n: "]),
        }
        pool = school_rows()[endpoint]
        self._rows: list[Any] = copy.copy(rng.sample(pool, min(len(pool), rng.randint(0, 8))))
        for _ in range(rng.choice([0, 1, 1, 2, 3, 5, 8])):
            if self._rows:
                rng.choice(MUTATIONS)(self)
        self.rows = [write(row, **self._style) for row in self._rows]
        self.envelope = rng.choice(ENVELOPES) if envelopes and rng.random() < 0.2 else plain
        self.body = self.of(self.rows)
        # where the deep lists would be broken, Python cannot tell what is right
        if envelopes and rng.random() < 0.1 and DEEP[1].encode() not in self.body:
            self.body = rng.choice(CORRUPTIONS)(self.body, rng)

    def of(self, rows: list[str]) -> bytes:
        """A body that holds these of the rows."""
        return self.envelope(self.standard.path, self._style["comma"].join(rows)).encode()

    def one(self) -> int:
        """The place of a row that is an object."""
        places = [i for i, row in enumerate(self._rows) if isinstance(row, Members)]
        return self.rng.choice(places) if places else self.add(Members([("sourcedId", "z")]))

    def add(self, row: Any) -> int:
        self._rows.append(row)
        return len(self._rows) - 1

    def set(self, name: str, *values: Any) -> None:
        """Sets an attribute of some row, more than once if there are more values."""
        index = self.one()
        members = [(key, value) for key, value in self._rows[index] if key != name]
        for value in values:
            members.insert(self.rng.randint(0, len(members)), (name, raw(value)))
        self._rows[index] = Members(members)

    def attribute(self) -> str:
        return self.rng.choice(self.standard.attributes)

    def value(self) -> Any:
        return self.rng.choice(self.rng.choice([ODD, ODD, STAMPS, FLAGS, REFERENCES, STATUSES]))

    def odd_value(self) -> None:
        self.set(self.attribute(), self.value())

    def odd_stamp(self) -> None:
        names = ["dateLastModified", *self.standard.dates.split()]
        self.set(self.rng.choice(names), self.rng.choice(STAMPS))

    def odd_flag(self) -> None:
        self.set(self.standard.flags or "status", self.rng.choice(FLAGS))

    def odd_reference(self) -> None:
        self.set(
            self.rng.choice(" ".join(self.standard.nested).split()), self.rng.choice(REFERENCES)
        )

    def odd_status(self) -> None:
        self.set("status", self.rng.choice(STATUSES))

    def unknown_attribute(self) -> None:
        self.set(self.rng.choice(NAMES), self.value())

    def attribute_twice(self) -> None:
        name = self.rng.choice([*self.standard.attributes, "sourcedId", "foo"])
        times = self.rng.choice([2, 2, 3])
        if name == "sourcedId":
            values = self.rng.choices(IDENTIFIERS, k=times)
        else:
            values = [self.rng.choice(["1", self.value()]) for _ in range(times)]
        self.set(name, *values)

    def odd_identifier(self) -> None:
        self.set("sourcedId", self.rng.choice(IDENTIFIERS))

    def no_identifier(self) -> None:
        self.set("sourcedId")

    def no_attribute(self) -> None:
        self.set(self.attribute())

    def no_row(self) -> None:
        self._rows[self.rng.randrange(len(self._rows))] = raw(self.rng.choice(NO_ROWS))

    def row_twice(self) -> None:
        place = self.rng.randint(0, len(self._rows))
        self._rows.insert(place, self._rows[self.one()])
        self.rng.choice([self.odd_stamp, self.odd_value])()


MUTATIONS: list[Callable[[Page], None]] = [
    *(Page.odd_value, Page.odd_value, Page.odd_stamp, Page.odd_flag, Page.odd_reference),
    *(Page.odd_reference, Page.odd_status, Page.unknown_attribute, Page.attribute_twice),
    *(Page.odd_identifier, Page.no_identifier, Page.no_attribute, Page.no_row, Page.row_twice),
]


def plain(path: str, rows: str) -> str:
    return f'{{"{path}":[{rows}]}}'


ENVELOPES: list[Callable[[str, str], str]] = [
    lambda path, rows: plain(path.lower(), rows),
    lambda path, rows: plain(path.upper(), rows),
    lambda path, rows: f"[{rows}]",
    lambda path, rows: f" \n\t[ {rows}\r\n]\n",
    lambda path, rows: f'\ufeff \r\n{{ "{path}" :\n[{rows} ]\t}} ',
    lambda path, rows: f'{{"count": 5, "{path}": [{rows}], "links": [NaN, {{"{path}": []}}]}}',
    lambda path, rows: plain("".join(f"\\u{ord(c):04x}" for c in path), rows),
    lambda path, rows: f'{{"{path}": [{rows}], "{path}": [{rows}]}}',
    lambda path, rows: f'{{"{path.upper()}": [], "{path}": [{rows}]}}',
    lambda path, rows: f'{{"{path}": {{"0": [{rows}]}}}}',
    lambda path, rows: f'{{"data": {plain(path, rows)}}}',
    lambda path, rows: f'{{"{path}": null, "rows": [{rows}]}}',
    lambda path, rows: f'{{"{path}x": [{rows}]}}',
    lambda path, rows: json.dumps(plain(path, "")),
    lambda path, rows: f"[{plain(path, '')}",
]


def cut(body: bytes, rng: random.Random) -> bytes:
    return body[: rng.randrange(len(body))]


def byte_lost(body: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(body))
    return body[:place] + body[place + 1 :]


def byte_added(body: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(body))
    odd = rng.choice(
        [b"\x00", b"\x01", b"\xff", b'"', b"\\", b"{", b"]", b",", b"\n", b"\xc2", b"9"]
    )
    return body[:place] + odd + body[place:]


CORRUPTIONS: list[Callable[[bytes, random.Random], bytes]] = [
    *(cut, cut, byte_lost, byte_added, byte_added),
    lambda body, rng: b"",
    lambda body, rng: rng.choice([b" ", b"null", b"5", b'"', b"{}", b"\x00", codecs.BOM_UTF8]),
    lambda body, rng: b"<!DOCTYPE html><html><body>Sign in</body></html>",
    lambda body, rng: codecs.BOM_UTF8 + codecs.BOM_UTF8 + body,
    lambda body, rng: body.decode().encode("utf-16"),
    lambda body, rng: body + body,
    lambda body, rng: body + b" trailing",
]


# -- the comparison -------------------------------------------------------------------------------

Tables = dict[str, list[dict[str, Any]]]


@dataclass
class Tally:
    """What a campaign met."""

    pages: int = 0
    refused: int = 0
    rows: int = 0
    children: int = 0
    rejected: int = 0
    kept: int = 0

    def add(self, rows: list[Row]) -> None:
        self.rows += sum(row.sourced_id is not None for row in rows)
        self.children += sum(len(items) for row in rows for items in row.children.values())
        self.rejected += sum(len(row.reasons) for row in rows)
        self.kept += sum(len(row.extra) for row in rows if row.sourced_id is not None)

    def __str__(self) -> str:
        return (
            f"{self.pages:,} pages, of which {self.refused:,} refused; {self.rows:,} rows,"
            f" {self.children:,} child rows, {self.kept:,} values kept in extra,"
            f" {self.rejected:,} rejected"
        )


def check(endpoint: str, rows: list[Row], tables: Tables) -> None:
    """The tables hold the rows, all of them, in any order, and nothing else."""
    known = sorted((row for row in rows if row.sourced_id is not None), key=lambda r: r.sourced_id)
    found = sorted(tables[endpoint], key=lambda r: r["sourced_id"])
    assert [r["sourced_id"] for r in found] == [row.sourced_id for row in known]
    for row, there in zip(known, found, strict=True):
        _check_columns(row, there)
    for name in " ".join(n.split()[0] for n in STANDARD[endpoint].nested).split():
        _check_children(endpoint, snake(name), known, tables[f"{endpoint}__{snake(name)}"])
    reasons = Counter((row.sourced_id, reason) for row in rows for reason in row.reasons)
    assert Counter((r["sourced_id"], r["reason"]) for r in tables["rejected_rows"]) == reasons


def _check_columns(row: Row, there: dict[str, Any]) -> None:
    for name, sent in row.columns.items():
        if name == "metadata":
            found = read(there[name] or "null")
            assert exact(found) == exact(sent), name
        else:
            assert holds(there[name], sent), (name, there[name], sent)
    extra = read(there["extra"] or "{}")
    assert len(extra) == len(row.extra), (extra, row.extra)
    for name, sent in row.extra.items():
        assert exact(extra.get(name)) == exact(sent), name
    for name in ("metadata", "extra"):
        json.loads(shallow(there[name] or "0"), parse_constant=_no_json)
    when = row.columns["date_last_modified"] if row.columns["_deleted"] else None
    assert holds(there["_deleted_at"], when)
    known = {"estab", "sourced_id", "extra", "_deleted_at", *row.columns}
    assert {name for name in there if not name.startswith("_dlt")} == known


def _no_json(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def _check_children(endpoint: str, name: str, known: list[Row], found: Any) -> None:
    parent = f"{STANDARD[endpoint].singular}_sourced_id"
    there = sorted(found, key=lambda r: (r[parent], r["position"]))
    wanted = [
        (row.sourced_id, position, item)
        for row in known
        for position, item in enumerate(row.children[name])
    ]
    assert [(r[parent], r["position"]) for r in there] == [w[:2] for w in wanted], name
    for (_, _, item), child in zip(wanted, there, strict=True):
        cells = [v for k, v in child.items() if k not in ("estab", parent, "position")]
        cells = cells[: len(item)]
        assert all(map(holds, cells, item)), (name, cells, item)


def one_page(endpoint: str, body: bytes, tally: Tally) -> None:
    """Takes one page the way that pages go, and compares."""
    rows = rows_of(STANDARD[endpoint], body)
    tally.pages += 1
    try:
        wide = PARSERS[endpoint].parse(body)
    except BadResponse:
        assert rows is None, "a good page was refused"
        tally.refused += 1
        return
    assert rows is not None, "a bad page was taken"
    assert len(wide) == len(rows)
    outcome = Outcome(ESTAB, endpoint)
    tables: Tables = {name: [] for name in _tables(endpoint)}
    with closing(Buffer()) as buffer:
        if rows:
            buffer.add(wide, 0)
        parser, redact = PARSERS[endpoint], ALL[endpoint]
        collection = Collection(buffer, parser, ReadRequest("full"), outcome, redact, None)
        for part in collection.rows():
            found = flatten(part, parser.endpoint, ESTAB, tombstones=True)
            for name, table in found.items():
                tables[name] += table.to_pylist()
    rows = newest(rows)
    _take_tombstones(endpoint, rows, tables)
    check(endpoint, rows, tables)
    assert outcome.changed == len(rows)
    assert outcome.rejected == sum(len(row.reasons) for row in rows)
    assert outcome.deleted == sum(row.columns.get("_deleted", False) for row in rows)
    assert outcome.undeclared == sorted({label(name) for row in rows for name in row.extra})
    tally.add(rows)


def _tables(endpoint: str) -> list[str]:
    children = [f"{endpoint}__{snake(n.split()[0])}" for n in STANDARD[endpoint].nested]
    return [endpoint, *children, "rejected_rows"]


def _take_tombstones(endpoint: str, rows: list[Row], tables: Tables) -> None:
    """Each row without children of some kind has one that says so."""
    parent = f"{STANDARD[endpoint].singular}_sourced_id"
    for name in _tables(endpoint)[1:-1]:
        child = name.removeprefix(f"{endpoint}__")
        none = [r for r in tables[name] if r["position"] == -1]
        childless = {r.sourced_id for r in rows if r.sourced_id and not r.children[child]}
        assert sorted(r[parent] for r in none) == sorted(childless), name
        tables[name] = [r for r in tables[name] if r["position"] != -1]


def many_pages(seeds: range, tally: Tally) -> None:
    for seed in seeds:
        endpoint = list(STANDARD)[seed % len(STANDARD)]
        try:
            one_page(endpoint, Page(endpoint, seed).body, tally)
        except Exception as error:
            raise AssertionError(f"{endpoint}, seed {seed}: {error!r}") from error


# -- through a server, into a database ------------------------------------------------------------


class Spoiled(School):
    """A school whose pages are mutated ones; rows come in the order in which they are written."""

    def __init__(self, estab: str, seed: int) -> None:
        super().__init__(estab)
        self.pages = {s.path: Page(name, seed) for name, s in STANDARD.items()}

    def page(self, collection: str, options: Options, base_url: str) -> Answer:
        page = self.pages[collection]
        if page.body != page.of(page.rows):
            return Answer(page.body, 0, None)
        rows = page.rows[options.offset :]
        return Answer(page.of(rows), len(rows), str(len(page.rows)))


def received(body: bytes) -> bytes:
    """A body as the parser gets it: see `tests/unit/client/test_charset.py`."""
    try:
        body = bytes(as_utf8(body, "application/json")[0])
    except BadResponse:
        return b"no text"
    # of two byte order marks, the client takes one away and the parser the other
    return body.removeprefix(BOM_UTF8)


def through_a_server(seeds: range, folder: Path, tally: Tally) -> None:
    """Loads schools of six pages each, and compares what DuckDB holds then."""
    schools = [Spoiled(f"{seed:07}", seed) for seed in seeds]
    server = Simulator(schools)
    server.start()
    entries = [{"estab": s.estab, "rp": s.rp, "shared_secret": s.shared_secret} for s in schools]
    report = Report()
    file = folder / f"fuzz-{seeds.start}.duckdb"
    try:
        reach = {"base_url": server.base_url, "schools": entries}
        Warehouse(str(file)).load(report, **reach, **SETTINGS)
    finally:
        server.stop()
    outcomes = {(o.estab, o.endpoint): o for o in report.outcomes}
    with duckdb.connect(str(file), read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for school in schools:
            for endpoint, standard in STANDARD.items():
                rows = rows_of(standard, received(school.pages[standard.path].body))
                outcome = outcomes[school.estab, endpoint]
                tally.pages += 1
                tally.refused += rows is None
                unread = bool(rows) and all(row.sourced_id is None for row in rows)
                assert (outcome.state == "failed") == (rows is None or unread), (outcome, rows)
                if unread:
                    # nothing of it is loaded
                    rows = []
                rows = newest(rows or [])
                assert outcome.rejected == sum(len(row.reasons) for row in rows)
                try:
                    check(endpoint, rows, held(connection, endpoint, school.estab))
                except AssertionError as error:
                    raise AssertionError(f"{endpoint}, seed {int(school.estab)}") from error
                tally.add(rows)


def held(connection: duckdb.DuckDBPyConnection, endpoint: str, estab: str) -> Tables:
    found: Tables = {}
    for name in _tables(endpoint):
        where = "estab = ?" + (f" AND endpoint = '{endpoint}'" if name == "rejected_rows" else "")
        answer = connection.execute(f"SELECT * FROM oneroster.{name} WHERE {where}", [estab])
        columns = [column[0] for column in answer.description or ()]
        found[name] = [dict(zip(columns, row, strict=True)) for row in answer.fetchall()]
    return found


# -- tests ----------------------------------------------------------------------------------------


def resident() -> float:
    """Megabytes that this process holds in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


@pytest.mark.parametrize(
    ("endpoint", "attribute"),
    [
        ("users", "sourcedId"),
        ("users", "username"),
        ("users", "enabledUser"),
        ("users", "dateLastModified"),
        ("users", "status"),
        ("users", "orgs"),
        ("users", "userIds"),
        ("users", "grades"),
        ("users", "metadata"),
        ("users", "undeclared"),
        ("enrollments", "beginDate"),
        ("enrollments", "class"),
        ("courses", "orgs"),
    ],
)
def test_every_odd_value_is_loaded_or_counted(endpoint: str, attribute: str) -> None:
    odd = [*ODD, *STAMPS, *FLAGS, *STATUSES, *REFERENCES]
    rows = [Members([("sourcedId", f"r{i}"), (attribute, raw(v))]) for i, v in enumerate(odd)]
    if attribute == "sourcedId":
        rows = [Members([(attribute, raw(value))]) for value in IDENTIFIERS]
    rows += [
        Members([("sourcedId", f"twice{i}"), (attribute, v), (attribute, v)])
        for i, v in enumerate(["", 1])
    ]
    body = plain(STANDARD[endpoint].path, ",".join(map(write, rows)))
    tally = Tally()
    one_page(endpoint, body.encode(), tally)
    assert tally.rejected, tally


def test_every_row_of_mutated_pages_is_loaded_or_counted() -> None:
    tally = Tally()
    many_pages(range(100_000, 100_120), tally)
    assert min(tally.refused, tally.rows, tally.children, tally.kept, tally.rejected) > 5, tally


def test_mutated_pages_of_a_server_are_in_the_database_or_refused(tmp_path: Path) -> None:
    tally = Tally()
    through_a_server(range(100_001, 100_003), tmp_path, tally)
    assert tally.refused and tally.rejected and tally.kept, tally


@pytest.mark.parametrize("pages", [20, later(10_000)])
def test_thousands_of_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str], pages: int) -> None:
    """Run it with: uv run pytest -m campaign tests/resilience/test_fuzz.py -s -n 0"""
    begun, tally, served = time.monotonic(), Tally(), Tally()
    many_pages(range(pages // 10), tally)
    before = resident()
    many_pages(range(pages // 10, pages), tally)
    after = resident()
    for start in range(0, pages // 100, 20):
        through_a_server(range(start, start + 20), tmp_path, served)
    seconds = time.monotonic() - begun
    with capsys.disabled():
        print(  # noqa: T201
            f"\n{tally}; memory {before:.0f} MB after {pages // 10:,} pages,"
            f" {after:.0f} MB after {pages:,};"
            f" through a server into DuckDB: {served}; {seconds:.0f} s"
        )
    assert after < before * 1.3 + 50
