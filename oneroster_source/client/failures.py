"""What each failure of a request means: one of our errors, which holds text alone. An exception of
`requests` would hold the token and the page."""

from __future__ import annotations

import ssl
import zlib
from typing import TypeVar

from oneroster_source.client.session import TooSlow
from oneroster_source.errors import (
    BadResponse,
    InsecureServer,
    OneRosterError,
    ServerUnavailable,
    clean,
)

E = TypeVar("E", bound=OneRosterError)
_DESCRIPTIONS = ("error_description", "imsx_description", "description", "message", "error")


def worded(error: E, words: str) -> E:
    """The error with the server's own words, which may quote rows or what it was sent: for who
    asks for them, and in no message."""
    if not words:
        return error
    more = "`oneroster check` shows what the server says to it"
    error = type(error)(error.what, where=error.where, todo=f"{error.todo}; {more}")
    error.words = words
    return error


def placed(error: E, where: str, what: str = "") -> E:
    """A new error that says where it happened, if the first one does not; it holds nothing of what
    led to that one."""
    new = type(error)(what or error.what, where=error.where or where, todo=error.todo)
    new.words, new.status = error.words, error.status
    if isinstance(error, ServerUnavailable) and isinstance(new, ServerUnavailable):
        new.retry_after, new.pausing, new.tries = error.retry_after, error.pausing, error.tries
    return new


def description_in(payload: object, levels: int = 3) -> str:
    """The description in an error's JSON: providers wrap it in objects and lists of their own."""
    if isinstance(payload, list):
        payload = dict(enumerate(payload[:1]))
    if not isinstance(payload, dict) or not levels:
        return ""
    own = (payload.get(key) for key in _DESCRIPTIONS)
    inner = (description_in(value, levels - 1) for value in payload.values())
    return next((text for text in (*own, *inner) if isinstance(text, str) and text), "")


def named(error: Exception) -> OneRosterError:
    """Our error for one of `requests`, with nothing of it inside."""
    reasons = _reasons(error)
    names = {type(reason).__name__ for reason in reasons}
    for reason in reasons:
        if isinstance(reason, ssl.SSLCertVerificationError):
            return InsecureServer(
                f"the server's TLS certificate cannot be verified: {clean(reason.verify_message)}",
                todo="check base_url; for a private authority set ca_bundle to its certificates",
            )
    if "SSLError" in names and "SSLEOFError" not in names:
        return InsecureServer(
            "no secure connection to the server can be made", todo="check base_url and ca_bundle"
        )
    if isinstance(error, zlib.error):
        return BadResponse("the answer's compression is broken", todo="ask the provider")
    if TooSlow.__name__ in names:
        slow = ServerUnavailable(
            "the server did not finish its answer in time",
            todo="lower page_size, or raise request_timeout",
        )
        # it has taken some timeouts already
        slow.tries = 2
        return slow
    if names & {"NameResolutionError", "gaierror"}:
        what = "the server's name cannot be resolved"
    elif "ConnectionRefusedError" in names:
        what = "the server refuses the connection"
    elif any("Timeout" in name for name in names):
        what = "the server did not answer in time"
    elif "IncompleteRead" in names:
        what = "the answer broke off"
    else:
        what = "the connection failed"
    return ServerUnavailable(what, todo="check the network and base_url, then run again")


def _reasons(error: BaseException) -> list[BaseException]:
    """An error and all that it wraps."""
    found: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting and len(found) < 50:
        item = waiting.pop()
        if isinstance(item, BaseException):
            found.append(item)
            waiting += [item.__cause__, item.__context__, getattr(item, "reason", None), *item.args]
    return found
