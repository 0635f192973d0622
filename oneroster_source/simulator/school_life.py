"""What happens in a made-up school as the weeks go by: people come, go, and change classes."""

from __future__ import annotations

import random
import re
import string
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from oneroster_source.simulator.attributes import COLLECTIONS, Row
from oneroster_source.simulator.row_maker import RowMaker, reference, written
from oneroster_source.simulator.school import School

WEDNESDAY = 2
"""When it happens: once a week, and so that what ends the day before ends in the same week."""
SETTLING, RESTLESS = 3, 1.6
"""Weeks at the beginning of a term, in which so many times as much happens."""

# how often it happens to a pupil in a week
LEAVING = JOINING = 1.3 / 600
MOVING = 4 / 600
NEW_PHONE = 2 / 600
NEW_TEACHER = 0.5 / 600

OWN = ("sourcedId", "status", "dateLastModified")
"""What no row has from another."""


def live(school: School, since: date, until: date, *, seed: int = 1) -> None:
    """Let a made-up school live: what its weeks bring is changed in it, and dated accordingly.

    A span lived in pieces brings the same as one lived at once. In the holidays nothing happens.

    Args:
        school: one that `secondary_school` made.
        since: up to and with this day it has lived already.
        until: the last day to live.
        seed: another seed brings another life.
    """
    life = _Life(school)
    day = since + timedelta(days=1)
    day += timedelta(days=(WEDNESDAY - day.weekday()) % 7)
    while day <= until:
        life.week(day, random.Random(f"{seed}/{school.estab}/{day}"))
        day += timedelta(weeks=1)
    life.write()


class _Life(RowMaker):
    """A school's rows, read once; what is new is in `rows`, as with all that make rows."""

    def __init__(self, school: School) -> None:
        super().__init__(random.Random())
        self._school = school
        known = {name: school.rows(name) for name in COLLECTIONS}
        self._users = _by_id(known["users"])
        self._classes = _by_id(known["classes"])
        self._parallel = _parallel(known["classes"])
        self._terms = [
            (date.fromisoformat(row["startDate"]), date.fromisoformat(row["endDate"]))
            for row in known["academicSessions"]
            if row["type"] == "term"
        ]
        self._enrolled: dict[str, list[Row]] = defaultdict(list)
        for row in known["enrollments"]:
            self._enrolled[row["user"]["sourcedId"]].append(row)
        self._changed: dict[tuple[str, str], Row] = {}
        self._day, self._stamp = date.min, ""
        self.taken = {row["sourcedId"] for rows in known.values() for row in rows}
        self.taken |= {user["username"] for user in known["users"]}
        self.people = max((int(user["identifier"]) for user in known["users"]), default=0)
        emails = (user["email"] for user in known["users"] if "email" in user)
        self.domain = next(emails, "").partition("@")[2]

    def stamp(self) -> str:
        return self._stamp

    def week(self, day: date, rng: random.Random) -> None:
        """One week's changes, all on this day."""
        begun = [start for start, end in self._terms if start < day <= end]
        if not begun:
            return
        self.rng, self._day = rng, day
        # sorted, since what was written comes back in the order of ids
        pupils = self._active("student")
        often = len(pupils) * (RESTLESS if day - max(begun) < timedelta(weeks=SETTLING) else 1)
        # no pupil has more than one change a week: none ends on the day that it begins
        rng.shuffle(pupils)
        for happen, share in (
            (self._leaves, LEAVING),
            (self._moves, MOVING),
            (self._new_phone, NEW_PHONE),
            (self._joined_by, JOINING),
        ):
            for _ in range(min(self._times(often * share), len(pupils))):
                self._at_some_hour()
                happen(self._users[pupils.pop()])
        for _ in range(self._times(often * NEW_TEACHER)):
            self._at_some_hour()
            self._new_teacher()

    def write(self) -> None:
        """Hands all changes to the school."""
        for collection, rows in self.rows.items():
            for row in rows:
                self._school.add(collection, row)
        for (collection, sourced_id), row in self._changed.items():
            self._school.change(collection, sourced_id, **row)

    def _leaves(self, pupil: Row) -> None:
        today = str(self._day)
        self._change("users", pupil, status="tobedeleted", enabledUser=False)
        for row in self._enrolled[pupil["sourcedId"]]:
            ended = min(row.get("endDate", today), today)
            self._change("enrollments", row, status="tobedeleted", endDate=ended)

    def _moves(self, pupil: Row) -> None:
        """Into another set of one course."""
        movable = [
            row for row in self._current(pupil) if row["class"]["sourcedId"] in self._parallel
        ]
        if movable:
            left = self.rng.choice(movable)
            to = self.rng.choice(self._parallel[left["class"]["sourcedId"]])
            self._follow(left, **{"class": reference(self._classes[to], "class")})
            self._end(left)

    def _new_phone(self, pupil: Row) -> None:
        self._change("users", pupil, phone=self.phone())

    def _joined_by(self, classmate: Row) -> None:
        """Somebody new, in all classes of a classmate."""
        if "grades" not in classmate:
            return
        self.org = classmate["orgSourcedIds"][0]
        entered = re.match(r"\d*", classmate["username"])
        assert entered is not None
        pupil = self.pupil(list(classmate["grades"]), prefix=entered[0])
        self._users[pupil["sourcedId"]] = pupil
        for row in self._current(classmate):
            self._follow(row, user=reference(pupil, "user"))

    def _new_teacher(self) -> None:
        """For one class: a colleague, of the same subject if there is one."""
        taught = [row for i in self._active("teacher") for row in self._current(self._users[i])]
        leading = [row for row in taught if row.get("primary")]
        if not leading:
            return
        left = self.rng.choice(leading)
        subject = self._subject(left)
        here = {row["user"]["sourcedId"] for row in taught if row["class"] == left["class"]}
        experts = {row["user"]["sourcedId"] for row in taught if self._subject(row) == subject}
        others = sorted(experts - here) or sorted(set(self._active("teacher")) - here)
        if others:
            self._follow(left, user=reference(self._users[self.rng.choice(others)], "user"))
            self._end(left)

    def _active(self, role: str) -> list[str]:
        """The ids of all who are at the school as this, in order."""
        return sorted(
            i for i, u in self._users.items() if u["role"] == role and u["status"] == "active"
        )

    def _current(self, person: Row) -> list[Row]:
        """Someone's enrollments that began before today and have not ended, in order."""
        today = str(self._day)
        found = [
            row
            for row in self._enrolled[person["sourcedId"]]
            if row["status"] == "active"
            and row.get("beginDate", "") < today <= row.get("endDate", today)
        ]
        return sorted(found, key=lambda row: row["sourcedId"])

    def _subject(self, enrollment: Row) -> list[str] | None:
        return self._classes[enrollment["class"]["sourcedId"]].get("subjects")

    def _follow(self, left: Row, **other: Row) -> None:
        """An enrollment from today on, otherwise like one that somebody leaves or has."""
        same = {name: value for name, value in left.items() if name not in OWN}
        row = self.add("enrollments", **same | {"beginDate": str(self._day)} | other)
        self._enrolled[row["user"]["sourcedId"]].append(row)

    def _end(self, enrollment: Row) -> None:
        yesterday = str(self._day - timedelta(days=1))
        self._change("enrollments", enrollment, endDate=yesterday)

    def _change(self, collection: str, row: Row, **attributes: Any) -> None:
        row |= attributes | {"dateLastModified": self._stamp}
        self._changed[collection, row["sourcedId"]] = row

    def _times(self, expected: float) -> int:
        """How often something happens this week: now more, now less."""
        return int(expected * self.rng.uniform(0.5, 1.5) + self.rng.random())

    def _at_some_hour(self) -> None:
        """Lets what comes next happen at a time when the school's office is open."""
        opens = datetime.combine(self._day, time(8), UTC)
        hours = timedelta(milliseconds=self.rng.randrange(8 * 3600 * 1000))
        self._stamp = written(opens + hours)


def _by_id(rows: Iterable[Row]) -> dict[str, Row]:
    return {row["sourcedId"]: row for row in rows}


def _parallel(classes: Iterable[Row]) -> dict[str, list[str]]:
    """For each class that has some, the other sets of its course, by their ids.

    They are those taught at the same time, which differ in the number; in a school that is too
    small for these, all of the course.
    """
    by_number: dict[str, list[str]] = defaultdict(list)
    by_course: dict[str, list[str]] = defaultdict(list)
    for row in classes:
        if "course" in row:
            course = row["course"]["sourcedId"]
            by_course[course].append(row["sourcedId"])
            by_number[course + row["title"].rstrip(string.digits)].append(row["sourcedId"])
    for sets in (by_number, by_course):
        several = [ids for ids in sets.values() if len(ids) > 1]
        if several:
            return {i: [other for other in ids if other != i] for ids in several for i in ids}
    return {}
