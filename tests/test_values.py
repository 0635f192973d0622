"""What values become on the whole way, from a server into a database."""

from __future__ import annotations

import json
from typing import Any

from small_school import enrollment, small_school
from truth import opened


def ask(name: str, query: str) -> list[tuple[Any, ...]]:
    with opened(name) as connected:
        return connected(query)


def test_dates_as_instants_are_days_where_the_school_is(serve, sync, warehouse) -> None:
    school = small_school()
    school.add(
        "enrollments",
        enrollment("x", "student", "p1", "7A", beginDate="2026-08-31T23:00:00Z", endDate=None),
    )
    server = serve(school)
    dates = "SELECT begin_date FROM oneroster.enrollments WHERE sourced_id = 'x'"
    modes = {o.endpoint: o.mode for o in sync(server, school, time_zone="UTC").outcomes}
    assert ask(warehouse.name, dates) == [(None,)]
    # nothing has changed at the server but how it is read
    modes = {o.endpoint: o.mode for o in sync(server, school).outcomes}
    assert {name for name, mode in modes.items() if mode == "full"} == {
        "academic_sessions",
        "enrollments",
    }
    assert [str(day) for (day,) in ask(warehouse.name, dates)] == ["2026-09-01"]
    assert ask(warehouse.name, "FROM oneroster.rejected_rows") == []


def test_metadata_stays_an_object_in_the_database(serve, sync, warehouse) -> None:
    school = small_school()
    sent = {"guid": "ac2cb28e-1714-4653-aa7d-8088f314a780"}
    school.change("users", "p1", metadata=sent, preferredName=sent)
    assert sync(serve(school), school).good
    query = "SELECT metadata, extra FROM oneroster.users WHERE sourced_id = 'p1'"
    ((metadata, extra),) = ask(warehouse.name, query)
    assert (json.loads(metadata), json.loads(extra)) == (sent, {"preferredName": sent})
