"""From where a school is read next: nothing that a clock may say hides a change."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneroster_source.config.settings import Settings, resolve
from oneroster_source.extract.cursors import Cursors, next_cursor

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)

instants = st.datetimes(timezones=st.just(UTC))


@given(st.none() | instants, st.none() | instants, instants)
def test_a_cursor_is_never_in_the_future_nor_goes_back_but_for_that(known, newest, clock) -> None:
    cursor = next_cursor(known, newest, clock)
    if known is newest is None:
        assert cursor is None
        return
    assert cursor <= clock
    assert cursor in (known, newest, clock)
    for instant in (known, newest):
        assert instant is None or cursor >= min(instant, clock)


@pytest.fixture
def settings() -> Settings:
    return resolve(rp="rp", estab="1", shared_secret="secret", lag=3600)


def cursors(settings: Settings, state: dict[str, Any]) -> Cursors:
    return Cursors(state, settings.dialect["users"], settings)


def after(
    settings: Settings, *, newest: datetime | None = NOW, full: datetime = NOW
) -> dict[str, Any]:
    """The state after a full pass at an instant."""
    state: dict[str, Any] = {}
    collection: Any = SimpleNamespace(
        mode="full", newest=newest, clock=NOW, page=0, answer="", fingerprint=lambda since: ""
    )
    cursors(settings, state).advance("1", collection, now=full)
    return state


def test_a_delta_asks_from_the_cursor_less_the_lag(settings) -> None:
    ask = cursors(settings, after(settings)).next_request("1", full=False, now=NOW + DAY)
    assert (ask.mode, ask.known) == ("delta", NOW)
    # what changed at the very instant is wanted, and the filter asks for later ones
    assert ask.since == NOW - HOUR - timedelta(seconds=1)


@pytest.mark.parametrize(
    ("days", "passed", "mode"),
    [
        (7, 7 * DAY - HOUR, "delta"),
        (7, 7 * DAY, "full"),
        (0.5, 12 * HOUR, "full"),
        (0, timedelta(0), "full"),
        # our clock was set back: a little may be, but no full pass was made in two weeks' time
        (7, -DAY, "delta"),
        (7, -14 * DAY, "full"),
    ],
)
def test_when_a_full_pass_is_due(settings, days, passed, mode) -> None:
    settings = replace(settings, full_refresh_days=days)
    state = after(settings, newest=NOW - 30 * DAY)
    assert cursors(settings, state).next_request("1", full=False, now=NOW + passed).mode == mode


@pytest.mark.parametrize(
    ("newest", "mode"),
    [
        (None, "full"),
        (datetime(1, 1, 1, tzinfo=UTC), "full"),
        (NOW - 900 * DAY, "delta"),
        (NOW + DAY, "delta"),
        (NOW + 3 * DAY, "full"),
    ],
)
def test_a_cursor_that_cannot_be_right_is_not_used(settings, newest, mode) -> None:
    state = after(settings)
    entry = state["schools"]["1"]
    entry["cursor"] = newest.isoformat() if newest else None
    assert cursors(settings, state).next_request("1", full=False, now=NOW).mode == mode


def test_a_full_pass_when_asked_for_or_when_rows_are_chosen_otherwise(settings) -> None:
    state = after(settings)
    assert cursors(settings, state).next_request("1", full=True, now=NOW).mode == "full"
    assert cursors(settings, state).next_request("2", full=False, now=NOW).mode == "full"
    changed = replace(settings, deleted="remove")
    assert cursors(changed, state).next_request("1", full=False, now=NOW).mode == "full"


@pytest.mark.parametrize(("endpoint", "mode"), [("enrollments", "full"), ("users", "delta")])
def test_another_time_zone_means_a_full_pass_where_there_are_dates(
    settings, endpoint, mode
) -> None:
    moved = replace(settings, time_zone="Europe/Paris")
    state: dict[str, Any] = {}
    collection: Any = SimpleNamespace(
        mode="full", newest=NOW, clock=NOW, page=0, answer="", fingerprint=lambda since: ""
    )
    for found, expected in ((settings, "delta"), (moved, mode)):
        kept = Cursors(state, settings.dialect[endpoint], found)
        if found is settings:
            kept.advance("1", collection, now=NOW)
        assert kept.next_request("1", full=False, now=NOW).mode == expected


@pytest.mark.parametrize(
    ("changed", "mode"),
    [
        ({"shared_secret": "another"}, "delta"),
        ({"base_url": "https://another.example/v1p1"}, "full"),
        ({"rp": "another"}, "full"),
    ],
    ids=["secret", "provider", "client"],
)
def test_another_provider_or_client_is_read_from_the_start(settings, changed, mode) -> None:
    state = after(settings)
    (school,) = settings.schools
    moved = replace(settings, schools=(replace(school, **changed),))
    assert cursors(moved, state).next_request("1", full=False, now=NOW).mode == mode


def test_a_delta_with_nothing_new_keeps_the_cursor_and_notes_another_answer(settings) -> None:
    state = after(settings)
    before = deepcopy(state)
    same: Any = SimpleNamespace(answer="")
    cursor = cursors(settings, state).stay("1", same)
    assert state == before and cursor == cursors(settings, state).cursor("1")
    another: Any = SimpleNamespace(answer="more")
    assert cursors(settings, state).stay("1", another) == cursor
    assert state != before


def test_what_came_is_noted_of_a_school_that_was_read_and_of_no_other(settings) -> None:
    state = after(settings)
    day = NOW.date()
    cursors(settings, state).note_came("1", day, 3)
    cursors(settings, state).note_came("2", day, 3)
    assert [cursors(settings, state).came(estab, day) for estab in "12"] == [3, 0]
