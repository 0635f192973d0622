"""What happens to a made-up school between two loads."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from oneroster_source.simulator import School


def purge(school: School, collection: str, count: int) -> list[dict[str, Any]]:
    """Takes live rows away without a trace; returns what they were."""
    rows = [r for r in school.rows(collection) if r["status"] == "active"][:count]
    for row in rows:
        school.purge(collection, row["sourcedId"])
    return rows


def change(school: School) -> None:
    """Joins, leaves, lists that shrink and empty: four changes of users, of which one deletes, two
    of classes, one of an enrollment."""
    users = [u["sourcedId"] for u in school.rows("users") if u["role"] == "student"]
    classes = [c["sourcedId"] for c in school.rows("classes") if len(c["terms"]) > 1]
    school.change("users", users[0], grades=["9", "10"], email=None, familyName="Nowak-Żak")
    school.change("users", users[1], grades=None, userIds=None)
    school.change("classes", classes[0], terms=school.get("classes", classes[0])["terms"][:1])
    school.change("classes", classes[1], terms=None, course=None)
    school.delete("users", users[2])
    twin = school.get("users", users[3]) | {"sourcedId": "new1", "grades": ["7"]}
    school.add("users", {k: v for k, v in twin.items() if k != "dateLastModified"})
    enrollment = school.rows("enrollments")[0]
    school.change("enrollments", enrollment["sourcedId"], endDate="2026-02-28", primary=True)


def storm(school: School, collection: str = "users", status: str = "tobedeleted") -> None:
    """The provider marks every row as deleted."""
    for row in school.rows(collection):
        if row["status"] == "active":
            school.change(collection, row["sourcedId"], status=status)


def restore(school: School, before: list[dict[str, Any]], collection: str = "users") -> None:
    """The provider brings its backup back: every row with the stamp that it had."""
    for row in before:
        school.change(collection, row["sourcedId"], **row)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def next_year(school: School) -> tuple[list[dict[str, Any]], int]:
    """All enrollments disappear, and as many of other pupils in the same classes come, but five."""
    old = [row for row in school.rows("enrollments") if row["status"] == "active"]
    for row in school.rows("enrollments"):
        school.purge("enrollments", row["sourcedId"])
    for number, row in enumerate(old[:-5]):
        school.add(
            "enrollments",
            {**row, "sourcedId": f"next-{number:05}", "dateLastModified": _now()},
        )
    return old, len(old) - 5
