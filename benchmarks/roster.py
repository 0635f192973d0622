"""Schools as bytes: every row serialised before the first request, so that no server is measured.

A collection lies in one file, ordered by sourcedId, about 730 bytes a row.
"""

from __future__ import annotations

import mmap
import tempfile
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

HREF = "https://xporter.example.org/api/ims/oneroster/v1p1/school"
NEWEST = datetime(2026, 9, 1, 2, 0, tzinfo=UTC)
"""When the youngest row was changed, before `change`."""
DAYS = 1000
"""Over as many days the changes of the rows are spread."""


def _stamp(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"


def _ref(path: str, kind: str, key: str) -> str:
    return f'{{"href":"{HREF}/{path}/{key}","sourcedId":"{key}","type":"{kind}"}}'


def _id(prefix: str, number: int) -> str:
    # numbers in order are ids in order
    return f"{prefix}{number:08d}-4c1e-8a77-{number * 2654435761 % 16**12:012x}"


def org(i: int, stamp: str, extra: str) -> str:
    return (
        f'{{"sourcedId":"{_id("o", i)}","status":"active","dateLastModified":"{stamp}",'
        f'"name":"School {i}{extra}","type":"school","identifier":"{328000 + i}"}}'
    )


def academic_session(i: int, stamp: str, extra: str) -> str:
    return (
        f'{{"sourcedId":"{_id("s", i)}","status":"active","dateLastModified":"{stamp}",'
        f'"title":"Term {i}{extra}","type":"term","startDate":"2026-09-01","endDate":"2026-12-18",'
        '"schoolYear":"2026"}'
    )


def course(i: int, stamp: str, extra: str) -> str:
    return (
        f'{{"sourcedId":"{_id("k", i)}","status":"active","dateLastModified":"{stamp}",'
        f'"title":"Course {i}{extra}","courseCode":"C{i}",'
        f'"org":{_ref("orgs", "org", _id("o", 0))}}}'
    )


def class_(i: int, stamp: str, extra: str) -> str:
    return (
        f'{{"sourcedId":"{_id("c", i)}","status":"active","dateLastModified":"{stamp}",'
        f'"title":"Class {i}{extra}","classCode":"{i}/Ma","classType":"scheduled",'
        f'"course":{_ref("courses", "course", _id("k", i // 8))},'
        f'"school":{_ref("orgs", "org", _id("o", 0))},'
        f'"terms":[{_ref("academicSessions", "academicSession", _id("s", i % 3))}]}}'
    )


def user(i: int, stamp: str, extra: str) -> str:
    agent = f'"agents":[{_ref("users", "user", _id("u", i // 2))}],' if i % 4 == 0 else ""
    return (
        f'{{"sourcedId":"{_id("u", i)}","status":"active","dateLastModified":"{stamp}",'
        f'"username":"user.{i:07d}","enabledUser":true,"givenName":"Given {i % 977}{extra}",'
        f'"middleName":"Middle {i % 83}","familyName":"Family {i % 4099}",'
        f'"role":"{"teacher" if i % 12 == 0 else "student"}","identifier":"A{i:012d}",'
        f'"email":"user.{i:07d}@school-{i % 40}.example.org","phone":"+44 20 7946 {i % 10000:04d}",'
        f'"sms":"+44 7700 900{i % 1000:03d}","orgs":[{_ref("orgs", "org", _id("o", 0))}],'
        f'"userIds":[{{"type":"upn","identifier":"H{i:011d}"}},'
        f'{{"type":"mis","identifier":"{i * 7:09d}"}}],{agent}"grades":["{7 + i % 7}"]}}'
    )


def enrollment(i: int, stamp: str, extra: str) -> str:
    role = "teacher" if i % 25 == 0 else "student"
    return (
        f'{{"sourcedId":"{_id("e", i)}","status":"active","dateLastModified":"{stamp}",'
        f'"role":"{role}","primary":{"true" if i % 25 == 0 else "false"},'
        f'"beginDate":"2026-09-01","endDate":"2027-07-{10 + len(extra):02d}",'
        f'"user":{_ref("users", "user", _id("u", i // 3))},'
        f'"class":{_ref("classes", "class", _id("c", i // 28))},'
        f'"school":{_ref("orgs", "org", _id("o", 0))}}}'
    )


MAKERS: dict[str, Callable[[int, str, str], str]] = {
    "orgs": org,
    "academicSessions": academic_session,
    "courses": course,
    "classes": class_,
    "users": user,
    "enrollments": enrollment,
}


@dataclass
class Served:
    """A collection, ready to be sent."""

    name: str
    bytes: mmap.mmap
    ends: array[int]
    """Where each row ends in `bytes`; a comma stands between two."""
    changed: dict[int, tuple[datetime, bytes]] = field(default_factory=dict)
    """Rows that are not any more as they were."""
    times: int = 0
    """How often rows were changed."""

    def __len__(self) -> int:
        return len(self.ends)

    def part(self, begin: int, end: int) -> list[memoryview | bytes]:
        """The rows of a page, as pieces to send."""
        end = min(end, len(self))
        if begin >= end:
            return []
        if not self.changed:
            return [memoryview(self.bytes)[self._start(begin) : self.ends[end - 1]]]
        return [b",".join(self.row(i) for i in range(begin, end))]

    def row(self, i: int) -> bytes:
        return (
            self.changed[i][1] if i in self.changed else self.bytes[self._start(i) : self.ends[i]]
        )

    def later_than(self, since: datetime) -> list[int]:
        """The rows that changed after an instant, in order."""
        first = bisect_right(range(len(self)), since, key=lambda n: moment(n, len(self)))
        found = {place(n, len(self)) for n in range(first, len(self))} - self.changed.keys()
        found |= {i for i, (changed, _) in self.changed.items() if changed > since}
        return sorted(found)

    def change(self, step: int, now: datetime) -> int:
        """Changes every `step`th row; returns how many these are."""
        self.times += 1
        for i in range(step // 2, len(self), step):
            # each time to something else
            self.changed[i] = now, MAKERS[self.name](i, _stamp(now), "*" * self.times).encode()
        return len(range(step // 2, len(self), step))

    def _start(self, i: int) -> int:
        return self.ends[i - 1] + 1 if i else 0


_STRIDE = 7919
"""A prime: ages are spread over the ids in no order that could help."""


def place(age: int, rows: int) -> int:
    """The row that was the `age`th to change."""
    return age * _STRIDE % rows


def moment(age: int, rows: int) -> datetime:
    """When the `age`th change was."""
    return NEWEST - timedelta(seconds=(rows - 1 - age) * (DAYS * 86_400 // max(1, rows)))


def made(name: str, rows: int) -> Served:
    """A collection of so many rows, the same each time."""
    # the multiples of a prime meet every row once, unless there are as many rows
    assert rows % _STRIDE or rows == 0
    ages = array("l", bytes(8 * rows))
    for age in range(rows):
        ages[place(age, rows)] = age
    ends = array("q")
    end = -1
    with tempfile.TemporaryFile() as file:
        for text in _serialised(MAKERS[name], ages):
            end += len(text) + 1
            ends.append(end)
            file.write(text)
            file.write(b",")
        file.flush()
        return Served(name, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), ends)


def _serialised(make: Callable[[int, str, str], str], ages: array[int]) -> Iterator[bytes]:
    for i, age in enumerate(ages):
        yield make(i, _stamp(moment(age, len(ages))), "").encode()
