"""A school small enough to check by hand, with nothing wrong in it; dates are around today."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

from oneroster_source import Report, Warehouse
from oneroster_source.simulator import School, Simulator
from support.settings import settings

TODAY = datetime.now(UTC).date()
YEAR = (TODAY - timedelta(days=100), TODAY + timedelta(days=200))
TERMS = {
    "autumn": (YEAR[0], TODAY + timedelta(days=20)),
    "spring": (TODAY + timedelta(days=21), YEAR[1]),
}
MODIFIED = f"{TODAY - timedelta(days=60)}T12:00:00.000Z"

STAFF = {
    "t1": ("teacher", "Ada", "Ash"),
    "t2": ("teacher", "Bo", "Birch"),
    "a1": ("aide", "Cy", "Cedar"),
    "h1": ("administrator", "Di", "Dill"),
}
PUPILS = {
    "p1": ("7", "Eve", "Elm"),
    "p2": ("7", "Fay", "Fir"),
    "p3": ("7", "Gus", "Gorse"),
    "p4": ("8", "Hal", "Hazel"),
}
CLASSES = {
    # class: course, teacher, pupils
    "7A": (None, "t1", ("p1", "p2", "p3")),
    "7A/Ma": ("ma7", "t1", ("p1", "p2", "p3")),
    "7A/En": ("en7", "t2", ("p1", "p2")),
    "8A/Ma": ("ma8", "t2", ("p4",)),
}
COURSES = {"ma7": "Mathematics 7", "en7": "English 7", "ma8": "Mathematics 8"}


def ref(name: str, kind: str) -> dict[str, str]:
    return {"sourcedId": name, "type": kind}


def day(days: int) -> str:
    """A day from today on, or before it, as OneRoster writes it."""
    return str(TODAY + timedelta(days=days))


def enrollment(name: str, role: str, user: str, of: str, **more: Any) -> dict[str, Any]:
    begin, end = YEAR
    return {
        "sourcedId": name,
        "status": "active",
        "dateLastModified": MODIFIED,
        "role": role,
        "user": ref(user, "user"),
        "class": ref(of, "class"),
        "school": ref("school", "org"),
        "beginDate": str(begin),
        "endDate": str(end),
        **more,
    }


def small_school(estab: str = "1", **school: Any) -> School:
    """Two year groups, four classes and a homeroom's worth of people; 16 enrollments."""
    return School(estab, collections=_rows(estab), **school)


def _rows(estab: str) -> dict[str, list[dict[str, Any]]]:
    common = {"status": "active", "dateLastModified": MODIFIED}
    orgs = [
        {"sourcedId": "authority", "name": "Westmere", "type": "local", "identifier": "328"},
        {
            "sourcedId": "school",
            "name": f"School {estab}",
            "type": "school",
            "identifier": estab,
            "parent": ref("authority", "org"),
        },
    ]
    sessions = [_session("year", "schoolYear", YEAR)]
    sessions += [
        _session(name, "term", span) | {"parent": ref("year", "academicSession")}
        for name, span in TERMS.items()
    ]
    courses = [
        {"sourcedId": name, "title": title, "courseCode": name, "org": ref("school", "org")}
        for name, title in COURSES.items()
    ]
    classes = [
        {
            "sourcedId": name,
            "title": name,
            "classCode": name,
            "classType": "scheduled" if course else "homeroom",
            "location": "Room 1",
            "school": ref("school", "org"),
            "terms": [ref(term, "academicSession") for term in TERMS],
            "periods": ["1", "3"],
            **({"course": ref(course, "course")} if course else {}),
        }
        for name, (course, _, _) in CLASSES.items()
    ]
    users = [_user(name, *who) for name, who in STAFF.items()]
    users += [
        _user(name, "student", given, family) | {"grades": [grade]}
        for name, (grade, given, family) in PUPILS.items()
    ]
    enrollments = []
    for name, (_, teacher, pupils) in CLASSES.items():
        enrollments.append(enrollment(f"{name}-{teacher}", "teacher", teacher, name, primary=True))
        enrollments += [enrollment(f"{name}-{p}", "student", p, name) for p in pupils]
    enrollments.append(enrollment("7A-a1", "aide", "a1", "7A"))
    found = {
        "orgs": orgs,
        "academicSessions": sessions,
        "courses": courses,
        "classes": classes,
        "users": users,
        "enrollments": enrollments,
    }
    return {name: [common | row for row in rows] for name, rows in found.items()}


def _session(name: str, kind: str, span: tuple[date, date]) -> dict[str, Any]:
    begin, end = map(str, span)
    return {
        "sourcedId": name,
        "title": name,
        "type": kind,
        "startDate": begin,
        "endDate": end,
        "schoolYear": str(YEAR[1].year),
    }


def _user(name: str, role: str, given: str, family: str) -> dict[str, Any]:
    return {
        "sourcedId": name,
        "username": f"{given}.{family}".lower(),
        "givenName": given,
        "familyName": family,
        "role": role,
        "identifier": f"id-{name}",
        "email": f"{name}@school.example",
        "enabledUser": True,
        "orgSourcedIds": ["school"],
    }


def moved(school: School) -> School:
    """A school in which something has happened since the year began.

    p1 left English last week, p2 begins in Art next week, p3 was taken out of Mathematics, p4 left
    the school; t2 has given Mathematics in year 8 to t1; 7A has a second teacher.
    """
    school.change("enrollments", "7A/En-p1", endDate=day(-7))
    school.add("classes", {"sourcedId": "Art", "title": "Art", "school": ref("school", "org")})
    school.add("enrollments", enrollment("Art-p2", "student", "p2", "Art", beginDate=day(7)))
    gone = {"status": "tobedeleted", "dateLastModified": f"{TODAY - timedelta(days=9)}T10:00:00Z"}
    school.change("enrollments", "7A/Ma-p3", **gone)
    school.change("users", "p4", **gone)
    school.change("enrollments", "8A/Ma-t2", endDate=day(-30))
    school.add("enrollments", enrollment("8A/Ma-t1", "teacher", "t1", "8A/Ma", beginDate=day(-29)))
    school.add("enrollments", enrollment("7A-t2", "teacher", "t2", "7A", primary=False))
    return school


def load(destination: str, *schools: School) -> None:
    with Simulator(schools) as server:
        report = Report()
        Warehouse(destination).load(report, **settings(server, *schools), history=True)
        report.raise_for_failures()
