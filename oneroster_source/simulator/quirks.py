"""How a provider departs from the vendor's text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

Total: TypeAlias = Literal["right", "none", "page", "unfiltered", "zero", "low", "high", "text"]
References: TypeAlias = Literal["object", "string", "sourceId"]
Empty: TypeAlias = Literal["absent", "null", "blank"]
Stamps: TypeAlias = Literal["millis", "seconds", "offset", "seven"]
Envelope: TypeAlias = Literal["plain", "bare", "lower"]
Order: TypeAlias = Literal["sourcedId", "inserted", "modified", "random"]


@dataclass(frozen=True)
class Quirks:
    """How a provider departs from the vendor's text; the defaults are the text to the letter."""

    cap: int | None = None
    """The most rows in a page, whatever the limit; None for no cap."""
    total: Total = "right"
    """What X-Total-Count says: low is about half, high double and five more, text is "many"."""
    refs: References = "object"
    """References as {"sourcedId", "type", "href"}, as the id alone, or with "sourceId"."""
    empty: Empty = "absent"
    """Missing values: left out, null, or blank ("", [] for lists, null for references)."""
    flags: Literal["json", "text"] = "json"
    """Booleans as true or as "true"."""
    stamps: Stamps = "millis"
    """dateLastModified with milliseconds, whole seconds, at +01:00, or with seven digits."""
    envelope: Envelope = "plain"
    """{"academicSessions": [...]}, the list bare, or the key in lower case."""
    ignore_limit: bool = False
    ignore_offset: bool = False
    ignore_sort: bool = False
    ignore_filter: bool = False
    refuse_sort: bool = False
    """400 on any sort."""
    refuse_filter: bool = False
    """400 on any filter."""
    single_filter: bool = False
    """400 on more than one predicate."""
    order: Order = "sourcedId"
    """The order when no sort is asked for or sort is ignored; random is new at every request."""
    repeat_page: bool = False
    """Every second request to a collection gets the answer to the one before it (a stale cache)."""


TOTALS: dict[Total, Callable[[int, int, int], str | None]] = {
    "right": lambda found, _page, _every: str(found),
    "none": lambda _found, _page, _every: None,
    "page": lambda _found, page, _every: str(page),
    "unfiltered": lambda _found, _page, every: str(every),
    "zero": lambda _found, _page, _every: "0",
    "low": lambda found, _page, _every: str(found // 2),
    "high": lambda found, _page, _every: str(found * 2 + 5),
    "text": lambda _found, _page, _every: "many",
}
"""X-Total-Count from the rows found, in the page, and in the collection; None: not sent."""
