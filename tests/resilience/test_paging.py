"""Reading while the collection changes: the reader and the cursors against a school in memory.

A school with a clock of its own changes between any two requests. It is loaded in some runs under
change, full passes and deltas, then in a quiet delta and a quiet full pass. After the quiet delta
the destination has every row of the server as it is; after the quiet full pass it has nothing else.
A run that is given up (`IncompleteRead`) loads nothing and moves no cursor. Readers as they are
usually written go through the same schools, to show that these can lose rows.

1,000 seeds of each scenario: `uv run pytest -m campaign tests/resilience/test_paging.py -s -n 0`.
It prints

- requests, over the ideal: of one who knows all and is not disturbed, who needs the pages that hold
  the rows in scope at the end of the run, and one to see the end. The overlap of pages is not
  ideal: it costs a page of 2 rows one half, and a page of 100 rows a hundredth;
- runs given up; rows lost by this reader; rows lost by plain ones, in order of `dateLastModified`
  and of `sourcedId`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from support import later
from support.provider import (
    DAY,
    AnyOrder,
    Change,
    Row,
    School,
    add,
    future,
    purge,
    tie,
    tombstone,
    update,
)

from oneroster_source.client.paginator import Page, PageSource, read
from oneroster_source.config.settings import Settings, resolve
from oneroster_source.errors import IncompleteRead
from oneroster_source.extract.cursors import Cursors

SCENARIOS: dict[str, tuple[Change, ...]] = {
    "updates": (update,),
    "ties": (tie, update),
    "purges": (purge, purge, add),
    "tombstones": (tombstone, update),
    "adds": (add,),
    "late": (update, add),
    "skew": (update, update, future),
    "large rows": (update, add),
    "all": (update, tie, purge, tombstone, add, add, future),
}

# a row that never comes with the one before proves nothing; two passes have to agree, in which
# nothing may change
GIVEN_UP_OFTEN = ("large rows",)


class Rows:
    """A buffer that keeps the rows, and gives out the newest of each."""

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._repeats = False

    def clear(self) -> None:
        self._rows, self._repeats = [], False

    def add(self, content: list[Row], start: int) -> None:
        self._rows += content[start:]

    def keys(self) -> set[str]:
        return {row.key for row in self._rows}

    def keys_of(self, content: list[Row]) -> list[str]:
        return [row.key for row in content]

    def expect_repeats(self) -> None:
        self._repeats = True

    def newest(self, until: datetime) -> datetime | None:
        return max((row.stamp for row in self._rows if row.stamp <= until), default=None)

    def unique(self) -> dict[str, Row]:
        found: dict[str, Row] = {}
        for row in self._rows:
            if row.key not in found or row.stamp >= found[row.key].stamp:
                found[row.key] = row
        assert self._repeats or len(found) == len(self._rows), "a row came twice, unannounced"
        return found


@dataclass
class Server:
    """Answers for a school, in its own way, within one run."""

    school: School
    random: Random
    cap: int
    default: int
    """Rows of a page that is asked for without a limit."""
    total: str
    sorts_down: bool
    tells_time: bool
    heavy: bool = False
    """Whether some rows are so large that they never come with the row before."""
    since: datetime | None = None
    arrange: Callable[[list[str]], list[str]] | None = None
    requests: int = 0
    started: datetime | None = None

    def in_scope(self) -> list[str]:
        rows, keys = self.school.rows, self.school.keys
        if self.since is not None:
            keys = [key for key in keys if rows[key].stamp > self.since]
        return keys if self.arrange is None else self.arrange(keys)

    def page(self, offset: int | None, limit: int | None) -> Page[list[Row]]:
        self._receive()
        keys = self.in_scope()
        totals = {"right": len(keys), "unfiltered": len(self.school.rows), "none": None}
        first = offset or 0
        keys = keys[first : first + min(limit or self.default, self.cap)]
        if self.heavy:
            ends = (i for i, key in enumerate(keys) if i and int(key) % 20 == 0)
            keys = keys[: next(ends, None)]
        return Page(keys, [self.school.rows[key] for key in keys], totals[self.total])

    def down(self, offset: int, rows: int) -> list[str] | None:
        self._receive()
        return self.in_scope()[::-1][offset : offset + rows] if self.sorts_down else None

    def unfiltered(self) -> int | None:
        return {"right": len(self.school.rows), "none": None}.get(self.total, len(self.school.rows))

    def _receive(self) -> None:
        self.requests += 1
        self.school.tick()
        if self.started is None and self.tells_time:
            # as a Date header says it
            self.started = self.school.now.replace(microsecond=0)


class Trial:
    """A school of a scenario, and a destination that it is loaded into, run by run."""

    def __init__(self, scenario: str, seed: int, settings: Settings) -> None:
        self.random = random = Random(f"{scenario} {seed}")
        rows = random.choice((random.randint(0, 20), random.randint(20, 120), 300))
        self.school = School(random, rows, SCENARIOS[scenario])
        self.pace = random.choice((0.05, 0.3, 1))
        self.limit = random.choice((2, 5, 10, 20, 50, 100))
        self.ahead = random.choice((1, 1, 2, 4, 8))
        skewed = scenario in ("skew", "all")
        self.skew = random.uniform(-1, 1) * DAY if skewed else timedelta()
        """How much our clock is ahead of the server's."""
        late = scenario in ("late", "all")
        lag = random.choice((60, 3600, 86400) if late else (0, 60, 86400))
        self.server = Server(
            self.school,
            random,
            cap=random.choice((10**9, 10**9, 3, 10, 40)),
            default=random.choice((100, 10**9)),
            total=random.choice(("right", "right", "unfiltered", "none")),
            sorts_down=random.random() < 0.8,
            tells_time=random.random() < 0.8,
            heavy=scenario == "large rows",
        )
        if not self.server.tells_time:
            # then our clock is all there is, and the lag has to make up for its error
            lag = 86400
        self.school.late = timedelta(seconds=lag) if late else timedelta()
        if not self.server.tells_time:
            self.school.late = max(timedelta(), self.school.late - max(timedelta(), self.skew))
        self.settings = replace(settings, lag=lag, full_refresh_days=3650)
        self.state: dict[str, Any] = {}
        self.destination: dict[str, Row] = {}

    def runs(self) -> Iterator[tuple[bool, bool]]:
        """Whether each run is a full pass, and whether it is quiet."""
        plan = [False] * self.random.randint(2, 4)
        plan[self.random.randrange(len(plan))] = True
        for full in (True, *plan):
            self.school.wait(self.random.random() * 3 * DAY, self.random.randint(0, 6))
            self.school.pace = self.pace
            yield full, False
        self.school.pace = 0
        for full in (False, True):
            self.school.wait(timedelta(hours=1), 0)
            yield full, True

    def wrong(self) -> int:
        """Rows of the server that the destination does not have as they are."""
        return sum(self.destination.get(key) != row for key, row in self.school.rows.items())

    def run(self, *, full: bool) -> int:
        """Loads what the reader gives; returns the rows that it passed over."""
        cursors = Cursors(self.state, self.settings.dialect["users"], self.settings)
        now = self.school.now + self.skew
        ask = cursors.next_request("1", full=full, now=now)
        server = self.server
        server.since, server.started = ask.since, None
        before = [self.school.rows[key] for key in server.in_scope()]
        sink = Rows()
        source = PageSource(
            server.page,
            self.limit,
            server.down,
            unfiltered_total=server.unfiltered if ask.since else None,
            known_page=ask.page,
            ahead=self.ahead,
            executor=AnyOrder(self.random) if self.ahead > 1 else None,
        )
        page = read(source, sink)
        rows = sink.unique()
        if ask.mode == "full":
            # whether it is too much to be believed is another question
            for key in self.destination.keys() - rows.keys():
                del self.destination[key]
        self.destination |= rows
        clock = server.started or now
        cursors.advance("1", Read(ask.mode, clock, sink.newest(clock), page), now=now)
        return sum(row == self.school.rows.get(row.key) != rows.get(row.key) for row in before)


@dataclass
class Read:
    """What the cursors want to know of a collection."""

    mode: str
    clock: datetime
    newest: datetime | None
    page: int
    answer: str = ""

    def fingerprint(self, since: datetime) -> str:
        return ""


def run_plainly(trial: Trial, *, full: bool, by: str) -> None:
    """Reads as is often done: to the first short page, and from the newest stamp on.

    To make it easy, its pages are never cut short.
    """
    server = trial.server
    newest: datetime = trial.state.get("newest", datetime.min.replace(tzinfo=UTC))
    server.since = None if full else newest
    if by == "dateLastModified":
        server.arrange = lambda keys: sorted(keys, key=lambda key: trial.school.rows[key].stamp)
    server.cap, server.heavy = 10**9, False
    rows: dict[str, Row] = {}
    content: list[Row] | None = None
    offset = 0
    while content is None or len(content) == trial.limit:
        content = server.page(offset, trial.limit).content
        rows |= {row.key: row for row in content}
        offset += trial.limit
    if full:
        trial.destination.clear()
    trial.destination |= rows
    trial.state["newest"] = max([newest, *(row.stamp for row in rows.values())])


@dataclass
class Tally:
    """What the trials of a scenario came to."""

    trials: int = 0
    runs: int = 0
    given_up: int = 0
    requests: Counter[str] = field(default_factory=Counter)
    ideal: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    """Where the reader went wrong."""
    plain: Counter[str] = field(default_factory=Counter)
    """Rows that plain readers lost, by the order they read in."""

    def over(self, when: str) -> str:
        return f"{self.requests[when] / self.ideal[when] - 1:+.0%}"


def go_through(scenario: str, seed: int, settings: Settings, tally: Tally) -> None:
    """One trial of the reader, and of each plain one."""
    trial = Trial(scenario, seed, settings)
    server = trial.server
    tally.trials += 1
    for full, quiet in trial.runs():
        when = "quiet" if quiet else "change"
        where = f"{scenario} {seed}, {when}, {'full' if full else 'delta'}: "
        asked = server.requests
        tally.runs += 1
        try:
            if passed_over := trial.run(full=full):
                tally.lost.append(f"{where}{passed_over} rows passed over")
        except IncompleteRead as error:
            tally.given_up += 1
            if quiet:
                tally.lost.append(f"{where}{error}")
        tally.requests[when] += server.requests - asked
        tally.ideal[when] += -(-len(server.in_scope()) // min(trial.limit, server.cap)) + 1
        if quiet and (wrong := trial.wrong()):
            tally.lost.append(f"{where}{wrong} rows are not as the server has them")
    if gone := trial.destination.keys() - trial.school.rows:
        tally.lost.append(f"{scenario} {seed}: {len(gone)} rows are still there")
    for by in ("dateLastModified", "sourcedId"):
        trial = Trial(scenario, seed, settings)
        for full, quiet in trial.runs():
            run_plainly(trial, full=full, by=by)
            if quiet:
                break
        tally.plain[by] += trial.wrong()


@pytest.fixture
def settings() -> Settings:
    return resolve(rp="rp", estab="1", shared_secret="secret")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nothing_is_lost_while_rows_change(scenario: str, settings: Settings) -> None:
    tally = Tally()
    for seed in range(10):
        go_through(scenario, seed, settings, tally)
    assert not tally.lost
    assert tally.given_up <= tally.runs // 20 or scenario in GIVEN_UP_OFTEN
    assert tally.plain["dateLastModified"] + tally.plain["sourcedId"] > 0


def test_a_place_that_was_set_back_is_read_on_from_over_rows_that_are_known(
    settings: Settings,
) -> None:
    """Rows leave so fast that the end seems to be where the reading was set back to."""
    tally = Tally()
    go_through("purges", 91, settings, tally)
    assert not tally.lost


@pytest.mark.parametrize("trials", [2, later(1000)])
def test_nothing_is_lost_in_many_trials_of_each_scenario(settings: Settings, trials: int) -> None:
    """Run it with: uv run pytest -m campaign tests/resilience/test_paging.py -s -n 0"""
    form = "{:12}{:>8}{:>8}{:>10}{:>10}{:>10}{:>8}{:>12}{:>12}"
    titles = ("scenario", "trials", "runs", "change", "quiet", "given up", "lost")
    lines = [form.format(*titles, "by date", "by id")]
    lost = []
    for scenario in SCENARIOS:
        tally = Tally()
        for seed in range(trials):
            go_through(scenario, seed, settings, tally)
        figures = (tally.trials, tally.runs, tally.over("change"), tally.over("quiet"))
        plain = (tally.plain["dateLastModified"], tally.plain["sourcedId"])
        lines.append(form.format(scenario, *figures, tally.given_up, len(tally.lost), *plain))
        lost += tally.lost
        # in two trials, chance is everything
        assert min(plain) > 0 or trials < 1000
        assert tally.given_up < tally.runs / 30 or scenario in GIVEN_UP_OFTEN or trials < 1000
    print("", *lines, *lost, sep="\n")  # noqa: T201
    assert not lost


def test_a_provider_with_another_order_at_every_request_is_believed_by_its_number_alone() -> None:
    given_up = 0
    for seed in range(80):
        random = Random(seed)
        count = random.randint(12, 60)
        school = School(random, count, (update,))
        school.pace = random.choice((0, 0.3))
        server = Server(
            school,
            random,
            cap=random.choice((10**9, count // 2)),
            default=count // 2,
            total=random.choice(("right", "none")),
            sorts_down=random.random() < 0.5,
            tells_time=True,
            arrange=lambda keys, random=random: random.sample(keys, len(keys)),
        )
        ahead = random.choice((1, 4))
        sink = Rows()
        try:
            source = PageSource(
                server.page,
                random.randint(5, count - 1),
                server.down,
                ahead=ahead,
                executor=AnyOrder(random) if ahead > 1 else None,
            )
            read(source, sink)
        except IncompleteRead:
            given_up += 1
        else:
            # two passes had as many different rows as the server says that there are
            assert server.total == "right"
            assert sink.unique().keys() == school.rows.keys()
        assert server.requests < 100 + 20 * count
    assert given_up > 70


class Repeating(Server):
    """Answers every second request like the one before it, as a bad cache does."""

    answer: Page[list[Row]] | None = None

    def page(self, offset: int | None, limit: int | None) -> Page[list[Row]]:
        before, self.answer = self.answer, None
        if before is None:
            before = self.answer = super().page(offset, limit)
        return before


def test_answers_to_other_requests_lose_nothing() -> None:
    given_up = 0
    for seed in range(300):
        random = Random(seed)
        school = School(random, random.randint(0, 300), (update,))
        server = Repeating(
            school,
            random,
            cap=random.choice((10**9, 10)),
            default=100,
            total=random.choice(("right", "none")),
            sorts_down=random.random() < 0.5,
            tells_time=True,
        )
        sink = Rows()
        ahead = random.choice((1, 2, 4, 8))
        try:
            source = PageSource(
                server.page,
                random.choice((2, 5, 10, 50)),
                server.down,
                ahead=ahead,
                executor=AnyOrder(random) if ahead > 1 else None,
            )
            read(source, sink)
        except IncompleteRead:
            given_up += 1
        else:
            assert sink.unique().keys() == school.rows.keys(), seed
    assert given_up < 30
