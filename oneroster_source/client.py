"""One school's requests: logged in, retried within a budget, every failure one of our errors."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

import tenacity

from oneroster_source.auth import Token
from oneroster_source.config import Settings
from oneroster_source.errors import OneRosterError, ServerUnavailable
from oneroster_source.filters import encode
from oneroster_source.http import Answer, Server, checked
from oneroster_source.schools import School

T = TypeVar("T")

TRIES = 6
FIRST_WAIT = 0.5
LONGEST_WAIT = 30.0
LOGINS = 2
"""Logins of one request, its repeats included, after which a 401 is a denial."""


@dataclass(frozen=True, slots=True)
class Reply(Generic[T]):
    """What was read from an answer, with what its headers said."""

    value: T
    total: int | None
    date: datetime | None


class Client:
    """One school.

    Args:
        school: Whose data, and with which secret.
        settings: The run's settings.
        server: The school's server, which may serve other schools too.
        sleep: Waits between tries, in seconds.
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
        self._budget = settings.retry_budget
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

        A try that fails in a way that may pass is repeated, also when `read` raises BadResponse.

        Args:
            path: Such as `/users`.
            params: Query parameters, not yet encoded.
            read: Takes the body, returns what it holds.
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
            with self.server.turn:
                answer = self._authorised(url, sent, logins)
                return Reply(read(answer.body), answer.total, answer.date)

        return self._repeated(once, where)

    def _authorised(self, url: str, sent: Callable[[], None], logins: list[str]) -> Answer:
        """The answer to a request with a token; `logins` are the tokens that it logged in for."""
        token, refusals = "", 0
        while True:
            # what is renewed for all, the others may use up: after that, a token of its own
            alone = bool(refusals) and refusals + len(logins) > 1
            token, new = self._token.get(refused=token, alone=alone)
            if new:
                logins.append(token)
            sent()
            answer = self.server.request("GET", url, authorization=f"Bearer {token}")
            if answer.status != 401 or len(logins) >= LOGINS:
                return checked(answer, self._token.secrets)
            refusals += 1

    def login(self) -> None:
        """Gets a token now, if there is none.

        Raises:
            OneRosterError: As `get`.
        """
        self._repeated(self._token.get, f"school {self.school.estab}, login")

    def _repeated(self, once: Callable[[], T], where: str) -> T:
        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked: float | None = getattr(error, "retry_after", None)
            # jitter: many schools that fail together do not come back together
            pause = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (state.attempt_number - 1))
            pause *= random.uniform(0.5, 1.0)
            return pause if asked is None else asked + random.uniform(0, 0.1)

        problem: OneRosterError
        try:
            return tenacity.Retrying(
                retry=tenacity.retry_if_exception_type(ServerUnavailable),
                wait=wait,
                stop=lambda state: state.attempt_number >= TRIES or not self._take(state),
                sleep=self._sleep,
                reraise=True,
            )(once)
        except OneRosterError as error:
            asked, what = getattr(error, "retry_after", None), error.what
            if asked is not None and asked > self._left:
                what += (
                    f" (it asks to wait {asked:.0f} s; of the retry_budget of {self._budget:.0f} s,"
                    f" {self._left:.0f} s are left)"
                )
            problem = type(error)(what, where=error.where or where, todo=error.todo)
            problem.words, problem.status = error.words, error.status
            if isinstance(problem, ServerUnavailable):
                problem.retry_after = asked
        # raised here, outside the handler, so that it holds nothing of what went before
        raise problem

    def _take(self, state: tenacity.RetryCallState) -> bool:
        """Takes the coming pause from the school's budget, if it still has that much."""
        with self._lock:
            if state.upcoming_sleep > self._left:
                return False
            self._left -= state.upcoming_sleep
            return True
