"""Pauses: the times in which no request is sent to a server that gets too many.

A server names the time itself, or we choose it. A pause holds for all requests to the server, and
counts once, by the clock.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from oneroster_source import log
from oneroster_source.errors import ServerUnavailable

Tell = Callable[[str, datetime], None]


class Paused(Exception):
    """A request was not sent, since its server is left alone. Wait for `gate`."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.gate = gate


class Gate:
    """Lets requests to one server pass, or closes until a pause is over. Thread-safe."""

    def __init__(
        self,
        host: str,
        budget: float,
        clock: Callable[[], float],
        tell: Tell,
        about: Mapping[str, Any],
    ) -> None:
        self._host = host
        self._budget = budget
        self._left = budget
        self._clock = clock
        self._tell = tell
        self._about = about
        self._until = 0.0
        self._refused = 0.0
        """A pause that nobody waits for, since it is too long."""
        self._asked = True
        """Whether the server named the time of the last pause."""
        self._lock = threading.Lock()

    def check(self) -> None:
        """Lets a request pass.

        Raises:
            Paused: The pause is not over.
            ServerUnavailable: It is longer than the budget allows.
        """
        with self._lock:
            if self._until <= self._clock():
                return
            if not self._refused:
                raise Paused(self)
            raise self._too_long()

    def wait(self, sleep: Callable[[float], None]) -> None:
        """Waits until the pause is over."""
        while True:
            with self._lock:
                seconds = self._until - self._clock()
                if seconds <= 0 or self._refused:
                    return
            sleep(seconds)

    def pause(self, seconds: float, *, asked: bool = True) -> bool:
        """Closes for so long from now on, at least.

        Args:
            seconds: How long.
            asked: Whether the server named that time.

        Returns:
            Whether it was open.

        Raises:
            ServerUnavailable: That is longer than what is left of the budget.
        """
        with self._lock:
            now = self._clock()
            new = self._until <= now
            more = seconds if new else now + seconds - self._until
            if more <= 0:
                return False
            self._until, self._asked = now + seconds, asked
            self._refused = seconds if more > self._left else 0.0
            if self._refused:
                raise self._too_long()
            self._left -= more
        until = datetime.now(UTC) + timedelta(seconds=seconds)
        self._tell(self._host, until)
        # requests that were under way when it closed report the same pause
        if seconds >= 1 and (new or more >= 1):
            said = (
                f"{self._host} asked for a pause of {seconds:.0f} s; waiting"
                if asked
                else f"too many requests at {self._host}: waiting {seconds:.0f} s,"
            )
            log.event(
                "pause",
                f"{said} until {until:%H:%M:%S}Z",
                level=logging.WARNING,
                **self._about,
                server=self._host,
                seconds=round(seconds, 1),
                until=until,
            )
        return new

    def _too_long(self) -> ServerUnavailable:
        said = "asks for" if self._asked else "needs"
        error = ServerUnavailable(
            f"the server {said} a pause of {self._refused:.0f} s; of the pause_budget of"
            f" {self._budget:.0f} s, {self._left:.0f} s are left",
            todo="run again later, lower concurrency, or raise pause_budget",
        )
        error.retry_after, error.tries = self._refused, 1
        return error


class Gates:
    """The gates of all servers of a run.

    Args:
        budget: Seconds that all pauses of one server may take.
        clock: A monotonic clock.
        tell: Called with a server and the time at which its pause ends.
        **about: Fields to log with each pause.
    """

    def __init__(
        self,
        budget: float = 900.0,
        *,
        clock: Callable[[], float] = time.monotonic,
        tell: Tell = lambda host, until: None,
        **about: Any,
    ) -> None:
        self._new = (budget, clock, tell, about)
        self._found: dict[str, Gate] = {}
        self._lock = threading.Lock()

    def of(self, host: str) -> Gate:
        with self._lock:
            gate = self._found.get(host)
            if gate is None:
                gate = self._found[host] = Gate(host, *self._new)
            return gate


class RequestLimit:
    """Limits requests at once: half as many after each pause, one more after `GOOD` good answers.

    Enter it for each try, and leave it in between: a school that waits keeps no other one waiting.
    """

    GOOD = 20

    def __init__(self, most: int) -> None:
        self._most = self.limit = most
        self._busy = 0
        self._good = 0
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            while self._busy >= self.limit:
                self._changed.wait()
            self._busy += 1

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._busy -= 1
            self._changed.notify()

    def good(self) -> None:
        """Counts a good answer."""
        if self.limit == self._most:
            return
        with self._changed:
            self._good += 1
            if self._good >= self.GOOD and self.limit < self._most:
                self.limit, self._good = self.limit + 1, 0
                self._changed.notify()

    def fewer(self) -> None:
        """Halves the limit."""
        with self._changed:
            self.limit, self._good = max(1, self.limit // 2), 0
