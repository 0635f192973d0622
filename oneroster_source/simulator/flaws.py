"""What is wrong in rosters as they really are: some of each, in a school that was made without."""

from __future__ import annotations

import random
from datetime import date, timedelta
from typing import Any

from oneroster_source.simulator.attributes import Row
from oneroster_source.simulator.school import School


def spoil(school: School, *, seed: int = 1) -> None:
    """Puts faults into a school; no row says that it changed.

    Some pupils have no year group, a username is there twice, a class has lost its teacher and one
    its pupils, a pupil is gone whose enrollments stay, some enrollments run on into the holidays,
    one has a date that cannot be read, and a user has a role that the standard does not know. A
    school of fewer than eight pupils has none of that.
    """
    rng = random.Random(f"{seed}/{school.estab}")
    users = [row for row in school.rows("users") if row["status"] == "active"]
    enrollments = [row for row in school.rows("enrollments") if row["status"] == "active"]
    pupils = [row for row in users if row["role"] == "student"]
    if len(pupils) < 8:
        return
    pupils = rng.sample(pupils, 8)
    governor = rng.choice([row for row in users if row["role"] != "student"])
    unmanned, empty = rng.sample([row for row in school.rows("classes") if "course" in row], 2)

    def change(collection: str, row: Row, **attributes: Any) -> None:
        school.change(
            collection, row["sourcedId"], dateLastModified=row["dateLastModified"], **attributes
        )

    for pupil in pupils[:4]:
        change("users", pupil, grades=None)
    change("users", pupils[4], username=pupils[5]["username"])
    change("users", governor, role="governor")
    school.purge("users", pupils[6]["sourcedId"])
    for row in enrollments:
        of, role = row["class"]["sourcedId"], row["role"]
        lost = (unmanned["sourcedId"], "teacher"), (empty["sourcedId"], "student")
        if (of, role) in lost:
            school.purge("enrollments", row["sourcedId"])
    mine = [row for row in enrollments if row["user"]["sourcedId"] == pupils[7]["sourcedId"]]
    kept = [row for row in mine if row["class"]["sourcedId"] != empty["sourcedId"]]
    unread, *late = kept[:4]
    change("enrollments", unread, beginDate="the first of September")
    for row in late:
        end = date.fromisoformat(row["beginDate"]) + timedelta(days=500)
        change("enrollments", row, endDate=str(end))
