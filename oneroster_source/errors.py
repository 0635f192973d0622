"""Everything that can go wrong, as one family.

    OneRosterError
    ├── ConfigurationError        a setting is missing or wrong
    │   └── FilterError           a filter expression that OneRoster's grammar does not know
    ├── LoginError                the token endpoint refused, or its answer holds no token
    ├── RequestRefused            400: the server does not accept the query
    ├── AccessDenied              401 with a fresh token, or 403
    ├── InsecureServer            its TLS certificate cannot be verified
    ├── EndpointNotFound          404, or a redirect
    ├── ServerUnavailable         no usable answer, however often it was asked
    │   └── BadResponse           an answer that is not the JSON that OneRoster describes
    ├── ResponseTooLarge          an answer larger than max_page_mb
    ├── IncompleteRead            the server's pages do not add up to one collection
    ├── MassDeletion              more deletions than max_delete_share allows wait for a decision
    └── DestinationError          the warehouse cannot be opened or written
        └── DestinationBusy       another run is loading into it

A message says what happened, where (school, endpoint, offset), and what to do. None holds a
secret, a token or a record; none keeps a request or response that would.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]+")


def clean(text: object, *, secrets: tuple[str, ...] = (), limit: int = 200) -> str:
    """Server text, fit for a message: one line, cut, without control characters or `secrets`."""
    line = str(text)
    for secret in secrets:
        if secret:
            line = line.replace(secret, "***")
    line = " ".join(_CONTROL.sub(" ", line).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what led to it, the first cause last."""
    item: BaseException | None = error
    while item is not None:
        yield item
        item = item.__cause__ or item.__context__


class OneRosterError(Exception):
    """Base of all errors of this package.

    Args:
        what: What happened.
        where: School, endpoint and offset, as far as known.
        todo: What the reader of the message can do.
    """

    words = ""
    """The server's own, where they may speak of rows: for a person who asks, and for no log."""

    def __init__(self, what: str, *, where: str = "", todo: str = "") -> None:
        self.what = what
        self.where = where
        self.todo = todo
        super().__init__(
            (f"{where}: " if where else "") + what + (f"\n  What to do: {todo}" if todo else "")
        )


class ConfigurationError(OneRosterError):
    """A setting is missing or has a value that it cannot have."""


class FilterError(ConfigurationError):
    """A filter expression has a field, operator or value that the grammar does not know."""


class LoginError(OneRosterError):
    """The token endpoint refused the credentials or gave no token."""


class RequestRefused(OneRosterError):
    """The server answered 400: it does not accept this filter, sort or paging."""


class AccessDenied(OneRosterError):
    """The token is valid, or freshly renewed, and the server still denies the data."""


class InsecureServer(OneRosterError):
    """The server's TLS certificate cannot be verified; nothing was sent to it."""


class EndpointNotFound(OneRosterError):
    """There is nothing at this address: 404, or a redirect, which is never followed."""


class ServerUnavailable(OneRosterError):
    """The server gave no usable answer within the retries."""

    retry_after: float | None = None
    """Seconds that the server asked to wait."""


class BadResponse(ServerUnavailable):
    """The answer is not JSON, or not the collection that was asked for."""


class ResponseTooLarge(OneRosterError):
    """The answer is larger than what may be kept in memory; to ask again would not help."""


class IncompleteRead(OneRosterError):
    """The pages cannot be put together to a whole collection."""


class MassDeletion(OneRosterError):
    """So many rows would be deleted that it may be a mistake; these deletions wait."""


class DestinationError(OneRosterError):
    """The destination cannot be opened, read or written."""


class DestinationBusy(DestinationError):
    """Another run is loading into the destination; nothing was done."""
