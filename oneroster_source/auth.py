"""Ways to log in. Each makes one token request; `Token` keeps its result while it lives."""

from __future__ import annotations

import threading
import time
from base64 import b64encode
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import orjson

from oneroster_source.config import Settings
from oneroster_source.errors import LoginError, OneRosterError, clean
from oneroster_source.http import Answer, Server, checked
from oneroster_source.schools import School

UNKNOWN_LIFE = 300.0
"""Seconds that a token is used for when the server does not say how long it lives."""
_REMEMBERED = 64
"""Tokens to keep out of messages, in which a server may repeat them: the last ones."""


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """What a way to log in sends."""

    url: str
    authorization: str = field(repr=False)
    form: dict[str, str] | None = field(default=None, repr=False)


def _basic(user: str, password: str) -> str:
    # the raw text: form-encoding it first, as RFC 6749 wants, breaks '|' for Xporter
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode("ascii")


def xporter(school: School, settings: Settings) -> TokenRequest:
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


class Token:
    """A school's bearer token: fetched when first needed, renewed before it ends. Thread-safe."""

    def __init__(self, school: School, settings: Settings, server: Server) -> None:
        self._request = LOGINS[settings.login](school, settings)
        self._server = server
        # the header too: a server may repeat what it was sent
        basic = self._request.authorization.removeprefix("Basic ")
        self._secrets = (school.shared_secret, school.client_secret, basic)
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
        # a school that cannot log in is one that was refused
        self._refusal: OneRosterError | None = school.problem

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must never be shown: the school's secrets and the token."""
        return (*self._secrets, *self._issued)

    def get(self, *, refused: str = "", alone: bool = False) -> tuple[str, bool]:
        """The token to use, and whether this call had to log in for it.

        Args:
            refused: A token that the server refused, so that another is needed.
            alone: Whether to log in for the caller alone, so that nobody else uses the token up.

        Raises:
            LoginError: The server refused, or its answer has no token.
            ConfigurationError: The school has a problem, so that the server was not asked.
            ServerUnavailable: It gave no usable answer; worth another try.
        """
        with self._lock:
            if self._refusal is not None:
                # final: to try the same secret for each endpoint may lock the account
                raise type(self._refusal)(
                    self._refusal.what, where=self._refusal.where, todo=self._refusal.todo
                )
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

    def _login(self) -> tuple[str, float]:
        request = self._request
        answer = self._server.request(
            "POST", request.url, authorization=request.authorization, form=request.form
        )
        if 400 <= answer.status < 500 and answer.status not in (408, 425, 429):
            words = answer.description(self._secrets)
            raise LoginError(
                f"the login was refused with {answer.status}" + (f": {words}" if words else ""),
                where=self._where,
                todo=self._todo
                if answer.status not in (404, 405, 410)
                else "check base_url or token_url: no token endpoint is there",
            )
        return _token(checked(answer, self._secrets), self._secrets, self._where)


def _token(answer: Answer, secrets: tuple[str, ...], where: str) -> tuple[str, float]:
    """The token, and the seconds that it lives."""
    try:
        payload = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        payload = None
    token = payload.get("access_token") if isinstance(payload, dict) else None
    if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
        words = answer.description(secrets)
        raise LoginError(
            "the token endpoint answered 200, but with no token" + (f": {words}" if words else ""),
            where=where,
            todo="check base_url or token_url",
        )
    kind = payload.get("token_type") or "Bearer"
    if str(kind).lower() != "bearer":
        raise LoginError(
            f"the token is of the type {clean(kind, secrets=(*secrets, token), limit=20)!r},"
            " not Bearer",
            where=where,
        )
    try:
        life = float(payload.get("expires_in"))
    except (TypeError, ValueError):
        life = UNKNOWN_LIFE
    return token, life if 0 < life < 10**9 else UNKNOWN_LIFE
