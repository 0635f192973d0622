"""Everything the server received, and how much of it at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Request:
    """One request as it was received."""

    estab: str | None
    """The school its token or credentials named; None if they named none."""
    method: str
    path: str
    """A collection, "auth/token", "version", "auth/version", "oauth/token", or the whole path."""
    params: dict[str, str]
    query: str
    """The query as it was written."""
    headers: dict[str, str] = field(repr=False)
    """By names in lower case."""
    status: int = 0
    """What it was answered with; 0 until it is answered, and for ever if it never was."""


class Recorder:
    """Keeps requests in the order of their arrival."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.most_at_once = 0
        self._at_once = 0

    @contextmanager
    def handling(self, request: Request) -> Iterator[int]:
        """Record a request for as long as it is handled; gives its number for `answered`."""
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        self.requests.append(request)
        try:
            yield len(self.requests) - 1
        finally:
            self._at_once -= 1

    def answered(self, number: int, status: int) -> None:
        self.requests[number] = replace(self.requests[number], status=status)
