"""Sends one school's requests: logs in, retries within a budget, and raises our errors alone."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from oneroster_source.client.auth import LoggingIn, Token
from oneroster_source.client.failures import located
from oneroster_source.client.pauses import Paused
from oneroster_source.client.transport import Answer, Server, require_success
from oneroster_source.config.schools import School
from oneroster_source.config.settings import Settings
from oneroster_source.errors import OneRosterError, ServerUnavailable
from oneroster_source.model.filters import encode

T = TypeVar("T")

TRIES = 6
FIRST_WAIT = 0.5
LONGEST_WAIT = 30.0
LOGINS = 2
"""Logins for one request, its retries included, after which a 401 is final."""


@dataclass(frozen=True, slots=True)
class Reply(Generic[T]):
    """What was read from an answer, and what its headers say."""

    value: T
    total: int | None
    date: datetime | None
    warning: str = ""
    """What is odd about the answer, though it was read."""


class Client:
    """Reads one school's data.

    Args:
        school: The school, with its secret.
        settings: The run's settings.
        server: Its server, which may serve other schools too.
        sleep: Waits so many seconds between tries.
    """

    def __init__(
        self,
        school: School,
        settings: Settings,
        server: Server,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.school = school
        self.server = server
        self._token = Token(school, settings, server)
        self._sleep = sleep
        self._left = settings.retry_budget
        self._lock = threading.Lock()

    def get(
        self,
        path: str,
        params: dict[str, str],
        read: Callable[[bytes | bytearray], T],
        *,
        sent: Callable[[], None] = lambda: None,
    ) -> Reply[T]:
        """Gets `path` below the school's base URL, and `read`s the body.

        A try that fails in a way that may pass is repeated, also if `read` raises BadResponse.

        Args:
            path: Such as `/users`.
            params: Query parameters, not yet encoded.
            read: Parses the body.
            sent: Called before each request for data.

        Raises:
            OneRosterError: One of the family, naming school and path.
        """
        url = self.school.base_url + path + ("?" + encode(params) if params else "")
        where = f"school {self.school.estab}, {path.lstrip('/')}"
        if "offset" in params:
            where += f" at offset {params['offset']}"

        logins: list[str] = []

        def once() -> Reply[T]:
            answer = self._authorised(url, sent, logins)
            body, warning = answer.text()
            return Reply(read(body), answer.total, answer.date, warning)

        return self._repeated(once, where)

    def _authorised(self, url: str, sent: Callable[[], None], logins: list[str]) -> Answer:
        """Sends a request with a token; adds the tokens that it logs in for to `logins`."""
        token, refusals = "", 0
        while True:
            # others may use up a token that is renewed for all: after that, one of its own
            alone = bool(refusals) and refusals + len(logins) > 1
            token, new = self._token.get(refused=token, alone=alone)
            if new:
                logins.append(token)
            answer = self.server.request("GET", url, authorization=f"Bearer {token}", sent=sent)
            if answer.status == 200:
                return answer
            if answer.status != 401 or len(logins) >= LOGINS:
                return require_success(answer, self._token.secrets)
            refusals += 1

    def login(self) -> None:
        """Gets a token now, if there is none.

        Raises:
            OneRosterError: As `get`.
        """
        self._repeated(self._token.get, f"school {self.school.estab}, login")

    def _repeated(self, once: Callable[[], T], where: str) -> T:
        tries = pauses = 0
        while True:
            problem: ServerUnavailable
            try:
                return self._in_turn(once, pauses)
            except Paused as paused:
                paused.gate.wait(self._sleep)
                continue
            except LoggingIn:
                self._token.wait()
                continue
            except ServerUnavailable as error:
                problem = located(error, where)
            except OneRosterError as error:
                final = located(error, where)
                break
            if problem.pausing and (problem.status == 429 or pauses < TRIES):
                # limited by the server's pause_budget alone
                pauses += 1
                continue
            tries += 1
            wait = _backoff(tries)
            if tries >= min(TRIES, problem.tries or TRIES) or not self._take(wait):
                final = problem
                break
            self._sleep(wait)
        # raised here, outside the handlers, so that it holds nothing of what went before
        raise final

    def _in_turn(self, once: Callable[[], T], pauses: int) -> T:
        """Makes one try when it is its turn, after so many pauses."""
        with self.server.request_limit:
            try:
                found = once()
            except ServerUnavailable as error:
                if error.pausing:
                    self._pause(error, _backoff(pauses + (error.retry_after is None)))
                raise
            self.server.request_limit.good()
            return found

    def _pause(self, error: ServerUnavailable, least: float) -> None:
        asked = (error.retry_after or 0) + _jitter()
        try:
            self.server.pause(error.pausing, max(least, asked), asked=asked >= least)
        except ServerUnavailable as refused:
            what = f"{error.what} and {refused.what.removeprefix('the server ')}"
            refused.retry_after = error.retry_after
            refused.status, refused.words = error.status, error.words
            raise located(refused, error.where, what) from None

    def _take(self, seconds: float) -> bool:
        """Takes seconds to wait from the school's budget, if it has as many."""
        with self._lock:
            if seconds > self._left:
                return False
            self._left -= seconds
            return True


def _backoff(tries: int) -> float:
    """Returns the seconds to wait after so many failed tries. Random, so that schools that fail
    together do not come back together.
    """
    longest = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (tries - 1)) if tries else 0.0
    return longest * random.uniform(0.5, 1.0)


def _jitter() -> float:
    return random.uniform(0, 0.1)
