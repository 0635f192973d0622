"""Reads the setting `rollover`: the days on which a new school year is expected."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Literal

YEARLY, EXACT = "MM-DD..MM-DD", "YYYY-MM-DD..YYYY-MM-DD"
_LEAP = 2000
"""A leap year."""


@dataclass(frozen=True, slots=True)
class _Span:
    """A span of days, first and last included."""

    first: date
    last: date
    yearly: bool

    def since(self, day: date) -> date | None:
        if not self.yearly:
            return self.first if self.first <= day <= self.last else None
        begin, end, now = ((d.month, d.day) for d in (self.first, self.last, day))
        if begin <= end:
            return _on(day.year, begin) if begin <= now <= end else None
        # a span over New Year
        if now >= begin:
            return _on(day.year, begin)
        return _on(day.year - 1, begin) if now <= end else None


def _on(year: int, day: tuple[int, int]) -> date:
    month, number = day
    try:
        return date(year, month, number)
    except ValueError:
        return date(year, 3, 1)


@dataclass(frozen=True, slots=True)
class Rollover:
    """The spans of days in which a new school year is expected."""

    spans: tuple[_Span, ...] = ()

    def since(self, day: date) -> date | None:
        """Returns the first day of the span that a day is in, or None."""
        return next((first for s in self.spans if (first := s.since(day)) is not None), None)


def rollover(text: str) -> Rollover:
    """Reads the setting: spans with commas between.

    Raises:
        ValueError: A span is invalid; the message names it.

    Example:
        >>> rollover("08-15..09-15").since(date(2026, 9, 1))
        datetime.date(2026, 8, 15)
    """
    return Rollover(tuple(_spans(text)))


def _spans(text: str) -> Iterator[_Span]:
    for part in text.split(","):
        ends = [end.strip() for end in part.split("..")]
        kinds = {kind for end in ends if (kind := _kind(end))}
        if len(ends) != 2 or len(kinds) != 1 or not all(map(_kind, ends)):
            raise ValueError(f"names {part.strip()!r}, which is neither {YEARLY} nor {EXACT}")
        yearly = kinds == {"yearly"}
        try:
            first, last = (date.fromisoformat(f"{_LEAP}-{e}" if yearly else e) for e in ends)
        except ValueError:
            raise ValueError(f"names {part.strip()!r}, in which a day does not exist") from None
        if not yearly and last < first:
            raise ValueError(f"names {part.strip()!r}, which ends before it begins")
        yield _Span(first, last, yearly)


def _kind(end: str) -> Literal["yearly", "exact", ""]:
    lengths = [len(number) for number in end.split("-") if number.isascii() and number.isdecimal()]
    if len(lengths) != end.count("-") + 1:
        return ""
    return "yearly" if lengths == [2, 2] else "exact" if lengths == [4, 2, 2] else ""
