"""A provider in memory: a school that changes, and a server that answers for it in its own way.

Nothing here knows the reader. `Provider` takes the place of the one class that makes requests, so
that all that decides about rows runs as it does in production: client, parser, reader, cursors.
"""

from __future__ import annotations

import json
import re
import unicodedata
from bisect import insort
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from threading import Lock, Thread
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit
from zlib import crc32

from oneroster_source.client.transport import Answer, Server

DAY = timedelta(days=1)
FAR = datetime(2999, 1, 1, tzinfo=UTC)


class Row(NamedTuple):
    key: str
    stamp: datetime
    status: str
    version: int


class School:
    """The rows of a collection as a server has them, and its clock."""

    def __init__(
        self,
        random: Random,
        rows: int,
        changes: tuple[Change, ...],
        *,
        spell: Callable[[int], str] = "{:05}".format,
        numbers: int = 100_000,
    ) -> None:
        self.random = random
        self.spell = spell
        """Makes an id of a number."""
        self.numbers = range(numbers)
        self.now = datetime(2025, 9, 1, tzinfo=UTC)
        self.late = timedelta()
        """How much older than its appearance a row's stamp may be."""
        self.precise = random.random() < 0.5
        """Whether its stamps have fractions of seconds."""
        self.latency = timedelta(seconds=random.choice((0.03, 0.9)))
        self.pace = 0.0
        """Changes before each request, on average."""
        self.room = 2 * rows + 30
        """Most rows it may have: one that grows faster than it is read has no end."""
        self.rows: dict[str, Row] = {}
        self.keys: list[str] = []
        self.purged: list[Row] = []
        self._changes = changes
        self._versions = 0
        for number in random.sample(self.numbers, rows):
            self.put(spell(number), self.now - random.random() * 1000 * DAY)

    def put(self, key: str, stamp: datetime, status: str = "active") -> None:
        """Adds a row, or changes it."""
        if key not in self.rows:
            insort(self.keys, key)
        self._versions += 1
        self.rows[key] = Row(key, stamp, status, self._versions)

    def remove(self, key: str) -> None:
        self.purged.append(self.rows.pop(key))
        self.keys.remove(key)

    def stamp(self) -> datetime:
        """What a change made now is stamped with."""
        stamp = self.now
        if self.late and self.random.random() < 0.5:
            stamp -= self.late * self.random.choice((1, self.random.random()))
        return stamp if self.precise else stamp.replace(microsecond=0)

    def some(self, most: int) -> list[str]:
        """A few rows, side by side or anywhere."""
        count = min(len(self.keys), self.random.randint(1, max(1, most)))
        if self.random.random() < 0.5:
            return self.random.sample(self.keys, count)
        first = self.random.randint(0, len(self.keys) - count)
        return self.keys[first : first + count]

    def wait(self, time: timedelta, changes: int) -> None:
        """Lets time pass, with changes in it."""
        for _ in range(changes):
            self.now += time / (changes + 1)
            self.random.choice(self._changes)(self)
        self.now += time / (changes + 1)

    def tick(self) -> None:
        """What happens before the next request."""
        whole, rest = divmod(self.pace, 1)
        self.wait(self.latency, int(whole) + (self.random.random() < rest))


Change = Callable[[School], None]


def update(school: School) -> None:
    for key in school.some(3):
        school.put(key, school.stamp())


def tie(school: School) -> None:
    stamp = school.stamp()
    for key in school.some(len(school.keys)):
        school.put(key, stamp)


def purge(school: School) -> None:
    # never so many that a full pass refuses to believe it
    if len(school.keys) > 20:
        for key in school.some(len(school.keys) // 8):
            school.remove(key)


def tombstone(school: School) -> None:
    for key in school.some(5):
        school.put(key, school.stamp(), "tobedeleted")


def add(school: School) -> None:
    count = min(school.random.randint(1, 5), school.room - len(school.keys))
    for number in school.random.sample(school.numbers, max(0, count)):
        school.put(school.spell(number), school.stamp())


def future(school: School) -> None:
    for key in school.some(2):
        school.put(key, FAR + timedelta(seconds=school.random.randint(0, 9)))


def restore(school: School) -> None:
    """Some rows come back as they were: no delta tells."""
    for row in school.purged[-3:]:
        if row.key not in school.rows and len(school.keys) < school.room:
            school.put(row.key, row.stamp)
    del school.purged[-3:]


def turn_of_the_year(school: School) -> None:
    """Most rows end, and others begin."""
    leaving = school.some(len(school.keys))
    for key in leaving:
        if school.random.random() < 0.5:
            school.remove(key)
        else:
            school.put(key, school.stamp(), "tobedeleted")
    coming = min(len(leaving), school.room - len(school.keys))
    for number in school.random.sample(school.numbers, max(0, coming)):
        school.put(school.spell(number), school.stamp())


class Task(Future[Any]):
    """A request under way; who waits for it lets the others get on too."""

    def __init__(self, executor: AnyOrder, work: Callable[[], Any]) -> None:
        super().__init__()
        self._executor = executor
        self._work = work

    def run(self) -> None:
        if self.set_running_or_notify_cancel():
            try:
                self.set_result(self._work())
            except Exception as error:
                self.set_exception(error)

    def result(self, timeout: float | None = None) -> Any:
        while not self.done():
            self._executor.run_one()
        return super().result()


class AnyOrder(Executor):
    """Runs what it was given in an order of its own, without threads."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._waiting: list[Task] = []

    def submit(self, work: Callable[..., Any], /, *args: Any, **more: Any) -> Future[Any]:
        task = Task(self, lambda: work(*args, **more))
        self._waiting.append(task)
        if self._random.random() < 0.3:
            self.run_one()
        return task

    def run_one(self) -> None:
        self._waiting.pop(self._random.randrange(len(self._waiting))).run()


@cache
def _no_accents(key: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", key) if not unicodedata.combining(c))


@cache
def _no_punctuation(key: str) -> str:
    return "".join(c for c in _no_accents(key).lower() if c.isalnum())


COLLATIONS: dict[str, Callable[[str], Any]] = {
    "binary": str,
    "case": str.lower,
    "accents": lambda key: _no_accents(key).lower(),
    "punctuation": _no_punctuation,
    "numbers": lambda key: int(key) if key.isdecimal() else 0,
}
"""What servers compare for each id when they sort."""

_LETTERS = ("k{:05}q", "K{:05}q", "k{:05}Q", "K{:05}Q")
_MARKS = ("k{:05}q", "\u0137{:05}q", "k-{:05}q", "K{:05}-Q", "\u0136{:05}q")
_DIGITS = ("{}", "{:05}", "{:07}")
SPELLINGS = {
    "binary": _LETTERS,
    "case": _LETTERS,
    "accents": _MARKS,
    "punctuation": _MARKS,
    "numbers": _DIGITS,
}
"""Ids of which several are one to a collation."""


def spelled(collation: str) -> Callable[[int], str]:
    """Ids for a collation: numbers side by side are often equal under it."""
    forms = SPELLINGS[collation]
    return lambda number: forms[number % len(forms)].format(number // len(forms))


@dataclass(frozen=True)
class Habits:
    """How a server answers: all that providers were seen to do, and some that nobody has seen."""

    collation: str = "binary"
    sorts: str = "right"
    """right; ignored: in no order, but always the same; or the status it is refused with."""
    down: str = "right"
    """The descending order: right, ignored, or the status."""
    ties: str = "fixed"
    """In which order rows come that are equal to it: fixed, or another one at each request, or on
    each connection."""
    caps: tuple[int, ...] = (10**9,)
    """Most rows in a page; one of these at each request."""
    most: int = 10**9
    """A larger limit is refused."""
    total: str = "right"
    """right, none, unfiltered, or page: the rows of the page."""
    window: int = 10**9
    """Rows behind this place are never given."""
    window_ends: str = "empty"
    """What is answered there: empty, or a status."""
    counts_window: bool = False
    """Whether the total is no more than the window."""
    clamps: bool = False
    """Whether an offset near the end, or behind it, is moved to the last whole page."""
    nothing: str = "[]"
    """The body that says that there are no rows."""
    nothing_status: int = 200
    end_status: int = 200
    """The status at an offset at which there are no rows."""
    filters: str = "right"
    """right, ignored, nothing, upper, day, first, last: see `_matches`."""
    repeats: float = 0.0
    """Share of the ids that come on more than one row, each with content of its own."""
    copies: int = 3
    """How many rows that is."""
    first_again: bool = False
    """Whether the first row comes a second time in the middle."""
    stale: float = 0.0
    """How often the answer is the one to the request before."""
    tells_time: bool = True
    heavy: bool = False
    """Whether some rows are so large that they never come with the row before."""


_PREDICATE = re.compile(r"(\w+)\s*(!=|>=|<=|=|>|<)\s*'([^']*)'")
_OPERATORS: dict[str, Callable[[str, str], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
}
_CONNECTIONS = 3


def _holds(
    predicates: list[tuple[str, str, str]], row: dict[str, str], *, by_the_day: bool = False
) -> bool:
    for field, operator, value in predicates:
        sent = row[field]
        if field == "dateLastModified":
            # texts of one form compare as the instants do
            digits = 10 if by_the_day else 19
            sent = sent[:digits] + ("" if by_the_day else sent[19:-1])
            wanted = value[:digits]
        else:
            wanted = value
        if not _OPERATORS[operator](sent, wanted):
            return False
    return True


def answered(
    status: int, body: bytes, total: int | None = None, date: datetime | None = None
) -> Answer:
    """An answer as a request gives it."""
    return Answer(
        status=status,
        body=body,
        total=total,
        date=date,
        retry_after=None,
        host="memory",
        content_type="application/json",
        target="",
    )


def _chance(*what: object) -> float:
    """A number from 0 to 1, always the same for the same things."""
    return crc32("|".join(map(str, what)).encode()) / 2**32


class Provider(Server):
    """Answers for a school, out of memory, as its habits are."""

    def __init__(self, school: School, habits: Habits, random: Random) -> None:
        super().__init__(concurrency=4, timeout=1, max_bytes=1 << 30)
        self.school = school
        self.habits = habits
        self.base_url = ""
        """Where it answers real requests: see `serving`."""
        self.quiet = False
        """Whether it answers what it is asked, for now."""
        self.requests = 0
        self._random = random
        self._salt = random.random()
        self._before: Answer | None = None

    def request(
        self,
        method: str,
        url: str,
        *,
        authorization: str,
        form: dict[str, str] | None = None,
        sent: Callable[[], None] = lambda: None,
    ) -> Answer:
        sent()
        if method == "POST":
            return self._answer(200, b'{"access_token": "token", "expires_in": 1000000}')
        self.requests += 1
        self.school.tick()
        if self._before and not self.quiet and self._random.random() < self.habits.stale:
            answer, self._before = self._before, None
            return answer
        answer = self._before = self._page(dict(parse_qsl(urlsplit(url).query)))
        return answer

    def truth(self, filter: str = "") -> dict[str, str]:
        """The content of the rows that a filter is meant to match, by id."""
        return {
            key: self._content(key, 0)
            for key in self.school.keys
            if _holds(_PREDICATE.findall(filter), self._row(key, 0))
        }

    def _page(self, params: dict[str, str]) -> Answer:
        habits = self.habits
        sort, down = "sort" in params, params.get("orderBy") == "desc"
        for asked, told in ((sort, habits.sorts), (down, habits.down)):
            if asked and told.isdecimal():
                return self._answer(int(told), b"{}")
        limit = int(params.get("limit", 100))
        if limit > habits.most:
            return self._answer(400, b"{}")
        every = self._sorted(self.rows(params.get("filter", "")), down=down and sort)
        count = len(every)
        offset = int(params.get("offset", 0))
        if offset >= habits.window and habits.window_ends.isdecimal():
            return self._answer(int(habits.window_ends), b"{}")
        rows = every[: habits.window]
        width = min(limit, self._random.choice(habits.caps))
        if habits.clamps:
            offset = min(offset, max(0, len(rows) - width))
        rows = rows[offset : offset + width]
        if habits.heavy:
            heavy = (i for i, (key, _) in enumerate(rows) if i and sum(key.encode()) % 20 == 0)
            rows = rows[: next(heavy, None)]
        total = {
            "right": count,
            "unfiltered": len(self.rows("")),
            "page": len(rows),
            "none": None,
        }[habits.total]
        if total is not None and habits.counts_window:
            total = min(total, habits.window)
        if not rows:
            status = habits.end_status if offset else habits.nothing_status
            return self._answer(status, habits.nothing.encode(), total)
        return self._answer(
            200, json.dumps({"users": [self._row(*row) for row in rows]}).encode(), total
        )

    def rows(self, filter: str) -> list[tuple[str, int]]:
        """The rows that a filter matches: an id, and which of its rows it is."""
        found = []
        for key in self.school.keys:
            if filter and not self._matches(filter, self._row(key, 0)):
                continue
            copies = 1
            if self.habits.repeats and _chance(self._salt, key) < self.habits.repeats:
                copies = self.habits.copies
            found += [(key, copy) for copy in range(copies)]
        return found

    def _matches(self, filter: str, row: dict[str, str]) -> bool:
        how, predicates = self.habits.filters, _PREDICATE.findall(filter)
        if how == "ignored":
            return True
        if how == "nothing" or (how == "upper" and " and " in filter):
            return False
        if how in ("first", "last"):
            predicates = predicates[:1] if how == "first" else predicates[-1:]
        return _holds(predicates, row, by_the_day=how == "day")

    def _sorted(self, rows: list[tuple[str, int]], *, down: bool) -> list[tuple[str, int]]:
        habits = self.habits
        if habits.sorts != "right":
            # as they were stored
            rows = sorted(rows, key=lambda row: _chance(self._salt, row[0]))
        else:
            salt = {
                "fixed": self._salt,
                "request": self.requests,
                "connection": self._random.randrange(_CONNECTIONS),
            }[habits.ties]
            compared = COLLATIONS[habits.collation]
            rows = sorted(rows, key=lambda row: (compared(row[0]), _chance(salt, *row)))
            if down and habits.down == "right":
                rows.reverse()
        if habits.first_again and len(rows) > 2:
            key = rows[0][0]
            rows.insert(2 * len(rows) // 3, (key, 9))
        return rows

    def _row(self, key: str, copy: int) -> dict[str, str]:
        row = self.school.rows[key]
        return {
            "sourcedId": key,
            "status": row.status,
            "dateLastModified": row.stamp.isoformat(timespec="microseconds")[:26] + "Z",
            "username": self._content(key, copy),
            "role": "teacher" if sum(key.encode()) % 5 == 0 else "student",
        }

    def _content(self, key: str, copy: int) -> str:
        return f"{self.school.rows[key].version}" + (f" at {copy}" if copy else "")

    def _answer(self, status: int, body: bytes, total: int | None = None) -> Answer:
        now = self.school.now.replace(microsecond=0) if self.habits.tells_time else None
        return answered(status, body, total, now)


@contextmanager
def serving(provider: Provider) -> Iterator[Provider]:
    """Lets a provider answer over HTTP too, at its `base_url`; its other collections are empty."""
    turn = Lock()

    class Handler(BaseHTTPRequestHandler):
        def _respond(self) -> None:
            with turn:
                if urlsplit(self.path).path.endswith(("/users", "/token")):
                    answer = provider.request(self.command, self.path, authorization="")
                else:
                    answer = answered(200, b"[]")
            self.send_response_only(answer.status)
            if answer.total is not None:
                self.send_header("X-Total-Count", str(answer.total))
            if answer.date is not None:
                self.send_header("Date", format_datetime(answer.date, usegmt=True))
            if answer.status != 204:
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        do_GET = do_POST = _respond
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    provider.base_url = f"http://127.0.0.1:{server.server_port}/oneroster"
    try:
        yield provider
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
