"""A believable UK secondary school, made up from a seed: the same seed gives the same school."""

from __future__ import annotations

import random
import string
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from oneroster_source.simulator.attributes import Row
from oneroster_source.simulator.curriculum import (
    CORE,
    FOUNDATION,
    LOWER,
    OPTION_BLOCKS,
    OPTIONS,
    SETS,
    YEARS,
    Subject,
    subjects,
)
from oneroster_source.simulator.names import AUTHORITY, SCHOOLS
from oneroster_source.simulator.row_maker import RowMaker, plain, reference, written
from oneroster_source.simulator.school import School

FIRST_DAY = date(2026, 9, 1)
LENGTH = 323
TERMS = (("Autumn Term", 0, 108), ("Spring Term", 125, 205), ("Summer Term", 223, LENGTH))
"""Where the terms begin and end, in days after the first day of the school year."""
CLASS_SIZE = 28
PUPILS_PER_TEACHER = 15
LEAVERS = 0.03


def secondary_school(
    seed: int = 1,
    estab: str = "3281110",
    *,
    pupils: int = 900,
    name: str | None = None,
    first_day: date = FIRST_DAY,
    **school: Any,
) -> School:
    """A secondary school with years 7 to 11, staff, classes, enrollments and leavers.

    Args:
        seed: two schools of one seed and estab are equal.
        estab: the establishment identifier.
        pupils: how many, leavers included.
        name: the school's; one is made up if not given.
        first_day: of the school year, which all dates follow; rows were modified before it.
        school: more arguments for `School`.
    """
    maker = _Maker(random.Random(f"{seed}/{estab}"), first_day)
    maker.organisation(estab, name)
    maker.calendar()
    maker.courses()
    maker.staff(pupils)
    for index, year in enumerate(YEARS):
        maker.year(year, pupils // len(YEARS) + (index < pupils % len(YEARS)))
    maker.teaching()
    maker.leavers(round(pupils * LEAVERS))
    return School(estab, collections=maker.rows, **school)


class _Maker(RowMaker):
    """Fills the collections; every method adds what it is named for."""

    def __init__(self, rng: random.Random, first_day: date) -> None:
        super().__init__(rng)
        self._first_day = first_day
        self._school: Row = {}
        self._year: Row = {}
        self._terms: list[Row] = []
        self._courses: dict[tuple[int, str], Row] = {}
        self._teachers: list[Row] = []
        self._aides: list[Row] = []
        self._taught: list[tuple[str, Row]] = []

    def stamp(self) -> str:
        """Some time in the year before the first day."""
        age = timedelta(milliseconds=self.rng.randrange(1, 365 * 24 * 3600 * 1000))
        return written(datetime.combine(self._first_day, time(), UTC) - age)

    def organisation(self, estab: str, name: str | None) -> None:
        place = self.rng.choice(SCHOOLS)
        self.domain = f"{plain(place)}.example"
        council = {"name": f"{AUTHORITY} Borough Council", "type": "local"}
        authority = self.add("orgs", **council, identifier=estab[:3])
        title = name or f"{place} School"
        self._school = self.add("orgs", name=title, type="school", identifier=estab)
        self.org = self._school["sourcedId"]
        self._school["parent"] = reference(authority, "org")
        authority["children"] = [reference(self._school, "org")]

    def calendar(self) -> None:
        begins, ends = self._first_day.year, str(self._first_day.year + 1)
        year = {"title": f"{begins}/{ends}", "type": "schoolYear", "schoolYear": ends}
        first, last = self._day(0), self._day(LENGTH)
        self._year = self.add(
            "academicSessions", **year, startDate=first, endDate=last, children=[]
        )
        for title, start, end in TERMS:
            term = {"title": title, "type": "term"}
            term |= {"startDate": self._day(start), "endDate": self._day(end)}
            parent = reference(self._year, "academicSession")
            row = self.add("academicSessions", **term, schoolYear=ends, parent=parent)
            self._terms.append(row)
            self._year["children"].append(reference(row, "academicSession"))

    def courses(self) -> None:
        for year in YEARS:
            for subject in subjects(year):
                self._courses[year, subject.code] = self.add(
                    "courses",
                    title=f"{subject.name} Year {year}",
                    courseCode=f"{subject.code}{year}",
                    schoolYear=reference(self._year, "academicSession"),
                    org=reference(self._school, "org"),
                    grades=[str(year)],
                    subjects=[subject.name],
                )

    def staff(self, pupils: int) -> None:
        for role, count in (
            # the first administrator is the head
            ("administrator", 1 + max(1, pupils // 150)),
            ("teacher", max(3, pupils // PUPILS_PER_TEACHER)),
            ("aide", max(1, pupils // 60)),
        ):
            for _ in range(count):
                person = self.person(role)
                self.sometimes(person, 0.6, phone=self.phone)
                {"teacher": self._teachers, "aide": self._aides}.get(role, []).append(person)

    def year(self, year: int, count: int) -> None:
        """The pupils of one year, in their tutor groups, sets and options."""
        entered = str(self._first_day.year - year + 7)[2:]
        pupils = [self.pupil([str(year)], prefix=entered) for _ in range(count)]
        groups = _groups(pupils)
        for letter, group in zip(string.ascii_uppercase * 4, groups, strict=False):
            self._class(year, f"{year}{letter}", group)
            for subject in FOUNDATION if year in LOWER else CORE:
                self._class(year, f"{year}{letter}/{subject.code}1", group, subject)
        for band, half in zip("XY", (pupils[::2], pupils[1::2]), strict=True):
            for subject in SETS:
                self._blocked(year, band, half, (subject,))
        if year not in LOWER:
            for index, block in enumerate(OPTION_BLOCKS):
                # two subjects to a block: nobody can choose the same one twice
                self._blocked(year, block, pupils, OPTIONS[2 * index : 2 * index + 2])

    def teaching(self) -> None:
        """A teacher for every class: neighbours in subject are taught by the same one."""
        self._taught.sort(key=lambda taught: taught[0])
        for index, (_, row) in enumerate(self._taught):
            first = index * len(self._teachers) // len(self._taught)
            self._enroll(row, self._teachers[first], primary=True)
            if self.rng.random() < 0.05:
                second = (first + 1) % len(self._teachers)
                self._enroll(row, self._teachers[second], primary=False)
        for aide in self._aides:
            for _, row in self.rng.sample(self._taught, min(3, len(self._taught))):
                self._enroll(row, aide)

    def leavers(self, count: int) -> None:
        pupils = [user for user in self.rows["users"] if user["role"] == "student"]
        gone = {user["sourcedId"]: user for user in self.rng.sample(pupils, count)}
        for user in gone.values():
            user |= {"status": "tobedeleted", "enabledUser": False}
        for enrollment in self.rows["enrollments"]:
            if (leaver := gone.get(enrollment["user"]["sourcedId"])) is not None:
                stamp = leaver["dateLastModified"]
                enrollment |= {"status": "tobedeleted", "dateLastModified": stamp}

    def _blocked(
        self, year: int, block: str, pupils: Sequence[Row], choices: Sequence[Subject]
    ) -> None:
        """Classes that are taught at the same time, a pupil being in one of them."""
        chosen: dict[Subject, list[Row]] = {subject: [] for subject in choices}
        for pupil in pupils:
            chosen[self.rng.choice(choices)].append(pupil)
        for subject, takers in chosen.items():
            for number, group in enumerate(_groups(takers), start=1):
                self._class(year, f"{year}{block}/{subject.code}{number}", group, subject)

    def _class(
        self, year: int, title: str, pupils: Iterable[Row], subject: Subject | None = None
    ) -> None:
        row = self.add("classes", title=title, classCode=title.replace("/", "-"))
        row |= {
            "classType": "homeroom" if subject is None else "scheduled",
            "school": reference(self._school, "org"),
            "terms": [reference(term, "academicSession") for term in self._terms],
            "grades": [str(year)],
        }
        if subject is not None:
            row["course"] = reference(self._courses[year, subject.code], "course")
            row["subjects"] = [subject.name]
        self.sometimes(row, 0.8, location=lambda: f"Room {self.rng.randint(1, 60)}")
        self._taught.append(("" if subject is None else subject.code, row))
        for pupil in pupils:
            self._enroll(row, pupil)

    def _enroll(self, row: Row, person: Row, *, primary: bool | None = None) -> None:
        enrollment = self.add(
            "enrollments",
            user=reference(person, "user"),
            role=person["role"],
            school=reference(self._school, "org"),
            beginDate=self._day(0),
            **{"class": reference(row, "class")},
        )
        if primary is not None:
            enrollment["primary"] = primary
        self.sometimes(enrollment, 0.9, endDate=lambda: self._day(LENGTH))

    def _day(self, offset: int) -> str:
        return (self._first_day + timedelta(days=offset)).isoformat()


def _groups(pupils: Sequence[Row]) -> list[Sequence[Row]]:
    """Pupils in groups of nearly equal size."""
    count = -(-len(pupils) // CLASS_SIZE)
    return [pupils[index::count] for index in range(count)]
