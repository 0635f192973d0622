"""Turns failures of requests into our errors, which hold text alone: an exception of `requests`
would hold the token and the page.
"""

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


def with_words(error: E, words: str) -> E:
    """Adds the server's own words to an error. They may quote rows or secrets, so that only
    `oneroster check-connection` shows them, and no message does.
    """
    if not words:
        return error
    more = "`oneroster check-connection` shows what the server says to it"
    error = type(error)(error.what, where=error.where, todo=f"{error.todo}; {more}")
    error.words = words
    return error


def located(error: E, where: str, what: str = "") -> E:
    """Makes a new error that says where it happened, unless the first one does; it has no cause and
    no context.
    """
    new = type(error)(what or error.what, where=error.where or where, todo=error.todo)
    new.words, new.status = error.words, error.status
    if isinstance(error, ServerUnavailable) and isinstance(new, ServerUnavailable):
        new.retry_after, new.pausing, new.tries = error.retry_after, error.pausing, error.tries
    return new


def description_in(payload: object, levels: int = 3) -> str:
    """Finds the description in an error's JSON: providers wrap it in objects and lists."""
    if isinstance(payload, list):
        payload = dict(enumerate(payload[:1]))
    if not isinstance(payload, dict) or not levels:
        return ""
    own = (payload.get(key) for key in _DESCRIPTIONS)
    inner = (description_in(value, levels - 1) for value in payload.values())
    return next((text for text in (*own, *inner) if isinstance(text, str) and text), "")


def translated(error: Exception) -> OneRosterError:
    """Makes our error for one of `requests`, with nothing of it inside."""
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
        # each try has taken several timeouts
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
    """Returns an error and all that it wraps."""
    found: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting and len(found) < 50:
        item = waiting.pop()
        if isinstance(item, BaseException):
            found.append(item)
            waiting += [item.__cause__, item.__context__, getattr(item, "reason", None), *item.args]
    return found
