"""Reading from servers that sort, count, cut, filter and fail in their own ways.

Client, parser, reader and cursors run as in production; the server and the school are in memory
(`provider.py`), so that thousands of nights pass in a minute. A trial is a school and a server with
habits of some kind, loaded in some runs while it changes, then in a quiet delta and a quiet full
pass. After these the destination has what the school has, or the run has failed aloud; where a
careful reader can read such a server whole, it must.

A seed makes the same trial each time: `go_through("window", 17, tally)`. 100 seeds of each kind:
`uv run pytest -m campaign tests/resilience/test_providers.py -s -n 0`. It prints, for each kind,
the trials, the runs, those that failed aloud, and the requests over the ideal in quiet runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache
from random import Random
from typing import Any

import pyarrow.compute as pc
import pytest
from support import later, slow
from support.provider import (
    COLLATIONS,
    DAY,
    AnyOrder,
    Habits,
    Provider,
    School,
    add,
    future,
    purge,
    restore,
    spelled,
    tie,
    tombstone,
    turn_of_the_year,
    update,
)

from oneroster_source.client import paging_pass, position
from oneroster_source.client.client import Client
from oneroster_source.client.paging_pass import PagingPass
from oneroster_source.client.position import Position
from oneroster_source.config.settings import Settings, resolve
from oneroster_source.errors import OneRosterError
from oneroster_source.extract import collection, page_requests
from oneroster_source.extract.buffer import Buffer
from oneroster_source.extract.collection import Collection, collect
from oneroster_source.extract.cursors import Cursors
from oneroster_source.extract.page_requests import ReadRequest
from oneroster_source.run_report import Outcome
from oneroster_source.transform.duckdb_engine import engine
from oneroster_source.transform.parser import PageParser

CHANGES = (update, update, tie, purge, tombstone, add, add, future, restore, turn_of_the_year)
OWN_FILTER = "role='student'"
NOTHING = (
    ("[]", 200),
    ('{"{}": []}', 200),
    ('{"{}": null}', 200),
    ("{}", 200),
    ("null", 200),
    ("", 200),
    ("", 204),
)


def _body(form: str) -> str:
    return form if form == "{}" else form.replace("{}", "users")


def ties(random: Random) -> dict[str, Any]:
    return {
        "collation": random.choice(("case", "accents", "punctuation", "numbers")),
        "ties": random.choice(("request", "connection")),
    }


def window(random: Random) -> dict[str, Any]:
    counts = random.choice((True, False))
    return {
        "window": random.randint(2, 120),
        "window_ends": random.choice(("empty", "400", "404")),
        "counts_window": counts,
        "total": random.choice(("right", "none")),
    }


def clamp(random: Random) -> dict[str, Any]:
    return {"clamps": True, "total": random.choice(("right", "right", "none"))}


def nothing(random: Random) -> dict[str, Any]:
    form, status = random.choice(NOTHING)
    return {
        "nothing": _body(form),
        "nothing_status": status,
        "end_status": random.choice((status, status, 404, 400)),
        "total": random.choice(("right", "none")),
    }


def filters(random: Random) -> dict[str, Any]:
    return {"filters": random.choice(("ignored", "nothing", "upper", "day", "first", "last"))}


def repeats(random: Random) -> dict[str, Any]:
    return {"repeats": random.choice((0.02, 0.2)), "sorts": random.choice(("right", "ignored"))}


def first_again(random: Random) -> dict[str, Any]:
    return {"first_again": True, "sorts": "ignored", "down": "ignored"}


def unsorted(random: Random) -> dict[str, Any]:
    sorts = random.choice(("ignored", "ignored", "400", "403", "404", "500", "501"))
    return {"sorts": sorts, "down": sorts}


def refusals(random: Random) -> dict[str, Any]:
    return {"most": random.choice((50, 60, 100)), "down": random.choice(("right", "400", "500"))}


def caps(random: Random) -> dict[str, Any]:
    return {"caps": tuple(random.choices((3, 7, 10, 40, 10**9), k=random.randint(1, 3)))}


def stale(random: Random) -> dict[str, Any]:
    return {"stale": random.choice((0.02, 0.2))}


KINDS = {
    "ties": ties,
    "window": window,
    "clamp": clamp,
    "nothing": nothing,
    "filters": filters,
    "repeats": repeats,
    "first again": first_again,
    "unsorted": unsorted,
    "refusals": refusals,
    "caps": caps,
    "stale": stale,
}


def habits_of(kind: str, random: Random) -> Habits:
    """Habits of a kind, or of several together."""
    chosen = {
        "collation": random.choice(tuple(COLLATIONS)),
        "down": random.choice(("right", "right", "right", "ignored", "400")),
        "caps": (random.choice((10**9, 10**9, 10, 40)),),
        "total": random.choice(("right", "right", "unfiltered", "none")),
        "tells_time": random.random() < 0.8,
    }
    for made in random.sample(sorted(KINDS), 3) if kind == "together" else (kind,):
        chosen |= KINDS[made](random)
    hides = chosen.get("window", 10**9) < 10**9 and chosen["total"] != "right"
    if hides or chosen.get("counts_window"):
        # one that never says how many there are, nor which is the last one, cannot be found out
        chosen |= {"sorts": "right", "down": "right", "first_again": False}
    return Habits(**chosen)


@cache
def basic_settings() -> Settings:
    return resolve(rp="rp", estab="1", shared_secret="secret", privacy="full")


@cache
def filtered_settings() -> Settings:
    return resolve(
        rp="rp", estab="1", shared_secret="secret", privacy="full", filters={"users": OWN_FILTER}
    )


@cache
def users() -> PageParser:
    return PageParser(basic_settings().dialect["users"], engine())


class Trial:
    """A school, a server, and a destination that it is loaded into, run by run."""

    def __init__(self, kind: str, seed: int) -> None:
        self.random = random = Random(f"{kind} {seed}")
        self.habits = habits = habits_of(kind, random)
        rows = random.choice((random.randint(0, 6), random.randint(10, 120), 240))
        # a school that others stand beside must have room for them
        numbers = 4 * rows + 200
        self.school = School(
            random, rows, CHANGES, spell=spelled(habits.collation), numbers=numbers
        )
        self.pace = random.choice((0, 0.05, 0.3))
        self.server = Provider(self.school, habits, random)
        self.own_filter = OWN_FILTER if random.random() < 0.3 else ""
        lag = random.choice((0, 3600, 86400)) if habits.tells_time else 86400
        self.settings = replace(
            filtered_settings() if self.own_filter else basic_settings(),
            page_size=random.choice((5, 10, 20, 50, 60, 100)),
            concurrency=random.choice((1, 2, 4)),
            lag=lag,
            full_refresh_days=3650,
        )
        if self.settings.concurrency > 1:
            self.server.pool = AnyOrder(random)  # type: ignore[assignment]
        self.client = Client(
            self.settings.schools[0], self.settings, self.server, sleep=lambda seconds: None
        )
        self.state: dict[str, Any] = {}
        self.destination: dict[str, str] = {}
        self.told: list[str] = []
        """What the last run has said."""

    def runs(self) -> Iterator[tuple[bool, bool]]:
        """Whether each run is a full pass, and whether it is quiet."""
        for full in (True, *self.random.choices((False, False, True), k=2)):
            self.school.wait(self.random.random() * 3 * DAY, self.random.randint(0, 3))
            self.school.pace = self.pace
            yield full, False
        self.school.pace, self.server.quiet = 0, True
        # what came back as it was is found by a full pass alone
        self.school.wait(timedelta(hours=1), 0)
        yield True, True
        update(self.school)
        add(self.school)
        for full in (False, True):
            self.school.wait(timedelta(hours=1), 0)
            yield full, True

    def run(self, *, full: bool) -> None:
        """Loads the school as the source does; raises what the reader raises."""
        cursors = Cursors(self.state, self.settings.dialect["users"], self.settings)
        outcome = Outcome("1", "users")
        self.told = outcome.warnings
        now = self.school.now
        ask = cursors.next_request("1", full=full, now=now)
        found = collect(self.client, users(), ask, self.settings, outcome, cursors.span)
        try:
            self._load(found, cursors)
        finally:
            found.close()

    def _load(self, found: Collection, cursors: Cursors) -> None:
        if found.is_known:
            cursors.stay("1", found)
            return
        ids = set(found.ids().to_pylist())
        rows: dict[str, str] = {}
        for wide in found.rows():
            for key, content in zip(
                *(wide.column(name).to_pylist() for name in ("sourced_id", "username")),
                strict=True,
            ):
                assert key not in rows, "a row came twice"
                rows[key] = content
            problems = pc.list_flatten(wide.column("_problems"))
            self.told += problems.to_pylist()
        assert rows.keys() == ids
        if found.mode == "full":
            self.destination.clear()
        self.destination |= rows
        cursors.advance("1", found, now=self.school.now)

    def wrong(self) -> list[str]:
        """How the destination differs from the school."""
        truth = self.server.truth(self.own_filter)
        found = [
            f"{key} is {self.destination.get(key)}, not {content}"
            for key, content in truth.items()
            if self.destination.get(key, "").partition(" at ")[0] != content
        ]
        if self.habits.filters in ("right", "day") or not self.own_filter:
            found += [f"{key} is there" for key in self.destination.keys() - truth.keys()]
        return found

    def says(self, words: str) -> bool:
        """Whether the last run has told something."""
        return any(words in text for text in self.told)

    @property
    def is_readable(self) -> bool:
        """Whether a careful reader can read this server whole."""
        habits = self.habits
        # ids that may be equal fill a page of 3 rows; the next may have 10, and show more of them
        narrow = min(habits.caps) < 8 and len(set(habits.caps)) > 1
        return (
            habits.window >= len(self.school.keys) * (3 if habits.repeats else 1)
            and not (habits.total == "none" and habits.clamps and habits.down != "right")
            and not narrow
            and not (min(habits.caps) < 8 and habits.ties != "fixed")
            and not (habits.sorts != "right" and len(habits.caps) > 1)
            and not habits.heavy
        )


@dataclass
class Tally:
    """What the trials of a kind came to."""

    trials: int = 0
    runs: int = 0
    failed: int = 0
    requests: int = 0
    ideal: int = 0
    faults: list[str] = field(default_factory=list)


def go_through(kind: str, seed: int, tally: Tally) -> None:
    """One trial."""
    trial = Trial(kind, seed)
    tally.trials += 1
    complete = False
    """Whether a quiet full pass has succeeded: what came back as it was, no delta tells."""
    for full, quiet in trial.runs():
        where = f"{kind} {seed}, {'quiet' if quiet else 'change'}, {'full' if full else 'delta'}: "
        before = trial.server.requests
        tally.runs += 1
        try:
            trial.run(full=full)
            failed = False
        except OneRosterError as error:
            failed = True
            tally.failed += 1
            if quiet and trial.is_readable:
                tally.faults.append(f"{where}{error.what}")
        asked = trial.server.requests - before
        if asked > 60 + 20 * (len(trial.school.keys) + 1):
            tally.faults.append(f"{where}{asked} requests")
        if quiet and not failed and not trial.says("no row matches"):
            page = min(trial.settings.page_size, trial.habits.most, *trial.habits.caps)
            tally.requests += asked
            tally.ideal += len(trial.school.keys) // page + 1 if full else 1
            complete |= full
            if complete and (wrong := trial.wrong()):
                tally.faults.append(f"{where}{len(wrong)} rows, {wrong[:3]}")
            if full and trial.habits.repeats and _repeated(trial) and not _told_of_repeats(trial):
                tally.faults.append(f"{where}nothing is said of ids that came more than once")


def _repeated(trial: Trial) -> bool:
    truth = trial.server.truth(trial.own_filter)
    return len(trial.server.rows(trial.own_filter)) > len(truth)


def _told_of_repeats(trial: Trial) -> bool:
    return trial.says("more than one") or trial.says("more than once")


def _never(*_: object) -> bool:
    return False


def _loses(*_: object) -> bool:
    raise position.StartOver


def _takes_lists_alone(parser: PageParser, body: bytes) -> Any:
    if b"[" not in body:
        raise OneRosterError("no list")
    return _parse(parser, body)


def _takes_it_for_the_start(place: Any, keys: Any, offset: int, start: int, new: int) -> None:
    if place.seen.rows and place.begin[0] in keys[start:]:
        raise position.StartOver
    _take(place, keys, offset, start, new)


_parse, _take = PageParser.parse, Position.take
WEAKENED: dict[str, list[tuple[object, str, Any]]] = {
    # what is taken out of the program, so that servers of a kind must find it out
    "ties": [(module, "coarse", str) for module in (paging_pass, position)],
    "window": [(PagingPass, "_is_last", _never), (PagingPass, "_is_complete", _never)],
    "clamp": [(PagingPass, "_is_elsewhere", _loses), (PagingPass, "_is_last", _never)],
    "nothing": [(PageParser, "parse", _takes_lists_alone)],
    "filters": [(ReadRequest, "misses", _never)],
    "repeats": [(Buffer, "conflicting_ids", lambda buffer: set())],
    "first again": [(Position, "take", _takes_it_for_the_start)],
    "unsorted": [(module, "refuses_sort", _never) for module in (collection, page_requests)],
    "refusals": [(collection, "smaller_limits", lambda limit: ())],
}


@pytest.mark.parametrize("kind", WEAKENED)
@pytest.mark.sample(2)
def test_a_program_that_lacks_one_care_is_found_out(kind: str, monkeypatch) -> None:
    """So that the servers stay as nasty as they have to be: within 30 trials."""
    for where, name, instead in WEAKENED[kind]:
        monkeypatch.setattr(where, name, instead)
    tally = Tally()
    for seed in range(30):
        # what comes twice, the trial itself refuses
        with suppress(AssertionError):
            go_through(kind, seed, tally)
            if not tally.faults:
                continue
        return
    pytest.fail("nothing was found")


@pytest.mark.slow
@pytest.mark.parametrize("trials", [1, slow(2), later(100)])
def test_nothing_is_lost_without_a_word(trials: int) -> None:
    form = "{:14}{:>8}{:>8}{:>8}{:>12}{:>8}"
    print("", form.format("kind", "trials", "runs", "failed", "requests", "faults"), sep="\n")  # noqa: T201
    faults = []
    for kind in (*KINDS, "together"):
        tally = Tally()
        for seed in range(trials):
            go_through(kind, seed, tally)
        over = f"{tally.requests / max(1, tally.ideal) - 1:+.0%}"
        print(form.format(kind, tally.trials, tally.runs, tally.failed, over, len(tally.faults)))  # noqa: T201
        faults += tally.faults
    assert not faults, "\n".join(faults[:50])
