"""The demo: two made-up schools, served as they change week by week. Prints nothing itself."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Any

from oneroster_source.errors import ConfigurationError, DestinationError
from oneroster_source.simulator import Simulator, live, secondary_school, spoil
from oneroster_source.warehouse import Warehouse

ESTABS = ("9990001", "9990002")


def require_no_other_schools(warehouse: Warehouse) -> None:
    """Refuses a dataset that holds schools other than the demo's."""
    try:
        found = warehouse.status().estabs
    except DestinationError:
        # nothing is there yet
        return
    others = [estab for estab in found if estab not in ESTABS]
    if others:
        raise ConfigurationError(
            f"{warehouse.name} holds schools other than the demo's ({', '.join(others[:3])})",
            todo="choose another file: oneroster demo --destination demo.duckdb",
        )


def served(pupils: int, weeks: int, *, today: date) -> Iterator[dict[str, Any]]:
    """Serves the schools in the middle of a term, then as they are a week later, and so on.

    The second one has the faults that real rosters have.

    Args:
        pupils: Pupils in each school.
        weeks: How many weeks pass.
        today: The last week ends before it.

    Yields:
        The settings to load the schools with, before the next week begins.
    """
    days = _days(weeks, today)
    schools = [
        secondary_school(seed, estab, pupils=pupils, first_day=days[0])
        for seed, estab in enumerate(ESTABS, 1)
    ]
    spoil(schools[1])
    reach = [{"estab": s.estab, "rp": s.rp, "shared_secret": s.shared_secret} for s in schools]
    with Simulator(schools) as server:
        for since, until in pairwise(days):
            for school in schools:
                live(school, since, until)
                # an earlier demo may have left cursors of a later week: they follow this clock
                school.skew = datetime.combine(until, time.max, UTC) - datetime.now(UTC)
            yield {
                "base_url": server.base_url,
                "login": "xporter",
                "schools": reach,
                "history": True,
            }


def _days(weeks: int, today: date) -> list[date]:
    """Returns the first day of the school year, then the days on which the schools are loaded."""
    loaded = today - timedelta(weeks=max(weeks, 2) + 1)
    first_day = loaded - timedelta(weeks=9)
    first_day -= timedelta(days=first_day.weekday())
    return [first_day, *(loaded + timedelta(weeks=week) for week in range(weeks + 1))]


def what_next(file: str) -> str:
    """Returns what to try after the demo, as text."""
    return f"""
Try next:

  1. uv run oneroster quality --destination {file}
  2. uv run oneroster report --destination {file}
  3. uv run python -c "import duckdb; duckdb.connect('{file}', read_only=True).sql('''
       SELECT class_title, course_title, students, teachers
       FROM oneroster.class_sizes ORDER BY students DESC LIMIT 10''').show()"
  4. Your own schools: put rp, estab and shared_secret into .dlt/secrets.toml, as README shows,
     then: uv run oneroster check-connection
     and:  uv run oneroster sync --destination my_schools.duckdb"""
