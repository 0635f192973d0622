"""Credentials and the bearer tokens given for them."""

from __future__ import annotations

import base64
import binascii
import hmac
import math
import secrets
import time
from urllib.parse import unquote_plus


class Tokens:
    """The tokens of one school. One that has expired is still known to be the school's."""

    def __init__(self) -> None:
        self._ends: dict[str, float] = {}
        self._uses: dict[str, float] = {}

    def issue(self, life: float, uses: float = math.inf) -> str:
        token = secrets.token_urlsafe(32)
        self._ends[token] = time.monotonic() + life
        self._uses[token] = uses
        return token

    def known(self, token: str) -> bool:
        return token in self._ends

    def admit(self, token: str) -> bool:
        """Whether the token is good for a request; this request counts as a use of it."""
        self._uses[token] = self._uses.get(token, math.inf) - 1
        return self._uses[token] >= 0 and time.monotonic() < self._ends.get(token, -math.inf)

    def revoke(self) -> None:
        self._ends = dict.fromkeys(self._ends, -math.inf)


def bearer_token(header: str) -> str | None:
    """The token of an Authorization header; None if it holds none."""
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


def basic_credentials(header: str) -> str | None:
    """The `user:password` of an Authorization header as one text; None if it holds none."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(encoded.strip(), validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None


def form_decoded(credentials: str) -> str:
    """Credentials that were form-encoded before base64, as RFC 6749 section 2.3.1 asks."""
    return unquote_plus(credentials)


def same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())
