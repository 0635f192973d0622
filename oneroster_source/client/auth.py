"""Ways to log in, and the token that one school gets."""

from __future__ import annotations

import threading
import time
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from oneroster_source.client.failures import located, with_words
from oneroster_source.client.transport import (
    MOST_TARGET,
    TRANSIENT,
    Answer,
    Server,
    require_success,
)
from oneroster_source.config.schools import School
from oneroster_source.config.settings import Settings
from oneroster_source.errors import LoginError, OneRosterError, clean

UNKNOWN_LIFE = 300.0
"""Seconds for which a token is used if the server does not say how long it is valid."""
_REMEMBERED = 64
"""How many of the last tokens are masked in messages, in which a server may repeat them."""


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A request for a token."""

    url: str
    authorization: str = field(repr=False)
    form: dict[str, str] | None = field(default=None, repr=False)


def _basic(user: str, password: str) -> str:
    # not form-encoded first, as RFC 6749 wants: Xporter does not take an encoded '|'
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode("ascii")


def xporter(school: School, _settings: Settings) -> TokenRequest:
    """Xporter: Basic with `rp|estab` and the shared secret, no body."""
    return TokenRequest(
        f"{school.base_url}/auth/token",
        _basic(f"{school.rp}|{school.estab}", school.shared_secret),
    )


def oauth2(school: School, settings: Settings) -> TokenRequest:
    """OAuth 2.0 client credentials (RFC 6749, 4.4), as other OneRoster 1.1 providers use them."""
    form = {"grant_type": "client_credentials"}
    if settings.scope:
        form["scope"] = settings.scope
    if settings.client_auth == "header":
        return TokenRequest(school.token_url, _basic(school.client_id, school.client_secret), form)
    form |= {"client_id": school.client_id, "client_secret": school.client_secret}
    return TokenRequest(school.token_url, "", form)


LOGINS: dict[str, Callable[[School, Settings], TokenRequest]] = {
    "xporter": xporter,
    "oauth2": oauth2,
}


def _secrets(school: School) -> Iterator[str]:
    pairs = {
        f"{school.rp}|{school.estab}": school.shared_secret,
        school.client_id: school.client_secret,
    }
    for user, secret in pairs.items():
        if secret:
            # a server may repeat the header that it was sent
            yield from (secret, _basic(user, secret).removeprefix("Basic "))


class LoggingIn(Exception):
    """Another thread is logging in for the same school."""


class Token:
    """A school's bearer token: fetched when needed, renewed before it expires. Thread-safe."""

    def __init__(self, school: School, settings: Settings, server: Server) -> None:
        self._request = LOGINS[settings.login](school, settings)
        self._server = server
        self._secrets = tuple(_secrets(school))
        self._issued: deque[str] = deque(maxlen=_REMEMBERED)
        self._todo = (
            "check rp, estab and shared_secret; a school that authorises again gets a new secret"
            if settings.login == "xporter"
            else "check client_id, client_secret, client_auth and scope"
        )
        self._lock = threading.Lock()
        self._value = ""
        self._until = 0.0
        self._where = f"school {school.estab}, login"
        # a school with a problem in its settings is treated as one that was refused
        self._refusal: OneRosterError | None = school.problem

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be shown: the school's secrets and tokens."""
        return (*self._secrets, *self._issued)

    def get(self, *, refused: str = "", alone: bool = False) -> tuple[str, bool]:
        """Returns the token to use, and whether this call logged in for it.

        Args:
            refused: A token that the server refused, so that another is needed.
            alone: Whether to log in for the caller alone, so that nobody else uses the token up.

        Raises:
            LoginError: The server refused, or its answer has no token.
            ConfigurationError: The settings of the school are wrong; nothing was sent.
            ServerUnavailable: There is no usable answer; worth another try.
            Paused: The server has asked for a pause.
            LoggingIn: Another thread logs in: leave the request limit, and `wait`.
        """
        if not self._lock.acquire(blocking=False):
            raise LoggingIn
        try:
            if self._refusal is not None:
                # final: trying the same secret for each endpoint may lock the account
                raise located(self._refusal, self._where)
            if not alone and self._value not in ("", refused) and time.monotonic() < self._until:
                return self._value, False
            try:
                token, life = self._login()
            except LoginError as error:
                self._refusal = error
                raise
            self._issued.append(token)
            if not alone:
                # a tenth of a short life, at most a minute
                self._until = time.monotonic() + life - min(60.0, life / 10)
                self._value = token
            return token, True
        finally:
            self._lock.release()

    def wait(self) -> None:
        """Waits until the other thread has logged in."""
        with self._lock:
            pass

    def _login(self) -> tuple[str, float]:
        problem: OneRosterError
        try:
            return self._ask()
        except OneRosterError as error:
            problem = located(error, self._where)
        # raised here, outside the handler, so that it holds nothing of what went before
        raise problem

    def _ask(self) -> tuple[str, float]:
        request, secrets = self._request, self.secrets
        answer = self._server.request(
            "POST", request.url, authorization=request.authorization, form=request.form
        )
        status = answer.status
        if 200 <= status < 300:
            return _token(answer, secrets)
        what, todo = f"the login was refused with {status}", self._todo
        if 300 <= status < 400:
            what = f"the login was answered with a redirect ({status})"
            if answer.target:
                target = clean(answer.target, secrets=secrets, limit=MOST_TARGET)
                what = f"the login redirects to {target} ({status})"
            todo = "check base_url or token_url: redirects are not followed"
        elif status in TRANSIENT or not 400 <= status < 500:
            require_success(answer, secrets)
        elif status in (404, 405, 410):
            todo = "check base_url or token_url: no token endpoint is there"
        raise with_words(LoginError(what, todo=todo), answer.description(secrets))


def _token(answer: Answer, secrets: tuple[str, ...]) -> tuple[str, float]:
    """Returns the token, and the seconds for which it is valid."""
    payload = answer.json()
    token = payload.get("access_token") if isinstance(payload, dict) else None
    if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
        raise with_words(
            LoginError(
                f"the token endpoint answered {answer.status}, but with no token",
                todo="check base_url or token_url",
            ),
            answer.description(secrets),
        )
    kind = payload.get("token_type") or "Bearer"
    if str(kind).strip().lower() != "bearer":
        said = clean(kind, secrets=(*secrets, token), limit=20)
        raise with_words(
            LoginError(
                "the token is of another type than Bearer",
                todo="ask the provider for OneRoster 1.1 with bearer tokens",
            ),
            said,
        )
    try:
        said = payload.get("expires_in")
        life = UNKNOWN_LIFE if isinstance(said, bool) else float(said)
    except (TypeError, ValueError):
        life = UNKNOWN_LIFE
    return token, life if 0 < life < 10**9 else UNKNOWN_LIFE
